"""Which files make up a bag, and how its messages are packed."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from zstandard import ZstdDecompressor, ZstdError

from vggt_ros.files.bags.mcap_file import McapFile
from vggt_ros.files.bags.names import METADATA, PACKED, UNFINISHED, kind_of, stem_of, storages_in
from vggt_ros.files.bags.ros1_file import Ros1File
from vggt_ros.files.bags.sqlite_file import SqliteFile
from vggt_ros.files.bags.storage import Storage
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.text import is_there

# How each kind of storage begins, whatever it is called.
MAGIC: dict[bytes, type[Storage]] = {
    b'\x89MCAP': McapFile,
    b'SQLite format 3\0': SqliteFile,
    b'#ROSBAG V2.0': Ros1File,
}


@dataclass(frozen=True)
class BagFiles:
    """files: in the order of time. packed: whether each message is compressed (zstd). notes: what was assumed."""

    files: tuple[Path, ...]
    packed: bool = False
    notes: tuple[str, ...] = ()


def find_files(path: Path) -> BagFiles:
    """Of a file or a folder; raises SequenceError where it is not clear which they are."""
    if path.is_file():
        return BagFiles((path,))
    known = _metadata(path)
    listed = known.get('relative_file_paths')
    notes: tuple[str, ...] = ()
    present = storages_in(path)
    packed = str(known.get('compression_mode', '')).lower() == 'message'
    unique = dict.fromkeys(PurePath(str(name)).name for name in listed) if isinstance(listed, list) else {}
    named = [path / name for name in unique]
    if named and all(is_there(file) for file in named):
        left = [x.name for x in _without_twins(present) if stem_of(x) not in {stem_of(one) for one in named}]
        if left:
            notes = (f'{METADATA} does not name {", ".join(left)}: not read; give the file for it',)
        return BagFiles(tuple(named), packed, notes)
    present = _without_twins(present)
    if not present:
        missing = ', '.join(file.name for file in named)
        raise SequenceError(f'{path}: there is no storage file in it' + (f': {missing} is missing' if missing else ''))
    if (path / METADATA).is_file():
        notes = (f'{METADATA} does not say which files there are; read is {", ".join(x.name for x in present)}',)
    splits = {re.sub(r'[_-]\d+$', '', stem_of(file)) for file in present}
    if len(splits) > 1:
        names = ', '.join(file.name for file in present)
        raise SequenceError(f'{path}: {len(present)} bag files that are no parts of one, give one of them: {names}')
    if len(present) > 1:
        notes += (
            f'{len(present)} files are read as parts of one, in this order: {", ".join(x.name for x in present)}',
        )
    return BagFiles(tuple(present), packed, notes)


def _without_twins(files: list[Path]) -> list[Path]:
    """One file of each name: what was unpacked, or converted, lies beside what it came from."""
    found: dict[str, Path] = {}
    for file in sorted(files, key=lambda x: x.suffix.lower() in PACKED):
        found.setdefault(stem_of(file), file)
    return [file for file in files if file in found.values()]


def open_storage(path: Path, stack: ExitStack) -> Storage:
    """Open a file until the stack ends; one that is compressed as a whole is unpacked first. Raises SequenceError."""
    if kind_of(path) == UNFINISHED:
        raise SequenceError(f'{path}: the recording was not ended: run "rosbag reindex {path}"')
    if path.suffix.lower() in PACKED:
        path = _unpacked(path, stack)
    try:
        with path.open('rb') as file:
            begin = file.read(16)
    except OSError as error:
        raise SequenceError(f'{path}: {error.strerror or error}') from error
    for magic, opener in MAGIC.items():
        if begin.startswith(magic):
            return stack.enter_context(opener(path))  # type: ignore[call-arg]
    what = 'the file is empty' if not begin else f'it begins with {begin[:8]!r}'
    raise SequenceError(f'{path}: not a readable bag: {what}')


def _metadata(folder: Path) -> dict[str, Any]:
    """What can be read of it; a recorder that was killed leaves an empty one, or half."""
    try:
        fields = yaml.safe_load((folder / METADATA).read_text())['rosbag2_bagfile_information']
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _unpacked(path: Path, stack: ExitStack) -> Path:
    folder = stack.enter_context(TemporaryDirectory(prefix='vggt_bag_'))
    target = Path(folder) / PurePath(path.name).stem
    try:
        with path.open('rb') as source, target.open('wb') as sink:
            ZstdDecompressor().copy_stream(source, sink)
    except (ZstdError, OSError) as error:
        raise SequenceError(f'{path}: cannot be unpacked: {error}') from error
    return target
