"""RGB-D datasets with a file of each kind for every picture: ScanNet, 7-Scenes, Replica.

Dai et al., ScanNet, CVPR 2017; Shotton et al., Scene Coordinate Regression Forests (7-Scenes), CVPR 2013; Straub et
al., The Replica Dataset, 2019, as rendered for iMAP and NICE-SLAM.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.layouts.layout import Layout, beside, pictures_in
from vggt_ros.files.layouts.plain import one_for_each, read_matrices
from vggt_ros.files.text import natural, numbers, read_text

SEVEN_SCENES_K = (585.0, 0.0, 320.0, 0.0, 585.0, 240.0, 0.0, 0.0, 1.0)  # the dataset's page; colour is not registered


def scannet(folder: Path) -> Layout | None:
    """An exported scene with ``color/``, ``pose/``, ``depth/``, ``intrinsic/``; or its ``color/``."""
    root = folder.absolute().parent if folder.absolute().name == 'color' else folder.absolute()
    if not (root / 'color').is_dir() or not (root / 'pose').is_dir():
        return None
    pictures = pictures_in(root / 'color')
    if not pictures:
        raise SequenceError(f'{root / "color"}: there are no pictures in it')
    calibration = None
    if (root / 'intrinsic' / 'intrinsic_color.txt').is_file():
        K = np.array([row[:3] for _, _, row in numbers(root / 'intrinsic' / 'intrinsic_color.txt', 3)])[:3]
        calibration = Calibration(0, 0, 'plumb_bob', (), tuple(K.ravel().tolist()))
    poses = np.stack([_matrix(root / 'pose' / f'{x.stem}.txt') for x in pictures])
    return Layout('ScanNet', pictures, calibration=calibration, poses=poses, depth=beside(pictures, root / 'depth'))


def seven_scenes(folder: Path) -> Layout | None:
    """A sequence with ``frame-NNNNNN.color.png``, ``.depth.png`` and ``.pose.txt``."""
    pictures = sorted(folder.glob('frame-*.color.png'), key=lambda x: natural(x.name))
    if not pictures:
        return None
    stems = [x.name.removesuffix('.color.png') for x in pictures]
    poses = np.stack([_matrix(folder / f'{stem}.pose.txt') for stem in stems])
    depth = [x if (x := folder / f'{stem}.depth.png').is_file() else None for stem in stems]
    calibration = Calibration(640, 480, 'plumb_bob', (), SEVEN_SCENES_K)
    notes = ('calibration: the one that the dataset names for its depth camera; colour and depth are not registered',)
    return Layout(
        '7-Scenes', pictures, calibration=calibration, poses=poses, depth=depth, depth_unknown=(0, 65535), notes=notes
    )


def replica(folder: Path) -> Layout | None:
    """A room with ``results/frameNNNNNN.jpg``, ``results/depthNNNNNN.png``, ``traj.txt``; ``cam_params.json`` above."""
    root = folder.absolute().parent if folder.absolute().name == 'results' else folder.absolute()
    if not (root / 'results').is_dir() or not (root / 'traj.txt').is_file():
        return None
    pictures = [x for x in pictures_in(root / 'results') if x.stem.startswith('frame')]
    if not pictures:
        raise SequenceError(f'{root / "results"}: there are no pictures "frame..." in it')
    poses = one_for_each(read_matrices(root / 'traj.txt', 16), len(pictures), root / 'traj.txt')
    depth = [x.with_name(x.stem.replace('frame', 'depth') + '.png') for x in pictures]
    calibration, scale = None, 1 / 6553.5
    file = next((x for x in (root / 'cam_params.json', root.parent / 'cam_params.json') if x.is_file()), None)
    if file is not None:
        try:
            fields = json.loads(read_text(file))['camera']
            fx, fy, cx, cy = (float(fields[name]) for name in ('fx', 'fy', 'cx', 'cy'))
            size, scale = (int(fields['w']), int(fields['h'])), 1 / float(fields['scale'])
        except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
            raise SequenceError(f'{file}: not the camera of Replica ({error!r})') from error
        calibration = Calibration(*size, 'plumb_bob', (), (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0))
    present = [x if x.is_file() else None for x in depth]
    return Layout('Replica', pictures, calibration=calibration, poses=poses, depth=present, depth_scale=scale)


def _matrix(path: Path) -> np.ndarray:
    """(4, 4) from four lines of four numbers; NaN where there is no file or the pose is unknown (infinite)."""
    if not path.is_file():
        return np.full((4, 4), np.nan)
    rows = [row[:4] for _, _, row in numbers(path, 4)]
    if len(rows) != 4:
        raise SequenceError(f'{path}: {len(rows)} lines of numbers instead of four')
    T = np.array(rows)
    return T if np.isfinite(T).all() else np.full((4, 4), np.nan)
