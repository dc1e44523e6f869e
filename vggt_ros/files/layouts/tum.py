"""TUM RGB-D, and ETH3D SLAM, which follows it: ``rgb.txt``, ``depth.txt``, ``groundtruth.txt``, ``calibration.txt``.

Sturm et al., A Benchmark for the Evaluation of RGB-D SLAM Systems, IROS 2012; Schöps et al., BAD SLAM, CVPR 2019.
"""

from __future__ import annotations

import re
from pathlib import Path

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, nearest, unlisted
from vggt_ros.files.layouts.plain import read_poses
from vggt_ros.files.text import first_numbers, lines
from vggt_ros.files.trajectory import parse_stamp

APART = 20_000_000  # nanoseconds that a depth picture may be from its colour picture: the benchmark's own associate.py
DEPTH_SCALE = 1 / 5000  # metres per unit, both benchmarks
# The cameras of the TUM sequences, from the benchmark's page "File formats": fx fy cx cy, k1 k2 p1 p2 k3.
TUM = {
    '1': ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    '2': ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    '3': ((535.4, 539.2, 320.1, 247.6), (0.0, 0.0, 0.0, 0.0, 0.0)),
}


def find(folder: Path) -> Layout | None:
    """The folder with the lists, or its ``rgb/``."""
    root = folder.absolute().parent if folder.absolute().name == 'rgb' else folder
    if not (root / 'rgb.txt').is_file():
        return None
    notes: tuple[str, ...] = ()
    stamps, pictures = _read_list(root / 'rgb.txt')
    depth: list[Path | None] = []
    if (root / 'depth.txt').is_file():
        times, files = _read_list(root / 'depth.txt')
        depth = [None if i is None else files[i] for i in nearest(stamps, times, APART)]
    calibration, note = _calibration(root)
    truth = None
    if (root / 'groundtruth.txt').is_file():
        truth, _ = read_poses(root / 'groundtruth.txt', len(pictures))
    if note:
        notes += (note,)
    notes += unlisted(root / 'rgb', pictures)
    if depth:
        notes += (f'depth in units of {DEPTH_SCALE:g} m, as this layout has it',)
    return Layout(
        'TUM RGB-D',
        pictures,
        stamps,
        calibration=calibration,
        truth=truth,
        depth=depth,
        depth_scale=DEPTH_SCALE,
        notes=notes,
    )


def _read_list(path: Path) -> tuple[list[int], list[Path]]:
    """(nanoseconds, files) of lines "seconds file", in the order of time."""
    found = []
    for number, line in lines(path):
        words = line.split(maxsplit=1)
        try:
            stamp = parse_stamp(words[0])
        except ValueError as error:
            raise SequenceError(f'{path}:{number}: {error}') from error
        if len(words) < 2:
            raise SequenceError(f'{path}:{number}: wanted "seconds file", found {line!r}')
        found.append((stamp, path.parent / words[1]))
    if not found:
        raise SequenceError(f'{path}: no picture is named in it')
    found.sort(key=lambda entry: entry[0])
    return [stamp for stamp, _ in found], [file for _, file in found]


def _calibration(root: Path) -> tuple[Calibration | None, str]:
    """ETH3D's ``calibration.txt``, else the published camera of the TUM sequence that the folder is named after."""
    if (root / 'calibration.txt').is_file():
        values = first_numbers(root / 'calibration.txt', 4)
        # It does not hold the size; the pictures of the benchmark are 739x458. See FolderSequence: 0 takes theirs.
        fx, fy, cx, cy = values[:4]
        return Calibration(0, 0, 'plumb_bob', (), (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)), ''
    if found := re.search(r'(?:freiburg|fr)([123])', root.absolute().name):
        (fx, fy, cx, cy), lens = TUM[found[1]]
        k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
        note = f'calibration: the published one of freiburg{found[1]}, by the name of the folder'
        return Calibration(640, 480, 'plumb_bob', lens, k), note
    return None, ''
