"""The map as files that other tools open: cloud (PLY, PCD, GLB), trajectory (TUM, KITTI), COLMAP model, the unit.

folder/
  map.ply, map.pcd     points with colours
  map.glb              the same with the camera's way, for browsers and viewers of models
  trajectory.txt       TUM, camera-to-world
  kitti_trajectory.txt   the same poses, as KITTI's odometry has them
  images/              the keyframes' pictures, named by their stamps in nanoseconds
  colmap/              cameras, frames, images, points3D, rigs .bin: camera-from-world poses of those pictures, no
                       observations; only where pycolmap is installed
  metadata.json        unit, scale state, epoch, counts

The folder takes its name when all of it is written, in one step where the file system can: who looks sees the former
map or the new one, whole.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.files.cloud import write_pcd, write_ply
from vggt_ros.files.glb import write_glb
from vggt_ros.files.trajectory import UNITS, Trajectory, write_kitti, write_tum
from vggt_ros.mapping.history import Pinhole
from vggt_ros.mapping.voxel_map import MapCloud
from vggt_ros.types import Scale

BYTES_PER_POINT = 128  # in all files together, generously
PLY, PCD, GLB, COLMAP, METADATA = 'map.ply', 'map.pcd', 'map.glb', 'colmap', 'metadata.json'
TRAJECTORY, KITTI, IMAGES = 'trajectory.txt', 'kitti_trajectory.txt', 'images'
FILES = {PLY, PCD, GLB, TRAJECTORY, KITTI, COLMAP, METADATA, IMAGES}
ABANDONED = 3600.0  # seconds after which an unfinished folder is somebody's who was killed
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h, stdio.h


class MapExportError(RuntimeError):
    """The map could not be saved; the message says why and what to do. Nothing is left behind."""


class NoMapError(MapExportError):
    """There is no map yet."""


@dataclass(frozen=True, eq=False)
class SavedMap:
    """What is written. trajectory: all poses known. images: the keyframes. scale: of all lengths."""

    cloud: MapCloud
    trajectory: Trajectory
    images: Sequence[Pinhole]
    scale: Scale
    epoch: int = 0


def save_map(folder: Path | str, saved: SavedMap, *, replace: bool = False) -> str:
    """Write all files into ``folder``; a sentence that says what was written, and what was left out and why.

    replace: whether the folder may hold a map that was saved before, which is whole until the new one is; without, it
    must not exist yet or be empty. Raises MapExportError when there is no map yet, the disk is full, or the folder
    cannot be written.
    """
    target = find_folder(folder, replace=replace)
    making, sentence = write_beside(target, saved)
    take_name(making, target)
    return sentence


def find_folder(folder: Path | str, *, replace: bool = False) -> Path:
    """The full path where a map would be saved; MapExportError when that cannot be, see :func:`save_map`."""
    try:
        target = Path(folder).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # no current folder any more; no home of that name
        raise MapExportError(f'{folder} is no folder here ({error}): give a full path') from error
    try:
        target = target.resolve()
        inside = set(os.listdir(target)) if target.is_dir() else set()
        if (inside and not replace) or (target.exists() and not target.is_dir()):
            raise MapExportError(f'{target} exists already and is not an empty folder: choose another name')
        if os.path.ismount(target):
            raise MapExportError(f'{target} is a mount point, which cannot be replaced: name a folder in it')
        if inside and (METADATA not in inside or inside - FILES):
            raise MapExportError(f'{target} holds more than a saved map, which would be lost: name a folder of its own')
        ancestor = next(parent for parent in target.parents if parent.exists())
    except OSError as error:
        raise _unwritable(target, error) from error
    if not ancestor.is_dir():
        raise MapExportError(f'{target} cannot be written: a part of this path is a file')
    if not os.access(ancestor, os.W_OK):
        raise MapExportError(f'{target} cannot be written: no permission in {ancestor}')
    return target


def write_beside(target: Path, saved: SavedMap) -> tuple[Path, str]:
    """Write everything into a hidden folder beside ``target``; that folder, and a sentence that says what is in it.

    Raises MapExportError, after which there is nothing.
    """
    cloud = saved.cloud
    if not len(cloud):
        raise NoMapError('there is no map yet: points appear once two keyframes saw them from different places')
    if not np.isfinite(cloud.xyz).all():
        raise MapExportError('the map holds points that are not finite')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, len(cloud), sum(len(image.jpeg) for image in saved.images))
        _remove_abandoned(target)
        making = Path(tempfile.mkdtemp('.saving', f'.{target.name}.', target.parent))
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        left_out = _write(making, saved)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise MapExportError(f'{target} could not be written: {error.strerror or error}') from error
    except MapExportError:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return making, (
        f'{len(cloud)} points, {len(saved.trajectory)} poses and {len(saved.images)} keyframes in {target};'
        f' unit: {UNITS[saved.scale]}{left_out}'
    )


def take_name(making: Path, target: Path) -> None:
    """Give a folder that :func:`write_beside` made its name; what had it is removed. Raises MapExportError."""
    try:
        if target.exists():
            _put_in_place_of(making, target)
        else:
            os.replace(making, target)
        with suppress(OSError):  # some file systems cannot; the names are then safe a little later
            _sync(target.parent)
    except OSError as error:
        raise MapExportError(f'{target} could not be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _remove_abandoned(target: Path) -> None:
    for folder in target.parent.glob(f'.{glob.escape(target.name)}.*.saving*'):
        if time.time() - folder.stat().st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def _unwritable(target: Path, error: OSError) -> MapExportError:
    return MapExportError(f'{target} cannot be written: {error.strerror or error}')


def _check_space(folder: Path, points: int, pictures: int) -> None:
    needed = BYTES_PER_POINT * points + pictures + (1 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MapExportError(
            f'{folder} has {free / 1e6:.0f} MB free, but the map needs {needed / 1e6:.0f} MB:'
            ' make room or save elsewhere'
        )


def _write(folder: Path, saved: SavedMap) -> str:
    """All files; what was left out and why, or nothing."""
    cloud, left_out = saved.cloud, ''
    write_ply(folder / PLY, cloud.xyz, cloud.rgb)
    write_pcd(folder / PCD, cloud.xyz, cloud.rgb)
    write_glb(folder / GLB, cloud.xyz, cloud.rgb, saved.trajectory.T_world_camera[:, :3, 3])
    write_tum(folder / TRAJECTORY, saved.trajectory, saved.scale)
    write_kitti(folder / KITTI, saved.trajectory)
    (folder / IMAGES).mkdir()
    for image in saved.images:
        (folder / IMAGES / image.name).write_bytes(image.jpeg)
    try:
        import pycolmap
    except (ImportError, OSError) as error:
        left_out = f'; no COLMAP model: pycolmap cannot be imported ({error}): pip install "pycolmap>=3.13"'
    else:
        _write_colmap(pycolmap, folder / COLMAP, cloud, saved.images)
    _write_metadata(folder / METADATA, saved)
    _check_written(folder)
    folder.chmod(0o755)  # mkdtemp made it private
    return left_out


def _write_colmap(pycolmap: Any, folder: Path, cloud: MapCloud, images: Sequence[Pinhole]) -> None:
    folder.mkdir()
    try:
        _reconstruction(pycolmap, cloud, images).write(str(folder))
    except (RuntimeError, ValueError) as error:  # COLMAP's own checks
        raise MapExportError(f'pycolmap could not write the model: {error}') from error


def _reconstruction(pycolmap: Any, cloud: MapCloud, images: Sequence[Pinhole]) -> Any:
    """Images of equal K and size share a camera. COLMAP's pixel centres lie at 0.5, so c is half a pixel larger."""
    model = pycolmap.Reconstruction()
    cameras: dict[tuple, int] = {}
    for number, image in enumerate(images, start=1):
        key = (*image.size, *image.K.flat)
        if key not in cameras:
            cameras[key] = len(cameras) + 1
            fx, fy, cx, cy = image.K[[0, 1, 0, 1], [0, 1, 2, 2]]
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    camera_id=cameras[key],
                    model='PINHOLE',
                    width=image.size[0],
                    height=image.size[1],
                    params=[fx, fy, cx + 0.5, cy + 0.5],
                )
            )
        pose = pycolmap.Rigid3d(invert(image.T_map_camera)[:3])
        entry = pycolmap.Image(name=image.name, camera_id=cameras[key], image_id=number)
        model.add_image_with_trivial_frame(entry, pose)
    track = pycolmap.Track()
    for xyz, rgb in zip(cloud.xyz.astype(np.float64), cloud.rgb, strict=True):
        model.add_point3D(xyz, track, rgb)
    return model


