"""One picture file as pixels."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, features

from vggt_ros.files.errors import DamagedError, in_a_line
from vggt_ros.files.headers import JPEG, is_cut_off

HEIC = {'.heic', '.heif'}
BY_PILLOW = HEIC | {'.avif'}  # what OpenCV does not read everywhere
TIFF = (b'II*\0', b'MM\0*')
TO_RGB = {(): cv2.COLOR_GRAY2RGB, (1,): cv2.COLOR_GRAY2RGB, (3,): cv2.COLOR_BGR2RGB, (4,): cv2.COLOR_BGRA2RGB}
DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras
MOST_PIXELS = 200_000_000
DENSEST = 8 * 1032  # pixels in a byte of a file: deflate makes one of 1032, with eight pixels each
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # of EXIF
PNG_BITS = 24  # byte of a PNG file that says how many bits a sample has


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) RGB in the file's own type: uint8, uint16 or float32; turned as its EXIF data say.

    Raises DamagedError.
    """
    data = _bytes(path)
    _check_size(path, data)
    # By what is in it: a suffix may be wrong.
    if data[4:8] == b'ftyp' or path.suffix.lower() in BY_PILLOW:
        return _by_pillow(path, data)
    if data.startswith(JPEG) and is_cut_off(data):
        raise DamagedError(f'{path}: the JPEG file is cut off')
    try:
        # OpenCV makes no colours of grey decimal numbers.
        flags = cv2.IMREAD_UNCHANGED if data.startswith(TIFF) else cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if bgr is None or bgr.shape[2:] not in TO_RGB:
            raise DamagedError(f'{path}: cannot be read as a picture (broken or cut off?)')
        if bgr.dtype not in (np.uint8, np.uint16):
            bgr = bgr.astype(np.float32)
        return cv2.cvtColor(bgr, TO_RGB[bgr.shape[2:]])
    except cv2.error as error:
        raise DamagedError(f'{path}: cannot be read as a picture ({error.err})') from None


def _by_pillow(path: Path, data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises DamagedError."""
    remedy = ''
    if path.suffix.lower() in HEIC or data[8:12] in (b'heic', b'heix', b'mif1', b'hevc'):
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            remedy = ': pip install pillow-heif, or convert it to jpg'
        else:
            register_heif_opener()
    elif not features.check('avif'):
        remedy = ': needs Pillow 11.3 or later, or convert it to jpg'
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(ImageOps.exif_transpose(image).convert('RGB'))
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise DamagedError(f'{path}: cannot be read as a picture{remedy or f" ({in_a_line(error)})"}') from error


def read_depth_picture(path: Path) -> np.ndarray | None:
    """(H, W) uint16 as it is in the file; None when it is a picture of another kind. Raises DamagedError."""
    data = _bytes(path)
    _check_size(path, data)
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise DamagedError(f'{path}: cannot be read as a picture (broken or cut off?)')
    return raw if raw.dtype == np.uint16 and raw.ndim == 2 else None


class _Header(NamedTuple):
    """What a file says of its picture. size: (width, height) as stored. turn: EXIF orientation, 1 where it has none."""

    size: tuple[int, int]
    format: str
    turn: int


def _header(data: bytes) -> _Header | None:
    """None where Pillow does not know the format: what reads it may, or says what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large pictures, which are welcome, and of odd entries
            with Image.open(io.BytesIO(data)) as image:
                return _Header(image.size, image.format or '', image.getexif().get(ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _check_size(path: Path, data: bytes) -> None:
    """Refuse what promises more pixels than there can be, before anybody makes room for them. Raises DamagedError."""
    if (header := _header(data)) is None:
        return
    width, height = header.size
    if width * height > MOST_PIXELS or width * height > DENSEST * len(data):
        raise DamagedError(f'{path}: {width}x{height} pixels cannot be in {len(data)} bytes, or are too many')


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name in a list that can be none
        raise DamagedError(f'{path}: {getattr(error, "strerror", None) or error}') from error
    if not data:
        raise DamagedError(f'{path}: the file is empty')
    return data


class Sample(NamedTuple):
    """What has to be known of a picture before others are read.

    size: (width, height). largest: finite value in it; 255 where it has 8 bits.
    """

    size: tuple[int, int]
    dtype: np.dtype
    largest: float

    @classmethod
    def of(cls, path: Path) -> Sample:
        """Of a file, of which no more is decoded than needed. Raises DamagedError."""
        size = _size_of_eight_bits(_bytes(path))
        if size is not None:
            return cls(size, np.dtype(np.uint8), 255.0)
        rgb = read_picture(path)
        finite = rgb[np.isfinite(rgb)] if rgb.dtype == np.float32 else rgb
        return cls((rgb.shape[1], rgb.shape[0]), rgb.dtype, float(finite.max(initial=0)))


def _size_of_eight_bits(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG or PNG file of 8 bits as :func:`read_picture` gives it; None when it must be read."""
    header = _header(data)
    if header is not None and header.format == 'JPEG':
        return header.size[::-1] if header.turn in LYING else header.size
    if header is not None and header.format == 'PNG' and header.turn == 1 and data[PNG_BITS] <= 8:
        return header.size
    return None


class Stretch:
    """From pictures of any type to 8 bits, the same for all of a sequence.

    uint8 stays. uint16: as many bits as cameras have and the largest value of the samples needs. float32: 0 is black,
    and the largest value of the samples white, where that is above 1. note: what was done, empty where nothing was.
    """

    def __init__(self, samples: list[Sample]) -> None:
        self._gain, self.note = 1.0, ''
        kinds = {sample.dtype for sample in samples}
        if np.dtype(np.float32) in kinds:
            white = max(1.0, *(sample.largest for sample in samples))
            self._gain = 255 / white
            self.note = f'pictures of decimal numbers: 0 is taken as black, {white:g} as white'
        elif np.dtype(np.uint16) in kinds:
            largest = max(int(sample.largest) for sample in samples)
            bits = next(bits for bits in DEPTHS if largest < 2**bits)
            self._gain = 255 / (2**bits - 1)
            self.note = f'16-bit pictures with values to {largest}: taken as {bits} bits'

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W, 3) of any of the types -> uint8."""
        if rgb.dtype == np.uint8:
            return rgb
        return np.clip(np.nan_to_num(rgb.astype(np.float32)) * self._gain + 0.5, 0, 255).astype(np.uint8)
