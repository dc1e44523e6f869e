"""Saved maps: other programs read back exactly what was in the map, and failures leave nothing behind."""

from __future__ import annotations

import builtins
import collections
import json
import os
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert, project, transform
from vggt_ros.files.cloud import read_ply
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.trajectory import Trajectory, read_tum
from vggt_ros.mapping import export
from vggt_ros.mapping.export import FILES, MapExportError, NoMapError, SavedMap, save_map
from vggt_ros.mapping.history import Pinhole
from vggt_ros.mapping.voxel_map import MapCloud
from vggt_ros.types import Scale

K = np.array([[410.25, 0, 319.5], [0, 412.75, 238.125], [0, 0, 1.0]])
SIZE = (640, 480)


def poses(rng: np.random.Generator, count: int) -> np.ndarray:
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=rng).as_matrix()
    T[:, :3, 3] = rng.normal(0, 5, (count, 3))
    return T


def made_map(seed: int = 0, scale: Scale = Scale.RELATIVE, epoch: int = 0) -> SavedMap:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 3, (500, 3)).astype(np.float32)
    cloud = MapCloud(xyz, rng.integers(0, 256, (500, 3), np.uint8), np.full(500, 0.9, np.float32))
    T = poses(rng, 6)
    trajectory = Trajectory(1_700_000_000_123_456_789 + 100_000_001 * np.arange(6), T)
    jpeg = cv2.imencode('.jpg', np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))[1].tobytes()
    images = [Pinhole(f'{i:06d}.jpg', K if i < 4 else K * [[1.1], [1.1], [1]], SIZE, T[i], jpeg) for i in (0, 2, 5)]
    return SavedMap(cloud, trajectory, images, scale, epoch)


@pytest.fixture
def without(monkeypatch):
    """Makes a package impossible to import."""
    real = builtins.__import__

    def absent(name):
        def refuse(module, *args, **kwargs):
            if module == name:
                raise ImportError(f'No module named {name!r}')
            return real(module, *args, **kwargs)

        monkeypatch.setattr(builtins, '__import__', refuse)

    return absent


def test_everything_is_read_back_as_it_was(tmp_path):
    saved = made_map(scale=Scale.METRIC, epoch=3)
    answer = save_map(tmp_path / 'new' / 'map', saved)
    assert answer.startswith(f'500 points, 6 poses and 3 keyframes in {tmp_path}/new/map; unit: metres')
    folder = tmp_path / 'new' / 'map'
    assert sorted(os.listdir(tmp_path / 'new')) == ['map']
    xyz, rgb = read_ply(folder / 'map.ply')
    np.testing.assert_array_equal(xyz, saved.cloud.xyz)
    np.testing.assert_array_equal(rgb, saved.cloud.rgb)
    again = read_tum(folder / 'trajectory.txt')
    np.testing.assert_array_equal(again.stamps, saved.trajectory.stamps)
    np.testing.assert_allclose(again.T_world_camera[:, :3, 3], saved.trajectory.T_world_camera[:, :3, 3], atol=1e-9)
    np.testing.assert_allclose(again.T_world_camera, saved.trajectory.T_world_camera, rtol=0, atol=3e-9)
    poses = saved.trajectory.T_world_camera
    rows = np.loadtxt(folder / 'kitti_trajectory.txt').reshape(-1, 3, 4)
    np.testing.assert_allclose(rows, (invert(poses[0]) @ poses)[:, :3], rtol=0, atol=1e-8)
    fields = json.loads((folder / 'metadata.json').read_text())
    assert (fields['unit'], fields['scale'], fields['epoch'], fields['points']) == ('metres', 'METRIC', 3, 500)
    assert set(os.listdir(folder)) - {'colmap'} == FILES - {'colmap'}


