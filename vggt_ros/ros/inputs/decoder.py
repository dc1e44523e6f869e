"""From an image message to undistorted RGB: one decoder for every camera of the robot."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.ros.inputs.images import to_rgb
from vggt_ros.ros.inputs.rectify import Rectifier


class Undistorted(NamedTuple):
    """image: (H, W, 3) uint8 RGB. K: (3, 3) in its pixels. valid: (H, W) bool, False where there is none, or None."""

    image: np.ndarray
    K: np.ndarray
    valid: np.ndarray | None


class Decoder:
    """Of one camera, for one thread. bits: of 16-bit images that are significant. rectified: nothing is undone."""

    def __init__(self, bits: int = 16, rectified: bool = False) -> None:
        self._bits, self._rectified = bits, rectified
        self._rectifier: Rectifier | None = None

    def decode(self, message: Any) -> np.ndarray:
        """sensor_msgs/Image or CompressedImage -> (H, W, 3) uint8 RGB as the camera has it. Raises ImageError."""
        return to_rgb(message, self._bits)

    def undistort(self, image: np.ndarray, calibration: Calibration) -> Undistorted:
        """By a calibration whose rectifier is made once. Raises CameraInfoError."""
        if self._rectifier is None or self._rectifier.calibration != calibration:
            self._rectifier = Rectifier(calibration, rectified=self._rectified)
        return Undistorted(self._rectifier(image), self._rectifier.K, self._rectifier.valid)