def _write_metadata(path: Path, saved: SavedMap) -> None:
    fields = {
        'unit': UNITS[saved.scale],
        'scale': saved.scale.name,
        'epoch': saved.epoch,
        'axes': 'map: x forward at the start, y left, z up; cameras: x right, y down, z forward',
        'points': len(saved.cloud),
        'poses': len(saved.trajectory),
        'keyframes': len(saved.images),
    }
    path.write_text(json.dumps(fields, indent=2) + '\n')


def _check_written(folder: Path) -> None:
    """The writers in C++ do not always report a full disk; the file system does, at the latest here."""
    for path in sorted(folder.rglob('*')):
        if path.is_file() and not path.stat().st_size:
            raise MapExportError(f'{path.name} is empty after it was written: is the disk full?')
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Onto the disk: what was written survives that the power goes. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_in_place_of(making: Path, target: Path) -> None:
    """One folder takes another's name, in one step where the file system can. Raises OSError."""
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    if renameat2(AT_FDCWD, os.fsencode(making), AT_FDCWD, os.fsencode(target), RENAME_EXCHANGE) == 0:
        return
    former = making.with_name(f'{making.name}.former')  # two steps: not every network file system can
    os.replace(target, former)
    try:
        os.replace(making, target)
    except OSError:
        os.replace(former, target)
        raise
    shutil.rmtree(former, ignore_errors=True)
