"""The map's keyframes: what averaging, common surface and the choice of anchors must be, by brute force."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import ROOM, depth_of, look
from exact_keyframe import SIZE, K, keyframe
from vggt_ros import camera
from vggt_ros.odometry.keyframe import DISAGREEMENT, MAX_FUSED, covisibility, interpolate, pose_distance
from vggt_ros.odometry.windows.planning import COVISIBLE, choose
from vggt_ros.similarity import Similarity


def random_views(count, seed):
    rng = np.random.default_rng(seed)
    where = rng.uniform(ROOM[0] + 0.8, ROOM[1] - 0.8, (count, 3))
    turns = rng.uniform((-np.pi, -0.4), (np.pi, 0.4), (count, 2))
    return [keyframe(look(p, *turn), i) for i, (p, turn) in enumerate(zip(where, turns, strict=True))]


# Averaging


def test_depth_is_the_running_mean_of_its_logarithm():
    rng = np.random.default_rng(0)
    logs = np.log(3.0) + rng.normal(0, 0.02, (MAX_FUSED, 6, 8))
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T, depth=np.exp(logs[0]), confidence=0.7)
    for count, log_depth in enumerate(logs[1:], start=2):
        one.fuse(T, np.exp(log_depth).astype(np.float32), np.full((6, 8), 0.7, np.float32))
        np.testing.assert_allclose(np.log(one.depth), logs[:count].mean(0), atol=2e-6)
        np.testing.assert_allclose(one.confidence, 0.7, rtol=1e-5)
        assert one.fused == one.pose_weight == count


def test_confidence_weighs_depth():
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T, depth=np.full((6, 8), 2.0), confidence=0.9)
    one.fuse(T, np.full((6, 8), 2.2, np.float32), np.full((6, 8), 0.3, np.float32))
    np.testing.assert_allclose(one.depth, 2.0 * 1.1 ** (0.3 / (0.3 + 0.9)), rtol=1e-6)
    # Now the old one is worth two windows.
    old, trust = one.depth.copy(), one.confidence.copy()
    np.testing.assert_allclose(trust, 0.6, rtol=1e-6)
    one.fuse(T, np.full((6, 8), 2.2, np.float32), np.full((6, 8), 0.3, np.float32))
    np.testing.assert_allclose(one.depth, old * (2.2 / old) ** (0.3 / (0.3 + 2 * 0.6)), rtol=1e-6)


def test_pose_is_the_running_mean_of_the_windows():
    rng = np.random.default_rng(1)
    steps, turns = rng.normal(0, 0.02, (MAX_FUSED, 3)), rng.normal(0, 0.02, MAX_FUSED)
    axis = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    base = look([0.5, -0.3, 1.5], 0.7)
    poses = np.tile(base, (MAX_FUSED, 1, 1))
    poses[:, :3, 3] += steps
    poses[:, :3, :3] = Rotation.from_rotvec(turns[:, None] * axis).as_matrix() @ base[:3, :3]
    one = keyframe(poses[0])
    depth = one.depth.copy()
    for T in poses[1:]:
        one.fuse(one.with_window(T), None, None)
    np.testing.assert_allclose(one.T_map_camera[:3, 3], poses[:, :3, 3].mean(0), atol=1e-12)
    # About one axis the mean of rotations is the mean of angles.
    mean = Rotation.from_rotvec(turns.mean() * axis).as_matrix() @ base[:3, :3]
    np.testing.assert_allclose(one.T_map_camera[:3, :3], mean, atol=1e-12)
    assert one.pose_weight == MAX_FUSED
    assert one.fused == 1
    np.testing.assert_array_equal(one.depth, depth)


def test_later_windows_count_like_the_tenth():
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T, depth=np.full((6, 8), 3.0))
    trust = np.full((6, 8), 0.9, np.float32)
    for _ in range(40):
        one.fuse(T, np.full((6, 8), 3.0, np.float32), trust)
    assert one.fused == one.pose_weight == MAX_FUSED
    moved = T.copy()
    moved[:3, 3] += [0.11, 0, 0]
    one.fuse(one.with_window(moved), np.full((6, 8), 3.3, np.float32), trust)
    np.testing.assert_allclose(one.depth, 3.0 * 1.1 ** (1 / (MAX_FUSED + 1)), rtol=1e-6)
    np.testing.assert_allclose(one.T_map_camera[:3, 3] - T[:3, 3], [0.11 / (MAX_FUSED + 1), 0, 0], atol=1e-12)


def test_two_surfaces_are_not_averaged_and_lose_confidence():
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T, depth=np.full((6, 8), 3.0), confidence=0.8)
    other = np.full((6, 8), 3.0, np.float32)
    other[:, 4:6] *= np.exp(1.05 * DISAGREEMENT)
    other[:, 6:] *= np.exp(-1.05 * DISAGREEMENT)
    one.fuse(T, other, np.full((6, 8), 0.8, np.float32))
    np.testing.assert_array_equal(one.depth, np.float32(3.0))
    np.testing.assert_allclose(one.confidence[:, :4], 0.8, rtol=1e-6)
    np.testing.assert_allclose(one.confidence[:, 4:], 0.4, rtol=1e-6)
    one.fuse(T, other, np.full((6, 8), 0.8, np.float32))
    np.testing.assert_allclose(one.confidence[:, 4:], 0.4 * 2 / 3, rtol=1e-6)


def test_holes_are_filled_and_none_are_made():
    T = look([0, 0, 1.5], 0.3)
    old = np.full((6, 8), 3.0, np.float32)
    old[:, :4] = np.nan
    new = np.full((6, 8), 3.1, np.float32)
    new[:2], new[2], new[3] = np.nan, 0.0, -1.0
    one = keyframe(T, depth=old, confidence=0.5)
    one.fuse(T, new, np.full((6, 8), 0.9, np.float32))
    assert np.isnan(one.depth[:4, :4]).all()
    np.testing.assert_array_equal(one.depth[:4, 4:], np.float32(3.0))
    np.testing.assert_array_equal(one.depth[4:, :4], np.float32(3.1))
    np.testing.assert_allclose(one.confidence[4:, :4], 0.9, rtol=1e-6)
    np.testing.assert_allclose(one.confidence[:4, 4:], 0.5, rtol=1e-6)
    assert one.median_depth == pytest.approx(3.0, abs=0.2)


def test_depth_without_confidence_on_either_side_stays():
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T, depth=np.full((6, 8), 3.0), confidence=0.0)
    one.fuse(T, np.full((6, 8), 3.1, np.float32), np.zeros((6, 8), np.float32))
    np.testing.assert_array_equal(one.depth, np.float32(3.0))


def test_what_is_derived_follows_the_averaging():
    T = look([0, 0, 1.5], 0.3)
    one = keyframe(T)
    assert one.median_depth == pytest.approx(np.median(one.depth), rel=0.02)
    median, points = one.median_depth, one.points()
    moved = T.copy()
    moved[:3, 3] += [0.2, 0, 0]
    one.fuse(one.with_window(moved), one.depth * np.float32(1.1), one.confidence)
    assert one.median_depth == pytest.approx(median * 1.1**0.5, rel=1e-5)
    expected = (points - T[:3, 3]) * 1.1**0.5 + T[:3, 3] + [0.1, 0, 0]
    np.testing.assert_allclose(one.points(), expected, atol=1e-5)
    assert keyframe(T, depth=np.full((6, 8), np.nan)).median_depth == 1.0


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
def test_interpolation_lies_on_the_way(share):
    a, b = look([0, 0, 1], 0.2), look([1, -1, 1.5], 1.2, 0.3)
    T = interpolate(a, b, share)
    np.testing.assert_allclose(T[:3, 3], (1 - share) * a[:3, 3] + share * b[:3, 3], atol=1e-12)
    whole = Rotation.from_matrix(b[:3, :3] @ a[:3, :3].T).as_rotvec()
    np.testing.assert_allclose(Rotation.from_matrix(T[:3, :3] @ a[:3, :3].T).as_rotvec(), share * whole, atol=1e-9)


# Common surface


def surface_seen(owner, view):
    """Share of ALL pixels of ``owner`` whose wall ``view`` sees: nothing hides anything in an empty room."""
    points = camera.transform(owner.T_map_camera, camera.unproject(depth_of(owner.T_map_camera, K, SIZE), K))
    uv = camera.project(camera.transform(camera.invert(view.T_map_camera), points), K)
    with np.errstate(invalid='ignore'):
        return ((uv > -0.5) & (uv < np.array(SIZE) - 0.5)).all(-1).mean()


def test_covisibility_is_the_share_of_pixels_that_the_view_sees():
    views = random_views(40, 0)
    errors, shares = [], []
    for view in views[:12]:
        found = covisibility(views, view)
        true = np.array([surface_seen(one, view) for one in views])
        errors += list(found - true)
        shares += list(true)
        assert found[views.index(view)] == 1.0
        for share, one in zip(found, views, strict=True):
            assert share == covisibility([one], view)[0]
    # The pairs are of every kind; 48 samples of a share leave a few hundredths.
    assert (np.array(shares) == 0).sum() > 20
    assert (np.array(shares) > 0.5).sum() > 20
    assert np.abs(errors).max() < 0.1
    assert np.sqrt(np.mean(np.square(errors))) < 0.03


def test_covisibility_counts_sample_by_sample():
    views = random_views(30, 1)
    for view in views[:6]:
        for one, share in zip(views, covisibility(views, view), strict=True):
            count = 0
            for point in one.points():
                x, y, z = camera.invert(view.T_map_camera)[:3] @ [*point, 1.0]
                if z <= 0:
                    continue
                u, v = round(K[0, 0] * x / z + K[0, 2]), round(K[1, 1] * y / z + K[1, 2])
                if 0 <= u < SIZE[0] and 0 <= v < SIZE[1] and abs(view.depth[v, u] - z) < 0.1 * z:
                    count += 1
            assert share == pytest.approx(count / len(one.points()), abs=1e-12)


def test_hidden_and_unknown_surface_is_not_common():
    T = look([0, 0, 1.5], 0.3)
    near = depth_of(T, K, SIZE)
    near[:, : SIZE[0] // 2] *= 0.5  # something stands there
    assert covisibility([keyframe(T)], keyframe(T, depth=near))[0] == pytest.approx(0.5, abs=0.07)
    near[:, SIZE[0] // 2 :] = np.nan
    assert covisibility([keyframe(T)], keyframe(T, depth=near))[0] == 0.0
    nothing = keyframe(T, depth=np.full((63, 84), np.nan))
    np.testing.assert_array_equal(covisibility([nothing, keyframe(T)], keyframe(T)), [0.0, 1.0])
    assert covisibility([], keyframe(T)).shape == (0,)
    behind = keyframe(look([0, 0, 1.5], 0.3 + np.pi))
    assert covisibility([keyframe(T)], behind)[0] == 0.0


# The choice


def ring(count):
    """Keyframes along a turn and a half on a circle, looking ahead."""
    angle = np.linspace(0, 3 * np.pi, count)
    return [keyframe(look([1.5 * np.cos(a), 1.5 * np.sin(a), 1.5], a + np.pi / 2), i) for i, a in enumerate(angle)]


@pytest.mark.parametrize('room', [0, 1, 2, 3, 5, 8, 60])
@pytest.mark.parametrize('latest_is_keyframe', [True, False])
def test_anchors_are_the_latest_then_what_is_seen_too_and_never_the_view(room, latest_is_keyframe):
    keyframes = ring(50)
    view = keyframes[-1] if latest_is_keyframe else keyframe(keyframes[-1].T_map_camera, 99)
    others = keyframes[:-1] if latest_is_keyframe else keyframes
    chosen = choose(keyframes, view, room)
    assert len(chosen) == min(room, len(others))
    assert all(one is not view for one in chosen)
    assert len({id(one) for one in chosen}) == len(chosen)
    recent = min(3, room)
    assert [one.frame.index for one in chosen[:recent]] == [one.frame.index for one in others[::-1][:recent]]


def test_covisible_anchors_are_spread_by_a_greedy_search():
    keyframes = ring(50)
    view, spacing = keyframes[-1], 0.15
    chosen = choose(keyframes, view, 9, spacing=spacing)
    expected = [46, 47, 48][::-1]
    rest = [i for i in range(46) if surface_seen(keyframes[i], view) > COVISIBLE]
    # The first round of the circle, two thirds of the path ago, is seen again.
    assert min(rest) < 20
    while len(expected) < 9:
        gaps = {i: min(pose_distance(keyframes[i], keyframes[j]) for j in expected) for i in rest if i not in expected}
        best = max(gaps, key=lambda i: gaps[i])
        if gaps[best] < spacing:
            break
        expected.append(best)
    by_spread = [one.frame.index for one in chosen][: len(expected)]
    assert by_spread == expected
    assert len(expected) > 5
    for number, one in enumerate(chosen[3 : len(expected)], start=3):
        assert min(pose_distance(one, other) for other in chosen[:number]) >= spacing


def test_neighbours_do_not_crowd_out_but_fill_up():
    T = look([0, 0, 1.5], 0.3)
    crowd = [keyframe(T @ look_shift(0.001 * i), i) for i in range(20)]
    chosen = choose(crowd, crowd[-1], 6)
    assert [one.frame.index for one in chosen] == [18, 17, 16, 15, 14, 13]


def look_shift(x):
    T = np.eye(4)
    T[0, 3] = x
    return T


def test_distance_of_poses_adds_angle_and_way():
    a = keyframe(look([0, 0, 1.5], 0.0))
    b = keyframe(look([0.3, 0.4, 1.5], 0.2))
    assert pose_distance(a, b) == pytest.approx(0.2 + 0.5 / a.median_depth, rel=1e-9)
    assert pose_distance(a, a) == 0.0


def test_a_hundred_corrections_leave_a_rotation():
    """Each correction is made from the pose itself, with its transpose for its inverse, as loops are."""
    one = keyframe(look([0, 0, 1.5], 0.3), 0)
    one.T_map_camera[:3, :3] += 1e-12
    for _ in range(100):
        R = one.T_map_camera[:3, :3]
        one.move(Similarity(1.0, R @ R @ R.T, np.zeros(3)))
    R = one.T_map_camera[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
