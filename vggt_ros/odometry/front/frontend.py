"""The camera-rate half of the odometry: every image is tracked and located; few of them need the network.

Between two windows the pose comes from PnP on corners that carry the depth of the newest solved frame. In ``odom`` the
steps between neighbouring images are each taken against one solved frame, so a new one makes no seam; in ``map`` the
pose hangs on the newest solved frame and follows its corrections. While the camera stands still both are held.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.odometry.front.motion import ENOUGH, Motion, MotionDetector
from vggt_ros.odometry.front.pnp import CameraPose, PnpConfig, PoseError, PoseTracker
from vggt_ros.odometry.klt import Corners, KltTracker, common
from vggt_ros.odometry.windows.covariance import UNKNOWN, velocity
from vggt_ros.odometry.windows.placing import AGREED
from vggt_ros.types import Accuracy, Estimate, Frame, PosedFrame, State, Tracks

KEPT = 0.15  # share of the corners that must survive from image to image: fewer, and the camera was moved
HISTORY = 256  # images that are remembered
STILL_PERIOD = 1.0  # s between two windows while the camera stands still: what it sees may change


@dataclass(frozen=True, eq=False)
class FrameResult:
    """One image at camera rate.

    motion: whether the camera stands still, whether the image is blurred. broken: nothing connects it with the image
    before. located: where it is, or None, with the reason why not. tracks: keypoints in it, None where nobody asked.
    """

    frame: Frame
    motion: Motion
    broken: bool
    located: PosedFrame | None
    reason: str
    tracks: Tracks | None = None


class PastFrame(NamedTuple):
    """What is remembered of an image (its pixels are not). T_odom_camera: (4, 4), None where it was not located."""

    motion: Motion
    broken: bool
    T_odom_camera: np.ndarray | None


class FrontEnd:
    """``look`` at every image on one thread; everything else may be called from another.

    accuracy: of the network that solves frames.
    """

    def __init__(self, accuracy: Accuracy | None = None) -> None:
        self._lock = threading.Lock()
        self._klt = KltTracker()
        self._detector = MotionDetector()
        self._pnp = PoseTracker(PnpConfig.of(accuracy or Accuracy()))
        self._past: OrderedDict[int, PastFrame] = OrderedDict()
        self._processed = 0  # stamp of the newest frame that was given to the network
        self._clear()

    def _clear(self) -> None:
        self._estimate: Estimate | None = None
        self._K: tuple[tuple[int, int], np.ndarray] | None = None  # of the newest solved frame: its size, source pixels
        self._renewed = False  # whether the reference is another one than at the last image
        self._before: Corners | None = None
        self._T_reference_before: np.ndarray | None = None
        self._last: PosedFrame | None = None
        self._past.clear()

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._klt.reset()
            self._detector.reset()
            self._pnp.reset()
            self._clear()

    def processing(self, frame: Frame) -> None:
        """The newest frame that was given to the network."""
        with self._lock:
            self._processed = frame.stamp

    def due(self, result: FrameResult) -> bool:
        """Whether the network should look at this image: while the camera stands still, only now and then."""
        with self._lock:
            return not result.motion.stationary or result.frame.stamp - self._processed >= STILL_PERIOD * 1e9

    def corners(self, index: int) -> Corners | None:
        """What was tracked in an image, None when it is unknown or too long ago."""
        with self._lock:
            return self._klt.at(index)

    def intrinsics(self, frame: Frame) -> np.ndarray | None:
        """(3, 3) of the source image: the frame's own, or of the newest solved frame, None while there is neither."""
        with self._lock:
            return self._known_K(frame)

    def past(self, index: int) -> PastFrame | None:
        """What is remembered of an image, None when it is unknown or too long ago."""
        with self._lock:
            return self._past.get(index)

    def turn(self, first: int, last: int) -> np.ndarray | None:
        """(3, 3) R_first_last between two images, None unless both were located and nothing broke between them."""
        with self._lock:
            ends = [self._past.get(index) for index in (first, last)]
            T = [end.T_odom_camera for end in ends if end is not None and end.T_odom_camera is not None]
            if len(T) < 2 or self._broken(first, last):
                return None
            return T[0][:3, :3].T @ T[1][:3, :3]

    def broken(self, first: int, last: int) -> bool:
        """Whether nothing connects two images, as far as is remembered."""
        with self._lock:
            return self._broken(first, last)

    def _broken(self, first: int, last: int) -> bool:
        return any(one.broken for index, one in self._past.items() if first < index <= last)

    def solved(self, estimate: Estimate, scale_sigma: float = 0.01) -> bool:
        """The newest solved frame: poses hang on it from now on. False when its corners are forgotten already."""
        with self._lock:
            self._K = estimate.map.source, estimate.map.K_to_source(estimate.K)
            corners = self._klt.at(estimate.frame.index)
            later = self._klt.since(estimate.frame.index)
            if corners is None or self._pnp.carry(corners, estimate, scale_sigma, later) < ENOUGH:
                return False
            self._estimate, self._renewed = estimate, True
            return True

    def lose(self) -> None:
        """The map does not know where the camera is: no image is located until a frame is solved again."""
        with self._lock:
            self._estimate = None
            self._pnp.reset()

    def follow(self, estimate: Estimate) -> PosedFrame | None:
        """A solved image that could not be located, as camera-rate odom has it; None when a later one was located."""
        with self._lock:
            if self._last is not None and estimate.frame.stamp <= self._last.frame.stamp:
                return None
            self._last = replace(estimate, T_odom_camera=self._bridged(estimate.T_map_camera, estimate))
            return self._last

    def look(self, frame: Frame) -> FrameResult:
        """Track and locate one image. Raises ValueError when it is not later than the one before."""
        with self._lock:
            corners = self._klt.update(frame)
            motion = self._detector.update(corners)
            before, self._before = self._before, corners
            broken = before is not None and _apart(before, corners)
            located, reason = self._locate(frame, corners, before, motion)
            self._past[frame.index] = PastFrame(motion, broken, None if located is None else located.T_odom_camera)
            while len(self._past) > HISTORY:
                self._past.popitem(last=False)
            return FrameResult(frame, motion, broken, located, reason)

    def _locate(
        self, frame: Frame, corners: Corners, before: Corners | None, motion: Motion
    ) -> tuple[PosedFrame | None, str]:
        if self._estimate is None:
            return None, 'no frame is solved yet'
        if motion.stationary and self._last is not None and self._last.epoch == self._estimate.epoch:
            self._last = replace(self._last, frame=frame, velocity=np.zeros(6), state=State.STATIONARY)
            return self._last, ''
        try:
            pose = self._pnp.locate(corners, frame.K)
        except PoseError as error:
            self._T_reference_before = None
            return None, str(error)
        self._last = self._step(frame, pose, before)
        return self._last, ''

    def _step(self, frame: Frame, pose: CameraPose, before: Corners | None) -> PosedFrame:
        """In odom: where the last image was and the step since, both ends seen from the same solved frame."""
        estimate, last, T_before = self._estimate, self._last, self._T_reference_before
        assert estimate is not None
        if self._renewed and T_before is not None and before is not None:
            try:
                T_before = self._pnp.locate(before, frame.K).T_reference_camera
            except PoseError:
                T_before = None
        self._renewed = False
        rate, rate_covariance = None, np.diag([UNKNOWN] * 6)
        if last is None or last.epoch != estimate.epoch or T_before is None:
            T_odom = self._bridged(pose.T_map_camera, estimate)
        else:
            T_odom = last.T_odom_camera @ invert(T_before) @ pose.T_reference_camera
            nanoseconds = frame.stamp - last.frame.stamp
            T_map_before = estimate.T_map_camera @ T_before
            rate, rate_covariance = velocity(T_map_before, pose.T_map_camera, nanoseconds, pose.motion_covariance)
        self._T_reference_before = pose.T_reference_camera
        doubted = pose.share < AGREED and estimate.state is State.TRACKING
        return PosedFrame(
            frame=frame,
            T_map_camera=pose.T_map_camera,
            T_odom_camera=T_odom,
            covariance=pose.covariance * (4.0 if doubted else 1.0),
            velocity=rate,
            velocity_covariance=rate_covariance * (4.0 if doubted else 1.0),
            state=State.DEGRADED if doubted else estimate.state,
            scale=estimate.scale,
            epoch=estimate.epoch,
        )

    def _bridged(self, T_map_camera: np.ndarray, estimate: Estimate) -> np.ndarray:
        """T_odom_camera without a step to go on from: the way in the map, or at the start the windows' own chain."""
        if self._last is None or self._last.epoch != estimate.epoch:
            return estimate.T_odom_camera @ invert(estimate.T_map_camera) @ T_map_camera
        if estimate.state is State.RELOCALIZED:
            return self._last.T_odom_camera  # the map moved, and nobody knows by how much the camera did
        return self._last.T_odom_camera @ invert(self._last.T_map_camera) @ T_map_camera

    def _known_K(self, frame: Frame) -> np.ndarray | None:
        if frame.K is not None:
            return frame.K
        return self._K[1] if self._K is not None and self._K[0] == frame.size else None


def _apart(before: Corners, now: Corners) -> bool:
    """Whether so few corners survived that the two images may show different places."""
    return len(before) >= ENOUGH and len(common(before, now)[0]) < KEPT * len(before)
