"""The focal length of a camera that nobody has calibrated: guesses of the network, then the word of corners."""

from types import SimpleNamespace

import numpy as np
import pytest

from vggt_ros.camera import fit
from vggt_ros.odometry.windows.focal import FocalEstimate, OneLens
from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import Frame

SIZE = (640, 480)
MAP = fit(SIZE, 518)
TRUE = 500.0  # px
K = np.array([[TRUE, 0, 319.5], [0, TRUE, 239.5], [0, 0, 1]])


def window(given=None, size=SIZE, begins=False):
    """Two new frames beside two of the map, or those that a map begins with."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    frames = tuple(Frame(number, number + 1, image, given, 'camera') for number in range(4))
    return Window(frames, (0, 1, 2, 3), 4 if begins else 2)


def prediction(*factors, size=SIZE):
    """What a network says that takes the lens for one that is longer by a factor, for each frame."""
    pixel_map = fit(size, 518)
    seen = np.stack([pixel_map.K_to_network(K) @ np.diag([factor, factor, 1]) for factor in factors])
    return SimpleNamespace(maps=[pixel_map] * len(factors), K=seen)


def seen(lens, one, said):
    """The window with the lens, after the network's word of it."""
    lens.hear(one, said)
    return lens.given(one, said)


def focal(one):
    (found,) = {frame.K[0, 0] for frame in one.frames}
    return found


def test_frames_of_a_known_camera_stay_as_they_are():
    known = window(K)
    assert seen(OneLens(0.02), known, prediction(1, 1, 1.1, 1.1)) is known


def test_one_focal_length_for_all_that_comes_of_many_guesses():
    lens, rng = OneLens(0.02), np.random.default_rng(1)
    for _ in range(20):
        found = seen(lens, window(begins=True), prediction(*np.exp(rng.normal(0, 0.02, 4))))
    assert focal(found) == pytest.approx(TRUE, rel=0.01)
    assert found.focal_sigma == pytest.approx(0.05), 'many guesses of one network are no surer than its lens'
    assert [frame.K[0, 2] for frame in found.frames] == pytest.approx([319.5] * 4)


def test_a_map_keeps_the_lens_that_it_began_with_while_that_may_be_right():
    lens = OneLens(0.05)
    begun = focal(seen(lens, window(begins=True), prediction(1.03, 1.03, 1.03, 1.03)))
    assert begun == pytest.approx(1.03 * TRUE)
    for _ in range(5):
        found = seen(lens, window(), prediction(1, 1, 1, 1))
        lens.learn(found, FocalEstimate(float(np.log(TRUE / focal(found))), 0.2**-2))
    assert focal(found) == begun


def test_corners_overrule_the_network():
    lens = OneLens(0.05)
    for _ in range(10):
        found = seen(lens, window(), prediction(1.1, 1.1, 1.1, 1.1))
        lens.learn(found, FocalEstimate(float(np.log(TRUE / focal(found))), 0.005**-2))
    assert focal(seen(lens, window(), prediction(1.1, 1.1, 1.1, 1.1))) == pytest.approx(TRUE, rel=0.01)
    assert lens.sigma < 0.01
    lens.learn(found, None)
    assert lens.sigma < 0.01


def test_a_network_that_sees_no_lens_costs_nothing_once_one_is_known():
    lens = OneLens(0.02)
    blind = prediction(np.nan, np.nan, np.nan, np.nan)
    assert seen(lens, window(), blind).frames[0].K is None
    seen(lens, window(), prediction(1, 1, 1, 1))
    found = seen(lens, window(), prediction(1, 1, 1, 1))
    unseen = seen(lens, window(), blind)
    assert focal(unseen) == pytest.approx(focal(found))
    np.testing.assert_allclose(unseen.frames[0].K, found.frames[0].K, atol=1)


def test_a_lens_that_changes_is_followed():
    lens = OneLens(0.05)
    for factor in [1.0] * 30 + [1.04] * 30:
        found = seen(lens, window(), prediction(1, 1, 1, 1))
        lens.learn(found, FocalEstimate(float(np.log(factor * TRUE / focal(found))), 0.01**-2))
    assert focal(found) == pytest.approx(1.04 * TRUE, rel=0.015)


def test_images_of_another_size_are_of_another_lens():
    lens = OneLens(0.02)
    seen(lens, window(), prediction(1, 1, 1, 1))
    other = seen(lens, window(size=(320, 240)), prediction(0.8, 0.8, 0.8, 0.8, size=(320, 240)))
    expected = fit((320, 240), 518).K_to_source(fit((320, 240), 518).K_to_network(K))[0, 0]
    assert focal(other) == pytest.approx(0.8 * expected)
