"""A COLMAP model and its pictures, ETH3D's multi-view scenes among them.

https://colmap.github.io/format.html; Schöps et al., A Multi-View Stereo Benchmark (ETH3D), CVPR 2017.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, folders_of, not_listed, once
from vggt_ros.files.text import natural, read_text

# Where models are, and whether numbered ones are below: COLMAP makes one of each group of pictures that fit together.
MODELS = (
    ('sparse', True),
    ('colmap/sparse', True),
    ('colmap', False),
    ('dslr_calibration_undistorted', False),
    ('dslr_calibration_jpg', False),
    ('.', False),
)
PICTURES = ('images', '.', 'dslr_images_undistorted', 'dslr_images')
# Model -> number of focal lengths; the principal point and the lens's coefficients follow, in OpenCV's order.
PINHOLE = {'SIMPLE_PINHOLE': 1, 'PINHOLE': 2, 'SIMPLE_RADIAL': 1, 'RADIAL': 1, 'OPENCV': 2, 'FULL_OPENCV': 2}
FISHEYE = {'OPENCV_FISHEYE': 2, 'SIMPLE_RADIAL_FISHEYE': 1, 'RADIAL_FISHEYE': 1}
# (Model, how many numbers it has), in the order of their numbers in binary files: COLMAP's sensor/models.h.
PARAMETERS = (
    ('SIMPLE_PINHOLE', 3),
    ('PINHOLE', 4),
    ('SIMPLE_RADIAL', 4),
    ('RADIAL', 5),
    ('OPENCV', 8),
    ('OPENCV_FISHEYE', 8),
    ('FULL_OPENCV', 12),
    ('FOV', 5),
    ('SIMPLE_RADIAL_FISHEYE', 4),
    ('RADIAL_FISHEYE', 5),
    ('THIN_PRISM_FISHEYE', 12),
    ('RAD_TAN_THIN_PRISM_FISHEYE', 16),
    ('SIMPLE_DIVISION', 4),
    ('DIVISION', 5),
    ('SIMPLE_FISHEYE', 3),
    ('FISHEYE', 4),
    ('EUCM', 6),
    ('EQUIRECTANGULAR', 2),
)
NO_MODEL = 'not a COLMAP model'
REMEDY = 'copy it again, or let COLMAP write it again'
LONGEST_NAME = 4096  # bytes: what Linux takes as a path
POINT_2D = 24  # bytes of a point in a picture of images.bin: x, y and the number of the point in space


@dataclass(frozen=True, eq=False)
class _View:
    """One picture: its name, its pose (4, 4) T_world_camera (NaN: unknown) and its camera's id."""

    name: str
    T: np.ndarray
    camera: int


@dataclass(frozen=True)
class _Camera:
    """One camera as the file has it: the name of its model, (width, height) and its numbers."""

    model: str
    size: tuple[int, int]
    values: tuple[float, ...]


def find(folder: Path) -> Layout | None:
    """The folder that holds ``images/`` and ``sparse/``, or the scene of ETH3D."""
    models = _models(folder)
    if not models:
        return None
    model = models[0]
    kind = 'bin' if _is_model(model, 'bin') else 'txt'
    cameras, views, notes = _read_binary(model) if kind == 'bin' else _read_text(model)
    if not views:
        raise SequenceError(f'{model / f"images.{kind}"}: no picture is registered in the model: {REMEDY}')
    views, more_than_once = once(views, lambda view: view.name)
    note = f'{more_than_once} entries of the model are of a picture that has one already: the first is used'
    doubled = (note,) if more_than_once else ()
    views.sort(key=lambda view: natural(view.name))
    images = _images(folder, model, views)
    calibration, more = _calibration(model / f'cameras.{kind}', cameras, views)
    files = [images / view.name for view in views]
    # images/ is COLMAP's own; what else lies in the scene's folder is not.
    there = images.rglob('*') if images != folder else (x for inside in {x.parent for x in files} for x in _in(inside))
    return Layout(
        'COLMAP',
        files,
        calibration=calibration,
        calibration_file=model / f'cameras.{kind}',
        poses=np.stack([view.T for view in views]),
        notes=(
            'the lengths of a COLMAP model have no unit: they are taken as metres',
            *_others(folder, models),
            *notes,
            *doubled,
            *more,
            *not_listed(there, files, 'the model'),
        ),
    )


def _models(folder: Path) -> list[Path]:
    """The model to read, and others beside it."""
    for name, numbered in MODELS:
        root = folder / name
        below = [x for x in _in(root) if x.name.isdecimal() and _is_model(x)] if numbered else []
        below.sort(key=lambda x: natural(x.name))
        if found := [*below, *([root] if _is_model(root) else [])]:
            return found
    return []


