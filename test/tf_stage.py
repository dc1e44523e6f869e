"""A node that broadcasts transforms in this process, and another node that listens and may place frames, too."""

import threading

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from exact_robot import T_BASE_CAMERA, T_MAP_ODOM, base_at, located, pose, wheels
from harness import stamp_of, wait_until
from vggt_ros.camera import invert
from vggt_ros.ros import compat
from vggt_ros.ros.messages import ns_to_time, to_transform
from vggt_ros.ros.tf.heard import Heard
from vggt_ros.ros.tf.transforms import Transforms
from vggt_ros.types import Frame

SETTINGS = {'map_frame': 'map', 'odom_frame': 'odom', 'base_frame': 'base_link', 'transform_wait': 0.5}


def at(index, T_map_odom=T_MAP_ODOM, camera='eye', **changes):
    """The robot at the image with this index, in a map that lies so to our odom."""
    T_odom_camera = base_at(0.1 * index) @ T_BASE_CAMERA
    frame = Frame(index, stamp_of(index), np.zeros((2, 2, 3), np.uint8), frame_id=camera)
    return located(
        0.1 * index, frame=frame, T_map_camera=T_map_odom @ T_odom_camera, T_odom_camera=T_odom_camera, **changes
    )


def transform(parent, child, T, index=0):
    """T_parent_child (4, 4) at the stamp of the image with this index."""
    message = TransformStamped(child_frame_id=child, transform=to_transform(T))
    message.header.frame_id, message.header.stamp = parent, ns_to_time(stamp_of(index))
    return message


class Others:
    """The lookup: base -> camera at any stamp, odom -> base at the stamps that have ``come``."""

    def __init__(self, come=()):
        self.come = set(come)
        self.mounted = True

    def __call__(self, target, source, stamp):
        if (target, source) == ('eye', 'base_link'):
            return invert(T_BASE_CAMERA) if self.mounted else '"base_link" does not exist'
        assert (target, source) == ('odom', 'base_link')
        index = (stamp - stamp_of(0)) // (stamp_of(1) - stamp_of(0))
        return wheels(index) if index in self.come else 'extrapolation into the future'


class Stage:
    """A node that broadcasts, and somebody else who listens and may broadcast, too."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('vggt', context=self.context)
        self.other = rclpy.create_node('ekf', namespace='/robot', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        for node in (self.node, self.other):
            self.executor.add_node(node)
        self.thread = threading.Thread(target=compat.spin, args=(self.executor,), daemon=True)
        self.thread.start()
        self.heard = []
        self.other.create_subscription(TFMessage, '/tf', lambda m: self.heard.extend(m.transforms), 100)
        self.placed = []
        self.tf = Heard(self.node)
        self.transforms = None

    def begin(self, mode, lookup=None, **settings):
        self.lookup = Others() if lookup is None else lookup
        settings = SETTINGS | {'tf_mode': mode} | settings
        self.transforms = Transforms(self.node, settings, self.tf, self.lookup, self.placed.append)
        if mode != 'none':
            assert wait_until(lambda: self.other.count_publishers('/tf') and self.node.count_subscribers('/tf') == 2)
        return self.transforms

    def edges(self, count):
        """Wait for so many transforms; what came, by parent and child."""
        assert wait_until(lambda: len(self.heard) >= count), f'{len(self.heard)} of {count} came'
        found = {}
        for transform in self.heard:
            found.setdefault((transform.header.frame_id, transform.child_frame_id), []).append(transform)
        assert len(self.heard) == count
        return found

    def say(self, transforms, static=False):
        """Somebody else publishes them in one message."""
        if static:
            qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            publisher = self.other.create_publisher(TFMessage, '/tf_static', qos)
        else:
            publisher = self.other.create_publisher(TFMessage, '/tf', 10)
            assert wait_until(lambda: publisher.get_subscription_count() == 2)
        publisher.publish(TFMessage(transforms=transforms))

    def place(self, parent, child, index=0, static=False):
        """Somebody else places a frame."""
        self.say([transform(parent, child, pose([0, 0, 7], [0, 0, 0]), index)], static)
        watch = self.transforms._broadcaster.parents
        assert wait_until(lambda: watch.conflict(child) and 'ekf' in watch.conflict(child))

    def close(self):
        if self.transforms is not None:
            self.transforms.close()
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()
        self.other.destroy_node()
        rclpy.shutdown(context=self.context)
