"""Calibrations as files: our own, ROS camera_calibration's, OpenCV's and Kalibr's.

What is in such a file and not known here may change what the numbers mean: it is refused, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError, in_a_line
from vggt_ros.files.text import read_text

DEPTH_SCALE = 0.001  # metres per unit of depth pictures, where nobody says otherwise
DEPTH_SCALES = (1e-6, 0.1)  # what it can be; some programs write units per metre
OWN = {'image_width', 'image_height', 'fx', 'fy', 'cx', 'cy', 'skew', 'distortion_model', 'distortion', 'depth_scale'}
TOLD = {'pose_units', 'depth_max'}  # about what lies beside; poses are metres, see below
MATRICES = ('camera_matrix', 'distortion_coefficients', 'rectification_matrix', 'projection_matrix')
ROS = {'image_width', 'image_height', 'camera_name', 'distortion_model', 'camera_model', 'depth_scale', *MATRICES}
# Kalibr's camera and lens -> ROS's lens.
KALIBR = {
    ('pinhole', 'radtan'): 'plumb_bob',
    ('pinhole', 'equidistant'): 'equidistant',
    ('pinhole', 'equi'): 'equidistant',
    ('pinhole', 'none'): 'plumb_bob',
}
KALIBR_KEYS = {'camera_model', 'intrinsics', 'distortion_model', 'distortion_coeffs', 'resolution'}
KALIBR_OTHERS = {'cam_overlaps', 'rostopic', 'T_cam_imu', 'T_cn_cnm1', 'timeshift_cam_imu'}  # of other sensors
# Names in files of OpenCV's FileStorage, lower case without underscores: its samples' and those of common programs.
CV_MATRIX = ('cameramatrix', 'intrinsicmatrix', 'k', 'm1', 'm', 'intrinsics')
CV_LENS = ('distortioncoefficients', 'distcoeffs', 'distortioncoeffs', 'd', 'd1', 'dist')
CV_WIDTH, CV_HEIGHT = ('imagewidth', 'width'), ('imageheight', 'height')
# About how it was made.
CV_OTHERS = re.compile(
    r'calibrationtime|nrofframes|nframes|board(width|height|size)|squaresize|aspectratio|flags|avgreprojectionerror'
    r'|perviewreprojectionerrors|extrinsicparameters|imagepoints|gridpoints|calibrateboardtype|calibratepattern'
    r'|calibratenrofframestouse|fixaspectratio|reprojectionerror|rms|camera(name|id)|markersize|serialnumber'
)


def read_calibration(path: Path) -> tuple[Calibration, float]:
    """(calibration, metres per unit of depth pictures). Raises SequenceError naming the file."""
    text = read_text(path)
    try:
        if text.lstrip().startswith(('%YAML:1.0', '<?xml')) or '!!opencv-matrix' in text:
            return _of_opencv(path), DEPTH_SCALE
        fields = yaml.safe_load(text)
        if isinstance(fields, dict) and isinstance(fields.get('cam0'), dict):
            return _of_kalibr(fields), DEPTH_SCALE
        return _of_fields(fields)
    except (ValueError, OverflowError, RecursionError, yaml.YAMLError, cv2.error) as error:
        raise SequenceError(f'{path}: {in_a_line(error)}') from error


def _of_fields(fields: Any) -> tuple[Calibration, float]:
    """Our own form, and the one that ROS's camera_calibration writes."""
    if not isinstance(fields, dict):
        raise ValueError('not a camera calibration: there are no "name: value" lines in it')
    known = ROS if 'camera_matrix' in fields else OWN | TOLD
    if str(fields.get('pose_units', 'm')) not in ('m', 'metres', 'meters'):
        raise ValueError(f'pose_units are {fields["pose_units"]}: only metres are read')
    _refuse(set(fields) - known, known)
    if 'camera_model' in fields:
        model = str(fields['camera_model'])
        if fields.get('distortion_model', model) != model and model != 'pinhole':
            raise ValueError(f'camera_model {model} and distortion_model {fields["distortion_model"]} contradict')
        # camera_calibration_parsers writes "pinhole" beside the model of the lens, others the lens itself.
        fields = {'distortion_model': 'plumb_bob' if model == 'pinhole' else model} | fields
    try:
        scale = float(fields.get('depth_scale', DEPTH_SCALE))
    except TypeError as error:
        raise ValueError(f'depth_scale is no number: {error}') from error
    low, high = DEPTH_SCALES
    if not low <= scale <= high:
        raise ValueError(f'depth_scale {scale:g}: metres per unit of depth are wanted, {low:g} to {high:g} (0.001: mm)')
    return Calibration.from_fields(fields), scale