def _is_model(folder: Path, *kinds: str) -> bool:
    files = [[folder / f'{name}.{kind}' for name in ('cameras', 'images')] for kind in kinds or ('bin', 'txt')]
    return any(all(x.is_file() for x in both) for both in files)


def _in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _others(folder: Path, models: list[Path]) -> tuple[str, ...]:
    """A note of models that are not read."""
    names = [str(x.relative_to(folder)) for x in models]
    note = f'several models: {names[0]} is read, not {", ".join(names[1:])}, and its pictures only'
    return (note,) if names[1:] else ()


def _images(folder: Path, model: Path, views: list[_View]) -> Path:
    """The folder that holds most of the pictures, for some may be lost. Raises SequenceError where there are none."""
    found = {x: sum(os.path.isfile(x / view.name) for view in views) for x in (folder / name for name in PICTURES)}
    images = max(found, key=lambda x: found[x])
    if not found[images]:
        raise SequenceError(
            f'{folder}: {views[0].name} of the model {model} is in none of {", ".join(PICTURES)}, and no other picture'
            ' of it is: put them into images/'
        )
    return images


def _calibration(
    path: Path, cameras: dict[int, _Camera], views: list[_View]
) -> tuple[Calibration | None, tuple[str, ...]]:
    """Of the one camera that took all pictures, None where there are several; notes. Raises SequenceError."""
    used = {view.camera for view in views}
    if missing := used - cameras.keys():
        raise SequenceError(f'{path}: there is no camera {min(missing)} in it, which pictures name: {REMEDY}')
    folders = folders_of(Path(view.name) for view in views)
    apart = f'{len(folders)} folders ({", ".join(folders)})'
    if len(used) > 1:
        note = f'{len(used)} cameras in the model: none is used, the intrinsics are predicted'
        return None, (note, f'the pictures lie in {apart}, and are read one after another') if folders[1:] else (note,)
    note = f'pictures of one camera lie in {apart}: most likely two cameras or more, which are read as one'
    return _converted(path, cameras[used.pop()]), (note,) if folders[1:] else ()


def _converted(path: Path, found: _Camera) -> Calibration:
    """path: for the error. Raises SequenceError for what is no camera, or one of a lens that is not known here."""
    known, count = PINHOLE | FISHEYE, dict(PARAMETERS).get(found.model)
    if found.model not in known:
        raise SequenceError(
            f'{path}: a camera of the model {found.model}; known are {", ".join(known)}:'
            ' run "colmap image_undistorter" and give what it writes'
        )
    values, number = list(found.values), known[found.model]
    focal, centre, lens = values[:number], values[number:][:2], values[number + 2 :]
    if len(values) != count or not np.isfinite(values).all() or min(*focal, *found.size) <= 0:
        raise SequenceError(
            f'{path}: {found.size[0]}x{found.size[1]} pixels and {values} are no camera of the model {found.model},'
            f' which has {count} numbers: {REMEDY}'
        )
    # COLMAP's pixels begin at their corner, ours at their centre.
    k = (focal[0], 0.0, centre[0] - 0.5, 0.0, focal[-1], centre[1] - 0.5, 0.0, 0.0, 1.0)
    if found.model in FISHEYE:
        return Calibration(*found.size, 'equidistant', tuple(lens + [0.0] * (4 - len(lens))), k)
    lens += [0.0] * (5 - len(lens))
    return Calibration(*found.size, 'rational_polynomial' if len(lens) > 5 else 'plumb_bob', tuple(lens), k)


def _pose(q: Sequence[float], t: Sequence[float]) -> np.ndarray:
    """World-to-camera, the quaternion's w first -> T_world_camera (4, 4); NaN where they are none."""
    T = np.eye(4)
    with np.errstate(all='ignore'):
        length = np.linalg.norm(q)
        if not (np.isfinite(t).all() and 0 < length < np.inf):
            return np.full((4, 4), np.nan)
        T[:3, :3], T[:3, 3] = Rotation.from_quat(np.roll(q, -1) / length).as_matrix(), t
        return camera.invert(T)


def _read_text(model: Path) -> tuple[dict[int, _Camera], list[_View], tuple[str, ...]]:
    """(id -> camera, pictures, notes). Raises SequenceError."""
    cameras, path, number = {}, model / 'cameras.txt', 0
    text = read_text(path)
    try:
        for number, line in enumerate(text.splitlines(), 1):  # noqa: B007 - of the error
            words = line.split()
            if words and not words[0].startswith('#'):
                size = (int(words[2]), int(words[3]))
                cameras[int(words[0])] = _Camera(words[1], size, tuple(float(x) for x in words[4:]))
    except (ValueError, IndexError) as error:
        raise SequenceError(f'{path}:{number}: not as COLMAP writes it ({error!r}): {REMEDY}') from error
    text = read_text(model / 'images.txt')
    views = list(_views(model / 'images.txt', text))
    said = re.search(r'^# Number of images: (\d{1,9})\b', text, re.M)
    if views and said and int(said[1]) != len(views):
        return cameras, views, (f'images.txt says that it has {said[1]} pictures: {len(views)} are in it',)
    return cameras, views, ()


