"""Serialized images: their headers, their pixels where they lie, and bytes that are no image."""

import random

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros()
pytest.importorskip('rclpy')

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from vggt_ros.ros.inputs.images import ImageError
from vggt_ros.ros.inputs.serialized import COMPRESSED_IMAGE, IMAGE, header_of, read
from vggt_ros.ros.messages import fill_image, ns_to_time

STAMP = 1_700_000_000_123_456_789


def sent(frame_id='eye', stamp=STAMP):
    message = Image()
    message.header.stamp, message.header.frame_id = ns_to_time(stamp), frame_id
    fill_image(message, np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3), 'rgb8')
    return message


@pytest.mark.parametrize('frame_id', ['', 'eye', 'kamera_öst', 'x' * 300])
def test_a_header_is_read_without_the_rest(frame_id):
    data = serialize_message(sent(frame_id))
    assert header_of(data) == (STAMP, frame_id)
    assert header_of(data[: 16 + len(frame_id.encode()) + 1]) == (STAMP, frame_id)


def test_a_header_of_the_other_byte_order():
    data = b'\0\0\0\0' + (7).to_bytes(4, 'big') + (8).to_bytes(4, 'big') + (4).to_bytes(4, 'big') + b'eye\0'
    assert header_of(data) == (7_000_000_008, 'eye')


def test_pixels_are_a_view_of_the_bytes():
    data = serialize_message(sent())
    message = read(data, IMAGE)
    assert (message.height, message.width, message.step, message.encoding) == (6, 4, 12, 'rgb8')
    assert message.header.frame_id == 'eye'
    np.testing.assert_array_equal(message.data, np.arange(72))
    assert np.shares_memory(message.data, np.frombuffer(data, np.uint8))


def test_compressed_images():
    message = read(serialize_message(CompressedImage(format='jpeg', data=b'\xff\xd8abc')), COMPRESSED_IMAGE)
    assert (message.format, message.data.tobytes()) == ('jpeg', b'\xff\xd8abc')


@pytest.mark.parametrize(
    ('spoil', 'complaint'),
    [
        (lambda data: b'', '0 bytes that begin with nothing'),
        (lambda data: data[:15], 'no serialized message'),
        (lambda data: b'\x09' + data[1:], 'no serialized message'),
        (lambda data: data[:18], 'cut off in its header'),
        (lambda data: data[:12] + bytes(4) + data[16:], 'cut off in its header'),
        (lambda data: data[:12] + b'\xff\xff\xff\xff' + data[16:], 'cut off in its header'),
        (lambda data: data[:16] + b'\xff\xff' + data[18:], 'no UTF-8'),
        (lambda data: data[:7] + b'\xff' + data[8:], 'no time'),
        (lambda data: data[:8] + (10**9).to_bytes(4, 'little') + data[12:], '1000000000 ns is no time'),
    ],
)
def test_headers_without_sense_are_refused(spoil, complaint):
    with pytest.raises(ImageError, match=complaint):
        header_of(spoil(serialize_message(sent())))


def test_bytes_that_are_no_image_are_refused_whatever_they_are():
    chance = random.Random(1)
    data = serialize_message(sent())
    refused = 0
    for _ in range(2000):
        spoilt = bytearray(data[: chance.randrange(len(data) + 1)])
        for _ in range(chance.randrange(4)):
            if spoilt:
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        for look in (header_of, lambda bad: read(bad, IMAGE), lambda bad: read(bad, COMPRESSED_IMAGE)):
            try:
                look(bytes(spoilt))
            except ImageError:
                refused += 1
    assert refused > 3000
