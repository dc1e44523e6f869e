"""Ground truth in VGGT's terms (arXiv 2503.11651, section 3.3): first camera's frame, mean point distance 1.

Shapes: B windows, S frames, H x W pixels. ``T_a_b`` maps points of b into a. Depth is z-depth with 0 where unknown.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Bounds of a window's unit in the unit of its source, as in the published code: beyond them something is wrong.
SMALLEST_UNIT, LARGEST_UNIT = 1e-6, 1e6
# Relative: a point this much behind the depth map is hidden. On slanted surfaces the map's own pixels differ by less.
_HIDDEN = 0.02


def invert(T: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4)."""
    R_t = T[..., :3, :3].mT
    inverse = torch.zeros_like(T)
    inverse[..., :3, :3] = R_t
    inverse[..., :3, 3:] = -R_t @ T[..., :3, 3:]
    inverse[..., 3, 3] = 1.0
    return inverse


def quaternion(R: Tensor) -> Tensor:
    """Rotations (..., 3, 3) -> unit quaternions (..., 4), scalar last and not negative: each rotation has one.

    Shepperd's method (1978): of four equal formulas the one that divides by the largest component.
    """
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    squares = torch.stack([1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], -1)  # 4 (x y z w)^2
    a, b, c = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    p, q, r = R[..., 1, 0] + R[..., 0, 1], R[..., 2, 0] + R[..., 0, 2], R[..., 2, 1] + R[..., 1, 2]
    s, t, u, v = squares.unbind(-1)
    # Row k is 4 q_k (x, y, z, w).
    rows = torch.stack([s, p, q, a, p, t, r, b, q, r, u, c, a, b, c, v], -1).unflatten(-1, (4, 4))
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    found = torch.nn.functional.normalize(rows.gather(-2, best)[..., 0, :], dim=-1)
    return torch.where(found[..., 3:] < 0, -found, found)


