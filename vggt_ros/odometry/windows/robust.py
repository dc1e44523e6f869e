"""Robust means: of numbers, rotations and points."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

ROTATION_HUBER = np.radians(0.5)


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value at which half of the weight lies on either side; (N,), (N,)."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    low = int(np.searchsorted(cumulative, cumulative[-1] * 0.5))
    # An exact half falls between two values: their mean keeps the median symmetric in map and window.
    high = min(low + 1, len(values) - 1) if np.isclose(cumulative[low], cumulative[-1] * 0.5) else low
    return float(0.5 * (values[order[low]] + values[order[high]]))


def huber_mean(values: np.ndarray, weights: np.ndarray, delta: float) -> tuple[float, float]:
    """Huber M-estimate of location by reweighted least squares, and its standard deviation; (N,), (N,)."""
    mean = weighted_median(values, weights)
    total = weights
    for _ in range(10):
        residual = np.abs(values - mean)
        total = weights * np.minimum(1.0, delta / np.maximum(residual, 1e-12))
        mean = float(np.sum(total * values) / np.sum(total))
    share = total / total.sum()
    scatter = float(np.sum(share * (values - mean) ** 2))
    count = 1 / float(np.sum(share**2))
    # With one value there is no scatter to see: its own dispersion has to do.
    spread = scatter / (count - 1) if count > 1.5 else 1 / float(np.max(weights))
    return mean, float(np.sqrt(spread))


def robust_mean_rotation(rotations: Rotation, weights: np.ndarray | None = None) -> tuple[Rotation, np.ndarray]:
    """Chordal L2 mean (Hartley et al. 2013, section 5.3) reweighted with Huber, and the residual angles (N,)."""
    base = np.ones(len(rotations)) if weights is None else weights
    mean = rotations.mean(base)
    angles = (rotations * mean.inv()).magnitude()
    for _ in range(5):
        mean = rotations.mean(base * np.minimum(1.0, ROTATION_HUBER / np.maximum(angles, 1e-12)))
        angles = (rotations * mean.inv()).magnitude()
    return mean, angles


def geometric_median(points: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """The point with the least (weighted) sum of distances, (N, 3) -> (3,), by Weiszfeld's iteration."""
    base = np.ones(len(points)) if weights is None else weights
    centre = np.median(points, axis=0)
    floor = 1e-9 * (1 + np.abs(points).max())
    for _ in range(20):
        pull = base / np.maximum(np.linalg.norm(points - centre, axis=1), floor)
        centre = pull @ points / pull.sum()
    return centre
