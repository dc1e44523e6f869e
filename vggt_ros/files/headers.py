"""What the file of a picture says of it, read before anybody decodes it."""

from __future__ import annotations

import io
import re
import struct
import warnings
from typing import NamedTuple

from PIL import Image

JPEG, PNG = b'\xff\xd8', b'\x89PNG\r\n\x1a\n'
# Of what image_transport and others also write: whole files, which Pillow can tell apart.
OTHERS = {'WEBP': (b'RIFF',), 'TIFF': (b'II*\0', b'MM\0*'), 'BMP': (b'BM',)}
# ITU-T T.81, table B.1: start of frame (C4, C8 and CC are others), and markers without a segment.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')  # in a scan: no stuffed byte, no fill byte, no restart


class Header(NamedTuple):
    """Of a picture: width and height in pixels, channels (0: not told)."""

    width: int
    height: int
    channels: int


def is_known(data: bytes) -> bool:
    """Whether it begins like a jpeg, png, webp, tiff or bmp file."""
    return data.startswith((JPEG, PNG[:4])) or any(data.startswith(begin) for begin in OTHERS.values())


def read_header(data: bytes) -> Header | None:
    """Of such a file; None where it has none."""
    if data.startswith(PNG) and data[12:16] == b'IHDR' and _ends(data):
        width, height = struct.unpack('>II', data[16:24])
        return Header(width, height, 0)
    if data.startswith(JPEG):
        return _frame(data)
    return None if data.startswith(PNG[:4]) else _by_pillow(data)


def _by_pillow(data: bytes) -> Header | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large pictures: their bound is another's
            with Image.open(io.BytesIO(data), formats=list(OTHERS)) as image:
                return Header(*image.size, 0)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def is_cut_off(data: bytes) -> bool:
    """Whether a jpeg file has no end, by its segments and scans; what follows it (a film, on phones) is not read."""
    place = len(JPEG)
    while place + 2 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _END:
            return False
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _BARE:
            place += 2
        elif place + 4 <= len(data):
            place += 2 + max(2, struct.unpack_from('>H', data, place + 2)[0])
            if marker == _SCAN:
                found = _MARKER.search(data, place)
                place = len(data) if found is None else found.start()
        else:
            break
    return True


def problem_of(data: bytes) -> str:
    """Why the file of a picture cannot be whole, as far as can be told without decoding it; empty when it may be."""
    if not is_known(data):
        return f'{len(data)} bytes that begin with {data[:8].hex(" ") or "nothing"} are no picture'
    if data.startswith(JPEG) and is_cut_off(data):
        return f'the jpeg of {len(data)} bytes is cut off'
    return '' if read_header(data) is not None else f'the picture of {len(data)} bytes is broken'


def _ends(data: bytes) -> bool:
    """Whether the chunks of a png file lead to its end: decoders make room for what a chunk's length promises."""
    place = len(PNG)
    while place + 12 <= len(data):
        if data[place + 4 : place + 8] == b'IEND':
            return True
        place += 12 + struct.unpack_from('>I', data, place)[0]
    return False


def _frame(data: bytes) -> Header | None:
    """The first frame header of a jpeg file, by the lengths of the segments before it."""
    place = len(JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _BARE:
            place += 2
        elif marker in _FRAMES and place + 10 <= len(data):
            height, width, channels = struct.unpack_from('>HHB', data, place + 5)
            return Header(width, height, channels)
        elif marker in (_SCAN, _END):
            return None
        else:
            place += 2 + max(2, struct.unpack_from('>H', data, place + 2)[0])
    return None
