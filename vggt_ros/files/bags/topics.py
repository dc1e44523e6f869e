"""Which topic of a bag is the camera's, and what belongs to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vggt_ros.files.bags.open_bag import CAMERA_INFO, COMPRESSED, IMAGE, OpenBag
from vggt_ros.files.bags.packets import DEFINITIONS, codec_of, encoding_of
from vggt_ros.files.bags.storage import Channel
from vggt_ros.files.errors import DamagedError, SequenceError

DEPTH = ('16UC1', '32FC1')  # encodings that are depth where there are pictures, too
VIDEO = ('FFMPEGPacket', 'theora', 'CompressedVideo')  # parts of the names of messages that hold packets of a video
TRANSPORTS = ('/compressed', '/ffmpeg', '/foxglove')  # what image_transport puts behind a topic, the better first


def choose_topic(path: Path, bag: OpenBag, topic: str | None) -> str:
    """The asked image topic or the only one; raw is preferred to the same image compressed, pictures to depth."""
    counts: dict[str, int] = {}
    for channel in bag.pictures():
        counts[channel.topic] = counts.get(channel.topic, 0) + channel.count
    if topic is not None:
        topic = topic if topic.startswith('/') else f'/{topic}'
        if topic not in counts:
            raise SequenceError(f'{path}: no images on {topic}; image topics: {_listed(counts)}{_others(bag)}')
        return topic
    candidates = [x for x in counts if not any(y in counts for y in _better(x))]
    if len(candidates) > 1:
        depth = {x for x in candidates if _is_depth(bag, x)}
        if len(depth) < len(candidates):
            candidates = [x for x in candidates if x not in depth]
    if len(candidates) != 1:
        what = 'several image topics, choose one' if candidates else 'no images; image topics'
        raise SequenceError(f'{path}: {what}: {_listed(counts)}{_others(bag)}')
    return candidates[0]


def _better(topic: str) -> list[str]:
    """Topics of the same images that have lost less."""
    for place, transport in enumerate(TRANSPORTS):
        if topic.endswith(transport):
            base = topic.removesuffix(transport)
            return [base, *(base + other for other in TRANSPORTS[:place])]
    return []


def _listed(counts: dict[str, int]) -> str:
    return ', '.join(f'{name} ({counts[name]})' for name in sorted(counts)) or 'none'


def _others(bag: OpenBag) -> str:
    """What else there is that a person would take for images."""
    found = []
    for channel in bag.channels:
        if channel.kind in DEFINITIONS and channel.encoding in ('cdr', 'ros1'):
            continue
        what = 'video packets' if any(part in channel.kind for part in VIDEO) else ''
        if channel.topic.endswith('/compressedDepth'):
            what = 'depth'
        elif channel.kind.endswith(('Image', 'CompressedImage')) and channel.encoding not in ('cdr', 'ros1'):
            what = f'images in {channel.encoding}'
        if what:
            found.append(f'{channel.topic} ({what}, {channel.kind})')
    return f'; not read: {", ".join(sorted(set(found)))}' if found else ''


def _is_depth(bag: OpenBag, topic: str) -> bool:
    """Whether the first image of a topic has the encoding of depth."""
    channels = [x for x in bag.pictures() if x.topic == topic and x.kind == IMAGE]
    first = next(bag.messages(channels, lambda _: None), None)
    if first is None:
        return False
    try:
        return bag.decode(first).encoding in DEPTH
    except DamagedError:
        return False


def choose_codec(path: Path, bag: OpenBag, images: Sequence[Channel]) -> str | None:
    """Of the video whose packets the images are, None where they are pictures; drivers send such packets as
    CompressedImage, too. Raises SequenceError where nothing can decode them."""
    lost: list[str] = []
    for stored in bag.messages([x for x in images if x.kind != IMAGE], lost.append):
        try:
            message = bag.decode(stored)
        except DamagedError as error:
            lost.append(str(error))
            continue
        name = encoding_of(message)
        codec = codec_of(name)
        return codec if stored.channel.kind != COMPRESSED or not re.search('jpe?g|png', name, re.IGNORECASE) else None
    if any(x.kind in DEFINITIONS for x in images):
        raise SequenceError(
            f'{path}: no packet of {images[0].topic} can be read: {lost[0] if lost else "there is none"}'
        )
    return None


def camera_info_topic(image_topic: str, channels: Iterable[Channel]) -> str:
    """The sibling of the image's base topic, as image_transport has it: /a/image_raw/compressed -> /a/camera_info.

    Where there is none, the one below the image topic.
    """
    base = next((image_topic.removesuffix(x) for x in TRANSPORTS if image_topic.endswith(x)), image_topic)
    sibling, below = f'{base.rpartition("/")[0]}/camera_info', f'{base}/camera_info'
    topics = {channel.topic for channel in channels if channel.kind == CAMERA_INFO}
    return below if below in topics and sibling not in topics else sibling
