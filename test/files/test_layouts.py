"""Datasets in their exact layouts: pictures, stamps, calibration, true poses and depth come out as they were put in."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.ros.inputs.images import to_rgb

COUNT, WIDTH, HEIGHT = 4, 32, 24
START, STEP = 1_305_031_102_175_304_000, 50_000_000  # nanoseconds
K = [[30.5, 0, 15.5], [0, 31.5, 11.5], [0, 0, 1]]


def picture(index):
    """RGB; its first channel tells the index."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([np.full_like(x, 20 * index + 10), 2 * x, 3 * y], -1).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels))


def depth(index):
    """16 bits; the first pixel is unknown."""
    raw = np.full((HEIGHT, WIDTH), 1000 * (index + 1), np.uint16)
    raw[0, 0] = 0
    return raw


def pose(index):
    """(4, 4) of the camera in the world, another one for every picture."""
    rng = np.random.default_rng(index)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 2, 3)
    return T


def row(T, columns=12):
    return ' '.join(f'{value:.12g}' for value in T.ravel()[:columns])


def seconds(stamp):
    return f'{stamp // 10**9}.{stamp % 10**9:09d}'


def quaternion(T):
    return ' '.join(f'{value:.12g}' for value in (*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()))


def tum(root):
    """Depth 4 ms later; truth at other stamps, at both ends of every interval the pose of the picture there."""
    lists = {'rgb': [], 'depth': [], 'groundtruth': []}
    for i in range(COUNT):
        stamp = START + i * STEP
        write(root / 'rgb' / f'{seconds(stamp)[:-3]}.png', picture(i))
        write(root / 'depth' / f'{seconds(stamp + 4_000_000)[:-3]}.png', depth(i))
        lists['rgb'].append(f'{seconds(stamp)[:-3]} rgb/{seconds(stamp)[:-3]}.png')
        lists['depth'].append(f'{seconds(stamp + 4_000_000)[:-3]} depth/{seconds(stamp + 4_000_000)[:-3]}.png')
        lists['groundtruth'] += [f'{seconds(stamp + d)} {quaternion(pose(i))}' for d in (-3_000_000, 3_000_000)]
    for name, entries in lists.items():
        (root / f'{name}.txt').write_text(f'\ufeff# {name}\r\n' + '\r\n'.join(entries) + '\r\n')
    (root / 'calibration.txt').write_text('30.5 31.5 15.5 11.5\n')


T_BODY_CAMERA = pose(77)


def euroc(root):
    """Two cameras; truth of the body."""
    camera = root / 'mav0' / 'cam0'
    for i in range(COUNT):
        write(camera / 'data' / f'{START + i * STEP}.png', picture(i))
    write(root / 'mav0' / 'cam1' / 'data' / f'{START}.png', picture(0))
    (root / 'mav0' / 'cam1' / 'data.csv').write_text(f'#timestamp [ns],filename\n{START},{START}.png\n')
    entries = [f'{START + i * STEP},{START + i * STEP}.png' for i in range(COUNT)]
    (camera / 'data.csv').write_text('#timestamp [ns],filename\r\n' + '\r\n'.join(entries) + '\r\n')
    (camera / 'sensor.yaml').write_text(
        f'%YAML:1.0\nsensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n  data: {T_BODY_CAMERA.ravel().tolist()}\n'
        f'rate_hz: 20\nresolution: [{WIDTH}, {HEIGHT}]\ncamera_model: pinhole\nintrinsics: [30.5, 31.5, 15.5, 11.5]\n'
        'distortion_model: radial-tangential\ndistortion_coefficients: [-0.2, 0.1, 0, 0]\n'
    )
    lines = ['#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v']
    for i in range(COUNT):
        T = pose(i) @ np.linalg.inv(T_BODY_CAMERA)
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        lines += [
            ','.join(f'{value:.12g}' for value in (stamp, *T[:3, 3], w, x, y, z, 0.0)).replace(
                f'{stamp:.12g}', str(stamp), 1
            )
            for stamp in (START + i * STEP - 2_000_000, START + i * STEP + 2_000_000)
        ]
    truth = root / 'mav0' / 'state_groundtruth_estimate0'
    truth.mkdir()
    (truth / 'data.csv').write_text('\n'.join(lines) + '\n')


