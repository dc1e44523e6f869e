"""Corners as points of the map, against exact geometry."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, invert, project, transform
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.windows.landmarks import (
    Landmarks,
    View,
    bridged,
    by_depth,
    locate,
    locate_turned,
    triangulate,
    two_views,
)
from vggt_ros.synthetic.trajectory import look_at

SIZE = (518, 392)
K = np.array([[400.0, 0, 258.5], [0, 400, 195.5], [0, 0, 1]])
RNG = np.random.default_rng(7)
POINTS = np.stack([RNG.uniform(-2, 2, 80), RNG.uniform(4, 7, 80), RNG.uniform(-1.5, 1.5, 80)], axis=1)
IDS = np.arange(100, 180)


def camera(x, z=0.0):
    position = np.array([x, 0.0, z])
    return look_at(position, position + np.array([0.05, 1.0, 0.02]))


def seen(T, uv=None, ids=IDS):
    uv = project(transform(invert(T), POINTS), K) if uv is None else uv
    return Corners(0, 0, SIZE, ids, uv, 1.0, 0.0)


def view(T, **options):
    return View(T, K, seen(T, **options))


def test_points_are_where_the_rays_meet():
    found = triangulate([view(camera(x)) for x in (-0.5, 0.0, 0.6)])
    np.testing.assert_array_equal(found.id, IDS)
    np.testing.assert_allclose(found.xyz, POINTS, atol=1e-9)


def test_a_corner_that_one_view_alone_sees_is_no_point():
    first, second = camera(-0.5), camera(0.5)
    half = slice(0, 40)
    pixels = project(transform(invert(second), POINTS), K)[half]
    found = triangulate([view(first), View(second, K, seen(second, pixels, IDS[half]))])
    np.testing.assert_array_equal(found.id, IDS[half])


def test_no_views_and_no_common_corners_are_no_points():
    assert len(triangulate([]).id) == 0
    a, b = camera(-0.5), camera(0.5)
    assert len(triangulate([view(a), view(b, ids=IDS + 1000)]).id) == 0


def test_views_from_one_place_tell_no_depth():
    assert len(triangulate([view(camera(0.0)), view(camera(0.01))]).id) == 0


def test_a_corner_that_slid_away_is_no_point():
    first, second, third = camera(-0.5), camera(0.0), camera(0.6)
    pixels = project(transform(invert(second), POINTS), K)
    pixels[::10, 1] += 15
    found = triangulate([view(first), view(second, uv=pixels), view(third)])
    assert not np.isin(IDS[::10], found.id).any()
    assert len(found.id) == 72


@pytest.mark.parametrize('wrong', [0.0, 0.4])
def test_an_image_is_located_whatever_some_of_its_corners_say(wrong):
    T = camera(0.3, 0.2)
    pixels = project(transform(invert(T), POINTS), K)
    lies = np.random.default_rng(1).random(len(pixels)) < wrong
    pixels[lies] += np.random.default_rng(2).uniform(20, 80, (lies.sum(), 2))
    found = locate(Landmarks(IDS, POINTS), seen(T, pixels), K)
    np.testing.assert_allclose(found, T, atol=1e-4)


def test_an_image_that_few_points_or_few_of_many_agree_on_is_not_located():
    T = camera(0.3)
    assert locate(Landmarks(IDS[:10], POINTS[:10]), seen(T), K) is None
    anywhere = np.random.default_rng(3).uniform(0, 390, (80, 2))
    assert locate(Landmarks(IDS, POINTS), seen(T, anywhere), K) is None


def test_depth_puts_corners_into_the_map():
    T, pixel_map = camera(0.3), PixelMap(SIZE, SIZE, (0, 0), SIZE)
    depth = np.full(SIZE[::-1], 5.0, np.float32)
    depth[:, :100] = np.nan
    corners = seen(T)
    found = by_depth(View(T, K, corners), depth, pixel_map)
    known = corners.uv[:, 0] > 101
    np.testing.assert_array_equal(np.intersect1d(found.id, IDS[known]), IDS[known])
    local = transform(invert(T), found.xyz)
    np.testing.assert_allclose(local[:, 2], 5, atol=1e-6)
    np.testing.assert_allclose(project(local, K), corners.uv[np.isin(IDS, found.id)], atol=1e-6)


def test_what_is_known_already_is_not_replaced():
    both = Landmarks(np.array([3, 7]), np.ones((2, 3))).and_others(Landmarks(np.array([5, 7]), np.zeros((2, 3))))
    np.testing.assert_array_equal(both.id, [3, 5, 7])
    np.testing.assert_array_equal(both.xyz[:, 0], [1, 0, 1])


@pytest.mark.parametrize('wrong', [0.0, 0.3])
def test_two_images_tell_how_the_camera_turned_and_where_it_went(wrong):
    first, second = camera(-0.5), camera(0.4, 0.1)
    pixels = project(transform(invert(second), POINTS), K)
    lies = np.random.default_rng(1).random(len(pixels)) < wrong
    pixels[lies] += np.random.default_rng(2).uniform(20, 80, (lies.sum(), 2))
    found, wanted = two_views(seen(first), seen(second, pixels), K), invert(first) @ second
    np.testing.assert_allclose(found[:3, :3], wanted[:3, :3], atol=1e-3)
    np.testing.assert_allclose(found[:3, 3], wanted[:3, 3] / np.linalg.norm(wanted[:3, 3]), atol=5e-3)


def test_two_images_with_little_in_common_tell_nothing():
    first, second = camera(-0.5), camera(0.4)
    assert two_views(seen(first), seen(second, ids=IDS + 70), K) is None
    anywhere = np.random.default_rng(3).uniform(0, 390, (80, 2))
    assert two_views(seen(first), seen(second, anywhere), K) is None


def test_few_landmarks_tell_how_far_the_camera_went():
    first, second = camera(-0.5), camera(0.4, 0.1)
    few = Landmarks(IDS[:6], POINTS[:6])
    np.testing.assert_allclose(bridged(view(first), seen(second), few), second, atol=5e-3)
    assert bridged(view(first), seen(second), Landmarks(IDS[:4], POINTS[:4])) is None


@pytest.mark.parametrize('seed', range(8))
def test_a_camera_that_hardly_moved_has_not_turned_by_half_a_turn(seed):
    """The way is too short for points behind the camera to tell the two turns of an essential matrix apart."""
    rng = np.random.default_rng(seed)
    first, second = camera(0.0), camera(0.002)
    second[:3, :3] = first[:3, :3] @ Rotation.from_rotvec(np.radians(rng.normal(0, 4, 3))).as_matrix()
    a, b = (
        seen(T, project(transform(invert(T), POINTS), K) + rng.normal(0, 0.3, (len(POINTS), 2)))
        for T in (first, second)
    )
    found = two_views(a, b, K)
    assert found is not None
    off = Rotation.from_matrix(found[:3, :3].T @ first[:3, :3].T @ second[:3, :3]).magnitude()
    assert np.degrees(off) < 2


def test_a_camera_that_only_turned_went_nowhere():
    first, second = camera(0.0), camera(0.0)
    second[:3, :3] = second[:3, :3] @ Rotation.from_rotvec([0.02, 0.1, 0]).as_matrix()
    noisy = project(transform(invert(second), POINTS), K) + np.random.default_rng(4).normal(size=(80, 2)) * 0.1
    found = bridged(view(first), seen(second, noisy), Landmarks(IDS, POINTS))
    np.testing.assert_allclose(found[:3, :3], second[:3, :3], atol=5e-3)
    np.testing.assert_allclose(found[:3, 3], second[:3, 3], atol=0.05)


def test_a_camera_whose_turn_is_known_is_where_most_points_say():
    T = camera(0.3)
    landmarks = Landmarks(IDS, POINTS + np.where(np.arange(80)[:, None] % 4 == 0, 1.0, 0.0))  # a quarter of them is off
    found = locate_turned(landmarks, seen(T), K, T[:3, :3])
    np.testing.assert_allclose(found, T, atol=2e-3)
    assert locate_turned(Landmarks(IDS[:10], POINTS[:10]), seen(T), K, T[:3, :3]) is None
    # Turned by a right angle, none of them is where it should be.
    assert locate_turned(landmarks, seen(T), K, T[:3, :3] @ Rotation.from_rotvec([0, np.pi / 2, 0]).as_matrix()) is None
