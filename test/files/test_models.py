"""Models of COLMAP and transforms.json, as programs and people leave them: read, read and said, or refused."""

import json
import math
import struct
import sys
import warnings

import numpy as np
import pytest
import test_layouts
from scipy.spatial.transform import Rotation
from test_layouts import COUNT, HEIGHT, WIDTH, K, picture, pose, write

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.ros.inputs.images import to_rgb

PINHOLE = f'PINHOLE {WIDTH} {HEIGHT} 30.5 31.5 16 12'
NUMBERS = {  # of COLMAP's models in binary files
    'SIMPLE_PINHOLE': 0,
    'PINHOLE': 1,
    'SIMPLE_RADIAL': 2,
    'RADIAL': 3,
    'OPENCV': 4,
    'OPENCV_FISHEYE': 5,
    'FULL_OPENCV': 6,
    'FOV': 7,
    'SIMPLE_RADIAL_FISHEYE': 8,
    'RADIAL_FISHEYE': 9,
}
# Numbers of a camera -> distortion model and coefficients.
LENSES = {
    'SIMPLE_PINHOLE': ('30.5 16 12', 'plumb_bob', (0, 0, 0, 0, 0)),
    'SIMPLE_RADIAL': ('30.5 16 12 .1', 'plumb_bob', (0.1, 0, 0, 0, 0)),
    'RADIAL': ('30.5 16 12 .1 .2', 'plumb_bob', (0.1, 0.2, 0, 0, 0)),
    'OPENCV': ('30.5 31.5 16 12 .1 .2 .3 .4', 'plumb_bob', (0.1, 0.2, 0.3, 0.4, 0)),
    'OPENCV_FISHEYE': ('30.5 31.5 16 12 .1 .2 .3 .4', 'equidistant', (0.1, 0.2, 0.3, 0.4)),
    'FULL_OPENCV': (
        '30.5 31.5 16 12 .1 .2 .3 .4 .05 .06 .07 .08',
        'rational_polynomial',
        (0.1, 0.2, 0.3, 0.4, 0.05, 0.06, 0.07, 0.08),
    ),
    'SIMPLE_RADIAL_FISHEYE': ('30.5 16 12 .1', 'equidistant', (0.1, 0, 0, 0)),
    'RADIAL_FISHEYE': ('30.5 16 12 .1 .2', 'equidistant', (0.1, 0.2, 0, 0)),
}


def seven(index):
    """w x y z and the translation, world-to-camera."""
    T = np.linalg.inv(pose(index))
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
    return [w, x, y, z, *T[:3, 3]]


def line(index, name=None, camera=1, q=None):
    values = ' '.join(f'{value:.12g}' for value in (q or seven(index)[:4]) + seven(index)[4:])
    return f'{index + 1} {values} {camera} {name or f"{index}.png"}\n'


def pictures(root, names):
    for i, name in enumerate(names):
        write(root / 'images' / name, picture(i))


def model(root, lines, cameras=(PINHOLE,), place='sparse/0'):
    """As text."""
    folder = root / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'cameras.txt').write_text(''.join(f'{i} {camera}\n' for i, camera in enumerate(cameras, 1)))
    (folder / 'images.txt').write_text(lines)
    return folder


def binary(root, camera=PINHOLE, count=COUNT):
    """As COLMAP writes it, without its points; picture 1 sees three of them."""
    folder = root / 'sparse' / '0'
    folder.mkdir(parents=True)
    name, width, height, *values = camera.split()
    values = [float(x) for x in values]
    header = struct.pack('<QIiQQ', 1, 7, NUMBERS[name], int(width), int(height))
    (folder / 'cameras.bin').write_bytes(header + struct.pack(f'<{len(values)}d', *values))
    data = struct.pack('<Q', count)
    for i in range(count):
        points = [(1.5, 2.5, -1)] * 3 if i == 1 else []
        data += struct.pack('<I7dI', i + 1, *seven(i), 7) + f'{i}.png'.encode() + b'\0' + struct.pack('<Q', len(points))
        data += b''.join(struct.pack('<ddq', *point) for point in points)
    (folder / 'images.bin').write_bytes(data)
    return folder


def found(sequence):
    """The pictures that come, by their content; each must have the pose of its own."""
    numbers = []
    for item in sequence:
        numbers.append(round(to_rgb(item.image)[5, 5, 0] / 20 - 0.5))
        np.testing.assert_allclose(sequence.trajectory.pose(item.stamp), pose(numbers[-1]), atol=1e-8)
    return numbers


