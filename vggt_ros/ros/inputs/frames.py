"""From accepted image messages to frames: the camera's thread decodes and rectifies the pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from vggt_ros.calibration import Calibration
from vggt_ros.lens import CameraInfoError
from vggt_ros.rectify import Rectifier
from vggt_ros.ros.heaps import HEAPS
from vggt_ros.ros.inputs.decoder import Decoder, Undistorted
from vggt_ros.ros.inputs.images import ImageError, Picture
from vggt_ros.ros.inputs.optics import Optics
from vggt_ros.ros.inputs.serialized import read
from vggt_ros.ros.messages import frame_name
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Frame

DARK = 32  # of 255: pictures without anything brighter show the network hardly anything


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
    network: longest side of the network's image. topic: of the images, for people.
    """

    def __init__(
        self,
        problems: Problems,
        camera_frame: str,
        required: bool,
        bits: int = 16,
        rectified: bool = False,
        network: int = 0,
        topic: str = '',
    ) -> None:
        self._problems = problems
        self._camera_frame = camera_frame
        self._required = required
        self._rectified, self._topic = rectified, topic
        self._decoder = Decoder(bits, rectified, network)
        self._index = 0
        self._usable: Calibration | None = None
        self._optics: Optics | None = None  # of the newest image
        self._epoch_optics: Optics | None = None  # that the map began with

    def make(self, incoming: Incoming) -> Frame | None:
        """The undistorted frame, or None with the reason reported."""
        try:
            message = read(incoming.data, incoming.kind)
            picture = self._decoder.decode(message)
        except ImageError as error:
            self._problems.report('image', f'image refused: {error}')
            return None
        self._doubt(message, picture)
        undistorted = None
        if incoming.calibration is not None:
            undistorted = self._undistort(picture, incoming.calibration)
            if undistorted is None and self._required:
                return None
        self._index += 1
        frame_id = frame_name(self._camera_frame or message.header.frame_id) or 'camera'
        image, K, valid, rectifier = picture.image, None, None, None
        if undistorted is not None:
            image, rectifier, valid = undistorted
            K = rectifier.K
        self._optics = Optics(picture.source, frame_id, rectifier)
        if self._epoch_optics is None:
            self.begin_epoch()
        return Frame(self._index, incoming.stamp, image, K, frame_id, valid, picture.source)

    def _doubt(self, message: Any, picture: Picture) -> None:
        """Say when a picture of 16 bits uses so few of them that it is nearly black."""
        if '16' in getattr(message, 'encoding', '') and (brightest := int(picture.image[::4, ::4].max())) < DARK:
            self._problems.report(
                'dark',
                f'the {message.encoding} images are nearly black, {brightest} of 255 at most: a camera that delivers'
                ' 10, 12 or 14 bits in 16 wants image_bits:=10, 12 or 14',
            )

    def changed(self) -> str:
        """In words what has changed in the meaning of the pixels since the epoch began; empty while it can go on."""
        now, begun = self._optics, self._epoch_optics
        return '' if now is None or begun is None else now.change_since(begun)

    def begin_epoch(self) -> None:
        """The newest image is the first of a map."""
        self._epoch_optics = self._optics
        if self._optics is not None:
            width, height = self._optics.size
            HEAPS.fit(4 * width * height)  # depth of the same size is float32

    def _undistort(self, picture: Picture, calibration: Calibration) -> Undistorted | None:
        """With this calibration, else with the last that could be used; None without any, with the reason reported."""
        try:
            undistorted = self._decoder.undistort(picture, calibration)
        except CameraInfoError as error:
            reason = str(error)
        else:
            if self._usable != calibration:
                self._hint(calibration, undistorted.rectifier)
            self._usable = calibration
            return undistorted
        instead = 'image dropped' if self._required else 'going on with predicted intrinsics'
        known: Undistorted | None = None
        if self._usable is not None and self._usable != calibration:
            try:
                known = self._decoder.undistort(picture, self._usable)
                instead = 'going on with the one before'
            except CameraInfoError:  # it is of images of another size
                self._usable = None
        self._problems.report('camera_info', f'camera_info refused: {reason}; {instead}')
        return known

    def _hint(self, calibration: Calibration, rectifier: Rectifier) -> None:
        """Where the name of the topic and the parameter ``rectified`` contradict each other."""
        named = re.search('(^|[/_])rect', self._topic) is not None
        if named and not self._rectified and not rectifier.is_identity:
            self._problems.report(
                'rectified',
                f'the images of {self._topic} are rectified by their camera_info; if they are already, as the name'
                ' says, set rectified:=true',
            )
        if self._topic and not named and self._rectified and any(calibration.d):
            self._problems.report(
                'rectified',
                f'rectified:=true, so the distortion in camera_info is not undone: is {self._topic} really rectified?',
            )
