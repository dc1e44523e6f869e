"""The main job: a player publishes images, the VGGT node solves them, a recorder writes what the node publishes.

Three real processes on a ROS domain of their own, connected over DDS. Without --input a short flight through a
synthetic room is rendered and played. Leaves trajectory, depth and confidence pictures, a coloured cloud, a bag of all
outputs and summary.png in the output folder; when that holds a recording already, in run_2, run_3, ... inside it.

Exit status: 0 done; 1 a process failed or results are missing; 2 the input or an argument is wrong; 3 done, but for
pictures of the input that are damaged; 4 the output cannot be written; 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.recording import (
    CLOUD,
    DEPTH,
    MODEL,
    SUMMARY,
    TRAJECTORY,
    OutputError,
    annotate,
    fresh_folder,
    writing,
)
from vggt_ros.files.sequence import ImageSequence
from vggt_ros.ros.inputs.images import ImageError, to_picture
from vggt_ros.tools import summary
from vggt_ros.tools.live_run import INCOMPLETE, LOGS, DemoError, LiveRun, RunSettings, progress, tell
from vggt_ros.tools.processes import share_folder
from vggt_ros.tools.recorded import Recorded, RecordedError, RunAccuracy, measure

FIRST = 5  # images that are looked at before anything is started
FRAMES, SIZE, WORLD = 60, (320, 240), 'room'


def run(settings: RunSettings) -> int:
    """Everything; the exit status. Raises DemoError, OutputError or SequenceError."""
    _check_overrides(settings.overrides)
    folder = fresh_folder(settings.output)
    if folder != settings.output:
        tell(f'{settings.output} holds a recording already: this one goes to {folder}')
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _fetch_weights(settings.node)
    sequence = _open(settings, folder)
    name = settings.input.absolute().name if settings.input else f'synthetic {WORLD}, seed {settings.seed}'
    tell(f'input: {name}, {sequence.kind}{_extent(sequence)}')
    for note in sequence.notes:
        tell(f'       {note}')
    live = LiveRun(settings, sequence, folder)
    live.execute()
    try:
        recorded = Recorded(folder)
    except RecordedError as error:
        raise DemoError(str(error)) from error
    notes = [*sequence.notes, *live.notes, *(f'not used: {text}' for text in live.damaged)]
    missing = [*live.missing, *recorded.missing()]
    notes += [f'missing: {text}' for text in missing]
    annotate(folder, notes)
    tell('comparing with the truth and drawing')
    accuracy = measure(recorded, sequence)
    with writing(folder / SUMMARY):
        summary.draw(recorded, sequence, accuracy, name, folder / SUMMARY, notes)
    print(report(recorded, accuracy, notes))
    if missing:
        raise DemoError(f'results are missing: {"; ".join(missing)}; the logs are in {folder / LOGS}')
    return INCOMPLETE if live.damaged else 0


def _open(settings: RunSettings, folder: Path) -> ImageSequence:
    path = settings.input
    if path is None:
        path = folder / 'input'
        with writing(path):
            render(path, settings.seed, settings.limit or FRAMES)
    try:
        sequence = open_sequence(
            path, fps=settings.fps, topic=settings.topic, stride=settings.frame_stride, limit=settings.limit
        )
        if sequence.length == 1:
            raise SequenceError(f'{path}: one picture alone; motion and depth want two at least')
        _check_decodable(sequence)
        return sequence
    except FileNotFoundError as error:
        raise SequenceError(str(error)) from error


def _check_decodable(sequence: ImageSequence) -> None:
    """Raises SequenceError when none of the first images can be decoded."""
    problem = None
    for item in islice(sequence, FIRST):
        try:
            to_picture(item.image, longest=256)
        except ImageError as error:
            problem = problem or f'{item.name}: {error}'
        else:
            return
    raise SequenceError(f'{sequence.path}: {problem}; none of the first {FIRST} images can be decoded')


def render(path: Path, seed: int, frames: int) -> None:
    """Write a flight through a synthetic room, with its truth, as a folder of pictures. Raises OSError."""
    from vggt_ros.synthetic import places, trajectory
    from vggt_ros.synthetic import sequence as synthetic
    from vggt_ros.synthetic.writers import write_folder

    world = places.make_world(WORLD, seed)
    way = trajectory.make_trajectory(world, 'handheld', seed, frames)
    K = synthetic.default_intrinsics(SIZE)
    stream = synthetic.render_frames(world, way, K, SIZE)
    write_folder(path, progress(stream, desc='rendering the input', total=frames), K, SIZE)


def _check_overrides(overrides: Sequence[str]) -> None:
    """ROS passes over parameters that a node does not have; a person wants to hear of a slip of the pen."""
    try:
        config = share_folder() / 'config' / 'vggt.yaml'
    except LookupError as error:
        reason = f'{error}: build the workspace and source scripts/env.sh, or source your ROS 2 and its install folder'
        raise DemoError(reason) from error
    known = yaml.safe_load(config.read_text())['/**']['ros__parameters']
    for override in overrides:
        name = override.partition(':=')[0]
        if name not in known:
            raise DemoError(f'{name} is no parameter of the VGGT node; it has {", ".join(sorted(known))}', 2)


def _fetch_weights(node: dict[str, Any]) -> None:
    """Download what comes from the hub now, where its progress and its errors can be seen."""
    source = node.get('weights', '')
    from vggt_ros.network import hub
    from vggt_ros.weights.registry import NETWORKS

    if not source or source in NETWORKS or Path(source).exists():
        return

    where = hub.parse(source)
    if where is None:
        raise DemoError(f'{source} is neither a file nor a hub id such as facebook/VGGT-1B', 2)
    try:
        hub.fetch(*where)
    except hub.HubError as error:
        raise DemoError(str(error)) from error


def report(recorded: Recorded, accuracy: RunAccuracy, notes: Sequence[str] = ()) -> str:
    """Where everything is, and the key figures, for the terminal."""
    status, folder = recorded.status, recorded.folder
    rate = status.get('frames_per_second')
    lines = [
        '',
        f'frames    {len(recorded.trajectory)} placed of {status.get("images_received", 0)} received'
        + (f', {rate:.2g} a second' if rate else ''),
        f'windows   {status["node"].get("windows", "?")} of at most {status["node"].get("window", "?")} frames',
        f'network   {recorded.network or "unknown"}, {status["node"].get("device", "")}',
        f'state     {status.get("state")}, scale {status.get("scale")}',
    ]
    lines += [f'accuracy  {words}' for words in summary.figures(accuracy)]
    if accuracy.why:
        lines.append(f'accuracy  not measured: {accuracy.why}')
    lines += [f'input     {note}' for note in notes]
    lines += [
        '',
        f'picture      {folder / SUMMARY}',
        f'trajectory   {folder / TRAJECTORY}',
        f'pictures     {folder / DEPTH} and {folder / "confidence"}',
        f'cloud        {folder / CLOUD} and {MODEL}' if len(recorded.cloud[0]) else 'cloud        none',
        f'bag          {folder / "outputs"}',
    ]
    return '\n'.join(lines)


def _extent(sequence: ImageSequence) -> str:
    return '' if sequence.length is None else f', {sequence.length} images'


def parse(arguments: list[str] | None = None) -> RunSettings:
    """The command line."""
    first, _, rest = (__doc__ or '').partition('\n\n')
    parser = argparse.ArgumentParser(
        prog='demo', description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--input', type=Path, metavar='PATH', help='folder of pictures, video or bag (ROS 1 or 2); default: synthetic')
    add('--topic', help='image topic of a bag (its only one)')
    add('--fps', type=float, help='pictures per second of an input without stamps')
    add('--frame-stride', type=int, default=1, metavar='K', help='play every K-th picture (1)')
    add('--limit', type=int, metavar='N', help='play at most N pictures')
    add('--seed', type=int, default=0, help='of the synthetic input (0)')
    add('--output', type=Path, default=Path('demo_output'), metavar='DIR', help='where the results go (demo_output)')
    add('--weights', metavar='W', help='.safetensors or .pt file, or hub id (facebook/VGGT-1B); default: embedded')
    add('--device', help='torch device (auto)')
    add('--window', type=int, metavar='N', help="most frames the network sees at once (the node's default)")
    add('--stride', type=int, metavar='N', help='new frames for each window')
    add('--image-size', type=int, metavar='PX', help="longest side of the network's image, a multiple of 14")
    add('--param', action='append', default=[], metavar='NAME:=VALUE', help='any other parameter of the VGGT node')
    args = parser.parse_args(arguments)
    for text in args.param:
        if not re.fullmatch(r'[\w.]+:=.*', text):
            parser.error(f'--param {text}: wanted NAME:=VALUE')
    node = {name: getattr(args, name) for name in ('weights', 'device', 'window', 'stride', 'image_size')}
    return RunSettings(
        input=args.input,
        output=args.output,
        topic=args.topic,
        fps=args.fps,
        frame_stride=args.frame_stride,
        limit=args.limit,
        seed=args.seed,
        node={name: value for name, value in node.items() if value is not None},
        overrides=args.param,
    )


def main(arguments: list[str] | None = None, execute: Callable[[RunSettings], int] = run) -> int:
    """Run the demo; the exit status. Ctrl-C and SIGTERM stop all processes and leave what was recorded."""
    settings = parse(arguments)
    # SIGINT too: a shell that starts us in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return execute(settings)
    except SequenceError as error:
        return _fail(str(error), 2)
    except OutputError as error:
        return _fail(str(error), 4)
    except DemoError as error:
        return _fail(str(error), error.code)
    except KeyboardInterrupt:
        return _fail('interrupted; what was recorded until now is complete', 130)


def _fail(text: str, code: int) -> int:
    print(f'demo: {text}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
