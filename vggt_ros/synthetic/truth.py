"""What is true of a frame, and truth looked up between pixels. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

_EDGE = 0.05  # relative depth step between neighbouring pixels that counts as an edge


@dataclass(frozen=True, eq=False)
class FrameTruth:
    """What is true of one frame.

    T_world_camera: (4, 4). K: (3, 3) in source pixels. depth: (H, W) z-depth in metres in source pixels, NaN = nothing
    there; or a function (K (3, 3), size (w, h)) -> (h, w) that gives it exactly for any intrinsics.
    moving: object id -> T_world_object (4, 4) of everything that may move. object_id: (H, W) int in source pixels,
    needed only with ``moving``. T_alias_world: (4, 4) maps the world onto its look-alike: frames of places that look
    the same coincide after it; None = unique.
    """

    T_world_camera: np.ndarray
    K: np.ndarray
    depth: np.ndarray | Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    moving: Mapping[int, np.ndarray] = field(default_factory=dict)
    object_id: np.ndarray | None = None
    T_alias_world: np.ndarray | None = None


def sample_depth(depth: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """z-depth at pixels uv (..., 2), NaN outside: bilinear in inverse depth, exact on planes; nearest at edges."""
    height, width = depth.shape
    u, v = np.moveaxis(np.asarray(uv, np.float64), -1, 0)
    with np.errstate(invalid='ignore'):
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    # At the rim the plane through the two outermost pixels goes on.
    u0 = np.clip(np.floor(u).astype(int), 0, max(width - 2, 0))
    v0 = np.clip(np.floor(v).astype(int), 0, max(height - 2, 0))
    u1, v1 = np.minimum(u0 + 1, width - 1), np.minimum(v0 + 1, height - 1)
    wu, wv = u - u0, v - v0
    corners = np.stack([depth[v0, u0], depth[v0, u1], depth[v1, u0], depth[v1, u1]]).astype(np.float64)
    with np.errstate(invalid='ignore', divide='ignore'):
        smooth = corners.max(0) < (1 + _EDGE) * corners.min(0)  # False with any NaN
        a, b, c, d = 1 / corners
        plane = 1 / ((1 - wv) * ((1 - wu) * a + wu * b) + wv * ((1 - wu) * c + wu * d))
    nearest = depth[np.clip(np.round(v).astype(int), 0, height - 1), np.clip(np.round(u).astype(int), 0, width - 1)]
    return np.where(inside, np.where(smooth, plane, nearest), np.nan)
