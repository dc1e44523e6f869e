"""Images: sensor_msgs/Image and CompressedImage -> RGB for the network or depth, and numpy -> Image for publishing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vggt_ros.ros import compat

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

# Depth images (REP 118), likewise: uint16 millimetres, 0 = unknown, or float32 metres, NaN = unknown.
DEPTH_ENCODINGS: Encodings = {'16UC1': (2, 1, ''), '32FC1': (4, 1, '')}


class ImageError(ValueError):
    """An image message that cannot be decoded; the message says what is wrong and what was expected."""


def to_rgb(message: Any, bits: int = 16) -> np.ndarray:
    """sensor_msgs/Image or CompressedImage -> (H, W, 3) uint8 RGB, contiguous and owned by the caller.

    message: any object with the message's fields; a field ``format`` makes it a CompressedImage (jpeg or png).
    bits: significant bits of 16-bit encodings. A sample v becomes v >> (bits - 8), saturated at 255: the same factor
    for every image, unlike a stretch to the image's own range, which would flicker. Cameras that deliver 10 or 12
    bits in 16 need 10 or 12 here, else their pictures are nearly black.

    Rows may be padded (step), 16-bit samples of either byte order. Raises ImageError.
    """
    if not 8 <= bits <= 16:
        raise ValueError(f'{bits} significant bits: a 16-bit image has 8 to 16')
    if hasattr(message, 'format'):
        return _decode(*_decompress(message), bits)
    return _decode(_pixels(message, ENCODINGS), message.encoding, bits)


def to_depth(message: Any) -> np.ndarray:
    """sensor_msgs/Image of encoding 16UC1 (mm) or 32FC1 (m) -> (H, W) float32 metres, owned by the caller.

    What is not known stays what it was: 0 in 16UC1, NaN (or infinite, beyond the sensor's range) in 32FC1.
    Rows may be padded (step), samples of either byte order. Raises ImageError.
    """
    depth = _pixels(message, DEPTH_ENCODINGS)[..., 0]
    return depth.copy() if depth.dtype == np.float32 else depth / np.float32(1000)


def _pixels(message: Any, encodings: Encodings) -> np.ndarray:
    """(H, W, C) of the message's samples, contiguous, in the machine's byte order."""
    encoding, height, width, step = message.encoding, message.height, message.width, message.step
    if encoding not in encodings:
        depth = ': a depth image is no picture' if encoding == '32FC1' else ''
        raise ImageError(f'encoding {encoding!r} is not supported{depth}; supported: {", ".join(encodings)}')
    if height < 1 or width < 1:
        raise ImageError(f'image of {width}x{height} pixels is empty')
    size, channels, target = encodings[encoding]
    if target.startswith('yuv') and width % 2:
        raise ImageError(f'{encoding} image is {width} pixels wide; its pixels come in pairs')
    row, length = width * size * channels, len(message.data)
    fitting = _fitting(message, encodings)
    if step < row:
        raise ImageError(f'step {step} is less than {row} bytes, {width} pixels of {encoding}{fitting}')
    if length != step * height:
        what = 'cut off' if length < step * height else 'too long'
        raise ImageError(f'data is {what}: {length} bytes, expected {step * height}, {height} rows of {step}{fitting}')
    if fitting and not _is_padded(step, row):
        raise ImageError(f'step {step} is not that of {width} pixels of {encoding}, {row} bytes{fitting}')
    dtype = np.dtype(f'{">" if message.is_bigendian else "<"}{"f" if encoding == "32FC1" else "u"}{size}')
    strides = (step, size * channels, size)
    view = np.ndarray((height, width, channels), dtype, np.frombuffer(message.data, np.uint8), 0, strides)
    return np.ascontiguousarray(view, dtype.newbyteorder('='))


def _is_padded(step: int, row: int) -> bool:
    """Whether alignment would make rows of ``row`` bytes this long, padding and all."""
    return step in {-(-row // alignment) * alignment for alignment in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}


def _fitting(message: Any, encodings: Encodings) -> str:
    """'; fits ...': the encodings that need exactly as many bytes as there are, when the message's own does not."""
    per_pixel, rest = divmod(len(message.data), message.height * message.width)
    size, channels, _ = encodings[message.encoding]
    names = [name for name, (size, channels, _) in encodings.items() if rest == 0 and size * channels == per_pixel]
    return f'; the data fits {", ".join(names)}' if names and per_pixel != size * channels else ''


def _decompress(message: Any) -> tuple[np.ndarray, str]:
    """(H, W, C) samples of a CompressedImage and their encoding."""
    data = np.frombuffer(message.data, np.uint8)
    if 'compressedDepth' in message.format:
        raise ImageError(f'format {message.format!r} is a depth image, not a picture; expected jpeg or png')
    head = data[:8].tobytes()
    if not head.startswith((b'\xff\xd8', b'\x89PNG')):
        raise ImageError(
            f'{len(data)} bytes of format {message.format!r} start with {head.hex(" ") or "nothing"}: no jpeg or png'
        )
    # A jpeg ends with the marker FFD9, which its scans (after FFDA) cannot contain; OpenCV may fill in what is cut off.
    if head.startswith(b'\xff\xd8') and (whole := data.tobytes()).rfind(b'\xff\xd9') < whole.rfind(b'\xff\xda'):
        raise ImageError(f'jpeg of {len(data)} bytes is cut off: it has no end marker')
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f'{len(data)} bytes of format {message.format!r} cannot be decoded: broken or cut off')
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    bits = 8 * pixels.itemsize
    # image_transport compresses a Bayer mosaic as it is and names it: 'bayer_rggb8; png compressed '.
    source = message.format.partition(';')[0].strip()
    if pixels.shape[2] == 1 and source in ENCODINGS and source.startswith('bayer') and source.endswith(str(bits)):
        return pixels, source
    names = {1: 'mono', 3: 'bgr', 4: 'bgra'}
    return pixels, f'{names[pixels.shape[2]]}{bits}'


def _decode(pixels: np.ndarray, encoding: str, bits: int) -> np.ndarray:
    target = ENCODINGS[encoding][2]
    if pixels.dtype == np.uint16:
        pixels = np.minimum(pixels >> (bits - 8), 255).astype(np.uint8)
    if target == 'rgb8':
        return pixels.copy()
    return np.ascontiguousarray(compat.decode(pixels, target))
