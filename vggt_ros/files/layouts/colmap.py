"""A COLMAP model and its pictures, ETH3D's multi-view scenes among them.

https://colmap.github.io/format.html; Schöps et al., A Multi-View Stereo Benchmark (ETH3D), CVPR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError, in_a_line
from vggt_ros.files.layouts.layout import Layout
from vggt_ros.files.text import natural, read_text

MODELS = (
    'sparse/0',
    'sparse',
    'colmap/sparse/0',
    'colmap',
    'dslr_calibration_undistorted',
    'dslr_calibration_jpg',
    '.',
)
PICTURES = ('images', '.', 'dslr_images_undistorted', 'dslr_images')
# Model -> number of focal lengths, and where the lens's coefficients go.
PINHOLE = {'SIMPLE_PINHOLE': 1, 'PINHOLE': 2, 'SIMPLE_RADIAL': 1, 'RADIAL': 1, 'OPENCV': 2, 'FULL_OPENCV': 2}
FISHEYE = {'OPENCV_FISHEYE': 2}


@dataclass(frozen=True, eq=False)
class _View:
    """One picture: its name, its pose (4, 4) T_world_camera and its camera's id."""

    name: str
    T: np.ndarray
    camera: int


def find(folder: Path) -> Layout | None:
    """The folder that holds ``images/`` and ``sparse/``, or the scene of ETH3D."""
    model = next((x for name in MODELS if _is_model(x := folder / name)), None)
    if model is None:
        return None
    cameras, views = _read_binary(model) if (model / 'images.bin').is_file() else _read_text(model)
    if not views:
        raise SequenceError(f'{model}: no picture is registered in the model')
    views.sort(key=lambda view: natural(view.name))
    images = next((folder / name for name in PICTURES if (folder / name / views[0].name).is_file()), None)
    if images is None:
        raise SequenceError(f'{folder}: {views[0].name} of the model {model} is in none of {", ".join(PICTURES)}')
    used = {view.camera for view in views}
    if missing := used - cameras.keys():
        raise SequenceError(f'{model}: there is no camera {min(missing)} in it, which pictures name')
    notes: tuple[str, ...] = ('the lengths of a COLMAP model have no unit: they are taken as metres',)
    calibration = cameras[used.pop()] if len(used) == 1 else None
    if calibration is None:
        notes += (f'{len(used) + 1} cameras in the model: none is used, the intrinsics are predicted',)
    poses = np.stack([view.T for view in views])
    return Layout('COLMAP', [images / view.name for view in views], calibration=calibration, poses=poses, notes=notes)


def _is_model(folder: Path) -> bool:
    return any(all((folder / f'{name}.{kind}').is_file() for name in ('cameras', 'images')) for kind in ('bin', 'txt'))


def _calibration(path: Path, model: str, size: tuple[int, int], values: list[float]) -> Calibration:
    known = PINHOLE | FISHEYE
    if model not in known:
        raise SequenceError(f'{path}: a camera of the model {model}; known are {", ".join(known)}')
    focal, (cx, cy), lens = values[: known[model]], values[known[model] :][:2], values[known[model] + 2 :]
    # COLMAP's pixels begin at their corner, ours at their centre.
    k = (focal[0], 0.0, cx - 0.5, 0.0, focal[-1], cy - 0.5, 0.0, 0.0, 1.0)
    if model in FISHEYE:
        return Calibration(*size, 'equidistant', tuple(lens), k)
    lens = lens + [0.0] * (5 - len(lens))
    return Calibration(*size, 'rational_polynomial' if len(lens) > 5 else 'plumb_bob', tuple(lens), k)


def _read_text(model: Path) -> tuple[dict[int, Calibration], list[_View]]:
    cameras, path, number = {}, model / 'cameras.txt', 0
    try:
        for number, line in enumerate(read_text(path).splitlines(), 1):  # noqa: B007 - of the error
            words = line.split()
            if words and not words[0].startswith('#'):
                size = (int(words[2]), int(words[3]))
                cameras[int(words[0])] = _calibration(path, words[1], size, [float(x) for x in words[4:]])
        views, path, points = [], model / 'images.txt', False
        for number, line in enumerate(read_text(path).splitlines(), 1):  # noqa: B007 - of the error
            if line.startswith('#'):
                continue
            if points := not points:  # every second line holds the points of the picture before, and may be empty
                words = line.split(maxsplit=9)
                if not words:
                    break
                q, t = [float(x) for x in words[1:5]], [float(x) for x in words[5:8]]
                views.append(_View(words[9], _pose(q, t), int(words[8])))
    except (ValueError, IndexError) as error:
        raise SequenceError(f'{path}:{number}: not as COLMAP writes it ({error!r})') from error
    return cameras, views


def _pose(q: list[float], t: list[float]) -> np.ndarray:
    """World-to-camera, the quaternion's w first -> T_world_camera (4, 4)."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat([*q[1:], q[0]]).as_matrix(), t
    return camera.invert(T)


def _read_binary(model: Path) -> tuple[dict[int, Calibration], list[_View]]:
    try:
        import pycolmap
    except ImportError as error:
        raise SequenceError(
            f'{model}: a binary model needs pycolmap (pip install pycolmap), or "colmap model_converter" to TXT'
        ) from error
    try:
        found = pycolmap.Reconstruction(model)
    except (RuntimeError, ValueError, IndexError) as error:
        raise SequenceError(f'{model}: not a COLMAP model ({in_a_line(error)})') from error
    cameras = {
        number: _calibration(model, one.model.name, (one.width, one.height), list(one.params))
        for number, one in found.cameras.items()
    }
    views = []
    for image in found.images.values():
        T = np.eye(4)
        T[:3] = image.cam_from_world().matrix()
        views.append(_View(image.name, camera.invert(T), image.camera_id))
    return cameras, views
