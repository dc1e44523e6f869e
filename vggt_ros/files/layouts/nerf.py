"""``transforms.json`` of NeRF, instant-ngp and nerfstudio: pictures by name, poses in OpenGL's axes.

https://docs.nerf.studio/quickstart/data_conventions.html
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout
from vggt_ros.files.sequence import IMAGE_SUFFIXES
from vggt_ros.files.text import natural, read_text

NAMES = ('transforms.json', 'transforms_train.json')
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # x right, y up, z backwards -> x right, y down, z forwards
LENSES = {'OPENCV': 'plumb_bob', 'PINHOLE': 'plumb_bob', 'SIMPLE_PINHOLE': 'plumb_bob', 'OPENCV_FISHEYE': 'equidistant'}


def find(folder: Path) -> Layout | None:
    """The folder with the file."""
    path = next((x for name in NAMES if (x := folder / name).is_file()), None)
    if path is None:
        return None
    try:
        fields: dict[str, Any] = json.loads(read_text(path))
        entries = [(_file(folder, str(x['file_path'])), _pose(x), x.get('depth_file_path')) for x in fields['frames']]
        calibration = _calibration(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SequenceError(f'{path}: not a file of NeRF, instant-ngp or nerfstudio ({error!r})') from error
    if not entries:
        raise SequenceError(f'{path}: no picture is named in it')
    entries.sort(key=lambda entry: natural(entry[0].stem))
    depth = [folder / x if x else None for _, _, x in entries]
    notes = ('lengths of transforms.json have no unit that it says: they are taken as metres',)
    return Layout(
        'transforms.json',
        [file for file, _, _ in entries],
        calibration=calibration,
        poses=np.stack([T for _, T, _ in entries]),
        depth=depth,
        depth_scale=float(fields.get('depth_unit_scale_factor', 0.001)),
        notes=notes,
    )


def _file(folder: Path, name: str) -> Path:
    """The original NeRF leaves the suffix out."""
    path = folder / name
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    return next((x for s in sorted(IMAGE_SUFFIXES) if (x := path.with_name(path.name + s)).is_file()), path)


def _pose(entry: dict[str, Any]) -> np.ndarray:
    T = np.array(entry['transform_matrix'], float)
    if T.shape not in ((3, 4), (4, 4)) or not np.isfinite(T).all():
        raise ValueError(f'transform_matrix of {entry["file_path"]} is not 4x4')
    full = np.eye(4)
    full[:3] = T[:3]
    # instant-ngp's own files may hold a scale in the rotation.
    full[:3, :3] /= np.cbrt(np.linalg.det(full[:3, :3]))
    return full @ OPENGL


def _calibration(fields: dict[str, Any]) -> Calibration | None:
    width, height = int(fields.get('w', 0)), int(fields.get('h', 0))
    model = str(fields.get('camera_model', 'OPENCV'))
    if fields.get('is_fisheye'):
        model = 'OPENCV_FISHEYE'
    if model not in LENSES:
        raise ValueError(f'camera_model {model}; known are {", ".join(LENSES)}')
    if 'fl_x' in fields:
        fx = float(fields['fl_x'])
        fy = float(fields.get('fl_y', fx))
    elif 'camera_angle_x' in fields and width:
        fx = fy = width / (2 * math.tan(float(fields['camera_angle_x']) / 2))
    else:
        return None
    cx, cy = float(fields.get('cx', width / 2)), float(fields.get('cy', height / 2))
    names = ('k1', 'k2', 'k3', 'k4') if LENSES[model] == 'equidistant' else ('k1', 'k2', 'p1', 'p2', 'k3')
    d = tuple(float(fields.get(name, 0.0)) for name in names)
    # Its pixels begin at their corner, ours at their centre.
    return Calibration(width, height, LENSES[model], d, (fx, 0.0, cx - 0.5, 0.0, fy, cy - 0.5, 0.0, 0.0, 1.0))
