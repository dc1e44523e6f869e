"""Rays against primitives: the first hit of every ray, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch

from vggt_ros.synthetic.scene import Scene

_NEAR = 1e-4  # metres along the ray (times its length); closer hits are the surface the ray starts on
_TILE = 56  # pixels; rays of a tile see only the primitives whose bounding sphere meets the tile's cone
_CPU_PAIRS, _CUDA_PAIRS = 1 << 16, 1 << 24  # ray-primitive pairs worked on at once: the CPU's second-level cache


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Full float32 products whatever the caller trains with: TF32 or bfloat16 rays would miss by centimetres."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of R rays of each of G cameras.

    depth: (G, R) float32, in lengths of the ray's direction, so z-depth where its z is 1; NaN: no hit. primitive: int64
    row in the scene's table, -1: no hit. point: (G, R, 3) in the primitive's unit shape. normal: (G, R, 3) in the
    optical frame, towards the ray's origin. face: int64, as in World.material.
    """

    depth: torch.Tensor
    primitive: torch.Tensor
    point: torch.Tensor
    normal: torch.Tensor
    face: torch.Tensor


@dataclass(frozen=True, eq=False)
class SceneCameras:
    """A scene as G cameras see it, whatever world and moment each belongs to.

    world: (G,) int64 row of the scene. T_world_camera: (G, 4, 4) float64. unit_camera: (G, P, 3, 4) float32 maps of
    optical-frame points into unit shapes. centre: (G, P, 3) of the bounding spheres. pixel: (G,) radians per pixel.
    """

    scene: Scene
    world: torch.Tensor
    T_world_camera: torch.Tensor
    unit_camera: torch.Tensor
    centre: torch.Tensor
    pixel: torch.Tensor

    @classmethod
    def of(cls, scene: Scene, T_world_camera: torch.Tensor, K: torch.Tensor) -> SceneCameras:
        """All cameras of all worlds in order: T_world_camera (B, F, 4, 4), K (B, F, 3, 3), float64, G = B F."""
        batch, frames = T_world_camera.shape[:2]
        T_world_primitive = scene.T_world_primitive
        R_wp, R_wc = T_world_primitive[..., :3, :3], T_world_camera[:, :, None, :3, :3]
        offset = T_world_camera[:, :, None, :3, 3] - T_world_primitive[..., :3, 3]
        R_pc = R_wp.mT @ R_wc
        t_pc = (R_wp.mT @ offset[..., None])[..., 0]
        affine = torch.cat([R_pc, t_pc[..., None]], -1) / scene.half[:, None, :, :, None]
        centre = -(R_wc.mT @ offset[..., None])[..., 0]
        return cls(
            scene,
            torch.arange(batch, device=scene.device).repeat_interleave(frames),
            T_world_camera.flatten(0, 1),
            affine.float().flatten(0, 1),
            centre.float().flatten(0, 1),
            (1 / K[..., 0, 0]).float().flatten(),
        )

    def select(self, cameras: torch.Tensor | slice) -> SceneCameras:
        """Only these cameras."""
        parts = (self.world, self.T_world_camera, self.unit_camera, self.centre, self.pixel)
        return SceneCameras(self.scene, *(part[cameras] for part in parts))


