"""Images of a bag, ROS 1 or ROS 2, whatever its storage: no ROS installation is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from vggt_ros.calibration import Calibration
from vggt_ros.files.bags.finding import find_files
from vggt_ros.files.bags.open_bag import CAMERA_INFO, COMPRESSED, OpenBag
from vggt_ros.files.bags.packets import Packet, PacketDecoder, head_of, to_rgb
from vggt_ros.files.bags.storage import Channel, Stored
from vggt_ros.files.bags.topics import camera_info_topic, choose_codec, choose_topic
from vggt_ros.files.errors import DamagedError
from vggt_ros.files.headers import problem_of
from vggt_ros.files.layouts.layout import pictures_in
from vggt_ros.files.pace import note_of_pace
from vggt_ros.files.sequence import FRAME_ID, EncodedImage, ImageSequence, RawImage, SequenceItem

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
CALIBRATION_AGE = 1_000_000_000
FIRST = 10  # images whose stamps are looked at before


class BagSequence(ImageSequence):
    """The images of one topic in the order of recording, fields and stamps as recorded.

    An image without a stamp of its own (0) gets the time of recording, and so does each where the first ones all have
    the same. Each image carries the latest CameraInfo of its namespace recorded before it (the first images: the bag's
    first one); the two need not be synchronised. Once a bag's calibration has changed, one that is more than a second
    older than the image is not used. Of what is damaged only that is lost.
    """

    def __init__(self, path: Path, topic: str | None, stride: int, limit: int | None) -> None:
        self.kind, self._files = 'bag', find_files(path)
        with OpenBag(self._files) as bag:
            self.topic = choose_topic(path, bag, topic)
            self._info_topic = camera_info_topic(self.topic, bag.channels)
            images, infos = self._channels(bag)
            self.notes = (*self._files.notes, *bag.notes)
            self._codec = choose_codec(path, bag, images)
            stamps = _first_stamps(bag, images)
        # Some drivers stamp once; the node would take such images for one image sent many times.
        self._stamped = len(set(stamps)) != 1 or len(stamps) == 1
        self.notes += _odd_stamps(stamps)
        if path.is_dir() and (others := pictures_in(path)):
            self.notes += (f'{len(others)} pictures beside the bag are not read: {others[0].name} and the like',)
        self._rectified = '/image_rect' in self.topic
        super().__init__(path, sum(x.count for x in images), stride, limit)
        info_count = sum(x.count for x in infos)
        if info_count == 0:
            self.notes += (f'no CameraInfo on {self._info_topic}: the camera is uncalibrated',)
        elif self._rectified:
            self.notes += ('the images are rectified: of CameraInfo, P counts and no distortion',)
        if info_count not in (0, self._count):
            self.notes += (
                f'{info_count} CameraInfo messages for {self._count} images: not synchronised,'
                ' each image takes the latest',
            )

    def _channels(self, bag: OpenBag) -> tuple[list[Channel], list[Channel]]:
        """Of the images and of their CameraInfo; several publishers may have fed one topic."""
        images = [x for x in bag.pictures() if x.topic == self.topic]
        infos = [x for x in bag.readable() if x.topic == self._info_topic and x.kind == CAMERA_INFO]
        return images, infos

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        with OpenBag(self._files) as bag:
            images, infos = self._channels(bag)
            latest = _LatestCalibration()
            first = next(bag.messages(infos, lambda _: None), None)
            if first is not None:
                self._hear(bag, first, latest)
            index = 0
            decoder = None if self._codec is None else PacketDecoder(self._codec)
            for stored in bag.messages([*images, *infos], self.damaged.append):
                if stored.channel.kind == CAMERA_INFO:
                    self._hear(bag, stored, latest)
                elif decoder is None:
                    yield partial(self._load, bag, stored, index, latest.at(stored.time))
                    index += 1
                else:
                    for load in self._decoded(bag, decoder, stored, latest):
                        yield partial(load, index)
                        index += 1
            if decoder is not None:
                for load in map(self._of_frame, decoder.flush()):
                    yield partial(load, index)
                    index += 1
            self.lost += max(0, (self._count or 0) - index)

    def _hear(self, bag: OpenBag, stored: Stored, latest: _LatestCalibration) -> None:
        try:
            calibration = Calibration.from_message(bag.decode(stored))
            latest.add(stored.time, _of_rectified(calibration) if self._rectified else calibration)
        except DamagedError as error:
            self.damaged.append(f'{self._info_topic}: {error}')

    def _decoded(
        self, bag: OpenBag, decoder: PacketDecoder, stored: Stored, latest: _LatestCalibration
    ) -> Iterator[Callable[[int], SequenceItem]]:
        """What makes the items of the frames that a packet completes, from their numbers."""
        try:
            packet = Packet.of(bag.decode(stored))
            told = self._stamp(packet.stamp, stored), packet.frame_id, latest.at(stored.time)
            frames = decoder.feed(packet.data, told)
        except DamagedError as error:
            self.damaged.append(f'{self.path}: a packet of {self.topic} at {stored.time} is damaged: {error}')
            return
        yield from map(self._of_frame, frames)

    def _stamp(self, own: int, stored: Stored) -> int:
        """Of an image with this stamp of its own."""
        return own if own and self._stamped else stored.time

    def _of_frame(self, found: tuple[tuple[int, str, Calibration | None], Any]) -> Callable[[int], SequenceItem]:
        (stamp, frame_id, calibration), frame = found

        def load(index: int) -> SequenceItem:
            name, image = f'{self.topic} image {index}', RawImage.from_rgb(to_rgb(frame))
            return SequenceItem(index, name, stamp, image, frame_id or FRAME_ID, calibration)

        return load

    def _load(self, bag: OpenBag, stored: Stored, index: int, calibration: Calibration | None) -> SequenceItem:
        name = f'{self.topic} image {index}'
        try:
            message = bag.decode(stored)
        except DamagedError as error:
            raise DamagedError(f'{self.path}: {name} is damaged: {error}') from error
        image: RawImage | EncodedImage
        if stored.channel.kind == COMPRESSED:
            image = EncodedImage(message.format, message.data)
            problem = problem_of(bytes(message.data))
        else:
            fields = ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')
            image = RawImage(*(getattr(message, field) for field in fields))
            length, wanted = len(message.data), message.step * message.height
            problem = f'{length} bytes, wanted are {wanted}' if length < wanted else ''
        if problem:
            raise DamagedError(f'{self.path}: {name} is damaged: {problem}')
        own, frame_id = head_of(message)
        return SequenceItem(index, name, self._stamp(own, stored), image, frame_id or FRAME_ID, calibration)


def _first_stamps(bag: OpenBag, images: Sequence[Channel]) -> list[int]:
    """Nanoseconds, as the images themselves say; without those that say none."""
    stamps = []
    for stored in islice(bag.messages(images, lambda _: None), FIRST):
        with suppress(DamagedError):
            stamps.append(head_of(bag.decode(stored))[0])
    return [stamp for stamp in stamps if stamp]


def _odd_stamps(stamps: Sequence[int]) -> tuple[str, ...]:
    """A note of what is odd about those of the first images."""
    if len(stamps) > 1 and len(set(stamps)) == 1:
        return ('the stamps of the images stand still: times of recording are taken',)
    back = sum(later <= earlier for earlier, later in pairwise(stamps))
    if back:
        return (f'stamps do not increase, {back} times in the first {len(stamps)} images',)
    return note_of_pace(stamps)


def _of_rectified(calibration: Calibration) -> Calibration:
    """Of images that image_proc has rectified, which share the raw image's CameraInfo: K is that of P."""
    p = calibration.p
    k = (*p[:3], *p[4:7], *p[8:11]) if len(p) == 12 and p[0] else calibration.k
    return replace(calibration, d=(), k=k, r=IDENTITY)


class _LatestCalibration:
    """The CameraInfo in force; times are those of the recording, so stamps of 0 do no harm."""

    def __init__(self) -> None:
        self._calibration: Calibration | None = None
        self._time = 0
        self._changed = False

    def add(self, time: int, calibration: Calibration) -> None:
        self._changed |= self._calibration not in (None, calibration)
        self._calibration, self._time = calibration, time

    def at(self, time: int) -> Calibration | None:
        # A calibration that never changed may come from a latched topic, recorded once.
        too_old = self._changed and time - self._time > CALIBRATION_AGE
        return None if too_old else self._calibration
