"""Packets of a video in bags, as image_transports and drivers write them."""

from fractions import Fraction

import av
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from bags import HEIGHT, START, WIDTH, picture

STEP = 100_000_000
FFMPEG, FOXGLOVE = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket', 'foxglove_msgs/msg/CompressedVideo'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
HEAD = 'std_msgs/Header header\n'
NEW = HEAD + 'int32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n'
OLD = HEAD + 'uint8[] data\nint32 img_width\nint32 img_height\nstring encoding\nuint64 pts\nuint8 flags\n'
VIDEO = 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n'


def packets(codec, count, gop=4, later=0):
    """Bytes, one entry for each picture. later: pictures that an encoder may look ahead (B frames)."""
    context = av.CodecContext.create(codec, 'w')
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
    context.time_base = Fraction(1, 10)
    context.gop_size = gop
    context.max_b_frames = later
    if codec.startswith('libx26'):
        context.options = {'crf': '10', **({} if later else {'tune': 'zerolatency'})}
    found = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(picture(index), format='rgb24')
        frame.pts = index
        found += context.encode(frame)
    return [bytes(packet) for packet in [*found, *context.encode(None)]]


def write(path, storage, kind, definition, name, data, topic='/cam/image_raw/ffmpeg'):
    """storage: ros1, sqlite3 or mcap. name: of the encoding, as the message has it. data: of each packet."""
    ros1 = storage == 'ros1'
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    if definition:
        store.register(get_types_from_msg(definition, kind))
    types, encode = store.types, store.serialize_ros1 if ros1 else store.serialize_cdr
    plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
    with Writer1(path) if ros1 else Writer2(path, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection(topic, kind, typestore=store)
        for index, packet in enumerate(data):
            time = START + index * STEP
            stamp = types['builtin_interfaces/msg/Time'](sec=time // 10**9, nanosec=time % 10**9)
            values = {
                'data': np.frombuffer(packet, np.uint8),
                'encoding': name,
                'format': name,
                'width': WIDTH,
                'height': HEIGHT,
                'img_width': WIDTH,
                'img_height': HEIGHT,
                'pts': index,
                'flags': 0,
                'is_bigendian': False,
                'timestamp': stamp,
                'frame_id': 'left_optical',
            }
            if kind != FOXGLOVE:
                more = {'seq': 0} if ros1 else {}
                values['header'] = types['std_msgs/msg/Header'](stamp=stamp, frame_id='left_optical', **more)
            fields = types[kind].__dataclass_fields__
            message = types[kind](**{key: value for key, value in values.items() if key in fields})
            writer.write(connection, time + 1, encode(message, kind))
    return path
