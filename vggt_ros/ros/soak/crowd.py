"""Whoever else is on a robot's graph, as a process: python -m vggt_ros.ros.soak.crowd listeners|storm|tf|imu

listeners: what RViz shows, all the time. storm: ten subscribers of every output come and go. tf: six moving transforms
at 200 Hz. imu: an IMU at 200 Hz.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import rclpy
from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, Imu, PointCloud2
from tf2_msgs.msg import TFMessage

from vggt_ros.msg import Status, TrackArray

SHOWN = (
    (Image, '/vggt/depth/image_rect'),
    (PointCloud2, '/vggt/points'),
    (PointCloud2, '/vggt/map'),
    (TrackArray, '/vggt/tracks'),
    (Image, '/vggt/tracks/image'),
    (Path, '/vggt/path'),
)
OUTPUTS = (
    *SHOWN,
    (PoseWithCovarianceStamped, '/vggt/pose'),
    (Odometry, '/vggt/odometry'),
    (Image, '/vggt/depth/confidence'),
    (CameraInfo, '/vggt/depth/camera_info'),
    (PointCloud2, '/vggt/tracks/points'),
    (Status, '/vggt/status'),
)
SUBSCRIBERS, STAY = 10, 2.0  # how many, and seconds between two comings or goings of all
HZ = 200.0


class Crowd(Node):
    """kind: as on the command line."""

    def __init__(self, kind: str) -> None:
        super().__init__(f'crowd_{kind}')
        self._heard, self._telling = 0, kind == 'storm'
        self._guests: list[Any] = []
        if kind == 'listeners':
            self._come(SHOWN, 1)
        elif kind == 'storm':
            self.create_timer(STAY, self._come_and_go)
        elif kind == 'tf':
            self._tf = self.create_publisher(TFMessage, '/tf', 100)
            self.create_timer(1 / HZ, self._move)
        elif kind == 'imu':
            self._imu = self.create_publisher(Imu, 'imu', 100)
            self.create_timer(1 / HZ, self._weigh)
        else:
            raise ValueError(f'no crowd is called {kind}')

    def _come(self, topics: tuple[tuple[type, str], ...], times: int) -> None:
        for kind, topic in topics * times:
            self._guests.append(self.create_subscription(kind, topic, self._hear, 5))

    def _hear(self, _: Any) -> None:
        self._heard += 1
        if self._heard == 1 and self._telling:  # not with the next coming and going: on a busy machine that takes long
            print('heard: 1', flush=True)

    def _come_and_go(self) -> None:
        if not self._guests:
            self._come(OUTPUTS, SUBSCRIBERS)
            return
        print(f'heard: {self._heard}', flush=True)
        while self._guests:
            self.destroy_subscription(self._guests.pop())

    def _move(self) -> None:
        message = TFMessage()
        for joint in range(6):
            transform = TransformStamped(child_frame_id=f'joint_{joint}')
            transform.header.stamp = self.get_clock().now().to_msg()
            transform.header.frame_id = f'joint_{joint - 1}' if joint else 'torso'
            transform.transform.rotation.w = 1.0
            message.transforms.append(transform)
        self._tf.publish(message)

    def _weigh(self) -> None:
        message = Imu()
        message.header.stamp, message.header.frame_id = self.get_clock().now().to_msg(), 'camera_optical_frame'
        message.linear_acceleration.y = -9.81  # the optical frame's y points down
        self._imu.publish(message)


def main() -> int:
    """Until interrupted."""
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Crowd(sys.argv[1]))
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
