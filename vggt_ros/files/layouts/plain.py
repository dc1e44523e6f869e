"""A folder of pictures as anybody makes it, and what may lie beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggt_ros.files.calibrations import read_calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, beside, pictures_in
from vggt_ros.files.text import lines, numbers
from vggt_ros.files.trajectory import Trajectory, parse_stamp, read_tum

TIMES = ('timestamps.txt', 'times.txt')
POSES = ('poses.txt', 'groundtruth.txt', 'trajectory.txt')
CALIBRATIONS = ('intrinsics.yaml', 'camera.yaml', 'calibration.yaml', 'ost.yaml', 'camera_info.yaml', 'camchain.yaml')
# Beside pictures: what is none of the camera's, by a word in its name.
OTHERS = re.compile(
    r'(^|[._\- ])(masks?|depth|disp|disparity|segm?|segmentation|labels?|normals?|conf|confidence|thumb)([._\- ]|$)',
    re.I,
)
UNITS = {19: (1, 'nanoseconds'), 16: (1000, 'microseconds'), 13: (1_000_000, 'milliseconds')}  # by their digits


def find(folder: Path) -> Layout | None:
    """Pictures in the folder or in its ``images/``; beside either: times, poses, a calibration, ``depth/``.

    ``timestamps.txt`` or ``times.txt``: "name seconds" a line, or a time a line. ``poses.txt``: TUM, or 12 or 16
    numbers a line, camera-to-world. ``depth/``: 16-bit PNG named as the picture, 0 = unknown.
    """
    images = folder / 'images' if (folder / 'images').is_dir() else folder
    root = images.absolute().parent if images.absolute().name == 'images' else images
    pictures, notes = leave_out_others(pictures_in(images))
    if not pictures:
        return None
    stamps: Sequence[int] = ()
    times = next((x for name in TIMES if (x := root / name).is_file()), None)
    if times is not None:
        pictures, stamps, more = read_times(times, pictures)
        notes += more
    elif named := stamps_of(pictures):
        pictures, stamps, unit = named
        notes += (f'stamps taken from the names: {unit}; fps says otherwise',)
    calibration, depth_scale = None, 0.001
    calibration_file = next((x for name in CALIBRATIONS if (x := root / name).is_file()), None)
    if calibration_file is not None:
        calibration, depth_scale = read_calibration(calibration_file)
    truth, poses = None, None
    file = next((x for name in POSES if (x := root / name).is_file()), None)
    if file is not None:
        truth, poses = read_poses(file, len(pictures))
    return Layout(
        'folder of pictures',
        pictures,
        stamps,
        times is None,
        calibration,
        calibration_file,
        truth,
        poses,
        beside(pictures, root / 'depth'),
        depth_scale,
        notes=notes,
    )


def leave_out_others(pictures: list[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Without masks, depth and the like that lie among them, where their names say so and not all names do; notes."""
    others = [x for x in pictures if OTHERS.search(x.stem)]
    if not others or len(others) == len(pictures):
        return pictures, ()
    chosen = [x for x in pictures if x not in set(others)]
    return chosen, (
        f'{len(others)} pictures are left out, their names say what they are: {others[0].name} and the like',
    )


def stamps_of(pictures: list[Path]) -> tuple[list[Path], list[int], str] | None:
    """(pictures in the order of time, nanoseconds, unit in words) where all names are times, else None.

    A time is a number of 19 digits (nanoseconds), 16 or 13 that is no counter, or a decimal fraction (seconds); one
    text may stand before.
    """
    found = [re.fullmatch(r'(\D*)(\d+(?:\.\d+)?)', x.stem) for x in pictures]
    if len(found) < 2 or None in found or len({x[1] for x in found if x}) != 1:
        return None
    times = [x[2] for x in found if x]
    digits = {len(x) for x in times}
    if any('.' in x for x in times):
        stamps, unit = [parse_stamp(x) for x in times], 'seconds'
    elif len(digits) == 1 and '0' not in {x[0] for x in times} and (named := UNITS.get(digits.pop())):
        stamps, unit = [int(x) * named[0] for x in times], named[1]
    else:
        return None
    if len(set(stamps)) < len(stamps) or max(stamps) >= 2**63:
        return None
    order = sorted(range(len(stamps)), key=stamps.__getitem__)
    # A stamp of 0 means "no time" to ROS.
    shift = 1 if stamps[order[0]] == 0 else 0
    return [pictures[i] for i in order], [stamps[i] + shift for i in order], unit


