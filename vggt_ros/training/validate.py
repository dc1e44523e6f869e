"""The figures of a network in training on a few worlds it never sees: quick, on the training device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vggt_ros.network import VGGT
from vggt_ros.training import metrics, targets
from vggt_ros.training.clips import Clips, Plan, pack, render_plan, shot
from vggt_ros.training.config import TrainConfig
from vggt_ros.training.step import StepOutputs, predict
from vggt_ros.training.windows import Batch, assemble

FIRST_SEED = 500_000
"""Validation worlds have this seed and the following ones, all reserved."""
_AT_ONCE = 8  # windows


class Validation:
    """Fixed windows and what a network makes of them."""

    def __init__(self, config: TrainConfig, device: torch.device, windows: int = 32, frames: int = 6) -> None:
        data = replace(config.data, frames=frames, worlds=windows, bare=0.0, mirrors=0.0)
        stage = config.stages[-1]
        rng = np.random.default_rng(FIRST_SEED)
        shots = [shot(data, stage, rng, FIRST_SEED + number) for number in range(windows)]
        size = (
            stage.longest,
            max(1, round(0.75 * stage.longest / config.network.patch_size)) * config.network.patch_size,
        )
        self.batches = []
        for first in range(0, windows, _AT_ONCE):
            packed = pack(shots[first : first + _AT_ONCE], data, size, rng)
            clips = render_plan(Plan([packed], size, shadows=False), device)
            self.batches.append(_window_batch(clips, data.queries if 'track' in config.heads else 0, rng))

    @torch.no_grad()
    def figures(self, network: VGGT) -> dict[str, float]:
        """The figures of metrics.FIGURES, in float32."""
        scores = metrics.Scores()
        for batch in self.batches:
            frames = range(batch.images.shape[1])
            outputs = predict(network, batch.images, depth_frames=frames, queries=batch.queries)
            add_scores(scores, outputs, batch)
        return scores.figures()


def _window_batch(clips: Clips, queries: int, rng: np.random.Generator) -> Batch:
    """All frames of every clip in order, as they are."""
    places, frames = np.arange(len(clips.depth)), clips.depth.shape[1]
    order = np.tile(np.arange(frames), (len(places), 1))
    return assemble(clips, places, order, rng, jitter=0, noise=0, queries=queries, mirrored=0)


def add_scores(scores: metrics.Scores, outputs: StepOutputs, batch: Batch) -> None:
    """Compare a batch's outputs, whose depth is of all frames, with its truth."""
    truth = batch.truth
    depth_true = _numpy(torch.where(truth.known, truth.depth, torch.nan))
    width, height = truth.depth.shape[3], truth.depth.shape[2]
    for b in range(len(depth_true)):
        if outputs.pose is not None:
            ours, true = outputs.pose[-1][b].double().cpu(), truth.pose[b].double().cpu()
            median = float(np.nanmedian(depth_true[b]))
            scores.add_poses(targets.decode(ours).numpy(), targets.decode(true).numpy(), median)
            sides = np.array([height, width])
            # Focal lengths from fields of view, as a diagonal where K has them.
            focal, focal_true = (sides / 2 / np.tan(one[:, 7:].numpy() / 2) for one in (ours.clamp(max=3.1), true))
            scores.add_focal(_diagonal(focal), _diagonal(focal_true))
        if outputs.depth is not None:
            scores.add_depth(_numpy(outputs.depth[0][b, ..., 0]), depth_true[b])
        if outputs.tracks is not None and outputs.visibility is not None:
            uv, visibility = _numpy(outputs.tracks[-1][b]), _numpy(outputs.visibility[b])
            scores.add_tracks(uv, visibility, _numpy(batch.tracks.uv[b]), _numpy(batch.tracks.visible[b]), width)


def _diagonal(focal: np.ndarray) -> np.ndarray:
    """(S, 2) -> (S, 3, 3)."""
    K = np.zeros((len(focal), 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 2, 2] = focal[:, 1], focal[:, 0], 1
    return K


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