def kitti(root):
    """sequences/07 with grey and colour; the poses are those of camera 0, camera 2 stands beside it."""
    sequence = root / 'sequences' / '07'
    for i in range(COUNT):
        write(sequence / 'image_0' / f'{i:06d}.png', picture(i)[..., 0])
        write(sequence / 'image_2' / f'{i:06d}.png', picture(i))
    (sequence / 'times.txt').write_text(''.join(f'{i * STEP / 1e9:e}\n' for i in range(COUNT)))
    P = np.c_[K, np.array(K) @ [-0.06, 0.01, 0.002]]
    (sequence / 'calib.txt').write_text(f'P0: {row(np.c_[K, np.zeros(3)])}\nP2: {row(P)}\nTr: {row(np.eye(4))}\n')
    offset = np.eye(4)
    offset[:3, 3] = [0.06, -0.01, -0.002]
    (root / 'poses').mkdir()
    lines = [row(pose(i) @ np.linalg.inv(offset)) for i in range(COUNT)]
    (root / 'poses' / '07.txt').write_text('\n'.join(lines) + '\n')


def scannet(root):
    """Picture 10 comes after 9, and one pose is unknown."""
    for i in range(COUNT):
        write(root / 'color' / f'{8 + i}.jpg', picture(i))
        write(root / 'depth' / f'{8 + i}.png', depth(i))
        (root / 'pose').mkdir(exist_ok=True)
        text = '\n'.join(row(line, 4) for line in pose(i)) if i != 2 else '\n'.join(['-inf -inf -inf -inf'] * 4)
        (root / 'pose' / f'{8 + i}.txt').write_text(text + '\n')
    (root / 'intrinsic').mkdir()
    full = np.eye(4)
    full[:3, :3] = K
    (root / 'intrinsic' / 'intrinsic_color.txt').write_text('\n'.join(row(line, 4) for line in full) + '\n')


def seven_scenes(root):
    for i in range(COUNT):
        write(root / f'frame-{i:06d}.color.png', cv2.resize(picture(i), (640, 480)))
        raw = cv2.resize(depth(i), (640, 480), interpolation=cv2.INTER_NEAREST)
        raw[raw == 0] = 65535
        write(root / f'frame-{i:06d}.depth.png', raw)
        (root / f'frame-{i:06d}.pose.txt').write_text('\n'.join(row(line, 4) for line in pose(i)) + '\n')


def replica(root):
    for i in range(COUNT):
        write(root / 'room0' / 'results' / f'frame{i:06d}.jpg', picture(i))
        write(root / 'room0' / 'results' / f'depth{i:06d}.png', depth(i))
    (root / 'room0' / 'traj.txt').write_text(''.join(row(pose(i), 16) + '\n' for i in range(COUNT)))
    camera = {'w': WIDTH, 'h': HEIGHT, 'fx': 30.5, 'fy': 31.5, 'cx': 15.5, 'cy': 11.5, 'scale': 6553.5}
    (root / 'cam_params.json').write_text(json.dumps({'camera': camera}))


def nerf(root):
    frames = []
    for i in reversed(range(COUNT)):
        write(root / 'images' / f'{i}.png', picture(i))
        T = pose(i) @ np.diag([1.0, -1, -1, 1])
        frames.append({'file_path': f'./images/{i}', 'transform_matrix': T.tolist()})
    fields = {'w': WIDTH, 'h': HEIGHT, 'fl_x': 30.5, 'fl_y': 31.5, 'cx': 16.0, 'cy': 12.0, 'k1': 0.1, 'frames': frames}
    (root / 'transforms.json').write_text(json.dumps(fields))


def colmap(root):
    """As text; one picture has no points, so that its second line is empty."""
    model = root / 'sparse' / '0'
    model.mkdir(parents=True)
    (model / 'cameras.txt').write_text(f'# Camera list\n1 OPENCV {WIDTH} {HEIGHT} 30.5 31.5 16 12 0.1 0 0 0\n')
    text = '# Image list\n'
    for i in reversed(range(COUNT)):
        write(root / 'images' / 'left' / f'{i}.png', picture(i))
        T = np.linalg.inv(pose(i))
        x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
        values = ' '.join(f'{value:.12g}' for value in (w, x, y, z, *T[:3, 3]))
        text += f'{i + 1} {values} 1 left/{i}.png\n' + ('' if i == 1 else '1.5 2.5 -1') + '\n'
    (model / 'images.txt').write_text(text)
    (model / 'points3D.txt').write_text('# none\n')


