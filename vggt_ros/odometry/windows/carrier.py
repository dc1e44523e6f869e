"""Who carries a window: the network, or the corners where its word cannot be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.odometry.config import MotionHints, OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.windows.alignment import Alignment, AlignmentError
from vggt_ros.odometry.windows.by_corners import MOST, begin_by_corners, place_by_corners
from vggt_ros.odometry.windows.covariance import PoseNoise
from vggt_ros.odometry.windows.placing import CornersOf, PlacedWindow, align_keyframes, in_metres, place
from vggt_ros.odometry.windows.quality import Quality, assess
from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import WindowPrediction


class Aligned(NamedTuple):
    """Where the network puts a window, None where it is not to be believed; how good, and what is wrong with it."""

    alignment: Alignment | None
    quality: Quality
    reasons: tuple[str, ...] = ()


class Known(NamedTuple):
    """What a window is placed by, beside the network.

    keyframes: of the map, in the order of time. R_map_camera0: (3, 3) of the first camera. noise, surface: how wrong
    the network's poses and depth have been of late, see ``covariance``. unit: by which lengths are to be longer than
    the anchors have them, None where nothing tells. connected: whether corners tie the images.
    """

    anchors: Sequence[Keyframe]
    keyframes: Sequence[Keyframe]
    R_map_camera0: np.ndarray
    corners: CornersOf
    noise: PoseNoise
    surface: float
    unit: float | None
    connected: bool


def by_network(
    window: Window,
    prediction: WindowPrediction,
    anchors: Sequence[Keyframe],
    hints: MotionHints,
    scale: float,
    noise: PoseNoise,
    config: OdometryConfig,
) -> Aligned:
    """Where the network puts a window, by the anchors. scale: map units per unit of the window, as it was last.

    noise: of the anchors, which learns from those that are believed.
    """
    depth, turn = anchors[0].median_depth, None
    try:
        alignment = align_keyframes(anchors, range(len(anchors)), prediction, scale, noise.translation**0.5 * depth)
    except AlignmentError as error:
        return Aligned(None, Quality.REJECT, (str(error),))
    if hints.turn is not None:
        T = prediction.T_window_camera[[0, window.new_slots[-1]]]
        turn = Rotation.from_matrix(hints.turn @ T[1, :3, :3].T @ T[0, :3, :3]).magnitude()
    quality, reasons = assess(alignment, len(anchors), depth, config.gates, turn)
    if quality is Quality.REJECT:
        return Aligned(None, quality, reasons)
    if hints.broken:
        quality = Quality.DEGRADED
        reasons += ('nothing that was tracked connects the images',)
    noise.learn(alignment, depth)
    return Aligned(alignment, quality, reasons)


def place_window(
    window: Window, prediction: WindowPrediction, aligned: Aligned, known: Known, config: OdometryConfig
) -> PlacedWindow:
    """By the network where its anchors agree and the corners do not contradict, else by the corners if they can.

    Raises AlignmentError where neither is to be believed.
    """
    alignment, quality, reasons = aligned
    placed = None
    if alignment is not None:
        alignment = alignment if known.unit is None else in_metres(alignment, known.unit)
        judged = alignment, quality, reasons
        placed = place(window, prediction, known.anchors, *judged, known.corners, known.noise, known.surface, config)
    if (placed is None or placed.degraded) and config.refine and known.connected:
        why = '; '.join(reasons) or 'the corners contradict the network'
        other = _by_corners(window, prediction, known, config, why)
        if other is not None:
            if placed is None:
                return other
            if placed.agreed < MOST if other.paired else quality is not Quality.GOOD or other.agreed > placed.agreed:
                return other
    if placed is None:
        raise AlignmentError('; '.join(reasons))
    return placed


def _by_corners(
    window: Window, prediction: WindowPrediction, known: Known, config: OdometryConfig, why: str
) -> PlacedWindow | None:
    if not known.anchors:
        return begin_by_corners(window, prediction, known.R_map_camera0, known.corners, config, why)
    held = known.anchors, known.keyframes, known.corners, known.noise
    return place_by_corners(window, prediction, *held, config, why, known.unit or 1.0)
