"""Bags as people have them: damaged, renamed, unfinished. What is whole is read, and no more than that is lost."""

import os
import shutil
import sqlite3
import struct

import numpy as np
import pytest
import yaml
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

import packets
from bags import HEIGHT, KINDS, START, WIDTH, BagWriter, picture
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.ros.inputs.images import to_rgb

STEP = 10**8
IMAGE = 'sensor_msgs/msg/Image'


def walk(path, kind, count=6, compress=None, first=0):
    """A bag of images with their camera_info."""
    with BagWriter(path, kind, compress) as bag:
        for i in range(first, first + count):
            bag.info('/cam/camera_info', START + i * STEP)
            bag.image('/cam/image_raw', START + i * STEP + 1, i)
    return path


def shown(path, **options):
    """(sequence, indices told by the pixels, stamps)."""
    sequence = open_sequence(path, **options)
    items = list(sequence)
    pixels = [int(np.median(to_rgb(item.image)[..., 0])) for item in items]
    return sequence, [round((x - 10) / 20) for x in pixels], [item.stamp for item in items]


def found(path, **options):
    """(sequence, indices told by the pixels); each has its stamp."""
    sequence = open_sequence(path, **options)
    indices = []
    for item in sequence:
        index = round((int(to_rgb(item.image)[0, 0, 0]) - 10) / 20)
        assert item.stamp == START + index * STEP + 1
        indices.append(index)
    return sequence, indices


def storage(folder):
    return next(x for x in folder.iterdir() if x.suffix in ('.mcap', '.db3', '.zstd'))


@pytest.mark.parametrize(
    ('kind', 'compress'),
    [
        ('ros1', 'LZ4'),
        ('ros1', 'BZ2'),
        ('sqlite3', 'FILE'),
        ('sqlite3', 'MESSAGE'),
        ('mcap', 'STORAGE'),
        ('mcap', 'FILE'),
    ],
)
def test_compressed_bags(kind, compress, tmp_path):
    path = walk(tmp_path / ('walk.bag' if kind == 'ros1' else 'walk'), kind, compress=compress)
    sequence, indices = found(path)
    assert (indices, sequence.lost, sequence.notes) == (list(range(6)), 0, ())


@pytest.mark.parametrize('name', ['run #3', 'a?b', '50%41', 'ü b', "it's"])
@pytest.mark.parametrize('kind', ['sqlite3', 'mcap'])
def test_names_that_mean_something_elsewhere(name, kind, tmp_path):
    walk(tmp_path / 'walk', kind).rename(tmp_path / name)
    assert found(tmp_path / name)[1] == list(range(6))
    assert found(storage(tmp_path / name))[1] == list(range(6))


@pytest.mark.parametrize('kind', KINDS)
def test_suffixes_and_folders(kind, tmp_path):
    folder = tmp_path / 'unpacked'
    if kind == 'ros1':
        folder.mkdir()
        file = walk(folder / 'walk.bag', kind)
    else:
        file = storage(walk(folder, kind))
    shouting = file.rename(file.with_suffix(file.suffix.upper()))
    assert found(shouting)[1] == list(range(6))
    assert found(folder)[1] == list(range(6))


def spoil_metadata(change):
    def spoil(folder):
        file = folder / 'metadata.yaml'
        fields = yaml.safe_load(file.read_text())
        change(fields['rosbag2_bagfile_information'])
        file.write_text(yaml.safe_dump(fields))

    return spoil


def without_qos(fields):
    for topic in fields['topics_with_message_count']:
        topic['topic_metadata']['offered_qos_profiles'] = ''


