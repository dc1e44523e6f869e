"""Where the camera was: poses follow the corrections of their keyframes exactly, and stay bounded."""

from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, project, transform
from vggt_ros.mapping.history import History
from vggt_ros.similarity import Similarity, for_all
from vggt_ros.types import Estimate, Frame, Scale, State

SIZE, SMALL = (640, 480), (56, 42)
MAP = PixelMap(SIZE, SMALL, (0, 0), SMALL)
K = np.array([[410.25, 0, 319.5], [0, 412.75, 238.125], [0, 0, 1.0]])
IMAGE = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)


def pose(index: int) -> np.ndarray:
    """Some place and attitude, another one for every index."""
    rng = np.random.default_rng(index)
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    T[:3, 3] = rng.normal(0, 5, 3)
    return T


def stamp(index: int) -> int:
    return 1_700_000_000_123_456_789 + 100_000_001 * index


def keyframe(index: int, T: np.ndarray | None = None) -> Estimate:
    return Estimate(
        frame=Frame(index, stamp(index), IMAGE),
        T_map_camera=pose(index) if T is None else T,
        T_odom_camera=np.eye(4),
        covariance=np.eye(6),
        velocity=None,
        velocity_covariance=np.eye(6),
        state=State.TRACKING,
        scale=Scale.RELATIVE,
        epoch=0,
        step_covariance=np.eye(6),
        depth=np.full(SMALL[::-1], 2.0, np.float32),
        confidence=np.full(SMALL[::-1], 0.9, np.float32),
        K=MAP.K_to_network(K),
        map=MAP,
    )


def similarity(seed: int) -> Similarity:
    T = pose(1000 + seed)
    return Similarity(1.0 + 0.1 * seed, T[:3, :3], T[:3, 3])


def walked(count: int, every: int, **limits) -> History:
    """A history of ``count`` images, each ``every``-th a keyframe."""
    history = History(**limits)
    for index in range(count):
        if index % every:
            history.add_pose(index, stamp(index), pose(index))
        else:
            history.add_keyframe(keyframe(index))
    return history


def test_poses_come_back_as_they_were_given_in_the_order_of_time():
    history = History()
    history.add_pose(0, stamp(0), pose(0))  # nothing to hang it on yet
    history.add_keyframe(keyframe(1))
    for index in (4, 2, 3):
        history.add_pose(index, stamp(index), pose(7))
    history.add_pose(3, stamp(3), pose(3))  # another answer for the same image
    history.add_pose(5, stamp(5), np.full((4, 4), np.nan))
    trajectory = history.trajectory()
    assert trajectory.stamps.tolist() == [stamp(index) for index in (1, 2, 3, 4)]
    np.testing.assert_allclose(trajectory.T_world_camera, [pose(i) for i in (1, 7, 3, 7)], atol=1e-12)


def test_poses_between_keyframes_move_with_the_keyframe_before_them():
    history = walked(12, every=4)
    once, twice = similarity(1), similarity(2)
    history.correct({4: once, 99: twice})
    history.add_pose(12, stamp(12), pose(12))
    history.correct({4: twice, 8: once})
    expected = [pose(i) for i in range(4)]
    expected += [twice.pose(once.pose(pose(i))) for i in range(4, 8)]
    expected += [once.pose(pose(i)) for i in range(8, 13)]
    np.testing.assert_allclose(history.trajectory().T_world_camera, expected, atol=1e-12)


def test_a_pose_given_after_a_correction_stands_where_it_was_put():
    history = walked(4, every=4)
    history.correct({0: similarity(3)})
    history.add_pose(9, stamp(9), pose(9))
    np.testing.assert_allclose(history.trajectory().T_world_camera[-1], pose(9), atol=1e-12)
    again = similarity(5)
    history.correct({0: again})
    np.testing.assert_allclose(history.trajectory().T_world_camera[-1], again.pose(pose(9)), atol=1e-12)


