"""How others join windows: chains of windows, each aligned to the one before through the frames both have.

Every estimator maps (poses, points, weights) of the shared frames in the map and in the window to a Similarity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vggt_ros.camera import transform, unproject
from vggt_ros.odometry.windows.robust import weighted_median
from vggt_ros.similarity import Similarity, umeyama
from vggt_ros.types import Frame, Predictor, WindowPrediction

_STRIDE = 8  # pixels
_HUBER = 0.05  # of the median distance; where VGGT-Long has 0.1 in whatever unit the window has


class Shared(NamedTuple):
    """What map and window say of their F shared frames, oldest first.

    T_map, T_window: (F, 4, 4). points_map, points_window: (F, N, 3) in map and in window. z_map, z_window: (F, N)
    depths. weight: (F, N).
    """

    T_map: np.ndarray
    T_window: np.ndarray
    points_map: np.ndarray
    points_window: np.ndarray
    z_map: np.ndarray
    z_window: np.ndarray
    weight: np.ndarray


Estimator = Callable[[Shared], Similarity]


def camera_centres(shared: Shared) -> Similarity:
    """Least squares on the camera centres (Umeyama 1991), as vggt-slam-ros2 does."""
    return umeyama(shared.T_window[:, :3, 3], shared.T_map[:, :3, 3])


def points_least_squares(shared: Shared) -> Similarity:
    """Weighted least squares on all points (Umeyama 1991)."""
    source, target, weight = _flat(shared)
    return _weighted(source, target, weight, symmetric=False)


def points_huber(shared: Shared) -> Similarity:
    """Reweighted (Huber) fit of points with the symmetric scale RMS / RMS (Horn 1987), as VGGT-Long does."""
    source, target, weight = _flat(shared)
    delta = _HUBER * float(np.median(np.linalg.norm(target - target.mean(0), axis=1)))
    total, fit = weight, _weighted(source, target, weight, symmetric=True)
    for _ in range(5):
        residual = np.linalg.norm(target - (fit.scale * source @ fit.R.T + fit.t), axis=1)
        total = weight * np.minimum(1.0, delta / np.maximum(residual, 1e-12))
        fit = _weighted(source, target, total, symmetric=True)
    return fit


def one_shared_frame(shared: Shared) -> Similarity:
    """The pose of the latest shared frame and the median ratio of its depths, as VGGT-SLAM 2 and LingBot-Map do."""
    ratio = np.log(shared.z_map[-1] / shared.z_window[-1])
    scale = float(np.exp(weighted_median(ratio, shared.weight[-1])))
    R = shared.T_map[-1, :3, :3] @ shared.T_window[-1, :3, :3].T
    return Similarity(scale, R, shared.T_map[-1, :3, 3] - scale * R @ shared.T_window[-1, :3, 3])


ESTIMATORS: dict[str, Estimator] = {
    'Umeyama on camera centres': camera_centres,
    'points, least squares': points_least_squares,
    'points, Huber + symmetric scale': points_huber,
    'one shared frame': one_shared_frame,
}


def chain(predictor: Predictor, frames: list[Frame], window: int, stride: int, estimator: Estimator) -> np.ndarray:
    """T_map_camera (N, 4, 4) of all frames, the first window being the map: windows of consecutive frames."""
    poses: dict[int, np.ndarray] = {}
    before: WindowPrediction | None = None
    placed = Similarity.identity()
    for end in range(window, len(frames) + stride, stride):
        taken = frames[max(0, min(end, len(frames)) - window) : end]
        prediction = predictor.predict(taken)
        if before is not None:
            placed = estimator(_shared(before, placed, prediction))
        for slot, frame in enumerate(taken):
            poses.setdefault(frame.index, placed.pose(prediction.T_window_camera[slot]))
        before = prediction
    return np.stack([poses[frame.index] for frame in frames])


def _shared(before: WindowPrediction, placed: Similarity, now: WindowPrediction) -> Shared:
    rows = []
    for slot, index in enumerate(now.indices):
        if index in before.indices:
            old = before.slot(index)
            points = []
            for one, prediction in ((old, before), (slot, now)):
                local = unproject(prediction.depth[one], prediction.K[one])[::_STRIDE, ::_STRIDE].reshape(-1, 3)
                points.append((local[:, 2], transform(prediction.T_window_camera[one], local)))
            weight = np.sqrt(before.confidence[old] * now.confidence[slot])[::_STRIDE, ::_STRIDE].ravel()
            T_map = placed.pose(before.T_window_camera[old])
            moved = placed.scale * points[0][1] @ placed.R.T + placed.t
            rows.append(
                (
                    T_map,
                    now.T_window_camera[slot],
                    moved,
                    points[1][1],
                    points[0][0] * placed.scale,
                    points[1][0],
                    weight,
                )
            )
    fields = [np.stack(column) for column in zip(*rows, strict=True)]
    known = np.isfinite(fields[4]) & np.isfinite(fields[5])
    fields[6] = np.where(known, fields[6], 0.0)
    for field in (2, 3):
        fields[field] = np.where(known[..., None], fields[field], 0.0)
    for field in (4, 5):
        fields[field] = np.where(known, fields[field], 1.0)
    return Shared(*fields)


def _flat(shared: Shared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return shared.points_window.reshape(-1, 3), shared.points_map.reshape(-1, 3), shared.weight.ravel()


def _weighted(source: np.ndarray, target: np.ndarray, weight: np.ndarray, symmetric: bool) -> Similarity:
    """Closed-form weighted similarity; scale by least squares of the target, or symmetric (RMS / RMS)."""
    share = weight / weight.sum()
    mean_source, mean_target = share @ source, share @ target
    a, b = source - mean_source, target - mean_target
    U, D, Vt = np.linalg.svd((share[:, None] * b).T @ a)
    S = np.array([1.0, 1.0, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    R = U * S @ Vt
    spread = share @ (a**2).sum(1)
    scale = float(np.sqrt(share @ (b**2).sum(1) / spread) if symmetric else (D * S).sum() / spread)
    return Similarity(scale, R, mean_target - scale * R @ mean_source)
