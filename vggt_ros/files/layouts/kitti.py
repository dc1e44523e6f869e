"""KITTI odometry (``sequences/NN``) and KITTI raw (``DATE_drive_NNNN_sync``): rectified cameras 0 to 3.

Geiger et al., Vision meets Robotics: The KITTI Dataset, IJRR 2013; poses of GPS and IMU as its raw data development kit
converts them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, pictures_in
from vggt_ros.files.layouts.plain import one_for_each, read_matrices, read_times
from vggt_ros.files.text import first_numbers, lines
from vggt_ros.files.trajectory import Trajectory

SEQUENCES = ('sequences/*', 'dataset/sequences/*', '*_drive_*_sync', '*/*_drive_*_sync')  # below a root
CHOICE = (2, 0, 3, 1)  # cameras in the order of preference: colour before grey, left before right
EARTH = 6378137.0  # metres, the radius that the development kit uses


def find(folder: Path) -> Layout | None:
    """A sequence, or a camera's folder in it, or that one's ``data/``; or a folder that holds one sequence."""
    folder = folder.absolute()
    sequences = sorted(x for form in SEQUENCES for x in folder.glob(form) if any(x.glob('image_*')))
    if len(sequences) > 1:
        names = ', '.join(str(x.relative_to(folder)) for x in sequences)
        raise SequenceError(f'{folder}: {len(sequences)} sequences of KITTI, give one of them: {names}')
    if sequences:
        return find(sequences[0])
    inside = folder.parent if folder.name == 'data' else folder
    given = re.fullmatch(r'image_0?([0-3])', inside.name)
    root = inside.parent if given else folder
    found = {}
    for place in sorted(root.glob('image_*')):
        if number := re.fullmatch(r'image_0?([0-3])', place.name):
            found[int(number[1])] = place
    wanted = int(given[1]) if given else next((n for n in CHOICE if n in found), None)
    if wanted is None or wanted not in found:
        return None
    place = found[wanted]
    notes: tuple[str, ...] = ()
    if not given and len(found) > 1:
        others = ', '.join(found[n].name for n in sorted(found) if n != wanted)
        notes = (f'{place.name} is taken; there is {others} as well: give its folder for it',)
    if (place / 'data').is_dir():
        return _raw(root, place, wanted, notes)
    return _odometry(root, place, wanted, notes) if (root / 'times.txt').is_file() else None


def _odometry(root: Path, place: Path, number: int, notes: tuple[str, ...]) -> Layout:
    pictures, stamps, more = read_times(root / 'times.txt', _pictures(place))
    calibration, offset = None, np.eye(4)
    if (root / 'calib.txt').is_file():
        fields = _fields(root / 'calib.txt')
        calibration, offset = _camera(root / 'calib.txt', fields.get(f'P{number}'))
    poses = None
    file = root.parent.parent / 'poses' / f'{root.name}.txt'
    if file.is_file():
        poses = one_for_each(read_matrices(file, 12), len(pictures), file) @ offset
    return Layout('KITTI odometry', pictures, stamps, calibration=calibration, poses=poses, notes=notes + more)


def _raw(root: Path, place: Path, number: int, notes: tuple[str, ...]) -> Layout:
    pictures = _pictures(place / 'data')
    stamps: list[int] = []
    if (place / 'timestamps.txt').is_file():
        pictures, stamps, more = read_times(place / 'timestamps.txt', pictures)
        notes += more
    calibration, truth = None, None
    file = root.parent / 'calib_cam_to_cam.txt'
    if file.is_file() and root.name.endswith('_extract'):
        calibration = _unrectified(file, _fields(file), number)
        notes += ('the pictures are not rectified; true poses, which are those of the rectified ones, are not used',)
    elif file.is_file():
        fields = _fields(file)
        calibration, offset = _camera(file, fields.get(f'P_rect_0{number}'))
        truth = _gps(root, fields.get('R_rect_00'), offset)
    return Layout('KITTI raw', pictures, stamps, calibration=calibration, truth=truth, notes=notes)


def _pictures(folder: Path) -> list[Path]:
    if not (pictures := pictures_in(folder)):
        raise SequenceError(f'{folder}: there are no pictures in it')
    return pictures


def _fields(path: Path) -> dict[str, np.ndarray]:
    """Lines "name: numbers"; those with other values are left out."""
    found = {}
    for _, line in lines(path):
        name, _, values = line.partition(':')
        try:
            found[name.strip()] = np.array([float(value) for value in values.split()])
        except ValueError:
            continue  # a date
    return found


def _camera(path: Path, P: np.ndarray | None) -> tuple[Calibration, np.ndarray]:
    """(calibration, T_camera0_camera (4, 4)) from the projection of the rectified camera 0's frame."""
    if P is None or P.size != 12:
        raise SequenceError(f'{path}: no projection of twelve numbers for this camera')
    P = P.reshape(3, 4)
    offset = np.eye(4)
    offset[:3, 3] = -np.linalg.solve(P[:, :3], P[:, 3])
    return Calibration(0, 0, 'plumb_bob', (), tuple(P[:, :3].ravel().tolist())), offset


def _unrectified(path: Path, fields: dict[str, np.ndarray], number: int) -> Calibration:
    """Of a camera as it is: size, K and distortion."""
    size, K, lens = (fields.get(f'{name}_0{number}', np.empty(0)) for name in 'SKD')
    if (size.size, K.size, lens.size) != (2, 9, 5):
        raise SequenceError(f'{path}: no size, K and distortion of two, nine and five numbers for this camera')
    return Calibration(int(size[0]), int(size[1]), 'plumb_bob', tuple(lens.tolist()), tuple(K.tolist()))


def _gps(root: Path, R_rect: np.ndarray | None, offset: np.ndarray) -> Trajectory | None:
    """Of the camera, from ``oxts/``; None where a file is missing."""
    folder, above = root / 'oxts', root.parent
    needed = (folder / 'timestamps.txt', above / 'calib_imu_to_velo.txt', above / 'calib_velo_to_cam.txt')
    if R_rect is None or R_rect.size != 9 or not all(x.is_file() for x in needed):
        return None
    files, stamps, _ = read_times(needed[0], sorted((folder / 'data').glob('*.txt')))
    rows = np.array([first_numbers(x, 6)[:6] for x in files])
    latitude, longitude, up, roll, pitch, yaw = rows.T
    scale = np.cos(np.radians(latitude[0]))
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, 0, 3] = scale * np.radians(longitude) * EARTH
    T[:, 1, 3] = scale * EARTH * np.log(np.tan(np.radians(90 + latitude) / 2))
    T[:, 2, 3] = up
    T[:, :3, :3] = Rotation.from_euler('ZYX', np.stack([yaw, pitch, roll], -1)).as_matrix()
    rectify = np.eye(4)
    rectify[:3, :3] = R_rect.reshape(3, 3)
    T_camera0_imu = rectify @ _rigid(needed[2]) @ _rigid(needed[1])
    T[:, :3, 3] -= T[0, :3, 3]  # thousands of kilometres would cost digits
    return Trajectory(np.array(stamps, np.int64), T @ camera.invert(T_camera0_imu) @ offset)


def _rigid(path: Path) -> np.ndarray:
    fields, T = _fields(path), np.eye(4)
    try:
        T[:3, :3], T[:3, 3] = fields['R'].reshape(3, 3), fields['T']
    except (KeyError, ValueError) as error:
        raise SequenceError(f'{path}: wanted lines "R:" of nine and "T:" of three numbers ({error!r})') from error
    return T