def noted(sequence, words):
    assert any(words in note for note in sequence.notes), sequence.notes


def refused(root, words):
    with pytest.raises(SequenceError, match=words) as error:
        open_sequence(root)
    assert '\n' not in str(error.value)


NAMES = [f'{i}.png' for i in range(COUNT)]


def test_a_binary_model_is_read_without_pycolmap_and_without_points(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycolmap', None)
    pictures(tmp_path, NAMES)
    folder = binary(tmp_path)
    sequence = open_sequence(tmp_path)
    assert found(sequence) == list(range(COUNT))
    np.testing.assert_allclose(next(iter(sequence)).calibration.K, K, atol=1e-9)
    for name in ('points3D.bin', 'rigs.bin', 'frames.bin'):
        (folder / name).write_bytes(b'')  # an empty file of points made pycolmap hang
    assert found(open_sequence(tmp_path)) == list(range(COUNT))


@pytest.mark.parametrize('kind', ['bin', 'txt'])
@pytest.mark.parametrize('name', LENSES)
def test_lenses_of_colmap(name, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycolmap', None)
    values, distortion, d = LENSES[name]
    pictures(tmp_path, NAMES[:1])
    camera = f'{name} {WIDTH} {HEIGHT} {values}'
    if kind == 'bin':
        binary(tmp_path, camera, 1)
    else:
        model(tmp_path, line(0), (camera,))
    calibration = next(iter(open_sequence(tmp_path))).calibration
    assert (calibration.distortion_model, calibration.d) == (distortion, d)
    assert calibration.k[:6] == (30.5, 0, 15.5, 0, 30.5 if len(values.split()) in (3, 4, 5) else 31.5, 11.5)


@pytest.mark.parametrize('name', ['cameras.bin', 'images.bin'])
def test_a_binary_model_of_another_length_is_refused(name, tmp_path):
    """Wherever it ends, and where something follows."""
    pictures(tmp_path, NAMES)
    file = binary(tmp_path) / name
    whole = file.read_bytes()
    for length in range(0, len(whole), 3):
        file.write_bytes(whole[:length])
        refused(tmp_path, rf'{name}: not a COLMAP model \(the file is cut off\): copy it again')
    file.write_bytes(whole + b'\0\0')
    refused(tmp_path, rf'{name}: not a COLMAP model \(2 bytes more than it should have\): copy it again')


@pytest.mark.parametrize(
    ('name', 'at', 'value', 'words'),
    [
        ('cameras.bin', 0, struct.pack('<Q', 2**63), 'cut off'),
        ('cameras.bin', 12, struct.pack('<i', 99), 'a camera of the model number 99; known are 0 to 17: run "colmap'),
        ('cameras.bin', 12, struct.pack('<i', -1), 'a camera of the model number -1'),
        ('cameras.bin', 32, struct.pack('<d', math.nan), 'are no camera of the model PINHOLE, which has 4 numbers'),
        ('cameras.bin', 16, bytes(8), '0x24 pixels'),
        ('images.bin', 72, b'\xff', 'is not in UTF-8: rename the picture'),
        ('images.bin', 72, b'\0', 'a picture without a name|cut off'),
        ('images.bin', 68, struct.pack('<I', 8), r'cameras.bin: there is no camera 8 in it'),
    ],
)
def test_a_binary_model_with_wrong_numbers_is_refused(name, at, value, words, tmp_path):
    pictures(tmp_path, NAMES)
    file = binary(tmp_path) / name
    data = bytearray(file.read_bytes())
    data[at : at + len(value)] = value
    file.write_bytes(data)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ('camera', 'words'),
    [
        (f'PINHOLE {WIDTH} {HEIGHT} 30 30', r'no camera of the model PINHOLE, which has 4 numbers'),
        (f'SIMPLE_RADIAL {WIDTH} {HEIGHT} 30 16 12', r'no camera of the model SIMPLE_RADIAL, which has 4'),
        (f'PINHOLE {WIDTH} {HEIGHT} 0 30 16 12', r'no camera of the model PINHOLE'),
        (f'PINHOLE {WIDTH} {HEIGHT} inf 30 16 12', r'no camera of the model PINHOLE'),
        (f'FOV {WIDTH} {HEIGHT} 30 30 16 12 1', r'the model FOV; known are .*: run "colmap image_undistorter"'),
        ('PINHOLE 64 48 60 60 32 24', r'cameras.txt: calibrated at 64x48, but the pictures have 32x24'),
    ],
)
def test_a_camera_of_colmap_that_is_none_is_refused(camera, words, tmp_path):
    pictures(tmp_path, NAMES[:1])
    model(tmp_path, line(0), (camera,))
    refused(tmp_path, words)


def test_models_that_are_not_read_and_pictures_of_none_are_said(tmp_path):
    pictures(tmp_path, [*NAMES, 'other/1.png', '.hidden.png'])
    model(tmp_path, line(0) + '\n' + line(1) + '\n')
    assert not any('several' in note for note in open_sequence(tmp_path).notes)
    model(tmp_path, line(2), place='sparse/1')
    model(tmp_path, line(3), place='sparse/10')
    sequence = open_sequence(tmp_path)
    assert found(sequence) == [0, 1]
    noted(sequence, 'several models: sparse/0 is read, not sparse/1, sparse/10')
    noted(sequence, '3 pictures are left out, the model does not have them: 2.png and the like')


POINTS = '1.5 2.5 -1 3 4 17\n'
# Points with whole numbers, whose line has the form of a picture's if one takes only its beginning.
WHOLE = '100 2.5 -1 3 4 17 5 6 -1 7 8 9\n'
FORMS = {
    'as colmap writes it': ''.join(line(i) + ('\n' if i == 1 else POINTS) for i in range(COUNT)),
    'without second lines': ''.join(line(i) for i in range(COUNT)),
    'some without': ''.join(line(i) + ('' if i % 2 else WHOLE) for i in range(COUNT)),
    'an empty line before': '# x\n\n' + ''.join(line(i) + '\n' for i in range(COUNT)),
    'empty lines between': ''.join(line(i) + '\n' * i + POINTS for i in range(COUNT)) + '\n\n',
}


@pytest.mark.parametrize('form', FORMS)
def test_lines_of_pictures_and_of_points_are_told_apart(form, tmp_path):
    pictures(tmp_path, NAMES)
    model(tmp_path, FORMS[form])
    assert found(open_sequence(tmp_path)) == list(range(COUNT))


@pytest.mark.parametrize('text', [POINTS, line(0) + POINTS + POINTS, line(0) + '1 2\n', line(0) + '1 2 3.5\n'])
def test_a_line_that_is_neither_is_refused(text, tmp_path):
    pictures(tmp_path, NAMES)
    model(tmp_path, text)
    refused(tmp_path, rf'images.txt:{text.count(chr(10))}: not as COLMAP writes it \(wanted')


def test_names_with_blanks_doubles_and_a_wrong_count(tmp_path):
    pictures(tmp_path, ['my walk 0.png', 'my walk 1.png'])
    lines = line(0, 'my walk 0.png') + line(1, 'my walk 1.png') + line(2, 'my walk 1.png')
    model(tmp_path, f'# Number of images: 5, mean observations per image: 0\n{lines}')
    sequence = open_sequence(tmp_path)
    assert found(sequence) == [0, 1]
    noted(sequence, 'images.txt says that it has 5 pictures: 3 are in it')
    noted(sequence, '1 entries of the model are of a picture that has one already: the first is used')


def test_a_lost_picture_of_a_model_is_counted(tmp_path):
    """The first, too; a model of which nothing is there is refused."""
    pictures(tmp_path, NAMES)
    model(tmp_path, ''.join(line(i) + '\n' for i in range(COUNT)) + line(COUNT, 'long' * 100 + '.png'))
    (tmp_path / 'images' / '0.png').unlink()
    sequence = open_sequence(tmp_path)
    assert len(sequence) == COUNT + 1
    assert found(sequence) == [1, 2, 3]
    assert sequence.lost == 2
    for name in NAMES[1:]:
        (tmp_path / 'images' / name).unlink()
    refused(tmp_path, r'png of the model .*sparse/0 is in none of images, .*: put them into images/')


def test_cameras_of_a_model(tmp_path):
    names = [f'cam{c}/{i}.png' for c in (0, 1) for i in (0, 1)]
    pictures(tmp_path, names)
    model(tmp_path, ''.join(line(i, name) for i, name in enumerate(names)))
    sequence = open_sequence(tmp_path)
    assert next(iter(sequence)).calibration is not None
    noted(sequence, 'pictures of one camera lie in 2 folders (cam0, cam1): most likely two cameras')
    model(tmp_path, ''.join(line(i, name, 1 + i // 2) for i, name in enumerate(names)), (PINHOLE, PINHOLE, 'FOV 1 1 1'))
    sequence = open_sequence(tmp_path)
    assert next(iter(sequence)).calibration is None
    noted(sequence, '2 cameras in the model: none is used')
    noted(sequence, 'the pictures lie in 2 folders (cam0, cam1)')


@pytest.mark.parametrize('q', [[0.0] * 4, [math.nan, 0, 0, 0], [math.inf, 0, 0, 0]], ids=str)
def test_a_pose_of_colmap_that_is_none_is_unknown(q, tmp_path):
    pictures(tmp_path, NAMES)
    model(tmp_path, line(0) + line(1, q=q))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sequence = open_sequence(tmp_path)
    assert len(sequence.trajectory) == 1
    noted(sequence, '1 of 2 pictures have no true pose')


GLOBAL = {'fl_x': 30.5, 'fl_y': 31.5, 'cx': 16, 'cy': 12, 'w': WIDTH, 'h': HEIGHT}


def frame(index, name=None, **more):
    T = pose(index) @ np.diag([1.0, -1, -1, 1])
    return {'file_path': name or f'images/{index}.png', 'transform_matrix': T.tolist(), **more}


def transforms(root, frames, name='transforms.json', **fields):
    (root / name).write_text(json.dumps({**fields, 'frames': frames}))


def calibration_of(root):
    return next(iter(open_sequence(root))).calibration


def test_intrinsics_of_each_frame_come_before_those_of_all(tmp_path):
    pictures(tmp_path, NAMES)
    frames = [frame(i, **GLOBAL | {'fl_x': 30.5 * (1 + i / 500), 'cx': 16 + i / 100}) for i in range(COUNT)]
    transforms(tmp_path, frames, camera_model='OPENCV', fl_x=99, camera_angle_x=1, w=640, k1=0.1)
    sequence = open_sequence(tmp_path)
    assert found(sequence) == list(range(COUNT))
    noted(sequence, 'frames have intrinsics of their own, alike within 1%: those of 0.png are used for all')
    calibration = next(iter(sequence)).calibration
    np.testing.assert_allclose(calibration.K, K)
    assert (calibration.width, calibration.height, calibration.d) == (WIDTH, HEIGHT, (0.1, 0, 0, 0, 0))


@pytest.mark.parametrize('more', [{'fl_x': 31}, {'cy': 12.5}, {'w': 64}, {'k1': 0.01}, {'is_fisheye': True}], ids=str)
def test_intrinsics_of_frames_that_differ_are_refused(more, tmp_path):
    pictures(tmp_path, NAMES)
    transforms(tmp_path, [frame(0, **GLOBAL), frame(1, **GLOBAL), frame(2, **GLOBAL | more)], **GLOBAL)
    refused(tmp_path, r'transforms.json: the intrinsics of 0.png and 2.png differ by more than 1%: keep the frames of')


def test_some_frames_without_intrinsics_are_said(tmp_path):
    pictures(tmp_path, NAMES)
    transforms(tmp_path, [frame(0), frame(1, **GLOBAL), frame(2)])
    np.testing.assert_allclose(calibration_of(tmp_path).K, K)
    noted(open_sequence(tmp_path), '2 frames have no intrinsics: they are taken as the others')


@pytest.mark.parametrize(
    ('fields', 'fx', 'fy'),
    [
        ({'camera_angle_x': 0.69}, WIDTH / 2 / math.tan(0.345), WIDTH / 2 / math.tan(0.345)),
        ({'camera_angle_y': 0.69}, HEIGHT / 2 / math.tan(0.345), HEIGHT / 2 / math.tan(0.345)),
        (
            {'camera_angle_x': 0.69, 'camera_angle_y': 0.5},
            WIDTH / 2 / math.tan(0.345),
            HEIGHT / 2 / math.tan(0.25),
        ),
        ({'fl_x': 30.5}, 30.5, 30.5),
        ({'fl_y': 31.5, 'w': WIDTH}, 31.5, 31.5),
    ],
    ids=str,
)
def test_a_size_that_is_not_said_is_that_of_the_first_picture_that_is_there(fields, fx, fy, tmp_path):
    """As the synthetic scenes of NeRF have it, without suffixes and with other files beside."""
    for i in range(1, COUNT):
        write(tmp_path / 'train' / f'r_{i}.png', picture(i))
    transforms(tmp_path, [frame(i, f'./train/r_{i}') for i in range(COUNT)], 'transforms_train.json', **fields)
    transforms(tmp_path, [], 'transforms_test.json', **fields)
    sequence = open_sequence(tmp_path)
    assert found(sequence) == [1, 2, 3]
    assert sequence.lost == 1
    calibration = next(iter(sequence)).calibration
    assert (calibration.width, calibration.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(calibration.K, [[fx, 0, 15.5], [0, fy, 11.5], [0, 0, 1]])
    noted(sequence, 'says no cx, cy: the principal point is taken to be in the middle')
    noted(sequence, 'transforms_train.json is read, not transforms_test.json')


LENS = {'k1': 0.1, 'k2': 0.2, 'k3': 0.3, 'k4': 0.4}


@pytest.mark.parametrize(
    ('fields', 'distortion', 'd'),
    [
        ({**LENS, 'camera_model': 'OPENCV_FISHEYE', 'p1': 0}, 'equidistant', (0.1, 0.2, 0.3, 0.4)),
        ({**LENS, 'is_fisheye': True}, 'equidistant', (0.1, 0.2, 0.3, 0.4)),
        ({**LENS, 'k4': 0.0, 'p1': 0.01, 'k5': 0}, 'plumb_bob', (0.1, 0.2, 0.01, 0, 0.3)),
        (
            {**LENS, 'camera_model': 'FULL_OPENCV', 'p2': 0.02, 'k5': 0.5, 'k6': 0.6},
            'rational_polynomial',
            (0.1, 0.2, 0, 0.02, 0.3, 0.4, 0.5, 0.6),
        ),
        (LENS, None, 'camera_model OPENCV has no k4 .*: undistort the pictures'),
        ({'k6': 1}, None, 'camera_model OPENCV has no k6'),
        ({**LENS, 'is_fisheye': True, 'p1': 0.1}, None, 'camera_model OPENCV_FISHEYE has no p1'),
        ({'camera_model': 'EQUIRECTANGULAR'}, None, "camera_model 'EQUIRECTANGULAR'; known are"),
        ({'k1': 'none'}, None, "k1 is 'none', not a finite number"),
    ],
    ids=str,
)
def test_lenses_of_transforms(fields, distortion, d, tmp_path):
    pictures(tmp_path, NAMES)
    transforms(tmp_path, [frame(i) for i in range(COUNT)], **GLOBAL, **fields)
    if distortion is None:
        refused(tmp_path, d)
    else:
        calibration = calibration_of(tmp_path)
        assert (calibration.distortion_model, calibration.d) == (distortion, d)


MIRRORED = np.diag([1.0, 1, -1, 1])
MATRICES = {
    'mirrored': MIRRORED,
    'zero': np.zeros((4, 4)),
    'not finite': np.full((4, 4), np.nan),
    'large': np.full((4, 4), 1e300),
    'transposed': np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 2, 3, 1]]),
}


@pytest.mark.parametrize('kind', MATRICES)
def test_a_matrix_that_is_no_pose_is_unknown(kind, tmp_path):
    pictures(tmp_path, NAMES)
    frames = [frame(i) for i in range(COUNT)]
    frames[1]['transform_matrix'] = MATRICES[kind].tolist()
    frames[2]['transform_matrix'] = frames[2]['transform_matrix'][:3]
    transforms(tmp_path, frames, **GLOBAL)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        sequence = open_sequence(tmp_path)
    items = list(sequence)
    assert [sequence.trajectory.pose(item.stamp) is None for item in items] == [False, True, False, False]
    noted(sequence, '1 of 4 pictures have no true pose')


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'depth_unit_scale_factor': None}, 'depth_unit_scale_factor is None, not a finite number'),
        ({'depth_unit_scale_factor': 'x'}, "depth_unit_scale_factor is 'x', not a finite number"),
        ({'depth_unit_scale_factor': 0}, 'depth_unit_scale_factor is 0, not above 0'),
        ({'frames': [frame(0, depth_file_path=5)]}, 'depth_file_path is 5, not the name of a file'),
        ({'w': math.inf}, 'w is inf, not a finite number'),
        ({'w': 10**400}, r'w is 10+\.\.\.0+, not a finite number'),
        ({'w': None}, 'w is None'),
        ({'h': -24}, 'h is -24, not above 0'),
        ({'fl_x': 0}, 'fl_x is 0, not above 0'),
        ({'fl_x': True}, 'fl_x is True, not a finite number'),
        ({'cx': []}, r'cx is \[\], not a finite number'),
        ({'frames': ['a.png']}, "'a.png' where an object"),
        ({'frames': {'0': frame(0)}}, 'frames is no list'),
        ({'frames': [frame(0) | {'file_path': 5}]}, 'file_path is 5, not the name of a file'),
        ({'frames': [frame(0) | {'file_path': ''}]}, "file_path is '', not the name of a file"),
        ({'frames': [frame(0) | {'transform_matrix': [[1, 2], [3]]}]}, 'not a file of NeRF'),
        ({'frames': [frame(0) | {'transform_matrix': [[10**400] * 4] * 4}]}, 'not a file of NeRF'),
        ({'frames': [frame(0) | {'transform_matrix': 1}]}, 'transform_matrix of .* is not 4x4'),
        ({'frames': [{'file_path': 'images/0.png'}]}, "'transform_matrix' is missing"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_fields_of_another_kind_are_refused_in_a_line(fields, words, tmp_path):
    pictures(tmp_path, NAMES)
    (tmp_path / 'transforms.json').write_text(json.dumps({**GLOBAL, 'frames': [frame(0)], **fields}))
    refused(tmp_path, f'transforms.json: .*{words}')


@pytest.mark.parametrize('angle', [0, 3.2, -1, 'wide'])
def test_an_angle_that_is_none_is_refused(angle, tmp_path):
    pictures(tmp_path, NAMES)
    transforms(tmp_path, [frame(0)], camera_angle_x=angle)
    refused(tmp_path, 'transforms.json: .*camera_angle_x is ')


@pytest.mark.parametrize('text', ['[' * 100_000, '{"a":' * 100_000, '[]', '5', 'null', '{}', '{"frames": 5}'], ids=len)
def test_json_of_another_kind_is_refused_in_a_line(text, tmp_path):
    pictures(tmp_path, NAMES)
    (tmp_path / 'transforms.json').write_text(text)
    refused(
        tmp_path, 'transforms.json: not a file of NeRF, instant-ngp or nerfstudio .*: correct it, or write it again'
    )


def test_pictures_that_are_not_listed_and_some_that_are_twice_are_said(tmp_path):
    """Depth and masks that frames name are no pictures that are left out, nor are those in other folders."""
    pictures(tmp_path, NAMES)
    write(tmp_path / 'images' / 'depth0.png', test_layouts.depth(0))
    write(tmp_path / 'images' / 'm0.png', picture(0))
    write(tmp_path / 'elsewhere' / '9.png', picture(0))
    depth = {'depth_file_path': 'images/depth0.png', 'mask_path': './images/m0.png'}
    transforms(tmp_path, [frame(1), frame(0, **depth), frame(1, './images/1.png')], **GLOBAL)
    sequence = open_sequence(tmp_path)
    assert found(sequence) == [0, 1]
    noted(sequence, '1 frames are of a picture that has one already: the first is used')
    noted(sequence, '2 pictures are left out, transforms.json does not have them: 2.png and the like')
    assert sequence.read_depth(0) is not None
    assert not any('folders' in note for note in sequence.notes)


def test_frames_of_several_folders_are_said(tmp_path):
    names = [f'cam{c}/{i}.png' for c in (0, 1) for i in (0, 1)]
    pictures(tmp_path, names)
    transforms(tmp_path, [frame(i, f'images/{name}') for i, name in enumerate(names)], **GLOBAL)
    noted(open_sequence(tmp_path), 'the pictures lie in 2 folders (images/cam0, images/cam1)')


def test_depth_that_is_no_picture_or_not_there_is_said(tmp_path):
    pictures(tmp_path, NAMES)
    frames = [frame(0, depth_file_path='d0.npy'), frame(1, depth_file_path='d' * 300 + '.png')]
    transforms(tmp_path, [*frames, frame(2, depth_file_path=None)], **GLOBAL)
    sequence = open_sequence(tmp_path)
    assert [sequence.read_depth(i) for i in range(3)] == [None] * 3
    noted(sequence, '1 files of depth are left out, for they are no pictures: d0.npy and the like')
    noted(sequence, 'transforms.json names 1 files of depth that are not there')


def test_names_that_no_file_can_have_are_counted(tmp_path):
    pictures(tmp_path, NAMES)
    transforms(tmp_path, [frame(0), frame(1, 'images/' + 'long' * 100), frame(2, 'images/\0')], **GLOBAL)
    sequence = open_sequence(tmp_path)
    assert found(sequence) == [0]
    assert sequence.lost == 2
