"""How far it is straight ahead, and where the camera is: depth and odometry of one image, brought together by stamp.

python examples/depth_subscriber.py         # beside a running node: ros2 launch vggt_ros vggt.launch.py

Lengths are metres only where the status says METRIC; otherwise they have one unit within an epoch that nobody knows.
"""

from contextlib import suppress

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from vggt_ros.msg import Status


class Ahead(Node):
    """Prints a line for every image that has both."""

    def __init__(self) -> None:
        super().__init__('ahead')
        self.unit = 'units'
        self.parts: dict[tuple[int, int], dict[str, str]] = {}  # stamp -> what has come of that image
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Status, '/vggt/status', self.on_status, latched)
        self.create_subscription(Image, '/vggt/depth/image_rect', self.on_depth, 10)
        self.create_subscription(Odometry, '/vggt/odometry', self.on_odometry, 10)

    def on_status(self, message: Status) -> None:
        self.unit = 'm' if message.scale == Status.SCALE_METRIC else 'units'

    def on_depth(self, message: Image) -> None:
        depth = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
        (top, bottom), (left, right) = ((2 * side // 5, 3 * side // 5) for side in depth.shape)
        known = depth[top:bottom, left:right][np.isfinite(depth[top:bottom, left:right])]  # NaN: nothing is known
        self.tell(message, depth=f'{np.median(known):.3f} {self.unit} ahead' if known.size else 'unknown ahead')

    def on_odometry(self, message: Odometry) -> None:
        place = message.pose.pose.position
        self.tell(message, place=f'at ({place.x:.3f}, {place.y:.3f}, {place.z:.3f}) in {message.header.frame_id}')

    def tell(self, message: Image | Odometry, **part: str) -> None:
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        parts = self.parts.setdefault(stamp, {})
        parts.update(part)
        if len(parts) == 2:
            print(f'{stamp[0]}.{stamp[1]:09d}: {parts["depth"]}, {parts["place"]}', flush=True)
            self.parts = {one: parts for one, parts in self.parts.items() if one > stamp}  # older ones stay alone


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Ahead())
