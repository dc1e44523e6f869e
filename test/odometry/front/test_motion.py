"""Standstill and blur: against motions that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.odometry.front.motion import MotionDetector
from vggt_ros.odometry.klt import Corners, KltTracker
from vggt_ros.synthetic.effects import blur
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


@pytest.mark.parametrize('rate', [5, 30, 120])
def test_slow_motion_is_no_standstill_at_any_rate(rate):
    """4 px a second: far below 0.4 px from image to image at a high rate."""
    detector, scene = MotionDetector(), Scene(near=2.0, far=2.2, pixel_noise=0.02)
    for i in range(3 * rate):
        seconds = i / rate
        assert not detector.update(scene.see(1000 * seconds, t=(4 * 2.1 / K[0, 0] * seconds, 0, 0))).stationary


def test_standstill_begins_after_half_a_second_and_ends_at_once():
    detector, scene = MotionDetector(), Scene(pixel_noise=0.15)
    stationary = [detector.update(scene.see(50 * i)).stationary for i in range(40)]
    assert stationary == [i >= 10 for i in range(40)]
    # Something that moves in a third of the image is not the camera's motion.
    scene.points = scene.points[np.argsort(scene.points[:, 0] / scene.points[:, 2])]
    detector, scene.images = MotionDetector(), 0
    for i in range(20):
        motion = detector.update(scene.see(50 * i, moving=0.02 * i))
    assert motion.stationary
    assert not detector.update(scene.see(1050, t=(0.02, 0, 0))).stationary


def test_500_noisy_images_of_a_standstill():
    image = make_sequence('room', 3, 'standstill', 1, (240, 180)).images[0].astype(np.float32)
    rng = np.random.default_rng(0)
    bank = rng.normal(0, 6, (16, *image.shape)).astype(np.float32)
    tracker, detector = KltTracker(), MotionDetector()
    for i in range(500):
        noisy = image + np.roll(bank[rng.integers(16)], tuple(rng.integers(0, 150, 2)), (0, 1))
        frame = Frame(i, 1_000_000_000 + i * 33 * MS, np.clip(noisy, 0, 255).astype(np.uint8))
        motion = detector.update(tracker.update(frame))
        assert motion.stationary == (i * 33 >= 500)
        assert not motion.blurred


def test_images_are_called_blurred_until_blur_is_normal():
    image = make_sequence('room', 3, 'standstill', 1, (320, 240)).images[0]
    tracker, detector = KltTracker(), MotionDetector()
    turned = [np.roll(image, 6 * i, axis=1) for i in range(60)]
    for i in range(10):
        assert not detector.update(tracker.update(Frame(i, 1 + i * 33 * MS, turned[i]))).blurred
    motion = detector.update(tracker.update(Frame(10, 1 + 330 * MS, blur(turned[10], 3.0))))
    assert motion.blurred
    blurred = [
        detector.update(tracker.update(Frame(i, 1 + i * 33 * MS, blur(turned[i], 3.0)))).blurred for i in range(11, 60)
    ]
    assert blurred[0]
    assert not blurred[-1]


def test_stamps_must_increase():
    detector, scene = MotionDetector(), Scene()
    detector.update(scene.see(100))
    with pytest.raises(ValueError, match='reset after a jump'):
        detector.update(scene.see(100))
    detector.reset()
    assert detector.update(scene.see(50)).still_since == 1_050_000_000
