"""Image messages -> RGB against independently computed truth: encodings x padding x byte order, lies, compression."""

import array
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vggt_ros.ros import compat
from vggt_ros.ros.inputs.images import DEPTH_ENCODINGS, ENCODINGS, ImageError, to_depth, to_rgb
from vggt_ros.ros.messages import fill_image

HEIGHT, WIDTH = 6, 10


DECODERS = {'rosbags': compat.rosbags_decoder, 'cv_bridge': compat.cv_bridge_decoder}
INSTALLED = [name for name in DECODERS if name != 'cv_bridge' or find_spec('cv_bridge')]


@pytest.fixture(params=INSTALLED, autouse=True)
def decoder(request, monkeypatch):
    chosen = DECODERS[request.param]()
    monkeypatch.setattr(compat, '_decoder', lambda: (chosen, request.param))


def test_cv_bridge_is_chosen_where_it_works(monkeypatch):
    monkeypatch.undo()
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed: its decoder is not tested here')
    compat._decoder.cache_clear()
    assert compat.describe().startswith('images are decoded by cv_bridge')


def message(samples, encoding, pad=0, big=False, data_type=bytes):
    """An Image with (H, W[, C]) samples; every row ends in ``pad`` bytes of 0xEE."""
    order = '>' if big else '<'
    rows = [row.astype(row.dtype.newbyteorder(order)).tobytes() + b'\xee' * pad for row in samples]
    data = b''.join(rows)
    return SimpleNamespace(
        height=samples.shape[0],
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=len(rows[0]),
        data=data_type(data) if data_type is not array.array else array.array('B', data),
    )