def test_the_pictures_of_the_model_are_there_and_the_folder_can_be_opened_again(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    saved = made_map()
    saved = replace(saved, images=saved.images[:2])  # of one camera
    save_map(tmp_path / 'map', saved)
    names = {image.name for image in pycolmap.Reconstruction(str(tmp_path / 'map' / 'colmap')).images.values()}
    assert names == set(os.listdir(tmp_path / 'map' / 'images'))
    for image in saved.images:
        assert (tmp_path / 'map' / 'images' / image.name).read_bytes() == image.jpeg
    again = open_sequence(tmp_path / 'map')
    np.testing.assert_allclose(
        again.trajectory.T_world_camera, [image.T_map_camera for image in saved.images], atol=1e-9
    )
    np.testing.assert_allclose(next(iter(again)).calibration.K, K)


def test_clouds_open_in_open3d(tmp_path):
    open3d = pytest.importorskip('open3d')
    saved = made_map()
    save_map(tmp_path / 'map', saved)
    for name in ('map.ply', 'map.pcd'):
        read = open3d.io.read_point_cloud(str(tmp_path / 'map' / name))
        np.testing.assert_array_equal(np.asarray(read.points).astype(np.float32), saved.cloud.xyz)
        np.testing.assert_array_equal((np.asarray(read.colors) * 255).round(), saved.cloud.rgb)


@pytest.mark.parametrize('scale', Scale)
def test_every_file_says_what_the_unit_is(tmp_path, scale):
    answer = save_map(tmp_path / 'map', made_map(scale=scale))
    word = {Scale.UNKNOWN: 'unknown', Scale.RELATIVE: 'relative', Scale.METRIC: 'metres'}[scale]
    head = (tmp_path / 'map' / 'trajectory.txt').read_text().splitlines()[0]
    assert head.endswith(f'seconds; unit of lengths: {word}')
    assert json.loads((tmp_path / 'map' / 'metadata.json').read_text())['unit'] == word
    assert f'unit: {word}' in answer


def test_colmap_projects_as_this_package_does(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    saved = made_map()
    cloud, images = saved.cloud, saved.images
    save_map(tmp_path / 'map', saved)
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


def test_an_empty_map_is_not_saved(tmp_path):
    empty = MapCloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32))
    with pytest.raises(NoMapError, match='no map yet'):
        save_map(tmp_path / 'map', replace(made_map(), cloud=empty))
    assert os.listdir(tmp_path) == []


def test_existing_files_are_never_touched(tmp_path):
    (tmp_path / 'map').mkdir()
    save_map(tmp_path / 'map', made_map())  # an empty folder is taken
    before = (tmp_path / 'map' / 'map.ply').read_bytes()
    with pytest.raises(MapExportError, match='not an empty folder'):
        save_map(tmp_path / 'map', made_map())
    with pytest.raises(MapExportError, match='not an empty folder'):
        save_map(tmp_path / 'map' / 'map.ply', made_map())
    for below in ('below', 'far/below'):
        with pytest.raises(MapExportError, match='cannot be written: a part of this path is a file'):
            save_map(tmp_path / 'map' / 'map.ply' / below, made_map())
    assert (tmp_path / 'map' / 'map.ply').read_bytes() == before


def test_a_folder_that_cannot_be_is_told_in_words(tmp_path, monkeypatch):
    with pytest.raises(MapExportError, match=r'is no folder here.*give a full path'):
        save_map('~nobody_has_this_name/map', made_map())
    with pytest.raises(MapExportError, match='cannot be written: File name too long'):
        save_map(tmp_path / ('x' * 300), made_map())
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    (tmp_path / 'here').rmdir()
    with pytest.raises(MapExportError, match='map is no folder here'):
        save_map('map', made_map())
    assert os.listdir(tmp_path) == []


def test_what_pycolmap_refuses_is_told_and_leaves_nothing_behind(tmp_path, monkeypatch):
    pycolmap = pytest.importorskip('pycolmap')

    def refuse(model, folder):
        raise ValueError('Check failed: (file).is_open()')

    monkeypatch.setattr(pycolmap.Reconstruction, 'write', refuse)
    with pytest.raises(MapExportError, match='pycolmap could not write the model: Check failed'):
        save_map(tmp_path / 'map', made_map())
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = collections.namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(MapExportError, match='make room or save elsewhere'):
        save_map(tmp_path / 'map', made_map())
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(MapExportError, match='No space left on device'):
        save_map(tmp_path / 'map', made_map())
    assert os.listdir(tmp_path) == []


