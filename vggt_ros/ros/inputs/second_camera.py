"""A second camera beside the first: the image taken at the same time, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from sensor_msgs.msg import CameraInfo

from vggt_ros.calibration import Calibration
from vggt_ros.lens import CameraInfoError
from vggt_ros.odometry.scale.recent import Recent
from vggt_ros.odometry.scale.sources import BaselineSource
from vggt_ros.odometry.sensors import Reading
from vggt_ros.ros.cdr import kind_of
from vggt_ros.ros.inputs.decoder import Decoder
from vggt_ros.ros.inputs.images import ImageError
from vggt_ros.ros.inputs.scale import ScaleSensor
from vggt_ros.ros.inputs.sensor import Robot
from vggt_ros.ros.inputs.serialized import header_of, read, transported
from vggt_ros.ros.messages import frame_name
from vggt_ros.types import Frame

WAIT = 0.03  # s: the second image of a pair comes a little after the first, which may have woken the worker
ALIVE = 1_000_000_000  # ns: a camera that has sent nothing for so long is not waited for


class SecondCamera(ScaleSensor):
    """Images of ``second/image`` (or ``second/image/compressed``), calibrated by ``second/camera_info``.

    Callbacks only keep bytes; the rest belongs to the network's thread, which reads the one image that it needs.
    topic: of the images, in full.
    """

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot, BaselineSource(self.calibration))
        settings = self._settings = robot.settings
        self._lookup = robot.lookup
        self._tolerance = round(settings['sync_tolerance'] * 1e9)
        self._images: Recent[bytes] = Recent(robot.memory)
        self._info: Calibration | None = None
        self._decoder = Decoder(settings['image_bits'], settings['rectified'], settings['image_size'])
        self._frames = ('', '')  # frame ids of both cameras
        self._kind, self._name = transported(settings, 'second/image')
        self.topic = robot.node.resolve_topic_name(self._name)
        self._reason = f'no image on {self.topic}'
        self.hint = f'check the topic {self.topic} and its camera_info'

    def open(self, group: CallbackGroup | None = None) -> None:
        """Subscribe."""
        self.subscriptions.add_images(self._kind, self._name, self._on_image, 5, group)
        self.subscriptions.add(CameraInfo, 'second/camera_info', self._on_info, 5, group, latched=True)

    def _on_image(self, data: bytes) -> None:
        try:
            self._images.add(header_of(data).stamp, data, len(data))
        except ImageError as error:
            self._refused(f'image of the second camera refused: {error}')

    def _on_info(self, message: CameraInfo) -> None:
        self._info = Calibration.from_message(message)

    def read(self, frames: Sequence[Frame]) -> Reading:
        """For the newest of these frames the second camera's simultaneous one.

        The companion's index is -(index of its partner) - 1. Where there is none, the reason is kept.
        """
        partner = frames[-1]
        frame = self._simultaneous(partner)
        if isinstance(frame, str):
            self._reason = frame
            return Reading()
        self._reason = ''
        self._frames = (partner.frame_id, frame.frame_id)
        return Reading(companions={partner.index: frame})

    def _simultaneous(self, partner: Frame) -> Frame | str:
        """The partner's companion, or in words why there is none."""
        newest = self._images.newest
        if newest is not None and partner.stamp - newest < ALIVE:
            self._images.wait(partner.stamp - self._tolerance, WAIT)
        found = self._images.nearest(partner.stamp)
        self._images.forget(partner.stamp - self._tolerance)
        if found is None:
            return f'no image on {self.topic}'
        stamp, data = found
        apart = abs(stamp - partner.stamp)
        if apart > self._tolerance:
            return (
                f'the second camera is not synchronised: its nearest image is {apart / 1e6:.1f} ms apart, '
                f'{self._tolerance / 1e6:.1f} ms allowed'
            )
        try:
            message = read(data, kind_of(self._kind))
            frame = self._decode(message, -partner.index - 1, stamp)
        except (ImageError, CameraInfoError) as error:
            return self._refused(f'image of the second camera refused: {error}')
        if frame.size != partner.size:
            return self._refused(f'the second camera has {frame.size} pixels, the first {partner.size}: not the same')
        return frame

    def _refused(self, words: str) -> str:
        self._problems.report('second camera', words)
        return words

    def _decode(self, message: Any, index: int, stamp: int) -> Frame:
        """Undistorted, as far as it is calibrated. Raises ImageError or CameraInfoError."""
        picture, frame_id = self._decoder.decode(message), frame_name(message.header.frame_id)
        if self._settings['calibration'] == 'predicted':
            return Frame(index, stamp, picture.image, None, frame_id, None, picture.source)
        info = self._info
        if info is None:
            raise CameraInfoError('its camera_info has not come')
        image, rectifier, valid = self._decoder.undistort(picture, info)
        return Frame(index, stamp, image, rectifier.K, frame_id, valid, picture.source)

    def calibration(self) -> np.ndarray | str:
        """T_first_second (4, 4) in metres, or in words why the second camera gives nothing.

        From TF between the frames of the images, else from the baseline in the projection of ``second/camera_info``,
        which stands in the rectified frame of a stereo pair's first camera: Tx = -fx' B (sensor_msgs/CameraInfo).
        """
        if self._reason:
            return self._reason
        first, second = self._frames
        if first == second:
            words = f'both cameras have the frame id {first!r}'
        else:
            T_first_second = self._lookup(first, second, None)
            if not isinstance(T_first_second, str):
                if np.linalg.norm(T_first_second[:3, 3]) > 0:
                    return T_first_second
                words = f'{first} and {second} are at the same place on TF'
            else:
                words = T_first_second
        P = self._info.p if self._info is not None else (0.0,) * 12
        if not (P[0] > 0 and P[5] > 0 and (P[3] or P[7])):
            return f'{words}, and no baseline in the P of second/camera_info'
        T = np.eye(4)
        T[:2, 3] = -P[3] / P[0], -P[7] / P[5]
        return T
