"""``transforms.json`` of NeRF, instant-ngp and nerfstudio: pictures by name, poses in OpenGL's axes.

https://docs.nerf.studio/quickstart/data_conventions.html
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import DamagedError, SequenceError, in_a_line
from vggt_ros.files.layouts.layout import Layout, folders_of, not_listed, once
from vggt_ros.files.picture import Sample
from vggt_ros.files.sequence import IMAGE_SUFFIXES
from vggt_ros.files.text import natural, read_text

NAMES = ('transforms.json', 'transforms_train.json')
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # x right, y up, z backwards -> x right, y down, z forwards
# Model -> distortion model and its coefficients, in OpenCV's order.
BROWN = ('plumb_bob', ('k1', 'k2', 'p1', 'p2', 'k3'))
RATIONAL = ('rational_polynomial', (*BROWN[1], 'k4', 'k5', 'k6'))
EQUIDISTANT = ('equidistant', ('k1', 'k2', 'k3', 'k4'))
LENSES = {
    **dict.fromkeys(('OPENCV', 'PINHOLE', 'SIMPLE_PINHOLE', 'SIMPLE_RADIAL', 'RADIAL'), BROWN),
    'FULL_OPENCV': RATIONAL,
    **dict.fromkeys(('OPENCV_FISHEYE', 'SIMPLE_RADIAL_FISHEYE', 'RADIAL_FISHEYE'), EQUIDISTANT),
}
FOCAL = ('fl_x', 'fl_y', 'camera_angle_x', 'camera_angle_y')
INTRINSICS = (*FOCAL, 'cx', 'cy', 'w', 'h', 'camera_model', 'is_fisheye', *RATIONAL[1])
ALIKE = 0.01  # of a number: by how much the intrinsics of two pictures of one camera may differ, as it focuses
ALIKE_LENS = 1e-3  # of the focal length: the same for its coefficients


@dataclass(frozen=True, eq=False)
class _Frame:
    """One picture: its file, its pose (4, 4) T_world_camera (NaN: unknown), a file of depth; what it says itself."""

    file: Path
    T: np.ndarray
    depth: Path | None
    fields: dict[str, Any]


def find(folder: Path) -> Layout | None:
    """The folder with the file."""
    path = next((x for name in NAMES if (x := folder / name).is_file()), None)
    if path is None:
        return None
    text = read_text(path)
    try:
        fields = _object(json.loads(text))
        frames = [_frame(folder, _object(entry)) for entry in _list(fields, 'frames')]
        scale = _positive(fields, 'depth_unit_scale_factor', 0.001)
        if not frames:
            raise SequenceError(f'{path}: no picture is named in it: give one with "frames"')
        frames, more_than_once = once(frames, lambda frame: frame.file)
        frames.sort(key=lambda frame: natural(frame.file.stem))
        note = f'{more_than_once} frames are of a picture that has one already: the first is used'
        notes = (note,) if more_than_once else ()
        calibration, more = _calibration(path, fields, frames)
    except SequenceError:
        raise
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        what = f'{error} is missing' if isinstance(error, KeyError) else in_a_line(error)
        raise SequenceError(
            f'{path}: not a file of NeRF, instant-ngp or nerfstudio ({what}): correct it, or write it again'
        ) from error
    depth, unread = _depth(frames)
    return Layout(
        'transforms.json',
        [frame.file for frame in frames],
        calibration=calibration,
        calibration_file=path,
        poses=np.stack([frame.T for frame in frames]),
        depth=depth,
        depth_scale=scale,
        notes=(
            'lengths of transforms.json have no unit that it says: they are taken as metres',
            *notes,
            *more,
            *unread,
            *_left_out(path, frames),
        ),
    )


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f'{short(value)} where an object {{...}} must be')
    return value


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    if not isinstance(fields[name], list):
        raise TypeError(f'{name} is no list')
    return fields[name]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f'{name} is {short(value)}, not the name of a file')
    return value


def _number(fields: dict[str, Any], name: str, default: float) -> float:
    """Raises ValueError for what is no number, or not finite."""
    value = fields.get(name, default)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{name} is {short(value)}, not a finite number')
    return number


def _positive(fields: dict[str, Any], name: str, default: float) -> float:
    value = _number(fields, name, default)
    if value <= 0:
        raise ValueError(f'{name} is {value:g}, not above 0')
    return value


def _frame(folder: Path, entry: dict[str, Any]) -> _Frame:
    file, depth = _text(entry['file_path'], 'file_path'), entry.get('depth_file_path') or None
    return _Frame(
        _file(folder, file),
        _pose(entry['transform_matrix'], file),
        None if depth is None else folder / _text(depth, 'depth_file_path'),
        entry,
    )


def _file(folder: Path, name: str) -> Path:
    """The original NeRF leaves the suffix out."""
    path = folder / name
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path
    # Of os.path, which says no to names that are too long or hold a zero.
    return next((x for s in sorted(IMAGE_SUFFIXES) if os.path.isfile(x := path.with_name(path.name + s))), path)


def _pose(matrix: Any, name: str) -> np.ndarray:
    """Camera-to-world in OpenGL's axes, (3, 4) or (4, 4) -> (4, 4) in optical axes; NaN for what does not turn."""
    T = np.array(matrix, float)
    if T.shape not in ((3, 4), (4, 4)):
        raise ValueError(f'transform_matrix of {short(name)} is not 4x4')
    full = np.eye(4)
    full[:3] = T[:3]
    with np.errstate(all='ignore'):
        determinant = np.linalg.det(full[:3, :3])
        # A mirrored world, or one that is transposed, is none that a camera can have been in.
        proper = 0 < determinant < np.inf and np.allclose(T[3:], full[3:]) and np.isfinite(T).all()
        if not proper:
            return np.full((4, 4), np.nan)
        # instant-ngp's own files may hold a scale in the rotation.
        full[:3, :3] /= np.cbrt(determinant)
        return full @ OPENGL


