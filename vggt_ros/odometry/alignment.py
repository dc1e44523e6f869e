"""Where a window lies in the map: a robust closed-form Sim(3) from the frames that both know.

Scale comes from the ratio of depths on the same pixels, rotation and translation from the poses of the shared frames.
Least-squares scale (Umeyama 1991) is never used: noise in its source shrinks every window a little, and a chain of
windows collapses; a median of log ratios is symmetric in map and window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

EDGE = 0.05  # |d log z| between neighbours beyond which a pixel lies on a depth edge
CONFIDENT = 0.25  # share of the least confident pixels that is left out
STRIDE = 8  # pixels between samples: neighbours are not independent
SCALE_HUBER = 0.03  # log units
ROTATION_HUBER = np.radians(0.5)


class AlignmentError(ValueError):
    """The shared frames do not determine where the window lies."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * R @ x + t, from window to map."""

    scale: float
    R: np.ndarray
    t: np.ndarray

    def pose(self, T: np.ndarray) -> np.ndarray:
        """A camera's pose in the window (4, 4) -> its (rigid) pose in the map."""
        moved = np.eye(4)
        moved[:3, :3] = self.R @ T[:3, :3]
        moved[:3, 3] = self.scale * self.R @ T[:3, 3] + self.t
        return moved


@dataclass(frozen=True, eq=False)
class Anchor:
    """One frame known to the map and to the window.

    T_map, T_window: (4, 4) camera poses. depth_*, confidence_*: (h, w) of the same pixels, or None where unknown:
    such an anchor speaks about rotation and translation only.
    """

    T_map: np.ndarray
    T_window: np.ndarray
    depth_map: np.ndarray | None = None
    depth_window: np.ndarray | None = None
    confidence_map: np.ndarray | None = None
    confidence_window: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """The similarity and how well the anchors agree on it.

    scale_sigma: standard deviation of log scale. rotation_spread: radians; translation_spread: map units; both root
    mean square over the anchors. inliers: share of sampled pixels whose depths agree within 5 %.
    covariance: (6, 6) of the window's origin placed in the map (translation, rotation), map axes.
    """

    similarity: Similarity
    scale_sigma: float
    rotation_spread: float
    translation_spread: float
    inliers: float
    covariance: np.ndarray = field(repr=False)


def log_depth_ratio(anchor: Anchor) -> tuple[float, float, float] | None:
    """Weighted median of log(z_map / z_window) on the same pixels, its dispersion (1.48 MAD), and the share of inliers.

    None when the anchor has no depth in common with at least 20 usable samples.
    """
    if anchor.depth_map is None or anchor.depth_window is None:
        return None
    assert anchor.confidence_map is not None
    assert anchor.confidence_window is not None
    z_map, z_window = anchor.depth_map, anchor.depth_window
    with np.errstate(invalid='ignore', divide='ignore'):
        weight = np.sqrt(anchor.confidence_map * anchor.confidence_window)
        usable = (z_map > 0) & (z_window > 0) & (weight > 0) & np.isfinite(weight) & ~_depth_edges(z_map)
        usable &= np.isfinite(z_map) & np.isfinite(z_window)
    grid = np.zeros_like(usable)
    grid[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE] = True
    usable &= grid
    if usable.sum() < 20:
        return None
    usable &= weight >= np.quantile(weight[usable], CONFIDENT)
    ratio = np.log(z_map[usable].astype(np.float64)) - np.log(z_window[usable].astype(np.float64))
    median = weighted_median(ratio, weight[usable])
    residual = np.abs(ratio - median)
    return median, 1.48 * float(np.median(residual)), float(np.mean(residual < 0.05))


def align(anchors: Sequence[Anchor], scale_prior: float | None = None) -> Alignment:
    """The similarity that takes the window's poses and depths to the map's.

    scale_prior: used when no anchor has depth on both sides.
    Raises AlignmentError when there is no anchor, a pose is not finite, or nothing tells the scale.
    """
    if not anchors:
        raise AlignmentError('no frame is shared with the map')
    T_map = np.stack([anchor.T_map for anchor in anchors])
    T_window = np.stack([anchor.T_window for anchor in anchors])
    if not (np.isfinite(T_map).all() and np.isfinite(T_window).all()):
        raise AlignmentError('a shared pose is not finite')

    ratios = [ratio for ratio in map(log_depth_ratio, anchors) if ratio is not None]
    if ratios:
        values, dispersions, inlier_shares = np.array(ratios).T
        weights = 1 / (dispersions**2 + 0.01**2)
        log_scale, scale_sigma = huber_mean(values, weights, SCALE_HUBER)
        inliers = float(inlier_shares.mean())
    elif scale_prior is not None:
        log_scale, scale_sigma, inliers = float(np.log(scale_prior)), 0.1, 0.0
    else:
        raise AlignmentError('no shared frame has depth on both sides: the scale is unknown')
    scale = float(np.exp(log_scale))

    rotations = Rotation.from_matrix(T_map[:, :3, :3] @ np.swapaxes(T_window[:, :3, :3], 1, 2))
    R, rotation_residuals = robust_mean_rotation(rotations)
    offsets = T_map[:, :3, 3] - scale * T_window[:, :3, 3] @ R.as_matrix().T
    t = geometric_median(offsets)
    translation_residuals = np.linalg.norm(offsets - t, axis=1)

    count = len(anchors)
    rotation_spread = float(np.sqrt(np.mean(rotation_residuals**2)))
    translation_spread = float(np.sqrt(np.mean(translation_residuals**2)))
    covariance = np.diag([translation_spread**2 / count] * 3 + [rotation_spread**2 / count] * 3)
    return Alignment(
        Similarity(scale, R.as_matrix(), t),
        scale_sigma,
        rotation_spread,
        translation_spread,
        inliers,
        covariance,
    )


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


def robust_mean_rotation(rotations: Rotation) -> tuple[Rotation, np.ndarray]:
    """Chordal L2 mean (Hartley et al. 2013, section 5.3) reweighted with Huber, and the residual angles (N,)."""
    weights = np.ones(len(rotations))
    mean = rotations.mean()
    angles = (rotations * mean.inv()).magnitude()
    for _ in range(5):
        weights = np.minimum(1.0, ROTATION_HUBER / np.maximum(angles, 1e-12))
        mean = rotations.mean(weights)
        angles = (rotations * mean.inv()).magnitude()
    return mean, angles


def geometric_median(points: np.ndarray) -> np.ndarray:
    """The point with the least sum of distances, (N, 3) -> (3,), by Weiszfeld's iteration."""
    centre = np.median(points, axis=0)
    floor = 1e-9 * (1 + np.abs(points).max())
    for _ in range(20):
        weights = 1 / np.maximum(np.linalg.norm(points - centre, axis=1), floor)
        centre = weights @ points / weights.sum()
    return centre


def _depth_edges(depth: np.ndarray) -> np.ndarray:
    """Pixels whose log depth differs from a neighbour's by more than ``EDGE``; (h, w) bool."""
    log_depth = np.log(np.where(depth > 0, depth, np.nan))
    edges = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        step = np.abs(np.diff(log_depth, axis=axis)) > EDGE
        first = [slice(None)] * 2
        second = [slice(None)] * 2
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        edges[tuple(first)] |= step
        edges[tuple(second)] |= step
    return edges
