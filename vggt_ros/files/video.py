"""A video file as a sequence of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from vggt_ros.files.bags.names import SUFFIXES
from vggt_ros.files.errors import DamagedError, SequenceError, in_a_line
from vggt_ros.files.sequence import ImageSequence, RawImage, SequenceItem

VIDEO_FPS = 30.0
TIMELESS = {'h264', 'hevc', 'mjpeg', 'm4v', 'mpegvideo'}  # raw streams; FFmpeg numbers their frames at some rate
TEXTS = {'tty', 'bin', 'xbin', 'adf', 'idf'}  # that FFmpeg would draw
INDEXED = {'mov,mp4,m4a,3gp,3g2,mj2', 'avi'}  # with a list of all packets, without those that an edit list leaves out
LASTING = {'matroska,webm', 'flv'}  # whose header has a duration; FFmpeg guesses that of others from what is there
MISSING = 2  # frames that other containers may promise too many
UNCOUNTED, UNTIMED = 3, 0.5  # periods, seconds: what may be missing at the end of a whole video, the longer one
UNREADABLE = f'not a video that FFmpeg can read, nor a bag ({" ".join(SUFFIXES)})'
HELD = 16  # frames that wait for the one that they lean on, at most


class VideoSequence(ImageSequence):
    """A video file that FFmpeg can read, turned as it says.

    Stamps: (n + 1) / fps with ``fps``, else the container's presentation times after a first one of one frame period,
    at the container's rate (30 where it has none). A packet that is damaged costs the frames that need it: those up to
    the next key frame. What a codec without checks makes of wrong bytes nobody can tell.
    """

    def __init__(self, path: Path, fps: float | None, stride: int, limit: int | None) -> None:
        self.kind, self._file = 'video', path
        with self._open() as container:
            stream = _stream(path, container)
            frames, rate = _promised(container, stream), float(stream.average_rate or stream.guessed_rate or 0)
            timeless = container.format.name in TIMELESS or _is_pictures(container)
            tracks = sum(not _is_cover(one) for one in container.streams.video)
            if other := _no_video(container, stream):
                raise SequenceError(f'{path}: {UNREADABLE}: it is {other}')
        super().__init__(path, frames or None, stride, limit)
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
            raise SequenceError(f'{self._file}: {UNREADABLE}: {_reason(error)}') from error

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        with self._open() as container:
            stream = _stream(self._file, container)
            if stream.codec_context.name == 'h264':
                stream.codec_context.thread_count = 1  # of several threads FFmpeg does not always mark what is damaged
            else:
                stream.thread_type = 'AUTO'
            first, size, stamp = None, None, 0
            for index, frame in enumerate(self._frames(container, stream)):
                time = _nanoseconds(frame, stream)
                first, size = time if first is None else first, size or _size(frame)
                shown = index * self._period if self._fps or time is None or first is None else time - first
                # Some containers have no presentation times: then the frames follow one another at the nominal rate.
                stamp = round(self._period + shown) if self._period + shown > stamp else round(stamp + self._period)
                yield partial(self._load, frame, index, stamp, size)

    def _frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Those that are whole; at the end what is missing behind them is counted."""
        whole, read = _Whole(), _Read()
        for packet in self._packets(container, stream, read):
            if packet is not None:
                whole.expect(packet)
            try:
                frames = packet.decode() if packet is not None else stream.decode(None)
            except av.EOFError:
                continue
            except av.FFmpegError as error:
                self._say(f'packet {read.packets - 1} is damaged ({_reason(error)})')
                whole.fail(stream.codec_context.reorder_depth)
                if not isinstance(error, av.InvalidDataError):
                    break  # the file, not what is in it
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    if frame.is_corrupt:
                        self._say(f'the frame at {frame.time or 0:.3f} s is damaged')
                    used, lost = whole.take(frame)
                    self.lost += lost
                    yield from used
        used, lost = whole.finish()
        self.lost += lost
        yield from used
        if self._count_missing(container, stream, read) and not whole.unused:
            self.lost += len(whole.times)  # of the last packets: PyAV does not tell an error behind a frame

    def _packets(self, container: InputContainer, stream: VideoStream, read: _Read) -> Iterator[Packet | None]:
        """Of the stream; None at the end where the container has failed: what is in the decoder is whole."""
        try:
            # All streams: a video whose sound goes on is not cut off.
            for packet in container.demux():
                read.note(packet, packet.stream_index == stream.index)
                if packet.stream_index == stream.index:
                    yield packet
        except av.EOFError:
            yield None
        except av.FFmpegError as error:
            self._say(f'cannot be read behind packet {read.packets - 1} ({_reason(error)})')
            yield None

    def _count_missing(self, container: InputContainer, stream: VideoStream, read: _Read) -> bool:
        """Add what the container promises beyond what was read, if so; those left out by an edit list do not count."""
        if promised := _promised(container, stream):
            allowed = 0 if _has_index(container, stream) or self.damaged else MISSING
            if promised - read.packets > allowed:
                self._say(f'ends after {read.packets} of {promised} frames')
                self.lost += promised - read.packets
                return True
        duration = _duration(container, stream, self._file)
        # Times count from zero or from the first one, as who wrote it saw fit.
        end = read.end - min(read.start, 0.0)
        period = read.period or self._period / 1e9
        if duration - end <= max(UNCOUNTED * period, UNTIMED):
            return False
        self._say(f'ends after {end:.2f} s of {duration:.2f} s')
        self.lost += max(round((duration - end) / period), 1)
        return True

    def _say(self, what: str) -> None:
        self.damaged.append(f'{self._file.name}: {what}')

    def _load(self, frame: VideoFrame, index: int, stamp: int, size: tuple[int, int]) -> SequenceItem:
        """size: (width, height) in pixels of the first frame, which the others must have, too."""
        name = f'{self._file.name} frame {index}'
        width, height = _size(frame)
        if (width, height) != size:
            raise DamagedError(f'{name}: {width}x{height} pixels, the first has {size[0]}x{size[1]}')
        rgb = np.rot90(frame.to_ndarray(format='rgb24'), round(frame.rotation / 90) % 4)
        return SequenceItem(index, name, stamp, RawImage.from_rgb(rgb))


