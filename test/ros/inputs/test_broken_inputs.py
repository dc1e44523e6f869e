"""Messages that are wrong in ways nobody has thought of: nothing but the declared errors comes of them."""

import struct
import zlib
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vggt_ros.calibration import Calibration, Roi
from vggt_ros.camera import MAX_PIXELS
from vggt_ros.rectify import CameraInfoError, Rectifier
from vggt_ros.ros.inputs.images import ENCODINGS, ImageError, to_depth, to_picture, to_rgb

PICTURE = np.random.default_rng(2).integers(0, 256, (24, 32, 3), np.uint8)
ODD = (0, 1, -1, 2**31, 2**32 - 1, 2**63, 1e300, float('nan'), float('inf'), '', b'', None, [], 'rgb8', np.uint32(7))


def raw(encoding):
    size, channels, _ = ENCODINGS.get(encoding, (2 if encoding == '16UC1' else 4, 1, ''))
    step = 32 * size * channels
    fields = {'height': 24, 'width': 32, 'encoding': encoding, 'is_bigendian': 0, 'step': step}
    return SimpleNamespace(**fields, data=np.zeros(24 * step, np.uint8))


def packed(data, name='png'):
    return SimpleNamespace(format=name, data=bytes(data))


def png_header(width, height, depth=8, kind=2):
    """A png file whose header promises so much, with hardly anything in it."""

    def chunk(name, body):
        return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))

    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')


def jpeg_header(width, height):
    data = bytearray(cv2.imencode('.jpg', PICTURE)[1].tobytes())
    frame = data.index(b'\xff\xc0')
    data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


@pytest.mark.parametrize(
    'data', [png_header(100_000, 100_000), png_header(2**31 - 1, 2**31 - 1), png_header(11_000, 10_000),
             png_header(100_000, 100_000, 16, 6), jpeg_header(65_500, 65_500)]
)  # fmt: skip
def test_a_header_that_promises_too_much_is_refused_before_anybody_makes_room(data, monkeypatch):
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(ImageError, match=f'larger than {MAX_PIXELS // 10**6} megapixels'):
        to_rgb(packed(data))


