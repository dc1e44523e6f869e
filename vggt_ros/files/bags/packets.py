"""Images that travel as packets of a video: a message holds what its frame has beyond those before it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from vggt_ros.files.errors import DamagedError, in_a_line

FFMPEG = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
FOXGLOVE = 'foxglove_msgs/msg/CompressedVideo'
# Definitions of these messages, the newest first: a bag of SQLite does not always say which it was written with.
_HEAD, _SIZE = 'std_msgs/Header header\n', 'int32 width\nint32 height\n'
DEFINITIONS = {
    FFMPEG: (
        _HEAD
        + 'int32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n',
        _HEAD + _SIZE + 'string encoding\nuint64 pts\nuint8 flags\nuint8[] data\n',
        _HEAD + 'uint8[] data\n' + _SIZE + 'string encoding\nuint64 pts\nuint8 flags\n',
    ),
    FOXGLOVE: ('builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',),
}
# As encoders and standards call them -> FFmpeg's decoder.
_CODECS = {
    r'h\.?264|x264|avc': 'h264',
    r'h\.?265|x265|hevc': 'hevc',
    'av1': 'av1',
    'vp9': 'vp9',
    'vp8': 'vp8',
    'mjpeg': 'mjpeg',
    'mpeg4': 'mpeg4',
}


def codec_of(name: str) -> str | None:
    """What a message says of its encoding, 'h264;yuv420p;bgr8' or 'hevc_nvenc' -> FFmpeg's codec; None: no video."""
    first = name.partition(';')[0].lower()
    return next((codec for pattern, codec in _CODECS.items() if re.search(pattern, first)), None)


def encoding_of(message: Any) -> str:
    """What a FFMPEGPacket, a CompressedVideo or a CompressedImage says of its encoding."""
    return str(message.encoding if hasattr(message, 'encoding') else message.format)


def head_of(message: Any) -> tuple[int, str]:
    """(stamp in nanoseconds, 0 where it has none; frame id) of any message of an image."""
    head = message if hasattr(message, 'timestamp') else message.header
    time = head.timestamp if head is message else head.stamp
    return time.sec * 10**9 + time.nanosec, head.frame_id


@dataclass(frozen=True, eq=False)
class Packet:
    """data: of the video. stamp: nanoseconds, 0 where it has none. frame_id: of the camera."""

    data: bytes
    stamp: int
    frame_id: str

    @classmethod
    def of(cls, message: Any) -> Packet:
        """Of a FFMPEGPacket, a CompressedVideo or a CompressedImage."""
        return cls(bytes(message.data), *head_of(message))


class PacketDecoder:
    """One packet after the other -> frames; each with what came with its packet, for some come later than that."""

    def __init__(self, codec: str) -> None:
        context = av.CodecContext.create(codec, 'r')
        assert isinstance(context, VideoCodecContext)
        self._context = context
        self._context.thread_count = 1  # with more, frames come later
        self._context.options = {'flags': 'low_delay'}
        self._waiting: dict[int, Any] = {}
        self._number = 0

    def feed(self, data: bytes, tag: Any) -> Iterator[tuple[Any, VideoFrame]]:
        """The frames that are complete now. Raises DamagedError for a packet that is none; later ones may be whole."""
        packet = av.Packet(data)
        packet.pts = packet.dts = self._number
        self._waiting[self._number] = tag
        self._number += 1
        try:
            frames = self._context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            del self._waiting[packet.pts]
            raise DamagedError(getattr(error, 'strerror', '') or in_a_line(error)) from error
        return self._told(frames)

    def flush(self) -> Iterator[tuple[Any, VideoFrame]]:
        """Those that still wait."""
        try:
            frames = self._context.decode(None)
        except av.FFmpegError:
            return iter(())
        return self._told(frames)

    def _told(self, frames: list[Any]) -> Iterator[tuple[Any, VideoFrame]]:
        for frame in frames:
            tag = self._waiting.pop(frame.pts, None)
            if tag is not None and isinstance(frame, VideoFrame) and not frame.is_corrupt:
                yield tag, frame


def to_rgb(frame: VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8."""
    return frame.to_ndarray(format='rgb24')
