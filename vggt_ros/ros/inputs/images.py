"""Images: sensor_msgs/Image and CompressedImage -> RGB for the network or depth, and numpy -> Image for publishing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from vggt_ros.camera import MAX_PIXELS, image_size
from vggt_ros.declared import declared
from vggt_ros.files.headers import JPEG, Header, is_cut_off, is_known, read_header
from vggt_ros.ros import compat

DENSEST = 8 * 1032  # pixels in a byte of a file: deflate makes one of 1032, with eight pixels each
# Divisor of a jpeg's sides -> OpenCV's flags for a grey and a colour picture, the largest first.
REDUCED = {
    8: (cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_COLOR_8),
    4: (cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_COLOR_4),
    2: (cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_COLOR_2),
}

# Encoding -> (bytes per value, channels, the 8-bit encoding the decoder gets). The untyped OpenCV encodings are
# read as cv_bridge writes them: 1 channel is grey, 3 are BGR. yuv422 is the old name of uyvy, yuv422_yuy2 of yuyv;
# the decoders of every distribution know the old ones.
Encodings = Mapping[str, tuple[int, int, str]]
ENCODINGS: Encodings = {
    **{name: (1, len(name) - 1, name) for name in ('rgb8', 'bgr8', 'rgba8', 'bgra8')},
    **{f'{name}16': (2, len(name), f'{name}8') for name in ('rgb', 'bgr', 'rgba', 'bgra')},
    'mono8': (1, 1, 'mono8'),
    'mono16': (2, 1, 'mono8'),
    **{
        f'bayer_{order}{8 * size}': (size, 1, f'bayer_{order}8')
        for order in ('rggb', 'bggr', 'gbrg', 'grbg')
        for size in (1, 2)
    },
    **{
        f'{8 * size}UC{channels}': (size, channels, name)
        for size in (1, 2)
        for channels, name in ((1, 'mono8'), (3, 'bgr8'), (4, 'bgra8'))
    },
    'yuv422': (1, 2, 'yuv422'),
    'uyvy': (1, 2, 'yuv422'),
    'yuv422_yuy2': (1, 2, 'yuv422_yuy2'),
    'yuyv': (1, 2, 'yuv422_yuy2'),
}

# Encodings of planes: luma, then chroma of half the size, -> OpenCV's conversion. step: of a row of luma.
PLANES = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}

# Depth images (REP 118), likewise: uint16 millimetres, 0 = unknown, or float32 metres, NaN = unknown.
DEPTH_ENCODINGS: Encodings = {'16UC1': (2, 1, ''), '32FC1': (4, 1, '')}


class ImageError(ValueError):
    """An image message that cannot be decoded; the message says what is wrong and what was expected."""


class Picture(NamedTuple):
    """image: (h, w, 3) uint8 RGB, contiguous and owned by who asked. source: (width, height) of what it shows."""

    image: np.ndarray
    source: tuple[int, int]


def to_rgb(message: Any, bits: int = 16) -> np.ndarray:
    """:func:`to_picture` of the image's own size: (H, W, 3) uint8 RGB."""
    return to_picture(message, bits).image


def to_picture(message: Any, bits: int = 16, longest: int = MAX_PIXELS) -> Picture:
    """sensor_msgs/Image or CompressedImage -> its picture, halved until no side is longer than ``longest``.

    message: any object with the message's fields; a field ``format`` makes it a CompressedImage (the file of a jpeg,
    png, webp, tiff or bmp). bits: significant bits of 16-bit encodings. A sample v becomes v >> (bits - 8), saturated
    at 255: the same factor for every image, unlike a stretch to the image's own range, which would flicker. Cameras
    that deliver 10 or 12 bits in 16 need 10 or 12 here, else their pictures are nearly black.

    Rows may be padded (step), 16-bit samples of either byte order. A pixel of a smaller picture is the mean of those
    that it covers; a jpeg is decoded small where its sides can be halved. Raises ImageError, and nothing else on
    whatever a message may hold.
    """
    if not 8 <= bits <= 16:
        raise ValueError(f'{bits} significant bits: a 16-bit image has 8 to 16')
    with declared(ImageError, 'the image cannot be decoded'):
        if hasattr(message, 'format'):
            pixels, encoding, source = _decompress(message, longest)
        elif message.encoding.lower() in PLANES:
            pixels, encoding = _planes(message), 'rgb8'
            source = image_size(pixels)
        else:
            encoding = _named(message.encoding)
            pixels = _pixels(message, encoding, ENCODINGS)
            source = image_size(pixels)
        return Picture(_decode(pixels, encoding, bits, _halved(source, longest)), source)