def _interval(kind: int, o: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Entry and exit (G, P, R) of rays o + t d, (G, 3, P, R), through a unit shape; not entry <= exit: missed."""
    if kind == 0:
        return _slabs(o, d)
    axes = 3 if kind == 1 else 2
    o_n, d_n = o[:, :axes], d[:, :axes]
    # Distance of the line to the centre from the closest point itself: b^2 - a c would cancel for small, far shapes.
    a = (d_n * d_n).sum(1)
    middle = -(o_n * d_n).sum(1) / a
    closest = o_n + middle[:, None] * d_n
    reach = ((1 - (closest * closest).sum(1)) / a).sqrt()  # NaN where the line misses
    near, far = middle - reach, middle + reach
    if kind == 2:
        low, high = _slabs(o[:, 2:], d[:, 2:])
        near, far = torch.maximum(near, low), torch.minimum(far, high)
    return near, far


def _slabs(o: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = (d + 1e-20).reciprocal_()  # no 0 * inf where a ray runs along a face
    middle = inverse * o
    reach = inverse.abs_()
    return (-middle - reach).amax(1), (reach - middle).amin(1)


def _first(
    unit: torch.Tensor, kinds: list[tuple[int, slice]], directions: torch.Tensor, origins: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest hit parameter (G, R) and its primitive (G, R) for G groups of R rays.

    unit: (G, P, 3, 4); kinds: the shape and the rows of each run of primitives; directions, origins: (G, R, 3).
    """
    found = []
    for kind, rows in kinds:
        affine = unit[:, rows].transpose(1, 2)  # (G, 3, p, 4)
        groups, _, count, _ = affine.shape
        linear = affine[..., :3].reshape(groups, 3 * count, 3)
        d = (linear @ directions.mT).view(groups, 3, count, -1)
        o = affine[..., 3:]
        if origins is not None:
            o = (linear @ origins.mT).view(groups, 3, count, -1) + o
        near, far = _interval(kind, o, d)
        t = torch.where(near > _NEAR, near, far)
        found.append(torch.where((near <= far) & (far > _NEAR), t, torch.inf))
    return (found[0] if len(found) == 1 else torch.cat(found, 1)).min(1)


def _kinds(split: tuple[int, ...]) -> list[tuple[int, slice]]:
    kinds, start = [], 0
    for kind, count in enumerate(split):
        if count:
            kinds.append((kind, slice(start, start + count)))
        start += count
    return kinds


@lru_cache(maxsize=8)
def _tiles(size: tuple[int, int]) -> tuple[torch.Tensor, list[int]]:
    """Ray numbers of an image of ``size`` (w, h), square tile after square tile, and the tiles' lengths."""
    numbers = torch.arange(size[0] * size[1]).view(size[1], size[0])
    bands = numbers.split(_TILE)
    tiles = [tile.reshape(-1) for band in bands for tile in band.split(_TILE, dim=1)]
    return torch.cat(tiles), [len(tile) for tile in tiles]


def _trace_tiled(
    view: SceneCameras, directions: torch.Tensor, size: tuple[int, int], t: torch.Tensor, p: torch.Tensor
) -> None:
    """Primary rays of whole images on a CPU, leaving out what a tile cannot see; fills t and p (G, R)."""
    shape_of = torch.repeat_interleave(torch.arange(3), torch.tensor(view.scene.split))
    radius = view.scene.half.float().norm(dim=-1)[view.world]
    distance = view.centre.norm(dim=-1)
    half_angle = (radius / distance).clamp(max=1).asin()
    inside = distance <= radius * 1.001
    towards = view.centre / distance[..., None].clamp(min=1e-9)
    order, lengths = _tiles(size)
    ordered = directions.index_select(1, order)
    found_t, found_p = torch.full_like(t, torch.inf), torch.zeros_like(p)
    start = 0
    for length in lengths:
        tile = slice(start, start + length)
        start += length
        unit = torch.nn.functional.normalize(ordered[:, tile], dim=-1)
        axis = torch.nn.functional.normalize(unit.sum(1), dim=-1)
        spread = (unit * axis[:, None]).sum(-1).amin(-1).clamp(-1, 1).acos()
        angle = (towards * axis[:, None]).sum(-1).clamp(-1, 1).acos()
        keep = inside | (angle <= spread[:, None] + half_angle + 1e-4)
        for camera in range(len(keep)):
            rows = keep[camera].nonzero()[:, 0]
            if not len(rows):
                continue
            kinds = _kinds(tuple(torch.bincount(shape_of[rows], minlength=3).tolist()))
            unit_camera = view.unit_camera[camera].index_select(0, rows)[None]
            t_tile, p_tile = _first(unit_camera, kinds, ordered[camera, tile][None], None)
            found_t[camera, tile], found_p[camera, tile] = t_tile[0], rows[p_tile[0]]
    t.index_copy_(1, order, found_t)
    p.index_copy_(1, order, found_p)


def _trace_chunked(
    view: SceneCameras, directions: torch.Tensor, origins: torch.Tensor | None, t: torch.Tensor, p: torch.Tensor
) -> None:
    """Any rays, in chunks that bound the memory; fills t and p (G, R)."""
    cameras, count = directions.shape[:2]
    kinds, primitives = _kinds(view.scene.split), sum(view.scene.split)
    pairs = _CUDA_PAIRS if directions.is_cuda else _CPU_PAIRS
    chunk = min(count, max(256, pairs // primitives))
    together = max(1, pairs // (primitives * chunk))
    for g in range(0, cameras, together):
        for r in range(0, count, chunk):
            block = slice(g, g + together), slice(r, r + chunk)
            starts = None if origins is None else origins[block]
            t[block], p[block] = _first(view.unit_camera[g : g + together], kinds, directions[block], starts)


def trace(
    view: SceneCameras,
    directions: torch.Tensor,
    size: tuple[int, int] | None = None,
    origins: torch.Tensor | None = None,
) -> Hits:
    """First hits of rays (G, R, 3) in the optical frame.

    size: (w, h) when the rays are the pixels of whole images, row by row: lets a CPU leave out what is out of sight.
    origins: (G, R, 3); None: the camera.
    """
    t = torch.full(directions.shape[:-1], torch.inf, device=directions.device)
    p = torch.zeros(directions.shape[:-1], dtype=torch.int64, device=directions.device)
    if size is not None and origins is None and not directions.is_cuda:
        _trace_tiled(view, directions, size, t, p)
    else:
        _trace_chunked(view, directions, origins, t, p)
    return _resolve(view, directions, origins, t, p)


def blocked(view: SceneCameras, origins: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """(G, R) bool: whether something lies on the way from origins to origins + directions, both (G, R, 3)."""
    t = torch.empty(directions.shape[:-1], device=directions.device)
    p = torch.empty(directions.shape[:-1], dtype=torch.int64, device=directions.device)
    _trace_chunked(view, directions, origins, t, p)
    return t < 1 - 1e-3


def _resolve(view: SceneCameras, directions, origins, t: torch.Tensor, p: torch.Tensor) -> Hits:
    """Point, normal and face of every hit."""
    hit = torch.isfinite(t)
    affine = rows_of(view.unit_camera, p)  # (G, R, 3, 4)
    along = torch.where(hit, t, 0)[..., None] * directions
    if origins is not None:
        along = along + origins
    point = (affine[..., :3] @ along[..., None])[..., 0] + affine[..., 3]
    magnitude = point.abs()
    split = view.scene.split
    axis = magnitude.argmax(-1)
    positive = torch.gather(point, -1, axis[..., None])[..., 0] > 0
    flat = torch.nn.functional.one_hot(axis, 3) * point.sign()
    is_box, is_cylinder = p < split[0], p >= split[0] + split[1]
    across = point[..., :2].norm(dim=-1)
    on_cap = is_cylinder & (magnitude[..., 2] > across)
    box_face = 2 * axis + positive
    cap_face = 1 + (point[..., 2] > 0).long()
    face = torch.where(is_box, box_face, torch.where(on_cap, cap_face, 0))
    upright = torch.zeros_like(point)
    upright[..., 2] = point[..., 2]
    radial = point.clone()
    radial[..., 2] = torch.where(is_cylinder, 0, point[..., 2])
    gradient = torch.where(is_box[..., None], flat, torch.where(on_cap[..., None], upright, radial))
    normal = torch.nn.functional.normalize((gradient[..., None, :] @ affine[..., :3])[..., 0, :], dim=-1)
    normal = torch.where((normal * directions).sum(-1, keepdim=True) > 0, -normal, normal)
    return Hits(
        depth=torch.where(hit, t, torch.nan),
        primitive=torch.where(hit, p, -1),
        point=point,
        normal=torch.where(hit[..., None], normal, 0),
        face=face,
    )


def rows_of(table: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """table (G, P, ...) at rows (G, R) -> (G, R, ...)."""
    return table[torch.arange(len(rows), device=rows.device)[:, None], rows]
