"""numpy -> ROS messages. Stamps stay integers from end to end; bulk data is filled by bytes, never by element."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Transform
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header

from vggt_ros import camera
from vggt_ros.depth import color_to_network
from vggt_ros.files import cloud as clouds
from vggt_ros.ros import compat
from vggt_ros.types import Estimate, Frame, PosedFrame, Tracks

# Encoding -> (numpy type, channels) of what :func:`fill_image` publishes.
PUBLISHED = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'mono8': (np.uint8, 1),
    'mono16': (np.uint16, 1),
    '16UC1': (np.uint16, 1),
    '32FC1': (np.float32, 1),
}

POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<f4'), ('confidence', '<f4')])


def time_to_ns(time: Time) -> int:
    """A ROS stamp in nanoseconds, exactly."""
    return time.sec * 1_000_000_000 + time.nanosec


def ns_to_time(ns: int) -> Time:
    """Nanoseconds to a ROS stamp, exactly."""
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def frame_name(name: str) -> str:
    """The name of a frame as tf2 has it: tf of ROS 1 began them with a slash, which tf2 refuses to look up."""
    return name.lstrip('/')


def header(of: PosedFrame | Tracks, frame_id: str) -> Header:
    """The stamp of an estimate's or of tracks' image with a frame id."""
    return Header(stamp=ns_to_time(of.frame.stamp), frame_id=frame_id)


def header_of(frame: Frame) -> Header:
    """An image's own header."""
    return Header(stamp=ns_to_time(frame.stamp), frame_id=frame.frame_id)


def to_pose(T: np.ndarray) -> Pose:
    """(4, 4) to geometry_msgs/Pose."""
    pose = Pose()
    fill_pose(pose, T[:3, 3].tolist(), Rotation.from_matrix(T[:3, :3]).as_quat().tolist())
    return pose


def fill_pose(pose: Pose, position: Sequence[float], quaternion: Sequence[float]) -> None:
    """x y z and x y z w into a pose that is there."""
    p, q = pose.position, pose.orientation
    p.x, p.y, p.z = position
    q.x, q.y, q.z, q.w = quaternion


def to_transform(T: np.ndarray) -> Transform:
    """(4, 4) to geometry_msgs/Transform."""
    pose = to_pose(T)
    transform = Transform(rotation=pose.orientation)
    transform.translation.x, transform.translation.y, transform.translation.z = T[:3, 3].tolist()
    return transform


def from_transform(transform: Transform) -> np.ndarray:
    """geometry_msgs/Transform to (4, 4)."""
    q, t = transform.rotation, transform.translation
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = t.x, t.y, t.z
    return T


def to_camera_info(K: np.ndarray, size: tuple[int, int], head: Header) -> CameraInfo:
    """An undistorted camera of (width, height) with these intrinsics (3, 3)."""
    message = CameraInfo(header=head, width=size[0], height=size[1], distortion_model='plumb_bob', d=[0.0] * 5)
    message.k = K.ravel()
    message.r = np.eye(3).ravel()
    message.p = np.hstack([K, np.zeros((3, 1))]).ravel()
    return message


def to_points(estimate: Estimate, head: Header) -> PointCloud2:
    """The frame's organized cloud in its optical frame: x y z rgb confidence, NaN where depth is unknown."""
    height, width = estimate.depth.shape
    cloud = np.empty((height, width), POINT)
    xyz = camera.unproject(estimate.depth, estimate.K)
    cloud['x'], cloud['y'], cloud['z'] = np.moveaxis(xyz, -1, 0)
    cloud['rgb'] = pack_rgb(color_to_network(estimate.frame.image, estimate.map))
    cloud['confidence'] = estimate.confidence
    return compat.point_cloud(head, cloud)


def fill_image(message: Any, image: np.ndarray, encoding: str) -> None:
    """Put an array (H, W) or (H, W, C) into a sensor_msgs/Image; its header stays as it is.

    Raises ValueError when type or channels of the array are not those of the encoding, or it is none we publish.
    """
    if encoding not in PUBLISHED:
        raise ValueError(f'encoding {encoding} is not one of {", ".join(PUBLISHED)}')
    dtype, channels = PUBLISHED[encoding]
    if image.dtype != dtype or image.shape[2:] != ((channels,) if channels > 1 else ()):
        raise ValueError(f'{encoding} wants {channels} x {np.dtype(dtype)}, got {image.dtype} {image.shape}')
    image = np.ascontiguousarray(image)
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(sys.byteorder == 'big')
    message.step = image.strides[0]
    message.data = compat.to_array('B', image)


def pack_rgb(image: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) float32 whose bits are 0x00RRGGBB: the rgb field of PCL and RViz."""
    return clouds.pack_rgb(image).view(np.float32)
