"""Pixel maps, intrinsics and projection against exact points."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros import camera

SIZES = [(640, 480), (480, 640), (1920, 1080), (540, 360), (224, 168), (641, 479), (33, 1000), (20, 20)]


@pytest.mark.parametrize('source', SIZES)
@pytest.mark.parametrize('longest', [518, 224, 126])
def test_points_survive_source_crop_resize_network_and_back(source, longest):
    rng = np.random.default_rng(0)
    width, height = source
    K = np.array([[0.9 * width, 0, 0.47 * width], [0, 0.95 * width, 0.52 * height], [0, 0, 1]])
    points = np.stack([rng.uniform(-2, 2, 500), rng.uniform(-2, 2, 500), rng.uniform(0.5, 20, 500)], axis=1)
    pixel_map = camera.fit(source, longest)

    uv = camera.project(points, K)
    K_network = pixel_map.K_to_network(K)
    uv_network = camera.project(points, K_network)

    np.testing.assert_allclose(pixel_map.to_network(uv), uv_network, atol=1e-6)
    np.testing.assert_allclose(pixel_map.to_source(uv_network), uv, atol=1e-6)
    np.testing.assert_allclose(pixel_map.K_to_source(K_network), K, atol=1e-9)
    back = camera.rays(uv_network, K_network) * points[:, 2:]
    np.testing.assert_allclose(back, points, atol=1e-9)


@pytest.mark.parametrize('source', SIZES)
@pytest.mark.parametrize('longest', [518, 224])
def test_fit_keeps_the_aspect_ratio_and_nearly_the_whole_image(source, longest):
    pixel_map = camera.fit(source, longest)
    assert max(pixel_map.size) == longest
    assert all(side % 14 == 0 for side in pixel_map.size)
    # Uniform up to the rounding of the resized image to whole pixels.
    assert np.ptp(pixel_map.scale) <= 0.5 / min(source) + 1e-12
    cropped = np.array(pixel_map.resized) - pixel_map.size
    assert (cropped >= 0).all()
    if min(source) > 100:
        assert (cropped <= 0.02 * longest + 7).all()


def test_resized_image_edges_meet_source_edges():
    """The outer border of the image, half a pixel beyond its last centres, maps to the border of the resized one."""
    pixel_map = camera.PixelMap((640, 480), (320, 240), (0, 0), (320, 240))
    np.testing.assert_allclose(pixel_map.to_network([[-0.5, -0.5], [639.5, 479.5]]), [[-0.5, -0.5], [319.5, 239.5]])
    np.testing.assert_allclose(pixel_map.to_network([[0.5, 0.5]]), [[0, 0]])  # between the first two source pixels


@pytest.mark.parametrize(('source', 'longest'), [((0, 480), 518), ((640, 480), 500), ((640, 480), 0)])
def test_fit_refuses_nonsense(source, longest):
    with pytest.raises(ValueError, match=r'empty|multiple'):
        camera.fit(source, longest)


def test_intrinsics_have_the_field_of_view_and_its_principal_point():
    fov = np.array([[0.8, 1.1], [0.5, 0.4]])
    K = camera.intrinsics_from_fov(fov[:, 0], fov[:, 1], (518, 392))
    np.testing.assert_allclose(2 * np.arctan2(518 / 2, K[:, 0, 0]), fov[:, 1], atol=1e-12)
    np.testing.assert_allclose(2 * np.arctan2(392 / 2, K[:, 1, 1]), fov[:, 0], atol=1e-12)
    np.testing.assert_allclose(K[:, 0, 2], 258.5)
    np.testing.assert_allclose(K[:, 1, 2], 195.5)
    # A pinhole sees exactly its field of view between the outer borders of the image.
    left, right = camera.rays(np.array([[-0.5, 195.5], [517.5, 195.5]]), K[0])
    assert np.arctan(right[0]) - np.arctan(left[0]) == pytest.approx(1.1)


def test_zero_field_of_view_is_no_camera():
    K = camera.intrinsics_from_fov(np.array([0.0, 1.0]), np.array([1.0, 1.0]), (100, 80))
    assert np.isnan(K[0, 1, 1])
    assert np.isfinite(K[1]).all()


def test_unproject_inverts_project_and_keeps_nan():
    K = np.array([[50.0, 0, 20], [0, 52, 15], [0, 0, 1]])
    depth = np.random.default_rng(1).uniform(1, 5, (30, 40))
    depth[3, 4] = np.nan
    points = camera.unproject(depth, K)
    uv = camera.project(points, K)
    expected = camera.pixel_grid((40, 30))
    expected[3, 4] = np.nan
    np.testing.assert_allclose(uv, expected, atol=1e-9)
    assert np.isnan(camera.project(np.array([[0, 0, -1.0], [0, 0, 0]]), K)).all()


def test_rigid_inverse():
    T = np.tile(np.eye(4), (5, 1, 1))
    T[:, :3, :3] = Rotation.random(5, random_state=np.random.default_rng(2)).as_matrix()
    T[:, :3, 3] = np.random.default_rng(3).normal(size=(5, 3))
    np.testing.assert_allclose(camera.invert(T) @ T, np.tile(np.eye(4), (5, 1, 1)), atol=1e-12)
