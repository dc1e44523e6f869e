"""A camera as a process: pictures forth and back with stamps of now, and every bad habit that drivers have.

python -m vggt_ros.ros.soak.camera FOLDER_OR_VIDEO --rate 10

A line of JSON on its standard input changes its habits, fields of :class:`Habits`; it answers ``habits: ...`` when they
hold and ``sent: N bad`` after each bad image.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import itertools
import json
import queue
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vggt_ros.calibration import Calibration
from vggt_ros.camera import image_size
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.sequence import RawImage
from vggt_ros.ros.compat import to_array
from vggt_ros.ros.messages import fill_image, ns_to_time

FRAME_ID = 'camera_optical_frame'
HUGE = 100_000  # pixels that lying headers promise in either direction


@dataclass(frozen=True)
class Habits:
    """How the camera behaves.

    publishing: False is a camera that is unplugged. compressed: jpeg on image/compressed in place of image.
    size: of the pictures, the input's own without. focal: times the focal length in camera_info. offset: seconds that
    stamps are ahead. once: seconds that the next stamp alone is ahead of the others. broken: what is wrong with every
    second image: length, encoding, empty or huge.
    """

    publishing: bool = True
    compressed: bool = False
    size: tuple[int, int] | None = None
    focal: float = 1.0
    offset: float = 0.0
    once: float = 0.0
    broken: str = ''


class Camera(Node):
    """Publishes pictures, (H, W, 3) uint8 RGB each, at ``rate`` Hz on ``image``, with their calibration if any.

    orders: habits to be taken on, as dicts of their fields.
    """

    def __init__(
        self,
        pictures: Sequence[np.ndarray],
        calibration: Calibration | None,
        rate: float,
        orders: queue.SimpleQueue[dict[str, Any]],
    ) -> None:
        super().__init__('camera')
        there = list(range(len(pictures)))
        self._order = itertools.cycle([*there, *there[-2:0:-1]])
        self._pictures, self._calibration, self._orders = pictures, calibration, orders
        self._habits, self._count = Habits(), 0
        self._plug()
        self.create_timer(1 / rate, self._work)

    def _plug(self) -> None:
        kind, topic = (CompressedImage, 'image/compressed') if self._habits.compressed else (Image, 'image')
        self._image = self.create_publisher(kind, topic, 5)
        self._info = self.create_publisher(CameraInfo, 'camera_info', 5)

    def _unplug(self) -> None:
        self.destroy_publisher(self._image)
        self.destroy_publisher(self._info)

    def _work(self) -> None:
        while not self._orders.empty():
            self._take_on(self._orders.get())
        if self._habits.publishing:
            self._publish()

    def _take_on(self, order: dict[str, Any]) -> None:
        before = self._habits
        self._habits = replace(before, **order)
        if before.publishing:
            self._unplug()
        if self._habits.publishing:
            self._plug()
        print(f'habits: {json.dumps(order)}', flush=True)

    def _publish(self) -> None:
        habits, self._count = self._habits, self._count + 1
        ahead = habits.offset + habits.once
        self._habits = replace(habits, once=0.0)
        stamp = ns_to_time(max(0, time.time_ns() + round(ahead * 1e9)))
        picture = self._pictures[next(self._order)]
        size = image_size(picture)
        if habits.size is not None:
            picture = cv2.resize(picture, habits.size)
        if self._calibration is not None:
            info = CameraInfo()
            info.header.stamp, info.header.frame_id = stamp, FRAME_ID
            self._calibrated(size, image_size(picture)).fill(info)
            self._info.publish(info)
        broken = habits.broken if self._count % 2 else ''
        message = _compressed(picture, broken) if habits.compressed else _raw(picture, broken)
        message.header.stamp, message.header.frame_id = stamp, FRAME_ID
        self._image.publish(message)
        if broken or habits.once:
            print('sent: 1 bad', flush=True)

    def _calibrated(self, source: tuple[int, int], size: tuple[int, int]) -> Calibration:
        assert self._calibration is not None
        if size == source and self._habits.focal == 1:
            return self._calibration
        K = np.diag([size[0] / source[0], size[1] / source[1], 1.0]) @ self._calibration.K
        K[[0, 1], [0, 1]] *= self._habits.focal
        return Calibration.pinhole(K, size)


def _raw(picture: np.ndarray, broken: str) -> Image:
    message = Image()
    fill_image(message, picture, 'rgb8')
    if broken == 'length':
        message.data = message.data[:-100]
    elif broken == 'encoding':
        message.encoding = 'moon8'
    elif broken == 'empty':
        message.width = message.height = 0
    elif broken == 'huge':
        message.width = message.height = HUGE
        message.step = 3 * HUGE
    return message


def _compressed(picture: np.ndarray, broken: str) -> CompressedImage:
    if broken == 'huge':
        data = cv2.imencode('.png', picture[:16, :16])[1].ravel()
        header = b'IHDR' + np.array([HUGE, HUGE], '>u4').tobytes() + data[24:29].tobytes()
        header += zlib.crc32(header).to_bytes(4, 'big')
        lying = data[:12].tobytes() + header + data[33:].tobytes()
        return CompressedImage(format='rgb8; png compressed bgr8', data=array.array('B', lying))
    _, data = cv2.imencode('.jpg', picture[..., ::-1])
    if broken:
        data = data[: len(data) // 2]
    return CompressedImage(format='rgb8; jpeg compressed bgr8', data=to_array('B', data.ravel()))


def read_pictures(path: Path, limit: int) -> tuple[list[np.ndarray], Calibration | None]:
    """RGB pictures of a folder, video or bag and their calibration. Raises SequenceError or FileNotFoundError."""
    items = list(open_sequence(path, limit=limit))
    pictures = [
        item.image.to_rgb() for item in items if isinstance(item.image, RawImage) and item.image.encoding == 'rgb8'
    ]
    return pictures, items[0].calibration if items else None


def main() -> int:
    """Publish until interrupted; 2 when the input holds nothing that can be played."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('input', type=Path)
    parser.add_argument('--rate', type=float, default=10.0)
    parser.add_argument('--limit', type=int, default=300)
    parser.add_argument('--habits', type=json.loads, default={}, help='to begin with, as JSON')
    given = parser.parse_args(rclpy.utilities.remove_ros_args()[1:])
    pictures, calibration = read_pictures(given.input, given.limit)
    if not pictures:
        print(f'{given.input} has no pictures that can be played', file=sys.stderr)
        return 2
    orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    orders.put(given.habits)

    def listen() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))

    threading.Thread(target=listen, daemon=True).start()
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Camera(pictures, calibration, given.rate, orders))
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
