"""What files of bags are called; apart from what reads them, which takes long to import."""

from __future__ import annotations

from pathlib import Path, PurePath

from vggt_ros.files.text import natural

METADATA = 'metadata.yaml'
SUFFIXES = ('.bag', '.mcap', '.db3')
PACKED = ('.zstd', '.zst')  # of a storage that was compressed as a whole
UNFINISHED = '.active'  # what a recorder of ROS 1 that was killed leaves


def is_bag(path: Path) -> bool:
    """Whether a file, or something in a folder, is a storage by its name."""
    if path.is_dir():
        return bool(storages_in(path)) or _is_of_a_bag(path / METADATA)
    return kind_of(path) in (*SUFFIXES, UNFINISHED)


def _is_of_a_bag(metadata: Path) -> bool:
    """Whether a file is a bag's, and nobody else's of that name."""
    try:
        return b'rosbag2_bagfile_information' in metadata.read_bytes()
    except OSError:
        return False


def kind_of(path: Path) -> str:
    """Its suffix in lower case, without that of a compression."""
    name = path.name.lower()
    for suffix in PACKED:
        name = name.removesuffix(suffix)
    return PurePath(name).suffix


def stem_of(path: Path) -> str:
    """Its name without such suffixes."""
    name = path.name
    while PurePath(name).suffix.lower() in (*SUFFIXES, *PACKED):
        name = PurePath(name).stem
    return name


def storages_in(folder: Path) -> list[Path]:
    """Files of a folder that are storages by their names, in natural order."""
    found = [x for x in folder.iterdir() if x.is_file() and not x.name.startswith('.') and kind_of(x) in SUFFIXES]
    return sorted(found, key=lambda x: natural(x.name))
