"""The messages of a bag, whatever its storage."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from zstandard import ZstdDecompressor, ZstdError

from vggt_ros.files.bags.finding import BagFiles, open_storage
from vggt_ros.files.bags.packets import DEFINITIONS, codec_of, encoding_of
from vggt_ros.files.bags.storage import Channel, Lose, Storage, Stored
from vggt_ros.files.errors import DamagedError, in_a_line

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
# What deserializing raises for bytes that are not what they should be.
DAMAGE = (SerdeError, ZstdError, AssertionError, ValueError, KeyError, IndexError, struct.error, MemoryError)


class OpenBag:
    """The storages of a bag, one after the other, and what decodes their messages."""

    def __init__(self, files: BagFiles) -> None:
        self._files, self._packed = files.files, files.packed
        self._stack = ExitStack()
        self._storages: list[Storage] = []

    def __enter__(self) -> OpenBag:
        with self._stack as stack:  # a later one that fails closes the earlier ones
            self._storages = [open_storage(file, stack) for file in self._files]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def channels(self) -> list[Channel]:
        """Of all storages that hold messages."""
        return [channel for storage in self._storages for channel in storage.channels if channel.count]

    @property
    def notes(self) -> tuple[str, ...]:
        """Of all storages."""
        return tuple(note for storage in self._storages for note in storage.notes)

    def readable(self) -> list[Channel]:
        """Channels whose encoding is known."""
        return [channel for channel in self.channels if channel.encoding in ('cdr', 'ros1')]

    def pictures(self) -> list[Channel]:
        """Channels of images; compressedDepth travels as CompressedImage, but is no picture."""
        return [
            x
            for x in self.readable()
            if x.kind in (IMAGE, COMPRESSED, *DEFINITIONS) and not x.topic.endswith('/compressedDepth')
        ]

    def messages(self, channels: Iterable[Channel], lose: Lose) -> Iterator[Stored]:
        """Of these channels, in the order of recording."""
        wanted = set(channels)
        for storage in self._storages:
            own = [channel for channel in storage.channels if channel in wanted]
            if own:
                yield from storage.messages(own, lose)

    def decode(self, stored: Stored) -> Any:
        """The message. Raises DamagedError."""
        kind = stored.channel.kind
        try:
            data = ZstdDecompressor().decompress(stored.data) if self._packed else stored.data
            if kind in DEFINITIONS:
                return _decode_packet(data, kind, stored.channel.encoding)
            return _decoder(stored.channel.encoding)(data, kind)
        except DAMAGE as error:
            raise DamagedError(in_a_line(error)) from error


@cache
def _decoder(encoding: str) -> Callable[[bytes, str], Any]:
    """(message, kind) -> its fields. A typestore writes the code for a kind when it meets it first, and keeps it."""
    if encoding == 'ros1':
        return get_typestore(Stores.ROS1_NOETIC).deserialize_ros1
    return get_typestore(Stores.LATEST).deserialize_cdr


@cache
def _packet_decoders(kind: str, encoding: str) -> list[Callable[[bytes, str], Any]]:
    """For every definition that a message has had."""
    decoders: list[Callable[[bytes, str], Any]] = []
    for definition in DEFINITIONS[kind]:
        store = get_typestore(Stores.ROS1_NOETIC if encoding == 'ros1' else Stores.LATEST)
        store.register(get_types_from_msg(definition, kind))
        decoders.append(store.deserialize_ros1 if encoding == 'ros1' else store.deserialize_cdr)
    return decoders


def _decode_packet(data: bytes, kind: str, encoding: str) -> Any:
    """By the newest definition that makes sense of it. Raises one of DAMAGE."""
    problem: Exception = ValueError('none of the known definitions fits')
    for decode in _packet_decoders(kind, encoding):
        try:
            message = decode(data, kind)
        except DAMAGE as error:
            problem = error
        else:
            if codec_of(encoding_of(message)) is not None:
                return message
    raise problem
