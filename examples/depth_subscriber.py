"""How far it is straight ahead, and where the robot is: depth, its camera_info and odometry of the same image.

python examples/depth_subscriber.py         # beside a running node: ros2 launch vggt_ros vggt.launch.py

Lengths are metres only where the status says METRIC. Otherwise they have one unit within an epoch that nobody knows.
The status follows what it belongs to: the first line after a change may still name the old unit.
"""

from contextlib import suppress

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from vggt_ros.msg import Status

PARTS = {Image: '/vggt/depth/image_rect', CameraInfo: '/vggt/depth/camera_info', Odometry: '/vggt/odometry'}
UNITS = {Status.SCALE_UNKNOWN: 'units', Status.SCALE_RELATIVE: 'relative units', Status.SCALE_METRIC: 'm'}


class Ahead(Node):
    def __init__(self) -> None:
        super().__init__('ahead')
        self.unit = 'units'
        self.images: dict[tuple[int, int], dict] = {}  # stamp -> kind of message -> message
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Status, '/vggt/status', self.on_status, latched)
        for kind, topic in PARTS.items():
            self.create_subscription(kind, topic, self.on_part, 10)

    def on_status(self, message: Status) -> None:
        self.unit = UNITS[message.scale]

    def on_part(self, message: Image | CameraInfo | Odometry) -> None:
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        parts = self.images[stamp] = self.images.get(stamp, {}) | {type(message): message}
        if len(parts) == len(PARTS):
            self.tell(*(parts[kind] for kind in PARTS))
            del self.images[stamp]
        if len(self.images) > 1000:  # most have odometry only, and depth may come seconds later
            del self.images[next(iter(self.images))]

    def tell(self, image: Image, info: CameraInfo, odometry: Odometry) -> None:
        depth = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)  # NaN: nothing is known
        u, v, r = round(info.k[2]), round(info.k[5]), round(0.035 * info.k[0])  # two degrees around the optical axis
        ahead = depth[v - r : v + r + 1, u - r : u + r + 1]
        far = f'{np.nanmedian(ahead):.3f} {self.unit}' if np.isfinite(ahead).any() else 'unknown'
        at, head = odometry.pose.pose.position, odometry.header
        where = f'{odometry.child_frame_id} at ({at.x:.3f}, {at.y:.3f}, {at.z:.3f}) {self.unit} in {head.frame_id}'
        print(f'{head.stamp.sec}.{head.stamp.nanosec:09d}: ahead {far}; {where}', flush=True)


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Ahead())