@pytest.mark.parametrize(
    'spoil',
    [
        lambda folder: (folder / 'metadata.yaml').unlink(),
        lambda folder: (folder / 'metadata.yaml').write_bytes(b''),
        lambda folder: (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information:\n  version: 5\n  storage'),
        lambda folder: (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: 3'),
        lambda folder: storage(folder).rename(folder / f'kitchen{storage(folder).suffix}'),
        spoil_metadata(lambda fields: fields.update(storage_identifier='')),
        spoil_metadata(lambda fields: fields.update(version=99)),
        spoil_metadata(lambda fields: fields.update(message_count=0, topics_with_message_count=[])),
        spoil_metadata(without_qos),
    ],
)
@pytest.mark.parametrize('kind', ['sqlite3', 'mcap'])
def test_metadata_that_is_wrong_costs_nothing(spoil, kind, tmp_path):
    spoil(walk(tmp_path / 'walk', kind))
    sequence, indices = found(tmp_path / 'walk')
    assert (indices, sequence.lost) == (list(range(6)), 0)


@pytest.mark.parametrize('kind', KINDS)
def test_parts_of_one_recording_are_one(kind, tmp_path):
    suffix = {'ros1': 'bag', 'sqlite3': 'db3', 'mcap': 'mcap'}[kind]
    (tmp_path / 'walk').mkdir()
    for part in (2, 10, 9):
        first = {2: 0, 9: 3, 10: 6}[part]
        made = walk(tmp_path / f'{part}.{suffix}' if kind == 'ros1' else tmp_path / str(part), kind, 3, first=first)
        shutil.copy(made if kind == 'ros1' else storage(made), tmp_path / 'walk' / f'walk_{part}.{suffix}')
    sequence, indices = found(tmp_path / 'walk')
    assert (indices, len(sequence)) == (list(range(9)), 9)


def flip(path, share, count=200):
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    data[start : start + count] = bytes(x ^ 0x5A for x in data[start : start + count])
    path.write_bytes(data)


def large(path, kind, compress, noise=True):
    """A bag of three chunks at least, hard to compress, but no so hard that it is left as it is."""
    filler = np.random.default_rng(0).integers(0, 4, 1_500_000 if noise else 10).astype(np.uint8)
    with BagWriter(path, kind, compress) as bag:
        for i in range(9):
            bag.image('/cam/image_raw', START + i * STEP + 1, i)
            fields = {'height': 1, 'width': len(filler), 'encoding': 'mono8', 'is_bigendian': 0, 'step': len(filler)}
            bag.write('/noise', 'Image', START + i * STEP + 2, data=filler, **fields)
    return path


@pytest.mark.parametrize(('kind', 'compress'), [('ros1', 'LZ4'), ('ros1', 'BZ2'), ('mcap', 'STORAGE')])
@pytest.mark.parametrize('share', [0.15, 0.5, 0.8])
def test_a_damaged_chunk_costs_itself(kind, compress, share, tmp_path):
    path = large(tmp_path / ('walk.bag' if kind == 'ros1' else 'walk'), kind, compress)
    flip(path if kind == 'ros1' else storage(path), share)
    sequence, indices = found(path, topic='/cam/image_raw')
    assert 3 <= len(indices) < 9
    assert indices == sorted(indices)
    assert sequence.lost == 9 - len(indices)
    assert 'damaged' in sequence.damaged[0]
    assert min(indices) == 0 or max(indices) == 8, 'what lies around it is used'


def test_a_damaged_page_of_a_database_costs_its_message(tmp_path):
    path = large(tmp_path / 'walk', 'sqlite3', None)
    flip(storage(path), 0.5, 40_000)
    sequence, indices = found(path, topic='/cam/image_raw')
    assert len(indices) >= 8
    assert sequence.lost == 9 - len(indices)


def test_a_message_that_cannot_be_decoded_costs_itself(tmp_path):
    path = walk(tmp_path / 'walk', 'sqlite3')
    with sqlite3.connect(storage(path)) as database:
        database.execute("UPDATE messages SET data = x'0001' WHERE id = 6")  # an image
        database.execute("UPDATE messages SET data = x'0001' WHERE id = 7")  # a camera_info
    sequence, indices = found(path)
    assert indices == [0, 1, 3, 4, 5]
    assert sequence.lost == 1
    assert 'image 2 is damaged' in sequence.damaged[0]
    assert '/cam/camera_info' in sequence.damaged[1]


@pytest.mark.parametrize('share', [0.4, 0.9])
def test_a_recording_that_was_killed_is_read_as_far_as_it_goes(share, tmp_path):
    path = storage(large(tmp_path / 'walk', 'mcap', 'STORAGE'))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    sequence, indices = found(path, topic='/cam/image_raw')
    assert indices == list(range(len(indices)))
    assert len(indices) >= 2
    assert any('has no index' in note for note in sequence.notes)
    assert any('ends at byte' in text for text in sequence.damaged)


def test_a_write_ahead_log_is_read(tmp_path):
    path = storage(walk(tmp_path / 'walk', 'sqlite3'))
    database = sqlite3.connect(path)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('PRAGMA wal_autocheckpoint=0')
    database.execute('UPDATE messages SET timestamp = timestamp + 5 WHERE id = 12')
    database.commit()
    for name in (path, f'{path}-wal'):  # as a recorder leaves them that is killed
        shutil.copy(name, tmp_path / os.path.basename(name))
    assert os.path.getsize(f'{path}-wal') > 0
    database.close()
    sequence = open_sequence(tmp_path / path.name)
    assert len(list(sequence)) == 6


def test_what_is_not_finished_or_no_bag_is_refused_with_the_remedy(tmp_path):
    (tmp_path / 'walk.bag.active').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(SequenceError, match='was not ended: run "rosbag reindex'):
        open_sequence(tmp_path / 'walk.bag.active')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty' / 'metadata.yaml').write_text('rosbag2_bagfile_information: {relative_file_paths: [gone.mcap]}')
    with pytest.raises(SequenceError, match=r'no storage file in it: gone\.mcap is missing'):
        open_sequence(tmp_path / 'empty')
    (tmp_path / 'walk.db3.zstd').write_bytes(b'no zstd')
    with pytest.raises(SequenceError, match=r'walk\.db3\.zstd: cannot be unpacked'):
        open_sequence(tmp_path / 'walk.db3.zstd')


def string(text):
    return struct.pack('<I', len(text)) + text.encode()


def record(op, body):
    return struct.pack('<BQ', op, len(body)) + body


def plain_mcap(path, schemas, channels, messages, profile='ros2'):
    """MCAP without chunks, with a summary. schemas: (name, encoding, text); channels: (schema, topic, encoding);
    messages: (channel, time, data). Ids count from 1."""
    magic = b'\x89MCAP0\r\n'
    definitions = b''.join(
        record(3, struct.pack('<H', i) + string(name) + string(encoding) + string(text))
        for i, (name, encoding, text) in enumerate(schemas, 1)
    ) + b''.join(
        record(4, struct.pack('<HH', i, schema) + string(topic) + string(encoding) + struct.pack('<I', 0))
        for i, (schema, topic, encoding) in enumerate(channels, 1)
    )
    body = b''.join(record(5, struct.pack('<HIQQ', c, 0, time, time) + data) for c, time, data in messages)
    data = (
        magic
        + record(1, string(profile) + string('somebody'))
        + definitions
        + body
        + record(0x0F, struct.pack('<I', 0))
    )
    path.write_bytes(data + definitions + record(2, struct.pack('<QQI', len(data), 0, 0)) + magic)
    return path


def images(ros1=False, count=4):
    """(time, serialized image) of a walk."""
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    types, encode = store.types, store.serialize_ros1 if ros1 else store.serialize_cdr
    result = []
    for i in range(count):
        stamp = START + i * STEP + 1
        time = types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
        extra = {'seq': i} if ros1 else {}
        header = types['std_msgs/msg/Header'](stamp=time, frame_id='cam', **extra)
        fields = {'height': HEIGHT, 'width': WIDTH, 'encoding': 'rgb8', 'is_bigendian': 0, 'step': 3 * WIDTH}
        message = types[IMAGE](header=header, data=picture(i).reshape(-1), **fields)
        result.append((stamp, bytes(encode(message, IMAGE))))
    return result


@pytest.mark.parametrize('topic', ['/cam/image_raw', 'cam/image_raw'])
def test_what_else_lies_in_an_mcap_does_no_harm(topic, tmp_path):
    """Notes in JSON, a type whose definition is incomplete, and topics without the slash."""
    schemas = [
        (IMAGE, 'ros2msg', 'whatever'),
        ('Note', 'jsonschema', '{}'),
        ('my_msgs/msg/Wheels', 'ros2msg', 'my_msgs/Wheel[4] wheels'),
    ]
    channels = [(1, topic, 'cdr'), (2, '/notes', 'json'), (3, '/wheels', 'cdr')]
    messages = [(1, *x) for x in images()] + [(2, START, b'{}'), (3, START, b'\0\1\0\0')]
    path = plain_mcap(tmp_path / 'walk.mcap', schemas, channels, messages)
    sequence, indices = found(path)
    assert indices == list(range(4))
    assert sequence.topic == '/cam/image_raw'


def test_an_mcap_of_ros_1(tmp_path):
    messages = [(1, *x) for x in images(ros1=True)]
    schemas, channels = [('sensor_msgs/Image', 'ros1msg', '')], [(1, '/cam/image_raw', 'ros1')]
    path = plain_mcap(tmp_path / 'walk.mcap', schemas, channels, messages, 'ros1')
    assert found(path)[1] == list(range(4))


@pytest.mark.parametrize(
    ('schema', 'topic', 'encoding', 'named'),
    [
        ('theora_image_transport/msg/Packet', '/cam/image_raw/theora', 'cdr', 'video packets'),
        ('foxglove.CompressedVideo', '/cam/video', 'protobuf', 'video packets'),
        ('foxglove.CompressedImage', '/cam/image', 'protobuf', 'images in protobuf'),
        ('sensor_msgs/msg/CompressedImage', '/cam/depth/compressedDepth', 'cdr', 'depth'),
    ],
)
def test_what_holds_pictures_but_is_not_read_is_named(schema, topic, encoding, named, tmp_path):
    path = plain_mcap(
        tmp_path / 'walk.mcap', [(schema, 'ros2msg', '')], [(1, topic, encoding)], [(1, START, b'\0' * 40)]
    )
    with pytest.raises(SequenceError, match=f'image topics: none; not read: {topic} .{named}'):
        open_sequence(path)


@pytest.mark.parametrize(
    ('storage', 'kind', 'definition', 'codec', 'name'),
    [
        ('mcap', packets.FFMPEG, packets.NEW, 'libx264', 'h264;yuv420p;bgr8;bgr8'),
        ('sqlite3', packets.FFMPEG, packets.NEW, 'libx265', 'hevc_nvenc'),
        ('ros1', packets.FFMPEG, packets.OLD, 'libx264', 'libx264'),
        ('mcap', packets.FOXGLOVE, packets.VIDEO, 'libx264', 'h264'),
        ('mcap', packets.FOXGLOVE, packets.VIDEO, 'libvpx-vp9', 'vp9'),
        ('mcap', packets.COMPRESSED, '', 'libx264', 'h264'),
    ],
)
def test_packets_of_a_video(storage, kind, definition, codec, name, tmp_path):
    path = tmp_path / ('walk.bag' if storage == 'ros1' else 'walk')
    packets.write(path, storage, kind, definition, name, packets.packets(codec, 8))
    sequence, indices, stamps = shown(path)
    assert indices == list(range(8))
    assert stamps == [START + i * packets.STEP for i in range(8)]
    assert (len(sequence), sequence.lost, sequence.damaged) == (8, 0, [])
    assert next(iter(sequence)).frame_id == 'left_optical'
    assert shown(path, stride=3)[1] == [0, 3, 6]


def test_packets_whose_frames_come_later(tmp_path):
    """B frames: each picture has the stamp of its own packet."""
    data = packets.packets('libx264', 9, later=2)
    packets.write(tmp_path / 'walk', 'mcap', packets.FFMPEG, packets.NEW, 'h264', data)
    _, indices, stamps = shown(tmp_path / 'walk')
    assert indices == list(range(9))
    assert len(set(stamps)) == 9


def test_a_recording_of_packets_that_begins_in_the_middle(tmp_path):
    """Until the next key frame nothing can be shown; then all."""
    data = packets.packets('libx264', 12, gop=4)
    packets.write(tmp_path / 'walk', 'mcap', packets.FFMPEG, packets.NEW, 'h264', data[2:])
    sequence, indices, _ = shown(tmp_path / 'walk')
    assert indices == list(range(4, 12))
    assert sequence.lost == 2
    assert sequence.damaged


def test_a_packet_that_is_damaged_costs_what_needs_it(tmp_path):
    data = packets.packets('libx264', 12, gop=4)
    data[5] = b'\0\0\0\1\x67' + bytes(30)
    packets.write(tmp_path / 'walk', 'mcap', packets.FFMPEG, packets.NEW, 'h264', data)
    sequence, indices, _ = shown(tmp_path / 'walk')
    assert {0, 1, 2, 3, 4, 8, 9, 10, 11} <= set(indices)
    assert len(indices) + sequence.lost == 12
    assert sequence.lost > 0


def test_packets_that_nobody_can_decode_are_refused(tmp_path):
    packets.write(tmp_path / 'walk', 'mcap', packets.FFMPEG, packets.NEW, 'quantum', [b'abc'] * 3)
    with pytest.raises(SequenceError, match=r'no packet of /cam/image_raw/ffmpeg can be read'):
        open_sequence(tmp_path / 'walk')


def test_the_image_is_preferred_to_its_packets(tmp_path):
    """Raw, then JPEG, then video."""
    with BagWriter(tmp_path / 'walk', 'mcap') as bag:
        bag.store.register(get_types_from_msg(packets.NEW, packets.FFMPEG))
        for i in range(3):
            bag.compressed('/cam/image_raw/compressed', START + i * STEP, i)
            fields = {'width': 1, 'height': 1, 'encoding': 'h264', 'pts': 0, 'flags': 0, 'is_bigendian': False}
            bag.write('/cam/image_raw/ffmpeg', packets.FFMPEG, START + i * STEP, data=np.zeros(3, np.uint8), **fields)
    assert open_sequence(tmp_path / 'walk').topic == '/cam/image_raw/compressed'


def test_depth_beside_pictures_is_no_choice_to_make(tmp_path):
    with BagWriter(tmp_path / 'walk', 'mcap') as bag:
        for i in range(3):
            bag.image('/cam/color/image_raw', START + i * STEP + 1, i)
            data = np.zeros(2 * WIDTH * HEIGHT, np.uint8)
            fields = {'height': HEIGHT, 'width': WIDTH, 'encoding': '16UC1', 'is_bigendian': 0, 'step': 2 * WIDTH}
            bag.write('/cam/aligned_depth/image_raw', 'Image', START + i * STEP, data=data, **fields)
    assert found(tmp_path / 'walk')[0].topic == '/cam/color/image_raw'


def test_a_camera_info_below_the_image_topic(tmp_path):
    with BagWriter(tmp_path / 'walk', 'mcap') as bag:
        bag.info('/cam/image_raw/camera_info', START)
        bag.image('/cam/image_raw', START + 1)
    assert next(iter(open_sequence(tmp_path / 'walk'))).calibration is not None