def _calibration(
    path: Path, fields: dict[str, Any], frames: list[_Frame]
) -> tuple[Calibration | None, tuple[str, ...]]:
    """What frames say of themselves, where they agree, before what the file says of all; notes. Raises SequenceError.

    Also raises ValueError for what is no calibration.
    """
    merged = [_merged(fields, frame.fields) for frame in frames]
    size = _size(frames) if any(not {'w', 'h'} <= x.keys() for x in merged) else None
    if not any(name in frame.fields for frame in frames for name in INTRINSICS):
        return _camera(fields, size), _assumed(fields)
    cameras = [(frame, x) for frame, one in zip(frames, merged, strict=True) if (x := _camera(one, size)) is not None]
    if not cameras:
        return None, ()
    first, chosen = cameras[0]
    for frame, one in cameras:
        if not _are_alike(chosen, one):
            raise SequenceError(
                f'{path}: the intrinsics of {first.file.name} and {frame.file.name} differ by more than'
                f' {ALIKE:.0%}: keep the frames of one camera and one zoom'
            )
    note = f'frames have intrinsics of their own, alike within {ALIKE:.0%}: those of {first.file.name} are used for all'
    silent = len(frames) - len(cameras)
    said = (f'{silent} frames have no intrinsics: they are taken as the others',) if silent else ()
    return chosen, (note, *said, *_assumed(_merged(fields, first.fields)))


