"""How good predictions are: the figures of the evaluation, numpy only. S frames; poses are camera-from-world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np

from vggt_ros import camera

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


class PairErrors(NamedTuple):
    """Of P pairs of frames. rotation, direction: (P,) degrees. baseline: (P,) distance of the two true cameras, in
    median depths of the window."""

    rotation: np.ndarray
    direction: np.ndarray
    baseline: np.ndarray


def relative_poses(T: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Poses (S, 4, 4) camera-from-world -> the transform from camera i to camera j of every pair i < j."""
    back = camera.invert(T)
    return {(i, j): T[j] @ back[i] for i, j in combinations(range(len(T)), 2)}


def pair_errors(poses: Mapping[tuple[int, int], np.ndarray], T_true: np.ndarray, median_depth: float) -> PairErrors:
    """Errors of the relative rotation and of the direction of the relative translation, over all pairs of frames that
    are further apart than SMALLEST_BASELINE median depths; 180 degrees where ``poses`` lacks the pair.

    poses: as :func:`relative_poses` gives them, their translations of any scale. T_true: (S, 4, 4) camera-from-world.
    """
    rotations, directions, baselines = [], [], []
    for pair, true in relative_poses(T_true).items():
        baseline = float(np.linalg.norm(true[:3, 3])) / median_depth
        if baseline <= SMALLEST_BASELINE:
            continue
        ours = poses.get(pair)
        rotations.append(180.0 if ours is None else float(rotation_angle(ours[:3, :3].T @ true[:3, :3])))
        directions.append(180.0 if ours is None else float(angle_between(ours[:3, 3], true[:3, 3])))
        baselines.append(baseline)
    return PairErrors(np.array(rotations), np.array(directions), np.array(baselines))


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
    """Figures of many windows, filled one window at a time: every list that is filled has one entry for each.

    pairs: errors of the poses. absrel, inliers: of the depth. focal: (S,) relative errors. tracked, visibility: of the
    tracks. NaN where a window has nothing to judge.
    """

    pairs: list[PairErrors] = field(default_factory=list)
    absrel: list[float] = field(default_factory=list)
    inliers: list[float] = field(default_factory=list)
    focal: list[np.ndarray] = field(default_factory=list)
    tracked: list[float] = field(default_factory=list)
    visibility: list[float] = field(default_factory=list)

    def add_poses(self, T: np.ndarray, T_true: np.ndarray, median_depth: float) -> None:
        """(S, 4, 4) camera-from-world each; the pairs of one window."""
        self.pairs.append(pair_errors(relative_poses(T), T_true, median_depth))

    def add_depth(self, depth: np.ndarray, truth: np.ndarray) -> None:
        """(D, H, W) each; NaN or 0 in the truth is unknown."""
        errors, scale = depth_errors(depth, truth)
        known = np.isfinite(depth) & (depth > 0) & np.isfinite(truth) & (truth > 0)
        ratio = scale * depth[known].astype(np.float64) / truth[known]
        self.absrel.append(_mean(errors))
        self.inliers.append(_mean(np.maximum(ratio, 1 / ratio) < INLIER))

    def add_focal(self, K: np.ndarray, K_true: np.ndarray) -> None:
        """(S, 3, 3) each: the relative error of the focal length, the mean of x and y, by frame."""
        ours, true = (one[:, [0, 1], [0, 1]].mean(-1) for one in (K, K_true))
        self.focal.append(np.nan_to_num(np.abs(ours / true - 1), nan=1.0))

    def add_tracks(
        self, uv: np.ndarray, visibility: np.ndarray, uv_true: np.ndarray, visible: np.ndarray, width: int
    ) -> None:
        """uv, uv_true: (S, Q, 2) in pixels of an image of this width; visibility: (S, Q) in [0, 1]; visible: (S, Q)."""
        seen = visible[1:]
        near = np.linalg.norm(uv[1:] - uv_true[1:], axis=-1) * TRACK_WIDTH / width < TRACK_PIXELS
        self.tracked.append(_mean(near[seen]))
        self.visibility.append(_mean((visibility[1:] > 0.5) == seen))

    def of(self, windows: Sequence[int]) -> Scores:
        """The scores of some of the windows."""
        return Scores(*([values[i] for i in windows] if values else [] for values in vars(self).values()))

    @property
    def pooled(self) -> PairErrors:
        """The pairs of all windows."""
        return PairErrors(*(np.concatenate(one) for one in zip(*self.pairs, strict=True))) if self.pairs else _NO_PAIRS

    def figures(self) -> dict[str, float]:
        """The table: pooled over pairs for poses, over frames for the focal length, the mean over windows otherwise."""
        pairs = self.pooled
        return {
            'auc30': auc(np.maximum(pairs.rotation, pairs.direction)),
            'rotation': _median(pairs.rotation),
            'direction': _median(pairs.direction),
            'absrel': _mean(self.absrel),
            'inliers': _mean(self.inliers),
            'focal': _median(np.concatenate(self.focal)) if self.focal else float('nan'),
            'tracked': _mean(self.tracked),
            'visibility': _mean(self.visibility),
        }


FIGURES = ('auc30', 'rotation', 'direction', 'absrel', 'inliers', 'focal', 'tracked', 'visibility')


_NO_PAIRS = PairErrors(*[np.zeros(0)] * 3)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Of what is not NaN; NaN without any."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float('nan')


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float('nan')
