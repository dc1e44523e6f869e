"""Small bags of every kind."""

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

WIDTH, HEIGHT = 32, 24
START = 1_700_000_000_123_456_789  # nanoseconds, a stamp that no float keeps
KINDS = ['ros1', 'sqlite3', 'mcap']


def picture(index):
    """RGB; its first channel tells the index, and a video codec leaves that readable."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([np.full_like(x, 20 * index + 10), 2 * x, 3 * y], -1).astype(np.uint8)


class BagWriter:
    """One bag of any kind, from (topic, message type, header and fields, time of recording)."""

    def __init__(self, path, kind, compress=None):
        self.ros1 = kind == 'ros1'
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        if self.ros1:
            self.writer = Writer1(path)
            if compress:
                self.writer.set_compression(Writer1.CompressionFormat[compress])
        else:
            plugin = StoragePlugin.MCAP if kind == 'mcap' else StoragePlugin.SQLITE3
            self.writer = Writer2(path, version=9, storage_plugin=plugin)
            if compress:
                self.writer.set_compression(CompressionMode[compress], CompressionFormat.ZSTD)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def write(self, topic, name, time, stamp=None, **fields):
        types = self.store.types
        stamp = time if stamp is None else stamp
        time_type = types['builtin_interfaces/msg/Time']
        header = {'stamp': time_type(sec=stamp // 10**9, nanosec=stamp % 10**9), 'frame_id': 'left_optical'}
        if self.ros1:
            header['seq'] = 7
        fields['header'] = types['std_msgs/msg/Header'](**header)
        kind = name if '/' in name else f'sensor_msgs/msg/{name}'
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        encode = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], time, encode(types[kind](**fields), kind))

    def image(self, topic, time, index=0, stamp=None):
        """bgr8 with two bytes of padding to each row."""
        rows = np.pad(picture(index)[..., ::-1].reshape(HEIGHT, -1), ((0, 0), (0, 2)))
        fields = {'height': HEIGHT, 'width': WIDTH, 'encoding': 'bgr8', 'is_bigendian': 0, 'step': 3 * WIDTH + 2}
        self.write(topic, 'Image', time, stamp, data=rows.ravel(), **fields)

    def compressed(self, topic, time, index=0, name='png'):
        data = cv2.imencode('.png', picture(index)[..., ::-1])[1].ravel()
        self.write(topic, 'CompressedImage', time, format=name, data=data)

    def info(self, topic, time, focal=30.0):
        roi = self.store.types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        k = np.array([focal, 0, 16, 0, focal, 12, 0, 0, 1], float)
        matrices = {'d': np.zeros(5), 'k': k, 'r': np.eye(3).ravel(), 'p': np.zeros(12)}
        if self.ros1:
            matrices = {name.upper(): value for name, value in matrices.items()}
        fields = {'height': HEIGHT, 'width': WIDTH, 'distortion_model': 'plumb_bob', 'binning_x': 0, 'binning_y': 0}
        self.write(topic, 'CameraInfo', time, roi=roi, **fields, **matrices)