def rotation(quaternion: Tensor) -> Tensor:
    """Quaternions (..., 4), scalar last, of any norm but 0 -> rotations (..., 3, 3)."""
    x, y, z, w = torch.nn.functional.normalize(quaternion, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], -1),
        torch.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], -1),
        torch.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def encode(T_camera_first: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """Pose encodings (..., 9): [t, quaternion (scalar last), fov_h, fov_w in radians], see CameraHead.

    T_camera_first: (..., 4, 4) camera from world, the world being the first camera. K: (..., 3, 3) in pixels of an
    image of ``size`` (w, h); its principal point is left out, VGGT supposes it in the middle.
    """
    half = torch.tensor([size[1] / 2, size[0] / 2], dtype=K.dtype, device=K.device)
    fov = 2 * torch.atan2(half, torch.stack([K[..., 1, 1], K[..., 0, 0]], -1))
    return torch.cat([T_camera_first[..., :3, 3], quaternion(T_camera_first[..., :3, :3]), fov], -1)


def decode(encoding: Tensor) -> Tensor:
    """Pose encodings (..., 9) -> T_camera_first (..., 4, 4)."""
    T = torch.zeros(*encoding.shape[:-1], 4, 4, dtype=encoding.dtype, device=encoding.device)
    T[..., :3, :3] = rotation(encoding[..., 3:7])
    T[..., :3, 3] = encoding[..., :3]
    T[..., 3, 3] = 1.0
    return T


def unproject(depth: Tensor, K: Tensor) -> Tensor:
    """z-depth (..., H, W) and K (..., 3, 3) -> points (..., H, W, 3) in the camera's frame; unknown depth gives 0."""
    height, width = depth.shape[-2:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype)
    v = torch.arange(height, device=depth.device, dtype=depth.dtype)[:, None]
    K = K.to(depth.dtype)[..., None, None, :, :]
    x = (u - K[..., 0, 2]) / K[..., 0, 0] * depth
    y = (v - K[..., 1, 2]) / K[..., 1, 1] * depth
    return torch.stack([x, y, depth], -1)


def transform(T: Tensor, points: Tensor) -> Tensor:
    """Apply T (..., 4, 4) to points (..., N, 3)."""
    return points @ T[..., :3, :3].mT + T[..., None, :3, 3]


class Geometry(NamedTuple):
    """The truth of a window, normalised.

    pose: (B, S, 9) encodings. depth: (B, S, H, W), 0 unknown. points: (B, S, H, W, 3) in the first camera's frame.
    known: (B, S, H, W) bool. unit: (B,) length of one normalised unit in the source's unit.
    """

    pose: Tensor
    depth: Tensor
    points: Tensor
    known: Tensor
    unit: Tensor


def normalise(depth: Tensor, T_world_camera: Tensor, K: Tensor) -> Geometry:
    """Truth in the first camera's frame, in units of the mean distance of all known points to that camera.

    depth: (B, S, H, W) float32, 0 unknown. T_world_camera: (B, S, 4, 4) float64. K: (B, S, 3, 3).
    """
    T_camera_first = (invert(T_world_camera) @ T_world_camera[:, :1]).to(depth.dtype)
    known = depth > 0
    points = transform(invert(T_camera_first), unproject(depth, K).flatten(2, 3)).unflatten(2, depth.shape[2:])
    distance = (points.norm(dim=-1) * known).sum((1, 2, 3))
    unit = (distance / known.sum((1, 2, 3)).clamp(min=1)).clamp(SMALLEST_UNIT, LARGEST_UNIT)
    T_camera_first[..., :3, 3] /= unit[:, None, None]
    pose = encode(T_camera_first, K.to(depth.dtype), (depth.shape[3], depth.shape[2]))
    scale = unit[:, None, None, None]
    return Geometry(pose, depth / scale, points / scale[..., None], known, unit)


class TrackTargets(NamedTuple):
    """Where Q points are in F frames.

    uv: (..., F, Q, 2) pixels. z: (..., F, Q) z-depth there, 0 or less behind the camera. visible: (..., F, Q) bool.
    judged: (..., F, Q) bool, whether the depth map can tell that they are visible or not.
    """

    uv: Tensor
    z: Tensor
    visible: Tensor
    judged: Tensor


def follow(queries: Tensor, z: Tensor, frame: Tensor, depth: Tensor, T_world_camera: Tensor, K: Tensor) -> TrackTargets:
    """Follow still points through frames by depth and pose: positions exact, visibility by the frames' depth maps.

    queries: (B, Q, 2) pixels of each window's frame number ``frame`` (B,), z: (B, Q) their depth there. depth:
    (B, F, H, W), 0 unknown. T_world_camera: (B, F, 4, 4) float64. K: (B, F, 3, 3).
    """
    rows = torch.arange(len(queries), device=queries.device)
    K = K.to(depth.dtype)
    T_frame_query = (invert(T_world_camera) @ T_world_camera[rows, frame][:, None]).to(depth.dtype)
    K_query = K[rows, frame]
    x = (queries[..., 0] - K_query[:, None, 0, 2]) / K_query[:, None, 0, 0]
    y = (queries[..., 1] - K_query[:, None, 1, 2]) / K_query[:, None, 1, 1]
    points = torch.stack([x * z, y * z, z], -1)[:, None]  # (B, 1, Q, 3)
    seen = transform(T_frame_query, points)  # (B, F, Q, 3)
    far = seen[..., 2].clamp(min=1e-6)
    focal, centre = K[:, :, None, [0, 1], [0, 1]], K[:, :, None, :2, 2]
    uv = seen[..., :2] / far[..., None] * focal + centre
    height, width = depth.shape[-2:]
    inside = (seen[..., 2] > 0) & (uv > -0.5).all(-1) & (uv[..., 0] < width - 0.5) & (uv[..., 1] < height - 0.5)
    surface = _farthest_around(depth, uv.nan_to_num(0))
    return TrackTargets(uv, seen[..., 2], inside & (far <= surface * (1 + _HIDDEN)), ~inside | (surface > 0))


def _farthest_around(depth: Tensor, uv: Tensor) -> Tensor:
    """The largest depth of the four pixels around uv (..., N, 2) in maps (..., H, W) -> (..., N).

    The largest, because at the rim of an object one pixel may show the object, the next what it does not hide.
    """
    height, width = depth.shape[-2:]
    low = uv.floor()
    flat, found = depth.flatten(-2), None
    for dx in (0, 1):
        for dy in (0, 1):
            x = (low[..., 0] + dx).clamp(0, width - 1)
            y = (low[..., 1] + dy).clamp(0, height - 1)
            taken = flat.gather(-1, (y * width + x).long())
            found = taken if found is None else torch.maximum(found, taken)
    assert found is not None
    return found
