"""The corner tracker against exact flow, noise, and images that hold nothing."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vggt_ros.odometry.corner_search import noise_level
from vggt_ros.odometry.klt import Corners, KltConfig, KltTracker, common
from vggt_ros.odometry.working_image import working_size
from vggt_ros.synthetic.effects import exposure
from vggt_ros.synthetic.sequence import RenderedSequence, make_sequence
from vggt_ros.types import Frame

SIZE = (320, 240)


@pytest.fixture(scope='module')
def sequence() -> RenderedSequence:
    return make_sequence('room', 3, 'handheld', 5, SIZE, rate=20.0, samples=2)


def texture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 of smooth random blobs, corners everywhere."""
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(rng.normal(size=(size[1], size[0])), (0, 0), 2.5)
    grey = np.clip(128 + 45 * grey / grey.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def frame(index: int, image: np.ndarray, valid: np.ndarray | None = None) -> Frame:
    return Frame(index, 1_000_000_000 + index * 33_333_333, image, valid=valid)


def shifted(image: np.ndarray, x: float, y: float) -> np.ndarray:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def track_errors(sequence: RenderedSequence, a: Corners, b: Corners) -> np.ndarray:
    """px at 518, of corners that are still seen and were not at the edge of something nearer."""
    rows_a, rows_b = common(a, b)
    truth = sequence.tracks(a.uv, a.index)
    error = np.linalg.norm(truth.uv[0, b.index].numpy()[rows_a] - b.uv[rows_b], axis=1) / a.unit
    return error[truth.visible[0, b.index].numpy()[rows_a]]


def test_corners_follow_the_surface(sequence):
    tracker = KltTracker()
    corners = [tracker.update(one) for one in sequence.frames]
    assert all(150 < len(one) <= 600 for one in corners)
    following, later = track_errors(sequence, *corners[:2]), track_errors(sequence, corners[0], corners[-1])
    assert len(following) > 0.7 * len(corners[0])
    assert np.median(following) < 0.2
    assert np.mean(following > 2) < 0.06
    assert np.median(later) < 0.6


@pytest.mark.parametrize(
    ('size', 'shift'), [((320, 240), (3.3, -1.7)), ((1036, 777), (25.5, -12.25)), ((360, 640), (9, 9))]
)
def test_positions_are_source_pixels_whatever_the_size(size, shift):
    image = texture(size)
    tracker = KltTracker()
    a = tracker.update(frame(0, image))
    b = tracker.update(frame(1, shifted(image, *shift)))
    rows_a, rows_b = common(a, b)
    inner = ((b.uv[rows_b] > 40) & (b.uv[rows_b] < np.array(size) - 40)).all(axis=1)
    assert inner.sum() > 80
    error = (b.uv[rows_b] - a.uv[rows_a] - shift)[inner] / a.unit
    assert np.abs(np.median(error, axis=0)).max() < 0.1
    assert np.percentile(np.linalg.norm(error, axis=1), 90) < 0.2
    assert max(working_size(size).size) <= 518


def test_ids_are_ascending_unique_and_never_used_again():
    tracker, seen, last = KltTracker(), set(), None
    for i in range(12):
        corners = tracker.update(frame(i, texture(SIZE, seed=i // 4) if i % 4 else np.zeros((240, 320, 3), np.uint8)))
        assert (np.diff(corners.id) > 0).all()
        if last is not None:
            fresh = set(corners.id) - set(last.id)
            assert not fresh & seen
        seen |= set(corners.id)
        last = corners
    assert len(seen) > 600


PERIOD = 32  # px: two pixels of the coarsest image of the pyramid


def tiled(x: int, y: int) -> np.ndarray:
    """(240, 320, 3) uint8 of a pattern that repeats, moved by (x, y) px: one period further it is the same picture."""
    grey = np.tile(np.random.default_rng(1).normal(size=(PERIOD, PERIOD)), (3, 3))
    grey = cv2.GaussianBlur(grey, (0, 0), 2.5)[PERIOD : 2 * PERIOD, PERIOD : 2 * PERIOD]
    grey = np.clip(128 + 45 * grey / grey.std(), 0, 255).astype(np.uint8)
    grey = np.tile(np.roll(grey, (y, x), axis=(0, 1)), (8, 10))[:240]
    return np.repeat(grey[..., None], 3, axis=2)


def test_after_a_gap_a_pattern_that_repeats_is_not_met_one_period_off():
    tracker = KltTracker()
    for i in range(6):
        before = tracker.update(frame(i, tiled(4 * i, -4 * i)))
    after = tracker.update(frame(13, tiled(4 * 13, -4 * 13)))
    rows_a, rows_b = common(before, after)
    assert len(rows_a) > 0.6 * len(before)  # a fifth has left the picture
    error = np.abs(after.uv[rows_b] - before.uv[rows_a] - (PERIOD, -PERIOD)).max(axis=1)
    assert np.mean(error < 0.5) > 0.98


def test_a_new_corner_moves_on_like_its_neighbour():
    """The upper half goes to the right and the lower one to the left; the sides are seen in the last image only."""

    def picture(i: int) -> np.ndarray:
        return np.concatenate([tiled(4 * i, 0)[:120], tiled(-4 * i, 0)[120:]])

    middle = np.zeros((240, 320), bool)
    middle[:, 100:220] = True
    tracker = KltTracker(KltConfig(pause=1))
    for i in range(5):
        old = tracker.update(frame(i, picture(i), middle))
    before = tracker.update(frame(5, picture(5)))
    after = tracker.update(frame(13, picture(13)))
    rows, now = common(before, after)
    moved = (after.uv[now] - before.uv[rows])[:, 0]
    fresh, height = before.id[rows] > old.id.max(), before.uv[rows, 1]
    for way, half in ((PERIOD, height < 100), (-PERIOD, height > 140)):
        assert (half & fresh).sum() > 60
        assert np.mean(np.abs(moved[half & fresh] - way) < 0.5) > 0.97


def test_noise_at_standstill_does_not_add_up():
    rng, image = np.random.default_rng(0), texture(SIZE).astype(np.float32)
    noise = rng.normal(0, 8, (8, 240, 320, 3)).astype(np.float32)
    tracker = KltTracker()
    first = tracker.update(frame(0, np.clip(image + noise[0], 0, 255).astype(np.uint8)))
    for i in range(1, 80):
        noisy = image + np.roll(noise[rng.integers(8)], rng.integers(200), axis=1)
        corners = tracker.update(frame(i, np.clip(noisy, 0, 255).astype(np.uint8)))
        rows, now = common(first, corners)
        assert len(rows) > 0.9 * len(first)
        assert np.median(np.linalg.norm(corners.uv[now] - first.uv[rows], axis=1)) < 0.2


@pytest.mark.parametrize('sigma', [0, 2, 5, 8])
@pytest.mark.parametrize('size', [(320, 240), (640, 480)])
def test_noise_alone_makes_no_corners(sigma, size):
    rng, tracker = np.random.default_rng(1), KltTracker()
    for i in range(3):
        image = 120 + rng.normal(0, sigma, (size[1], size[0], 3))
        assert len(tracker.update(frame(i, np.clip(image, 0, 255).astype(np.uint8)))) <= 3


def test_noise_level_is_measured_on_texture():
    rng, grey = np.random.default_rng(0), texture((640, 480))[..., 0]
    for sigma in (2.0, 5.0, 10.0):
        noisy = np.clip(grey + rng.normal(0, sigma, grey.shape), 0, 255).astype(np.uint8)
        assert noise_level(noisy) == pytest.approx(sigma, rel=0.2)


def test_a_blank_image_ends_tracks_and_texture_brings_them_back():
    tracker, image = KltTracker(), texture(SIZE)
    before = tracker.update(frame(0, image))
    assert len(tracker.update(frame(1, np.full((240, 320, 3), 90, np.uint8)))) == 0
    after = tracker.update(frame(2, image))
    assert len(after) > 100
    assert not set(before.id) & set(after.id)


def test_a_new_size_ends_all_tracks():
    tracker = KltTracker()
    a = tracker.update(frame(0, texture((320, 240))))
    b = tracker.update(frame(1, texture((240, 320))))
    assert len(b) > 100
    assert len(common(a, b)[0]) == 0
    assert not set(a.id) & set(b.id)
    assert (b.uv < (240, 320)).all()


@pytest.mark.parametrize('size', [(1, 1), (3, 200), (16, 16)])
def test_tiny_images_do_no_harm(size):
    tracker = KltTracker()
    for i in range(3):
        assert len(tracker.update(frame(i, texture((64, 64))[: size[1], : size[0]]))) <= 600


def test_a_change_of_exposure_is_measured_and_survived(sequence):
    image = sequence.images[0]
    tracker = KltTracker()
    a = tracker.update(frame(0, image))
    b = tracker.update(frame(1, exposure(shifted(image, 4, 2), -1.0)))
    rows_a, rows_b = common(a, b)
    assert b.gain == pytest.approx(-1 / 2.2, abs=0.1)
    assert len(rows_a) > 0.6 * len(a)
    np.testing.assert_allclose(np.median(b.uv[rows_b] - a.uv[rows_a], axis=0), (4, 2), atol=0.1)
    assert tracker.update(frame(2, exposure(shifted(image, 8, 4), -1.0))).gain == pytest.approx(0, abs=0.03)


def test_the_rim_of_the_valid_area_holds_no_corners():
    image, valid = texture(SIZE), np.zeros((240, 320), bool)
    valid[40:200, 50:270] = True
    tracker = KltTracker()
    for i in range(4):
        moving = shifted(image, 3 * i, 0)
        moving[~valid] = 0
        corners = tracker.update(frame(i, moving, valid))
        assert len(corners) > 50
        assert ((corners.uv >= (59, 49)) & (corners.uv <= (260, 190))).all()


def test_history_is_bounded_and_exact():
    tracker = KltTracker(KltConfig(history=5))
    image = texture((160, 120))
    seen = [tracker.update(frame(i, shifted(image, 0.7 * i, 0))) for i in range(0, 40, 2)]
    assert tracker.at(seen[-5].index) is seen[-5]
    assert tracker.at(seen[-1].index) is seen[-1]
    assert tracker.at(seen[-6].index) is None
    assert tracker.at(37) is None
    assert tracker.since(34) == seen[-2:]
    tracker.reset()
    assert tracker.at(38) is None


def test_bad_input_is_named():
    tracker = KltTracker()
    tracker.update(frame(3, texture(SIZE)))
    with pytest.raises(ValueError, match='frame 3 comes after frame 3'):
        tracker.update(frame(3, texture(SIZE)))
    with pytest.raises(ValueError, match='uint8'):
        tracker.update(frame(4, texture(SIZE)[..., 0]))
    with pytest.raises(ValueError, match='odd'):
        KltConfig(window=10)


def test_a_corner_is_not_dragged_along_by_what_is_nearer():
    """A wall behind bars that pass faster: what is followed on the wall stays on it, image after image."""
    wall, bars = texture((420, 240), 1), texture((900, 240), 2)
    column = np.arange(900) % 60 < 12
    tracker, start = KltTracker(), {}
    errors = []
    for step in range(24):
        picture = shifted(wall, -0.7 * step, 0)[:, :320].copy()
        seen = np.roll(column, -4 * step)[:320]
        picture[:, seen] = np.roll(bars, -4 * step, axis=1)[:, :320][:, seen]
        corners = tracker.update(frame(step, picture))
        for number, (u, _) in zip(corners.id.tolist(), corners.uv.tolist(), strict=True):
            born, u0 = start.setdefault(number, (step, u))
            age = step - born
            if age >= 6:
                errors.append(min(abs(u - u0 + 0.7 * age), abs(u - u0 + 4 * age)))  # on the wall, or on a bar
    assert len(errors) > 500
    assert np.mean(np.array(errors) < 0.5) > 0.65  # of Lucas-Kanade alone 0.06; the rest are where a bar meets the wall


def test_what_a_blurred_image_hides_is_found_again_where_it_is():
    """A wall seen through a turn: three images are blurred, and the corners of before are known after them."""
    wall, tracker, seen = texture((700, 240), 3), KltTracker(), []
    for step in range(12):
        picture = shifted(wall, -9.0 * step, 0)[:, :320].copy()
        if 5 <= step < 8:
            picture = cv2.blur(picture, (13, 1))
        seen.append(tracker.update(frame(step, picture)))
    back = np.setdiff1d(seen[9].id[np.isin(seen[9].id, seen[4].id)], seen[6].id)
    assert len(back) > 20
    rows, now = common(seen[4], seen[9])
    right = np.isin(seen[4].id[rows], back)
    off = np.linalg.norm(seen[9].uv[now] - seen[4].uv[rows] - (-45, 0), axis=1)[right]
    assert np.mean(off < 0.5) > 0.95


def test_corners_that_move_by_themselves_end():
    """Leaves in the wind before a wall: each goes its own way, which no rigid scene does."""
    K = np.array([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]])
    wall, tracker, rng = texture((520, 240), 4), KltTracker(), np.random.default_rng(2)
    leaves, heading = texture((1200, 40), 5), rng.uniform(0, 2 * np.pi, 12)
    start = np.stack([rng.uniform(40, 240, 12), rng.uniform(40, 160, 12)], axis=1)
    ages: tuple[dict[int, int], dict[int, int]] = {}, {}
    for step in range(8):
        picture = shifted(wall, -3.0 * step, 0)[:, :320].copy()
        corner_of = np.rint(start + 6 * step * np.stack([np.cos(heading), np.sin(heading)], axis=1)).astype(int)
        leaf = np.zeros((240, 320), bool)
        for number, (left, top) in enumerate(np.clip(corner_of, 0, (280, 200)).tolist()):
            picture[top : top + 40, left : left + 40] = leaves[:, 100 * number : 100 * number + 40]
            leaf[top : top + 40, left : left + 40] = True
        corners = tracker.update(replace(frame(step, picture), K=K))
        column, row = np.rint(corners.uv).astype(int).T
        for number, own in zip(corners.id.tolist(), leaf[row, column].tolist(), strict=True):
            ages[own][number] = ages[own].get(number, 0) + 1
    of_wall, of_leaves = (np.array(list(age.values())) for age in ages)
    assert np.mean(of_wall > 4) > 0.3
    assert np.mean(of_leaves > 4) < 0.1
