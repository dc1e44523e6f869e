"""EuRoC MAV and TUM-VI: ``mav0/camN/data.csv``, ``data/``, ``sensor.yaml``; truth of the body beside.

Burri et al., The EuRoC micro aerial vehicle datasets, IJRR 2016; Schubert et al., The TUM VI Benchmark, IROS 2018.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, unlisted
from vggt_ros.files.text import lines, numbers, read_text
from vggt_ros.files.trajectory import Trajectory

LENSES = {'radial-tangential': 'plumb_bob', 'radtan': 'plumb_bob', 'equidistant': 'equidistant'}
TRUTHS = ('state_groundtruth_estimate0', 'mocap0')  # of the IMU, EuRoC's and TUM-VI's


def find(folder: Path) -> Layout | None:
    """The sequence, its ``mav0/``, a camera in it, or that camera's ``data/``."""
    folder = folder.absolute()
    notes: tuple[str, ...] = ()
    given = folder.parent if folder.name == 'data' else folder
    is_camera = re.fullmatch(r'cam\d', given.name) and (given / 'data.csv').is_file() and (given / 'data').is_dir()
    camera = given if is_camera else None
    if camera is None:
        mav = folder / 'mav0' if (folder / 'mav0').is_dir() else folder
        cameras = sorted(x for x in mav.glob('cam[0-9]') if (x / 'data.csv').is_file())
        if not cameras:
            return None
        camera = cameras[0]
        if len(cameras) > 1:
            others = ', '.join(x.name for x in cameras[1:])
            notes = (f'{camera.name} is taken; there is {others} as well: give its folder for it',)
    stamps, pictures = _read_list(camera / 'data.csv', camera / 'data')
    notes += unlisted(camera / 'data', pictures)
    calibration, T_body_camera = _sensor(camera / 'sensor.yaml')
    truth = None
    for name in TRUTHS:
        file = camera.parent / name / 'data.csv'
        if file.is_file() and (truth := _read_truth(file, T_body_camera)) is not None:
            if T_body_camera is None:
                truth, notes = None, (*notes, f'{file}: not used, sensor.yaml does not say where the camera is (T_BS)')
            break
    return Layout('EuRoC', pictures, stamps, calibration=calibration, truth=truth, notes=notes)


def _read_list(path: Path, data: Path) -> tuple[list[int], list[Path]]:
    """(nanoseconds, files) of lines "nanoseconds,file", in the order of time."""
    found = []
    for number, line in lines(path):
        words = [word.strip() for word in line.split(',')]
        found.append(
            (
                _nanoseconds(path, number, words[0]),
                data / (words[1] if len(words) > 1 and words[1] else f'{words[0]}.png'),
            )
        )
    if not found:
        raise SequenceError(f'{path}: no picture is named in it')
    found.sort(key=lambda entry: entry[0])
    return [stamp for stamp, _ in found], [file for _, file in found]


def _nanoseconds(path: Path, number: int, word: str) -> int:
    if not word.isdecimal() or int(word) >= 2**63:
        raise SequenceError(f'{path}:{number}: {word!r} is not a time in nanoseconds')
    return int(word)


def _sensor(path: Path) -> tuple[Calibration | None, np.ndarray | None]:
    """(calibration, T_body_camera (4, 4)), each None where the file does not say."""
    if not path.is_file():
        return None, None
    try:
        # Some copies carry OpenCV's first line, which YAML's own readers refuse.
        fields: Any = yaml.safe_load(read_text(path).removeprefix('%YAML:1.0'))
        T = fields.get('T_BS')
        T_body_camera = None if T is None else np.array(T['data'] if isinstance(T, dict) else T, float).reshape(4, 4)
        if 'intrinsics' not in fields:
            return None, T_body_camera
        model, lens = str(fields.get('camera_model', 'pinhole')), str(fields.get('distortion_model', 'radtan'))
        if model != 'pinhole' or lens not in LENSES:
            raise ValueError(f'a {model} camera with a {lens} lens; known are pinhole with {", ".join(LENSES)}')
        fx, fy, cx, cy = (float(value) for value in fields['intrinsics'])
        width, height = (int(value) for value in fields['resolution'])
        d = tuple(float(value) for value in fields.get('distortion_coefficients', ()))
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SequenceError(f'{path}: not a camera of EuRoC: {error}') from error
    return Calibration(width, height, LENSES[lens], d, (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)), T_body_camera


def _read_truth(path: Path, T_body_camera: np.ndarray | None) -> Trajectory | None:
    """From lines "ns, x, y, z, qw, qx, qy, qz, ...", of the body; None where attitudes are missing."""
    stamps, values = [], []
    for number, words, row in numbers(path, 4):
        if len(row) < 8:
            return None
        stamps.append(_nanoseconds(path, number, words[0]))
        values.append(row[1:8])
    rows = np.array(values).reshape(-1, 7)
    if not np.isfinite(rows).all() or (np.linalg.norm(rows[:, 3:], axis=1) < 0.5).any():
        raise SequenceError(f'{path}: not finite, or a quaternion has not length 1')
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    if len(rows):
        T[:, :3, :3] = Rotation.from_quat(rows[:, [4, 5, 6, 3]]).as_matrix()
        T[:, :3, 3] = rows[:, :3]
    return Trajectory(np.array(stamps, np.int64), T if T_body_camera is None else T @ T_body_camera)
