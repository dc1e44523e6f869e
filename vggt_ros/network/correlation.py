"""Local correlation of track features with feature maps at several scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# A map of up to this many times the lattice's pixels is correlated as a whole, one matrix product being faster then.
DENSE_BELOW = 32


def pyramid(maps: Tensor, levels: int) -> list[Tensor]:
    """Feature maps (F, h, w, C) -> the same, averaged over 1, 2, 4, ... pixels; odd rows and columns are dropped.

    A side of one pixel stays: images of any size and aspect can be tracked, though published sizes never come to it.
    """
    scales = [maps]
    for _ in range(levels - 1):
        finer = scales[-1].permute(0, 3, 1, 2)
        halves = min(2, finer.shape[2]), min(2, finer.shape[3])
        scales.append(F.avg_pool2d(finer, halves).permute(0, 2, 3, 1))
    return scales


def correlate(features: Tensor, scales: Sequence[Tensor], coords: Tensor, radius: int) -> Tensor:
    """Scalar products of each track's feature with the map around its place, at every scale.

    features (F, Q, C); scales: F maps (F, h, w, C) each; coords (F, Q, 2) as (x, y) in pixels of the finest scale
    -> (F, Q, levels * (2 radius + 1)^2), x offset before y offset, divided by sqrt(C).

    The samples of a window share their fractional part, so the scalar products are taken on an integer lattice of
    (2 radius + 2)^2 pixels, zero outside of the map, and interpolated afterwards: correlation and interpolation are
    both linear and commute.
    """
    features = features / features.shape[-1] ** 0.5
    windows = []
    for level, maps in enumerate(scales):
        height, width = maps.shape[1:3]
        columns, x_inside, x_rest = _axis(coords[..., 0] / 2**level, width, radius)
        rows, y_inside, y_rest = _axis(coords[..., 1] / 2**level, height, radius)
        index = (rows[..., None, :] * width + columns[..., :, None]).flatten(2)  # (F, Q, lattice), x before y
        side = columns.shape[-1]
        if height * width <= DENSE_BELOW * side**2:
            lattice = (features @ maps.flatten(1, 2).transpose(1, 2)).gather(2, index)
        else:
            lattice = _gather_correlate(features, maps.flatten(1, 2), index)
        lattice = lattice.unflatten(2, (side, side)) * (x_inside[..., :, None] & y_inside[..., None, :])
        lattice = torch.lerp(lattice[:, :, :-1], lattice[:, :, 1:], x_rest[..., None, None])
        lattice = torch.lerp(lattice[..., :-1], lattice[..., 1:], y_rest[..., None, None])
        windows.append(lattice.flatten(2))
    return torch.cat(windows, dim=-1)


def _gather_correlate(features: Tensor, pixels: Tensor, index: Tensor) -> Tensor:
    """Scalar products of features (F, Q, C) with the pixels (F, h * w, C) at index (F, Q, L) -> (F, Q, L)."""
    count, tracks, lattice = index.shape
    products = []
    for frame in range(count):
        taken = pixels[frame].index_select(0, index[frame].flatten()).unflatten(0, (tracks, lattice))
        products.append(torch.bmm(taken, features[frame, :, :, None])[..., 0])
    return torch.stack(products)


def _axis(place: Tensor, size: int, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lattice of one axis around places (F, Q): index (F, Q, 2 r + 2), whether it is inside, fraction (F, Q)."""
    if size == 1:
        # Published behaviour: on a map of one pixel every sample reads that pixel, wherever it is.
        place = torch.zeros_like(place)
        offsets = place.new_zeros(2 * radius + 2)
    else:
        # Beyond these bounds the whole lattice is outside; a wild estimate must not overflow the integers.
        place = place.clamp(-radius - 2.0, size + radius + 1.0)
        offsets = torch.arange(-radius, radius + 2, device=place.device, dtype=place.dtype)
    base = place.floor()
    lattice = (base[..., None] + offsets).long()
    return lattice.clamp(0, size - 1), (lattice >= 0) & (lattice < size), place - base
