"""The camera-rate half of the odometry: every image is tracked and located; few of them need the network.

Between two windows the pose comes from PnP on corners that carry the depth of the newest solved frame. In ``odom`` the
steps between neighbouring images are each taken against one solved frame, so a new one makes no seam; in ``map`` the
pose hangs on the newest solved frame and follows its corrections.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.odometry.covariance import UNKNOWN
from vggt_ros.odometry.keyframes import ENOUGH, KeyframeSelector, Motion
from vggt_ros.odometry.klt import Corners, KltTracker, common
from vggt_ros.odometry.pnp import CameraPose, PoseError, PoseTracker
from vggt_ros.types import Estimate, Frame

KEPT = 0.15  # share of the corners that must survive from image to image: fewer, and the camera was moved
_FIELD_OF_VIEW = np.radians(60.0)  # of an uncalibrated camera before the network has said anything


@dataclass(frozen=True, eq=False)
class Sight:
    """One image at camera rate.

    motion: what the camera did. broken: nothing connects it with the image before. T_map_camera, T_odom_camera: (4, 4)
    or None while it cannot be located; covariance: (6, 6) of the first, translation and rotation in the map's axes.
    reason: why it cannot be located, else ''.
    """

    frame: Frame
    motion: Motion
    broken: bool
    T_map_camera: np.ndarray | None
    T_odom_camera: np.ndarray | None
    covariance: np.ndarray
    reason: str


class FrontEnd:
    """``look`` at every image on one thread; ``solved`` and ``corners`` may be called from another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._klt = KltTracker()
        self._selector = KeyframeSelector()
        self._pnp = PoseTracker()
        self._clear()

    def _clear(self) -> None:
        self._estimate: Estimate | None = None
        self._renewed = False  # whether the reference is another one than at the last image
        self._before: Corners | None = None
        self._T_reference_before: np.ndarray | None = None
        self._T_odom: np.ndarray | None = None

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._klt.reset()
            self._selector.reset()
            self._pnp.reset()
            self._clear()

    def corners(self, index: int) -> Corners | None:
        """What was tracked in an image, None when it is unknown or too long ago."""
        with self._lock:
            return self._klt.at(index)

    def solved(self, estimate: Estimate, scale_sigma: float = 0.01) -> bool:
        """The newest solved frame: poses hang on it from now on. False when its corners are forgotten already."""
        with self._lock:
            corners = self._klt.at(estimate.frame.index)
            later = self._klt.since(estimate.frame.index)
            if corners is None or self._pnp.carry(corners, estimate, scale_sigma, later) < ENOUGH:
                return False
            self._estimate, self._renewed = estimate, True
            return True

    def look(self, frame: Frame) -> Sight:
        """Track and locate one image. Raises ValueError when it is not later than the one before."""
        with self._lock:
            corners = self._klt.update(frame)
            motion = self._selector.update(corners, self._intrinsics(frame))
            before, self._before = self._before, corners
            broken = before is not None and _broken(before, corners)
            if self._estimate is None:
                return Sight(frame, motion, broken, None, None, np.eye(6) * UNKNOWN, 'no frame is solved yet')
            try:
                pose = self._pnp.locate(corners, frame.K)
            except PoseError as error:
                self._T_reference_before = None
                return Sight(frame, motion, broken, None, None, np.eye(6) * UNKNOWN, str(error))
            T_odom = self._step(pose, before, frame.K)
            return Sight(frame, motion, broken, pose.T_map_camera, T_odom, pose.covariance, '')

    def _step(self, pose: CameraPose, before: Corners | None, K: np.ndarray | None) -> np.ndarray:
        """T_odom_camera: the last one and the step since, both ends seen from the same solved frame."""
        assert self._estimate is not None
        T_before = self._T_reference_before
        if self._renewed and T_before is not None and before is not None:
            try:
                T_before = self._pnp.locate(before, K).T_reference_camera
            except PoseError:
                T_before = None
        self._renewed = False
        if self._T_odom is None or T_before is None:
            # Nothing to go on from: the windows' own chain does.
            self._T_odom = self._estimate.T_odom_camera @ pose.T_reference_camera
        else:
            self._T_odom = self._T_odom @ invert(T_before) @ pose.T_reference_camera
        self._T_reference_before = pose.T_reference_camera
        return self._T_odom

    def _intrinsics(self, frame: Frame) -> np.ndarray:
        if frame.K is not None:
            return frame.K
        if self._estimate is not None and self._estimate.map.source == frame.size:
            return self._estimate.map.K_to_source(self._estimate.K)
        width, height = frame.size
        focal = width / 2 / np.tan(_FIELD_OF_VIEW / 2)
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def _broken(before: Corners, now: Corners) -> bool:
    """Whether so few corners survived that the two images may show different places."""
    return len(before) >= ENOUGH and len(common(before, now)[0]) < KEPT * len(before)