# writer -> (where to open, stamps, metres of a unit of depth or None, distortion, words of the notes)
OPENED = {
    tum: ('.', [START + i * STEP for i in range(COUNT)], 1 / 5000, (), 'other stamps than pictures: 4 of 4'),
    euroc: ('.', [START + i * STEP for i in range(COUNT)], None, (-0.2, 0.1, 0, 0), 'cam0 is taken; there is cam1'),
    kitti: ('sequences/07', [1 + i * STEP for i in range(COUNT)], None, (), 'image_2 is taken; there is image_0'),
    scannet: ('.', None, 0.001, (), '1 of 4 pictures have no true pose'),
    seven_scenes: ('.', None, 0.001, (), 'not registered'),
    replica: ('room0', None, 1 / 6553.5, (), '10 pictures per second'),
    nerf: ('.', None, None, (0.1, 0, 0, 0, 0), 'taken as metres'),
    colmap: ('.', None, None, (0.1, 0, 0, 0, 0), 'taken as metres'),
}


@pytest.mark.parametrize('make', OPENED, ids=lambda make: make.__name__)
def test_a_dataset_is_read_from_its_root(make, tmp_path):
    place, stamps, metres, lens, words = OPENED[make]
    root = tmp_path / 'data set'
    root.mkdir()
    make(root)
    sequence = open_sequence(root / place)
    items = list(sequence)
    assert len(sequence) == len(items) == COUNT
    assert [round(to_rgb(item.image)[5, 5, 0] / 20 - 0.5) for item in items] == list(range(COUNT))
    assert [item.stamp for item in items] == (stamps or [10**8 * (i + 1) for i in range(COUNT)])
    assert sequence.lost == 0
    assert any(words in note for note in sequence.notes), sequence.notes
    calibration = items[0].calibration
    if make is not seven_scenes:
        np.testing.assert_allclose(calibration.K, K, atol=1e-9)
        assert (calibration.width, calibration.height) == (WIDTH, HEIGHT)
    assert calibration.d == lens
    for i, item in enumerate(items):
        found = sequence.trajectory.pose(item.stamp)
        if make is scannet and i == 2:
            assert found is None
        else:
            np.testing.assert_allclose(found, pose(i), atol=1e-8)
        z = sequence.read_depth(i)
        if metres is None:
            assert z is None
        else:
            assert np.isnan(z[0, 0])
            np.testing.assert_allclose(z[-1, -1], 1000 * (i + 1) * metres, rtol=1e-6)


@pytest.mark.parametrize(
    ('make', 'place'),
    [
        (tum, 'rgb'),
        (euroc, 'mav0'),
        (euroc, 'mav0/cam0'),
        (euroc, 'mav0/cam0/data'),
        (kitti, 'sequences/07/image_2'),
        (scannet, 'color'),
        (replica, 'room0/results'),
    ],
    ids=str,
)
def test_a_folder_inside_a_dataset_does_as_well(make, place, tmp_path):
    make(tmp_path)
    first = list(open_sequence(tmp_path / OPENED[make][0]))
    again = open_sequence(tmp_path / place)
    assert [(item.name, item.stamp, item.calibration) for item in again] == [
        (item.name, item.stamp, item.calibration) for item in first
    ]
    assert again.trajectory is not None


def test_the_other_camera_can_be_chosen(tmp_path):
    kitti(tmp_path)
    sequence = open_sequence(tmp_path / 'sequences' / '07' / 'image_0')
    image = to_rgb(next(iter(sequence)).image)
    assert (image[..., 0] == image[..., 1]).all()
    assert np.abs(sequence.trajectory.T_world_camera[0, :3, 3] - pose(0)[:3, 3]).max() > 0.001, 'it stands elsewhere'


def test_a_camera_of_tum_is_known_by_the_name_of_the_sequence(tmp_path):
    tum(tmp_path / 'rgbd_dataset_freiburg1_xyz')
    (tmp_path / 'rgbd_dataset_freiburg1_xyz' / 'calibration.txt').unlink()
    with pytest.raises(SequenceError, match='calibrated at 640x480, but the pictures have 32x24'):
        open_sequence(tmp_path / 'rgbd_dataset_freiburg1_xyz')


