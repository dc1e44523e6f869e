"""Corners that move as a rigid scene does, and those that do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert, project, transform
from vggt_ros.odometry.epipolar import EPIPOLAR, agreeing

K = np.array([[450.0, 0, 260], [0, 450.0, 190], [0, 0, 1]])
SIZE = np.array([520, 380])


def seen(turn: tuple[float, float, float], shift: tuple[float, float, float], count: int = 300, flat: bool = False):
    """(N, 2) of the same points in two images, with 0.1 px of noise, and a generator for more."""
    rng = np.random.default_rng(3)
    a = rng.uniform(0, SIZE, (count, 2))
    z = np.full(count, 3.0) if flat else rng.uniform(1.5, 6.0, count)
    points = np.concatenate([(a - K[:2, 2]) / K[0, 0], np.ones((count, 1))], axis=1) * z[:, None]
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(np.radians(turn)).as_matrix(), shift
    b = project(transform(invert(T), points), K)
    return a + rng.normal(0, 0.1, a.shape), b + rng.normal(0, 0.1, b.shape), rng


@pytest.mark.parametrize('known', [True, False])
@pytest.mark.parametrize(
    ('turn', 'shift', 'flat'),
    [((1, 8, 0), (0.1, 0, 0.02), False), ((0, 3, 1), (0, 0, 0), False), ((0, 2, 0), (0.1, 0.02, 0), True)],
    ids=['moved', 'only turned', 'a plane'],
)
def test_what_moves_by_itself_is_found(turn, shift, flat, known):
    a, b, rng = seen(turn, shift, flat=flat)
    wrong = np.arange(len(a)) % 3 == 0
    angle = rng.uniform(0, 2 * np.pi, wrong.sum())
    b[wrong] += 25 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    kept = agreeing(a, b, K if known else None, EPIPOLAR)
    assert kept[~wrong].mean() > 0.97
    assert kept[wrong].mean() < 0.2  # of some the way happens to lie along their line


def test_where_too_few_tell_all_are_kept():
    a, b, rng = seen((0, 5, 0), (0.1, 0, 0), 20)
    assert agreeing(a, b + rng.normal(0, 20, b.shape), K, EPIPOLAR).all()
    assert agreeing(np.zeros((0, 2)), np.zeros((0, 2)), K, EPIPOLAR).shape == (0,)


def test_where_no_motion_has_a_share_all_are_kept():
    rng = np.random.default_rng(0)
    assert agreeing(rng.uniform(0, SIZE, (200, 2)), rng.uniform(0, SIZE, (200, 2)), K, EPIPOLAR).all()


@pytest.mark.parametrize('known', [True, False])
def test_a_camera_that_stands_loses_nothing(known):
    a, b, _ = seen((0, 0, 0), (0, 0, 0))
    assert agreeing(a, b, K if known else None, EPIPOLAR).mean() > 0.99


@pytest.mark.parametrize('search', ['findEssentialMat', 'findFundamentalMat'])
def test_where_opencv_trips_all_are_kept(search, monkeypatch):
    """Its USAC fails an assertion on samples that tell nothing: seen on real pictures of an unknown camera."""

    def trips(*args):
        raise cv2.error('(-215:Assertion failed) !model.empty()')

    monkeypatch.setattr(cv2, search, trips)
    a = np.random.default_rng(0).uniform(0, 500, (100, 2))
    assert agreeing(a, a + 5, K if search == 'findEssentialMat' else None, 1.0).all()
