"""When a window is believed, which of its frames hang on the map, and what the anchors' scatter teaches."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import depth_of, look
from exact_keyframe import SIZE, K, keyframe
from vggt_ros.odometry.config import WindowGates
from vggt_ros.odometry.windows.alignment import Alignment, Anchor, align
from vggt_ros.odometry.windows.covariance import PoseNoise
from vggt_ros.odometry.windows.quality import Quality, assess, linked
from vggt_ros.similarity import Similarity
from vggt_ros.types import Accuracy

DEPTH = 4.0
FINE = Alignment(Similarity(1.0, np.eye(3), np.zeros(3)), 0.01, np.radians(0.5), 0.01 * DEPTH, 0.9, np.eye(6))
BAD = {
    'translation_spread': (0.05 * DEPTH, 'scatter by 5.0% of the depth'),
    'rotation_spread': (np.radians(2.0), 'turned against each other by 2.0 deg'),
    'scale_sigma': (0.04, 'scale is uncertain by 4.0%'),
    'inliers': (0.3, 'only 30% of the depth agrees'),
}


def test_a_good_window_is_good_and_says_nothing():
    assert assess(FINE, 5, DEPTH, WindowGates()) == (Quality.GOOD, ())
    assert assess(FINE, 2, DEPTH, WindowGates(), turn=np.radians(1.0)) == (Quality.GOOD, ())


@pytest.mark.parametrize('name', BAD)
def test_each_gate_alone_degrades_and_is_named(name):
    value, text = BAD[name]
    quality, reasons = assess(replace(FINE, **{name: value}), 5, DEPTH, WindowGates())
    assert quality is Quality.DEGRADED
    assert len(reasons) == 1
    assert text in reasons[0]


def test_corners_that_turned_elsewhere_degrade():
    quality, reasons = assess(FINE, 5, DEPTH, WindowGates(), turn=np.radians(3.0))
    assert quality is Quality.DEGRADED
    assert len(reasons) == 1
    assert 'corners say that the camera turned 3.0 deg elsewhere' in reasons[0]


@pytest.mark.parametrize('good', BAD)
def test_three_gates_reject_and_two_do_not(good):
    three = [name for name in BAD if name != good]
    quality, reasons = assess(replace(FINE, **{name: BAD[name][0] for name in three}), 5, DEPTH, WindowGates())
    assert quality is Quality.REJECT
    for name, reason in zip(three, reasons, strict=True):
        assert BAD[name][1] in reason
    quality, reasons = assess(replace(FINE, **{name: BAD[name][0] for name in three[:2]}), 5, DEPTH, WindowGates())
    assert quality is Quality.DEGRADED
    assert len(reasons) == 2


def test_the_turn_counts_among_the_three():
    two = replace(FINE, scale_sigma=0.04, inliers=0.3)
    assert assess(two, 5, DEPTH, WindowGates(), turn=0.1)[0] is Quality.REJECT
    assert assess(two, 5, DEPTH, WindowGates(), turn=0.01)[0] is Quality.DEGRADED


def test_one_anchor_is_not_enough():
    quality, reasons = assess(FINE, 1, DEPTH, WindowGates())
    assert quality is Quality.REJECT
    assert reasons == ('only 1 anchor can be compared with the map',)


def test_bounds_are_relative_to_the_depth():
    far = replace(FINE, translation_spread=0.05 * DEPTH)
    assert assess(far, 5, 2 * DEPTH, WindowGates())[0] is Quality.GOOD
    assert assess(far, 5, DEPTH, WindowGates(translation=0.06))[0] is Quality.GOOD


# Frames that hang on to the map


def turned(degrees, index=0):
    return keyframe(look([0.3, -0.2, 1.5], np.radians(degrees)), index)


@pytest.mark.parametrize('seed', range(5))
def test_a_frame_placed_at_random_is_found(seed):
    rng = np.random.default_rng(seed)
    placed = [turned(angle) for angle in (0, 8, 16)]
    new = [turned(angle) for angle in (20, 26, 32, 38)]
    lost = rng.integers(len(new))
    # Its own depth is right; where it stands is not.
    T = new[lost].T_map_camera.copy()
    T[:3, :3] = Rotation.from_rotvec(np.radians(rng.uniform(25, 60)) * unit(rng)).as_matrix() @ T[:3, :3]
    T[:3, 3] += rng.uniform(0.5, 1.0) * new[lost].median_depth * unit(rng)
    depth = new[lost].depth * np.exp(rng.choice([-1, 1]) * rng.uniform(0.4, 0.6))
    new[lost] = keyframe(T, depth=depth)
    assert linked(placed, new, WindowGates().linked) == [number != lost for number in range(len(new))]


def unit(rng):
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def test_a_chain_is_followed_in_any_order():
    placed, angles = [turned(0)], [30, 60, 90, 120, 150, 180]
    assert linked(placed, [turned(180)], WindowGates().linked) == [False]
    for order in (angles, angles[::-1], [120, 30, 180, 60, 150, 90]):
        assert linked(placed, [turned(angle) for angle in order], WindowGates().linked) == [True] * 6
    # A link is missing: what is behind the gap hangs on nothing.
    gap = [30, 60, 150, 165, 180]
    assert linked(placed, [turned(angle) for angle in gap], WindowGates().linked) == [True, True, False, False, False]


def test_looking_back_through_a_narrow_view_is_a_link():
    """A frame that sees little of a wide view, which sees all of it, is tied: either direction counts."""
    wide, close = turned(0), keyframe(look([3.4, -0.2, 1.5], 0.0))
    assert linked([wide], [close], 0.5) == [True]
    assert linked([close], [wide], 0.5) == [True]


def test_nothing_known_ties_nothing():
    blank = keyframe(look([0, 0, 1.5], 0), depth=np.full((SIZE[1], SIZE[0]), np.nan))
    assert linked([turned(0)], [blank, turned(5)], WindowGates().linked) == [False, True]
    assert linked([], [turned(0)], WindowGates().linked) == [False]
    assert linked([turned(0)], [], WindowGates().linked) == []


# What the anchors' scatter teaches


def simulated(rng, rotation, translation, weights, depth=3.0):
    """An alignment of anchors whose windows err by (rad, share of depth) per axis; the map is the mean of some."""
    R, t = Rotation.random(random_state=rng), rng.normal(size=3)
    scale = np.exp(0.3 * rng.normal())
    anchors = []
    for weight in weights:
        T_true = look(rng.uniform(-1, 1, 3), rng.uniform(-1, 1))
        T_map, T_window = T_true.copy(), np.eye(4)
        spread = 1 / np.sqrt(weight)
        T_map[:3, 3] += rng.normal(0, translation * depth * spread, 3)
        T_map[:3, :3] = Rotation.from_rotvec(rng.normal(0, rotation * spread, 3)).as_matrix() @ T_map[:3, :3]
        seen = T_true.copy()
        seen[:3, 3] += rng.normal(0, translation * depth, 3)
        seen[:3, :3] = Rotation.from_rotvec(rng.normal(0, rotation, 3)).as_matrix() @ seen[:3, :3]
        T_window[:3, :3] = R.inv().as_matrix() @ seen[:3, :3]
        T_window[:3, 3] = R.inv().apply(seen[:3, 3] - t) / scale
        anchors.append(Anchor(T_map, T_window, pose_weight=weight))
    return align(anchors, scale_prior=scale)


@pytest.mark.parametrize(
    ('rotation', 'translation', 'weights'),
    [
        (0.2, 0.003, (10, 10, 10, 10, 10, 10)),
        (0.4, 0.01, (1, 1, 1, 1)),
        (0.4, 0.01, (1, 2, 3, 5, 10)),
        (1.0, 0.03, (1, 2, 3, 5, 10)),
    ],
)
def test_the_noise_is_learnt(rotation, translation, weights):
    sigmas = []
    for seed in range(3):
        rng, noise = np.random.default_rng(seed), PoseNoise.of(Accuracy())
        for _ in range(120):
            noise.learn(simulated(rng, np.radians(rotation), translation, weights), 3.0)
        sigmas.append(np.sqrt(np.diag(noise.covariance(3.0))))
    found = np.mean(sigmas, axis=0)
    np.testing.assert_allclose(found[:3], translation * 3.0, rtol=0.2)
    np.testing.assert_allclose(found[3:], np.radians(rotation), rtol=0.2)


def test_one_anchor_teaches_nothing_and_the_order_does_not_matter():
    rng, noise = np.random.default_rng(0), PoseNoise.of(Accuracy())
    noise.learn(simulated(rng, 0.1, 0.1, (1,)), 3.0)
    assert noise == PoseNoise.of(Accuracy())
    alignment = simulated(rng, 0.01, 0.02, (1, 2, 3, 5, 10))
    order = rng.permutation(5)
    names = ('offsets', 'angles', 'shares')
    other = replace(alignment, **{name: getattr(alignment, name)[order] for name in names})
    forth, back = (PoseNoise.of(Accuracy()) for _ in range(2))
    forth.learn(alignment, 3.0)
    back.learn(other, 3.0)
    np.testing.assert_allclose(forth.covariance(3.0), back.covariance(3.0), rtol=1e-12)


def test_covariance_is_in_units_of_the_depth():
    noise = PoseNoise.of(Accuracy())
    near, far = noise.covariance(1.0), noise.covariance(3.0)
    np.testing.assert_allclose(far[:3, :3], 9 * near[:3, :3])
    np.testing.assert_allclose(far[3:, 3:], near[3:, 3:])


def test_the_room_is_what_the_tests_think():
    view = turned(0)
    np.testing.assert_allclose(view.depth, depth_of(view.T_map_camera, K, SIZE), rtol=1e-6)


def test_anchors_far_beyond_both_bounds_reject_the_window():
    bounds = WindowGates()
    translation, rotation = 4.1 * bounds.translation * 3.0, 4.1 * bounds.rotation

    def quality(translation_spread, rotation_spread):
        spreads = {'translation_spread': translation_spread, 'rotation_spread': rotation_spread, 'scale_sigma': 0.01}
        fine = replace(simulated(np.random.default_rng(0), 0.001, 0.001, (1, 1, 1)), inliers=1.0, **spreads)
        return assess(fine, 3, 3.0, bounds)[0]

    assert quality(translation, rotation) is Quality.REJECT
    assert quality(translation, 0.9 * rotation) is Quality.DEGRADED
    assert quality(0.9 * translation, rotation) is Quality.DEGRADED
