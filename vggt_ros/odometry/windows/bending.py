"""A depth map bent smoothly until it passes through points whose depth is known better."""

from __future__ import annotations

import cv2
import numpy as np

GRID = (4, 5)  # rows and columns of the smooth correction of a depth map
CAUCHY = 2.385  # standard deviations: 95 % efficient for normal errors


def bend(uv: np.ndarray, steps: np.ndarray, weight: np.ndarray, size: tuple[int, int], surface: float) -> np.ndarray:
    """``GRID`` of the smooth change of log depth that takes a depth map to its points.

    uv: (N, 2) their pixels in a map of ``size`` (w, h). steps: (N,) change of log depth that each wants; weight: (N,).
    surface: standard deviation of a pixel's log depth against its frame's.

    Least squares: a bilinear grid through the points, whose neighbours differ by about ``surface``; where no point is
    near it is the points' median.
    """
    # One factor for the whole frame first, then what is left of it.
    middle = float(np.median(steps))
    left = steps - middle
    weight = weight / (1 + (left / (CAUCHY * surface)) ** 2)
    B = _bilinear(uv, size)
    S = _differences()
    normal = (B.T * weight) @ B / (0.5 * surface) ** 2
    normal += (S.T @ S) / surface**2 + np.eye(B.shape[1]) * (0.1 / surface) ** 2
    grid = np.linalg.solve(normal, (B.T * weight) @ left / (0.5 * surface) ** 2)
    return middle + grid.reshape(GRID)


def factor(grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What a grid of :func:`bend` multiplies a depth map of (h, w) with."""
    return np.exp(cv2.resize(grid.astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR))


def _bilinear(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, cells) weights of the cells of ``GRID`` at pixels (N, 2) of an image of ``size``, as cv2.resize has them."""
    weights = np.zeros((len(uv), *GRID))
    places = []
    for axis, cells in ((1, GRID[0]), (0, GRID[1])):
        at = np.clip((uv[:, axis] + 0.5) * cells / size[axis] - 0.5, 0, cells - 1)
        low = np.minimum(at.astype(int), cells - 2)
        places.append((low, at - low))
    (row, down), (column, right) = places
    number = np.arange(len(uv))
    for i, by_row in ((0, 1 - down), (1, down)):
        for j, by_column in ((0, 1 - right), (1, right)):
            weights[number, row + i, column + j] = by_row * by_column
    return weights.reshape(len(uv), -1)


def _differences() -> np.ndarray:
    """(edges, cells) differences of neighbouring cells of ``GRID``."""
    cells = np.arange(GRID[0] * GRID[1]).reshape(GRID)
    pairs = np.concatenate(
        [
            np.stack([cells[1:].ravel(), cells[:-1].ravel()], 1),
            np.stack([cells[:, 1:].ravel(), cells[:, :-1].ravel()], 1),
        ]
    )
    steps = np.zeros((len(pairs), cells.size))
    steps[np.arange(len(pairs)), pairs[:, 0]], steps[np.arange(len(pairs)), pairs[:, 1]] = 1.0, -1.0
    return steps