def mosaic(rgb, order):
    """What a sensor with the colour filter ``order`` (2x2, by rows) sees of (H, W, 3)."""
    out = np.empty(rgb.shape[:2], rgb.dtype)
    for i, colour in enumerate(order):
        out[i // 2 :: 2, i % 2 :: 2] = rgb[i // 2 :: 2, i % 2 :: 2, 'rgb'.index(colour)]
    return out


def yuv_to_rgb(y, u, v):
    """ITU-R BT.601, limited range."""
    y, u, v = 1.164 * (y.astype(float) - 16), u.astype(float) - 128, v.astype(float) - 128
    return np.stack([y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u], -1).clip(0, 255)


def case(encoding):
    """(samples as sent, RGB as wanted, tolerance)."""
    rng = np.random.default_rng(7)
    kind = np.uint16 if encoding.endswith('16') or encoding.startswith('16') else np.uint8
    limit = np.iinfo(kind).max + 1
    rgb = rng.integers(0, limit, (HEIGHT, WIDTH, 4)).astype(kind)
    wanted = (rgb[..., :3] >> 8 if kind == np.uint16 else rgb[..., :3]).astype(np.uint8)
    if encoding.startswith('rgba'):
        return rgb, wanted, 0
    if encoding.startswith('rgb'):
        return rgb[..., :3], wanted, 0
    if encoding.startswith('bgra') or encoding.endswith('UC4'):
        return rgb[..., [2, 1, 0, 3]], wanted, 0
    if encoding.startswith('bgr') or encoding.endswith('UC3'):
        return rgb[..., [2, 1, 0]], wanted, 0
    if encoding.startswith('mono') or encoding.endswith('UC1'):
        return rgb[..., 0], wanted[..., [0, 0, 0]], 0
    if encoding.startswith('bayer'):
        colour = (np.array([200, 100, 30]) * (limit // 256)).astype(kind)
        image = np.broadcast_to(colour, (HEIGHT, WIDTH, 3))
        return mosaic(image, encoding[6:10]), np.broadcast_to(np.uint8([200, 100, 30]), image.shape), 0
    y = rng.integers(16, 236, (HEIGHT, WIDTH), np.uint8)
    chroma = rng.integers(80, 176, (2, HEIGHT, WIDTH // 2), np.uint8).repeat(2, 2)
    interleaved = np.where(np.arange(WIDTH) % 2 == 0, chroma[0], chroma[1])
    pair = (y, interleaved) if encoding in ('yuyv', 'yuv422_yuy2') else (interleaved, y)
    return np.stack(pair, -1), yuv_to_rgb(y, *chroma), 2


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pad', [0, 1, 2, 7])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_padding_and_byte_order(encoding, pad, big):
    samples, wanted, tolerance = case(encoding)
    rgb = to_rgb(message(samples, encoding, pad, big))
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(float) - wanted).max() <= tolerance


def test_the_encodings_a_camera_sends_are_all_there():
    colour = {'rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'mono16', '8UC1', '8UC3', '16UC1'}
    bayer = {f'bayer_{order}{bits}' for order in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)}
    assert colour | bayer | {'yuv422', 'yuv422_yuy2', 'uyvy', 'yuyv'} <= set(ENCODINGS)


@pytest.mark.parametrize('pad', [0, 6])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'NV12'])
def test_planes_of_luma_and_chroma(encoding, pad):
    rng = np.random.default_rng(7)
    y = rng.integers(16, 236, (HEIGHT, WIDTH), np.uint8)
    u, v = rng.integers(80, 176, (2, HEIGHT // 2, WIDTH // 2), np.uint8)
    chroma = np.stack((u, v) if encoding.lower() == 'nv12' else (v, u), -1).reshape(HEIGHT // 2, WIDTH)
    sent = message(np.concatenate([y, chroma]), encoding, pad)
    sent.height = HEIGHT
    wanted = yuv_to_rgb(y, *(plane.repeat(2, 0).repeat(2, 1) for plane in (u, v)))
    rgb = to_rgb(sent)
    assert np.abs(rgb.astype(float) - wanted).max() <= 2
    sent.data = sent.data[:-1]
    with pytest.raises(ImageError, match=rf'expected {WIDTH * HEIGHT * 3 // 2} with step {WIDTH}'):
        to_rgb(sent)
    sent.height -= 1
    with pytest.raises(ImageError, match='2x2 pixels'):
        to_rgb(sent)


def test_encodings_in_capitals():
    samples, wanted, _ = case('bgr8')
    assert (to_rgb(message(samples, 'BGR8')) == wanted).all()
    with pytest.raises(ImageError, match="encoding 'RGB9' is not supported"):
        to_rgb(message(samples, 'RGB9'))


@pytest.mark.parametrize('order', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_ramp_is_interpolated(order):
    y, x = np.mgrid[:16, :20]
    rgb = np.stack([10 + 8 * x, 20 + 6 * y, 200 - 4 * x - 4 * y], -1).astype(np.uint8)
    decoded = to_rgb(message(mosaic(rgb, order), f'bayer_{order}8'))
    # Linear colours are what bilinear demosaicing reproduces, off the border.
    assert np.abs(decoded.astype(int) - rgb)[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize('data_type', [bytes, bytearray, array.array, memoryview])
def test_result_is_a_copy_whatever_holds_the_data(data_type):
    samples = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
    sent = message(samples, 'rgb8', data_type=data_type)
    rgb = to_rgb(sent)
    rgb[:] = 0
    assert np.array_equal(to_rgb(sent), samples)


def test_twelve_bits_in_sixteen():
    samples = np.array([[0, 15, 16, 4095, 4096, 65535]], np.uint16)
    assert to_rgb(message(samples, 'mono16'), bits=12)[0, :, 0].tolist() == [0, 0, 1, 255, 255, 255]
    assert to_rgb(message(samples, 'mono16'))[0, :, 0].tolist() == [0, 0, 0, 15, 16, 255]
    with pytest.raises(ValueError, match='8 to 16'):
        to_rgb(message(samples, 'mono16'), bits=7)


def broken(**changes):
    sent = message(np.zeros((480, 640, 3), np.uint8), 'bgr8')
    for name, value in changes.items():
        setattr(sent, name, value)
    return sent


@pytest.mark.parametrize(
    ('sent', 'complaint'),
    [
        (broken(encoding='rgb9'), r"encoding 'rgb9' is not supported; supported: rgb8, .*bayer_rggb8"),
        (broken(encoding=''), "encoding '' is not supported"),
        (broken(encoding='32FC1'), 'a depth image is no picture'),
        (broken(width=0), '0x480 pixels is empty'),
        (broken(height=0, data=b''), '640x0 pixels is empty'),
        (broken(data=b''), 'cut off: 0 bytes, expected 921600'),
        (broken(data=bytes(921599)), 'cut off: 921599 bytes, expected 921600'),
        (broken(data=bytes(921601)), 'too long: 921601 bytes, expected 921600'),
        (broken(step=0), 'step 0 is less than 1920 bytes'),
        (broken(step=1919), 'step 1919 is less than 1920 bytes'),
        (broken(height=4_000_000_000), 'cut off'),
        # Encodings that lie: the data is of another one.
        (broken(data=bytes(640 * 480), step=640), 'step 640 is less than 1920 .* fits mono8, bayer_rggb8'),
        (broken(encoding='mono8'), 'step 1920 is not that of 640 pixels of mono8, 640 bytes; the data fits rgb8, bgr8'),
        (broken(data=bytes(640 * 480 * 4), step=2560), 'fits rgba8, bgra8'),
        (broken(encoding='mono8', step=640), 'too long: .* fits rgb8, bgr8'),
        (broken(encoding='yuv422', width=639, step=1278, data=bytes(1278 * 480)), 'come in pairs'),
    ],
)
def test_bad_images_are_refused_with_the_reason(sent, complaint):
    with pytest.raises(ImageError, match=complaint):
        to_rgb(sent)


def test_rows_padded_to_an_alignment_are_no_lie():
    samples = np.arange(32, dtype=np.uint8).reshape(4, 8)
    assert np.array_equal(to_rgb(message(samples, 'mono8', pad=8))[..., 0], samples)


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pad', [0, 1, 2, 6])
@pytest.mark.parametrize('encoding', DEPTH_ENCODINGS)
def test_depth_in_metres_whatever_padding_and_byte_order(encoding, pad, big):
    metres = np.random.default_rng(0).integers(0, 9000, (HEIGHT, WIDTH)) / 1000
    metres[0, 0] = 0
    samples = (metres * 1000).round().astype(np.uint16) if encoding == '16UC1' else metres.astype(np.float32)
    depth = to_depth(message(samples, encoding, pad, big))
    assert depth.dtype == np.float32
    assert depth[0, 0] == 0
    np.testing.assert_allclose(depth, metres, rtol=1e-6)


def test_depth_to_the_byte():
    """1.5 m as IEEE 754 and as millimetres, big-endian, written by hand."""
    fields = {'height': 1, 'width': 1, 'is_bigendian': 1}
    for encoding, data in (('32FC1', '3fc00000'), ('16UC1', '05dc')):
        data = bytes.fromhex(data)
        sent = SimpleNamespace(encoding=encoding, step=len(data), data=data, **fields)
        assert to_depth(sent).tolist() == [[1.5]]


def test_depth_keeps_what_is_unknown_and_is_a_copy():
    samples = np.array([[np.nan, np.inf, -np.inf, 0.0, 2.5]], np.float32)
    sent = message(samples, '32FC1', data_type=bytearray)
    depth = to_depth(sent)
    np.testing.assert_array_equal(depth, samples)
    depth[:] = 0
    np.testing.assert_array_equal(to_depth(sent), samples)


def test_bad_depth_images_are_refused_with_the_reason():
    narrow = message(np.zeros((480, 640), np.uint16), '16UC1')
    for changes, complaint in [
        ({'encoding': 'rgb8'}, "encoding 'rgb8' is not supported; supported: 16UC1, 32FC1"),
        ({'encoding': '32FC1'}, 'step 1280 is less than 2560 bytes, 640 pixels of 32FC1; the data fits 16UC1'),
        ({'step': 1279}, 'step 1279 is less than 1280 bytes'),
        ({'data': bytes(100)}, 'cut off: 100 bytes, expected 614400'),
        ({'width': 0}, '0x480 pixels is empty'),
        ({'step': 2560, 'data': bytes(480 * 2560)}, 'step 2560 is not that of 640 pixels of 16UC1.*fits 32FC1'),
    ]:
        with pytest.raises(ImageError, match=complaint):
            to_depth(SimpleNamespace(**(vars(narrow) | changes)))


def compressed(data, name):
    return SimpleNamespace(format=name, data=array.array('B', bytes(data)))


def smooth(kind=np.uint8):
    y, x = np.mgrid[:48, :64]
    return (np.stack([3 * x + 10, 4 * y + 20, 220 - 2 * x - y], -1).astype(kind)) * (1 if kind == np.uint8 else 257)


def encode(suffix, image):
    return cv2.imencode(suffix, image)[1]


def test_compressed_colour():
    rgb = smooth()
    png = compressed(encode('.png', rgb[..., ::-1]), 'rgb8; png compressed bgr8')
    assert np.array_equal(to_rgb(png), rgb)
    for name in ('jpeg', 'rgb8; jpeg compressed bgr8', 'bgr8; jpeg compressed bgr8'):
        jpeg = to_rgb(compressed(encode('.jpg', rgb[..., ::-1]), name))
        assert np.abs(jpeg.astype(int) - rgb).max() <= 8


@pytest.mark.parametrize('suffix', ['webp', 'tiff', 'bmp'])
def test_other_files_in_a_compressed_image(suffix):
    """image_transport writes tiff, other drivers webp."""
    rgb = smooth()
    data = encode(f'.{suffix}', rgb[..., ::-1])
    decoded = to_rgb(compressed(data, f'rgb8; {suffix} compressed bgr8'))
    assert np.abs(decoded.astype(int) - rgb).max() <= (12 if suffix == 'webp' else 0)
    for spoiled in (data[: len(data) // 2], data[:12], np.concatenate([data[:16], data[40:]])):
        with pytest.raises(ImageError, match='broken'):
            to_rgb(compressed(spoiled, suffix))


def test_compressed_grey_alpha_and_sixteen_bits():
    rgb = smooth()
    grey, wide = rgb[..., 0], smooth(np.uint16)
    assert np.array_equal(to_rgb(compressed(encode('.png', grey), 'mono8; png compressed ')), rgb[..., [0, 0, 0]])
    assert np.array_equal(to_rgb(compressed(encode('.png', wide[..., ::-1]), 'png')), wide >> 8)
    assert np.array_equal(
        to_rgb(compressed(encode('.png', wide[..., 0] >> 4), '16UC1; png compressed '), bits=12), rgb[..., [0, 0, 0]]
    )
    alpha = np.dstack([rgb[..., ::-1], grey])
    assert np.array_equal(to_rgb(compressed(encode('.png', alpha), 'bgra8; png compressed bgra8')), rgb)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_compressed_bayer_mosaic(kind):
    colour = np.broadcast_to(np.array([200, 100, 30]) * (1 if kind == np.uint8 else 256), (8, 12, 3)).astype(kind)
    name = f'bayer_grbg{8 * np.dtype(kind).itemsize}; png compressed '
    assert (to_rgb(compressed(encode('.png', mosaic(colour, 'grbg')), name)) == (200, 100, 30)).all()


def test_broken_compressed_images_are_refused():
    noise = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
    jpeg, png = encode('.jpg', noise), encode('.png', noise)
    flipped = png.copy()
    flipped[len(png) // 2] ^= 0x55
    for data in (jpeg[: len(jpeg) // 2], jpeg[:-2]):
        with pytest.raises(ImageError, match='no end marker'):
            to_rgb(compressed(data, 'jpeg'))
    for data, name in [(png[: len(png) // 2], 'png'), (jpeg[:30], 'jpeg')]:
        with pytest.raises(ImageError, match='cut off'):
            to_rgb(compressed(data, name))
    with pytest.raises(ImageError, match='broken'):
        to_rgb(compressed(flipped, 'png'))
    with pytest.raises(ImageError, match="0 bytes of format 'jpeg' start with nothing"):
        to_rgb(compressed(b'', 'jpeg'))
    with pytest.raises(ImageError, match='no jpeg, png, webp, tiff or bmp'):
        to_rgb(compressed(b'GIF89a' + bytes(100), 'gif'))
    with pytest.raises(ImageError, match='depth image'):
        to_rgb(compressed(png, '32FC1; compressedDepth png'))


def test_jpeg_followed_by_padding_is_whole():
    rgb = smooth()
    data = bytes(encode('.jpg', rgb[..., ::-1])) + bytes(37)
    assert np.abs(to_rgb(compressed(data, 'jpeg')).astype(int) - rgb).max() <= 8


@pytest.mark.parametrize(
    ('encoding', 'dtype', 'channels'),
    [('32FC1', np.float32, ()), ('16UC1', np.uint16, ()), ('mono8', np.uint8, ()), ('rgb8', np.uint8, (3,))],
)
def test_filled_message_holds_the_exact_bytes(encoding, dtype, channels):
    image_type = pytest.importorskip('sensor_msgs.msg').Image
    image = np.random.default_rng(1).integers(0, 200, (2 * HEIGHT, WIDTH, *channels)).astype(dtype)[::2]
    if dtype == np.float32:
        image[1, 2] = np.nan
    sent = image_type()
    sent.header.frame_id = 'camera'
    fill_image(sent, image, encoding)
    assert (sent.height, sent.width, sent.encoding, sent.is_bigendian) == (HEIGHT, WIDTH, encoding, 0)
    assert sent.step == image.nbytes // HEIGHT
    assert isinstance(sent.data, array.array)
    assert sent.data.tobytes() == image.tobytes()
    assert sent.header.frame_id == 'camera'


def test_filling_with_the_wrong_type_is_refused():
    for image, encoding in [
        (np.zeros((4, 4)), '32FC1'),
        (np.zeros((4, 4, 3), np.uint8), 'mono8'),
        (np.zeros((4, 4), np.uint8), 'rgb8'),
        (np.zeros((4, 4), np.uint8), 'jpeg'),
    ]:
        with pytest.raises(ValueError, match=encoding):
            fill_image(SimpleNamespace(), image, encoding)
