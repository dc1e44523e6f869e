"""How far an estimate is from the truth: trajectory after alignment, depth after one scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros.trajectory_io import Trajectory


@dataclass(frozen=True, eq=False)
class TrajectoryError:
    """Absolute trajectory error (ATE) after the best similarity.

    rmse: metres. scale, R, t: truth = scale R estimate + t. path: length of the true path in metres. poses: how many.
    estimate, truth: (N, 3) aligned and true camera positions in metres, in the order of the estimate.
    """

    rmse: float
    scale: float
    R: np.ndarray
    t: np.ndarray
    path: float
    estimate: np.ndarray
    truth: np.ndarray

    @property
    def poses(self) -> int:
        """How many poses were compared."""
        return len(self.truth)


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """(N, 3), (N, 3) -> scale, R (3, 3), t (3,) with the least squares of target - (scale R source + t).

    Umeyama, PAMI 1991. Raises ValueError for fewer than three points, and when the source does not move.
    """
    if len(source) < 3:
        raise ValueError(f'{len(source)} positions are too few to align')
    mean_source, mean_target = source.mean(0), target.mean(0)
    spread = ((source - mean_source) ** 2).sum(1).mean()
    if spread == 0:
        raise ValueError('the estimated camera does not move at all')
    U, D, Vt = np.linalg.svd((target - mean_target).T @ (source - mean_source) / len(source))
    S = np.diag([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U @ S @ Vt
    scale = float((D * np.diag(S)).sum() / spread)
    return scale, R, mean_target - scale * R @ mean_source


def trajectory_error(estimate: Trajectory, truth: Trajectory) -> TrajectoryError:
    """Compare the poses whose stamps are equal. Raises ValueError when there are too few of them."""
    true_positions = dict(zip(truth.stamps.tolist(), truth.T_world_camera[:, :3, 3], strict=True))
    pairs = [
        (T[:3, 3], true_positions[stamp])
        for stamp, T in zip(estimate.stamps.tolist(), estimate.T_world_camera, strict=True)
        if stamp in true_positions
    ]
    ours, true = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    scale, R, t = similarity(ours, true)
    aligned = scale * ours @ R.T + t
    rmse = float(np.sqrt(((aligned - true) ** 2).sum(1).mean()))
    path = float(np.linalg.norm(np.diff(true, axis=0), axis=1).sum())
    return TrajectoryError(rmse, scale, R, t, path, aligned, true)


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