def _views(path: Path, text: str) -> Iterator[_View]:
    """A line for a picture and one for its points in turn, which scripts leave out. Raises SequenceError."""
    pictured = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        if (view := _view(line)) is not None:
            yield view
        elif not pictured or not _are_points(line.split()):
            wanted = 'wanted "id qw qx qy qz tx ty tz camera name"' + (' or points of the picture' if pictured else '')
            raise SequenceError(f'{path}:{number}: not as COLMAP writes it ({wanted}): {REMEDY}')
        pictured = view is not None


def _view(line: str) -> _View | None:
    """The picture of a line: id, q (w first), t, camera's id, name; None when it is of another form."""
    words = line.split(maxsplit=9)
    try:
        int(words[0])
        values, number, name = [float(x) for x in words[1:8]], int(words[8]), words[9].rstrip()
    except (ValueError, IndexError):
        return None
    return None if _are_points(line.split()) else _View(name, _pose(values[:4], values[4:]), number)


def _are_points(words: list[str]) -> bool:
    """Whether they are x, y and the number of a point, as often as one likes."""
    if len(words) % 3:
        return False
    try:
        for x, y, number in zip(words[::3], words[1::3], words[2::3], strict=True):
            float(x), float(y), int(number)
    except ValueError:
        return False
    return True


class _Binary:
    """Numbers and names of a binary file (little-endian), from its beginning. Raises SequenceError where it ends."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file, self._left = path, file, os.fstat(file.fileno()).st_size

    def take(self, form: str) -> tuple[Any, ...]:
        """As ``struct`` names them."""
        size = struct.calcsize(f'<{form}')
        self._pass(size)
        return struct.unpack(f'<{form}', self._file.read(size))

    def skip(self, size: int) -> None:
        self._pass(size)
        self._file.seek(size, os.SEEK_CUR)

    def name(self) -> str:
        """Up to a zero."""
        letters = bytearray()
        while byte := self.take('B')[0]:
            letters.append(byte)
            if len(letters) > LONGEST_NAME:
                raise SequenceError(f'{self._path}: {NO_MODEL} (a name has no end): {REMEDY}')
        try:
            return letters.decode()
        except UnicodeDecodeError:
            raise SequenceError(
                f'{self._path}: the name {bytes(letters)!r} is not in UTF-8: rename the picture, or {REMEDY}'
            ) from None

    def end(self) -> None:
        """Raises SequenceError where there is more."""
        if self._left:
            raise SequenceError(f'{self._path}: {NO_MODEL} ({self._left} bytes more than it should have): {REMEDY}')

    def _pass(self, size: int) -> None:
        if size > self._left:
            raise SequenceError(f'{self._path}: {NO_MODEL} (the file is cut off): {REMEDY}')
        self._left -= size


def _read_binary(model: Path) -> tuple[dict[int, _Camera], list[_View], tuple[str, ...]]:
    """(id -> camera, pictures, notes). Raises SequenceError."""
    path = model / 'cameras.bin'
    try:
        with path.open('rb') as file:
            cameras = dict(_binary_cameras(path, _Binary(path, file)))
        path = model / 'images.bin'
        with path.open('rb') as file:
            return cameras, list(_binary_views(path, _Binary(path, file))), ()
    except OSError as error:
        raise SequenceError(f'{path}: {error.strerror or error}') from error


def _binary_cameras(path: Path, data: _Binary) -> Iterator[tuple[int, _Camera]]:
    for _ in range(data.take('Q')[0]):
        number, model, width, height = data.take('IiQQ')
        if not 0 <= model < len(PARAMETERS):  # nobody knows where the next begins
            raise SequenceError(
                f'{path}: a camera of the model number {model}; known are 0 to {len(PARAMETERS) - 1}:'
                ' run "colmap model_converter" to TXT, or copy it again'
            )
        name, count = PARAMETERS[model]
        yield number, _Camera(name, (width, height), data.take(f'{count}d'))
    data.end()


def _binary_views(path: Path, data: _Binary) -> Iterator[_View]:
    for _ in range(data.take('Q')[0]):
        _, *values, number = data.take('I7dI')
        name = data.name()
        if not name:
            raise SequenceError(f'{path}: {NO_MODEL} (a picture without a name): {REMEDY}')
        data.skip(POINT_2D * data.take('Q')[0])
        yield _View(name, _pose(values[:4], values[4:]), number)
    data.end()
