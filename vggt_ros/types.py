"""What travels between the rooms of the house: frozen dataclasses, numpy only.

Conventions, everywhere: camera axes are OpenCV's (x right, y down, z forward); ``T_a_b`` maps points of b into a
(4x4 float64); integer pixel coordinates are pixel centres; depth is z-depth, NaN where unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vggt_ros.camera import PixelMap


@dataclass(frozen=True, eq=False)
class Frame:
    """One undistorted camera image.

    index: unique and increasing within a run, the identity of the frame (cache key).
    stamp: nanoseconds, exactly as received.
    image: (H, W, 3) uint8, RGB.
    K: (3, 3) float64 in source pixels, or None when the camera is not calibrated.
    frame_id: name of the camera's optical frame.
    """

    index: int
    stamp: int
    image: np.ndarray
    K: np.ndarray | None = None
    frame_id: str = ''

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in source pixels."""
        return self.image.shape[1], self.image.shape[0]


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
    notes: tuple[str, ...] = field(default=())

    def slot(self, index: int) -> int:
        """The slot of the frame with this index; ValueError when it is not in the window."""
        return self.indices.index(index)
