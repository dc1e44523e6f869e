"""A window refined by tracked corners: the pixel is a better ruler than the network's heads.

The network places every frame, and every pixel's depth, with an error of its own. Corners that were followed from frame
to frame (klt.py) see the same physical points to a fraction of a pixel. So poses and points are adjusted together
until the points lie where the frames see them (bundle adjustment, Triggs et al. 2000; the points are eliminated by a
Schur complement, their section 6.1), with everything that the network says as a prior: each frame's pose, its log depth
up to a factor of its own, and every pixel's depth on top of that. Where the camera hardly moves the network decides,
where there is parallax the corners do, each by how exact it is. Then every depth map is bent smoothly until it passes
through its points.

AIM-SLAM (0.061 m with rays only, 0.031 m with pixels) and HyVGGT-VO refine poses by pixels too, with their own
optimisers. Refining poses alone, against points with the network's depth, leaves its errors of depth in the poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vggt_ros.odometry.windows.adjustment import FREE, POSE, Adjustment
from vggt_ros.odometry.windows.bending import bend, factor
from vggt_ros.odometry.windows.focal import FocalEstimate
from vggt_ros.odometry.windows.observations import MIN_POINTS, NO_POINTS, Points, Slot, observe
from vggt_ros.odometry.windows.weighing import RefineConfig


@dataclass(frozen=True, eq=False)
class Refined:
    """A window after refinement.

    T_map_camera: (S, 4, 4). covariances: per slot (6, 6) of the step to it from slot 0 (of slot 0 itself in the map),
    translation and rotation in the map's axes, None where a frame was not moved. log_depth: per slot the grid
    (bending.py) of what to add to the log of the depth that this window gave it, None for nothing. ties: (S,) corners
    of each slot that a frame of the map sees too, and that agree. agreed: (S,) share of a slot's corners that do; 0
    where they would move it too far, 1 without any. points: the corners themselves. focal: what they say about the
    focal length, where it was asked for.
    """

    T_map_camera: np.ndarray
    covariances: list[np.ndarray | None]
    log_depth: list[np.ndarray | None]
    ties: np.ndarray
    agreed: np.ndarray
    points: Points
    focal: FocalEstimate | None = None

    @classmethod
    def unchanged(cls, T_map_camera: np.ndarray) -> Refined:
        """Nothing was tracked."""
        count = len(T_map_camera)
        return cls(T_map_camera, [None] * count, [None] * count, np.zeros(count, int), np.ones(count), NO_POINTS)

    def first(self, count: int) -> Refined:
        """The first slots of it alone."""
        return replace(
            self,
            T_map_camera=self.T_map_camera[:count],
            covariances=self.covariances[:count],
            log_depth=self.log_depth[:count],
            ties=self.ties[:count],
            agreed=self.agreed[:count],
        )

    def tied(self, slots: Sequence[int], shared: Sequence[int]) -> Refined:
        """With these slots tied by so many corners at least."""
        ties = self.ties.copy()
        ties[list(slots)] = np.maximum(ties[list(slots)], shared)
        return replace(self, ties=ties)

    def depth_factor(self, slot: int, shape: tuple[int, ...]) -> np.ndarray | float:
        """What to multiply a slot's depth (h, w) with."""
        grid = self.log_depth[slot]
        if grid is None:
            return 1.0
        return factor(grid, shape)


def refine(
    slots: Sequence[Slot],
    rotation_sigma: float,
    translation_sigma: float,
    config: RefineConfig | None = None,
    scale_sigma: float = 0.0,
    focal_sigma: float = 0.0,
) -> Refined:
    """Move every slot that is not fixed.

    rotation_sigma (rad), translation_sigma (map units): standard deviation per axis of the network's poses.
    scale_sigma: of the log of the factor that brought the depth of the new frames into map units. focal_sigma: of the
    log of the focal length that all slots have, 0 where it is known.
    """
    config = config or RefineConfig()
    T = np.stack([slot.T_map_camera for slot in slots])
    observations = observe(slots)
    if observations is None or all(slot.fixed for slot in slots):
        return Refined.unchanged(T)
    sigmas = rotation_sigma, translation_sigma, scale_sigma
    problem = Adjustment(slots, observations, *sigmas, config, focal_sigma=focal_sigma)
    covariance = problem.solve()
    focal = FocalEstimate(*problem.focal_by_corners()) if focal_sigma else None
    covariance = covariance[:-1, :-1]
    covariances: list[np.ndarray | None] = [None] * len(slots)
    counts = np.bincount(observations.slot, minlength=len(slots))
    moved = problem.moved()
    kept = np.zeros(len(slots), bool)
    for number, slot in enumerate(slots):
        kept[number] = counts[number] >= MIN_POINTS and (slot.fixed or bool((moved[number] <= config.step).all()))
        if kept[number] and not slot.fixed:
            T[number] = problem.T[number]
            covariances[number] = _of_step(covariance, number)
    log_depth = [_bent(problem, number, config) if ok else None for number, ok in enumerate(kept)]
    shares = np.bincount(observations.slot, problem.agreed, len(slots)) / np.maximum(counts, 1)
    agreed = np.where(counts > 0, np.where(kept, shares, 0.0), 1.0)
    ties = np.where(kept, problem.ties(), 0)
    return Refined(T, covariances, log_depth, ties, agreed, problem.corners(kept), focal)


def _bent(problem: Adjustment, number: int, config: RefineConfig) -> np.ndarray | None:
    found, pixel_map = problem.depth_steps(number), problem.slots[number].map
    if found is None:
        return None
    uv, steps, weight = found
    return bend(pixel_map.to_network(uv), steps, weight, pixel_map.size, config.surface)


def _of_step(covariance: np.ndarray, number: int) -> np.ndarray:
    """(6, 6) of a slot's pose minus slot 0's, from the joint (7 S, 7 S); of its pose where it is slot 0."""
    blocks = covariance.reshape(len(covariance) // FREE, FREE, -1, FREE)[:, :POSE, :, :POSE]
    if number == 0:
        return blocks[0, :, 0]
    return blocks[number, :, number] + blocks[0, :, 0] - blocks[number, :, 0] - blocks[0, :, number]
