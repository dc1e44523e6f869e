"""Large cameras: the picture is small, and everything that is counted stays in the camera's own pixels."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vggt_ros.calibration import Calibration
from vggt_ros.camera import fit, pixel_grid
from vggt_ros.depth import color_to_network
from vggt_ros.odometry.klt import KltTracker
from vggt_ros.odometry.windows.window import at_network_pixels
from vggt_ros.rectify import Rectifier
from vggt_ros.ros.inputs.decoder import LONGEST, Decoder
from vggt_ros.ros.inputs.images import Picture, to_picture, to_rgb
from vggt_ros.tracks.picture import TrackedPoints, draw_tracks
from vggt_ros.types import KEPT, Frame


def scene(width, height):
    """Smooth in all channels, so that what a pixel shows tells where it is."""
    v, u = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([250 * u / width, 250 * v / height, 120 + 100 * np.sin(u / width * 9)], -1).round().astype(np.uint8)


def message(rgb, encoding):
    if encoding in ('jpeg', 'png', 'jpeg grey'):
        image = rgb[..., ::-1] if 'grey' not in encoding else rgb[..., 0]
        data = cv2.imencode('.png' if encoding == 'png' else '.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
        return SimpleNamespace(format=encoding, data=data.tobytes())
    samples = {
        'rgb8': rgb,
        'bgra8': np.dstack([rgb[..., ::-1], rgb[..., 0]]),
        'rgb16': rgb.astype(np.uint16) * 257,
        'mono8': rgb[..., 0],
        'bayer_rggb8': np.where(np.indices(rgb.shape[:2]).sum(0) % 2, rgb[..., 1], rgb[..., 0]),
    }[encoding]
    samples = np.ascontiguousarray(samples)
    return SimpleNamespace(
        height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, is_bigendian=0, step=samples.strides[0],
        data=samples.reshape(-1).view(np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize('size', [(640, 480), (642, 362), (641, 479), (1283, 97)])
@pytest.mark.parametrize('encoding', ['jpeg', 'png', 'jpeg grey', 'rgb8', 'bgra8', 'rgb16', 'mono8', 'bayer_rggb8'])
def test_a_small_picture_shows_the_whole_image(encoding, size):
    sent = message(scene(*size), encoding)
    full, picture = to_rgb(sent), to_picture(sent, longest=200)
    factor = 4 if size[0] < 800 else 8
    assert picture.source == size
    assert picture.image.shape == (max(1, round(size[1] / factor)), round(size[0] / factor), 3)
    assert picture.image.flags.owndata or picture.image.flags.writeable
    mean = cv2.resize(full, picture.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(picture.image.astype(int) - mean).max() <= 4
    assert np.abs(picture.image.mean((0, 1)) - full.mean((0, 1))).max() < 0.5  # no shift by half a pixel


def test_only_what_is_too_large_is_halved():
    for size, shown in (((1280, 720), (1280, 720)), ((1920, 1080), (960, 540)), ((3840, 2160), (960, 540))):
        picture = Decoder().decode(message(scene(*size), 'jpeg'))
        assert picture.image.shape[1::-1] == shown
        assert max(shown) <= LONGEST
    assert Decoder(network=1036).decode(message(scene(1920, 1080), 'rgb8')).image.shape[1] == 1920


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant'])
def test_a_small_picture_is_rectified_exactly_as_the_large_one(model):
    size, f = (1536, 1152), 1000.0
    K = (f, 0.0, 770.3, 0.0, f, 560.1, 0.0, 0.0, 1.0)
    d = (-0.3, 0.1, 0.001, -0.002) if model == 'plumb_bob' else (-0.02, 0.01, -0.004, 0.001)
    R = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
    info = Calibration(*size, model, d, K, tuple(R.ravel()), (900.0, 0, 760, -9, 0, 900.0, 580, 0, 0, 0, 1, 0))
    raw, decoder = scene(*size), Decoder()
    picture = decoder.decode(message(raw, 'rgb8'))
    assert picture.image.shape == (576, 768, 3)
    small, rectifier, valid = decoder.undistort(picture, info)
    large = Rectifier(info)
    wanted = cv2.resize(large(raw), (768, 576), interpolation=cv2.INTER_AREA).astype(int)
    whole = np.ones(size[::-1], np.float32) if large.valid is None else large.valid.astype(np.float32)
    share = cv2.resize(whole, (768, 576), interpolation=cv2.INTER_AREA)
    inner = cv2.erode((share == 1).astype(np.uint8), np.ones((5, 5))) > 0
    assert inner.mean() > 0.9
    assert np.abs(small - wanted)[inner].max() <= 3
    assert np.array_equal(rectifier.K, large.K)  # in source pixels
    assert rectifier.size == size
    assert (valid is None and share.all()) or ((share > 0.5) == valid).mean() > 0.998


def texture(size):
    rng = np.random.default_rng(4)
    coarse = rng.integers(0, 256, (90, 160), np.uint8)
    return np.repeat(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[..., None], 3, 2)


def test_corners_are_in_source_pixels_whatever_the_picture():
    """The same large images, followed as they are and as pictures of a quarter: the same shift in source pixels."""
    size, shift = (2560, 1440), 24.0
    first = texture((size[0] + 64, size[1]))
    images = [np.ascontiguousarray(first[:, int(i * shift) : int(i * shift) + size[0]]) for i in range(3)]
    for small in (False, True):
        klt, corners = KltTracker(), []
        for i, image in enumerate(images):
            shown = cv2.resize(image, (640, 360), interpolation=cv2.INTER_AREA) if small else image
            corners.append(klt.update(Frame(i, i * 10**8, shown, source=size if small else None)))
        assert {one.size for one in corners} == {size}
        _, rows_a, rows_b = np.intersect1d(corners[0].id, corners[2].id, return_indices=True)
        assert len(rows_a) > 100
        moved = np.median(corners[2].uv[rows_b] - corners[0].uv[rows_a], axis=0)
        assert np.abs(moved - (-2 * shift, 0)).max() < 0.5


def test_colours_and_masks_are_found_in_the_picture():
    size = (1920, 1080)
    pixel_map, image = fit(size), scene(*size)
    picture = cv2.resize(image, (480, 270), interpolation=cv2.INTER_AREA)
    wanted = color_to_network(image, pixel_map).astype(int)
    assert np.abs(color_to_network(picture, pixel_map) - wanted)[2:-2, 2:-2].max() <= 3
    left = np.zeros((270, 480), bool)
    left[:, :240] = True
    seen = at_network_pixels(left, pixel_map)
    assert np.array_equal(seen, pixel_map.to_source(pixel_grid(pixel_map.size))[..., 0] < 959.5)


def test_tracks_are_drawn_where_they_are_in_the_picture():
    points = TrackedPoints(1, np.array([5], np.uint64), np.array([[960.0, 540.0]]), np.array([9], np.uint32))
    drawn = draw_tracks(np.zeros((270, 480, 3), np.uint8), [points], source=(1920, 1080))
    row, column = (np.flatnonzero(drawn.any((2, axis))).mean() for axis in (1, 0))
    assert np.abs((column, row) - (np.array([960.5, 540.5]) / 4 - 0.5)).max() < 0.6


@pytest.mark.parametrize('size', [(3840, 2160), (1920, 1080), (1280, 1024)])
def test_frames_that_are_kept_hold_a_picture_of_a_mebibyte_at_most(size):
    picture = to_picture(message(scene(*size), 'rgb8'), longest=LONGEST)
    frame = Frame(1, 0, picture.image, np.eye(3), 'c', np.ones(picture.image.shape[:2], bool), picture.source)
    kept = frame.kept(fit(size).resized)
    assert kept.image.nbytes <= KEPT
    assert kept.valid.shape == kept.image.shape[:2]
    assert kept.size == frame.size == size
    assert np.array_equal(kept.K, frame.K)
    assert np.abs(kept.image.mean((0, 1)) - frame.image.mean((0, 1))).max() < 0.5


def test_a_frame_that_is_small_anyway_is_kept_as_it_is():
    frame = Frame(1, 0, scene(640, 480))
    assert frame.kept(fit((640, 480)).resized) is frame
    assert Picture(frame.image, frame.size).source == (640, 480)
