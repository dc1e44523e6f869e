"""How far an estimate is from the truth: trajectory after alignment, depth after one scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros.files.trajectory import Trajectory
from vggt_ros.similarity import Similarity, umeyama


@dataclass(frozen=True, eq=False)
class TrajectoryError:
    """Absolute trajectory error (ATE) after the best similarity.

    rmse: metres. similarity: takes the estimate to the truth. path: length of the true path in metres. poses: how many.
    estimate, truth: (N, 3) aligned and true camera positions in metres, in the order of the estimate.
    """

    rmse: float
    similarity: Similarity
    path: float
    estimate: np.ndarray
    truth: np.ndarray

    @property
    def poses(self) -> int:
        """How many poses were compared."""
        return len(self.truth)


def trajectory_error(estimate: Trajectory, truth: Trajectory) -> TrajectoryError:
    """Compare the poses whose stamps are equal. Raises ValueError when there are too few of them."""
    true_positions = dict(zip(truth.stamps.tolist(), truth.T_world_camera[:, :3, 3], strict=True))
    pairs = [
        (T[:3, 3], true_positions[stamp])
        for stamp, T in zip(estimate.stamps.tolist(), estimate.T_world_camera, strict=True)
        if stamp in true_positions
    ]
    ours, true = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    similarity = umeyama(ours, true)
    aligned = similarity.transform(ours)
    rmse = float(np.sqrt(((aligned - true) ** 2).sum(1).mean()))
    path = float(np.linalg.norm(np.diff(true, axis=0), axis=1).sum())
    return TrajectoryError(rmse, similarity, path, aligned, true)


def depth_error(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """AbsRel, the mean of |scale z - z_true| / z_true over all pixels known in both images of a pair, and scale.

    pairs: (estimate, truth) of equal size. One scale for all, the median of z_true / z: outliers do not move it.
    Raises ValueError when no pixel is known in both.
    """
    ours = np.concatenate([estimate.ravel() for estimate, _ in pairs]) if pairs else np.empty(0)
    true = np.concatenate([truth.ravel() for _, truth in pairs]) if pairs else np.empty(0)
    known = np.isfinite(ours) & np.isfinite(true) & (ours > 0) & (true > 0)
    if not known.any():
        raise ValueError('no pixel has both an estimated and a true depth')
    ours, true = ours[known].astype(np.float64), true[known].astype(np.float64)
    scale = float(np.median(true / ours))
    return float(np.mean(np.abs(scale * ours - true) / true)), scale
