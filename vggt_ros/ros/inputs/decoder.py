"""From an image message to undistorted RGB: one decoder for every camera of the robot."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.camera import image_size
from vggt_ros.rectify import PRECISION, Rectifier
from vggt_ros.ros.inputs.images import Picture, to_picture

LONGEST = 1280
"""px: the sides of a picture beyond which it is halved. Corners are followed at 518, and no network sees more than
half of it; what is left out was never looked at, and cost most of the time."""


class Undistorted(NamedTuple):
    """image: (h, w, 3) uint8 RGB. rectifier: how it came about, which knows K. valid: as in Frame."""

    image: np.ndarray
    rectifier: Rectifier
    valid: np.ndarray | None


class Decoder:
    """Of one camera, for one thread. bits: of 16-bit images that are significant. rectified: nothing is undone.

    network: longest side of the network's image in pixels, 0: as usual; a picture is no smaller by our doing.
    """

    def __init__(self, bits: int = 16, rectified: bool = False, network: int = 0) -> None:
        self._bits, self._rectified = bits, rectified
        self._longest = max(LONGEST, 2 * network)
        self._rectifier: Rectifier | None = None
        self._newest: tuple[Calibration, tuple[int, int]] | None = None  # calibration and picture that it serves

    def decode(self, message: Any) -> Picture:
        """sensor_msgs/Image or CompressedImage -> (h, w, 3) uint8 RGB as the camera has it. Raises ImageError."""
        return to_picture(message, self._bits, self._longest)

    def undistort(self, picture: Picture, calibration: Calibration) -> Undistorted:
        """By a calibration, whose maps are made once. Raises CameraInfoError.

        Numbers that differ by less than the maps are exact to, as those of a driver that rounds, need no new maps.
        """
        rectifier = self._rectify_by(calibration, image_size(picture.image))
        rectifier.check(picture.source)
        return Undistorted(rectifier(picture.image), rectifier, rectifier.valid)

    def _rectify_by(self, calibration: Calibration, size: tuple[int, int]) -> Rectifier:
        known = self._rectifier
        if known is not None and self._newest == (calibration, size):
            return known
        rectifier = Rectifier(calibration, rectified=self._rectified, picture=size)
        if known is None or self._newest is None or self._newest[1] != size or rectifier.moved(known) > PRECISION:
            self._rectifier = known = rectifier
        self._newest = calibration, size
        return known
