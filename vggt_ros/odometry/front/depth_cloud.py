"""The depth of a solved frame, seen from where the camera is now."""

from __future__ import annotations

import numpy as np

from vggt_ros.camera import PixelMap, image_size, invert, pixel_grid, project, rays, transform
from vggt_ros.depth import STEP, depth_at

STRIDE = 3  # network pixels between the points of a cloud
CELLS = 130  # along the longest side of the image that they are seen in: wider apart than the points are


class DepthCloud:
    """Points of a frame's depth image (h, w), K (3, 3) in its pixels, in the frame's optical axes."""

    def __init__(self, depth: np.ndarray, K: np.ndarray) -> None:
        grid = pixel_grid(image_size(depth))[::STRIDE, ::STRIDE]
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
        front = z <= (1 + STEP) * nearest[cell]
        count = np.bincount(cell[front], minlength=len(nearest))
        inverse = np.bincount(cell[front], 1 / z[front], minlength=len(nearest))
        with np.errstate(divide='ignore', invalid='ignore'):
            depth = np.where(count > 0, count / inverse, np.nan)
        return depth_at(depth.reshape(small[1], small[0]), cells.to_network(uv))
