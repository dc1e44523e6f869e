"""Trajectories as text: TUM's, ``t tx ty tz qx qy qz qw``, first the unit of lengths; and KITTI's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.files.text import rows
from vggt_ros.types import Scale

LATEST = 2**63 // 10**9  # seconds that nanoseconds can count
UNITS = {Scale.UNKNOWN: 'unknown', Scale.RELATIVE: 'relative', Scale.METRIC: 'metres'}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses over time.

    stamps: (N,) int64 nanoseconds, in the order of the file. T_world_camera: (N, 4, 4) float64; what its unit is, the
    scale of its source says.
    """

    stamps: np.ndarray
    T_world_camera: np.ndarray

    def __len__(self) -> int:
        return len(self.stamps)

    def pose(self, stamp: int) -> np.ndarray | None:
        """The pose (4, 4) with exactly this stamp, None when there is none."""
        found = np.flatnonzero(self.stamps == stamp)
        return self.T_world_camera[found[0]] if len(found) else None

    def at(self, stamps: np.ndarray, gap: int) -> Trajectory:
        """The poses at those of these stamps (sorted, nanoseconds) that lie between two of its own, or are one.

        Interpolated: positions along a line, rotations about one axis. gap: nanoseconds; between two poses farther
        apart than this nothing is known.
        """
        order = np.argsort(self.stamps, kind='stable')
        own, poses = self.stamps[order], self.T_world_camera[order]
        if not len(own) or not len(stamps):
            return Trajectory(np.empty(0, np.int64), np.empty((0, 4, 4)))
        after = np.searchsorted(own, stamps)
        exact = own[np.minimum(after, len(own) - 1)] == stamps
        before = np.maximum(np.where(exact, after, after - 1), 0)
        after = np.minimum(after, len(own) - 1)
        span = own[after] - own[before]
        known = exact | ((own[before] <= stamps) & (stamps <= own[after]) & (span <= gap))
        share = np.where(span > 0, (stamps - own[before]) / np.maximum(span, 1), 0.0)[known]
        first, last = poses[before[known]], poses[after[known]]
        found = first.copy()
        found[:, :3, 3] += share[:, None] * (last[:, :3, 3] - first[:, :3, 3])
        if known.any():
            turn = Rotation.from_matrix(first[:, :3, :3]).inv() * Rotation.from_matrix(last[:, :3, :3])
            way = Rotation.from_rotvec(share[:, None] * turn.as_rotvec())
            # Where nothing turns the matrix stays as it was read.
            turned = first[:, :3, :3] @ way.as_matrix()
            found[:, :3, :3] = np.where((share > 0)[:, None, None], turned, first[:, :3, :3])
        return Trajectory(np.asarray(stamps, np.int64)[known], found)


def parse_stamp(text: str) -> int:
    """Decimal seconds -> nanoseconds, exact: the number never passes through float. ValueError when it is none."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise ValueError(f'{text!r} is not a time in seconds') from None
    if not seconds.is_finite() or not 0 <= seconds < LATEST:
        raise ValueError(f'{text!r} is not a time in seconds')
    return int((seconds * 10**9).to_integral_value())


def format_stamp(stamp: int) -> str:
    """Nanoseconds -> seconds with nine decimals, the inverse of :func:`parse_stamp`."""
    if stamp < 0:
        raise ValueError(f'stamp {stamp} ns is negative')
    return f'{stamp // 10**9}.{stamp % 10**9:09d}'


def read_tum(path: Path | str) -> Trajectory:
    """Read a trajectory; blank lines and lines starting with # are skipped.

    Raises ValueError naming file and line for anything that is not a pose.
    """
    stamps, found = [], []
    for number, words in rows(Path(path)):
        try:
            if len(words) != 8:
                raise ValueError(f'{len(words)} values instead of t tx ty tz qx qy qz qw')
            row = np.array([float(word) for word in words[1:]])
            if not np.isfinite(row).all() or abs(np.linalg.norm(row[3:]) - 1) > 1e-2:
                raise ValueError('not finite, or the quaternion has not length 1')
            stamps.append(parse_stamp(words[0]))
        except ValueError as error:
            raise ValueError(f'{path}:{number}: {error}') from None
        found.append(row)
    values = np.array(found).reshape(-1, 7)
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    poses[:, :3, 3] = values[:, :3]
    if len(values):
        poses[:, :3, :3] = Rotation.from_quat(values[:, 3:]).as_matrix()
    return Trajectory(np.array(stamps, np.int64), poses)


def write_tum(path: Path | str, trajectory: Trajectory, scale: Scale) -> None:
    """Write a trajectory. scale: what its lengths are."""
    Path(path).write_text(tum_header(scale) + tum_lines(trajectory.stamps, trajectory.T_world_camera))


def tum_header(scale: Scale | None = None) -> str:
    """The first line. scale: what lengths are; None where that may change on the way, and is told elsewhere."""
    unit = '' if scale is None else f'; unit of lengths: {UNITS[scale]}'
    return f'# t tx ty tz qx qy qz qw  camera-to-world, optical axes, seconds{unit}\n'


def tum_lines(stamps: Iterable[int], poses: np.ndarray) -> str:
    """Poses (N, 4, 4) with nine decimals (nanoseconds, nanometres); the quaternions' w is not negative."""
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat() if len(poses) else np.empty((0, 4))
    quaternions[quaternions[:, 3] < 0] *= -1  # as_quat(canonical=True) wants SciPy 1.11
    lines = []
    for stamp, position, quaternion in zip(stamps, poses[:, :3, 3], quaternions, strict=True):
        values = ' '.join(f'{value:.9f}' for value in (*position, *quaternion))
        lines.append(f'{format_stamp(int(stamp))} {values}\n')
    return ''.join(lines)


def write_kitti(path: Path | str, trajectory: Trajectory) -> None:
    """Write a trajectory as KITTI's odometry has it, see :func:`kitti_lines`: without stamps."""
    poses = trajectory.T_world_camera
    Path(path).write_text(kitti_lines(poses, poses[0]) if len(poses) else '')


def kitti_lines(poses: np.ndarray, first: np.ndarray) -> str:
    """Poses (N, 4, 4) as (3, 4) matrices, each row by row in a line: camera-to-world, the world is the first camera."""
    matrices = (np.linalg.inv(first) @ poses)[:, :3].reshape(-1, 12)
    return ''.join(' '.join(f'{value:.9e}' for value in row) + '\n' for row in matrices)
