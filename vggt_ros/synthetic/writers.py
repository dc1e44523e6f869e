"""Rendered sequences as files: a folder that FolderSequence reads, or an MCAP bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import yaml
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from vggt_ros.calibration import Calibration
from vggt_ros.files.trajectory import Trajectory, format_stamp, write_tum
from vggt_ros.synthetic.sequence import FRAME_ID, RenderedFrame
from vggt_ros.types import Scale

IMAGE_TOPIC = '/camera/image_raw'
INFO_TOPIC = '/camera/camera_info'
DEPTH_TOPIC = '/truth/depth/image_rect'
TRUTH_PARENT, TRUTH_CHILD = 'world', 'camera_truth'
"""Frames of the true pose on /tf: a tree of its own, so that a node's answer never gets a second parent."""


def _new_directory(path: Path | str) -> Path:
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f'{path} exists already: choose another place or remove it')
    return path


def write_folder(
    path: Path | str,
    frames: Iterable[RenderedFrame],
    K: np.ndarray,
    size: tuple[int, int],
    *,
    suffix: str = 'png',
    depth_scale: float = 0.001,
    exact_depth: bool = False,
) -> None:
    """Write images/NNNNNN.png (or jpg), depth/NNNNNN.png, poses.txt, timestamps.txt and intrinsics.yaml.

    depth: 16-bit z-depth in units of ``depth_scale`` metres, 0 = nothing there or beyond the range.
    exact_depth: float32 metres as depth/NNNNNN.npy besides, NaN = nothing there. FileExistsError if there is something.
    """
    path = _new_directory(path)
    (path / 'images').mkdir(parents=True)
    (path / 'depth').mkdir()
    fields = {'image_width': size[0], 'image_height': size[1], 'depth_scale': depth_scale}
    fields |= {'fx': float(K[0, 0]), 'fy': float(K[1, 1]), 'cx': float(K[0, 2]), 'cy': float(K[1, 2])}
    (path / 'intrinsics.yaml').write_text(yaml.safe_dump(fields, sort_keys=False))
    stamps, poses = [], []
    with (path / 'timestamps.txt').open('w') as times:
        for frame in frames:
            name = f'{frame.index:06d}'
            quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == 'jpg' else []
            _save(path / 'images' / f'{name}.{suffix}', cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), quality)
            units = np.round(np.nan_to_num(frame.depth) / depth_scale)
            _save(path / 'depth' / f'{name}.png', np.where(units > 65535, 0, units).astype(np.uint16))
            if exact_depth:
                np.save(path / 'depth' / f'{name}.npy', frame.depth)
            times.write(f'{name}.{suffix} {format_stamp(frame.stamp)}\n')
            stamps.append(frame.stamp)
            poses.append(frame.T_world_camera)
    write_tum(path / 'poses.txt', Trajectory(np.array(stamps, np.int64), np.stack(poses)), Scale.METRIC)


def _save(path: Path, image: np.ndarray, options: list[int] | None = None) -> None:
    if not cv2.imwrite(str(path), image, options or []):
        raise OSError(f'{path} cannot be written: is the disk full?')


def write_bag(path: Path | str, frames: Iterable[RenderedFrame], K: np.ndarray, size: tuple[int, int]) -> None:
    """Write a ROS 2 bag (MCAP): Image, CameraInfo, true depth (32FC1) and the true pose as TF world -> camera_truth.

    FileExistsError if there is something at ``path``.
    """
    path = _new_directory(path)
    if path.exists():
        path.rmdir()  # the writer wants to make it itself
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    calibration = Calibration.pinhole(K, size)
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            IMAGE_TOPIC: 'sensor_msgs/msg/Image',
            INFO_TOPIC: 'sensor_msgs/msg/CameraInfo',
            DEPTH_TOPIC: 'sensor_msgs/msg/Image',
            '/tf': 'tf2_msgs/msg/TFMessage',
        }
        connections = {topic: writer.add_connection(topic, kind, typestore=store) for topic, kind in topics.items()}

        def put(topic: str, stamp: int, message) -> None:
            writer.write(connections[topic], stamp, store.serialize_cdr(message, topics[topic]))

        for frame in frames:
            stamp = types['builtin_interfaces/msg/Time'](frame.stamp // 10**9, frame.stamp % 10**9)
            header = types['std_msgs/msg/Header'](stamp, FRAME_ID)
            put(INFO_TOPIC, frame.stamp, _camera_info(types, header, calibration))
            put(IMAGE_TOPIC, frame.stamp, _image(types, header, frame.image, 'rgb8'))
            put(DEPTH_TOPIC, frame.stamp, _image(types, header, frame.depth, '32FC1'))
            x, y, z, w = Rotation.from_matrix(frame.T_world_camera[:3, :3]).as_quat()
            transform = types['geometry_msgs/msg/Transform'](
                types['geometry_msgs/msg/Vector3'](*frame.T_world_camera[:3, 3]),
                types['geometry_msgs/msg/Quaternion'](x, y, z, w),
            )
            parent = types['std_msgs/msg/Header'](stamp, TRUTH_PARENT)
            stamped = types['geometry_msgs/msg/TransformStamped'](parent, TRUTH_CHILD, transform)
            put('/tf', frame.stamp, types['tf2_msgs/msg/TFMessage']([stamped]))


def _image(types: dict, header, pixels: np.ndarray, encoding: str):
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    return types['sensor_msgs/msg/Image'](header, height, width, encoding, 0, data.size // height, data)


def _camera_info(types: dict, header, calibration: Calibration):
    roi = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    numbers = {name: np.array(getattr(calibration, name), np.float64) for name in ('d', 'k', 'r', 'p')}
    return types['sensor_msgs/msg/CameraInfo'](
        header=header,
        height=calibration.height,
        width=calibration.width,
        distortion_model=calibration.distortion_model,
        **numbers,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
