"""Similarity transforms: what moves keyframes, windows and maps; rotation, translation and a change of unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale R x + t. scale: float > 0. R: (3, 3). t: (3,), in units of the result."""

    scale: float
    R: np.ndarray
    t: np.ndarray

    @classmethod
    def identity(cls) -> Similarity:
        """Leaves everything where it is."""
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def rigid(cls, T: np.ndarray) -> Similarity:
        """A pose (4, 4), which changes no unit."""
        return cls(1.0, T[:3, :3], T[:3, 3])

    def __matmul__(self, other: Similarity) -> Similarity:
        """x -> self(other(x))."""
        return Similarity(self.scale * other.scale, self.R @ other.R, self.scale * self.R @ other.t + self.t)

    def inverse(self) -> Similarity:
        """Takes self(x) back to x."""
        return Similarity(1 / self.scale, self.R.T, -self.R.T @ self.t / self.scale)

    def between(self, other: Similarity) -> Similarity:
        """Takes ``other``'s coordinates to those of ``self``, where both lead to one world."""
        return self.inverse() @ other

    def pose(self, T: np.ndarray) -> np.ndarray:
        """A camera's pose (4, 4) -> its rigid pose where this takes it."""
        moved = np.eye(4)
        moved[:3, :3] = self.R @ T[:3, :3]
        moved[:3, 3] = self.scale * self.R @ T[:3, 3] + self.t
        return moved

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) -> (..., 3)."""
        return self.scale * points @ self.R.T + self.t

    def problem(self) -> str | None:
        """Why it is no similarity, None when it is one."""
        if not (np.isfinite(self.R).all() and np.isfinite(self.t).all() and np.isfinite(self.scale) and self.scale > 0):
            return 'is not finite, or its scale is not positive'
        if not np.allclose(self.R @ self.R.T, np.eye(3), atol=1e-6) or np.linalg.det(self.R) < 0:
            return 'has no rotation matrix: its columns are not orthonormal and right-handed'
        return None


def umeyama(source: np.ndarray, target: np.ndarray) -> Similarity:
    """(N, 3), (N, 3) -> the similarity with the least squares of target - similarity(source).

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
    return Similarity(scale, R, mean_target - scale * R @ mean_source)


def for_all(corrections: Mapping[int, Similarity], indices: Iterable[int]) -> dict[int, Similarity]:
    """A correction for each keyframe: its own, or that of the nearest one (in time) which has one.

    The odometry forgets keyframes earlier than a map does; where their neighbours go, they go too.
    """
    if not corrections:
        return {}
    indices, named = list(indices), sorted(corrections)
    return {index: corrections[named[place]] for index, place in zip(indices, _nearest(named, indices), strict=True)}


def move_poses(corrections: Mapping[int, Similarity], indices: Sequence[int], poses: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) of N images, each where the correction of the nearest keyframe takes it; as :func:`for_all`."""
    if not corrections:
        return poses
    named = sorted(corrections)
    place = _nearest(named, indices)
    scale, R, t = (
        np.array([getattr(corrections[index], name) for index in named])[place] for name in ('scale', 'R', 't')
    )
    moved = poses.copy()
    moved[:, :3, :3] = R @ poses[:, :3, :3]
    moved[:, :3, 3] = scale[:, None] * (R @ poses[:, :3, 3:])[..., 0] + t
    return moved


def _nearest(named: Sequence[int], indices: Sequence[int]) -> np.ndarray:
    """For each of the indices the place in ``named`` (ascending, not empty) of the nearest one, of two the lower."""
    known, wanted = np.asarray(named), np.asarray(indices, np.int64)
    after = np.searchsorted(known, wanted).clip(0, len(known) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(wanted - known[before]) <= np.abs(known[after] - wanted), before, after)
