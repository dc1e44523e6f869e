"""The depth of a solved frame, seen from where the camera is now."""

from __future__ import annotations

import numpy as np

from vggt_ros.camera import PixelMap, invert, pixel_grid, project, rays, transform

EDGE = 0.1  # |d log z| across 3 x 3 pixels beyond which a point may belong to either side of a depth edge
STRIDE = 3  # network pixels between the points of a cloud
CELLS = 130  # along the longest side of the image that they are seen in: wider apart than the points are


class DepthCloud:
    """Points of a frame's depth image (h, w), K (3, 3) in its pixels, in the frame's optical axes."""

    def __init__(self, depth: np.ndarray, K: np.ndarray) -> None:
        grid = pixel_grid((depth.shape[1], depth.shape[0]))[::STRIDE, ::STRIDE]
        z = depth[::STRIDE, ::STRIDE].astype(np.float64)
        with np.errstate(invalid='ignore'):
            known = z > 0
        self.points = rays(grid[known], K) * z[known][:, None]

    def depth_at(self, uv: np.ndarray, T_cloud_camera: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """z-depth (N,) under pixels ``uv`` (N, 2) of a camera with K and ``size`` (w, h); NaN where the cloud has gaps.

        What is nearer hides what is behind it.
        """
        longest = max(size)
        small = (max(1, round(size[0] * CELLS / longest)), max(1, round(size[1] * CELLS / longest)))
        cells = PixelMap(size, small, (0, 0), small)
        seen = transform(invert(T_cloud_camera), self.points)
        place = cells.to_network(project(seen, K))
        with np.errstate(invalid='ignore'):
            inside = ((place > -0.5) & (place < np.array(small) - 0.5)).all(axis=1)
        column, row = np.rint(place[inside]).astype(int).clip(0, np.array(small) - 1).T
        cell, z = row * small[0] + column, seen[inside, 2]
        nearest = np.full(small[0] * small[1], np.inf)
        np.minimum.at(nearest, cell, z)
        front = z <= (1 + EDGE) * nearest[cell]
        count = np.bincount(cell[front], minlength=len(nearest))
        inverse = np.bincount(cell[front], 1 / z[front], minlength=len(nearest))
        with np.errstate(divide='ignore', invalid='ignore'):
            depth = np.where(count > 0, count / inverse, np.nan)
        return depth_at(depth.reshape(small[1], small[0]), cells.to_network(uv))


def depth_at(depth: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """z-depth (N,) under pixels ``uv`` (N, 2) of a depth image (h, w): interpolated in inverse depth, exact on planes.

    NaN outside, at depth edges, and where a neighbouring pixel is unknown.
    """
    height, width = depth.shape
    if min(height, width) < 3:
        return np.full(len(uv), np.nan)
    inside = np.all((uv > -0.5) & (uv < np.array([width, height]) - 0.5), axis=1)
    uv = np.where(inside[:, None], uv, 0.0)
    column, row = np.clip(np.rint(uv).astype(int), 1, np.array([width, height]) - 2).T
    around = np.arange(-1, 2)
    patch = depth[row[:, None, None] + around[:, None], column[:, None, None] + around].astype(np.float64)
    with np.errstate(invalid='ignore'):
        smooth = inside & (patch.max((1, 2)) <= (1 + EDGE) * patch.min((1, 2))) & (patch.min((1, 2)) > 0)
    inverse = 1 / np.where(smooth[:, None, None], patch, 1.0)
    # The plane through the patch, least squares.
    dx, dy = uv[:, 0] - column, uv[:, 1] - row
    slope_x, slope_y = (inverse * around).sum((1, 2)) / 6, (inverse * around[:, None]).sum((1, 2)) / 6
    return np.where(smooth, 1 / (inverse.mean((1, 2)) + slope_x * dx + slope_y * dy), np.nan)