@pytest.mark.parametrize('error', [cv2.error('no'), MemoryError(), OverflowError('x'), KeyError(2), struct.error('y')])
def test_whatever_a_decoder_raises_is_declared(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(cv2, 'imdecode', fail)
    with pytest.raises(ImageError, match=f'cannot be decoded: {type(error).__name__}') as raised:
        to_rgb(packed(png_header(8, 8)))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('field', ['height', 'width', 'step', 'encoding', 'data', 'is_bigendian'])
@pytest.mark.parametrize('value', ODD, ids=repr)
def test_odd_fields(field, value):
    for encoding, read in (('rgb8', to_rgb), ('bayer_rggb16', to_rgb), ('yuyv', to_rgb), ('32FC1', to_depth)):
        sent = raw(encoding)
        setattr(sent, field, value)
        try:
            read(sent)
        except ImageError as error:
            assert '\n' not in str(error)  # noqa: PT017
        else:
            assert field in ('is_bigendian', 'width') or value == 'rgb8'


def test_odd_pictures():
    """Bit depths, channels and formats that files may have and cameras do not."""
    tiff = cv2.imencode('.tiff', PICTURE.astype(np.float32))[1]
    for data in (tiff, png_header(0, 5), jpeg_header(0, 5), b'\xff\xd8', b'\x89PNG'):
        with pytest.raises(ImageError):
            to_rgb(packed(data))
    for name in (None, 7, b'png'):
        with pytest.raises(ImageError):
            to_rgb(packed(cv2.imencode('.png', PICTURE)[1], name))


def mutated(rng, data):
    """Some bytes of the file are others, are missing, or come twice."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place, length = int(rng.integers(len(data))), int(rng.integers(1, 9))
        kind = rng.integers(4)
        if kind == 0:
            data[place : place + length] = rng.bytes(length)
        elif kind == 1:
            del data[place : place + length]
        elif kind == 2:
            data[place:place] = data[place : place + length]
        else:  # near the header, where sizes are
            data[min(len(data) - 1, int(rng.integers(2, 40)))] = int(rng.choice([0, 1, 127, 128, 255]))
    return bytes(data) or b'\0'


def test_mutated_files():
    rng, decoded = np.random.default_rng(11), 0
    files = [cv2.imencode(kind, PICTURE)[1].tobytes() for kind in ('.jpg', '.png')]
    files.append(cv2.imencode('.png', PICTURE.astype(np.uint16) * 257)[1].tobytes())
    files.append(cv2.imencode('.jpg', PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    for turn in range(2000):
        name = str(rng.choice(['jpeg', 'bayer_rggb8; png compressed', 'bayer_rggb8; jpeg compressed mono8']))
        try:
            picture = to_picture(
                packed(mutated(rng, files[turn % len(files)]), name), longest=int(rng.choice([8, 999]))
            )
        except ImageError:
            continue
        decoded += 1
        assert picture.image.ndim == 3
        assert picture.image.dtype == np.uint8
    assert decoded > 100


def test_mutated_messages():
    rng, read = np.random.default_rng(12), 0
    for _ in range(3000):
        depth = rng.random() < 0.3
        encoding = str(rng.choice(['16UC1', '32FC1'] if depth else list(ENCODINGS)))
        sent = raw(encoding)
        for name in rng.choice(['height', 'width', 'step', 'is_bigendian', 'data', 'encoding'], rng.integers(0, 3)):
            value = getattr(sent, name)
            if isinstance(value, int):
                value = int(rng.choice([0, 1, 2, value - 1, value + 1, 2 * value, 2**16, 2**32 - 1]))
            elif name == 'data':
                value = np.frombuffer(rng.bytes(int(rng.choice([0, 1, len(value) - 1, len(value), 9]))), np.uint8)
            else:
                value = str(rng.choice([*ENCODINGS, '32FC1', '', 'rgb\x00']))
            setattr(sent, name, value)
        try:
            result = to_depth(sent) if depth else to_picture(sent, longest=int(rng.choice([8, 999]))).image
        except ImageError:
            continue
        read += 1
        assert result.size
    assert read > 300


def calibration():
    K, d = (230.0, 0.0, 159.5, 0.0, 228.0, 119.5, 0.0, 0.0, 1.0), (-0.3, 0.1, 0.0, 0.001, 0.0)
    return Calibration(320, 240, 'plumb_bob', d, K, p=(*K[:3], 0.0, *K[3:6], 0.0, *K[6:], 0.0))


@pytest.mark.parametrize(
    'changes',
    [
        {'width': 2**32 - 1, 'height': 2**32 - 1},
        {'width': 100_000, 'height': 1001},
        {'width': -5},
        {'k': (1.0,) * 8},
        {'k': ()},
        {'r': (1.0,) * 3},
        {'p': (1.0,) * 9},
        {'k': (1e-9, 0, 0, 0, 1e-9, 0, 0, 0, 1), 'd': (), 'p': (0.0,) * 12},
        {'k': (1e300, 0, 0, 0, 1e300, 0, 0, 0, 1), 'p': (0.0,) * 12},
        {'k': (230.0, 0, 1e9, 0, 230.0, 0, 0, 0, 1), 'p': (0.0,) * 12},
        {'d': (float('inf'),) * 5},
        {'binning_x': 2**32 - 1},
        {'binning_y': 241},
        {'roi': Roi(2**32 - 1, 0, 1, 1)},
        {'roi': Roi(0, 239, 2, 0)},
        {'roi': Roi(-1, 0, 10, 10)},
        {'r': (-1.0, 0, 0, 0, 1, 0, 0, 0, -1)},  # looks backwards: nothing of the image is there
        {'p': (230.0, 0, 9000, 0, 0, 230.0, 9000, 0, 0, 0, 1, 0)},
    ],
)
def test_absurd_camera_info_is_refused(changes):
    with pytest.raises(CameraInfoError) as raised:
        Rectifier(replace(calibration(), **changes))
    assert '\n' not in str(raised.value)


def test_odd_camera_info():
    good = calibration()
    for name in ('width', 'height', 'd', 'k', 'r', 'p', 'binning_x', 'distortion_model', 'roi'):
        for value in ODD:
            message = SimpleNamespace(**{field: getattr(good, field) for field in Calibration.__dataclass_fields__})
            setattr(message, name, value)
            try:
                Rectifier(message)
            except CameraInfoError as error:
                assert '\n' not in str(error)  # noqa: PT017


def test_mutated_camera_info():
    rng, used = np.random.default_rng(13), 0
    image = np.zeros((240, 320, 3), np.uint8)
    for _ in range(400):
        info = replace(calibration(), distortion_model=str(rng.choice(['plumb_bob', 'equidistant', 'fisheye', ''])))
        if info.distortion_model != 'plumb_bob':
            info = replace(info, d=info.d[:4])
        for name in rng.choice(['d', 'k', 'r', 'p'], 2):
            numbers = list(getattr(info, name))
            numbers[rng.integers(len(numbers))] *= float(rng.choice([0, 1, -1, 1.01, 10, 1e4, 1e30, 1e300, 1e-30]))
            numbers[rng.integers(len(numbers))] += float(rng.choice([0, 0, 1e-9, 0.1, 100, -1e5, 1e300]))
            info = replace(info, **{name: tuple(numbers)})
        if rng.random() < 0.3:
            x, y, width, height = (int(x) for x in rng.choice([0, 1, 10, 100, 2**32 - 1], 4))
            info = replace(info, roi=Roi(x, y, height, width, bool(rng.integers(2))), binning_x=int(rng.integers(4)))
        try:
            rectifier = Rectifier(info, picture=(80, 60))
            rectifier(image[:60, :80])
        except CameraInfoError:
            continue
        used += 1
        assert np.isfinite(rectifier.K).all()
    assert used > 30
