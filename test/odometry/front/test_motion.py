"""Keyframes, standstill, pure rotation, blur: against motions that are known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.odometry.front.motion import KeyframeSelector, fit_rotation
from vggt_ros.odometry.klt import Corners, KltTracker
from vggt_ros.synthetic.effects import blur, noise
from vggt_ros.synthetic.sequence import default_intrinsics, make_sequence
from vggt_ros.types import Frame

SIZE = (518, 388)
K = default_intrinsics(SIZE)
MS = 1_000_000


class Scene:
    """Random points before a camera; what a perfect tracker would say of them, plus noise in px."""

    def __init__(self, seed: int = 0, count: int = 400, near: float = 2.0, far: float = 6.0, pixel_noise: float = 0.1):
        self.rng = np.random.default_rng(seed)
        uv = self.rng.uniform((0, 0), SIZE, (count, 2))
        self.points = rays(uv, K) * self.rng.uniform(near, far, (count, 1))
        self.noise, self.images = pixel_noise, 0

    def see(self, milliseconds: float, t=(0, 0, 0), turn=(0, 0, 0), moving: float = 0.0, sharpness: float = 100.0):
        """turn: rotation vector in degrees. moving: metres that the first 35 % of the points have moved sideways."""
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = Rotation.from_rotvec(np.radians(turn)).as_matrix(), t
        points = self.points.copy()
        points[: int(0.35 * len(points)), 0] += moving
        uv = project(transform(invert(T), points), K)
        uv = uv + self.rng.normal(0, self.noise, uv.shape)
        seen = ((uv >= 0) & (uv <= np.array(SIZE) - 1)).all(axis=1)
        self.images += 1
        stamp = int(milliseconds * MS) + 1_000_000_000
        return Corners(self.images, stamp, SIZE, np.flatnonzero(seen), uv[seen], sharpness, 0.0)


def test_the_first_image_with_corners_is_a_keyframe():
    selector, scene = KeyframeSelector(), Scene()
    empty = replace(scene.see(0), id=np.zeros(0, np.int64), uv=np.zeros((0, 2)))
    motion = selector.update(empty, K)
    assert not motion.keyframe
    assert np.isnan(motion.flow)
    motion = selector.update(scene.see(33), K)
    assert motion.keyframe
    assert motion.reason == 'first'


def test_sideways_motion_makes_keyframes_by_parallax():
    selector, scene = KeyframeSelector(), Scene(near=1.0, far=8.0)
    # The rotation is known: the parallax is exactly what the translation makes.
    selector.update(scene.see(0), K, np.eye(3))
    for i in range(1, 60):
        motion = selector.update(scene.see(33 * i, t=(0.004 * i, 0, 0)), K, np.eye(3))
        expected = np.median(K[0, 0] * 0.004 * i / scene.points[:, 2])
        assert motion.parallax == pytest.approx(expected, rel=0.03, abs=0.15)
        assert motion.keyframe == (motion.parallax > 12)
        if motion.keyframe:
            break
    assert motion.reason == 'parallax'
    # After it, everything is measured from there.
    motion = selector.update(scene.see(33 * i + 33, t=(0.004 * i + 0.004, 0, 0)), K, np.eye(3))
    assert not motion.keyframe
    assert motion.parallax < 2


def test_rotation_without_a_hint_is_found_and_makes_keyframes():
    selector, scene = KeyframeSelector(), Scene()
    selector.update(scene.see(0), K)
    for i in range(1, 20):
        motion = selector.update(scene.see(33 * i, turn=(0.1 * i, 0.6 * i, -0.2 * i)), K)
        truth = Rotation.from_rotvec(np.radians([0.1 * i, 0.6 * i, -0.2 * i]))
        assert (Rotation.from_matrix(motion.rotation) * truth.inv()).magnitude() < np.radians(0.02)
        assert motion.parallax < 0.5
        assert motion.pure_rotation == (truth.magnitude() > np.radians(5))
        if motion.keyframe:
            break
    assert motion.reason == 'rotation'
    assert truth.magnitude() == pytest.approx(np.radians(8), abs=np.radians(0.7))


def test_rotation_and_translation_together_are_no_pure_rotation():
    selector, scene = KeyframeSelector(), Scene(near=1.0, far=8.0)
    selector.update(scene.see(0), K)
    motion = selector.update(scene.see(300, t=(0.15, 0.06, 0), turn=(0, 6, 0)), K)
    assert motion.parallax > 2
    assert not motion.pure_rotation


def test_pure_rotation_survives_a_focal_length_wrong_by_five_percent():
    selector, scene = KeyframeSelector(), Scene()
    wrong = K * np.array([[1.05], [1.05], [1]])
    selector.update(scene.see(0), wrong)
    assert selector.update(scene.see(300, turn=(0, 6, 0)), wrong).pure_rotation


def test_moving_things_do_not_turn_the_camera():
    scene = Scene(seed=2)
    R = fit_rotation(*(rays(one.uv, K) for one in _common(scene.see(0), scene.see(33, turn=(0, 3, 1), moving=0.4))))
    truth = Rotation.from_rotvec(np.radians([0, 3, 1]))
    assert (Rotation.from_matrix(R) * truth.inv()).magnitude() < np.radians(0.1)


def _common(a: Corners, b: Corners):
    ids, rows_a, rows_b = np.intersect1d(a.id, b.id, return_indices=True)
    return replace(a, id=ids, uv=a.uv[rows_a]), replace(b, id=ids, uv=b.uv[rows_b])


def test_lost_corners_make_a_keyframe_but_a_blank_wall_does_not():
    selector, scene = KeyframeSelector(), Scene()
    selector.update(scene.see(0), K)
    full = scene.see(33, t=(0.02, 0, 0))
    few = replace(full, id=full.id[::2], uv=full.uv[::2])
    motion = selector.update(few, K)
    assert motion.tracked == pytest.approx(0.5, abs=0.03)
    assert motion.reason == 'tracked'
    blank = replace(scene.see(66), id=few.id[:15], uv=few.uv[:15])
    motion = selector.update(blank, K)
    assert not motion.keyframe
    assert np.isnan(motion.parallax)


def test_slow_motion_makes_a_keyframe_after_a_while():
    selector, scene = KeyframeSelector(), Scene()
    reasons = [selector.update(scene.see(100 * i, t=(0.0025 * i, 0, 0)), K, np.eye(3)).reason for i in range(20)]
    assert reasons[0] == 'first'
    assert reasons[15] == 'time'
    assert not any(reasons[1:15])


@pytest.mark.parametrize('rate', [5, 30, 120])
def test_slow_motion_is_no_standstill_at_any_rate(rate):
    """4 px a second: far below 0.4 px from image to image at a high rate."""
    selector, scene = KeyframeSelector(), Scene(near=2.0, far=2.2, pixel_noise=0.02)
    for i in range(3 * rate):
        seconds = i / rate
        assert not selector.update(scene.see(1000 * seconds, t=(4 * 2.1 / K[0, 0] * seconds, 0, 0)), K).stationary


def test_standstill_begins_after_half_a_second_and_ends_at_once():
    selector, scene = KeyframeSelector(), Scene(pixel_noise=0.15)
    stationary = [selector.update(scene.see(50 * i), K).stationary for i in range(40)]
    assert stationary == [i >= 10 for i in range(40)]
    # Something that moves in a third of the image is not the camera's motion.
    scene.points = scene.points[np.argsort(scene.points[:, 0] / scene.points[:, 2])]
    selector, scene.images = KeyframeSelector(), 0
    for i in range(20):
        motion = selector.update(scene.see(50 * i, moving=0.02 * i), K)
    assert motion.stationary
    assert not selector.update(scene.see(1050, t=(0.02, 0, 0)), K).stationary


def test_500_noisy_images_of_a_standstill():
    image = make_sequence('room', 3, 'standstill', 1, (240, 180)).images[0].astype(np.float32)
    rng = np.random.default_rng(0)
    bank = rng.normal(0, 6, (16, *image.shape)).astype(np.float32)
    tracker, selector = KltTracker(), KeyframeSelector()
    for i in range(500):
        noisy = image + np.roll(bank[rng.integers(16)], tuple(rng.integers(0, 150, 2)), (0, 1))
        frame = Frame(i, 1_000_000_000 + i * 33 * MS, np.clip(noisy, 0, 255).astype(np.uint8))
        motion = selector.update(tracker.update(frame), K)
        assert motion.stationary == (i * 33 >= 500)
        assert motion.keyframe == (i == 0)
        assert not motion.blurred


def test_turning_on_the_spot_in_a_rendered_room():
    sequence = make_sequence('room', 3, 'rotation', 12, (320, 240), rate=15.0)
    poses, rng = sequence.trajectory.T_world_camera, np.random.default_rng(0)
    tracker, selector = KltTracker(), KeyframeSelector()
    keyframe, turns = 0, 0
    for frame in sequence.frames:
        motion = selector.update(tracker.update(replace(frame, image=noise(frame.image, rng))), frame.K)
        if frame.index:
            truth = Rotation.from_matrix(poses[keyframe, :3, :3].T @ poses[frame.index, :3, :3])
            assert (Rotation.from_matrix(motion.rotation) * truth.inv()).magnitude() < np.radians(0.2)
            assert motion.parallax < 1
            assert motion.pure_rotation == (motion.angle > np.radians(5))
            turns += motion.pure_rotation
        if motion.keyframe:
            keyframe = frame.index
    assert turns >= 3


def test_blurred_images_are_no_keyframes_until_blur_is_normal():
    image = make_sequence('room', 3, 'standstill', 1, (320, 240)).images[0]
    tracker, selector = KltTracker(), KeyframeSelector()
    turned = [np.roll(image, 6 * i, axis=1) for i in range(60)]
    for i in range(10):
        assert not selector.update(tracker.update(Frame(i, 1 + i * 33 * MS, turned[i])), K).blurred
    motion = selector.update(tracker.update(Frame(10, 1 + 330 * MS, blur(turned[10], 3.0))), K)
    assert motion.blurred
    assert not motion.keyframe
    blurred = [
        selector.update(tracker.update(Frame(i, 1 + i * 33 * MS, blur(turned[i], 3.0))), K).blurred
        for i in range(11, 60)
    ]
    assert blurred[0]
    assert not blurred[-1]


def test_a_jump_of_exposure_is_said():
    scene = Scene()
    selector = KeyframeSelector()
    assert not selector.update(scene.see(0), K).exposure_jump
    assert selector.update(replace(scene.see(33), gain=-0.4), K).exposure_jump


def test_stamps_must_increase():
    selector, scene = KeyframeSelector(), Scene()
    selector.update(scene.see(100), K)
    with pytest.raises(ValueError, match='reset after a jump'):
        selector.update(scene.see(100), K)
    selector.reset()
    assert selector.update(scene.see(50), K).reason == 'first'