def test_without_pycolmap_the_rest_is_saved_and_it_is_said(tmp_path, without):
    without('pycolmap')
    answer = save_map(tmp_path / 'map', made_map())
    assert 'no COLMAP model' in answer
    assert 'pip install "pycolmap' in answer
    assert set(os.listdir(tmp_path / 'map')) == FILES - {'colmap'}


def test_open3d_is_not_needed(tmp_path, without):
    without('open3d')
    assert save_map(tmp_path / 'map', made_map()).startswith('500 points')


# In place of the map from before ---------------------------------------------------------------------------------


def points_in(folder) -> np.ndarray:
    return read_ply(folder / 'map.ply')[0]


@pytest.mark.parametrize('can_exchange', [True, False])
def test_a_map_takes_the_place_of_the_one_from_before(tmp_path, without, monkeypatch, can_exchange):
    if not can_exchange:  # a network file system
        monkeypatch.setattr(export, 'RENAME_EXCHANGE', 1 << 20)
    save_map(tmp_path / 'map', made_map(1), replace=True)
    without('pycolmap')
    save_map(tmp_path / 'map', made_map(2), replace=True)
    assert os.listdir(tmp_path) == ['map']
    assert set(os.listdir(tmp_path / 'map')) == FILES - {'colmap'}
    np.testing.assert_array_equal(points_in(tmp_path / 'map'), made_map(2).cloud.xyz)


@pytest.mark.parametrize('after', [1, 2])
def test_wherever_writing_fails_the_former_map_is_whole(tmp_path, monkeypatch, after):
    save_map(tmp_path / 'map', made_map(1), replace=True)
    before = {path: path.read_bytes() for path in (tmp_path / 'map').rglob('*') if path.is_file()}
    monkeypatch.setattr(export, 'RENAME_EXCHANGE', 1 << 20)
    calls, real = [], os.replace

    def fail(source, target):
        calls.append(target)
        if len(calls) == after:
            raise OSError(5, 'Input/output error')
        real(source, target)

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(MapExportError, match='Input/output error'):
        save_map(tmp_path / 'map', made_map(2), replace=True)
    assert {path: path.read_bytes() for path in before} == before
    assert os.listdir(tmp_path) == ['map']


def test_only_a_saved_map_is_replaced(tmp_path):
    home = tmp_path / 'home'
    home.mkdir()
    (home / 'thesis.txt').write_text('three years')
    with pytest.raises(MapExportError, match='holds more than a saved map'):
        save_map(home, made_map(), replace=True)
    save_map(tmp_path / 'map', made_map(1))
    (tmp_path / 'map' / 'notes.txt').write_text('kitchen')
    with pytest.raises(MapExportError, match='holds more than a saved map'):
        save_map(tmp_path / 'map', made_map(2), replace=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'linked')
    save_map(tmp_path / 'linked', made_map(1))
    save_map(tmp_path / 'link', made_map(2), replace=True)  # where it leads, not the link
    assert (tmp_path / 'link').is_symlink()
    np.testing.assert_array_equal(points_in(tmp_path / 'linked'), made_map(2).cloud.xyz)
    assert (home / 'thesis.txt').read_text() == 'three years'
    with pytest.raises(MapExportError, match='is a mount point'):
        export.find_folder('/', replace=True)


def test_what_a_killed_process_left_goes_with_the_next_map(tmp_path):
    old, young = tmp_path / '.map.abcdefgh.saving', tmp_path / '.map.ijklmnop.saving'
    for folder in (old, young, tmp_path / '.map.kept'):
        folder.mkdir()
    os.utime(old, (0, 0))
    save_map(tmp_path / 'map', made_map())
    assert sorted(os.listdir(tmp_path)) == ['.map.ijklmnop.saving', '.map.kept', 'map']
