"""``python -m vggt_ros.training``: train a VGGT, export its weights, evaluate them on worlds never trained on."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import torch

from vggt_ros.network import VGGT, ConfigError, VGGTConfig
from vggt_ros.training import config as configuration
from vggt_ros.training import state
from vggt_ros.training.loop import Trainer, TrainingError
from vggt_ros.types import DeviceError


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not positive')
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m vggt_ros.training', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    train = commands.add_parser('train', help='train, or go on training')
    train.add_argument('--config', required=True, type=Path, help='YAML or JSON file, see config/train_tiny.yaml')
    train.add_argument('--output', required=True, type=Path, metavar='DIR', help='state, log and weights go here')
    train.add_argument('--resume', action='store_true', help='go on from the state in DIR')
    train.add_argument('--minutes', type=float, default=math.inf, help='stop and save after so many minutes')
    train.add_argument('--steps', type=int, help='length of the whole training, in place of run.steps')
    train.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='torch device')
    train.add_argument('--threads', type=int, default=0, help="CPU threads of torch; 0 = torch's choice")

    export = commands.add_parser('export', help='the mean weights of a state as fp16 safetensors')
    export.add_argument('--state', required=True, type=Path, metavar='DIR', help='output folder of the training')
    export.add_argument('--weights', required=True, type=Path, metavar='FILE', help='file to write')

    evaluate = commands.add_parser('evaluate', help='figures, baselines and plots on unseen worlds')
    evaluate.add_argument('--weights', default='', help='checkpoint file or hub id; default: the embedded network')
    evaluate.add_argument('--worlds', type=_positive, default=200, help='number of worlds, one window each (200)')
    evaluate.add_argument('--size', type=int, default=0, help="longest image side in pixels (the network's)")
    evaluate.add_argument(
        '--output', type=Path, metavar='DIR', help='write evaluation.md and its plots into this folder'
    )
    evaluate.add_argument('--device', default='cpu', help='torch device (cpu)')
    evaluate.add_argument('--threads', type=int, default=0, help="CPU threads of torch; 0 = torch's choice")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    args = _parser().parse_args(arguments)
    try:
        if getattr(args, 'threads', 0):
            torch.set_num_threads(args.threads)
        if args.command == 'train':
            _train(args)
        elif args.command == 'export':
            _export(args.state, args.weights)
        else:
            from vggt_ros.training import evaluate  # needs OpenCV and scipy, which training does not

            evaluate.run(args.weights, args.worlds, args.size, args.output, args.device)
    except _explained() as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def _explained() -> tuple[type[Exception], ...]:
    """The errors whose message tells a user what to do."""
    known = (ConfigError, DeviceError, TrainingError, state.StateError, OSError)
    try:
        from vggt_ros.network.checkpoint import CheckpointError  # needs safetensors, without which it cannot occur
    except ImportError:
        return known
    return (*known, CheckpointError)


def _train(args: argparse.Namespace) -> None:
    config = configuration.load(args.config)
    if args.steps:
        config = replace(config, run=replace(config.run, steps=args.steps))
    trainer = Trainer(config, args.output, torch.device(args.device), resume=args.resume)
    count = sum(parameter.numel() for parameter in trainer.network.parameters())
    print(f'{count / 1e6:.2f} M parameters on {args.device} in {str(trainer.dtype).removeprefix("torch.")}', flush=True)
    with _Progress(config.run.steps, trainer.step) as progress:
        complete = trainer.run(args.minutes, progress.show)
    print(f'{"complete" if complete else "stopped"} at step {trainer.step}, {trainer.minutes:.1f} minutes')


def _export(folder: Path, path: Path) -> None:
    from vggt_ros.network import checkpoint  # needs safetensors

    saved = state.load(folder)
    network = VGGT(VGGTConfig.from_dict(saved['config']['network']), saved['config']['heads'])
    network.load_state_dict(saved['ema'])
    checkpoint.save(network, path, torch.float16)
    print(f'{path}: {path.stat().st_size / 1e6:.1f} MB, step {saved["step"]}')


class _Progress:
    """A bar with the loss and the figures where tqdm is installed, else lines."""

    def __init__(self, steps: int, first: int) -> None:
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar = None
        else:
            self._bar = tqdm(total=steps, initial=first, unit='step', disable=None, dynamic_ncols=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, row: dict[str, float]) -> None:
        """One row of the log."""
        parts = {k: v for k, v in row.items() if k not in ('step', 'minutes', 'learning_rate')}
        text = ' '.join(f'{name} {value:.3g}' for name, value in parts.items())
        if self._bar is None or self._bar.disable:
            print(f'step {row["step"]:.0f} {text}', flush=True)
            return
        self._bar.update(row['step'] - self._bar.n)
        if any(name.startswith('val_') for name in row):
            self._bar.write(f'step {row["step"]:.0f} {text}')
        self._bar.set_postfix_str(f'loss {row["loss"]:.3f}, {row["frames_per_second"]:.0f} frames/s')


if __name__ == '__main__':
    sys.exit(main())
