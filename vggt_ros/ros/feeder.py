"""A camera that never ends: pictures forth and back with stamps of now, and what the node says meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from vggt_ros.calibration import Calibration
from vggt_ros.msg import Status, TrackArray
from vggt_ros.ros.messages import fill_image

# What a user with RViz open listens to.
LISTENED = (
    (Image, '/vggt/depth/image_rect'),
    (PointCloud2, '/vggt/points'),
    (PointCloud2, '/vggt/map'),
    (TrackArray, '/vggt/tracks'),
    (Image, '/vggt/tracks/image'),
)


class Feeder(Node):
    """Publishes pictures, (H, W, 3) uint8 RGB each, at ``rate`` Hz on ``image``, with their calibration if any.

    status: the newest of the node, None before; states: how many statuses said each state; errors: messages of
    diagnostics of level ERROR, in order, each once. listen: whether to subscribe to what RViz would show.
    """

    def __init__(
        self, pictures: Sequence[np.ndarray], calibration: Calibration | None, rate: float, listen: bool
    ) -> None:
        super().__init__('vggt_feeder')
        there = list(range(len(pictures)))
        self._order = itertools.cycle([*there, *there[-2:0:-1]])
        self._pictures, self._calibration = pictures, calibration
        self._image = self.create_publisher(Image, 'image', 10)
        self._info = self.create_publisher(CameraInfo, 'camera_info', 10)
        self.sent = 0
        self.heard = 0
        self.status: Status | None = None
        self.states: dict[int, int] = {}
        self.errors: list[str] = []
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Status, '/vggt/status', self._on_status, latched)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        for kind, topic in LISTENED if listen else ():
            self.create_subscription(kind, topic, self._on_output, 10)
        self.create_timer(1 / rate, self._feed)

    def _feed(self) -> None:
        message, info = Image(), CameraInfo()
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = 'camera_optical_frame'
        fill_image(message, self._pictures[next(self._order)], 'rgb8')
        if self._calibration is not None:
            info.header = message.header
            self._calibration.fill(info)
            self._info.publish(info)
        self._image.publish(message)
        self.sent += 1

    def _on_status(self, message: Status) -> None:
        self.status = message
        self.states[message.state] = self.states.get(message.state, 0) + 1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for one in message.status:
            if one.level == DiagnosticStatus.ERROR and one.message not in self.errors:
                self.errors.append(one.message)

    def _on_output(self, message: Any) -> None:
        self.heard += 1

    def feed(self, seconds: float) -> None:
        """Spin for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and rclpy.ok():
            rclpy.spin_once(self, timeout_sec=0.1)


@contextmanager
def feeding(
    pictures: Sequence[np.ndarray], calibration: Calibration | None, rate: float, listen: bool
) -> Iterator[Feeder]:
    """A feeder on the graph that the environment names, from rclpy's beginning to its end."""
    rclpy.init()
    feeder = Feeder(pictures, calibration, rate, listen)
    try:
        yield feeder
    finally:
        feeder.destroy_node()
        rclpy.try_shutdown()