def _of_kalibr(fields: Mapping[str, Any]) -> Calibration:
    """A camchain; its first camera."""
    camera = fields['cam0']
    _refuse(set(camera) - KALIBR_KEYS - KALIBR_OTHERS, KALIBR_KEYS)
    try:
        kind = (str(camera['camera_model']), str(camera['distortion_model']))
        fx, fy, cx, cy = (float(value) for value in camera['intrinsics'])
        width, height = (int(value) for value in camera['resolution'])
        lens = tuple(float(value) for value in camera['distortion_coeffs'])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'not a pinhole camera of Kalibr ({error!r})') from error
    if kind not in KALIBR:
        names = ', '.join(sorted(f'{camera}-{lens}' for camera, lens in KALIBR))
        raise ValueError(f'cam0 is {kind[0]}-{kind[1]}; known are {names}')
    return Calibration(width, height, KALIBR[kind], lens, (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0))


def _of_opencv(path: Path) -> Calibration:
    """A file of OpenCV's FileStorage."""
    storage = cv2.FileStorage()
    try:
        storage.open(str(path), cv2.FILE_STORAGE_READ)  # the constructor raises what nobody can catch
        nodes = {re.sub(r'[_\- ]', '', name).lower(): (name, storage.getNode(name)) for name in storage.root().keys()}  # noqa: SIM118 - a FileNode
        fisheye = [name for name in nodes if name.startswith('fisheye')]
        used = {*CV_MATRIX, *CV_LENS, *CV_WIDTH, *CV_HEIGHT, *fisheye}
        unknown = [nodes[name][0] for name in nodes if name not in used and not CV_OTHERS.fullmatch(name)]
        _refuse(unknown, ('camera_matrix', 'distortion_coefficients', 'image_width', 'image_height'))

        def pick(names: Iterable[str], what: str) -> cv2.FileNode:
            found = [nodes[name][1] for name in names if name in nodes]
            if len(found) != 1:
                raise ValueError(f'{len(found)} entries for the {what} instead of one')
            return found[0]

        K = pick(CV_MATRIX, 'camera matrix').mat()
        lens = pick(CV_LENS, "lens's coefficients").mat()
        size = (int(pick(CV_WIDTH, 'width').real()), int(pick(CV_HEIGHT, 'height').real()))
        model = 'equidistant' if any(nodes[name][1].real() for name in fisheye) else ''
    finally:
        storage.release()
    if K is None or K.shape != (3, 3) or lens is None:
        raise ValueError('the camera matrix is not 3x3, or the coefficients are no matrix')
    d = tuple(float(value) for value in np.ravel(lens))
    model = model or ('plumb_bob' if len(d) <= 5 else 'rational_polynomial')
    return Calibration(*size, model, d, tuple(float(value) for value in np.ravel(K)))


def _refuse(unknown: Iterable[str], known: Iterable[str]) -> None:
    if names := ', '.join(sorted(map(str, unknown))):
        raise ValueError(
            f'{names}: not known here, it may change what the numbers mean; remove it if it does not'
            f' (known: {", ".join(sorted(known))})'
        )