class Times(NamedTuple):
    """pictures: in the order of time. stamps: of each, nanoseconds. notes: what was assumed."""

    pictures: list[Path]
    stamps: list[int]
    notes: tuple[str, ...]


def read_times(path: Path, pictures: list[Path]) -> Times:
    """From "name seconds" a line, or from a time for each picture. Raises SequenceError."""
    absent = 0
    entries = list(lines(path))
    names = sorted((x.name for x in pictures), key=len, reverse=True)
    named = [next((name for name in names if _begins(line, name)), None) for _, line in entries]
    if any(named) or not _is_time(entries[0][1] if entries else ''):
        stamps: dict[str, int] = {}
        for (number, line), name in zip(entries, named, strict=True):
            words = line.removeprefix('"').removeprefix(name or '').removeprefix('"').replace(',', ' ').split()
            if name is None and len(words) >= 2:
                absent += not (pictures[0].parent / ' '.join(words[:-1])).exists()
                continue
            if not words or name is None:
                raise SequenceError(f'{path}:{number}: wanted "name seconds", found {line!r}')
            stamps[name] = _time(path, number, words[0])
        if missing := [x.name for x in pictures if x.name not in stamps]:
            raise SequenceError(f'{path}: no stamp for {missing[0]} ({len(missing)} of {len(pictures)} missing)')
        found = [stamps[x.name] for x in pictures]
    else:
        found = [_time(path, number, line) for number, line in entries]
        if len(found) != len(pictures):
            raise SequenceError(f'{path}: {len(found)} times for {len(pictures)} pictures')
    if len(set(found)) != len(found):
        raise SequenceError(f'{path}: two pictures have the same stamp')
    order = sorted(range(len(found)), key=found.__getitem__)
    shift = 1 if found and found[order[0]] == 0 else 0
    notes = (f'{path.name} names {absent} pictures that are not there',) if absent else ()
    return Times([pictures[i] for i in order], [found[i] + shift for i in order], notes)


def _begins(line: str, name: str) -> bool:
    rest = line.removeprefix('"').removeprefix(name)
    return rest != line.removeprefix('"') and rest[:1] in ('', ' ', '\t', ',', '"')


def _is_time(text: str) -> bool:
    return bool(re.fullmatch(r'[-+.\deE]+|\d{4}-\d\d-\d\d[ T].*', text))


def _time(path: Path, number: int, text: str) -> int:
    """Seconds or a date with its time (UTC) -> nanoseconds."""
    try:
        found = re.fullmatch(r'(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?', text)
        if found is None:
            return parse_stamp(text)
        day = datetime.strptime(f'{found[1]} {found[2]}', '%Y-%m-%d %H:%M:%S').replace(tzinfo=timezone.utc)
        return int(day.timestamp()) * 10**9 + int((found[3] or '0').ljust(9, '0'))
    except ValueError as error:
        raise SequenceError(f'{path}:{number}: {error}') from error


def read_poses(path: Path, count: int) -> tuple[Trajectory | None, np.ndarray | None]:
    """(poses with stamps of their own, or poses (N, 4, 4) one for each of ``count`` pictures). Raises SequenceError."""
    first = next(lines(path), None)
    if first is None:
        raise SequenceError(f'{path}: there is no pose in it')
    columns = len(first[1].replace(',', ' ').split())
    if columns not in (12, 16):
        try:
            return read_tum(path), None
        except ValueError as error:
            raise SequenceError(str(error)) from error
    return None, one_for_each(read_matrices(path, columns), count, path)


def one_for_each(poses: np.ndarray, count: int, path: Path) -> np.ndarray:
    """The same. Raises SequenceError when there are not as many as pictures."""
    if len(poses) != count:
        raise SequenceError(f'{path}: {len(poses)} poses for {count} pictures')
    return poses


def read_matrices(path: Path, columns: int) -> np.ndarray:
    """(N, 4, 4) from lines of 12 or 16 numbers, rows first."""
    found = [values[:columns] for _, _, values in numbers(path, columns)]
    poses = np.tile(np.eye(4), (len(found), 1, 1))
    poses[:, :3] = np.array(found).reshape(len(found), columns // 4, 4)[:, :3]
    return poses
