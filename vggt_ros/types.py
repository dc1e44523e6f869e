"""What travels between the rooms of the house: frozen dataclasses, numpy only.

Conventions, everywhere: camera axes are OpenCV's (x right, y down, z forward); ``T_a_b`` maps points of b into a
(4x4 float64); integer pixel coordinates are pixel centres; depth is z-depth, NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Protocol

import numpy as np

from vggt_ros.camera import PixelMap, image_size

KEPT = 1 << 20  # bytes of a picture that is kept as it is


@dataclass(frozen=True, eq=False)
class Frame:
    """One undistorted camera image.

    index: unique and increasing within a run, the identity of the frame (cache key).
    stamp: nanoseconds, exactly as received.
    image: (H, W, 3) uint8, RGB: a picture of what the camera's image shows, of that size or smaller.
    K: (3, 3) float64 in source pixels, or None when the camera is not calibrated.
    frame_id: name of the camera's optical frame.
    valid: (H, W) bool beside the picture, False where rectification found no image; None where all pixels are.
    source: (width, height) of the camera's image; None: the picture's own.

    Source pixels are those of the camera's rectified image, whatever the size of the picture: K, corners, tracks and
    every pixel map count in them. A large camera's picture is small from the decoder on (ros/inputs/decoder.py), and
    that of a frame of the map smaller still (:meth:`kept`); nothing downstream is larger than it needs to be, and
    nothing that is published changes its pixels for it.
    """

    index: int
    stamp: int
    image: np.ndarray
    K: np.ndarray | None = None
    frame_id: str = ''
    valid: np.ndarray | None = None
    source: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in source pixels."""
        return self.source or image_size(self.image)

    def kept(self, size: tuple[int, int]) -> Frame:
        """The frame as it is kept for long: a picture of more than ``KEPT`` bytes is made one of (width, height).

        The size of the network's image before its crop is enough for everything that is still asked of it.
        """
        if self.image.nbytes <= KEPT or size[0] >= self.image.shape[1]:
            return self
        import cv2  # here: who only names a frame needs none

        image = np.asarray(cv2.resize(self.image, size, interpolation=cv2.INTER_AREA))
        valid = self.valid
        if valid is not None:
            valid = cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        return replace(self, image=image, valid=valid, source=self.size)


@dataclass(frozen=True, eq=False)
class TrackPrediction:
    """Query points followed through a window, in network pixels.

    uv: (S, Q, 2) float32; slot 0 holds the queries.
    visibility, confidence: (S, Q) float32 in [0, 1].
    """

    uv: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True, eq=False)
class WindowPrediction:
    """What the network says about S frames, in a frame and a unit of its own.

    indices: the ``Frame.index`` of each slot, in slot order.
    T_window_camera: (S, 4, 4) float64; slot 0 is the origin of the window (identity).
    K: (S, 3, 3) float64, predicted, in network pixels.
    maps: S pixel maps, source pixels <-> network pixels.
    depth: slot -> (h, w) float32 z-depth in window units, only for the slots that were asked for; NaN = invalid.
    confidence: slot -> (h, w) float32 in [0, 1), the weight (c - 1) / c of VGGT's c = 1 + exp(x).
    descriptor: (S, C) float32, L2-normalised mean-pooled backbone tokens, for place recognition.
    tracks: the followed query points, or None when none were asked for.
    """

    indices: tuple[int, ...]
    T_window_camera: np.ndarray
    K: np.ndarray
    maps: tuple[PixelMap, ...]
    depth: dict[int, np.ndarray]
    confidence: dict[int, np.ndarray]
    descriptor: np.ndarray
    tracks: TrackPrediction | None = None

    def slot(self, index: int) -> int:
        """The slot of the frame with this index; ValueError when it is not in the window."""
        return self.indices.index(index)


class Scale(IntEnum):
    """What a length in the output means. Never call relative units metres."""

    UNKNOWN = 0
    RELATIVE = 1  # consistent within one epoch, unit arbitrary
    METRIC = 2  # metres


