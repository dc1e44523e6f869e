"""Poses of a window refined by tracked corners: the pixel is a better ruler than the network's pose head.

The network places every frame with an error of its own. Corners that were followed from frame to frame (klt.py) see
the same physical points to a fraction of a pixel; with the points' places taken from the depth of the *other* frames,
each new frame is moved until it sees them where it did. AIM-SLAM (0.061 m with rays only, 0.031 m with pixels)
and HyVGGT-VO do it with their own optimisers; here it is a few Gauss-Newton steps per frame around the network's pose,
which stays as a prior, so that frames with few corners stay where they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, invert, project, rays, transform
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.transfer import depth_at

ROUNDS = 2  # points are placed again after the frames have moved
STEPS = 4
MIN_POINTS = 12
OUTLIER = 0.05  # of the depth: a place this far from the mean of all counts a quarter


@dataclass(frozen=True)
class RefineConfig:
    """How corners and network are weighed against each other.

    pixel: standard deviation of a point seen in a frame, px at 518. independent: corners that err independently; more
    do not count for more, because depth errs smoothly.
    rotation (rad), translation (share of the median depth): least standard deviation of the network's pose. huber: in
    standard deviations. step: frames are not moved by more than so many standard deviations of the network's pose.
    """

    pixel: float = 2.0
    independent: float = 20.0
    rotation: float = float(np.radians(0.1))
    translation: float = 0.003
    huber: float = 1.345
    step: float = 5.0


@dataclass(frozen=True, eq=False)
class Refined:
    """A window after refinement.

    T_map_camera: (S, 4, 4). covariances: per slot (6, 6), translation and rotation in the map's axes, None where a
    frame was not moved. log_depth: (S,) what to add to the log of each frame's depth, so that it agrees with the
    others'.
    """

    T_map_camera: np.ndarray
    covariances: list[np.ndarray | None]
    log_depth: np.ndarray


@dataclass(frozen=True, eq=False)
class Slot:
    """What is known of one frame of the window.

    T_map_camera: (4, 4) as the network has it. corners: of its image. depth: (h, w) map units, NaN unknown, or None; K:
    (3, 3) in source pixels; weight: how much its depth counts (windows it was averaged over). fixed: stays.
    """

    T_map_camera: np.ndarray
    corners: Corners | None
    depth: np.ndarray | None
    K: np.ndarray
    map: PixelMap
    weight: float
    fixed: bool


def refine(
    slots: Sequence[Slot], rotation_sigma: float, translation_sigma: float, config: RefineConfig | None = None
) -> Refined:
    """Move every slot that is not fixed.

    rotation_sigma (rad), translation_sigma (map units): standard deviation per axis of the network's poses.
    """
    config = config or RefineConfig()
    T = np.stack([slot.T_map_camera for slot in slots])
    covariances: list[np.ndarray | None] = [None] * len(slots)
    log_depth = np.zeros(len(slots))
    ids = [slot.corners.id for slot in slots if slot.corners is not None]
    known = np.unique(np.concatenate(ids)) if ids else np.zeros(0, np.int64)
    lifts = [_lift(slot, known) for slot in slots]
    for _ in range(ROUNDS):
        cloud = _Cloud(len(known), slots, lifts, T)
        for number, slot in enumerate(slots):
            if slot.fixed or slot.corners is None:
                continue
            rows = np.searchsorted(known, slot.corners.id)
            landmarks, trust = cloud.without(number)
            usable = trust[rows] > 0
            if usable.sum() < MIN_POINTS:
                continue
            T[number], covariances[number] = _solve(
                T[number],
                slot.T_map_camera,
                landmarks[rows[usable]],
                slot.corners.uv[usable],
                slot.K,
                slot.corners.unit * config.pixel,
                rotation_sigma,
                translation_sigma,
                config,
            )
            moved = covariances[number] is not None
            log_depth[number] = (
                _depth_step(T[number], lifts[number], landmarks, trust, cloud.shares[number]) if moved else 0.0
            )
    return Refined(T, covariances, log_depth)


_Lift = tuple[np.ndarray, np.ndarray]
"""Rows (N,) of the corners that have depth, and their points (N, 3) in the camera's frame."""


