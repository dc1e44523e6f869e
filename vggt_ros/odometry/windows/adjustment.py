"""Poses, depth factors, focal length and points of one window adjusted together: the least squares of :mod:`refine`.

Bundle adjustment (Triggs et al. 2000) with everything that the network says as a prior; the points are eliminated by a
Schur complement (their section 6.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import rays, transform
from vggt_ros.depth import depth_at
from vggt_ros.odometry.windows.bending import CAUCHY
from vggt_ros.odometry.windows.observations import MIN_POINTS, Observations, Points, Slot
from vggt_ros.odometry.windows.weighing import RefineConfig

STEPS = 5
OUTLIER = 0.05  # of the depth: at the start a place this far from the mean of all counts a quarter
KNOWN = 0.25  # how much less the log depth of a frame of the map errs than that of a new one
GAUGE = 1e-6  # share of the priors that holds what corners do not tell
POSE = 6  # translation and rotation vector in the map's axes, rotation applied from the left; then the log factor
FREE = POSE + 1


class _Projection(NamedTuple):
    """The points as the cameras see them, one row for every observation.

    lever: (M, 3) from the camera, map axes; x: (M, 3) in the camera's axes; front: (M,) bool; z: (M,) depth, 1 where it
    is not in front. residual: (M, 3) whitened, pixel and log depth, measured minus predicted; weight: (M, 3) of it.
    """

    lever: np.ndarray
    x: np.ndarray
    front: np.ndarray
    z: np.ndarray
    residual: np.ndarray
    weight: np.ndarray


class Adjustment:
    """Gauss-Newton on poses, log factors of depth, and points."""

    def __init__(
        self,
        slots: Sequence[Slot],
        observations: Observations,
        rotation_sigma: float,
        translation_sigma: float,
        scale_sigma: float,
        config: RefineConfig,
        places: np.ndarray | None = None,
        focal_sigma: float = 0.0,
    ) -> None:
        """places: (N, 3) of the points at the start, by default where the depth of the frames puts them. focal_sigma:
        standard deviation of the log of the focal length that all slots have, 0 where it is known.
        """
        self.slots, self.observations, self.config = slots, observations, config
        self.T0 = np.stack([slot.T_map_camera for slot in slots])
        self.T, self.factor = self.T0.copy(), np.zeros(len(slots))
        self.focal_sigma, self.focal = focal_sigma, 0.0  # log of the factor of the focal length
        self.known = np.isfinite(observations.z)
        self.log_z = np.log(np.where(self.known, observations.z, 1.0))
        self.K = np.stack([slot.K for slot in slots])
        unit = np.array([1.0 if slot.corners is None else slot.corners.unit for slot in slots])
        self.pixel = config.pixel * unit[observations.slot]
        weight = np.array([slot.weight for slot in slots])
        self.points = self._start(weight) if places is None else places.copy()
        way = self.points[observations.point] - self.T[observations.slot, :3, 3]
        self.depth = float(np.median(np.linalg.norm(way, axis=1)))
        counts = np.bincount(observations.slot, self.known, len(slots))
        self.share = np.minimum(1.0, config.independent / np.maximum(counts, 1))[observations.slot]
        sigma = np.repeat(
            [max(translation_sigma, config.translation * self.depth), max(rotation_sigma, config.rotation)], 3
        )
        doubt = np.repeat([slot.doubt for slot in slots], 3, axis=1)
        self.sigma = np.hypot(sigma, doubt) / np.sqrt([[slot.pose_weight] for slot in slots])
        for number, slot in enumerate(slots):
            if slot.turned is not None:
                self.sigma[number, 3:] = slot.turned
        self.free = np.array([not slot.fixed for slot in slots])
        self.known_slot = np.array([slot.known for slot in slots])
        variance = config.frame**2 / weight
        # The map's depth was bent to its points before; that of new frames hangs on the alignment, too.
        variance = np.where(self.known_slot, KNOWN**2 * variance, variance + scale_sigma**2)
        # What is fixed has no variance: its rows are taken out of the system.
        self.prior = np.concatenate([1 / self.sigma**2, 1 / variance[:, None]], axis=1)
        self.order = np.argsort(observations.point, kind='stable')
        self.first = np.searchsorted(observations.point[self.order], np.arange(observations.points))
        self.rows = [np.flatnonzero(observations.slot == number) for number in range(len(slots))]

    def _start(self, weight: np.ndarray) -> np.ndarray:
        """(N, 3) every point where the frames that see it put it, in the mean by the weight of their depth."""
        observations, known = self.observations, self.known
        z = np.where(known, observations.z, 1.0)
        places = np.empty((len(z), 3))
        for number, slot in enumerate(self.slots):
            row = observations.slot == number
            places[row] = transform(slot.T_map_camera, rays(observations.uv[row], slot.K) * z[row, None])
        # Depth errs in proportion. Single wrong depths (edges, glass) must not bend the mean.
        prior = np.where(known, weight[observations.slot] / z**2, 0.0)
        share = prior
        for _ in range(3):
            total = np.bincount(observations.point, share, observations.points)
            sums = [np.bincount(observations.point, share * one, observations.points) for one in places.T]
            mean = np.stack(sums, axis=1) / total[:, None]
            share = prior / (1 + (np.linalg.norm(places - mean[observations.point], axis=1) / (OUTLIER * z)) ** 2) ** 2
        return mean

    def solve(self) -> np.ndarray:
        """The covariance (7 S + 1, 7 S + 1) of poses, log factors and the log of the focal length after the last step;
        0 for what is fixed.
        """
        count = len(self.slots)
        loose = np.ones((count, FREE), bool)
        loose[~self.free, :POSE] = False
        kept = np.flatnonzero([*loose.ravel(), self.focal_sigma > 0])
        for _ in range(STEPS):
            system, right, back = self._system()
            step = np.zeros(count * FREE + 1)
            step[kept] = np.linalg.solve(system[np.ix_(kept, kept)], right[kept])
            by_slot = step[:-1].reshape(count, FREE)
            self._move(by_slot, float(step[-1]), back(step))
            if np.abs(by_slot[:, :3]).max() < 1e-4 * self.depth and np.abs(step).max() < 1e-4:
                break
        self.last = self._project()
        self.agreed = (self.last.residual[:, :2] ** 2).sum(1) < 3 * CAUCHY**2
        covariance = np.zeros_like(system)
        covariance[np.ix_(kept, kept)] = np.linalg.inv(system[np.ix_(kept, kept)])
        return covariance

    def _move(self, step: np.ndarray, focal: float, points: np.ndarray) -> None:
        self.T[:, :3, 3] += step[:, :3]
        turn = Rotation.from_rotvec(step[:, 3:POSE]).as_matrix()
        self.T[self.free, :3, :3] = (turn @ self.T[:, :3, :3])[self.free]
        self.factor += step[:, POSE]
        self.focal += focal
        self.K[:, [0, 1], [0, 1]] *= np.exp(focal)
        # A point with little parallax must not jump behind the camera.
        size = np.linalg.norm(points, axis=1)
        self.points += points * np.minimum(1.0, 0.3 * self.depth / np.maximum(size, 1e-12))[:, None]

    def _project(self) -> _Projection:
        slot, point = self.observations.slot, self.observations.point
        lever = self.points[point] - self.T[slot, :3, 3]
        x = np.einsum('nji,nj->ni', self.T[slot, :3, :3], lever)
        front = x[:, 2] > 0.05 * self.depth
        z = np.where(front, x[:, 2], 1.0)
        residual = np.empty((len(x), 3))
        for axis in (0, 1):
            seen = self.K[slot, axis, axis] * x[:, axis] / z + self.K[slot, axis, 2]
            residual[:, axis] = (self.observations.uv[:, axis] - seen) / self.pixel
        off = self.log_z + self.factor[slot] - np.log(z)
        residual[:, 2] = np.where(self.known & front, off / self.config.surface, 0.0)
        weight = np.empty_like(residual)
        weight[:, :2] = (front / (1 + (residual[:, :2] ** 2).sum(1) / CAUCHY**2))[:, None]
        weight[:, 2] = self.share * (front & self.known) / (1 + (residual[:, 2] / CAUCHY) ** 2)
        return _Projection(lever, x, front, z, residual, weight)

    def focal_by_corners(self) -> tuple[float, float]:
        """(log of the factor that the focal length lacked, inverse of its variance) by the corners alone.

        What the network says is that of the lens that it sees, and the map that of the lens that it began with.
        """
        system, right, _ = self._system(alone=True)
        covariance = np.linalg.inv(system)
        if not covariance[-1, -1] > 0:  # they tell nothing, to the last digit
            return 0.0, 0.0
        return self.focal + float(covariance[-1] @ right), float(1 / covariance[-1, -1])

    def _system(self, alone: bool = False) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The reduced normal equations of poses, factors and focal length, and what turns their solution into steps of
        the points. alone: of the corners, without depth, and with hardly more of the priors than holds the gauge.
        """
        slot, point, count = self.observations.slot, self.observations.point, len(self.slots)
        lever, x, _, z, residual, weight = self._project()
        priors, of_focal = self.prior, self.focal_sigma**-2 if self.focal_sigma else 0.0
        if alone:
            weight[:, 2], priors, of_focal = 0.0, GAUGE * self.prior, GAUGE * of_focal
        local = np.zeros((len(x), 3, 3))  # derivatives by the point as the camera has it
        by_focal = np.zeros((len(x), 3))
        for axis in (0, 1):
            focal = self.K[slot, axis, axis] / self.pixel
            local[:, axis, axis], local[:, axis, 2] = focal / z, -focal * x[:, axis] / z**2
            by_focal[:, axis] = focal * x[:, axis] / z
        local[:, 2, 2] = 1 / z / self.config.surface
        # x = R^T (X - t): dt -> -R^T dt, a turn w (map axes) -> R^T (X - t) x w
        by_point = local @ np.swapaxes(self.T[slot, :3, :3], 1, 2)
        by_slot = np.zeros((len(x), 3, FREE))
        by_slot[:, :, :3] = -by_point
        by_slot[:, :, 3:POSE] = np.cross(by_point, lever[:, None, :])
        by_slot[:, 2, POSE] = -1 / self.config.surface
        weighted = by_point * weight[:, :, None]
        V = self._sum_by_point(np.swapaxes(weighted, 1, 2) @ by_point)
        V += np.eye(3) * (1e-3 / self.depth) ** 2
        pull = self._sum_by_point((weighted * residual[:, :, None]).sum(1))
        blocks = np.zeros((self.observations.points, count, FREE, 3))
        blocks[point, slot] = np.swapaxes(by_slot, 1, 2) @ weighted
        with_focal = self._sum_by_point((weighted * by_focal[:, :, None]).sum(1))
        of_slots = blocks.reshape(self.observations.points, count * FREE, 3)
        coupling = np.concatenate([of_slots, with_focal[:, None]], axis=1)
        inverse = np.linalg.inv(V)
        solved = coupling @ inverse
        flat = solved.transpose(1, 0, 2).reshape(count * FREE + 1, -1)
        system = -flat @ coupling.transpose(1, 0, 2).reshape(count * FREE + 1, -1).T
        right = -flat @ pull.reshape(-1)
        difference = self._difference()
        for number, rows in enumerate(self.rows):
            block = slice(FREE * number, FREE * (number + 1))
            A = by_slot[rows].reshape(-1, FREE)
            W = A * weight[rows].reshape(-1, 1)
            system[block, block] += W.T @ A + np.diag(priors[number])
            right[block] += W.T @ residual[rows].reshape(-1) + priors[number] * difference[number]
            across = W.T @ by_focal[rows].reshape(-1)
            system[block, -1] += across
            system[-1, block] += across
        system[-1, -1] += (weight * by_focal**2).sum() + of_focal
        right[-1] += (weight * by_focal * residual).sum() - of_focal * self.focal

        def back(step: np.ndarray) -> np.ndarray:
            return np.einsum('nij,nj->ni', inverse, pull - np.einsum('nai,a->ni', coupling, step))

        return system, right, back

    def _sum_by_point(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values[self.order], self.first, axis=0)

    def _difference(self) -> np.ndarray:
        """(S, 7) what the network says minus what is."""
        turn = Rotation.from_matrix(self.T0[:, :3, :3] @ np.swapaxes(self.T[:, :3, :3], 1, 2)).as_rotvec()
        return np.concatenate([self.T0[:, :3, 3] - self.T[:, :3, 3], turn, -self.factor[:, None]], axis=1)

    def moved(self) -> np.ndarray:
        """(S, 6) how far every pose has gone, in the network's standard deviations."""
        return np.abs(self._difference()[:, :POSE]) / self.sigma

    def ties(self) -> np.ndarray:
        """(S,) corners that a frame of the map sees as well, and that lie where both see them."""
        agreed = self.agreed
        anchored = np.zeros(self.observations.points, bool)
        anchored[self.observations.point[agreed & self.known_slot[self.observations.slot]]] = True
        return np.bincount(
            self.observations.slot[agreed & anchored[self.observations.point]], minlength=len(self.slots)
        )

    def corners(self, kept: np.ndarray) -> Points:
        """Where the corners are; of the slots only those (S,) bool count that were kept."""
        point, counts = self.observations.point, kept[self.observations.slot]
        seen = np.bincount(point, counts, self.observations.points)
        fit = np.bincount(point, counts & self.agreed, self.observations.points)
        told = seen > 1
        return Points(self.observations.id[told], self.points[told], (2 * fit >= seen)[told])

    def depth_steps(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """How the log depth of a slot should change at its corners: pixels (N, 2), steps (N,) and their weights (N,).

        Against the depth that this window gave a frame of the map, where it did. None where too few have depth.
        """
        slot, rows = self.slots[number], self.rows[number]
        if slot.fresh is None:
            known, log_z = self.known[rows], self.log_z[rows]
        else:
            z = depth_at(slot.fresh, slot.map.to_network(self.observations.uv[rows]))
            known = np.isfinite(z)
            log_z = np.log(np.where(known, z, 1.0))
        known &= self.last.front[rows]
        if slot.depth is None or known.sum() < MIN_POINTS:
            return None
        rows, log_z = rows[known], log_z[known]
        return self.observations.uv[rows], np.log(self.last.z[rows]) - log_z, self.last.weight[rows, 0]