def to_depth(message: Any) -> np.ndarray:
    """sensor_msgs/Image of encoding 16UC1 (mm) or 32FC1 (m) -> (H, W) float32 metres, owned by the caller.

    What is not known stays what it was: 0 in 16UC1, NaN (or infinite, beyond the sensor's range) in 32FC1.
    Rows may be padded (step), samples of either byte order. Raises ImageError, and nothing else.
    """
    with declared(ImageError, 'the depth image cannot be decoded'):
        depth = _pixels(message, message.encoding, DEPTH_ENCODINGS)[..., 0]
        return depth.copy() if depth.dtype == np.float32 else depth / np.float32(1000)


def _named(encoding: str) -> str:
    """As ROS writes it: some write RGB8."""
    return encoding.lower() if encoding.lower() in ENCODINGS else encoding


def _planes(message: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of planes."""
    encoding, data = message.encoding, _bytes(message.data)
    height, width, step = int(message.height), int(message.width), int(message.step)
    _check_size(width, height)
    if height % 2 or width % 2:
        raise ImageError(f'{encoding} image of {width}x{height} pixels: its colours are those of 2x2 pixels')
    rows = height * 3 // 2
    if step < width or len(data) != step * rows:
        raise ImageError(
            f'data of {len(data)} bytes with step {step}: expected {width * rows} with step {width},'
            f' {width}x{height} pixels of {encoding}'
        )
    planes = np.ascontiguousarray(data.reshape(rows, step)[:, :width])
    return np.asarray(cv2.cvtColor(planes, PLANES[encoding.lower()]))


def _pixels(message: Any, encoding: str, encodings: Encodings) -> np.ndarray:
    """(H, W, C) of the message's samples, contiguous, in the machine's byte order."""
    data = _bytes(message.data)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if encoding not in encodings:
        depth = ': a depth image is no picture' if encoding == '32FC1' else ''
        known = ', '.join((*encodings, *(PLANES if encodings is ENCODINGS else ())))
        raise ImageError(f'encoding {message.encoding!r} is not supported{depth}; supported: {known}')
    if height < 1 or width < 1:
        raise ImageError(f'image of {width}x{height} pixels is empty')
    size, channels, target = encodings[encoding]
    if target.startswith('yuv') and width % 2:
        raise ImageError(f'{encoding} image is {width} pixels wide; its pixels come in pairs')
    row, length = width * size * channels, len(data)
    fitting = _fitting(encoding, length, height * width, encodings)
    if step < row:
        raise ImageError(f'step {step} is less than {row} bytes, {width} pixels of {encoding}{fitting}')
    if length != step * height:
        what = 'cut off' if length < step * height else 'too long'
        raise ImageError(f'data is {what}: {length} bytes, expected {step * height}, {height} rows of {step}{fitting}')
    if fitting and not _is_padded(step, row):
        raise ImageError(f'step {step} is not that of {width} pixels of {encoding}, {row} bytes{fitting}')
    _check_size(width, height)
    dtype = np.dtype(f'{">" if message.is_bigendian else "<"}{"f" if encoding == "32FC1" else "u"}{size}')
    strides = (step, size * channels, size)
    view = np.ndarray((height, width, channels), dtype, data, 0, strides)
    return np.ascontiguousarray(view, dtype.newbyteorder('='))


def _is_padded(step: int, row: int) -> bool:
    """Whether alignment would make rows of ``row`` bytes this long, padding and all."""
    return step in {-(-row // alignment) * alignment for alignment in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}


def _fitting(encoding: str, length: int, pixels: int, encodings: Encodings) -> str:
    """'; fits ...': the encodings that need exactly as many bytes as there are, when the message's own does not."""
    per_pixel, rest = divmod(length, pixels)
    size, channels, _ = encodings[encoding]
    names = [name for name, (size, channels, _) in encodings.items() if rest == 0 and size * channels == per_pixel]
    return f'; the data fits {", ".join(names)}' if names and per_pixel != size * channels else ''


def _bytes(data: Any) -> np.ndarray:
    """(N,) uint8 of bytes, an array of them or anything else that lies in memory as they do."""
    return np.frombuffer(data, np.uint8) if len(data) else np.zeros(0, np.uint8)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f'image of {width}x{height} pixels is empty')
    if width * height > MAX_PIXELS:
        raise ImageError(f'image of {width}x{height} pixels is larger than {MAX_PIXELS // 10**6} megapixels')


