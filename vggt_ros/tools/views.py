"""Pictures of point clouds, drawn pixel by pixel."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

BACKGROUND = (248, 248, 248)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """T_map_camera (4, 4) of a camera at ``eye`` that looks at ``target``; up in the picture is the map's z."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], -1)
    T[:3, 3] = eye
    return T


def draw_cloud(
    xyz: np.ndarray,
    rgb: np.ndarray,
    T_map_camera: np.ndarray,
    size: tuple[int, int],
    *,
    spacing: float,
    path: np.ndarray | None = None,
    field_of_view: float = 60.0,
) -> np.ndarray:
    """Perspective picture (H, W, 3) uint8: every point a disc of ``spacing`` map units, near ones hide far ones.

    size: (width, height). path: (N, 3) camera positions, drawn as a line on top.
    """
    width, height = size
    focal = width / 2 / np.tan(np.radians(field_of_view) / 2)
    near = 2 * spacing
    local = (xyz - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    front = local[:, 2] > near
    local, colours = local[front], rgb[front]
    order = np.argsort(-local[:, 2])
    local, colours = local[order], colours[order]
    uv = np.rint(local[:, :2] / local[:, 2:] * focal + np.array([width, height]) / 2).astype(np.int64)
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    radius = np.clip(np.ceil(focal * spacing / local[:, 2] / 2), 0, 6).astype(int) if len(local) else np.empty(0, int)
    # Far to near: numpy keeps the last of several assignments to a pixel. Slices of equal size stay in that order.
    for start in range(0, len(local), max(1, len(local) // 200)):
        part = slice(start, start + max(1, len(local) // 200))
        reach = int(radius[part].max())
        for dv in range(-reach, reach + 1):
            for du in range(-reach, reach + 1):
                if du * du + dv * dv > reach * reach:
                    continue
                u, v = uv[part, 0] + du, uv[part, 1] + dv
                inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
                picture[v[inside], u[inside]] = colours[part][inside]
    if path is not None:
        _draw_path(picture, (path - T_map_camera[:3, 3]) @ T_map_camera[:3, :3], focal, near)
    return picture


def _draw_path(picture: np.ndarray, path: np.ndarray, focal: float, near: float) -> None:
    centre = np.array([picture.shape[1], picture.shape[0]]) / 2
    for a, b in pairwise(path):
        if min(a[2], b[2]) <= near:
            continue
        start, end = (np.rint(p[:2] / p[2] * focal + centre).clip(-9999, 9999).astype(int).tolist() for p in (a, b))
        cv2.line(picture, start, end, (230, 40, 40), 2, cv2.LINE_AA)
