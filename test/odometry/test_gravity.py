"""Which way is down: a pitched camera must not tilt the map."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.odometry.gravity import (
    STANDARD,
    Gravity,
    GravityEstimate,
    GravitySource,
    ImuGravity,
    NoGravity,
    assumed_level,
    from_base,
    map_from_camera,
)
from vggt_ros.synthetic.trajectory import look_along

START = 1_700_000_000_000_000_001
RATE = 200
R_CAMERA_IMU = Rotation.from_euler('xyz', [0.3, -1.2, 2.0]).as_matrix()


def camera_pose(yaw=0.0, pitch=0.0, roll=0.0):
    """R_world_camera (3, 3); pitch up is positive."""
    return look_along(np.zeros((1, 3)), np.array([yaw]), np.array([pitch]), roll)[0, :3, :3]


def down_of(R_world_camera):
    return R_world_camera.T @ np.array([0.0, 0.0, -1.0])


def angle(a, b):
    return math.atan2(np.linalg.norm(np.cross(a, b)), a @ b)


def stand(imu, R_world_camera, seconds=0.6, noise=0.05, gyroscope=True, seed=0, stamp=START):
    """Fill with samples of an IMU at rest; gives the stamp of the last one."""
    rng = np.random.default_rng(seed)
    up = R_CAMERA_IMU.T @ -down_of(R_world_camera)
    for i in range(round(seconds * RATE)):
        last = stamp + i * 1_000_000_000 // RATE
        rate = rng.normal(0, 0.01, 3) if gyroscope else None
        imu.add(last, STANDARD * up + rng.normal(0, noise, 3), rate)
    return last


# --- the map's axes


def test_a_level_camera_gives_the_axes_of_rep_103():
    np.testing.assert_allclose(map_from_camera(assumed_level().down), [[0, 0, 1], [-1, 0, 0], [0, -1, 0]], atol=1e-12)


@pytest.mark.parametrize('yaw', [0.0, 1.0, -2.5])
@pytest.mark.parametrize('pitch', [-1.35, -0.6, 0.0, 0.4, 1.35])
@pytest.mark.parametrize('roll', [-2.0, 0.0, 0.5, np.pi])
def test_pitch_and_roll_do_not_tilt_the_map_nor_turn_it(yaw, pitch, roll):
    R_world_camera = camera_pose(yaw, pitch, roll)
    R = map_from_camera(down_of(R_world_camera))
    # The map is the world turned about z so that x is the camera's heading.
    heading = Rotation.from_euler('z', -yaw).as_matrix()
    np.testing.assert_allclose(R, heading @ R_world_camera, atol=1e-9)


@pytest.mark.parametrize('yaw', [0.0, 2.0])
@pytest.mark.parametrize('pitch', [-np.pi / 2 + 1e-9, -1.5, 1.5, np.pi / 2 - 1e-9])
def test_looking_straight_down_or_up_heads_where_the_image_was_ahead(yaw, pitch):
    R_world_camera = camera_pose(yaw, pitch)
    R = map_from_camera(down_of(R_world_camera))
    np.testing.assert_allclose(R, Rotation.from_euler('z', -yaw).as_matrix() @ R_world_camera, atol=1e-6)
    exact = map_from_camera(np.array([0, 0, 1.0]))  # down along the optical axis
    np.testing.assert_allclose(exact @ [0, -1.0, 0], [1, 0, 0], atol=1e-12)


def test_a_direction_that_is_none_is_a_mistake():
    for down in (np.zeros(3), np.full(3, np.nan), np.ones(2)):
        with pytest.raises(ValueError, match='down'):
            map_from_camera(down)


# --- from a base, or from nothing


def test_the_base_tells_pitch_and_roll():
    R_base_camera = camera_pose(0.7, -0.4, 0.2)  # a camera that looks to the left and at the ground
    gravity = from_base(R_base_camera)
    assert gravity.source is GravitySource.BASE
    np.testing.assert_allclose(gravity.down, down_of(R_base_camera), atol=1e-12)
    for R in (np.eye(3) * 2, np.diag([1, 1, -1.0]), np.full((3, 3), np.nan), np.eye(2)):
        with pytest.raises(ValueError, match='R_base_camera'):
            from_base(R)


def test_an_assumption_is_called_one():
    gravity = assumed_level()
    assert gravity.source is GravitySource.ASSUMED_LEVEL
    assert gravity.sigma == pytest.approx(np.radians(10))


# --- from an IMU


@pytest.mark.parametrize('gyroscope', [True, False])
@pytest.mark.parametrize(('pitch', 'roll'), [(0, 0), (-0.5, 0.3), (-np.pi / 2 + 0.01, 0), (0.2, np.pi)])
def test_noisy_imu_at_rest(gyroscope, pitch, roll):
    """Any mounting; roll pi: camera and IMU upside down."""
    R_world_camera = camera_pose(0.4, pitch, roll)
    imu = ImuGravity(R_CAMERA_IMU)
    stamp = stand(imu, R_world_camera, noise=0.1, gyroscope=gyroscope)
    gravity = imu.at(stamp + 2_000_000)
    assert gravity.source is GravitySource.IMU
    assert angle(gravity.down, down_of(R_world_camera)) < math.radians(0.2)
    assert math.radians(0.6) <= gravity.sigma < math.radians(0.8)


def turning(rate, seconds=0.6, acceleration=None, gyroscope=True):
    """An IMU that turns at ``rate`` (3,) rad/s; gives it, the last stamp and the true down in the camera there."""
    imu = ImuGravity(R_CAMERA_IMU)
    R_world_imu = Rotation.from_matrix(camera_pose(0.3, -0.3) @ R_CAMERA_IMU)
    for i in range(round(seconds * RATE)):
        R = R_world_imu * Rotation.from_rotvec(np.asarray(rate) * i / RATE)
        push = 0.0 if acceleration is None else acceleration(i / RATE)
        force = R.inv().apply(push + np.array([0, 0, STANDARD]))
        imu.add(START + i * 1_000_000_000 // RATE, force, rate if gyroscope else None)
    return imu, START + i * 1_000_000_000 // RATE, R_CAMERA_IMU @ R.inv().apply([0, 0, -1.0])


def test_a_slowly_turning_imu_is_right_at_the_images_stamp():
    imu, stamp, down = turning([0.2, -0.3, 0.4])
    assert angle(imu.at(stamp).down, down) < 1e-3
    imu, stamp, _ = turning([0.2, -0.3, 0.4], gyroscope=False)
    assert 'moves' in imu.at(stamp).reason


@pytest.mark.parametrize(
    ('rate', 'acceleration'),
    [
        ([0.0, 1.5, 0.0], None),
        ([0, 0, 0], lambda t: np.array([4.0, 0, 0])),
        ([0, 0, 0], lambda t: np.array([0, 0, -2.0])),
        ([0, 0, 0], lambda t: np.array([6 * t, 0, 0])),
        ([0, 0, 0], lambda t: np.array([0, 0, 5 * np.sin(60 * t)])),
    ],
)
def test_a_moving_imu_is_refused(rate, acceleration):
    imu, stamp, _ = turning(rate, acceleration=acceleration)
    answer = imu.at(stamp)
    assert isinstance(answer, NoGravity)
    assert 'the IMU moves' in answer.reason


def test_vibration_cancels_out():
    imu, stamp, down = turning([0, 0, 0], acceleration=lambda t: 0.5 * np.sin(np.array([180, 230, 310]) * t))
    assert angle(imu.at(stamp).down, down) < math.radians(0.5)


def test_drivers_with_other_units_are_told_so():
    for factor, reason in ((1 / STANDARD, 'in g'), (0.0, 'gravity was removed'), (np.nan, 'not finite')):
        imu = ImuGravity(np.eye(3))
        for i in range(200):
            imu.add(START + i * 5_000_000, np.array([0, 0, STANDARD * factor]), np.zeros(3))
        assert reason in imu.at(START + 199 * 5_000_000).reason


def test_samples_must_be_there_at_the_stamp():
    imu = ImuGravity(R_CAMERA_IMU)
    assert '0 IMU samples' in imu.at(START).reason
    stamp = stand(imu, camera_pose(), seconds=0.3)
    assert isinstance(imu.at(stamp), NoGravity)  # too short
    stamp = stand(imu, camera_pose(), seconds=0.6, stamp=stamp + 5_000_000)
    assert isinstance(imu.at(stamp), Gravity)
    assert isinstance(imu.at(stamp + 200_000_000), NoGravity)  # too old by then
    assert isinstance(imu.at(START - 1), NoGravity)


def test_a_clock_that_jumps_back_starts_over_and_duplicates_do_not_count():
    imu = ImuGravity(R_CAMERA_IMU)
    stamp = stand(imu, camera_pose(0, 1.0))
    imu.add(stamp, np.full(3, 1e3), np.zeros(3))
    assert isinstance(imu.at(stamp), Gravity)
    R = camera_pose(0, -0.5)
    stamp = stand(imu, R, stamp=START - 10_000_000_000)
    assert angle(imu.at(stamp).down, down_of(R)) < math.radians(0.2)


def test_a_few_bad_samples_do_no_harm_and_the_buffer_is_bounded():
    imu, rng = ImuGravity(R_CAMERA_IMU), np.random.default_rng(0)
    R = camera_pose(0, -0.3)
    up = R_CAMERA_IMU.T @ -down_of(R)
    for i in range(10_000):
        bad = rng.random() < 0.1
        force = rng.choice([np.nan, 0.0, 1e6]) * np.ones(3) if bad else STANDARD * up
        imu.add(START + i * 5_000_000, force, np.full(3, np.nan) if bad else np.zeros(3))
    assert angle(imu.at(START + i * 5_000_000).down, down_of(R)) < 1e-6
    assert len(imu._samples) == 2000


# --- refinement


def advance_all(estimate, step):
    """Advance until nothing is left; the steps' rotations."""
    turns = []
    while estimate.tilt > 1e-9:
        turns.append(estimate.advance(step))
        assert len(turns) < 1000
    return turns