@dataclass
class _Whole:
    """Tells the frames that may be used from those that lean on something damaged.

    broken: what comes leans on something damaged, up to a key frame. doubtful: the next so many frames may have been
    decoded before the damage: a key frame among them does not end it. waiting: frames that lean on the next one, too,
    which is decoded before them and shown behind them. times: of the packets whose frames have not come, in units of
    the stream: a decoder leaves out without a word what it lacks something for. unused: frames lost since the newest
    one that is used; where packets have times (timed), these are counted instead.
    """

    broken: bool = False
    doubtful: int = 0
    waiting: list[VideoFrame] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    unused: int = 0
    timed: bool = False

    def expect(self, packet: Packet) -> None:
        if packet.size and packet.pts is not None and not packet.is_discard:
            self.times.append(packet.pts)
            self.timed = True

    def fail(self, reordered: int) -> None:
        """A frame is damaged; reordered: how many the decoder holds back."""
        self.unused += 1 + len(self.waiting)
        self.broken, self.doubtful, self.waiting = True, reordered, []

    def take(self, frame: VideoFrame) -> tuple[list[VideoFrame], int]:
        """The next one in the order of showing -> (frames to use, how many are lost before these)."""
        doubtful, self.doubtful = self.doubtful > 0, max(self.doubtful - 1, 0)
        if frame.is_corrupt:
            self.fail(self.doubtful)
        elif self.broken and not frame.key_frame:
            self.unused += 1
        elif frame.pict_type == PictureType.B and len(self.waiting) < HELD and not self.broken:
            self.waiting.append(frame)
        else:
            self.broken = self.broken and doubtful
            used, self.waiting = [*self.waiting, frame], []
            return used, sum(map(self._pass, used))
        return [], 0

    def finish(self) -> tuple[list[VideoFrame], int]:
        """As take, of those that still wait."""
        lost = sum(map(self._pass, self.waiting))
        return self.waiting, lost + (len(self.times) if self.timed and self.unused else self.unused)

    def _pass(self, frame: VideoFrame) -> int:
        """Number of frames lost between the one used before and this one."""
        pts = frame.pts
        if pts is None or pts not in self.times:
            self.times = [] if pts is None else [time for time in self.times if time > pts]
            lost, self.unused = self.unused, 0
            return lost
        lost = sum(time < pts for time in self.times) if self.unused else 0
        self.times = [time for time in self.times if time > pts]
        if not self.broken:  # else this one was decoded before the damage, and what is lost is yet to come
            self.unused = 0
        return lost