def raw_kitti(root):
    """A drive to the north-east at the equator, where the development kit's map is plain; the camera looks ahead."""
    drive = root / '2011_09_26_drive_0001_sync'
    for i in range(COUNT):
        write(drive / 'image_02' / 'data' / f'{i:010d}.png', picture(i))
        oxts = drive / 'oxts' / 'data' / f'{i:010d}.txt'
        oxts.parent.mkdir(parents=True, exist_ok=True)
        step = np.degrees(i * 3.0 / 6378137.0)
        oxts.write_text(f'{step:.15f} {step:.15f} {100 + i} 0 0 {np.pi / 4} 0 0 0\n')
    stamps = ''.join(f'2011-09-26 13:02:25.{100 + 50 * i}467776\n' for i in range(COUNT))
    for name in ('image_02', 'oxts'):
        (drive / name / 'timestamps.txt').write_text(stamps)
    P = np.c_[K, np.array(K) @ [-0.06, 0, 0]]
    (root / 'calib_cam_to_cam.txt').write_text(
        f'calib_time: 09-Jan-2012 13:57:47\nR_rect_00: {row(np.eye(3), 9)}\nP_rect_02: {row(P)}\n'
    )
    # x ahead, y left, z up -> x right, y down, z ahead
    (root / 'calib_imu_to_velo.txt').write_text(f'calib_time: now\nR: {row(np.eye(3), 9)}\nT: 0 0 0\n')
    (root / 'calib_velo_to_cam.txt').write_text('calib_time: now\nR: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n')
    return drive


def test_raw_kitti_has_the_poses_of_its_gps(tmp_path):
    sequence = open_sequence(raw_kitti(tmp_path))
    items = list(sequence)
    assert items[1].stamp - items[0].stamp == STEP
    assert items[0].stamp == 1_317_042_145_100_467_776
    np.testing.assert_allclose(items[0].calibration.K, K)
    first, last = (sequence.trajectory.pose(items[i].stamp) for i in (0, -1))
    moved = np.linalg.inv(first) @ last
    np.testing.assert_allclose(moved[:3, 3], [0, -3, 9 * np.sqrt(2)], atol=1e-4)  # up, and ahead to the north-east
    np.testing.assert_allclose(moved[:3, :3], np.eye(3), atol=1e-9)


