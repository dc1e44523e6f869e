"""Clips: what a few cameras see in each of several worlds, rendered on the training device.

The numpy half (worlds, paths) is made by :func:`plan`, in worker processes; :func:`render_plan` renders it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene, texture_bank
from vggt_ros.synthetic.trajectory import CameraPath, make_trajectory
from vggt_ros.synthetic.world import SyntheticWorld
from vggt_ros.training import targets
from vggt_ros.training.config import DataConfig, Stage

RESERVED_SEEDS = 1_000_000
"""Worlds of smaller seeds are never trained on: they belong to tests, demo, validation and evaluation."""
# Worlds of similar size are packed together, so that few primitives are padding.
_PACKED = 16
# Depth beyond so many medians of the clip is as unknown as the sky: ground near the horizon would set the unit.
_FAR = 10.0
# Pixels between the points by which the overlap of two frames is counted.
_GRID = 14


@dataclass(frozen=True, eq=False)
class Clips:
    """What F cameras see in each of W places.

    images: (W, F, 3, h, w) uint8 RGB. depth: (W, F, h, w) float32 z-depth in the source's unit, 0 unknown.
    T_world_camera: (W, F, 4, 4) float64. K: (W, F, 3, 3) float64. overlap: (W, F, F) numpy, the share of a frame's
    points that the other sees, the smaller of both directions.
    """

    images: Tensor
    depth: Tensor
    T_world_camera: Tensor
    K: Tensor
    overlap: np.ndarray

    @classmethod
    def of(cls, images: Tensor, depth: Tensor, T_world_camera: Tensor, K: Tensor) -> Clips:
        """Complete the fields by the overlap, and forget depth that is too far away."""
        sample = depth.flatten(1)[:, :: _GRID + 1]
        median = torch.where(sample > 0, sample, torch.nan).nanmedian(1).values
        depth = torch.where(depth < _FAR * median[:, None, None, None], depth, 0)
        return cls(images, depth, T_world_camera, K, overlap(depth, T_world_camera, K))


class Packed(NamedTuple):
    """A few worlds ready to be rendered. scene: without its textures, as numpy. T_world_camera: (b, F, 4, 4)."""

    scene: Scene
    T_world_camera: np.ndarray
    K: np.ndarray


class Plan(NamedTuple):
    """Worlds and cameras of one set of clips, small enough to travel between processes."""

    packed: list[Packed]
    size: tuple[int, int]
    shadows: bool


def draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One of the keys, by weight."""
    total = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=total / total.sum()))


def image_size(aspect: str, longest: int, patch: int) -> tuple[int, int]:
    """'4x3' -> (width, height) in pixels: the longer is ``longest``, the other the nearest multiple of ``patch``."""
    sides = [float(side) for side in aspect.split('x')]
    width, height = (max(patch, round(longest * side / max(sides) / patch) * patch) for side in sides)
    return width, height


def plan(data: DataConfig, stage: Stage, patch: int, seed: int, number: int) -> Plan:
    """Worlds, paths and cameras number ``number`` of a training; the same arguments give the same plan."""
    rng = np.random.default_rng((seed, number, 1))
    size = image_size(draw(rng, data.aspects), stage.longest, patch)
    shots = sorted((shot(data, stage, rng) for _ in range(data.worlds)), key=lambda one: len(one[0].shape))
    packed = [pack(shots[first : first + _PACKED], data, size, rng) for first in range(0, len(shots), _PACKED)]
    return Plan(packed, size, bool(rng.random() < data.shadows))


Shot = tuple[SyntheticWorld, CameraPath]


