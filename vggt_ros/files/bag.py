"""Images of a bag, ROS 1 or ROS 2, read with rosbags: no ROS installation is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.rosbag1 import ReaderError as ReaderError1
from rosbags.rosbag2 import ReaderError as ReaderError2
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from vggt_ros.calibration import Calibration
from vggt_ros.files.sequence import FRAME_ID, EncodedImage, ImageSequence, RawImage, SequenceError, SequenceItem

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
CALIBRATION_AGE = 1_000_000_000
READ_ERRORS = (AnyReaderError, ReaderError1, ReaderError2, SerdeError)


class BagSequence(ImageSequence):
    """The images of one topic in the order of recording, fields and stamps as recorded.

    An image without a stamp of its own (0) gets the time of recording. Each image carries the latest CameraInfo of
    its namespace recorded before it (the first images: the bag's first one); the two need not be synchronised. Once
    a bag's calibration has changed, one that is more than a second older than the image is not used.
    """

    def __init__(self, path: Path, topic: str | None, stride: int, limit: int | None) -> None:
        self._file = _bag_file(path)
        with self._open() as reader:
            self.topic = _choose_topic(path, reader.connections, topic)
            self._info_topic = _camera_info_topic(self.topic)
            images, infos = self._connections(reader)
        super().__init__(path, sum(x.msgcount for x in images), stride, limit)
        info_count = sum(x.msgcount for x in infos)
        if info_count == 0:
            self.notes = (f'no CameraInfo on {self._info_topic}: the camera is uncalibrated',)
        elif info_count != self._count:
            self.notes = (
                f'{info_count} CameraInfo messages for {self._count} images: not synchronised,'
                ' each image takes the latest',
            )

    @contextmanager
    def _open(self) -> Iterator[AnyReader]:
        try:
            with AnyReader([self._file], default_typestore=get_typestore(Stores.LATEST)) as reader:
                yield reader
        except (*READ_ERRORS, FileNotFoundError) as error:
            raise SequenceError(f'{self._file}: not a readable bag: {error}') from error

    def _connections(self, reader: AnyReader) -> tuple[list[Connection], list[Connection]]:
        """Of the images and of their CameraInfo; several publishers may have fed one topic."""
        filled = [x for x in reader.connections if x.msgcount]
        images = [x for x in filled if x.topic == self.topic]
        return images, [x for x in filled if x.topic == self._info_topic and x.msgtype == CAMERA_INFO]

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        with self._open() as reader:
            images, infos = self._connections(reader)
            latest = _LatestCalibration()
            if infos:
                connection, time, raw = next(reader.messages(infos))
                latest.add(time, reader.deserialize(raw, connection.msgtype))
            index = 0
            for connection, time, raw in reader.messages([*images, *infos]):
                if connection.topic == self.topic:
                    yield partial(self._load, reader, connection, index, time, raw, latest.at(time))
                    index += 1
                else:
                    latest.add(time, reader.deserialize(raw, connection.msgtype))

    def _load(
        self,
        reader: AnyReader,
        connection: Connection,
        index: int,
        time: int,
        raw: bytes,
        calibration: Calibration | None,
    ) -> SequenceItem:
        name = f'{self.topic} image {index}'
        try:
            message: Any = reader.deserialize(raw, connection.msgtype)
        except READ_ERRORS as error:
            raise SequenceError(f'{self._file}: {name} is damaged: {error}') from error
        image: RawImage | EncodedImage
        if connection.msgtype == COMPRESSED:
            image = EncodedImage(message.format, message.data)
        else:
            fields = ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')
            image = RawImage(*(getattr(message, field) for field in fields))
        header = message.header
        stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
        return SequenceItem(index, name, stamp or time, image, header.frame_id or FRAME_ID, calibration)


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


def _bag_file(path: Path) -> Path:
    """The bag itself: a folder with metadata.yaml, or the one storage file in a folder without it."""
    if path.is_file() or (path / 'metadata.yaml').is_file():
        return path
    files = [*path.glob('*.mcap'), *path.glob('*.db3')]
    if len(files) > 1:
        raise SequenceError(f'{path}: {len(files)} bag files without metadata.yaml: run "ros2 bag reindex {path}"')
    return files[0]


def _choose_topic(path: Path, connections: list[Connection], topic: str | None) -> str:
    """The asked image topic or the only one; raw is preferred to the same image compressed."""
    counts: dict[str, int] = {}
    for x in connections:
        # compressedDepth travels as CompressedImage, but is no picture.
        if x.msgtype in (IMAGE, COMPRESSED) and not x.topic.endswith('/compressedDepth') and x.msgcount:
            counts[x.topic] = counts.get(x.topic, 0) + x.msgcount
    found = ', '.join(f'{name} ({counts[name]})' for name in sorted(counts)) or 'none'
    if topic is not None:
        if topic not in counts:
            raise SequenceError(f'{path}: no images on {topic}; image topics: {found}')
        return topic
    candidates = [x for x in counts if not (x.endswith('/compressed') and x.removesuffix('/compressed') in counts)]
    if len(candidates) != 1:
        what = 'several image topics, choose one' if candidates else 'no images; image topics'
        raise SequenceError(f'{path}: {what}: {found}')
    return candidates[0]


def _camera_info_topic(image_topic: str) -> str:
    """The sibling of the image's base topic, as image_transport has it: /a/image_raw/compressed -> /a/camera_info."""
    return f'{image_topic.removesuffix("/compressed").rpartition("/")[0]}/camera_info'
