"""Worlds packed into tensors: B worlds side by side, padded to the same number of primitives of each shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from vggt_ros.synthetic.textures import COUNT, TEXELS, bank, texture_id
from vggt_ros.synthetic.world import BOX, CYLINDER, ELLIPSOID, SyntheticWorld

SHAPES = (BOX, ELLIPSOID, CYLINDER)
_FAR_AWAY = 1e6  # metres; where padding primitives live, too small and too far to be hit


@lru_cache(maxsize=4)
def texture_bank(device: torch.device) -> torch.Tensor:
    """(COUNT * TEXELS,) int32: the texture bank on a device, m + 256 n + 65536 d in a texel; baked once per process."""
    texels = np.zeros((COUNT * TEXELS, 4), np.uint8)
    texels[:, :3] = bank().reshape(-1, 3)
    return torch.from_numpy(texels.view('<i4')[:, 0].astype(np.int32, copy=False)).to(device)


@dataclass(frozen=True, eq=False)
class Scene:
    """B worlds on a device, at F moments each. P primitives in the order of SHAPES; ``split`` counts each shape.

    T_world_primitive: (B, F or 1, P, 4, 4) float64. half: (B, P, 3) float64. material: (B, P, 6) int64 rows of the
    material tables, which are stacked over the batch, so a row number is global. object_id: (B, P) int32.
    surface: (M, 20) float32: size 2, offset 2, palette 9, variation, gloss, mirror, glass, emission, 2 unused.
    texture: (M,) int64. lamp_position, lamp_colour: (B, L, 3). sun, sun_colour: (B, 3). ambient: (B, 2, 3).
    sky: (B, 3, 3). clouds: (B,) int64 textures. bank: the textures. sunny, open_sky, specular: whether any world has a
    sun, a sky, mirrors or glass.
    """

    split: tuple[int, ...]
    T_world_primitive: torch.Tensor
    half: torch.Tensor
    material: torch.Tensor
    object_id: torch.Tensor
    hollow: torch.Tensor
    surface: torch.Tensor
    texture: torch.Tensor
    lamp_position: torch.Tensor
    lamp_colour: torch.Tensor
    sun: torch.Tensor
    sun_colour: torch.Tensor
    ambient: torch.Tensor
    sky: torch.Tensor
    clouds: torch.Tensor
    bank: torch.Tensor
    sunny: bool
    open_sky: bool
    specular: bool

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.half.device

    @classmethod
    def pack(
        cls,
        worlds: SyntheticWorld | Sequence[SyntheticWorld],
        times: np.ndarray | Sequence[float] | None = None,
        device: torch.device | str = 'cpu',
    ) -> Scene:
        """Pack worlds. times: (F,) or (B, F) seconds, one per camera; None: every camera at time 0."""
        worlds = [worlds] if isinstance(worlds, SyntheticWorld) else list(worlds)
        if not worlds:
            raise ValueError('a scene needs at least one world')
        batch = len(worlds)
        times = np.zeros((batch, 1)) if times is None else np.atleast_2d(np.asarray(times, np.float64))
        times = np.broadcast_to(times, (batch, times.shape[-1]))
        if not any(world.moving.any() for world in worlds):
            times = times[:, :1]
        split = tuple(max(int((world.shape == kind).sum()) for world in worlds) for kind in SHAPES)
        count, lamps = sum(split), max(len(world.lights.position) for world in worlds)
        T = np.tile(np.eye(4), (batch, times.shape[1], count, 1, 1))
        T[..., 2, 3] = _FAR_AWAY
        half = np.full((batch, count, 3), 1e-3)
        material = np.zeros((batch, count, 6), np.int64)
        object_id = np.zeros((batch, count), np.int32)
        hollow = np.zeros((batch, count), bool)
        lamp_position, lamp_colour = np.zeros((batch, lamps, 3)), np.zeros((batch, lamps, 3))
        surface, texture, rows = [], [], 0
        for b, world in enumerate(worlds):
            poses = world.poses(times[b])
            for kind, start in zip(SHAPES, np.cumsum((0, *split)), strict=False):
                chosen = np.flatnonzero(world.shape == kind)
                slots = slice(start, start + len(chosen))
                T[b, :, slots] = poses[:, chosen]
                half[b, slots] = world.half[chosen]
                material[b, slots] = world.material[chosen] + rows
                object_id[b, slots] = world.object_id[chosen]
                hollow[b, slots] = np.isin(world.object_id[chosen], world.hollow)
            m = world.materials
            columns = (m.size, m.offset, m.palette.reshape(-1, 9))
            scalars = (m.variation, m.gloss, m.mirror, m.glass, m.emission)
            surface.append(np.concatenate([*columns, *(column[:, None] for column in scalars)], axis=1))
            texture.append(m.texture)
            rows += len(m.texture)
            own = len(world.lights.position)
            lamp_position[b, :own], lamp_colour[b, :own] = world.lights.position, world.lights.colour

        def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)

        lights = [world.lights for world in worlds]
        return cls(
            split=split,
            T_world_primitive=tensor(T, torch.float64),
            half=tensor(half, torch.float64),
            material=tensor(material, torch.int64),
            object_id=tensor(object_id, torch.int32),
            hollow=tensor(hollow, torch.bool),
            surface=tensor(np.concatenate(surface)),
            texture=tensor(np.concatenate(texture), torch.int64),
            lamp_position=tensor(lamp_position),
            lamp_colour=tensor(lamp_colour),
            sun=tensor(np.stack([light.sun for light in lights])),
            sun_colour=tensor(np.stack([light.sun_colour for light in lights])),
            ambient=tensor(np.stack([light.ambient for light in lights])),
            sky=tensor(np.stack([np.zeros((3, 3)) if light.sky is None else light.sky for light in lights])),
            clouds=tensor(np.array([texture_id('clouds', world.seed) for world in worlds]), torch.int64),
            bank=texture_bank(torch.device(device)),
            sunny=any(light.sun_colour.any() for light in lights),
            open_sky=any(light.sky is not None for light in lights),
            specular=any((world.materials.mirror + world.materials.glass).any() for world in worlds),
        )

    def moment(self, frame: int) -> Scene:
        """The scene at one of its moments."""
        if self.T_world_primitive.shape[1] == 1:
            return self
        return replace(self, T_world_primitive=self.T_world_primitive[:, frame : frame + 1])

    def since(self, frame: int) -> Scene:
        """The scene at this one of its moments and all later ones."""
        if self.T_world_primitive.shape[1] == 1:
            return self
        return replace(self, T_world_primitive=self.T_world_primitive[:, frame:])

    def cameras(self, T_world_camera, K) -> tuple[torch.Tensor, torch.Tensor]:
        """Cameras as (B, F, 4, 4) and (B, F, 3, 3) float64 on the scene's device; ValueError if they do not fit."""
        T = torch.as_tensor(T_world_camera, dtype=torch.float64, device=self.device)
        K = torch.as_tensor(K, dtype=torch.float64, device=self.device)
        T = T[None] if T.ndim == 3 else T
        if T.ndim != 4 or T.shape[2:] != (4, 4) or T.shape[0] != len(self.half):
            raise ValueError(f'T_world_camera must be ({len(self.half)}, F, 4, 4), not {tuple(T.shape)}')
        moments = self.T_world_primitive.shape[1]
        if moments not in (1, T.shape[1]):
            raise ValueError(f'the scene was packed for {moments} moments, but there are {T.shape[1]} cameras')
        return T, K.expand(*T.shape[:2], 3, 3)