def shot(data: DataConfig, stage: Stage, rng: np.random.Generator, seed: int | None = None) -> Shot:
    """A world and a camera path of ``data.frames`` frames through it. seed: of the world; None: one to train on."""
    while True:
        bare, mirrors = rng.random(2) < (data.bare, data.mirrors)
        chosen, clutter = int(rng.integers(RESERVED_SEEDS, 2**31)), float(rng.uniform(*stage.clutter))
        kind, path = draw(rng, stage.worlds), draw(rng, stage.paths)
        rate = float(np.exp(rng.uniform(*np.log(stage.rate))))
        chosen = chosen if seed is None else seed
        world = make_world(kind, chosen, bare=bool(bare), mirrors=bool(mirrors), clutter=clutter)
        try:
            return world, make_trajectory(world, path, chosen, data.frames, rate)
        except RuntimeError:
            continue  # no such path fits into this world


def pack(shots: Sequence[Shot], data: DataConfig, size: tuple[int, int], rng: np.random.Generator) -> Packed:
    """Shots with a camera each, ready to be rendered at ``size`` (w, h)."""
    worlds, paths = zip(*shots, strict=True)
    T = np.stack([path.T_world_camera for path in paths])
    K = np.stack([_intrinsics(rng, data.fov, size) for _ in worlds])[:, None].repeat(T.shape[1], 1)
    return Packed(_detached(Scene.pack(worlds, np.stack([path.times for path in paths]))), T, K)


def _intrinsics(rng: np.random.Generator, fov: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    width, height = size
    focal = max(size) / 2 / np.tan(np.radians(rng.uniform(*fov)) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def _detached(scene: Scene) -> Scene:
    """The scene as numpy, without the textures, which every process has."""
    tensors = {field.name: getattr(scene, field.name) for field in fields(scene)}
    arrays = {name: value.numpy() for name, value in tensors.items() if isinstance(value, Tensor) and name != 'bank'}
    return replace(scene, **arrays, bank=None)  # type: ignore[arg-type]


def _attached(scene: Scene, device: torch.device) -> Scene:
    """The inverse of :func:`_detached`, on a device."""
    arrays = {field.name: getattr(scene, field.name) for field in fields(scene)}
    tensors: dict[str, Any] = {
        name: torch.from_numpy(value).to(device) for name, value in arrays.items() if isinstance(value, np.ndarray)
    }
    return replace(scene, **tensors, bank=texture_bank(device))


def render_plan(plan: Plan, device: torch.device) -> Clips:
    """Render all cameras of a plan on a device."""
    images, depth, T_world_camera, K = [], [], [], []
    for packed in plan.packed:
        rendering = render(
            _attached(packed.scene, device), packed.T_world_camera, packed.K, plan.size, shadows=plan.shadows
        )
        images.append((rendering.rgb * 255).round().to(torch.uint8).movedim(-1, 2))
        depth.append(rendering.depth.nan_to_num(0.0))
        T_world_camera.append(torch.from_numpy(packed.T_world_camera).to(device))
        K.append(torch.from_numpy(packed.K).to(device))
    return Clips.of(torch.cat(images), torch.cat(depth), torch.cat(T_world_camera), torch.cat(K))


def overlap(depth: Tensor, T_world_camera: Tensor, K: Tensor) -> np.ndarray:
    """(W, F, F) share of common surface of every two frames, see :class:`Clips`; arguments as there."""
    places, frames, height, width = depth.shape
    u = torch.arange(_GRID // 2, width, _GRID, device=depth.device)
    v = torch.arange(_GRID // 2, height, _GRID, device=depth.device)
    grid = torch.stack(torch.meshgrid(v, u, indexing='ij'), -1).flatten(0, 1)
    z = depth[:, :, grid[:, 0], grid[:, 1]]  # (W, F, N)
    queries = grid.flip(-1).to(depth.dtype).expand(places, -1, -1)
    shares = []
    for frame in range(frames):
        number = torch.full((places,), frame, device=depth.device)
        tracks = targets.follow(queries, z[:, frame], number, depth, T_world_camera, K)
        known = (z[:, frame] > 0)[:, None]
        shares.append((tracks.visible & known).sum(-1) / known.sum(-1).clamp(min=1))
    share = torch.stack(shares, 1)
    return torch.minimum(share, share.mT).cpu().numpy()
