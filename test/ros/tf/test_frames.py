"""Poses and twists carried from frame to frame, against motions that are known exactly."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact_robot import T_BASE_CAMERA, T_MAP_ODOM, base_at, located, pose, twist
from vggt_ros.camera import invert
from vggt_ros.ros.tf.frames import MODES, Frames, correction


def disturbed(T, d):
    """The pose with the error d (6,): shifted, and rotated about its origin, both in the axes of its parent."""
    moved = pose(d[:3], d[3:])
    moved[:3, :3] @= T[:3, :3]
    moved[:3, 3] += T[:3, 3]
    return moved


def error(T, disturbed_T):
    """What ``disturbed`` did."""
    return np.concatenate(
        [disturbed_T[:3, 3] - T[:3, 3], Rotation.from_matrix(disturbed_T[:3, :3] @ T[:3, :3].T).as_rotvec()]
    )


def jacobian(function):
    """(6, 6) by central differences at zero."""
    h = 1e-6
    return np.stack([(function(h * axis) - function(-h * axis)) / (2 * h) for axis in np.eye(6)], axis=1)


@pytest.mark.parametrize(
    ('mode', 'frame_id', 'child', 'T'),
    [
        ('none', 'world', 'eye', T_MAP_ODOM @ base_at(0.8) @ T_BASE_CAMERA),
        ('camera', 'world', 'eye', T_MAP_ODOM @ base_at(0.8) @ T_BASE_CAMERA),
        ('odom', 'drift', 'body', base_at(0.8)),
        ('map', 'world', 'body', T_MAP_ODOM @ base_at(0.8)),
        ('full', 'drift', 'body', base_at(0.8)),
    ],
)
def test_each_mode_has_its_frames(mode, frame_id, child, T):
    frames = Frames(mode, 'world', 'drift', 'body')
    assert frames.child('eye') == child
    placement = frames.of_camera(located())
    if child == 'body':
        placement = placement.of_child('body', invert(T_BASE_CAMERA))
    assert (placement.stamp, placement.frame_id, placement.child_frame_id) == (17, frame_id, child)
    np.testing.assert_allclose(placement.T, T, atol=1e-12)


@pytest.mark.parametrize('mode', ['odom', 'map', 'full'])
def test_without_a_base_the_camera_takes_its_place(mode):
    assert Frames(mode).child('eye') == 'eye'
    assert Frames(mode).looks_up == (mode == 'map')
    assert Frames(mode, base='body').looks_up


def test_twist_of_the_base_is_its_motion():
    """The camera swings about the base: its velocity is another."""
    for t in (0.0, 0.8, 2.3):
        placement = Frames('odom').of_camera(located(t)).of_child('body', invert(T_BASE_CAMERA))
        np.testing.assert_allclose(placement.velocity, twist(base_at, t), atol=1e-8)
        assert np.linalg.norm(placement.velocity - located(t).velocity) > 0.1


def test_unknown_twist_stays_unknown():
    unknown = located(velocity=None, velocity_covariance=np.eye(6) * 1e6)
    placement = Frames('odom').of_camera(unknown).of_child('body', invert(T_BASE_CAMERA))
    assert placement.velocity is None
    assert np.diag(placement.velocity_covariance).min() > 0.99e6


def test_pose_covariance_is_that_of_small_errors():
    """Carried as errors of the pose itself are."""
    T_camera_base = invert(T_BASE_CAMERA)
    one = located()
    for mode, T_new_map in (('map', np.eye(4)), ('odom', invert(T_MAP_ODOM))):
        placement = Frames(mode).of_camera(one).of_child('body', T_camera_base)
        J = jacobian(
            lambda d, T=T_new_map: error(
                T @ one.T_map_camera @ T_camera_base, T @ disturbed(one.T_map_camera, d) @ T_camera_base
            )
        )
        np.testing.assert_allclose(placement.covariance, J @ one.covariance @ J.T, atol=1e-10)


def test_twist_covariance_is_that_of_twists():
    """The map from the camera's twist to the base's is linear: its columns are carried unit twists."""

    def to_base(twist):
        return Frames('odom').of_camera(located(velocity=twist)).of_child('body', invert(T_BASE_CAMERA))

    J = np.stack([to_base(unit).velocity for unit in np.eye(6)], axis=1)
    covariance = to_base(np.zeros(6)).velocity_covariance
    np.testing.assert_allclose(covariance, J @ located().velocity_covariance @ J.T, atol=1e-12)


def test_to_the_child_and_back_changes_nothing():
    before = Frames('map').of_camera(located())
    after = before.of_child('body', T_BASE_CAMERA).of_child('eye', invert(T_BASE_CAMERA))
    for name in ('T', 'covariance', 'velocity', 'velocity_covariance'):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-12)


def test_correction_is_what_odom_lacks():
    np.testing.assert_allclose(correction(located()), T_MAP_ODOM, atol=1e-12)


@pytest.mark.parametrize(
    ('names', 'text'),
    [
        (('sideways',), ', '.join(MODES)),
        (('odom', 'map', 'map'), 'must differ'),
        (('full', 'map', 'odom', 'odom'), 'must differ'),
        (('map', 'map', 'odom', 'map'), 'must differ'),
        (('map', 'map', ''), 'need names'),
        (('camera', ''), 'need names'),
    ],
)
def test_frames_that_do_not_fit_together_are_refused(names, text):
    with pytest.raises(ValueError, match=text):
        Frames(*names)


def test_odom_needs_no_name_where_it_is_not_used():
    assert Frames('camera', 'map', '').worlds == ('map',)