class State(IntEnum):
    """What the odometry believes about itself."""

    INITIALIZING = 0
    TRACKING = 1
    STATIONARY = 2
    DEGRADED = 3
    LOST = 4
    RELOCALIZED = 5
    PAUSED = 6
    INACTIVE = 7


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """One image whose camera is placed in the map.

    T_map_camera: (4, 4) float64, corrected whenever the map is. T_odom_camera: (4, 4) float64, continuous: composed of
        steps inside one window each; it begins where the map does. covariance: (6, 6) of (x, y, z,
        rotation about x, y, z) in the map, in the map's axes, map units and radians.
    velocity: (6,) linear (map units / s) and angular (rad / s) velocity in the camera's axes, or None for the first
        frame; velocity_covariance: (6, 6), likewise.
    """

    frame: Frame
    T_map_camera: np.ndarray
    T_odom_camera: np.ndarray
    covariance: np.ndarray
    velocity: np.ndarray | None
    velocity_covariance: np.ndarray
    state: State
    scale: Scale
    epoch: int


@dataclass(frozen=True, eq=False)
class Estimate(PosedFrame):
    """A located image that the network has looked at.

    step_covariance: (6, 6) of the motion from the frame that was published last before this window, as ``covariance``.
    depth: (h, w) float32 z-depth in map units at the network's size, NaN invalid; confidence: (h, w) float32 in [0, 1).
    K: (3, 3) in network pixels: the known one where there is one, else predicted and smoothed.
    map: source pixels <-> network pixels.
    """

    step_covariance: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    K: np.ndarray
    map: PixelMap


@dataclass(frozen=True, eq=False)
class Tracks:
    """Live keypoints in one frame, struct of arrays of equal length N.

    id: uint64, the same physical point until it dies, never reused within an epoch. uv: (N, 2) source pixels.
    visibility, confidence: (N,) in [0, 1]. age: (N,) uint32 images. xyz: (N, 3) in the frame's optical axes, xyz_map:
    (N, 3) in the map; map units, as ``scale`` says what they mean, NaN unknown. K: (3, 3) in source pixels, None
    unknown.
    """

    frame: Frame
    epoch: int
    scale: Scale
    id: np.ndarray
    uv: np.ndarray
    visibility: np.ndarray
    confidence: np.ndarray
    age: np.ndarray
    xyz: np.ndarray
    xyz_map: np.ndarray
    K: np.ndarray | None = None


class WindowTooLargeError(RuntimeError):
    """The device has no memory for a window of this many frames. reason: its own words."""

    def __init__(self, frames: int, reason: str = '') -> None:
        said = f' ({reason})' if reason else ''
        super().__init__(f'out of memory on the device with {frames} frames in the window{said}')
        self.frames = frames


class DeviceError(RuntimeError):
    """The device (a GPU, as a rule) cannot be used: it is not there, or does not answer any more; the message says."""


class DeviceMemoryError(DeviceError):
    """The device has too little memory to begin with, which may pass."""


@dataclass(frozen=True)
class Accuracy:
    """Standard deviations of what a network predicts; the defaults are those assumed for VGGT-1B."""

    rotation: float = float(np.radians(0.25))  # rad, of a frame in its window
    translation: float = 0.006  # of a frame in its window, share of the median depth
    depth: float = 0.015  # log, of one frame in its window
    surface: float = 0.02  # log, of a pixel against the rest of its frame
    focal: float = 0.02  # relative
    track: float = 2.0  # px at 518, of a point that is followed


class Predictor(Protocol):
    """Anything that looks at a window: the network held ready, or a simulation of it.

    warnings: what a person should know before it is used, by kind.
    """

    accuracy: Accuracy
    warnings: Mapping[str, str] = MappingProxyType({})

    def pixel_map(self, size: tuple[int, int]) -> PixelMap:
        """How source images of this (width, height) become the predictor's."""
        ...

    def describe(self) -> dict[str, str]:
        """What it is and what it uses, for people."""
        ...

    def keep(self, indices: Collection[int]) -> None:
        """Only these frames may be seen again: whatever is held of others can go."""
        return

    def predict(
        self, frames: Sequence[Frame], depth: Sequence[int] | None = None, queries: np.ndarray | None = None
    ) -> WindowPrediction:
        """See :meth:`vggt_ros.inference.NetworkPredictor.predict`."""
        ...

    def close(self) -> None:
        """Give the memory back; it cannot predict any more. Not while another thread predicts."""
        return
