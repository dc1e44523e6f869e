"""A folder of pictures as anybody makes it, and what may lie beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vggt_ros.files.calibrations import read_calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, beside, pictures_in
from vggt_ros.files.pace import note_of_pace
from vggt_ros.files.text import is_there, lines, numbers
from vggt_ros.files.trajectory import Trajectory, parse_stamp, read_tum

TIMES = ('timestamps.txt', 'times.txt')
POSES = ('poses.txt', 'groundtruth.txt', 'trajectory.txt')
CALIBRATIONS = tuple(
    f'{name}.{suffix}'
    for name in ('intrinsics', 'camera', 'calibration', 'ost', 'camera_info', 'camchain')
    for suffix in ('yaml', 'yml', 'xml')
)
# What may be a calibration by its name, and is said when it is not read.
LIKE_A_CALIBRATION = re.compile(r'(intrin|calib|camera|camchain|cam\d|^ost|^k$).*', re.I)
TEXTS = {'.yaml', '.yml', '.xml', '.json', '.txt', '.ini', '.npz'}
# Beside pictures: what is none of the camera's, by a word in its name.
OTHERS = re.compile(
    r'(^|[._\- ])(masks?|depth|disp|disparity|segm?|segmentation|labels?|normals?|conf|confidence|thumb)\d*([._\- ]|$)',
    re.I,
)
UNITS = {19: (1, 'nanoseconds'), 16: (1000, 'microseconds'), 13: (1_000_000, 'milliseconds')}  # by their digits


def find(folder: Path) -> Layout | None:
    """Pictures in the folder or in its ``images/``; beside either: times, poses, a calibration, ``depth/``.

    ``timestamps.txt`` or ``times.txt``: "name seconds" a line, or a time a line. ``poses.txt``: TUM, or 12 or 16
    numbers a line, camera-to-world. ``depth/``: 16-bit PNG named as the picture, 0 = unknown.
    """
    inside = folder / 'images'
    images = inside if inside.is_dir() and pictures_in(inside) else folder
    root = images.absolute().parent if images.absolute().name == 'images' else images
    pictures, notes = leave_out_others(pictures_in(images))
    if not pictures:
        return None
    if images == inside and (others := pictures_in(folder)):
        notes += (f'the pictures of images/ are taken, not the {len(others)} beside it',)
    _refuse_two_of_a_name(images, pictures)
    _refuse_two_cameras(images, pictures)
    stamps: Sequence[int] = ()
    times = _beside(TIMES, root, images)
    if times is not None:
        pictures, stamps, more = read_times(times, pictures)
        notes += more
    elif named := stamps_of(pictures):
        pictures, stamps, unit = named
        notes += (f'stamps taken from the names: {unit}; fps says otherwise',)
    calibration, depth_scale = None, 0.001
    calibration_file = _beside(CALIBRATIONS, root, images) or next(iter(sorted(root.glob('*camchain.yaml'))), None)
    if calibration_file is not None:
        calibration, depth_scale = read_calibration(calibration_file)
    elif unread := sorted(x.name for x in root.iterdir() if _may_calibrate(x)):
        notes += (f'not read, though it may be a calibration: {", ".join(unread)} (intrinsics.yaml is)',)
    truth, poses = None, None
    file = _beside(POSES, root, images)
    if file is not None:
        truth, poses = read_poses(file, len(pictures))
    depth = beside(pictures, root / 'depth')
    if not depth and (root / 'depth').is_dir() and pictures_in(root / 'depth'):
        notes += ('depth/ is left out: no picture in it has the name of one of the camera',)
    return Layout(
        'folder of pictures',
        pictures,
        stamps,
        times is None,
        calibration,
        calibration_file,
        truth,
        poses,
        depth,
        depth_scale,
        notes=notes,
    )


def _beside(names: Sequence[str], *folders: Path) -> Path | None:
    """The first of these files that there is, in the first of these folders."""
    return next((x for folder in folders for name in names if (x := folder / name).is_file()), None)


def _may_calibrate(file: Path) -> bool:
    return file.suffix.lower() in TEXTS and bool(LIKE_A_CALIBRATION.match(file.stem)) and file.is_file()


def _refuse_two_of_a_name(folder: Path, pictures: list[Path]) -> None:
    """Raises SequenceError where every picture is there twice, with different suffixes: one kind is no picture."""
    kinds: dict[str, set[str]] = {}
    for picture in pictures:
        kinds.setdefault(picture.suffix.lower(), set()).add(picture.stem)
    first, *others = sorted(kinds.values(), key=len, reverse=True)
    if any(len(other) > 1 and other <= first for other in others):
        names = ' and '.join(f'*{suffix}' for suffix in sorted(kinds))
        raise SequenceError(f'{folder}: {names} have the same names: move away what is not of the camera')


def _refuse_two_cameras(folder: Path, pictures: list[Path]) -> None:
    """Raises SequenceError where names with two words have the same numbers: left01, right01, left02, ..."""
    groups: dict[str, list[str]] = {}
    for picture in pictures:
        if found := re.fullmatch(r'(\D*)(\d+)', picture.stem):
            groups.setdefault(found[1], []).append(found[2])
    counts = [sorted(numbers) for numbers in groups.values()]
    if len(groups) > 1 and len(counts[0]) > 1 and all(one == counts[0] for one in counts):
        names = ', '.join(f'{word}*' for word in sorted(groups))
        raise SequenceError(f'{folder}: several cameras ({names}): move them to folders of their own')


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

    A time is a number of 19 digits (nanoseconds), 16 or 13 that counts from 1970 to between 2001 and 2033, with or
    without decimals; or another decimal fraction (seconds), where pictures are milliseconds to half a minute apart. One
    text may stand before, apart from it.
    """
    found = [re.fullmatch(r'(|.*[_\- ]|\D*)(\d+(?:\.\d+)?)', x.stem) for x in pictures]
    if len(found) < 2 or None in found or len({x[1] for x in found if x}) != 1:
        return None
    times, word = [x[2] for x in found if x], next(x[1] for x in found if x)
    whole = {len(x.partition('.')[0]) for x in times}
    if len(whole) == 1 and {x[0] for x in times} == {'1'} and (named := UNITS.get(max(whole))):
        stamps, unit = [int(Decimal(x) * named[0]) for x in times], named[1]
    elif any('.' in x for x in times) and word != '-' and (not word or word[-1] in '_- '):
        stamps, unit = [int(Decimal(x) * 10**9) for x in times], 'seconds'
        if note_of_pace(sorted(stamps)):
            return None  # versions, chapters, milliseconds
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
                absent += not is_there(pictures[0].parent / ' '.join(words[:-1]))
                continue
            if not words or name is None:
                raise SequenceError(f'{path}:{number}: wanted "name seconds", found {line!r}')
            stamps[name] = _time(path, number, _seconds(words))
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


def _seconds(words: list[str]) -> str:
    """A time of one column, or of two: seconds and nanoseconds, as ROS has it."""
    if len(words) > 1 and re.fullmatch(r'\d{9,}', words[0]) and re.fullmatch(r'\d{1,9}', words[1]):
        return f'{words[0]}.{int(words[1]):09d}'
    return words[0]


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
