"""A video file as a sequence of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vggt_ros.files.bags.names import SUFFIXES
from vggt_ros.files.errors import SequenceError, in_a_line
from vggt_ros.files.sequence import ImageSequence, RawImage, SequenceItem

VIDEO_FPS = 30.0
TIMELESS = {'h264', 'hevc', 'mjpeg', 'm4v', 'mpegvideo'}  # raw streams; FFmpeg numbers their frames at some rate
MISSING = 2  # frames that a container may promise too many: some count what an edit list leaves out


class VideoSequence(ImageSequence):
    """A video file that FFmpeg can read, turned as it says.

    Stamps: (n + 1) / fps with ``fps``, else the container's presentation times after a first one of one frame period,
    at the container's rate (30 where it has none). A packet that is damaged costs the frames that need it.
    """

    def __init__(self, path: Path, fps: float | None, stride: int, limit: int | None) -> None:
        self.kind, self._file = 'video', path
        with self._open() as container:
            stream = _stream(path, container)
            frames, rate = stream.frames, float(stream.average_rate or stream.guessed_rate or 0)
            timeless = container.format.name in TIMELESS
            tracks = sum(not _is_cover(one) for one in container.streams.video)
        super().__init__(path, frames if frames > 0 else None, stride, limit)
        if timeless and not fps:
            self.notes += (f'the video has no times: {rate or VIDEO_FPS:g} pictures per second; fps says otherwise',)
        if tracks > 1:
            self.notes += (f'{tracks} video tracks: the first is taken',)
        self._fps, self._period = fps, 1e9 / (fps or (rate if rate > 0 else VIDEO_FPS))

    def _open(self) -> InputContainer:
        try:
            # As an address of a file: a name may begin like one of a network.
            return av.open(f'file:{self._file.absolute()}')
        except (av.FFmpegError, OSError, ValueError) as error:
            words = f'not a video that FFmpeg can read, nor a bag ({" ".join(SUFFIXES)})'
            raise SequenceError(f'{self._file}: {words}: {_reason(error)}') from error

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        with self._open() as container:
            stream = _stream(self._file, container)
            stream.thread_type = 'AUTO'
            first, stamp, index = None, 0, 0
            for frame in self._frames(container, stream):
                time = _nanoseconds(frame, stream)
                first = time if first is None else first
                shown = index * self._period if self._fps or time is None or first is None else time - first
                # Some containers have no presentation times: then the frames follow one another at the nominal rate.
                stamp = round(self._period + shown) if self._period + shown > stamp else round(stamp + self._period)
                yield partial(self._load, frame, index, stamp)
                index += 1
            missing = (self._count or 0) - index
            if missing > (0 if self.damaged else MISSING):
                self.lost += missing
                if not self.damaged:
                    self.damaged.append(f'{self._file.name} ends after {index} of {self._count} frames')

    def _frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        packets = container.demux(stream)
        number = 0
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                return
            except av.EOFError:
                return
            except av.FFmpegError as error:
                self.damaged.append(f'{self._file.name}: packet {number} is damaged ({_reason(error)})')
                if not isinstance(error, av.InvalidDataError):
                    return  # the file, not what is in it
                frames = []
            number += 1
            for frame in frames:
                if frame.is_corrupt:
                    self.damaged.append(f'{self._file.name}: the frame at {frame.time or 0:.3f} s is damaged')
                elif isinstance(frame, VideoFrame):
                    yield frame

    def _load(self, frame: VideoFrame, index: int, stamp: int) -> SequenceItem:
        rgb = np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90) % 4)
        return SequenceItem(index, f'{self._file.name} frame {index}', stamp, RawImage.from_rgb(rgb))


def _stream(path: Path, container: InputContainer) -> VideoStream:
    """The first that is no cover picture. Raises SequenceError."""
    for stream in container.streams.video:
        if not _is_cover(stream):
            return stream
    raise SequenceError(f'{path}: there is no video in it')


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _nanoseconds(frame: VideoFrame, stream: VideoStream) -> int | None:
    base = frame.time_base or stream.time_base
    return None if frame.pts is None or base is None else round(frame.pts * base * 10**9)


def _reason(error: BaseException) -> str:
    return getattr(error, 'strerror', '') or in_a_line(error)
