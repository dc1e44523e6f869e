"""Images of a bag, ROS 1 or ROS 2, whatever its storage: no ROS installation is needed."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from zstandard import ZstdDecompressor, ZstdError

from vggt_ros.calibration import Calibration
from vggt_ros.files.bags.finding import find_files, open_storage
from vggt_ros.files.bags.storage import Channel, Lose, Storage, Stored
from vggt_ros.files.errors import DamagedError, SequenceError, in_a_line
from vggt_ros.files.sequence import FRAME_ID, EncodedImage, ImageSequence, RawImage, SequenceItem

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
CALIBRATION_AGE = 1_000_000_000
DEPTH = ('16UC1', '32FC1')  # encodings that are depth where there are pictures, too
VIDEO = ('FFMPEGPacket', 'theora', 'CompressedVideo')  # parts of the names of messages that hold packets of a video
# What deserializing raises for bytes that are not what they should be.
DAMAGE = (SerdeError, ZstdError, AssertionError, ValueError, KeyError, IndexError, struct.error, MemoryError)


class BagSequence(ImageSequence):
    """The images of one topic in the order of recording, fields and stamps as recorded.

    An image without a stamp of its own (0) gets the time of recording. Each image carries the latest CameraInfo of
    its namespace recorded before it (the first images: the bag's first one); the two need not be synchronised. Once
    a bag's calibration has changed, one that is more than a second older than the image is not used. Of what is
    damaged only that is lost.
    """

    def __init__(self, path: Path, topic: str | None, stride: int, limit: int | None) -> None:
        self.kind, self._files = 'bag', find_files(path)
        with _Bag(self._files.files, self._files.packed) as bag:
            self.topic = _choose_topic(path, bag, topic)
            self._info_topic = _camera_info_topic(self.topic, bag.channels)
            images, infos = self._channels(bag)
            self.notes = (*self._files.notes, *bag.notes)
            _refuse_video(path, bag, images)
        super().__init__(path, sum(x.count for x in images), stride, limit)
        info_count = sum(x.count for x in infos)
        if info_count == 0:
            self.notes += (f'no CameraInfo on {self._info_topic}: the camera is uncalibrated',)
        elif info_count != self._count:
            self.notes += (
                f'{info_count} CameraInfo messages for {self._count} images: not synchronised,'
                ' each image takes the latest',
            )

    def _channels(self, bag: _Bag) -> tuple[list[Channel], list[Channel]]:
        """Of the images and of their CameraInfo; several publishers may have fed one topic."""
        images = [x for x in bag.pictures() if x.topic == self.topic]
        infos = [x for x in bag.readable() if x.topic == self._info_topic and x.kind == CAMERA_INFO]
        return images, infos

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        with _Bag(self._files.files, self._files.packed) as bag:
            images, infos = self._channels(bag)
            latest = _LatestCalibration()
            first = next(bag.messages(infos, lambda _: None), None)
            if first is not None:
                self._hear(bag, first, latest)
            index = 0
            for stored in bag.messages([*images, *infos], self.damaged.append):
                if stored.channel.kind == CAMERA_INFO:
                    self._hear(bag, stored, latest)
                else:
                    yield partial(self._load, bag, stored, index, latest.at(stored.time))
                    index += 1
            self.lost += max(0, (self._count or 0) - index)

    def _hear(self, bag: _Bag, stored: Stored, latest: _LatestCalibration) -> None:
        try:
            latest.add(stored.time, bag.decode(stored))
        except DamagedError as error:
            self.damaged.append(f'{self._info_topic}: {error}')

    def _load(self, bag: _Bag, stored: Stored, index: int, calibration: Calibration | None) -> SequenceItem:
        name = f'{self.topic} image {index}'
        try:
            message = bag.decode(stored)
        except DamagedError as error:
            raise DamagedError(f'{self.path}: {name} is damaged: {error}') from error
        image: RawImage | EncodedImage
        if stored.channel.kind == COMPRESSED:
            image = EncodedImage(message.format, message.data)
        else:
            fields = ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')
            image = RawImage(*(getattr(message, field) for field in fields))
        header = message.header
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        return SequenceItem(index, name, stamp or stored.time, image, header.frame_id or FRAME_ID, calibration)


class _Bag:
    """The storages of a bag, one after the other, and what decodes their messages."""

    def __init__(self, files: Sequence[Path], packed: bool) -> None:
        self._files, self._packed = files, packed
        self._stack = ExitStack()
        self._storages: list[Storage] = []

    def __enter__(self) -> _Bag:
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
            x for x in self.readable() if x.kind in (IMAGE, COMPRESSED) and not x.topic.endswith('/compressedDepth')
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
            return _decoder(stored.channel.encoding)(data, kind)
        except DAMAGE as error:
            raise DamagedError(in_a_line(error)) from error


@cache
def _decoder(encoding: str) -> Callable[[bytes, str], Any]:
    """(message, kind) -> its fields. A typestore writes the code for a kind when it meets it first, and keeps it."""
    if encoding == 'ros1':
        return get_typestore(Stores.ROS1_NOETIC).deserialize_ros1
    return get_typestore(Stores.LATEST).deserialize_cdr


class _LatestCalibration:
    """The CameraInfo in force; times are those of the recording, so stamps of 0 do no harm."""

    def __init__(self) -> None:
        self._calibration: Calibration | None = None
        self._time = 0
        self._changed = False

    def add(self, time: int, info: Any) -> None:
        calibration = Calibration.from_message(info)
        self._changed |= self._calibration not in (None, calibration)
        self._calibration, self._time = calibration, time

    def at(self, time: int) -> Calibration | None:
        # A calibration that never changed may come from a latched topic, recorded once.
        too_old = self._changed and time - self._time > CALIBRATION_AGE
        return None if too_old else self._calibration


def _choose_topic(path: Path, bag: _Bag, topic: str | None) -> str:
    """The asked image topic or the only one; raw is preferred to the same image compressed, pictures to depth."""
    counts: dict[str, int] = {}
    for channel in bag.pictures():
        counts[channel.topic] = counts.get(channel.topic, 0) + channel.count
    if topic is not None:
        topic = topic if topic.startswith('/') else f'/{topic}'
        if topic not in counts:
            raise SequenceError(f'{path}: no images on {topic}; image topics: {_listed(counts)}{_others(bag)}')
        return topic
    candidates = [x for x in counts if not (x.endswith('/compressed') and x.removesuffix('/compressed') in counts)]
    if len(candidates) > 1:
        depth = {x for x in candidates if _is_depth(bag, x)}
        if len(depth) < len(candidates):
            candidates = [x for x in candidates if x not in depth]
    if len(candidates) != 1:
        what = 'several image topics, choose one' if candidates else 'no images; image topics'
        raise SequenceError(f'{path}: {what}: {_listed(counts)}{_others(bag)}')
    return candidates[0]


def _listed(counts: dict[str, int]) -> str:
    return ', '.join(f'{name} ({counts[name]})' for name in sorted(counts)) or 'none'


def _others(bag: _Bag) -> str:
    """What else there is that a person would take for images."""
    found = []
    for channel in bag.channels:
        what = 'video packets' if any(part in channel.kind for part in VIDEO) else ''
        if channel.topic.endswith('/compressedDepth'):
            what = 'depth'
        elif channel.kind.endswith(('Image', 'CompressedImage')) and channel.encoding not in ('cdr', 'ros1'):
            what = f'images in {channel.encoding}'
        if what:
            found.append(f'{channel.topic} ({what}, {channel.kind})')
    return f'; not read: {", ".join(sorted(set(found)))}' if found else ''


def _is_depth(bag: _Bag, topic: str) -> bool:
    """Whether the first image of a topic has the encoding of depth."""
    channels = [x for x in bag.pictures() if x.topic == topic and x.kind == IMAGE]
    first = next(bag.messages(channels, lambda _: None), None)
    if first is None:
        return False
    try:
        return bag.decode(first).encoding in DEPTH
    except DamagedError:
        return False


def _refuse_video(path: Path, bag: _Bag, images: Sequence[Channel]) -> None:
    """Drivers send packets of videos as CompressedImage, too. Raises SequenceError."""
    first = next(bag.messages([x for x in images if x.kind == COMPRESSED], lambda _: None), None)
    try:
        name = '' if first is None else str(bag.decode(first).format)
    except DamagedError:
        return  # others may be whole
    if re.search(r'h\.?26[45]|hevc|av1|vp[89]', name, re.IGNORECASE):
        raise SequenceError(
            f'{path}: the images of {images[0].topic} are packets of a video ({name}), which are not read'
        )


def _camera_info_topic(image_topic: str, channels: Iterable[Channel]) -> str:
    """The sibling of the image's base topic, as image_transport has it: /a/image_raw/compressed -> /a/camera_info.

    Where there is none, the one below the image topic.
    """
    base = image_topic.removesuffix('/compressed')
    sibling, below = f'{base.rpartition("/")[0]}/camera_info', f'{base}/camera_info'
    topics = {channel.topic for channel in channels if channel.kind == CAMERA_INFO}
    return below if below in topics and sibling not in topics else sibling
