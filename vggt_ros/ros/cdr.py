"""Serialized messages of the common interfaces, read by rosbags: in place, several times as fast as rclpy."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

# What rosbags raises of bytes that are no such message: the last three before version 0.11.
_BROKEN = SerdeError, struct.error, ValueError, AssertionError


class CdrError(ValueError):
    """Bytes that are no such message."""


def deserialize(data: bytes, kind: str) -> Any:
    """The message in these bytes: an object with the fields of ``kind``, arrays are read-only views of the bytes.

    kind: as 'sensor_msgs/msg/Image'. Raises CdrError.
    """
    try:
        return _types().deserialize_cdr(memoryview(data), kind)
    except _BROKEN as error:
        raise CdrError(f'{len(data)} bytes are no {kind}: {error}') from error


def kind_of(message: type) -> str:
    """The name of a message class: 'sensor_msgs/msg/Image'."""
    return f'{message.__module__.partition(".")[0]}/msg/{message.__name__}'


@cache
def _types() -> Typestore:
    """Made when the first message comes: 70 ms."""
    return get_typestore(Stores.ROS2_JAZZY)
