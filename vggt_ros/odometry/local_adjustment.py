"""The newest keyframes where their corners alone put them: local bundle adjustment (Mur-Artal et al. 2015, VI.D).

A window is placed from what the network says and a few frames of corners, and each hangs on the one before. Corners
know more: what several keyframes saw from different places holds them together, whoever placed them. So whenever the
map has grown its newest keyframes are adjusted once more, by triangulated points alone; the oldest of them stay, and
with them place and unit. What moved is a correction of the map like that of a loop.

Only while the network is of little use: the unit of ten keyframes' corners drifts (by 4 % in one turn of a room),
and a network whose depth fits to the points does not let it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vggt_ros.camera import PixelMap, invert, transform
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.windows.adjustment import Adjustment
from vggt_ros.odometry.windows.by_corners import DOUBT, MOST, SURE, fit, view_of
from vggt_ros.odometry.windows.landmarks import Landmarks, View, triangulate
from vggt_ros.odometry.windows.observations import Observations, Slot
from vggt_ros.odometry.windows.weighing import RefineConfig
from vggt_ros.similarity import Similarity

HELD, MOVING = 2, 8  # keyframes
PIXEL = 0.5  # px at 518, standard deviation of a corner of a keyframe
WORTH = 0.1  # log, spread of depth about the points from which the network is not worth being heard beside corners
UNTOLD = 50.0  # standard deviation of the log of depth, which has no say


def adjust_locally(
    keyframes: Sequence[Keyframe],
    latest: Keyframe,
    said: np.ndarray,
    pixel_map: PixelMap,
    keep_unit: bool,
) -> tuple[dict[int, Similarity], float]:
    """How each keyframe's x in the map moves, x -> similarity x, by frame index: those that stay, too. And how much the
    network's depth scatters about the points, log, NaN where they do not tell.

    Nothing moves where too few corners tell, or where the network's depth fits to the points: then it knows the unit
    better.
    keyframes: of the map, in the order of time. latest: the newest frame, one of them or not. said: (h, w) its depth by
    the network, in any unit. pixel_map: of the images that all of them are. keep_unit: whether lengths are, on the
    whole, what they were.
    """
    keyframes = [*(one for one in keyframes if one is not latest), latest]
    near = [one for one in keyframes if one.corners is not None][-(HELD + MOVING) :]
    views = [view_of(one, pixel_map) for one in near]
    landmarks = triangulate(views)
    seen = [len(landmarks.seen_in(view.corners)[0]) for view in views]
    held = HELD if len(near) == HELD + MOVING else 1
    moving = np.array([number >= held and count >= SURE for number, count in enumerate(seen)])
    if not moving.any():
        return {}, float('nan')
    _, spread = fit(views[-1], pixel_map, said, landmarks)
    if spread < WORTH:
        return {}, spread
    problem = _problem(near, views, landmarks, ~moving, pixel_map)
    problem.solve()
    counts = np.bincount(problem.observations.slot, minlength=len(near))
    agreed = np.bincount(problem.observations.slot, problem.agreed, len(near)) / np.maximum(counts, 1)
    if (agreed[moving] < MOST).any():
        return {}, spread
    poses = problem.T
    longer = _lengthened(views, poses) if keep_unit or held < HELD else 1.0
    start = poses[0, :3, 3]
    corrections = {one.frame.index: Similarity.identity() for one in keyframes}
    for number in np.flatnonzero(moving):
        one, T = near[number], poses[number].copy()
        rows, _ = landmarks.seen_in(views[number].corners)
        before = transform(invert(one.T_map_camera), landmarks.xyz[rows])[:, 2]
        after = transform(invert(T), problem.points[rows])[:, 2]
        T[:3, 3] = start + (T[:3, 3] - start) / longer
        scale = float(np.median(after / before)) / longer
        R = T[:3, :3] @ one.T_map_camera[:3, :3].T
        corrections[one.frame.index] = Similarity(scale, R, T[:3, 3] - scale * R @ one.T_map_camera[:3, 3])
    return corrections, spread


def _problem(
    near: Sequence[Keyframe], views: Sequence[View], landmarks: Landmarks, fixed: np.ndarray, pixel_map: PixelMap
) -> Adjustment:
    slots, parts = [], []
    for number, view in enumerate(views):
        known = bool(fixed[number])
        slots.append(Slot(view.T, view.corners, None, view.K, pixel_map, known=known, fixed=known))
        rows, at = landmarks.seen_in(view.corners)
        z = transform(invert(view.T), landmarks.xyz[rows])[:, 2]
        parts.append((np.full(len(rows), number), rows, view.corners.uv[at], z))
    columns = [np.concatenate(one) for one in zip(*parts, strict=True)]
    observations = Observations(columns[0], columns[1], columns[2], columns[3], landmarks.id)
    config = RefineConfig(pixel=PIXEL, surface=UNTOLD, frame=UNTOLD)
    return Adjustment(slots, observations, DOUBT[1], DOUBT[0] * near[-1].median_depth, 0.0, config, landmarks.xyz)


def _lengthened(views: Sequence[View], poses: np.ndarray) -> float:
    """By how much the way has become longer."""
    ways = [np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).sum() for T in (np.stack([v.T for v in views]), poses)]
    return float(ways[1] / ways[0]) if ways[0] > 0 else 1.0
