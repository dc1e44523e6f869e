"""How good predictions are: the figures of the evaluation, numpy only. S frames; poses are camera-from-world."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

LARGEST_ANGLE = 30  # degrees, of AUC@30
SMALLEST_BASELINE = 0.05  # of the median depth; below it a direction of translation means nothing
TRACK_PIXELS = 3.0  # at TRACK_WIDTH pixels of image width
TRACK_WIDTH = 224
INLIER = 1.25


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors (..., 3); 90, as good as chance, where one of them is zero or not finite."""
    with np.errstate(invalid='ignore', divide='ignore'):
        cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.degrees(np.arccos(np.clip(np.where(np.isfinite(cosine), cosine, 0.0), -1, 1)))


def rotation_angle(R: np.ndarray) -> np.ndarray:
    """Degrees that rotations (..., 3, 3) turn by; 180 where they are not finite. Exact for small angles, unlike the
    arc cosine of the trace."""
    sine = 0.5 * np.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    angle = np.arctan2(np.linalg.norm(sine, axis=-1), (np.trace(R, axis1=-2, axis2=-1) - 1) / 2)
    return np.degrees(np.where(np.isfinite(angle), angle, np.pi))


def pair_errors(T: np.ndarray, T_true: np.ndarray, median_depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors in degrees of the relative rotation and of the direction of the relative translation, over all pairs of
    frames that are further apart than SMALLEST_BASELINE median depths. T, T_true: (S, 4, 4) camera-from-world."""
    rotations, directions = [], []
    for i, j in combinations(range(len(T)), 2):
        true = T_true[j] @ np.linalg.inv(T_true[i])
        if np.linalg.norm(true[:3, 3]) <= SMALLEST_BASELINE * median_depth:
            continue
        ours = T[j] @ _inverse(T[i])
        rotations.append(rotation_angle(ours[:3, :3].T @ true[:3, :3]))
        directions.append(angle_between(ours[:3, 3], true[:3, 3]))
    return np.array(rotations), np.array(directions)


def _inverse(T: np.ndarray) -> np.ndarray:
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = T[:3, :3].T, -T[:3, :3].T @ T[:3, 3]
    return inverse


def auc(errors: np.ndarray, largest: int = LARGEST_ANGLE) -> float:
    """Area under the accuracy-threshold curve, as in arXiv 2306.15667: mean over thresholds of 1 .. largest degrees of
    the share of errors below; NaN without errors."""
    if not len(errors):
        return float('nan')
    return float(np.mean([(errors < threshold).mean() for threshold in range(1, largest + 1)]))


def depth_errors(depth: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Relative errors |s z - z*| / z* of all known pixels, and s = median(z* / z), the window's one scale."""
    known = np.isfinite(depth) & (depth > 0) & np.isfinite(truth) & (truth > 0)
    ours, true = depth[known].astype(np.float64), truth[known].astype(np.float64)
    if not len(true):
        return np.zeros(0), float('nan')
    scale = float(np.median(true / ours))
    return np.abs(scale * ours - true) / true, scale


@dataclass
class Scores:
    """Figures of many windows, filled one window at a time."""

    rotation: list[np.ndarray] = field(default_factory=list)
    direction: list[np.ndarray] = field(default_factory=list)
    absrel: list[float] = field(default_factory=list)
    inliers: list[float] = field(default_factory=list)
    focal: list[float] = field(default_factory=list)
    tracked: list[float] = field(default_factory=list)
    visibility: list[float] = field(default_factory=list)

    def add_poses(self, T: np.ndarray, T_true: np.ndarray, median_depth: float) -> None:
        """(S, 4, 4) camera-from-world each; the pairs of one window."""
        rotation, direction = pair_errors(T, T_true, median_depth)
        self.rotation.append(rotation)
        self.direction.append(direction)

    def add_depth(self, depth: np.ndarray, truth: np.ndarray) -> None:
        """(D, H, W) each; NaN or 0 in the truth is unknown."""
        errors, scale = depth_errors(depth, truth)
        if np.isfinite(scale):
            known = np.isfinite(depth) & (depth > 0) & np.isfinite(truth) & (truth > 0)
            ratio = scale * depth[known].astype(np.float64) / truth[known]
            self.absrel.append(float(errors.mean()))
            self.inliers.append(float((np.maximum(ratio, 1 / ratio) < INLIER).mean()))

    def add_focal(self, K: np.ndarray, K_true: np.ndarray) -> None:
        """(S, 3, 3) each: the relative error of the focal length, the mean of x and y, by frame."""
        ours, true = (one[:, [0, 1], [0, 1]].mean(-1) for one in (K, K_true))
        self.focal += list(np.nan_to_num(np.abs(ours / true - 1), nan=1.0))

    def add_tracks(
        self, uv: np.ndarray, visibility: np.ndarray, uv_true: np.ndarray, visible: np.ndarray, width: int
    ) -> None:
        """uv, uv_true: (S, Q, 2) in pixels of an image of this width; visibility: (S, Q) in [0, 1]; visible: (S, Q)."""
        seen = visible[1:]
        near = np.linalg.norm(uv[1:] - uv_true[1:], axis=-1) * TRACK_WIDTH / width < TRACK_PIXELS
        if seen.any():
            self.tracked.append(float(near[seen].mean()))
        if seen.size:
            self.visibility.append(float(((visibility[1:] > 0.5) == seen).mean()))

    def figures(self) -> dict[str, float]:
        """The table: pooled over pairs for poses, over frames for the focal length, the mean over windows otherwise."""
        rotation = np.concatenate(self.rotation) if self.rotation else np.zeros(0)
        direction = np.concatenate(self.direction) if self.direction else np.zeros(0)
        return {
            'auc30': auc(np.maximum(rotation, direction)),
            'rotation': _median(rotation),
            'direction': _median(direction),
            'absrel': _mean(self.absrel),
            'inliers': _mean(self.inliers),
            'focal': _median(np.array(self.focal)),
            'tracked': _mean(self.tracked),
            'visibility': _mean(self.visibility),
        }


FIGURES = ('auc30', 'rotation', 'direction', 'absrel', 'inliers', 'focal', 'tracked', 'visibility')


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float('nan')


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float('nan')