def test_an_assumption_gives_way_to_the_imu_in_bounded_steps_that_keep_the_heading():
    R_world_camera = camera_pose(0, -0.4)
    estimate = GravityEstimate(assumed_level())
    before = estimate.R_map_camera0
    measured = Gravity(down_of(R_world_camera), math.radians(0.6), GravitySource.IMU)
    assert estimate.refine(measured)
    assert estimate.gravity.source is GravitySource.IMU
    assert estimate.tilt == pytest.approx(0.4)
    np.testing.assert_array_equal(estimate.R_map_camera0, before)  # nothing moves until it is asked to
    turns = advance_all(estimate, 0.01)
    assert len(turns) == 40
    assert max(Rotation.from_matrix(turn).magnitude() for turn in turns) < 0.01 + 1e-9
    np.testing.assert_allclose(estimate.R_map_camera0, R_world_camera, atol=1e-9)
    np.testing.assert_allclose(np.linalg.multi_dot(turns[::-1]) @ before, R_world_camera, atol=1e-9)
    np.testing.assert_allclose(estimate.advance(), np.eye(3), atol=1e-12)


@pytest.mark.parametrize('pitch', [np.pi, np.pi / 2])
def test_even_a_camera_that_was_upside_down_becomes_level(pitch):
    estimate = GravityEstimate(assumed_level())
    down = Rotation.from_euler('x', pitch).apply([0, 1.0, 0])
    estimate.refine(Gravity(down, 0.01, GravitySource.IMU))
    advance_all(estimate, 0.1)
    np.testing.assert_allclose(-estimate.R_map_camera0[2], down, atol=1e-8)


