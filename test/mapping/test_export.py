"""Saved maps: other programs read back exactly what was in the map, and failures leave nothing behind."""

from __future__ import annotations

import builtins
import collections
import json
import os
import shutil

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

open3d = pytest.importorskip('open3d')
pycolmap = pytest.importorskip('pycolmap')

from vggt_ros.camera import invert, project, transform
from vggt_ros.files.trajectory import Trajectory, read_tum
from vggt_ros.mapping.export import MapExportError, save_map
from vggt_ros.mapping.history import Pinhole
from vggt_ros.mapping.voxel_map import MapCloud
from vggt_ros.types import Scale

K = np.array([[410.25, 0, 319.5], [0, 412.75, 238.125], [0, 0, 1.0]])
SIZE = (640, 480)


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    T[:, :3, 3] = rng.normal(0, 5, (count, 3))
    return T


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    xyz = rng.normal(0, 3, (500, 3)).astype(np.float32)
    cloud = MapCloud(xyz, rng.integers(0, 256, (500, 3), np.uint8), np.full(500, 0.9, np.float32))
    T = poses(rng, 6)
    trajectory = Trajectory(1_700_000_000_123_456_789 + 100_000_001 * np.arange(6), T)
    images = [Pinhole(f'{i:06d}.png', K if i < 4 else K * [[1.1], [1.1], [1]], SIZE, T[i]) for i in (0, 2, 5)]
    return cloud, trajectory, images


def test_everything_is_read_back_as_it_was(tmp_path, parts):
    cloud, trajectory, images = parts
    answer = save_map(tmp_path / 'new' / 'map', cloud, trajectory, images, Scale.METRIC, epoch=3)
    assert answer == f'500 points, 6 poses and 3 keyframes in {tmp_path}/new/map; unit: metres'
    folder = tmp_path / 'new' / 'map'
    assert sorted(os.listdir(tmp_path / 'new')) == ['map']
    for name in ('map.ply', 'map.pcd'):
        read = open3d.io.read_point_cloud(str(folder / name))
        np.testing.assert_array_equal(np.asarray(read.points).astype(np.float32), cloud.xyz)
        np.testing.assert_array_equal((np.asarray(read.colors) * 255).round(), cloud.rgb)
    again = read_tum(folder / 'trajectory.txt')
    np.testing.assert_array_equal(again.stamps, trajectory.stamps)
    np.testing.assert_allclose(again.T_world_camera[:, :3, 3], trajectory.T_world_camera[:, :3, 3], rtol=0, atol=1e-9)
    np.testing.assert_allclose(again.T_world_camera, trajectory.T_world_camera, rtol=0, atol=3e-9)
    fields = json.loads((folder / 'metadata.json').read_text())
    assert (fields['unit'], fields['scale'], fields['epoch'], fields['points']) == ('metres', 'METRIC', 3, 500)


def test_colmap_projects_as_this_package_does(tmp_path, parts):
    cloud, trajectory, images = parts
    save_map(tmp_path / 'map', cloud, trajectory, images, Scale.RELATIVE)
    model = pycolmap.Reconstruction(str(tmp_path / 'map' / 'colmap'))
    assert (model.num_images(), model.num_reg_images(), model.num_cameras(), model.num_points3D()) == (3, 3, 2, 500)
    order = sorted(model.points3D)
    stored = np.array([model.points3D[i].xyz for i in order])
    np.testing.assert_array_equal(stored.astype(np.float32), cloud.xyz)
    np.testing.assert_array_equal([model.points3D[i].color for i in order], cloud.rgb)
    for image in images:
        read = model.find_image_with_name(image.name)
        expected = invert(image.T_map_camera)
        np.testing.assert_allclose(read.cam_from_world().matrix(), expected[:3], rtol=0, atol=1e-9)
        local = transform(expected, cloud.xyz.astype(np.float64))
        seen = local[:, 2] > 0.1
        assert seen.sum() > 50
        # COLMAP's first pixel has its centre at (0.5, 0.5), ours at (0, 0).
        ours = project(local[seen], image.K) + 0.5
        theirs = np.array([read.project_point(xyz) for xyz in cloud.xyz[seen].astype(np.float64)])
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / 'map' / 'metadata.json').read_text())['unit'] == 'relative'


def test_an_empty_map_is_not_saved(tmp_path, parts):
    _, trajectory, images = parts
    empty = MapCloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32))
    with pytest.raises(MapExportError, match='no map yet'):
        save_map(tmp_path / 'map', empty, trajectory, images, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []


def test_existing_files_are_never_touched(tmp_path, parts):
    (tmp_path / 'map').mkdir()
    save_map(tmp_path / 'map', *parts, Scale.RELATIVE)  # an empty folder is taken
    before = (tmp_path / 'map' / 'map.ply').read_bytes()
    with pytest.raises(MapExportError, match='not an empty folder'):
        save_map(tmp_path / 'map', *parts, Scale.RELATIVE)
    with pytest.raises(MapExportError, match='not an empty folder'):
        save_map(tmp_path / 'map' / 'map.ply', *parts, Scale.RELATIVE)
    for below in ('below', 'far/below'):
        with pytest.raises(MapExportError, match='cannot be written: a part of this path is a file'):
            save_map(tmp_path / 'map' / 'map.ply' / below, *parts, Scale.RELATIVE)
    assert (tmp_path / 'map' / 'map.ply').read_bytes() == before


def test_a_folder_that_cannot_be_is_told_in_words(tmp_path, parts, monkeypatch):
    with pytest.raises(MapExportError, match=r'is no folder here.*give a full path'):
        save_map('~nobody_has_this_name/map', *parts, Scale.RELATIVE)
    with pytest.raises(MapExportError, match='cannot be written: File name too long'):
        save_map(tmp_path / ('x' * 300), *parts, Scale.RELATIVE)
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    (tmp_path / 'here').rmdir()
    with pytest.raises(MapExportError, match='map is no folder here'):
        save_map('map', *parts, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []


def test_what_pycolmap_refuses_is_told_and_leaves_nothing_behind(tmp_path, parts, monkeypatch):
    def refuse(model, folder):
        raise ValueError('Check failed: (file).is_open()')

    monkeypatch.setattr(pycolmap.Reconstruction, 'write', refuse)
    with pytest.raises(MapExportError, match='pycolmap could not write the model: Check failed'):
        save_map(tmp_path / 'map', *parts, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_written(tmp_path, parts, monkeypatch):
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(MapExportError, match='make room or save elsewhere'):
        save_map(tmp_path / 'map', *parts, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(tmp_path, parts, monkeypatch):
    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(MapExportError, match='No space left on device'):
        save_map(tmp_path / 'map', *parts, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('name', ['open3d', 'pycolmap'])
def test_a_missing_package_is_named(tmp_path, parts, monkeypatch, name):
    real = builtins.__import__

    def without(module, *args, **kwargs):
        if module == name:
            raise ImportError(f'No module named {name!r}')
        return real(module, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(MapExportError, match=f'pip install "?{name}'):
        save_map(tmp_path / 'map', *parts, Scale.RELATIVE)
    assert os.listdir(tmp_path) == []
