"""What a layout tells of a folder of pictures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.sequence import IMAGE_SUFFIXES
from vggt_ros.files.text import natural
from vggt_ros.files.trajectory import Trajectory

T = TypeVar('T')


@dataclass(frozen=True, eq=False)
class Layout:
    """The pictures of one camera and what is known of them.

    name: of the layout, for people. pictures: in the order of time. stamps: nanoseconds, one for each picture; empty
    where there are none; guessed: whether they may be no times at all. calibration: of the camera, with a size of 0
    where that is the pictures'; calibration_file: that it is from. truth: camera-to-world, optical axes, metres, with
    stamps of its own; poses: (N, 4, 4) the same, one for each picture, NaN where unknown. depth: a file for each
    picture, or None; empty where there are none. depth_scale: metres per unit of it. depth_unknown: values that mean
    nothing. notes: what was assumed.
    """

    name: str
    pictures: Sequence[Path]
    stamps: Sequence[int] = ()
    guessed: bool = False
    calibration: Calibration | None = None
    calibration_file: Path | None = None
    truth: Trajectory | None = None
    poses: np.ndarray | None = None
    depth: Sequence[Path | None] = ()
    depth_scale: float = 0.001
    depth_unknown: tuple[int, ...] = (0,)
    notes: tuple[str, ...] = ()


def pictures_in(folder: Path) -> list[Path]:
    """Files that are pictures by their names, in natural order (2 before 10); hidden ones are not, and links that lead
    nowhere are, to be counted when they are read."""
    found = [x for x in folder.iterdir() if x.suffix.lower() in IMAGE_SUFFIXES and not x.name.startswith('.')]
    return sorted((x for x in found if not x.is_dir()), key=lambda x: (natural(x.stem), x.suffix))


def nearest(stamps: Sequence[int], candidates: Sequence[int], bound: int) -> list[int | None]:
    """For each stamp the place of the nearest candidate (sorted), None where none is within ``bound`` nanoseconds."""
    found: list[int | None] = []
    for stamp in stamps:
        after = bisect_left(candidates, stamp)
        around = [i for i in (after - 1, after) if 0 <= i < len(candidates)]
        best = min(around, key=lambda i: abs(candidates[i] - stamp), default=None)
        found.append(best if best is not None and abs(candidates[best] - stamp) <= bound else None)
    return found


def once(items: Iterable[T], key: Callable[[T], Hashable]) -> tuple[list[T], int]:
    """The first of those that have one key, in their order, and how many more there are."""
    first: dict[Hashable, T] = {}
    count = 0
    for count, item in enumerate(items, 1):  # noqa: B007 - of all, behind the loop
        first.setdefault(key(item), item)
    return list(first.values()), count - len(first)


def folders_of(files: Iterable[Path]) -> list[str]:
    """The folders in which they lie, in natural order."""
    return sorted({x.parent.as_posix() for x in files}, key=natural)


def _left_over(there: Iterable[Path], listed: Iterable[Path]) -> list[Path]:
    """The pictures among some files that are not listed; hidden ones are none."""
    known = set(listed)
    return sorted(x for x in there if x.suffix.lower() in IMAGE_SUFFIXES and x not in known and x.name[0] != '.')


def not_listed(there: Iterable[Path], listed: Iterable[Path], by: str) -> tuple[str, ...]:
    """A note of the pictures among some files that something does not have; empty where it has all."""
    left = _left_over(there, listed)
    return (f'{len(left)} pictures are left out, {by} does not have them: {left[0].name} and the like',) if left else ()


def unlisted(folder: Path, listed: Iterable[Path]) -> tuple[str, ...]:
    """The same of the pictures of a folder that a list does not name."""
    names = {folder / x.name for x in listed}
    left = _left_over(pictures_in(folder), names) if folder.is_dir() else []
    return (f'{len(left)} pictures in {folder.name}/ are not in the list: not used',) if left else ()


def beside(pictures: Iterable[Path], folder: Path, suffixes: Sequence[str] = ('.png',)) -> list[Path | None]:
    """For each picture the file of the same name in another folder; empty where there is none of any."""
    found = [
        next((x for s in suffixes if (x := folder / f'{picture.stem}{s}').is_file()), None) for picture in pictures
    ]
    return found if any(found) else []