def test_times_names_and_truth_of_a_plain_folder(tmp_path):
    """Each kind of name that is a time; a list with names that hold blanks; truth of another rate, cut off before."""
    for names, first, step in [
        (['0.05', '0.4', '0.1', '0.15'], 50_000_000, None),
        ([str(START + i * STEP) for i in range(4)], START, STEP),
        ([str((START + i * STEP) // 1000) for i in range(4)], START, STEP),
        ([f'cam_{(START + i * STEP) // 10**6}' for i in range(4)], START // 10**6 * 10**6, STEP),
        ([f'{1700000000 + i * 0.5:.1f}'.removesuffix('.0') for i in range(4)], 1_700_000_000 * 10**9, 500_000_000),
    ]:
        folder = tmp_path / names[1]
        for i, name in enumerate(names):
            write(folder / f'{name}.png', picture(i))
        stamps = [item.stamp for item in open_sequence(folder)]
        assert stamps[0] == first, names
        assert stamps == sorted(stamps)
        assert step is None or set(np.diff(stamps)) == {step}
        assert next(iter(open_sequence(folder, fps=5))).stamp == 200_000_000
    folder = tmp_path / 'counter'
    for i in range(4):
        write(folder / f'{i:013d}.png', picture(i))
        write(folder / f'{i:013d} (1).png', picture(i))
    assert [item.name for item in open_sequence(folder, limit=3)] == [
        '0000000000000.png',
        '0000000000000 (1).png',
        '0000000000001.png',
    ]


def test_a_list_of_times_names_pictures_that_hold_blanks(tmp_path):
    for i in range(3):
        write(tmp_path / f'picture {i} 2.png', picture(i))
    for text in (
        ''.join(f'picture {i} 2.png {9 - i}.5\n' for i in range(3)),
        '\ufeff' + ''.join(f'"picture {i} 2.png",{9 - i}.5,x\r\n' for i in range(3)),
    ):
        (tmp_path / 'timestamps.txt').write_text(text)
        sequence = open_sequence(tmp_path)
        assert [(item.name, item.stamp) for item in sequence] == [
            (f'picture {2 - i} 2.png', 7_500_000_000 + i * 10**9) for i in range(3)
        ]
    (tmp_path / 'timestamps.txt').write_text('1.5\n2.5\n')
    with pytest.raises(SequenceError, match='2 times for 3 pictures'):
        open_sequence(tmp_path)
    (tmp_path / 'timestamps.txt').write_bytes(b'\xff\xd8\xff\xe0 this is a JPEG')
    with pytest.raises(SequenceError, match=r'timestamps.txt: not a text file in UTF-8 \(byte 0 is 0xff\)'):
        open_sequence(tmp_path)


def test_truth_of_another_clock_is_told_and_not_used(tmp_path):
    for i in range(3):
        write(tmp_path / f'{i}.png', picture(i))
    (tmp_path / 'timestamps.txt').write_text(''.join(f'{i}.png {i + 1}.5\n' for i in range(3)))
    rows = [f'{k / 10 + 1.55:.2f} {quaternion(pose(0))}' for k in range(11)]
    (tmp_path / 'poses.txt').write_text('\n'.join(rows) + '\n')
    sequence = open_sequence(tmp_path)
    assert sequence.trajectory.stamps.tolist() == [2_500_000_000]
    np.testing.assert_allclose(sequence.trajectory.T_world_camera[0], pose(0), atol=1e-9)
    assert any('1 of 3 pictures have one' in note for note in sequence.notes)
    (tmp_path / 'poses.txt').write_text('\n'.join('17' + text for text in rows) + '\n')
    sequence = open_sequence(tmp_path)
    assert sequence.trajectory is None
    assert any('0 of 3 pictures have one' in note for note in sequence.notes)


def test_what_lies_among_the_pictures_is_left_out_and_told(tmp_path):
    for i in range(3):
        write(tmp_path / 'walk' / f'{i}.png', picture(i))
        write(tmp_path / 'walk' / f'{i}_mask.png', picture(i))
        write(tmp_path / 'masks' / f'mask_{i}.png', picture(i))
    sequence = open_sequence(tmp_path / 'walk')
    assert [item.name for item in sequence] == ['0.png', '1.png', '2.png']
    assert any('3 pictures are left out' in note and '0_mask.png' in note for note in sequence.notes)
    assert len(open_sequence(tmp_path / 'masks')) == 3
    with pytest.raises(SequenceError, match=r'give one of them: masks \(3 pictures\), walk \(6 pictures\)'):
        open_sequence(tmp_path)


def test_the_root_of_kitti(tmp_path):
    """With one sequence it is that one, with two a choice to make."""
    kitti(tmp_path)
    sequence = open_sequence(tmp_path)
    assert (sequence.kind, len(sequence), len(sequence.trajectory)) == ('KITTI odometry', COUNT, COUNT)
    shutil.copytree(tmp_path / 'sequences' / '07', tmp_path / 'sequences' / '08')
    with pytest.raises(SequenceError, match='2 sequences of KITTI, give one of them: sequences/07, sequences/08'):
        open_sequence(tmp_path)


def test_pictures_that_a_list_names_and_that_are_not_there_are_said(tmp_path):
    """A copy of some pictures with the list of all; a mask that the list names is there, though not a picture."""
    names = [f'walk {i}.png' for i in range(6)]
    (tmp_path / 'timestamps.txt').write_text(''.join(f'{name} {1.5 + i}\n' for i, name in enumerate(names)))
    for i in (0, 1, 4):
        write(tmp_path / 'images' / names[i], picture(i))
    sequence = open_sequence(tmp_path)
    assert [item.stamp for item in sequence] == [1_500_000_000, 2_500_000_000, 5_500_000_000]
    assert 'timestamps.txt names 3 pictures that are not there' in sequence.notes


def test_what_is_in_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / 'walk.mp4').write_bytes(b'no video')
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag' / 'metadata.yaml').write_text('rosbag2_bagfile_information: {}')
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(SequenceError, match=r'no pictures; give what is in it: bag, walk\.mp4$'):
        open_sequence(tmp_path)


def test_heic_of_a_phone(tmp_path):
    """Among photographs that it made as JPEG."""
    pillow_heif = pytest.importorskip('pillow_heif')
    from PIL import Image

    pillow_heif.register_heif_opener()
    for i in range(4):
        Image.fromarray(picture(i)).save(tmp_path / f'IMG_{i}.{"heic" if i % 2 else "jpg"}', quality=95)
    items = list(open_sequence(tmp_path))
    assert [item.index for item in items] == [0, 1, 2, 3]
    for i, item in enumerate(items):
        np.testing.assert_allclose(item.image.to_rgb().astype(int), picture(i), atol=12)


def test_what_is_missing_to_read_heic_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    (tmp_path / 'IMG_1.HEIC').write_bytes(b'\0\0\0\x18ftypheic')
    with pytest.raises(SequenceError, match=r'IMG_1.HEIC: cannot be read as a picture: pip install pillow-heif'):
        open_sequence(tmp_path)


def test_formats_that_are_not_read_are_named(tmp_path):
    (tmp_path / 'IMG_1.CR3').write_bytes(b'ftypheic')
    with pytest.raises(SequenceError, match=r'1 files like \*.CR3, which are not read: convert them'):
        open_sequence(tmp_path)


@pytest.mark.parametrize(
    ('make', 'file', 'text', 'complaint'),
    [
        (tum, 'rgb.txt', '# nothing\n', r'rgb.txt: no picture is named'),
        (tum, 'rgb.txt', '1.5\n', r'rgb.txt:1: wanted "seconds file"'),
        (tum, 'rgb.txt', 'soon rgb/a.png\n', r"rgb.txt:1: 'soon' is not a time"),
        (tum, 'groundtruth.txt', '1 2 3\n', r'groundtruth.txt:1: 3 values'),
        (tum, 'calibration.txt', 'focal\n', r"calibration.txt:1: could not convert string to float: 'focal'"),
        (euroc, 'mav0/cam0/data.csv', '1.5,a.png\n', r"data.csv:1: '1.5' is not a time in nanoseconds"),
        (euroc, 'mav0/cam0/sensor.yaml', 'intrinsics: [1]\n', r'sensor.yaml: not a camera of EuRoC'),
        (euroc, 'mav0/cam0/sensor.yaml', 'a: [\n', r'sensor.yaml: not a camera of EuRoC'),
        (
            euroc,
            'mav0/cam0/sensor.yaml',
            'camera_model: omni\nintrinsics: [1]\n',
            r'sensor.yaml: .*a omni camera .* known are pinhole',
        ),
        (kitti, 'sequences/07/times.txt', '0\n', r'times.txt: 1 times for 4 pictures'),
        (kitti, 'sequences/07/calib.txt', 'P2: 1 2\n', r'calib.txt: no projection of twelve numbers'),
        (kitti, 'poses/07.txt', '1 0 0\n', r'07.txt:1: 3 numbers instead of 12'),
        (kitti, 'poses/07.txt', row(np.eye(4)) + '\n', r'07.txt: 1 poses for 4 pictures'),
        (scannet, 'pose/8.txt', '1 0 0 0\n', r'8.txt: 1 lines of numbers instead of four'),
        (replica, 'room0/traj.txt', row(np.eye(4), 16), r'traj.txt: 1 poses for 4 pictures'),
        (replica, 'cam_params.json', '{}', r'cam_params.json: not the camera of Replica'),
        (nerf, 'transforms.json', '{"frames": [{}]}', r'transforms.json: not a file of NeRF'),
        (nerf, 'transforms.json', '[', r'transforms.json: not a file of NeRF'),
        (nerf, 'transforms.json', '{"frames": []}', r'transforms.json: no picture is named'),
        (colmap, 'sparse/0/cameras.txt', '1 FOV 32 24 1 2 3 4 5\n', r'cameras.txt: a camera of the model FOV; known'),
        (colmap, 'sparse/0/images.txt', '1 1 0 0\n', r'images.txt:1: not as COLMAP writes it'),
        (colmap, 'sparse/0/images.txt', '# none\n', r'no picture is registered'),
    ],
)
def test_a_dataset_that_is_broken_is_refused_naming_the_place(make, file, text, complaint, tmp_path):
    make(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(SequenceError, match=complaint):
        open_sequence(tmp_path / OPENED[make][0])


def test_a_binary_model_is_read_as_its_text_is(tmp_path):
    pycolmap = pytest.importorskip('pycolmap')
    colmap(tmp_path)
    model = tmp_path / 'sparse' / '0'
    (model / 'images.txt').write_text((model / 'images.txt').read_text().replace('1.5 2.5 -1', ''))
    expected = open_sequence(tmp_path)
    reconstruction = pycolmap.Reconstruction(model)
    for file in model.iterdir():
        file.unlink()
    reconstruction.write_binary(model)
    found = open_sequence(tmp_path)
    assert [(x.name, x.calibration) for x in found] == [(x.name, x.calibration) for x in expected]
    np.testing.assert_allclose(found.trajectory.T_world_camera, expected.trajectory.T_world_camera, atol=1e-9)
    (model / 'images.bin').write_bytes(b'no')
    with pytest.raises(SequenceError, match='not a COLMAP model'):
        open_sequence(tmp_path)
