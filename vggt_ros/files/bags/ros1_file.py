"""Bags of ROS 1 (format 2.0)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path

from rosbags.rosbag1 import Reader, ReaderError

from vggt_ros.files.bags.storage import Channel, Lose, Storage, Stored, kind_of_ros2, with_slash
from vggt_ros.files.errors import SequenceError, in_a_line

# What the library and the decompressors below it raise for bytes that are not what they should be.
DAMAGE = (
    ReaderError,
    RuntimeError,
    AssertionError,
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    OSError,
    struct.error,
    MemoryError,
)


class Ros1File(Storage):
    """Read by its index, chunk by chunk where one is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = Reader(path)
        try:
            self._reader.open()
        except DAMAGE as error:
            remedy = ': run "rosbag reindex"' if 'index' in str(error) else ''
            raise SequenceError(f'{path}: not a readable bag: {error}{remedy}') from error
        self._connections = {connection.id: connection for connection in self._reader.connections}
        self.channels = [
            Channel(x.id, with_slash(x.topic), kind_of_ros2(x.msgtype), 'ros1', x.msgcount)
            for x in self._reader.connections
        ]

    def close(self) -> None:
        self._reader.close()

    def messages(self, channels: Collection[Channel], lose: Lose) -> Iterator[Stored]:
        wanted = {channel.key: channel for channel in channels}
        if not wanted:
            return
        last = -1
        try:
            for stored in self._between(wanted, None, None):
                last = stored.time
                yield stored
            return
        except DAMAGE:
            pass
        # Once more from there, between the bounds of chunks: what lies in others is not touched by a damaged one.
        chunks = self._reader.chunk_infos
        bounds = sorted({last + 1, *(time for x in chunks for time in (x.start_time, x.end_time) if time > last)})
        for start, stop in pairwise(bounds):
            try:
                yield from self._between(wanted, start, stop)
            except DAMAGE as error:
                lose(f'{self.path.name}: a chunk at {start / 1e9:.3f} s is damaged ({in_a_line(error)})')

    def _between(self, wanted: dict[int, Channel], start: int | None, stop: int | None) -> Iterator[Stored]:
        connections = [self._connections[key] for key in wanted]
        for connection, time, data in self._reader.messages(connections, start, stop):
            yield Stored(wanted[connection.id], time, bytes(data))
