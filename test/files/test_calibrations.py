"""Calibration files of every program: the same camera, or refused with the word that was not understood."""

import cv2
import numpy as np
import pytest
import yaml

from vggt_ros.files.calibrations import read_calibration
from vggt_ros.files.errors import SequenceError

K = [[310.5, 0, 159.5], [0, 311.5, 119.25], [0, 0, 1]]
LENS = [0.1, -0.02, 0.001, -0.002]


def matrix(values):
    values = np.atleast_2d(values)
    return {'rows': values.shape[0], 'cols': values.shape[1], 'data': [float(x) for x in values.ravel()]}


def ros(**changes):
    """As camera_calibration and camera_calibration_parsers write it; a change to None leaves an entry out."""
    fields = {
        'image_width': 320,
        'image_height': 240,
        'camera_name': 'narrow',
        'camera_matrix': matrix(K),
        'distortion_model': 'plumb_bob',
        'distortion_coefficients': matrix(LENS),
        'rectification_matrix': matrix(np.eye(3)),
        'projection_matrix': matrix(np.c_[K, np.zeros(3)]),
    } | changes
    return yaml.safe_dump({name: value for name, value in fields.items() if value is not None})


def kalibr(**changes):
    camera = {
        'cam_overlaps': [1],
        'camera_model': 'pinhole',
        'distortion_coeffs': LENS,
        'distortion_model': 'radtan',
        'intrinsics': [310.5, 311.5, 159.5, 119.25],
        'resolution': [320, 240],
        'rostopic': '/cam0/image_raw',
    } | changes
    return yaml.safe_dump({'cam0': camera, 'cam1': {**camera, 'T_cn_cnm1': np.eye(4).tolist()}})


def opencv(tmp_path, matrix_name='camera_matrix', lens_name='distortion_coefficients', **others):
    """As OpenCV itself writes it."""
    path = tmp_path / 'by_opencv.yaml'
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in ({'image_width': 320, 'image_height': 240} | others).items():
        storage.write(name, value)
    storage.write(matrix_name, np.array(K))
    storage.write(lens_name, np.array(LENS)[None])
    storage.release()
    return path


def read(tmp_path, text):
    (tmp_path / 'camera.yaml').write_text(text)
    return read_calibration(tmp_path / 'camera.yaml')


@pytest.mark.parametrize(
    ('text', 'lens'),
    [
        (ros(), 'plumb_bob'),
        (ros(distortion_model='rational_polynomial'), 'rational_polynomial'),
        (ros(distortion_model=None, camera_model='fisheye'), 'fisheye'),
        (ros(camera_model='pinhole'), 'plumb_bob'),
        (ros(camera_model='plumb_bob'), 'plumb_bob'),
        ('\ufeff' + ros(), 'plumb_bob'),
        (kalibr(), 'plumb_bob'),
        (kalibr(distortion_model='equidistant'), 'equidistant'),
    ],
)
def test_one_camera_in_every_form(text, lens, tmp_path):
    calibration, depth_scale = read(tmp_path, text)
    np.testing.assert_allclose(calibration.K, K)
    assert (calibration.width, calibration.height, calibration.distortion_model) == (320, 240, lens)
    assert calibration.d == tuple(LENS)
    assert depth_scale == 0.001


@pytest.mark.parametrize(
    ('names', 'others', 'lens'),
    [
        ({}, {}, 'plumb_bob'),
        ({}, {'calibration_time': 'now', 'nframes': 20, 'board_width': 9, 'avg_reprojection_error': 0.2}, 'plumb_bob'),
        ({'matrix_name': 'K', 'lens_name': 'D'}, {}, 'plumb_bob'),
        ({'matrix_name': 'Camera_Matrix', 'lens_name': 'Distortion_Coefficients'}, {}, 'plumb_bob'),
        ({'matrix_name': 'cameraMatrix', 'lens_name': 'distCoeffs'}, {'fisheye_model': 1}, 'equidistant'),
        ({}, {'fisheye_model': 0}, 'plumb_bob'),
    ],
)
def test_files_of_opencv(names, others, lens, tmp_path):
    calibration, _ = read_calibration(opencv(tmp_path, **names, **others))
    np.testing.assert_allclose(calibration.K, K)
    assert (calibration.width, calibration.height, calibration.distortion_model) == (320, 240, lens)
    assert calibration.d == tuple(LENS)


@pytest.mark.parametrize(
    ('text', 'complaint'),
    [
        (ros(lens_type='wide'), 'lens_type: not known here'),
        (ros(camera_model='fisheye'), 'camera_model fisheye and distortion_model plumb_bob contradict'),
        (ros(projection_matrix=None), r"not a camera calibration \(KeyError\('projection_matrix'\)\)"),
        (kalibr(camera_model='omni'), 'cam0 is omni-radtan; known are pinhole-'),
        (kalibr(xi=0.7), 'xi: not known here'),
        (kalibr(resolution=[320]), 'not a pinhole camera of Kalibr'),
        ('image_width: 320\nfocus: 3\n', 'focus: not known here'),
        ('pose_units: feet\nimage_width: 1\n', 'pose_units are feet: only metres are read'),
        ('[1, 2]', 'there are no "name: value" lines'),
        ('depth_scale: [1]\nimage_width: 1\nimage_height: 1\nfx: 1\nfy: 1\ncx: 1\ncy: 1\n', 'depth_scale is no number'),
        ('%YAML:1.0\n---\nimage_width: 320\n', '0 entries for the camera matrix'),
        ('%YAML:1.0\n---\nsurprise: 320\n', 'surprise: not known here'),
        ('%YAML:1.0\n---\n  : : [', 'camera.yaml: '),
        ('a: [1,\n', 'camera.yaml: '),
    ],
)
def test_what_is_not_understood_is_refused(text, complaint, tmp_path):
    with pytest.raises(SequenceError, match=complaint) as error:
        read(tmp_path, text)
    assert 'camera.yaml' in str(error.value)


def test_two_matrices_in_one_file_are_refused(tmp_path):
    with pytest.raises(SequenceError, match='2 entries for the camera matrix instead of one'):
        read_calibration(opencv(tmp_path, M1=np.eye(3)))
