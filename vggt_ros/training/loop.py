"""The training loop: everything random is a function of (seed, step), so what runs twice or resumes is the same run."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vggt_ros.network import VGGT, dpt_head
from vggt_ros.network.layers import Block
from vggt_ros.network.update_former import AttentionBlock, CrossAttentionBlock
from vggt_ros.training import config as configuration
from vggt_ros.training import init, optim, state, stream
from vggt_ros.training.config import TrainConfig
from vggt_ros.training.hints import Hints
from vggt_ros.training.log import Log
from vggt_ros.training.step import draw_depth_frames, loss_parts, predict
from vggt_ros.training.validate import Validation
from vggt_ros.training.windows import Batch

LOG = 'log.csv'
# A GPU is asked for its losses after so many steps, a CPU after each: asking makes it wait.
_CUDA_PATIENCE = 20
_LOG_STEPS = 20
"""Steps that one row of the log is the mean of."""

Batches = Callable[[TrainConfig, torch.device, int], Iterator[Batch]]


class TrainingError(RuntimeError):
    """A training that cannot go on; the message says why, and what is left."""


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """'auto' is bfloat16 where the device multiplies it fast: GPUs since Ampere, CPUs with AMX."""
    if precision == 'auto':
        if device.type == 'cuda':
            fast = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            fast = device.type == 'cpu' and torch.cpu._is_amx_tile_supported()
        precision = 'bfloat16' if fast else 'float32'
    return getattr(torch, precision)


class Trainer:
    """A network, its optimiser, its mean and its step, in a folder.

    resume: go on from the folder's state; else the folder must hold none. batches: where they come from.
    Raises ConfigError, StateError and TrainingError with the reason.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        device: torch.device,
        *,
        resume: bool = False,
        batches: Batches = stream.batches,
    ) -> None:
        if state.exists(folder) and not resume:
            raise TrainingError(f'{folder} holds the state of a training: --resume it, or choose another folder')
        self.config, self.folder, self.device = config, folder, device
        self.dtype = choose_dtype(config.run.precision, device)
        self.step, self.minutes = 0, 0.0
        self.log = Log(folder / LOG, config.heads)
        self._batches = batches
        self._pending: list[tuple[int, list[str], Tensor, Tensor]] = []
        self._validation: Validation | None = None
        saved = state.load(folder) if resume else None
        self.network = self._make_network().to(device)
        optim.freeze(self.network, config.run.frozen)
        if device.type == 'cuda':
            torch.set_float32_matmul_precision('high')
            # One launch for all frames; the network's own bound is for inference beside other programs.
            dpt_head.FRAMES_AT_ONCE = 1 << 20
        self.hints = None
        if config.loss.hint_attention or config.loss.hint_tokens:
            self.hints = Hints(self.network).to(device)
        learners = {'network': self.network} if self.hints is None else {'network': self.network, 'hints': self.hints}
        self.optimizer = optim.make_adamw(nn.ModuleDict(learners), config.optimizer)
        self.ema = {key: tensor.detach().clone() for key, tensor in self.network.state_dict().items()}
        if saved is not None:
            self._restore(saved)
        if config.run.compile:
            self._compile()

    def _make_network(self) -> VGGT:
        config = self.config
        if config.run.weights:
            from vggt_ros.network import checkpoint  # needs safetensors

            return checkpoint.load(config.run.weights, heads=config.heads, config=config.network).train()
        return init.fresh_network(config.network, config.heads, config.run.seed).train()

    def _compile(self) -> None:
        """Fuse what is made of many small kernels. All blocks of a kind share one compilation, for all window sizes."""
        # Where a compiler fails, the block runs as it is.
        torch._dynamo.config.suppress_errors = True
        for module in self.network.modules():
            if isinstance(module, (Block, AttentionBlock, CrossAttentionBlock)):
                module.compile(dynamic=True)

    # One step ------------------------------------------------------------------------------------------------------

    def train_step(self, batch: Batch) -> None:
        """Forward, backward, update. The losses are looked at later, by :meth:`_look`."""
        config, frames = self.config, batch.images.shape[1]
        rng = np.random.default_rng((config.run.seed, self.step, 3))
        heads = config.stage(self.step).heads or config.heads
        outputs = predict(
            self.network,
            batch.images,
            depth_frames=draw_depth_frames(rng, frames, config.loss.depth_frames),
            queries=batch.queries,
            tracked=max(1, round(config.loss.track_windows * len(batch.images))),
            iterations=config.loss.track_iterations,
            dtype=self.dtype,
            heads=heads,
        )
        parts = loss_parts(outputs, batch, config.loss)
        if self.hints is not None:
            parts |= self.hints.parts(outputs.patches, batch.truth, config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        gradient = optim.clip(self.network, config.optimizer.clip)
        for group in self.optimizer.param_groups:
            group['lr'] = group['share'] * optim.learning_rate(self.step, config.run.steps, config.optimizer)
        self.optimizer.step()
        optim.update_ema(self.ema, self.network, optim.ema_decay(self.step, config.optimizer))
        self._pending.append((self.step, list(parts), torch.stack([*parts.values()]).detach(), gradient.detach()))
        self.step += 1

    def _look(self) -> list[dict[str, float]]:
        """The losses since the last look, by step. Raises TrainingError naming the first that is not finite."""
        pending, self._pending = self._pending, []
        seen = []
        for step, names, losses, gradient in pending:
            values = dict(zip(names, losses.tolist(), strict=True))
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if not bad and not math.isfinite(float(gradient)):
                bad = ['the gradient']
            if bad:
                raise TrainingError(
                    f'step {step}: {", ".join(bad)} is not finite. The state in {self.folder} is from before; '
                    'resume with a smaller learning rate, or look at the data of this step'
                )
            seen.append({'step': step, 'gradient': float(gradient), 'loss': sum(values.values()), **values})
        return seen

    # The run -------------------------------------------------------------------------------------------------------

    def run(self, minutes: float = math.inf, progress: Callable[[dict[str, float]], None] | None = None) -> bool:
        """Train until the last step, for so many minutes, or until SIGINT or SIGTERM, and save. True when complete.

        progress: called with each row of the log.
        """
        run, patience = self.config.run, _CUDA_PATIENCE if self.device.type == 'cuda' else 1
        batches = self._batches(self.config, self.device, self.step)
        started = saved = row_started = time.monotonic()
        before, frames, recent = self.minutes, 0, []
        with _Interrupt() as interrupt:
            while self.step < run.steps and not interrupt.called:
                batch = next(batches)
                frames += batch.images.shape[0] * batch.images.shape[1]
                self.train_step(batch)
                validate = self.step % run.validate_steps == 0 or self.step == run.steps
                if self.step % patience and not validate:
                    continue
                recent += self._look()
                now = time.monotonic()
                self.minutes = before + (now - started) / 60
                if len(recent) >= _LOG_STEPS or validate:
                    row = {name: float(np.mean([one.get(name, 0.0) for one in recent])) for name in recent[-1]}
                    row |= {'step': self.step, 'minutes': self.minutes}
                    row['frames_per_second'] = frames / (now - row_started)
                    row['learning_rate'] = self.optimizer.param_groups[0]['lr']
                    row |= self.validate() if validate else {}
                    self.log.add(row)
                    if progress is not None:
                        progress(row)
                    row_started, frames, recent = time.monotonic(), 0, []
                if now - started > 60 * minutes:
                    break
                if now - saved > 60 * run.save_minutes:
                    self.save()
                    saved = now
            self._look()
            self.save()
        return self.step >= run.steps

    def validate(self) -> dict[str, float]:
        """Figures of the mean weights on worlds never trained on, as columns of the log."""
        if self._validation is None:
            self._validation = Validation(self.config, self.device)
        figures = self._validation.figures(self.mean_network())
        return {f'val_{name}': value for name, value in figures.items()}

    def mean_network(self) -> VGGT:
        """A network with the exponential mean of the weights."""
        network = VGGT(self.config.network, self.config.heads).to(self.device)
        network.load_state_dict(self.ema)
        return network.eval()

    # The state -----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state. What is written shorter than it was is shortened here, too: so going on is resuming."""
        for tensor in self.ema.values():
            tensor.copy_(tensor.to(torch.float16))
        moments = self.optimizer.state_dict()
        short: dict[str, Any] = {'param_groups': moments['param_groups'], 'state': {}}
        for index, entries in moments['state'].items():
            short['state'][str(index)] = kept = {}
            for name, value in entries.items():
                if value.ndim:
                    value.copy_(value.to(torch.bfloat16))
                    value = value.to(torch.bfloat16)
                kept[name] = value
        state.save(
            self.folder,
            {
                'step': self.step,
                'minutes': self.minutes,
                'config': configuration.to_dict(self.config),
                'model': dict(self.network.state_dict()),
                'ema': {key: tensor.to(torch.float16) for key, tensor in self.ema.items()},
                'hints': {} if self.hints is None else dict(self.hints.state_dict()),
                'optimizer': short,
            },
            self.step,
        )

    def _restore(self, saved: dict[str, Any]) -> None:
        try:
            self.network.load_state_dict(saved['model'])
            for key, tensor in self.ema.items():
                tensor.copy_(saved['ema'][key])
            if self.hints is not None:
                self.hints.load_state_dict(saved['hints'])
            moments = saved['optimizer']
            entries = {int(index): one for index, one in moments['state'].items()}
            self.optimizer.load_state_dict({'param_groups': moments['param_groups'], 'state': entries})
        except (RuntimeError, KeyError, ValueError) as error:
            raise TrainingError(
                f'the state in {self.folder} does not fit the configuration: {str(error).splitlines()[0]}. Network, '
                'heads and frozen parts must be those that the training began with'
            ) from error
        self.step, self.minutes = saved['step'], saved['minutes']
        self.log.cut(self.step)


class _Interrupt:
    """While it lasts, the first SIGINT or SIGTERM only sets ``called``: a step in hand is finished, the state saved."""

    def __init__(self) -> None:
        self.called = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._call)
        return self

    def _call(self, number: int, frame: Any) -> None:
        self.called = True
        signal.signal(number, self._before[number])

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
