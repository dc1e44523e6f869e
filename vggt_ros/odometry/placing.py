"""From a window and its anchors to what alignment and refinement are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vggt_ros.odometry.alignment import Alignment, Anchor, Similarity, align
from vggt_ros.odometry.anchors import Keyframe
from vggt_ros.odometry.gravity import assumed_level, map_from_camera
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.refine import Slot
from vggt_ros.odometry.window import Window
from vggt_ros.types import WindowPrediction

R_MAP_OPTICAL = map_from_camera(assumed_level().down)
"""Rotation of a level camera looking along the map's x axis: columns are the optical axes in REP-103."""

CornersOf = Callable[[int], Corners | None]
"""Frame index -> the corners tracked in it, None where unknown."""


def align_anchors(anchors: Sequence[Keyframe], prediction: WindowPrediction, log_scale: float) -> Alignment:
    """Where the window lies; without anchors it is the map. log_scale: of the window before, if all else fails."""
    if not anchors:
        origin = Similarity(1.0, R_MAP_OPTICAL, np.zeros(3))
        return Alignment(origin, 0.0, 0.0, 0.0, 1.0, np.zeros((6, 6)))
    return align(
        [
            Anchor(
                keyframe.T_map_camera,
                prediction.T_window_camera[slot],
                keyframe.depth,
                prediction.depth.get(slot),
                keyframe.confidence,
                prediction.confidence.get(slot),
                keyframe.fused,
                keyframe.pose_weight,
            )
            for slot, keyframe in enumerate(anchors)
        ],
        scale_prior=float(np.exp(log_scale)),
    )


def slots_of(
    window: Window,
    prediction: WindowPrediction,
    similarity: Similarity,
    anchors: Sequence[Keyframe],
    T: np.ndarray,
    corners: CornersOf,
    min_confidence: float,
) -> list[Slot]:
    """What the refinement is told: anchors stand where the map has them, with the map's depth."""
    slots = []
    for number, frame in enumerate(window.frames):
        pixel_map = prediction.maps[number]
        K = frame.K if frame.K is not None else pixel_map.K_to_source(prediction.K[number])
        if number < len(anchors):
            anchor = anchors[number]
            # Slot 0 is seen anew with this window's points: the step in odom must not begin at the last window's.
            held = number > 0 or len(anchors) == 1
            slots.append(Slot(anchor.T_map_camera, anchor.corners, anchor.depth, K, pixel_map, anchor.fused, held))
            continue
        depth = prediction.depth[number] * similarity.scale
        depth = np.where(prediction.confidence[number] >= min_confidence, depth, np.nan)
        first = not anchors and number == 0
        slots.append(Slot(T[number], corners(frame.index), depth, K, pixel_map, 1.0, first))
    return slots