def _merged(fields: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The intrinsics of a frame: its own, else those of all. Its own focal length is not mixed with another."""
    general = {name: fields[name] for name in INTRINSICS if name in fields}
    if any(name in own for name in FOCAL):
        general = {name: value for name, value in general.items() if name not in FOCAL}
    return general | {name: own[name] for name in INTRINSICS if name in own}


def _size(frames: list[_Frame]) -> tuple[int, int] | None:
    """(width, height) of the first picture that can be read."""
    for frame in frames:
        try:
            return Sample.of(frame.file).size
        except DamagedError:
            continue
    return None


def _camera(fields: dict[str, Any], size: tuple[int, int] | None) -> Calibration | None:
    """From numbers of one frame or of all; size: (width, height) where they do not say it. None without a focal length.

    Raises ValueError.
    """
    model, d = _lens(fields)
    if not any(name in fields for name in FOCAL):
        return None
    if size is None and not {'w', 'h'} <= fields.keys():
        return None  # no picture can be read: who reads them says so
    width, height = (int(_positive(fields, name, side)) for name, side in zip(('w', 'h'), size or (0, 0), strict=True))
    fx, fy = _focal(fields, 'x', width), _focal(fields, 'y', height)
    fx, fy = fx or fy, fy or fx
    cx, cy = _number(fields, 'cx', width / 2), _number(fields, 'cy', height / 2)
    # Its pixels begin at their corner, ours at their centre.
    return Calibration(width, height, model, d, (fx, 0.0, cx - 0.5, 0.0, fy, cy - 0.5, 0.0, 0.0, 1.0))


def _focal(fields: dict[str, Any], axis: str, side: int) -> float:
    """Pixels, 0 where nothing is said. side: of the picture along the axis, in pixels."""
    if f'fl_{axis}' in fields:
        return _positive(fields, f'fl_{axis}', 0.0)
    name = f'camera_angle_{axis}'  # radians from edge to edge
    if name not in fields:
        return 0.0
    angle = _positive(fields, name, 0.0)
    if angle >= math.pi:
        raise ValueError(f'{name} is {angle:g}, not an angle in radians below pi')
    return side / 2 / math.tan(angle / 2)


def _lens(fields: dict[str, Any]) -> tuple[str, tuple[float, ...]]:
    """Distortion model and coefficients. Raises ValueError where there are some that the model has not."""
    name = str(fields.get('camera_model', 'OPENCV'))
    if fields.get('is_fisheye') and LENSES.get(name) is not EQUIDISTANT:
        name = 'OPENCV_FISHEYE'
    if name not in LENSES:
        raise ValueError(f'camera_model {short(name)}; known are {", ".join(LENSES)}: undistort the pictures')
    model, names = LENSES[name]
    # What nerfstudio calls k4 of OPENCV is another number than OpenCV's k4.
    if more := [x for x in RATIONAL[1] if x not in names and _number(fields, x, 0.0)]:
        raise ValueError(
            f'camera_model {name} has no {", ".join(more)} (FULL_OPENCV has k4 to k6): undistort the pictures'
        )
    return model, tuple(_number(fields, x, 0.0) for x in names)


def _are_alike(one: Calibration, other: Calibration) -> bool:
    same = (one.width, one.height, one.distortion_model) == (other.width, other.height, other.distortion_model)
    return same and np.allclose(one.k, other.k, ALIKE, 0) and np.allclose(one.d, other.d, ALIKE, ALIKE_LENS)


def _assumed(fields: dict[str, Any]) -> tuple[str, ...]:
    """A note of what a file leaves out, that says a focal length."""
    if not any(name in fields for name in FOCAL) or {'cx', 'cy'} <= fields.keys():
        return ()
    return ('transforms.json says no cx, cy: the principal point is taken to be in the middle',)


def _depth(frames: list[_Frame]) -> tuple[Sequence[Path | None], tuple[str, ...]]:
    """A file for each picture, where it can be one; notes."""
    named = [frame.depth for frame in frames if frame.depth is not None]
    other = [x for x in named if x.suffix.lower() not in IMAGE_SUFFIXES]
    missing = [x for x in named if x not in other and not os.path.isfile(x)]
    notes: tuple[str, ...] = ()
    if other:
        notes += (f'{len(other)} files of depth are left out, for they are no pictures: {other[0].name} and the like',)
    if missing:
        notes += (f'transforms.json names {len(missing)} files of depth that are not there',)
    unusable = {*other, *missing}
    return [None if frame.depth in unusable else frame.depth for frame in frames], notes


def _left_out(path: Path, frames: list[_Frame]) -> tuple[str, ...]:
    """Notes of what lies where the file and its pictures are, and of pictures that lie apart."""
    listed = {frame.file for frame in frames}
    # Depth and masks may lie among the pictures.
    beside = {path.parent / x for frame in frames for x in frame.fields.values() if isinstance(x, str)}
    there = (x for folder in {file.parent for file in listed} if os.path.isdir(folder) for x in folder.iterdir())
    notes = not_listed(there, [*listed, *beside], path.name)
    folders = folders_of(Path(os.path.relpath(file, path.parent)) for file in listed)
    if len(folders) > 1:
        notes += (
            f'the pictures lie in {len(folders)} folders ({", ".join(folders)}):'
            ' they are read in the order of their names, as of one camera',
        )
    if others := sorted(x.name for x in path.parent.glob('transforms*.json') if x != path):
        notes += (f'{path.name} is read, not {", ".join(others)}',)
    return notes
