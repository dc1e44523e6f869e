"""Which layout a folder has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from vggt_ros.files.bags.names import is_bag
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts import colmap, euroc, kitti, nerf, plain, rgbd, tum
from vggt_ros.files.layouts.layout import Layout, pictures_in
from vggt_ros.files.sequence import IMAGE_SUFFIXES

# Each looks for files that only it has; a plain folder comes last.
FINDERS: tuple[Callable[[Path], Layout | None], ...] = (
    tum.find,
    euroc.find,
    kitti.find,
    rgbd.scannet,
    rgbd.seven_scenes,
    rgbd.replica,
    nerf.find,
    colmap.find,
    plain.find,
)
VIDEOS = {'.mp4', '.mov', '.mkv', '.webm', '.avi', '.h264', '.h265', '.mjpeg', '.m4v', '.ts', '.wmv'}
# Pictures that nothing here can read, and what to do about them.
FOREIGN = {'.jxl', '.dng', '.cr2', '.cr3', '.nef', '.arw', '.orf', '.raf', '.gif', '.svg'}


def is_dataset(folder: Path) -> bool:
    """Whether it has a layout of its own, and is no plain folder of pictures. Raises SequenceError as those do."""
    return any(find(folder) is not None for find in FINDERS[:-1])


def find_layout(folder: Path) -> Layout:
    """Raises SequenceError for a folder without pictures, saying what is in it instead."""
    inside = sorted(
        x.name
        for x in folder.iterdir()
        if x.suffix.lower() not in IMAGE_SUFFIXES and (x.suffix.lower() in VIDEOS or is_bag(x))
    )
    for find in FINDERS:
        if (layout := find(folder)) is not None:
            more = (f'not read, give it for that: {", ".join(inside)}',) if inside else ()
            return replace(layout, notes=(*layout.notes, *more))
    below = _layouts_below(folder)
    if len(below) > 1:
        names = ', '.join(f'{place.relative_to(folder)} ({layout.name})' for place, layout in below)
        raise SequenceError(f'{folder}: {len(below)} datasets, give one of them: {names}')
    for place, layout in below:
        return replace(layout, notes=(*layout.notes, f'{place.relative_to(folder)}/ is taken'))
    folders = _with_pictures(folder)
    if len(folders) == 1 and (layout := plain.find(folders[0])) is not None:
        return replace(layout, notes=(*layout.notes, f'the pictures of {folders[0].relative_to(folder)}/ are taken'))
    if folders:
        names = ', '.join(f'{x.relative_to(folder)} ({len(pictures_in(x))} pictures)' for x in folders)
        raise SequenceError(f'{folder}: several folders of pictures, give one of them: {names}')
    foreign = sorted(x.suffix for x in folder.iterdir() if x.suffix.lower() in FOREIGN)
    if foreign:
        raise SequenceError(
            f'{folder}: {len(foreign)} files like *{foreign[0]}, which are not read: convert them to jpg'
        )
    if inside:
        raise SequenceError(f'{folder}: no pictures; give what is in it: {", ".join(inside)}')
    raise SequenceError(f'{folder}: neither pictures ({" ".join(sorted(IMAGE_SUFFIXES))}) nor a bag')


def _layouts_below(folder: Path, depth: int = 2) -> list[tuple[Path, Layout]]:
    """Folders below this one that are datasets, as archives leave them, with what they tell; not plain ones."""
    found: list[tuple[Path, Layout]] = []
    for inside in sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith('.')):
        layout = next((x for find in FINDERS[:-1] if (x := find(inside)) is not None), None)
        if layout is not None:
            found.append((inside, layout))
        elif depth > 1:
            found += _layouts_below(inside, depth - 1)
    return found


def _with_pictures(folder: Path, depth: int = 3) -> list[Path]:
    """Folders below this one that hold pictures, down to some depth."""
    found = []
    for inside in sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith('.')):
        if pictures_in(inside):
            found.append(inside)
        elif depth > 1:
            found += _with_pictures(inside, depth - 1)
    return found