class _Cloud:
    """Every corner's place in the map: the mean of what the frames that see it say, by the weight of their depth."""

    def __init__(self, count: int, slots: Sequence[Slot], lifts: Sequence[_Lift], T: np.ndarray) -> None:
        self.lifts = lifts
        self.points = [transform(pose, local) for (_, local), pose in zip(lifts, T, strict=True)]
        # Depth errs in proportion.
        prior = [
            slot.weight / np.maximum(local[:, 2], 1e-6) ** 2 for slot, (_, local) in zip(slots, lifts, strict=True)
        ]
        self.shares = prior
        self._sum(count)
        for _ in range(2):
            # Single wrong depths (edges, glass) must not bend the mean.
            mean = self.total / np.where(self.weight > 0, self.weight, 1.0)[:, None]
            self.shares = [
                share / (1 + (np.linalg.norm(points - mean[rows], axis=1) / (OUTLIER * local[:, 2])) ** 2) ** 2
                for share, points, (rows, local) in zip(prior, self.points, lifts, strict=True)
            ]
            self._sum(count)

    def _sum(self, count: int) -> None:
        self.total, self.weight = np.zeros((count, 3)), np.zeros(count)
        for (rows, _), points, share in zip(self.lifts, self.points, self.shares, strict=True):
            self.total[rows] += points * share[:, None]
            self.weight[rows] += share

    def without(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Places (N, 3) and weights (N,), 0 = unknown, as the other frames have them.

        A frame's own depth cannot tell where the frame is.
        """
        rows, points, share = self.lifts[number][0], self.points[number], self.shares[number]
        total, weight = self.total.copy(), self.weight.copy()
        total[rows] -= points * share[:, None]
        weight[rows] -= share
        weight[weight < 1e-9 * self.weight] = 0.0
        return total / np.where(weight > 0, weight, 1.0)[:, None], weight


def _depth_step(T: np.ndarray, lift: _Lift, landmarks: np.ndarray, trust: np.ndarray, share: np.ndarray) -> float:
    """How far a frame's log depth is to go towards what the others say: all of it where they are many, half for one."""
    rows, local = lift
    z = transform(invert(T), landmarks[rows])[:, 2]
    usable = (trust[rows] > 0) & (z > 0)
    if usable.sum() < MIN_POINTS:
        return 0.0
    part = np.median(trust[rows][usable] / (trust[rows][usable] + share[usable]))
    return float(part * np.median(np.log(z[usable] / local[usable, 2])))


def _lift(slot: Slot, known: np.ndarray) -> _Lift:
    if slot.corners is None or slot.depth is None:
        return np.zeros(0, np.int64), np.zeros((0, 3))
    uv = slot.corners.uv
    z = depth_at(slot.depth, slot.map.to_network(uv))
    usable = np.isfinite(z)
    return np.searchsorted(known, slot.corners.id[usable]), rays(uv[usable], slot.K) * z[usable, None]


def _solve(
    T: np.ndarray,
    T_prior: np.ndarray,
    landmarks: np.ndarray,
    uv: np.ndarray,
    K: np.ndarray,
    sigma: float,
    rotation_sigma: float,
    translation_sigma: float,
    config: RefineConfig,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gauss-Newton on (translation, rotation vector), both in the map's axes, rotation applied from the left."""
    depth = float(np.median(np.linalg.norm(landmarks - T_prior[:3, 3], axis=1)))
    sigmas = np.repeat(
        [max(translation_sigma, config.translation * depth), max(rotation_sigma, config.rotation)], 3
    ).astype(float)
    prior = np.diag(1 / sigmas**2)
    focal = np.array([K[0, 0], K[1, 1]])
    T = T.copy()
    information = prior
    for _ in range(STEPS):
        R = T[:3, :3]
        local = transform(invert(T), landmarks)
        front = local[:, 2] > 0.05 * depth
        if front.sum() < MIN_POINTS:
            return T_prior, None
        x, target = local[front], uv[front]
        residual = (target - project(x, K)) / sigma
        size = np.linalg.norm(residual, axis=1)
        weight = np.minimum(1.0, config.huber / np.maximum(size, 1e-9)) * min(1.0, config.independent / len(x))
        # d uv / d local, local = R^T (X - t): dt -> -R^T dt, turn w (map axes) -> R^T (X - t) x w
        J_local = np.zeros((len(x), 2, 3))
        J_local[:, 0, 0], J_local[:, 0, 2] = focal[0] / x[:, 2], -focal[0] * x[:, 0] / x[:, 2] ** 2
        J_local[:, 1, 1], J_local[:, 1, 2] = focal[1] / x[:, 2], -focal[1] * x[:, 1] / x[:, 2] ** 2
        J_map = J_local @ R.T / sigma  # (N, 2, 3)
        lever = landmarks[front] - T[:3, 3]
        J = np.concatenate([-J_map, np.cross(J_map, lever[:, None, :], axis=-1)], axis=2)
        weighted = J * weight[:, None, None]
        information = prior + np.einsum('nij,nik->jk', weighted, J)
        difference = np.concatenate(
            [
                T_prior[:3, 3] - T[:3, 3],
                Rotation.from_matrix(T_prior[:3, :3] @ T[:3, :3].T).as_rotvec(),
            ]
        )
        right = np.einsum('nij,ni->j', weighted, residual) + prior @ difference
        step = np.linalg.solve(information, right)
        T[:3, 3] += step[:3]
        T[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix() @ T[:3, :3]
    moved = np.concatenate([T[:3, 3] - T_prior[:3, 3], Rotation.from_matrix(T[:3, :3] @ T_prior[:3, :3].T).as_rotvec()])
    if (np.abs(moved) > config.step * sigmas).any():
        return T_prior, None
    return T, np.linalg.inv(information)