@dataclass
class _Read:
    """What was read. packets: of the video, to be shown. start, end: seconds, end of any stream."""

    packets: int = 0
    start: float = 0.0
    end: float = 0.0
    _newest: float = 0.0

    def note(self, packet: Packet, of_the_video: bool) -> None:
        if not packet.size or packet.is_discard:
            return
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and packet.time_base:
            begin = float(time * packet.time_base)
            self.start = min(self.start, begin) if self.packets else begin
            self.end = max(self.end, begin + float((packet.duration or 0) * packet.time_base))
            self._newest = max(self._newest, begin) if of_the_video else self._newest
        self.packets += of_the_video

    @property
    def period(self) -> float:
        """Seconds between two frames, on average; 0 where that is not known."""
        return (self._newest - self.start) / (self.packets - 1) if self.packets > 1 else 0.0


def _stream(path: Path, container: InputContainer) -> VideoStream:
    """The first that is no cover picture. Raises SequenceError."""
    for stream in container.streams.video:
        if not _is_cover(stream):
            if stream.codec_context is None:  # whose name nobody knows
                raise SequenceError(f'{path}: {UNREADABLE}: no decoder for it')
            return stream
    raise SequenceError(f'{path}: there is no video in it')


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _is_pictures(container: InputContainer) -> bool:
    """Pictures without a container."""
    return container.format.name.endswith('_pipe') or container.format.name == 'image2'


def _no_video(container: InputContainer, stream: VideoStream) -> str:
    """What it is that FFmpeg takes for a video; nothing for a video. Reads up to two packets."""
    if container.format.name in TEXTS:
        return 'a text'
    if _is_pictures(container) and sum(packet.size > 0 for packet in islice(container.demux(stream), 2)) < 2:
        return 'a single picture'
    return ''


def _has_index(container: InputContainer, stream: VideoStream) -> bool:
    return container.format.name in INDEXED and len(_index(stream)) > 0


def _index(stream: VideoStream) -> Sequence[Any]:
    """The container's list of packets; empty where PyAV is too old to show it."""
    return getattr(stream, 'index_entries', ())


def _promised(container: InputContainer, stream: VideoStream) -> int:
    """How many frames the container has, it says; 0 where it does not. AVI also counts those that were dropped."""
    if _has_index(container, stream):
        return sum(entry.size > 0 and not entry.is_discard for entry in _index(stream))
    return max(stream.frames, 0)


def _duration(container: InputContainer, stream: VideoStream, path: Path) -> float:
    """Seconds that the header says, 0 where it does not or need not be asked."""
    if container.format.name in LASTING:
        return (container.duration or 0) / av.time_base
    if container.format.name == 'avi' and stream.average_rate:
        # An AVI that is cut off has no index; one that is not may end with frames that were dropped.
        with path.open('rb') as file:
            announced = 8 + int.from_bytes(file.read(8)[4:], 'little')
        return float(stream.frames / stream.average_rate) if announced > path.stat().st_size else 0.0
    return 0.0


def _size(frame: VideoFrame) -> tuple[int, int]:
    """(width, height) in pixels, upright."""
    return (frame.height, frame.width) if round(frame.rotation / 90) % 2 else (frame.width, frame.height)


def _nanoseconds(frame: VideoFrame, stream: VideoStream) -> int | None:
    base = frame.time_base or stream.time_base
    return None if frame.pts is None or base is None else round(frame.pts * base * 10**9)


def _reason(error: BaseException) -> str:
    return getattr(error, 'strerror', '') or in_a_line(error)
