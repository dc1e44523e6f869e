"""The map as files that other tools open: cloud (PLY, PCD), trajectory (TUM), COLMAP model, and what the unit is.

folder/
  map.ply, map.pcd     points with colours (open3d)
  trajectory.txt       TUM, camera-to-world
  colmap/              cameras, frames, images, points3D, rigs .bin: camera-from-world poses, no observations (pycolmap)
  metadata.json        unit, scale state, epoch, counts
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.files.cloud import MissingOpen3DError, import_open3d
from vggt_ros.files.trajectory import Trajectory, write_tum
from vggt_ros.mapping.history import Pinhole
from vggt_ros.mapping.voxel_map import MapCloud
from vggt_ros.types import Scale

BYTES_PER_POINT = 128  # in all files together, generously
UNITS = {Scale.UNKNOWN: 'unknown', Scale.RELATIVE: 'relative', Scale.METRIC: 'metres'}


class MapExportError(RuntimeError):
    """The map could not be saved; the message says why and what to do. Nothing is left behind."""


def save_map(
    folder: Path | str, cloud: MapCloud, trajectory: Trajectory, images: Sequence[Pinhole], scale: Scale, epoch: int = 0
) -> str:
    """Write all files into ``folder``, which must not exist yet or be empty; a sentence that says what was written.

    trajectory: all poses known; images: the keyframes. Either everything is written or nothing: the files are made in
    a folder beside it that then takes its name. Raises MapExportError when there is no map yet, a package is missing,
    the disk is full, or the folder cannot be written.
    """
    target = _absolute(folder)
    if not len(cloud):
        raise MapExportError('there is no map yet: points appear once two keyframes saw them from different places')
    if not np.isfinite(cloud.xyz).all():
        raise MapExportError('the map holds points that are not finite')
    open3d, pycolmap = _import_writers()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise MapExportError(f'{target} exists already and is not an empty folder: choose another name')
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target.parent, len(cloud))
        making = Path(tempfile.mkdtemp(prefix=f'.{target.name}.', dir=target.parent))
    except (FileExistsError, NotADirectoryError) as error:
        raise MapExportError(f'{target} cannot be written: a part of this path is a file') from error
    except OSError as error:
        raise MapExportError(f'{target} cannot be written: {error.strerror or error}') from error
    try:
        _write_cloud(open3d, making, cloud)
        write_tum(making / 'trajectory.txt', trajectory)
        _write_colmap(pycolmap, making / 'colmap', cloud, images)
        _write_metadata(making / 'metadata.json', cloud, trajectory, images, scale, epoch)
        _check_written(making)
        making.chmod(0o755)  # mkdtemp made it private
        os.replace(making, target)
    except OSError as error:
        raise MapExportError(f'{target} could not be written: {error.strerror or error}') from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return f'{len(cloud)} points, {len(trajectory)} poses and {len(images)} keyframes in {target}; unit: {UNITS[scale]}'


def _absolute(folder: Path | str) -> Path:
    try:
        return Path(folder).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # no current folder any more; no home of that name
        raise MapExportError(f'{folder} is no folder here ({error}): give a full path') from error


def _import_writers() -> tuple[Any, Any]:
    try:
        open3d = import_open3d()
    except MissingOpen3DError as error:
        raise MapExportError(str(error)) from error
    try:
        import pycolmap
    except (ImportError, OSError) as error:
        raise MapExportError(f'pycolmap cannot be imported ({error}): pip install "pycolmap>=3.13"') from error
    return open3d, pycolmap


def _check_space(folder: Path, points: int) -> None:
    needed = BYTES_PER_POINT * points + (1 << 20)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MapExportError(
            f'{folder} has {free / 1e6:.0f} MB free, but the map needs {needed / 1e6:.0f} MB:'
            ' make room or save elsewhere'
        )


def _write_cloud(open3d: Any, folder: Path, cloud: MapCloud) -> None:
    points = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(cloud.xyz.astype(np.float64)))
    points.colors = open3d.utility.Vector3dVector(cloud.rgb.astype(np.float64) / 255)
    for name in ('map.ply', 'map.pcd'):
        if not open3d.io.write_point_cloud(str(folder / name), points):
            raise MapExportError(f'open3d could not write {folder / name}: is the disk full?')


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


def _write_metadata(
    path: Path, cloud: MapCloud, trajectory: Trajectory, images: Sequence[Pinhole], scale: Scale, epoch: int
) -> None:
    fields = {
        'unit': UNITS[scale],
        'scale': scale.name,
        'epoch': epoch,
        'axes': 'map: x forward at the start, y left, z up; cameras: x right, y down, z forward',
        'points': len(cloud),
        'poses': len(trajectory),
        'keyframes': len(images),
    }
    path.write_text(json.dumps(fields, indent=2) + '\n')


def _check_written(folder: Path) -> None:
    """The writers in C++ do not always report a full disk; the file system does, at the latest here."""
    for path in sorted(folder.rglob('*')):
        if path.is_file():
            if not path.stat().st_size:
                raise MapExportError(f'{path.name} is empty after it was written: is the disk full?')
            with path.open('rb') as file:
                os.fsync(file.fileno())
