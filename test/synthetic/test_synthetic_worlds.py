"""Worlds, camera paths, tracks and effects against what they promise."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.synthetic import effects, trajectory
from vggt_ros.synthetic.places import KINDS, make_world, random_world
from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import alias, default_intrinsics, make_sequence
from vggt_ros.synthetic.textures import COUNT, SIZE, TEXELS, bank, texture
from vggt_ros.synthetic.trajectory import CLEARANCE, CameraPath, is_clear, look_at, make_trajectory

SMALL = (96, 72)
K = default_intrinsics(SMALL)


def same(a, b) -> bool:
    """Whether two dataclasses of arrays are equal to the bit."""
    if hasattr(a, '__dataclass_fields__'):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize('kind', KINDS)
def test_a_world_is_decided_by_its_arguments(kind):
    options = {'mirrors': True, 'moving': True}
    assert same(make_world(kind, 3, **options), make_world(kind, 3, **options))
    assert not same(make_world(kind, 3, **options), make_world(kind, 4, **options))
    world = make_world(kind, 3)
    assert world.material.max() < len(world.materials.texture)
    assert (world.half > 0).all()
    assert set(np.unique(world.object_id)) == set(world.names)
    assert len(make_world(kind, 3, clutter=0.0).shape) <= len(world.shape)


def test_options_do_what_they_say():
    assert make_world('room', 1, moving=True).moving.any()
    assert not make_world('room', 1).moving.any()
    assert make_world('room', 1, mirrors=True).materials.glass.any()
    assert not make_world('street', 1).materials.mirror.any()
    shell = make_world('room', 1, bare=True)
    walls = shell.material[shell.object_id == 1][0]
    contrast = [np.ptp(texture(int(one)).astype(int), axis=(0, 1)).max() for one in shell.materials.texture[walls[:4]]]
    assert max(contrast) < 60
    assert {random_world(seed).kind for seed in range(30)} >= {'room', 'hall', 'street', 'park', 'corridor'}


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match='unknown kind of world'):
        make_world('castle', 0)
    with pytest.raises(ValueError, match='unknown kind of trajectory'):
        make_trajectory(make_world('room', 0), 'flight', 0, 5)
    with pytest.raises(ValueError, match='at least one frame'):
        make_trajectory(make_world('room', 0), 'orbit', 0, 0)


def test_textures_tile_and_their_levels_are_means():
    assert bank().shape == (COUNT, TEXELS, 3)
    full = bank()[:, : SIZE * SIZE].astype(float).mean(1)
    coarsest = bank()[:, -16:].astype(float).mean(1)
    assert np.abs(full - coarsest).max() < 2.5
    brick = texture(12 * 5).astype(int)  # the seam is no rougher than the inside
    assert np.abs(brick[0] - brick[-1]).mean() < 3 * np.abs(np.diff(brick, axis=0)).mean() + 5


@pytest.mark.parametrize('kind', trajectory.KINDS)
def test_paths_are_smooth_level_and_keep_clear(kind):
    for place, seed in (('room', 1), ('corridor', 2), ('street', 3)):
        world = make_world(place, seed, moving=seed == 1)
        path = make_trajectory(world, kind, seed, 40)
        T = path.T_world_camera
        np.testing.assert_allclose(
            T[:, :3, :3] @ T[:, :3, :3].transpose(0, 2, 1), np.tile(np.eye(3), (40, 1, 1)), atol=1e-9
        )
        assert (np.linalg.det(T[:, :3, :3]) > 0).all()
        assert (np.diff(path.stamps) == 100_000_000).all()
        assert path.stamps[0] > 0
        assert is_clear(world, path)
        closest = [world.distance(pose[None, :3, 3], time)[0] for pose, time in zip(T, path.times, strict=True)]
        assert min(closest) >= CLEARANCE
        assert (T[:, 2, 1] < 0).all()  # the image's down is down in the world
        assert same(path, make_trajectory(world, kind, seed, 40))
        if kind != 'teleport':
            assert np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1).max() < 1.0
            turns = invert(T[:-1]) @ T[1:]
            angle = np.degrees(np.arccos(np.clip((np.trace(turns[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1, 1)))
            assert angle.max() < 20


def test_special_paths():
    world = make_world('room', 2)
    turn = make_trajectory(world, 'rotation', 0, 30).T_world_camera
    assert np.ptp(turn[:, :3, 3], axis=0).max() == 0
    assert not np.allclose(turn[0], turn[-1])
    still = make_trajectory(world, 'standstill', 0, 30).T_world_camera
    assert (still == still[0]).all()
    jump = make_trajectory(make_world('hall', 1), 'teleport', 0, 40).T_world_camera
    steps = np.linalg.norm(np.diff(jump[:, :3, 3], axis=0), axis=1)
    assert set(np.argsort(steps)[-2:]) == {17, 29}
    loop = make_trajectory(world, 'loop', 0, 101).T_world_camera
    np.testing.assert_allclose(loop[80:], loop[:21], atol=1e-6)
    assert np.linalg.norm(np.ptp(loop[:, :3, 3], axis=0)) > 0.5


def test_look_at_points_the_axes():
    T = look_at(np.array([1.0, 2.0, 3.0]), np.array([1.0, 7.0, 3.0]))
    np.testing.assert_allclose(T[:3, :3], np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-12)
    np.testing.assert_allclose(T[:3, 3], (1, 2, 3))


def test_look_alike_places_look_alike():
    world = make_world('twins', 1)
    pose = make_trajectory(world, 'handheld', 1, 1).T_world_camera[0]
    twin = pose.copy()
    middle = np.round(len(np.unique(np.round(world.lights.position[:, 0], 3))) / 2)
    first = alias(world, pose) @ pose
    np.testing.assert_allclose(alias(world, first) @ first, first)
    # One bay further on, everything but the ends is the same.
    pose[:3, 3] = first[:3, 3] + middle * world.period
    twin[:3, 3] = first[:3, 3] + (middle - 1) * world.period
    assert np.allclose(alias(world, pose) @ pose, alias(world, twin) @ twin)
    here, there = (render(Scene.pack(world), one[None], K, SMALL) for one in (pose, twin))
    near = (here.depth < 6) & (there.depth < 6)
    assert near.float().mean() > 0.4
    assert ((here.depth - there.depth).abs()[near] < 1e-3).float().mean() > 0.97
    assert (here.rgb - there.rgb).abs().amax(-1)[near].median() < 0.05


@pytest.mark.parametrize('moving', [False, True])
def test_tracks_agree_with_depth_and_poses(moving):
    sequence = make_sequence('room', 3, 'orbit', 6, size=(160, 120), world_options={'moving': moving})
    rng = np.random.default_rng(0)
    queries = rng.integers((0, 0), sequence.size, (200, 2)).astype(float)
    tracks = sequence.tracks(queries, frame=2)
    uv, depth, visible, points = (getattr(tracks, name)[0].numpy() for name in ('uv', 'depth', 'visible', 'points'))
    T = sequence.trajectory.T_world_camera
    np.testing.assert_allclose(uv[2], queries, atol=1e-4)
    assert visible[2].all()
    u, v = queries.astype(int).T
    np.testing.assert_allclose(depth[2], sequence.depth[2][v, u], rtol=1e-5)
    np.testing.assert_array_equal(tracks.object_id[0].numpy(), sequence.object_id[2][v, u])
    # Where a point stays still, its track is the projection of one world point.
    still = ~np.isin(tracks.object_id[0].numpy(), np.unique(sequence.world.object_id[sequence.world.moving]))
    world_points = transform(T[2], rays(queries, sequence.K) * sequence.depth[2][v, u][:, None])
    hidden = []
    for frame in range(6):
        np.testing.assert_allclose(points[frame][still], world_points[still], atol=1e-4)
        expected = project(transform(invert(T[frame]), points[frame]), sequence.K)
        np.testing.assert_allclose(uv[frame], expected, atol=1e-6)
        # Seen points lie on the depth image, hidden ones behind it.
        inside = (
            np.isfinite(uv[frame]).all(1) & (uv[frame] > 0).all(1) & (uv[frame] < np.array(sequence.size) - 1).all(1)
        )
        nearest = sequence.depth[frame][tuple(np.round(uv[frame][inside]).astype(int).T[::-1])]
        ratio = nearest / depth[frame][inside]
        assert np.median(np.abs(ratio[visible[frame][inside]] - 1)) < 5e-3
        hidden.append(ratio[~visible[frame][inside]])
    assert len(np.concatenate(hidden)) > 10
    assert (np.concatenate(hidden) < 1.02).mean() > 0.9
    assert 0.2 < visible.mean() < 1
    if moving:
        assert np.abs(points[5][~still] - points[2][~still]).max() > 0.02


def test_exposure_vignette_noise_blur_jpeg():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    flat = np.full((120, 160, 3), 100, np.uint8)
    assert np.array_equal(effects.exposure(image, 0.0), image)
    # One stop is twice the light: a factor 2^(1 / 2.2) in grey levels.
    assert (effects.exposure(flat, 1.0) == round(100 * 2 ** (1 / 2.2))).all()
    assert (effects.exposure(flat, 9.0) == 255).all()
    dark = effects.vignette(flat, 0.5)
    assert dark[60, 80, 0] == 100
    assert dark[0, 0, 0] == round(100 * 0.5 ** (1 / 2.2))
    noisy = effects.noise(flat, rng, read=3.0, shot=0.16).astype(float)
    assert noisy.std() == pytest.approx(np.sqrt(9 + 16), rel=0.03)
    assert noisy.mean() == pytest.approx(100, abs=0.2)
    assert np.abs(np.diff(effects.blur(image, 2.0).astype(int), axis=1)).mean() < 20
    assert effects.jpeg(flat, 90).shape == flat.shape
    assert np.abs(effects.jpeg(flat, 90).astype(int) - 100).max() <= 2


def test_distortion_is_opencvs():
    points = np.zeros((72, 96, 3), np.uint8)
    K_wide = default_intrinsics((144, 108), 95)
    coefficients = np.array([-0.25, 0.08, 0.002, -0.001, 0.0])
    wide = np.zeros((108, 144, 3), np.uint8)
    target = np.array([0.35, -0.2, 1.0])
    u, v = np.round(project(target, K_wide)).astype(int)
    wide[v, u] = 255
    ideal = np.array([(u - K_wide[0, 2]) / K_wide[0, 0], (v - K_wide[1, 2]) / K_wide[1, 1], 1.0])
    wanted = cv2.projectPoints(ideal[None], np.zeros(3), np.zeros(3), K, coefficients)[0].ravel()
    points = effects.distort(wide, K_wide, K, coefficients, SMALL)[..., 0].astype(float)
    rows, columns = np.mgrid[:72, :96]
    centre = np.array([(points * columns).sum(), (points * rows).sum()]) / points.sum()
    np.testing.assert_allclose(centre, wanted, atol=0.3)
    image = make_sequence('room', 0, frames=1, size=SMALL).images[0]
    np.testing.assert_array_equal(effects.distort(image, K, K, np.zeros(5), SMALL), image)


def test_rolling_shutter_gives_each_row_its_pose():
    world = make_world('room', 1)
    path = make_trajectory(world, 'handheld', 1, 10)
    size = (48, 36)
    K_small = default_intrinsics(size)
    image, depth = effects.rolling_shutter(world, path, path.times[2], 0.2, K_small, size)
    for row, time in ((0, path.times[2]), (35, path.times[4])):
        pose = effects.interpolate(path, np.array([time]))
        seen = render(Scene.pack(world), pose, K_small, size)
        np.testing.assert_allclose(depth[row], seen.depth[0, 0, row], rtol=1e-4)
        assert np.abs(image[row] - 255 * seen.rgb[0, 0, row].numpy()).max() < 2
    still = CameraPath(path.times, np.tile(path.T_world_camera[:1], (10, 1, 1)))
    sharp = render(Scene.pack(world), still.T_world_camera[:1], K_small, size).rgb[0, 0].numpy()
    blurred = effects.motion_blur(world, still, path.times[3], 0.05, K_small, size)
    assert np.abs(blurred - 255 * sharp).max() < 1.0
    moved = effects.motion_blur(world, path, path.times[3], 0.1, K_small, size)
    assert np.abs(np.diff(moved.astype(int), axis=1)).mean() < np.abs(np.diff(255 * sharp, axis=1)).mean()


def test_poses_between_frames():
    path = make_trajectory(make_world('room', 1), 'handheld', 1, 10)
    np.testing.assert_allclose(effects.interpolate(path, path.times), path.T_world_camera, atol=1e-12)
    halfway = effects.interpolate(path, path.times[3:4] + 0.05)[0]
    np.testing.assert_allclose(halfway[:3, 3], path.T_world_camera[3:5, :3, 3].mean(0), atol=1e-12)
    np.testing.assert_allclose(effects.interpolate(path, np.array([99.0]))[0], path.T_world_camera[-1])


def test_rendering_needs_torch_and_numpy_only():
    """A training run on a bare machine."""
    missing = 'import sys; sys.modules.update(dict.fromkeys(["scipy", "cv2", "yaml", "tqdm", "rosbags", "rclpy"]))'
    modules = ', '.join(
        f'vggt_ros.synthetic.{name}' for name in ('places', 'trajectory', 'render', 'tracks', 'sequence')
    )
    subprocess.run([sys.executable, '-c', f'{missing}; import {modules}'], check=True, timeout=120)


def test_scene_moves_to_torch_once():
    scene = Scene.pack(make_world('room', 0))
    assert scene.bank.dtype == torch.int32
    assert scene.bank.data_ptr() == Scene.pack(make_world('hall', 0)).bank.data_ptr()
