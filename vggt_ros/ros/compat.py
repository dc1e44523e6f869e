"""What a ROS installation may have and the PyPI wheels have not: the ROS package where it works, else the next best.

Two choices are left here: who decodes images (cv_bridge, else rosbags-image) and who broadcasts transforms (tf2_ros,
else a plain publisher of tf2_msgs). :func:`describe` tells which, for the log. Quaternions come from scipy
everywhere, since the core needs it anyway. Clouds are packed here everywhere: sensor_msgs_py.create_cloud swaps
height and width of an organized (H, W) cloud.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

Decoder = Callable[[Any, str], np.ndarray]

# What a broken cv_bridge raises: built for another NumPy (AttributeError, SystemError), run with OpenCV 5 (KeyError).
BROKEN = (ImportError, AttributeError, SystemError, KeyError, TypeError, RuntimeError)


class MissingPackage(RuntimeError):
    """A ROS package that a chosen feature needs is not installed."""


def decode(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Pixels of a ROS 8-bit encoding -> (H, W, 3) uint8 RGB.

    pixels: (H, W, C) uint8, contiguous: both decoders get padded rows or foreign byte order wrong.
    """
    return _decode_with(_decoder()[0], pixels, encoding)


def describe() -> str:
    """One line for the log: which package does what."""
    broadcaster = 'tf2_ros' if _tf2_ros() is not None else 'a tf2_msgs publisher (tf2_ros is not installed)'
    return f'images are decoded by {_decoder()[1]}, transforms broadcast by {broadcaster}'


def _decode_with(decoder: Decoder, pixels: np.ndarray, encoding: str) -> np.ndarray:
    height, width, channels = pixels.shape
    message = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(sys.byteorder == 'big'),
        step=width * channels,
        data=pixels,
    )
    return decoder(message, 'rgb8')


def cv_bridge_decoder() -> Decoder:
    """cv_bridge's decoder, tried on a small image; raises one of ``BROKEN`` when it does not work here."""
    from cv_bridge import CvBridge

    decoder = CvBridge().imgmsg_to_cv2
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    if not np.array_equal(_decode_with(decoder, pixels, 'bgr8'), pixels[..., ::-1]):
        raise RuntimeError('it decodes bgr8 wrongly')
    return decoder


def rosbags_decoder() -> Decoder:
    """rosbags-image's decoder."""
    from rosbags.image import message_to_cvimage

    return message_to_cvimage


@cache
def _decoder() -> tuple[Decoder, str]:
    try:
        return cv_bridge_decoder(), 'cv_bridge'
    except BROKEN as error:
        return rosbags_decoder(), f'rosbags-image (cv_bridge: {error})'


@cache
def _tf2_ros() -> Any:
    try:
        import tf2_ros
    except ImportError:
        return None
    return tf2_ros


def transform_broadcaster(node: Any) -> Any:
    """Publisher on /tf with tf2_ros's interface: ``sendTransform`` of one TransformStamped or a list."""
    tf2_ros = _tf2_ros()
    return tf2_ros.TransformBroadcaster(node) if tf2_ros else TransformPublisher(node)


def transform_buffer(cache_seconds: float = 10.0) -> Any:
    """tf2's Buffer, which nobody feeds yet. Raises MissingPackage without tf2_ros."""
    tf2_ros = _tf2_ros()
    if tf2_ros is None:
        raise MissingPackage(
            'looking up transforms needs tf2_ros, which is not installed'
            ' (ros-$ROS_DISTRO-tf2-ros-py); tf_mode none works without it, and where nothing moves between the camera'
            ' and the root of its own frames so do camera, and odom and full where base_frame is empty'
        )
    from rclpy.duration import Duration

    return tf2_ros.Buffer(cache_time=Duration(seconds=cache_seconds))


def transform_exception() -> type[Exception]:
    """What tf2's buffer raises when it has no such transform. Only where :func:`transform_buffer` works."""
    return _tf2_ros().TransformException


def foxglove_messages() -> Any:
    """The module foxglove_msgs.msg. Raises MissingPackage."""
    try:
        import foxglove_msgs.msg
    except ImportError as error:
        raise MissingPackage(
            'track_adapters: foxglove needs foxglove_msgs, which is not installed (ros-$ROS_DISTRO-foxglove-msgs)'
        ) from error
    return foxglove_msgs.msg


class TransformPublisher:
    """tf2_ros's broadcaster without tf2_ros: the same topic, messages and QoS. ``pub_tf`` is its publisher."""

    def __init__(self, node: Any) -> None:
        from rclpy.qos import QoSProfile

        try:
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            raise MissingPackage(f'publishing transforms needs tf2_msgs, which is not installed: {error}') from error
        self._message_type = TFMessage
        self.pub_tf = node.create_publisher(TFMessage, '/tf', QoSProfile(depth=100))

    def sendTransform(self, transform: Any) -> None:
        """Publish one geometry_msgs/TransformStamped or a list of them."""
        transforms = list(transform) if isinstance(transform, (list, tuple)) else [transform]
        self.pub_tf.publish(self._message_type(transforms=transforms))


def subscription_events() -> Any:
    """The module with SubscriptionEventCallbacks and UnsupportedEventTypeError, which was renamed after Humble."""
    try:
        import rclpy.event_handler
    except ImportError:
        import rclpy.qos_event

        return rclpy.qos_event
    return rclpy.event_handler


def spin(executor: Any) -> None:
    """``executor.spin()`` that outlives what rclpy raises where nobody can catch it.

    InvalidHandle: it looks at event handlers after it has let go of the list of them (ros2/rclpy, issue 1284), and an
    entity that is destroyed by another thread at that moment would end the node.
    """
    from rclpy.exceptions import InvalidHandle
    from rclpy.logging import get_logger

    while True:
        try:
            return executor.spin()
        except InvalidHandle as error:
            get_logger('vggt').debug(f'the executor goes on after: {error}')


# numpy kind and size -> sensor_msgs/PointField datatype
_DATATYPES = {'i1': 1, 'u1': 2, 'i2': 3, 'u2': 4, 'i4': 5, 'u4': 6, 'f4': 7, 'f8': 8}


def point_cloud(header: Any, points: np.ndarray, *, dense: bool = False) -> Any:
    """sensor_msgs/PointCloud2 of a structured array: (N,) unorganized, (H, W) organized, one field a column.

    dense: promise that no point is NaN. ``rgb`` is by convention a float32 whose bits are 0x00RRGGBB.
    """
    from sensor_msgs.msg import PointCloud2, PointField

    columns = points.dtype.fields
    if columns is None:
        raise TypeError(f'points must be a structured array, got {points.dtype}')
    points = np.ascontiguousarray(points)
    cloud = PointCloud2(header=header, is_dense=dense, is_bigendian=sys.byteorder == 'big')
    cloud.height, cloud.width = points.shape if points.ndim == 2 else (1, len(points))
    for name, (dtype, offset, *_) in columns.items():
        datatype = _DATATYPES[dtype.str[1:]]
        cloud.fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
    cloud.point_step = points.dtype.itemsize
    cloud.row_step = cloud.point_step * cloud.width
    cloud.data = to_array('B', points)
    return cloud


def to_array(typecode: str, values: np.ndarray) -> array.array:
    """A message's sequence field from numpy in one copy: any other type rclpy checks or converts element by element."""
    raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    item = array.array(typecode, [0])
    filled = item * (len(raw) // item.itemsize)  # of exactly this size: frombytes() would make room for more
    if filled:
        np.frombuffer(filled, np.uint8)[:] = raw
    return filled