def test_many_measurements_become_one_better_one_down_to_the_floor():
    rng = np.random.default_rng(0)
    down = down_of(camera_pose(0, -0.3, 0.1))
    sigma = math.radians(1.0)
    errors, sigmas = [], []
    for _ in range(50):
        noisy = [Rotation.from_rotvec(np.cross(down, rng.normal(0, sigma, 3))).apply(down) for _ in range(3)]
        estimate = GravityEstimate(Gravity(noisy[0], sigma, GravitySource.IMU), floor=0.0)
        for one in noisy[1:]:
            estimate.refine(Gravity(one, sigma, GravitySource.IMU))
        errors.append(angle(estimate.gravity.down, down))
        sigmas.append(estimate.gravity.sigma)
    assert np.mean(sigmas) == pytest.approx(sigma / math.sqrt(3), rel=0.1)
    assert np.sqrt(np.mean(np.square(errors)) / 2) == pytest.approx(sigma / math.sqrt(3), rel=0.2)
    estimate = GravityEstimate(Gravity(down, sigma, GravitySource.IMU))
    for _ in range(1000):
        estimate.refine(Gravity(down, sigma, GravitySource.IMU))
    assert estimate.gravity.sigma == math.radians(0.5)


def test_one_contradiction_is_refused_and_a_lasting_one_is_believed():
    down, other = down_of(camera_pose(0, -0.3)), down_of(camera_pose(0, 0.2))
    estimate = GravityEstimate(Gravity(down, 0.01, GravitySource.IMU))
    wrong = Gravity(other, 0.01, GravitySource.IMU)
    for _ in range(20):
        assert not estimate.refine(wrong)
        assert estimate.refine(Gravity(down, 0.01, GravitySource.IMU))
    np.testing.assert_allclose(estimate.gravity.down, down, atol=1e-9)
    assert [estimate.refine(wrong) for _ in range(5)] == [False] * 4 + [True]
    np.testing.assert_allclose(estimate.gravity.down, other, atol=1e-9)


def test_scattered_contradictions_are_never_believed():
    rng = np.random.default_rng(0)
    down = down_of(camera_pose(0, -0.3))
    estimate = GravityEstimate(Gravity(down, 0.01, GravitySource.IMU))
    for _ in range(50):
        wild = rng.normal(size=3)
        estimate.refine(Gravity(wild / np.linalg.norm(wild), 0.01, GravitySource.IMU))
    assert angle(estimate.gravity.down, down) < 0.02


def test_a_later_camera_speaks_in_the_first_ones_frame():
    first, later = camera_pose(0, -0.3), camera_pose(1.2, 0.5, 0.2)
    seen = Gravity(down_of(later), 0.01, GravitySource.IMU).seen_from(first.T @ later)
    np.testing.assert_allclose(seen.down, down_of(first), atol=1e-12)
    assert seen.source is GravitySource.IMU