def _halved(source: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) of the picture: the source's, halved as often as it takes."""
    factor = 1
    while max(source) > longest * factor:
        factor *= 2
    return max(1, round(source[0] / factor)), max(1, round(source[1] / factor))


def _decompress(message: Any, longest: int) -> tuple[np.ndarray, str, tuple[int, int]]:
    """(h, w, C) samples of a CompressedImage, their encoding, and the size of the image, which may be larger."""
    name, data = message.format, _bytes(message.data)
    if 'compressedDepth' in name:
        raise ImageError(f'format {name!r} is a depth image, not a picture')
    whole = data.tobytes()
    if not is_known(whole):
        begin = whole[:8].hex(' ') or 'nothing'
        raise ImageError(f'{len(data)} bytes of format {name!r} start with {begin}: no jpeg, png, webp, tiff or bmp')
    if whole.startswith(JPEG) and is_cut_off(whole):  # OpenCV may fill in what is missing
        raise ImageError(f'jpeg of {len(data)} bytes is cut off: it has no end marker')
    broken = ImageError(f'{len(data)} bytes of format {name!r} cannot be decoded: broken or cut off')
    header = read_header(whole)
    if header is None:
        raise broken
    _check_size(header.width, header.height)
    if header.width * header.height > DENSEST * len(data):
        raise ImageError(f'image of {header.width}x{header.height} pixels cannot be in {len(data)} bytes: broken')
    source = header.width, header.height
    # image_transport compresses a Bayer mosaic as it is and names it: 'bayer_rggb8; png compressed '.
    mosaic = name.partition(';')[0].strip()
    mosaic = mosaic if mosaic in ENCODINGS and mosaic.startswith('bayer') else ''
    factor, flags = _reduction(header, _halved(source, longest), mosaic)
    pixels = cv2.imdecode(data, flags)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise broken
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if image_size(pixels) != (source[0] // factor, source[1] // factor):
        raise broken
    bits, channels = 8 * pixels.itemsize, pixels.shape[2]
    if channels == 1 and mosaic.endswith(str(bits)):
        return pixels, mosaic, source
    names = {1: 'mono', 3: 'bgr', 4: 'bgra'}
    if channels not in names:
        raise ImageError(f'a picture of {channels} channels is not supported; supported: 1, 3, 4')
    return pixels, f'{names[channels]}{bits}', source


def _reduction(header: Header, picture: tuple[int, int], mosaic: str) -> tuple[int, int]:
    """By what a jpeg's sides are divided as it is decoded, and OpenCV's flags for it; 1: as it is, whatever it is.

    libjpeg takes the mean of 2 x 2, 4 x 4 or 8 x 8 pixels for a small part of what they cost one by one.
    """
    for factor, (grey, colour) in REDUCED.items():
        fits = header.width % factor == 0 and header.height % factor == 0 and header.width >= factor * picture[0]
        if fits and header.channels in (1, 3) and not (mosaic and header.channels == 1):
            return factor, (grey if header.channels == 1 else colour) | cv2.IMREAD_IGNORE_ORIENTATION
    return 1, cv2.IMREAD_UNCHANGED


def _decode(pixels: np.ndarray, encoding: str, bits: int, picture: tuple[int, int]) -> np.ndarray:
    """(h, w, C) samples -> (h, w, 3) uint8 RGB of the picture's size."""
    target = ENCODINGS[encoding][2]
    mixed = target.startswith(('bayer', 'yuv'))  # one pixel alone has no colour
    small = pixels if mixed else _resized(pixels, picture)
    if small.dtype == np.uint16:
        small = np.minimum(small >> (bits - 8), 255).astype(np.uint8)
    if target == 'rgb8':
        return small.copy() if small is pixels else small
    return _resized(np.ascontiguousarray(compat.decode(small, target)), picture)


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image_size(pixels) == size:
        return pixels
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return small.reshape(size[1], size[0], -1)
