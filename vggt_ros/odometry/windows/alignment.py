"""Where a window lies in the map: a robust closed-form Sim(3) from the frames that both know.

Scale comes from the ratio of depths on the same pixels and from the ratio of the distances between the shared cameras,
by how exact either is; rotation and translation come from the poses of the shared frames. Least-squares scale (Umeyama
1991) is never used: noise in its source shrinks every window a little, and a chain of windows collapses; a median of
log ratios is symmetric in map and window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.depth import edges_at
from vggt_ros.odometry.windows.robust import geometric_median, huber_mean, robust_mean_rotation, weighted_median
from vggt_ros.similarity import Similarity

CONFIDENT = 0.25  # share of the least confident pixels that is left out
STRIDE = 8  # pixels between samples: neighbours are not independent
SCALE_HUBER = 0.03  # log units


class AlignmentError(ValueError):
    """The shared frames do not determine where the window lies."""


@dataclass(frozen=True, eq=False)
class Anchor:
    """One frame known to the map and to the window.

    T_map, T_window: (4, 4) camera poses. depth_*, confidence_*: (h, w) of the same pixels, or None where unknown:
    such an anchor speaks about rotation and translation only. fused,
    pose_weight: windows that the map's depth and pose are the mean of.
    """

    T_map: np.ndarray
    T_window: np.ndarray
    depth_map: np.ndarray | None = None
    depth_window: np.ndarray | None = None
    confidence_map: np.ndarray | None = None
    confidence_window: np.ndarray | None = None
    fused: int = 1
    pose_weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """The similarity and how well the anchors agree on it.

    scale_sigma: standard deviation of log scale. rotation_spread: radians; translation_spread: map units; both root
    mean square over the anchors. inliers: share of sampled pixels whose depths agree within 5 %.
    covariance: (6, 6) of the window's origin placed in the map (translation, rotation), map axes.
    offsets: (K, 3) residual translations of the anchors in map units, angles: (K,) of their rotations in rad, shares:
    (K,) what part of such a residual's variance is the window's own.
    """

    similarity: Similarity
    scale_sigma: float
    rotation_spread: float
    translation_spread: float
    inliers: float
    covariance: np.ndarray = field(repr=False)
    offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)), repr=False)
    angles: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)


def log_depth_ratio(anchor: Anchor) -> tuple[float, float, float] | None:
    """Weighted median of log(z_map / z_window) on the same pixels, its dispersion (1.48 MAD), and the share of inliers.

    None when the anchor has no depth in common with at least 20 usable samples.
    """
    if anchor.depth_map is None or anchor.depth_window is None:
        return None
    assert anchor.confidence_map is not None
    assert anchor.confidence_window is not None
    rows, columns = (np.arange(STRIDE // 2, length, STRIDE) for length in anchor.depth_map.shape)
    grid = np.ix_(rows, columns)
    z_map, z_window = anchor.depth_map[grid], anchor.depth_window[grid]
    with np.errstate(invalid='ignore', divide='ignore'):
        weight = np.sqrt(anchor.confidence_map[grid] * anchor.confidence_window[grid])
        usable = (z_map > 0) & (z_window > 0) & (weight > 0) & np.isfinite(weight)
        usable &= ~edges_at(anchor.depth_map, *grid)
        usable &= np.isfinite(z_map) & np.isfinite(z_window)
    if usable.sum() < 20:
        return None
    usable &= weight >= np.quantile(weight[usable], CONFIDENT)
    ratio = np.log(z_map[usable].astype(np.float64)) - np.log(z_window[usable].astype(np.float64))
    median = weighted_median(ratio, weight[usable])
    residual = np.abs(ratio - median)
    return median, 1.48 * float(np.median(residual)), float(np.mean(residual < 0.05))


def log_distance_ratio(
    T_map: np.ndarray, T_window: np.ndarray, shares: np.ndarray, position_sigma: float
) -> tuple[float, float] | None:
    """Mean log of the ratio of the distances between the shared cameras, in the map over in the window, and its sigma.

    T_map, T_window: (K, 4, 4). shares: (K,) what part of a residual's variance is the window's own. position_sigma: of
    one camera in its window, per axis, map units. A pair of cameras counts as the square of its distance; the sigma is
    that of a scale fitted to K points. None where the cameras stand so close together that noise would lengthen what
    lies between them.
    """
    first, second = np.triu_indices(len(T_map), 1)
    map_distance, window_distance = (
        np.linalg.norm(T[first, :3, 3] - T[second, :3, 3], axis=1) for T in (T_map, T_window)
    )
    apart = map_distance > 8 * position_sigma
    if not apart.any() or not (window_distance[apart] > 0).all():
        return None
    square = map_distance[apart] ** 2
    # Noise lengthens, by variance / distance^2 in the mean of the log: beyond 8 sigma, and weighted so, it is nothing.
    ratio = np.log(map_distance[apart] / window_distance[apart])
    mean, _ = huber_mean(ratio, square, SCALE_HUBER)
    spread = ((T_map[:, :3, 3] - T_map[:, :3, 3].mean(0)) ** 2).sum()
    return mean, float(position_sigma / np.sqrt(shares.mean() * spread))


def align(
    anchors: Sequence[Anchor], scale_prior: float | None = None, position_sigma: float | None = None
) -> Alignment:
    """The similarity that takes the window's poses and depths to the map's.

    scale_prior: used when no anchor has depth on both sides. position_sigma: of one camera in its window, per axis, map
    units; None: distances between cameras have no say in the scale.
    Raises AlignmentError when there is no anchor, a pose is not finite, or nothing tells the scale.
    """
    if not anchors:
        raise AlignmentError('no frame is shared with the map')
    T_map = np.stack([anchor.T_map for anchor in anchors])
    T_window = np.stack([anchor.T_window for anchor in anchors])
    if not (np.isfinite(T_map).all() and np.isfinite(T_window).all()):
        raise AlignmentError('a shared pose is not finite')

    # The error of an anchor is the window's, and the map's, which is the mean of the windows that it was fused from.
    shares = np.array([anchor.pose_weight / (anchor.pose_weight + 1.0) for anchor in anchors])
    found = [(log_depth_ratio(anchor), anchor.fused / (anchor.fused + 1.0)) for anchor in anchors]
    ratios = [(*ratio, share) for ratio, share in found if ratio is not None]
    if ratios:
        values, dispersions, inlier_shares, trust = np.array(ratios).T
        weights = trust / (dispersions**2 + 0.01**2)
        log_scale, scale_sigma = huber_mean(values, weights, SCALE_HUBER)
        inliers = float(inlier_shares.mean())
    elif scale_prior is not None:
        log_scale, scale_sigma, inliers = float(np.log(scale_prior)), 0.1, 0.0
    else:
        raise AlignmentError('no shared frame has depth on both sides: the scale is unknown')
    distances = None
    if position_sigma is not None:
        distances = log_distance_ratio(T_map, T_window, shares, position_sigma)
    if distances is not None:
        # What a window's depths have in common against its poses cancels out along the chain: its weighted mean with
        # what the poses have in common is handed on, whatever the weights.
        variances = np.array([scale_sigma**2, distances[1] ** 2])
        weights = 1 / variances / (1 / variances).sum()
        log_scale = float(weights @ [log_scale, distances[0]])
        scale_sigma = float(np.sqrt(1 / (1 / variances).sum()))
    scale = float(np.exp(log_scale))

    rotations = Rotation.from_matrix(T_map[:, :3, :3] @ np.swapaxes(T_window[:, :3, :3], 1, 2))
    R, angles = robust_mean_rotation(rotations, shares)
    moved = scale * T_window[:, :3, 3] @ R.as_matrix().T
    t = geometric_median(T_map[:, :3, 3] - moved, shares)
    offsets = T_map[:, :3, 3] - moved - t

    count = len(anchors)
    rotation_spread = float(np.sqrt(np.mean(angles**2)))
    translation_spread = float(np.sqrt(np.mean((offsets**2).sum(1))))
    # Each axis has a third of the squared spread; a fit to one anchor leaves no residual to judge by.
    per_axis = 3 * max(count - 1, 1)
    covariance = np.diag([translation_spread**2 / per_axis] * 3 + [rotation_spread**2 / per_axis] * 3)
    return Alignment(
        Similarity(scale, R.as_matrix(), t),
        scale_sigma,
        rotation_spread,
        translation_spread,
        inliers,
        covariance,
        offsets,
        angles,
        shares,
    )
