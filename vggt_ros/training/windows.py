"""Windows: some frames of a clip in some order, with colours changed and the truth in the network's terms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggt_ros.training import augment, targets
from vggt_ros.training.clips import Clips


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows of S frames; the first of each is the world.

    images: (B, S, 3, H, W) in [0, 1]. truth: see :class:`vggt_ros.training.targets.Geometry`.
    queries: (B, Q, 2) pixels of the first frame; tracks: where they are in all S frames.
    """

    images: Tensor
    truth: targets.Geometry
    queries: Tensor
    tracks: targets.TrackTargets


def choose_frames(
    overlap: np.ndarray, places: np.ndarray, count: int, least: float, rng: np.random.Generator
) -> np.ndarray:
    """(B, count) frames of the places (B,), each overlapping one of the others by at least ``least``, in random order.

    overlap: (W, F, F). Where no frame overlaps enough, the one that overlaps most is taken.
    """
    frames = overlap.shape[1]
    chosen = rng.integers(frames, size=(len(places), 1))
    reach = overlap[places, chosen[:, 0]]
    for _ in range(count - 1):
        score = np.where(reach >= least, 1 + rng.random(reach.shape), np.clip(reach, 0, 1))
        np.put_along_axis(score, chosen, -1.0, axis=1)
        best = score.argmax(1)
        chosen = np.concatenate([chosen, best[:, None]], axis=1)
        reach = np.maximum(reach, overlap[places, best])
    return rng.permuted(chosen, axis=1)


def assemble(
    clips: Clips,
    places: np.ndarray,
    frames: np.ndarray,
    rng: np.random.Generator,
    *,
    jitter: float,
    noise: float,
    queries: int,
    mirrored: float = 0.5,
) -> Batch:
    """Windows of ``frames`` (B, S) of the places (B,).

    mirrored: share of the windows that are shown as in a mirror, world and all.
    jitter, noise: see :mod:`vggt_ros.training.augment`.
    queries: points to follow, per window.
    """
    device = clips.depth.device
    row, column = torch.from_numpy(places).to(device)[:, None], torch.from_numpy(frames).to(device)
    images, depth = clips.images[row, column].float() / 255, clips.depth[row, column]
    T_world_camera, K = clips.T_world_camera[row, column], clips.K[row, column]
    flip = torch.from_numpy(rng.random(len(places)) < mirrored).to(device)
    images, depth, T_world_camera, K = mirror(images, depth, T_world_camera, K, flip)
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    chosen, points_z = draw_queries(depth[:, 0], queries, generator)
    first = torch.zeros(len(places), dtype=torch.long, device=device)
    tracks = targets.follow(chosen, points_z, first, depth, T_world_camera, K)
    # A window whose first frame knows too little depth repeats pixels of unknown depth; nobody can follow those.
    followed = (points_z > 0)[:, None]
    tracks = tracks._replace(visible=tracks.visible & followed, judged=tracks.judged & followed)
    images = augment.colours(images, rng, generator, jitter, noise)
    return Batch(images, targets.normalise(depth, T_world_camera, K), chosen, tracks)


def mirror(
    images: Tensor, depth: Tensor, T_world_camera: Tensor, K: Tensor, flip: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows as they look in a mirror, where ``flip`` (B,) says so: images, depth, poses and intrinsics agree."""
    images = torch.where(flip[:, None, None, None, None], images.flip(-1), images)
    depth = torch.where(flip[:, None, None, None], depth.flip(-1), depth)
    sign = torch.ones(4, dtype=T_world_camera.dtype, device=T_world_camera.device)
    sign[0] = -1
    mirrored = sign[:, None] * T_world_camera * sign
    T_world_camera = torch.where(flip[:, None, None, None], mirrored, T_world_camera)
    swapped = K.clone()
    swapped[..., 0, 2] = depth.shape[-1] - 1 - K[..., 0, 2]
    return images, depth, T_world_camera, torch.where(flip[:, None, None, None], swapped, K)


def draw_queries(depth: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random pixels (T, count, 2) of known depth, and that depth (T, count); depth: (T, H, W), 0 unknown."""
    flat = depth.flatten(1)
    score = torch.rand(flat.shape, device=depth.device, generator=generator) + (flat > 0)
    index = score.topk(count, dim=1).indices
    pixels = torch.stack([index % depth.shape[2], index // depth.shape[2]], -1).to(depth.dtype)
    return pixels, flat.gather(1, index)
