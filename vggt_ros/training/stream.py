"""The stream of batches: every batch is a function of the configuration and its step, so a resume is exact.

Rendering costs as much as training, so clips are used again: there are ``slots`` sets of clips, step t shows slot
t % slots, and a slot's set is replaced after ``uses`` visits, a different slot every time. Each use draws other frames,
another order, other colours, and mirrors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vggt_ros.synthetic.scene import texture_bank
from vggt_ros.training.clips import Clips, Plan, plan, render_plan
from vggt_ros.training.config import TrainConfig
from vggt_ros.training.schedule import births, born
from vggt_ros.training.windows import Batch, assemble, choose_frames

# Plans that each worker keeps ready.
_AHEAD = 2


class _Plans(Dataset):
    """Set of clips number n -> its plan."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def __getitem__(self, number: int) -> Plan:
        config = self.config
        return plan(config.data, config.stage(number), config.network.patch_size, config.run.seed, number)


def rendered(config: TrainConfig, device: torch.device, first: int) -> Iterator[Clips]:
    """The clips that steps from ``first`` on want, rendered; worlds are built ahead in worker processes."""
    workers = config.run.workers
    if workers < 0:
        # On a CPU the network itself wants all cores.
        workers = 0 if device.type == 'cpu' else max(1, min(14, (os.cpu_count() or 2) - 2))
    # Baked before the workers fork, or each would bake its own.
    texture_bank(torch.device('cpu'))
    loader = DataLoader(
        _Plans(config),
        batch_size=None,
        sampler=births(first, config.data),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        multiprocessing_context='fork' if workers else None,
        collate_fn=_as_it_is,
    )
    for one in loader:
        yield render_plan(one, device)


def _as_it_is(item: Any) -> Any:
    return item


ClipSource = Callable[[TrainConfig, torch.device, int], Iterator[Clips]]


def source_of(config: TrainConfig) -> ClipSource:
    """Where clips come from: recordings if the configuration names any, else rendered worlds."""
    if not config.data.folders:
        return rendered
    from vggt_ros.training.dataset import recorded  # needs OpenCV

    return recorded


def batches(config: TrainConfig, device: torch.device, first: int = 0) -> Iterator[Batch]:
    """The batches of steps ``first``, ``first + 1``, ... without end."""
    data, clips = config.data, source_of(config)(config, device, first)
    shown: dict[int, tuple[int, Clips]] = {}
    step = first
    while True:
        slot, number = step % data.slots, born(step, data)
        if slot not in shown or shown[slot][0] != number:
            shown.pop(slot, None)  # frees its memory before the next one is rendered
            shown[slot] = (number, next(clips))
        yield draw_batch(config, shown[slot][1], number, step)
        step += 1


def draw_batch(config: TrainConfig, clips: Clips, number: int, step: int) -> Batch:
    """The windows that step ``step`` shows of its clips, number ``number``."""
    data = config.data
    stage = config.stage(number)  # not of the step: clips of the last stage may still be in use
    rng = np.random.default_rng((config.run.seed, step, 2))
    count = int(rng.integers(stage.frames[0], stage.frames[1] + 1))
    windows = max(1, data.frames_per_step // count)
    places = rng.permutation(np.arange(windows) % len(clips.depth))
    frames = choose_frames(clips.overlap, places, count, stage.overlap, rng)
    return assemble(
        clips,
        places,
        frames,
        rng,
        jitter=data.jitter,
        noise=data.noise,
        queries=data.queries if 'track' in config.heads else 0,
    )
