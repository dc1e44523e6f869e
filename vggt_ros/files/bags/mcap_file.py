"""MCAP files, by whatever program they were written (https://mcap.dev/spec)."""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel as ChannelRecord
from mcap.records import Chunk, ChunkIndex, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap.summary import Summary
from zstandard import ZstdError

from vggt_ros.files.bags.storage import Channel, Lose, Storage, Stored, kind_of_ros2, with_slash
from vggt_ros.files.errors import SequenceError, in_a_line

# What the library and the decompressors below it raise for bytes that are not what they should be.
DAMAGE = (
    McapError,
    ZstdError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    struct.error,
    MemoryError,
    OverflowError,
)
LARGEST = 1 << 30  # bytes of a record that is believed


class McapFile(Storage):
    """Read by its index where it has one; a file whose recorder was killed is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._counted: Counter[int] = Counter()  # messages by channel, where nothing but a whole reading tells
        try:
            self._file = path.open('rb')
        except OSError as error:
            raise SequenceError(f'{path}: {error.strerror or error}') from error
        with ExitStack() as stack:
            stack.callback(self._file.close)
            self._summary = self._read_summary()
            stack.pop_all()
        counts = self._counts()
        self.channels = []
        for key, record in self._summary.channels.items():
            schema = self._summary.schemas.get(record.schema_id)
            kind = kind_of_ros2(schema.name) if schema is not None else ''
            topic = with_slash(record.topic)
            self.channels.append(Channel(key, topic, kind, record.message_encoding, counts.get(key, 0)))

    def close(self) -> None:
        self._file.close()

    def _read_summary(self) -> Summary:
        try:
            summary = SeekingReader(self._file, record_size_limit=LARGEST).get_summary()
        except (*DAMAGE, OSError) as error:
            summary, self.notes = None, (f'{self.path.name} has no index ({error}): read from its beginning',)
        if summary is not None and summary.channels:
            statistics = summary.statistics
            if summary.chunk_indexes or (statistics is not None and not statistics.chunk_count):
                return summary
        return self._scan()

    def _scan(self) -> Summary:
        """Everything but the messages, from a whole reading of the file."""
        summary = Summary()
        try:
            for record in self._inside(lambda _: None):
                if isinstance(record, Schema):
                    summary.schemas[record.id] = record
                elif isinstance(record, ChannelRecord):
                    summary.channels[record.id] = record
                elif isinstance(record, Message):
                    self._counted[record.channel_id] += 1
        except DAMAGE as error:
            raise SequenceError(f'{self.path}: not a readable bag: {error}') from error
        if not summary.channels:
            raise SequenceError(f'{self.path}: not a readable bag: there is no channel in it')
        return summary

    def _counts(self) -> dict[int, int]:
        if (statistics := self._summary.statistics) is not None and statistics.channel_message_counts:
            return dict(statistics.channel_message_counts)
        if not self._counted:
            self._counted.update(x.channel_id for x in self._inside(lambda _: None) if isinstance(x, Message))
        return self._counted

    def _records(self, lose: Lose) -> Iterator[object]:
        """All records from the beginning, chunks as a whole; ends where the file does, or where it is damaged."""
        self._file.seek(0)
        reader = StreamReader(self._file, emit_chunks=True, record_size_limit=LARGEST).records
        while True:
            try:
                record = next(reader)
            except StopIteration:
                return
            except (*DAMAGE, OSError) as error:
                if self._file.tell() <= 8:
                    raise SequenceError(f'{self.path}: not a readable bag: {error}') from error
                lose(f'{self.path.name} ends at byte {self._file.tell()} ({in_a_line(error)})')
                return
            yield record

    def _inside(self, lose: Lose) -> Iterator[object]:
        """The same with what is inside the chunks."""
        for record in self._records(lose):
            if isinstance(record, Chunk):
                yield from self._broken_up(record, lose, f'before byte {self._file.tell()}')
            else:
                yield record

    def _broken_up(self, chunk: Chunk, lose: Lose, where: str) -> Sequence[object]:
        try:
            return breakup_chunk(chunk, validate_crc=True)
        except DAMAGE as error:
            lose(f'{self.path.name}: the chunk {where} is damaged ({in_a_line(error)})')
            return []

    def messages(self, channels: Collection[Channel], lose: Lose) -> Iterator[Stored]:
        wanted = {channel.key: channel for channel in channels}
        if not self._summary.chunk_indexes:
            for record in self._inside(lose):
                if isinstance(record, Message) and record.channel_id in wanted:
                    yield Stored(wanted[record.channel_id], record.log_time, record.data)
            return
        waiting: list[tuple[int, int, Stored]] = []  # messages of chunks that overlap in time
        order = count()
        for index in sorted(self._summary.chunk_indexes, key=lambda index: index.message_start_time):
            while waiting and waiting[0][0] < index.message_start_time:
                yield heapq.heappop(waiting)[2]
            if index.message_index_offsets and not wanted.keys() & index.message_index_offsets.keys():
                continue
            for record in self._chunk(index, lose):
                if isinstance(record, Message) and record.channel_id in wanted:
                    stored = Stored(wanted[record.channel_id], record.log_time, record.data)
                    heapq.heappush(waiting, (record.log_time, next(order), stored))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _chunk(self, index: ChunkIndex, lose: Lose) -> Sequence[object]:
        where = f'at byte {index.chunk_start_offset}'
        try:
            self._file.seek(index.chunk_start_offset + 1 + 8)
            chunk = Chunk.read(ReadDataStream(self._file))
        except (*DAMAGE, OSError) as error:
            lose(f'{self.path.name}: the chunk {where} is damaged ({in_a_line(error)})')
            return []
        return self._broken_up(chunk, lose, where)
