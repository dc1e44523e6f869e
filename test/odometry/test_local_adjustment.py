"""The newest keyframes adjusted by their corners alone, against exact geometry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, invert, project, transform
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.local_adjustment import HELD, MOVING, adjust_locally
from vggt_ros.synthetic.trajectory import look_at
from vggt_ros.types import Frame

SIZE = (518, 392)
K = np.array([[400.0, 0, 258.5], [0, 400, 195.5], [0, 0, 1]])
MAP = PixelMap(SIZE, SIZE, (0, 0), SIZE)
RNG = np.random.default_rng(7)
USELESS = np.exp(RNG.normal(0, 0.5, (SIZE[1], SIZE[0])))  # depth
POINTS = np.stack([RNG.uniform(-3, 3, 200), RNG.uniform(4, 7, 200), RNG.uniform(-1.5, 1.5, 200)], axis=1)


def truth(count):
    places = [np.array([0.15 * number, 0.02 * number, 0.0]) for number in range(count)]
    return [look_at(place, place + np.array([0.05, 1.0, 0.02])) for place in places]


def keyframe(index, T_true, T, points=POINTS):
    uv = project(transform(invert(T_true), points), K)
    corners = Corners(index, index, SIZE, np.arange(len(points)), uv, 1.0, 0.0)
    frame = Frame(index, index, np.zeros((1, 1, 3), np.uint8), K)
    depth = np.full((4, 5), 5.0, np.float32)
    return Keyframe(frame, T, depth, np.ones_like(depth), K, np.zeros(4), corners)


def disturbed(T, sigma=0.01):
    found = T.copy()
    found[:3, :3] = Rotation.from_rotvec(RNG.normal(0, sigma / 5, 3)).as_matrix() @ T[:3, :3]
    found[:3, 3] += RNG.normal(0, sigma, 3)
    return found


def of_length(count, wrong_from):
    """Keyframes of which the last are off."""
    return [keyframe(i, T, T if i < wrong_from else disturbed(T)) for i, T in enumerate(truth(count))]


def test_what_the_corners_tell_is_found_and_what_is_older_stays():
    count = HELD + MOVING + 3
    keyframes = of_length(count, count - 4)
    found, _ = adjust_locally(keyframes, keyframes[-1], USELESS, MAP, keep_unit=False)
    assert list(found) == list(range(count))
    for one, T in zip(keyframes, truth(count), strict=True):
        correction = found[one.frame.index]
        assert correction.problem() is None
        np.testing.assert_allclose(correction.pose(one.T_map_camera), T, atol=1e-4)
        assert correction.scale == pytest.approx(1.0, abs=0.02)  # depth hardly errs with the pose
    assert all(found[index].scale == 1.0 for index in range(count - MOVING))


def test_a_latest_frame_that_is_no_keyframe_is_adjusted_with_them():
    keyframes = of_length(HELD + MOVING, 99)
    T = truth(HELD + MOVING + 1)[-1]
    latest = keyframe(HELD + MOVING, T, disturbed(T))
    found, _ = adjust_locally(keyframes, latest, USELESS, MAP, keep_unit=False)
    np.testing.assert_allclose(found[latest.frame.index].pose(latest.T_map_camera), T, atol=1e-4)


def test_a_stretch_in_another_unit_comes_back_to_the_unit_of_what_stays():
    true = truth(HELD + MOVING)
    start = true[HELD - 1][:3, 3]
    keyframes = []
    for index, T in enumerate(true):
        longer = T.copy()
        longer[:3, 3] = start + (1.03 if index >= HELD else 1.0) * (T[:3, 3] - start)
        keyframes.append(keyframe(index, T, longer))
    found, _ = adjust_locally(keyframes, keyframes[-1], USELESS, MAP, keep_unit=False)
    assert found[len(true) - 1].scale == pytest.approx(1 / 1.03, abs=0.02)
    np.testing.assert_allclose(found[len(true) - 1].pose(keyframes[-1].T_map_camera), true[-1], atol=0.01)


def test_a_unit_that_is_known_otherwise_is_kept():
    keyframes = [keyframe(i, T, disturbed(T, 0.003) if i >= HELD else T) for i, T in enumerate(truth(HELD + MOVING))]

    def way(poses):
        return np.linalg.norm(np.diff([T[:3, 3] for T in poses], axis=0), axis=1).sum()

    before = way([one.T_map_camera for one in keyframes])
    found, _ = adjust_locally(keyframes, keyframes[-1], USELESS, MAP, keep_unit=True)
    after = way([found[one.frame.index].pose(one.T_map_camera) for one in keyframes])
    assert after == pytest.approx(before, rel=1e-6)


def test_where_too_little_is_seen_nothing_moves():
    few = [keyframe(i, T, disturbed(T), POINTS[:10]) for i, T in enumerate(truth(5))]
    assert adjust_locally(few, few[-1], USELESS, MAP, keep_unit=False)[0] == {}
    still = [keyframe(i, T, T) for i, T in enumerate(truth(1) * 5)]
    assert adjust_locally(still, still[-1], USELESS, MAP, keep_unit=False)[0] == {}


def test_a_network_that_is_worth_its_depth_is_left_alone():
    """What it says of the newest frame fits the points: it knows the unit better than a few keyframes' corners do."""
    keyframes = of_length(HELD + MOVING, 99)
    said = np.full((SIZE[1], SIZE[0]), np.nan)
    T = keyframes[-1].T_map_camera
    local = transform(invert(T), POINTS)
    u, v = np.rint(project(local, K)).astype(int).T
    inside = (u > 1) & (v > 1) & (u < SIZE[0] - 2) & (v < SIZE[1] - 2)
    for column, row, z in zip(u[inside], v[inside], local[inside, 2], strict=True):
        said[row - 1 : row + 2, column - 1 : column + 2] = 0.3 * z
    assert adjust_locally(keyframes, keyframes[-1], said, MAP, keep_unit=False) == ({}, pytest.approx(0.0, abs=1e-9))
    said[np.isfinite(said)] *= np.exp(RNG.normal(0, 0.3, np.isfinite(said).sum()))
    assert adjust_locally(keyframes, keyframes[-1], said, MAP, keep_unit=False)[0] != {}
