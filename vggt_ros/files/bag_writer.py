"""A ROS 2 bag (MCAP, compressed) written message by message, readable even when the disk fills up in the middle."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

FOREVER = QosTime(9223372036, 854775807)
MAGIC = b'\x89MCAP0\r\n'
# The shortest valid end of an MCAP file: a data end record, a footer that points to no summary, the magic.
END = struct.pack('<BQI', 0x0F, 4, 0) + struct.pack('<BQQQI', 0x02, 20, 0, 0, 0) + MAGIC


class BagWriter:
    """Writes serialized messages into ``folder/<name of folder>.mcap`` and, at the end, ``metadata.yaml`` beside it.

    definitions: text of the .msg file for every message type that is not part of ROS itself, by ``package/msg/Name``.
    Raises OSError when the folder cannot be made.
    """

    def __init__(self, folder: Path, definitions: Mapping[str, str]) -> None:
        self.file = folder / f'{folder.name}.mcap'
        self._types = get_typestore(Stores.LATEST)
        for name, text in definitions.items():
            self._types.register(get_types_from_msg(text, name))
        # Humble and Iron end with "bad conversion" on the metadata of version 9.
        self._writer = Writer(folder, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._last = 0
        self._ended = False
        self.counts: dict[str, int] = {}

    def write(self, topic: str, kind: str, time: int, data: bytes, *, latched: bool = False) -> None:
        """One serialized (CDR) message of type ``kind`` (package/msg/Name), received at ``time`` (ns).

        Times never go back in the file: it can then be read in order even without its index. On an OSError the file is
        ended after what is whole in it, and the error goes on to the caller.
        """
        self._last = max(self._last, time)
        try:
            if topic not in self._connections:
                self._connections[topic] = self._writer.add_connection(
                    topic, kind, typestore=self._types, offered_qos_profiles=[_qos(latched)]
                )
                self.counts[topic] = 0
            self._writer.write(self._connections[topic], self._last, data)
        except OSError:
            self._rescue()
            raise
        self.counts[topic] += 1

    def close(self) -> None:
        """Write index and metadata. On an OSError as :meth:`write`; after one there is nothing left to do."""
        if self._ended:
            return
        self._ended = True
        try:
            self._writer.close()
        except OSError:
            self._rescue()
            raise

    def _rescue(self) -> None:
        self._ended = True
        with suppress(OSError):  # what it still holds in memory cannot be written either
            self._writer.abort()
        with suppress(OSError):  # a disk that has failed altogether
            end_after_whole_records(self.file)


def end_after_whole_records(path: Path) -> None:
    """Cut an unfinished MCAP file after its last whole record and end it there. Needs no more disk than the file has.

    Raises OSError when the file cannot be changed, ValueError when it is none.
    """
    with path.open('r+b', buffering=0) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f'{path} is not an MCAP file')
        size = path.stat().st_size
        ends = [file.tell()]
        while len(head := file.read(9)) == 9:
            end = file.tell() + struct.unpack('<Q', head[1:])[0]
            if end > size:
                break
            ends.append(end)
            file.seek(end)
        while ends:
            file.truncate(ends[-1])
            file.seek(ends.pop())
            with suppress(OSError):
                if file.write(END) == len(END):
                    return
    raise OSError(f'{path} cannot be ended')


def _qos(latched: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=FOREVER,
        lifespan=FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=FOREVER,
        avoid_ros_namespace_conventions=False,
    )
