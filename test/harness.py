"""A VGGT node in this process and a client beside it, over real DDS."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from exact import K, picture, view, walk
from vggt_ros.ros import compat
from vggt_ros.ros.compat import to_array
from vggt_ros.ros.counters import Counts
from vggt_ros.ros.messages import ns_to_time, time_to_ns
from vggt_ros.ros.node import VGGTNode

START = 1_700_000_000_123_456_789  # a stamp that no float keeps
PERIOD = 100_000_001


def stamp_of(index: int) -> int:
    """Nanoseconds of the image with this index."""
    return START + index * PERIOD


def wait_until(condition, seconds: float = 20.0) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def image_message(
    index: int, encoding: str = 'rgb8', frame_id: str = 'eye', T_world_camera: np.ndarray | None = None
) -> Image:
    """An image with its exact stamp: of the room, or without a pose one that shows nothing that could be followed."""
    pixels = picture(index) if T_world_camera is None else view(T_world_camera)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=pixels.shape[1] * 3)
    message.header.stamp, message.header.frame_id = ns_to_time(stamp_of(index)), frame_id
    message.data = to_array('B', pixels)
    return message


def info_message(index: int, matrix: np.ndarray = K, size: tuple[int, int] = (160, 120), **fields) -> CameraInfo:
    """The calibration of the walk's camera."""
    message = CameraInfo(width=size[0], height=size[1], distortion_model='plumb_bob', d=[0.0] * 5, **fields)
    message.header.stamp, message.header.frame_id = ns_to_time(stamp_of(index)), 'eye'
    message.k = matrix.ravel()
    return message


class Spinning:
    """A node under test and a client, each spun by a thread of its own."""

    def __init__(self, context, node, client) -> None:
        self.executors = [
            MultiThreadedExecutor(num_threads=4, context=context),
            SingleThreadedExecutor(context=context),
        ]
        for executor, one in zip(self.executors, (node, client), strict=True):
            executor.add_node(one)
        self.threads = [
            threading.Thread(target=compat.spin, args=(executor,), daemon=True) for executor in self.executors
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End both threads."""
        for executor in self.executors:
            executor.shutdown()
        for thread in self.threads:
            thread.join()


class Rig:
    """Spins a node under test and a client; ``messages[topic]`` collects what arrives.

    Poses are not refined by corners: they are the predictor's, to the last digit.
    predictor: given to the node in place of a network; an exception class instance is raised instead.
    """

    def __init__(self, predictor, *, start: bool = True, **parameters) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        parameters = {'mode': 'every_frame', 'window': 6, 'max_tracks': 48, 'threads': 1, 'refine': False} | parameters
        self.predictor = predictor
        self.node = VGGTNode(
            load=self._load,
            context=self.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in parameters.items()],
        )
        self.client = rclpy.create_node('client', context=self.context)
        self.spinning = Spinning(self.context, self.node, self.client)
        self.messages = defaultdict(list)
        reliable = QoSProfile(depth=50)
        self.image = self.client.create_publisher(Image, 'image', reliable)
        self.info = self.client.create_publisher(CameraInfo, 'camera_info', reliable)
        if start:
            self.node.trigger_configure()
            self.node.trigger_activate()

    def _load(self, settings):
        if isinstance(self.predictor, Exception):
            raise self.predictor
        return self.predictor

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.node.close()
        self.spinning.stop()
        self.node.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown(context=self.context)

    def listen(self, kind, topic: str, *, best_effort: bool = False, latched: bool = False):
        """Subscribe and wait for the connection."""
        qos = QoSProfile(depth=200)
        if best_effort:
            qos.reliability = ReliabilityPolicy.BEST_EFFORT
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        inbox = self.messages[topic]
        self.client.create_subscription(kind, topic, inbox.append, qos)
        assert wait_until(lambda: self.client.count_publishers(topic) > 0), f'nobody publishes {topic}'
        assert wait_until(lambda: self.node.count_subscribers(topic) > 0)
        return inbox

    def connected(self) -> None:
        """Wait until the node has subscribed to our images."""
        assert wait_until(lambda: self.image.get_subscription_count() and self.info.get_subscription_count())

    def play(self, indices, infos: bool = True, encoding: str = 'rgb8') -> None:
        """Publish images of the walk with their calibration, and wait until the node has taken them in."""
        self.connected()
        for index in indices:
            if infos:
                self.info.publish(info_message(index))
                # In the order of time: the calibration must have come before the image that it belongs to.
                time.sleep(0.02)
            poses = getattr(self.predictor, 'poses', {})
            self.send(image_message(index, encoding, T_world_camera=poses.get(stamp_of(index))))

    def send(self, message: Image) -> None:
        """Publish one image and wait until the node has received it."""
        before = self.counts.received
        self.image.publish(message)
        assert wait_until(lambda: self.counts.received > before), 'the image did not arrive'

    @property
    def counts(self) -> Counts:
        """What has become of the images since the node was activated."""
        return self.node._active.counters.snapshot()

    def settled(self) -> bool:
        """Wait until every image that came is accounted for."""
        return wait_until(lambda: self.counts.received and not self.counts.waiting)

    def call(self, name: str) -> Trigger.Response:
        """Call one of the node's services."""
        client = self.client.create_client(Trigger, f'/vggt/{name}')
        assert client.wait_for_service(10)
        future = client.call_async(Trigger.Request())
        assert wait_until(future.done)
        return future.result()

    def problems(self) -> dict[str, int]:
        """What the node has reported so far."""
        return self.node._problems.counts()


def stamps(messages) -> list[int]:
    """Stamps in nanoseconds."""
    return [time_to_ns(message.header.stamp) for message in messages]


def poses(count: int) -> dict[int, np.ndarray]:
    """stamp -> T_world_camera of the walk."""
    return {stamp_of(i): T for i, T in enumerate(walk(count))}


def matrix(placed) -> np.ndarray:
    """(4, 4) of a geometry_msgs/Pose or Transform."""
    is_pose = hasattr(placed, 'position')
    t, q = (placed.position, placed.orientation) if is_pose else (placed.translation, placed.rotation)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = t.x, t.y, t.z
    return T


def zero_time() -> Time:
    """The stamp of a driver that does not stamp."""
    return Time()