def test_a_keyframe_that_is_placed_anew_takes_its_poses_along():
    history = walked(4, every=4)
    motion = pose(50)
    history.add_keyframe(keyframe(0, motion @ pose(0)))
    expected = [motion @ pose(i) for i in range(4)]
    np.testing.assert_allclose(history.trajectory().T_world_camera, expected, atol=1e-12)
    assert len(history.pinholes()) == 1


def test_pinholes_are_the_source_cameras_of_the_keyframes_and_follow_too():
    history = walked(6, every=3)
    moved = similarity(2)
    history.correct({3: moved})
    first, second = history.pinholes()
    assert (first.name, second.name) == (f'{stamp(0)}.jpg', f'{stamp(3)}.jpg')
    assert first.size == SIZE
    np.testing.assert_allclose(second.T_map_camera, moved.pose(pose(3)), atol=1e-12)
    point = np.array([[0.3, -0.2, 2.0]])
    np.testing.assert_allclose(project(point, first.K), project(point, K), atol=1e-9)
    np.testing.assert_allclose(transform(first.T_map_camera, point), transform(pose(0), point), atol=1e-12)


def test_pinholes_are_cameras_of_pictures_that_are_kept_whatever_their_size():
    """A point's pixel in the picture is its pixel in the source, where both have their corners at one place."""
    whole = keyframe(0)
    half = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 2, SIZE[0] // 2, 3), np.uint8)
    history = History()
    history.add_keyframe(replace(whole, frame=replace(whole.frame, image=half, source=SIZE)))
    (found,) = history.pinholes()
    picture = cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert picture.shape == half.shape
    assert found.size == (SIZE[0] // 2, SIZE[1] // 2)
    point = np.array([[0.3, -0.2, 2.0]])
    np.testing.assert_allclose(project(point, found.K) + 0.5, (project(point, K) + 0.5) / 2, atol=1e-9)


def test_the_past_grows_thinner_but_never_ends():
    history = walked(1000, every=3, poses=100, keyframes=20)
    trajectory, pinholes = history.trajectory(), history.pinholes()
    assert 50 <= len(trajectory) <= 100
    assert 10 <= len(pinholes) <= 20
    indices = [(int(one) - stamp(0)) // 100_000_001 for one in trajectory.stamps]
    assert indices[0] == 0
    assert indices[-20:] == list(range(980, 1000))
    gaps = np.diff(indices)
    assert gaps[: len(gaps) // 4].mean() > 4 * gaps[-len(gaps) // 4 :].mean()
    # What stayed is where it was, whatever it hung on in the meantime.
    np.testing.assert_allclose(trajectory.T_world_camera, [pose(i) for i in indices], atol=1e-9)


def test_pictures_have_a_bound_of_their_own():
    one = len(walked(1, every=1).pinholes()[0].jpeg)
    history = walked(60, every=1, pictures=20 * one)
    pinholes = history.pinholes()
    assert 10 <= len(pinholes) <= 20
    assert len(history.keyframes()) == 60
    assert pinholes[0].name == f'{stamp(0)}.jpg'
    assert [pinhole.name for pinhole in pinholes[-5:]] == [f'{stamp(i)}.jpg' for i in range(55, 60)]
    np.testing.assert_allclose(pinholes[-1].T_map_camera, pose(59))


def test_after_clear_nothing_is_left():
    history = walked(6, every=3)
    history.clear()
    history.add_pose(7, stamp(7), pose(7))
    assert (len(history.trajectory()), history.pinholes(), history.keyframes()) == (0, [], [])


def test_keyframes_that_are_not_named_follow_the_nearest_named_one():
    early, late = similarity(1), similarity(2)
    assert for_all({10: early, 20: late}, [0, 10, 14, 16, 20, 30]) == {
        0: early,
        10: early,
        14: early,
        16: late,
        20: late,
        30: late,
    }
    assert for_all({}, [1, 2]) == {}
