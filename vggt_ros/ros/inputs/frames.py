"""From accepted image messages to frames: the camera's thread decodes and rectifies the pixels."""

from __future__ import annotations

from dataclasses import dataclass

from vggt_ros.calibration import Calibration
from vggt_ros.ros.inputs.decoder import Decoder
from vggt_ros.ros.inputs.images import ImageError
from vggt_ros.ros.inputs.rectify import CameraInfoError
from vggt_ros.ros.inputs.serialized import read
from vggt_ros.ros.messages import frame_name
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Frame


@dataclass(frozen=True, eq=False)
class Incoming:
    """An image message as it came, with the calibration known at that moment.

    data: the message, serialized. kind: of message, as in ``serialized.read``. stamp: ns. received: monotonic seconds.
    resets: how many had been asked for by then, so that no image of before one is taken for one after.
    """

    data: bytes
    kind: str
    calibration: Calibration | None
    stamp: int
    received: float
    resets: int = 0


class FrameMaker:
    """Decodes and rectifies accepted images. Belongs to the camera's thread.

    camera_frame: overrides the images' frame_id unless empty. required: no image without a usable calibration.
    bits: significant bits of 16-bit images. rectified: the images need no rectification whatever camera_info says.
    """

    def __init__(
        self, problems: Problems, camera_frame: str, required: bool, bits: int = 16, rectified: bool = False
    ) -> None:
        self._problems = problems
        self._camera_frame = camera_frame
        self._required = required
        self._decoder = Decoder(bits, rectified)
        self._index = 0

    def make(self, incoming: Incoming) -> Frame | None:
        """The undistorted frame, or None with the reason reported."""
        try:
            message = read(incoming.data, incoming.kind)
            image = self._decoder.decode(message)
        except ImageError as error:
            self._problems.report('image', f'image refused: {error}')
            return None
        K, valid = None, None
        if incoming.calibration is not None:
            try:
                image, K, valid = self._decoder.undistort(image, incoming.calibration)
            except CameraInfoError as error:
                instead = 'image dropped' if self._required else 'going on with predicted intrinsics'
                self._problems.report('camera_info', f'camera_info refused: {error}; {instead}')
                if self._required:
                    return None
        self._index += 1
        frame_id = frame_name(self._camera_frame or message.header.frame_id) or 'camera'
        return Frame(self._index, incoming.stamp, image, K, frame_id, valid)
