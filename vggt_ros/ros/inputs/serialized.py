"""Images as they came over the wire, CDR bytes: the callback looks at the header, whoever needs the pixels reads them.

rclpy makes a message of 6 MB from bytes in milliseconds that nobody wants who drops the image; rosbags reads the same
bytes in place.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from sensor_msgs.msg import CompressedImage, Image

from vggt_ros.ros.cdr import CdrError, deserialize
from vggt_ros.ros.inputs.images import ImageError

IMAGE, COMPRESSED_IMAGE = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


class Header(NamedTuple):
    """Of a message whose first field is a std_msgs/Header. stamp: ns."""

    stamp: int
    frame_id: str


def header_of(data: bytes) -> Header:
    """The header of a serialized message. Raises ImageError where there is none, or its stamp is no time."""
    if len(data) < 16 or data[0] or data[1] > 1:
        raise ImageError(
            f'{len(data)} bytes that begin with {data[:4].hex(" ") or "nothing"} are no serialized message'
        )
    order = '<' if data[1] else '>'
    seconds, nanoseconds, length = struct.unpack_from(f'{order}iII', data, 4)
    if seconds < 0 or nanoseconds >= 1_000_000_000:
        raise ImageError(f'its stamp of {seconds} s and {nanoseconds} ns is no time')
    name = data[16 : 16 + length]
    if length < 1 or len(name) < length:
        raise ImageError(f'the message of {len(data)} bytes is cut off in its header')
    try:
        frame_id = name[:-1].decode()
    except UnicodeDecodeError as error:
        raise ImageError(f'its frame_id {name[:-1]!r} is no UTF-8') from error
    return Header(seconds * 1_000_000_000 + nanoseconds, frame_id)


def transported(settings: Mapping[str, Any], topic: str) -> tuple[type, str]:
    """Message class and topic of a camera's images, as the parameter ``image_transport`` has them."""
    return (Image, topic) if settings['image_transport'] == 'raw' else (CompressedImage, f'{topic}/compressed')


def read(data: bytes, kind: str) -> Any:
    """The image in these bytes, IMAGE or COMPRESSED_IMAGE, see :func:`deserialize`. Raises ImageError."""
    try:
        return deserialize(data, kind)
    except CdrError as error:
        raise ImageError(str(error)) from error
