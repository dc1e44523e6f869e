"""Folders, videos and bags are read alike, with exact stamps; bad ones are refused naming the file."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bags import HEIGHT, KINDS, START, WIDTH, BagWriter, picture
from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.trajectory import Trajectory, read_tum, write_tum
from vggt_ros.rectify import Rectifier
from vggt_ros.ros.inputs.images import to_rgb
from vggt_ros.types import Scale


def write_folder(folder, count=12):
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f'frame{index}.png'), picture(index)[..., ::-1])
    return folder


def indices(sequence):
    return [item.index for item in sequence]


def test_folder_in_natural_order(tmp_path):
    folder = write_folder(tmp_path / 'walk')
    (folder / 'notes.md').write_text('no picture')
    (folder / '._frame0.png').write_bytes(b'what a Mac leaves')
    sequence = open_sequence(folder)
    items = list(sequence)
    assert len(sequence) == len(items) == 12
    assert [item.name for item in items] == [f'frame{i}.png' for i in range(12)]
    assert all(np.array_equal(to_rgb(item.image), picture(item.index)) for item in items)
    assert [item.stamp for item in items] == [100_000_000 * (i + 1) for i in range(12)]
    assert 'no stamps: 10 pictures per second' in sequence.notes
    assert items[0].calibration is None
    assert sequence.trajectory is None
    assert sequence.read_depth(0) is None
    assert list(open_sequence(folder, fps=25))[2].stamp == 120_000_000
    assert indices(sequence) == list(range(12)), 'iterating again starts again'


@pytest.mark.parametrize(
    ('stride', 'limit', 'expected'),
    [(1, 3, [0, 1, 2]), (5, None, [0, 5, 10]), (5, 2, [0, 5]), (11, 9, [0, 11]), (50, None, [0])],
)
def test_stride_and_limit(tmp_path, stride, limit, expected):
    sequence = open_sequence(write_folder(tmp_path / 'walk'), stride=stride, limit=limit)
    assert indices(sequence) == expected
    assert len(sequence) == len(expected)


def write_sidecars(root):
    (root / 'intrinsics.yaml').write_text(
        f'image_width: {WIDTH}\nimage_height: {HEIGHT}\nfx: 30.5\nfy: 31.5\ncx: 15.5\ncy: 11.5\n'
        'distortion_model: plumb_bob\ndistortion: [0.1, 0, 0, 0, 0]\ndepth_scale: 0.01\n'
    )
    lines = [f'frame{i}.png 1700000000.{i:09d} 7.png' for i in range(12)]
    (root / 'timestamps.txt').write_text('# file t original\n' + '\n'.join(reversed(lines)))
    write_tum(
        root / 'poses.txt',
        Trajectory(1_700_000_000 * 10**9 + np.arange(3), np.tile(np.eye(4), (3, 1, 1)) * [1, 1, 1, 1]),
        Scale.METRIC,
    )
    (root / 'depth').mkdir()
    cv2.imwrite(str(root / 'depth' / 'frame1.png'), np.array([[0, 150], [65535, 1]], np.uint16))


@pytest.mark.parametrize('given', ['.', 'images', 'images/'])
def test_folder_with_truth_beside_the_images(tmp_path, given):
    write_folder(tmp_path / 'walk' / 'images')
    write_sidecars(tmp_path / 'walk')
    sequence = open_sequence(f'{tmp_path}/walk/{given}')
    items = list(sequence)
    # A float of 1.7e9 seconds would have lost the last digits.
    assert [item.stamp for item in items] == [1_700_000_000 * 10**9 + i for i in range(12)]
    calibration = items[3].calibration
    assert np.array_equal(calibration.K, [[30.5, 0, 15.5], [0, 31.5, 11.5], [0, 0, 1]])
    assert (calibration.distortion_model, calibration.d) == ('plumb_bob', (0.1, 0, 0, 0, 0))
    assert len(sequence.trajectory) == 3
    assert sequence.trajectory.pose(items[2].stamp) is not None
    assert sequence.trajectory.pose(items[3].stamp) is None
    depth = sequence.read_depth(1)
    assert depth.dtype == np.float32
    assert np.allclose(depth, [[np.nan, 1.5], [655.35, 0.01]], equal_nan=True)
    assert sequence.read_depth(0) is None


def test_poses_give_the_stamps_where_there_are_as_many(tmp_path):
    folder = write_folder(tmp_path / 'walk', 3)
    write_tum(folder / 'poses.txt', Trajectory(np.array([5, 70, 900]), np.tile(np.eye(4), (3, 1, 1))), Scale.METRIC)
    assert [item.stamp for item in open_sequence(folder)] == [5, 70, 900]


def test_calibration_as_ros_writes_it(tmp_path):
    folder = write_folder(tmp_path / 'walk', 1)
    (folder / 'intrinsics.yaml').write_text(
        f"""image_width: {WIDTH}
image_height: {HEIGHT}
camera_name: narrow
camera_matrix: {{rows: 3, cols: 3, data: [30, 0, 16, 0, 31, 12, 0, 0, 1]}}
distortion_model: rational_polynomial
distortion_coefficients: {{rows: 1, cols: 8, data: [1, 2, 3, 4, 5, 6, 7, 8]}}
rectification_matrix: {{rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
projection_matrix: {{rows: 3, cols: 4, data: [29, 0, 15, 0, 0, 28, 11, 0, 0, 0, 1, 0]}}
"""
    )
    calibration = next(iter(open_sequence(folder))).calibration
    assert calibration.k == (30, 0, 16, 0, 31, 12, 0, 0, 1)
    assert calibration.d == tuple(range(1, 9))
    assert calibration.p == (29, 0, 15, 0, 0, 28, 11, 0, 0, 0, 1, 0)


def spoil(name, text):
    return lambda folder: (folder / name).write_text(text)


def shrink(folder):
    cv2.imwrite(str(folder / 'frame2.png'), np.zeros((10, 12, 3), np.uint8))


def truncate(folder):
    data = (folder / 'frame2.png').read_bytes()
    (folder / 'frame2.png').write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ('damage', 'lost', 'complaint'),
    [
        (shrink, 2, r'frame2.png: 12x10 pixels, most have 32x24'),
        (truncate, 2, r'frame2.png: cannot be read as a picture'),
        (spoil('frame0.png', 'text'), 0, r'frame0.png: cannot be read'),
        (spoil('frame0.png', ''), 0, r'frame0.png: the file is empty'),
    ],
)
def test_a_damaged_picture_costs_itself(tmp_path, damage, lost, complaint):
    folder = write_folder(tmp_path / 'walk', 4)
    damage(folder)
    sequence = open_sequence(folder)
    for _ in range(2):
        assert indices(sequence) == [index for index in range(4) if index != lost]
        assert (sequence.lost, len(sequence.damaged)) == (1, 1)
        assert re.search(complaint, sequence.damaged[0])


def test_a_folder_without_any_usable_picture_is_refused(tmp_path):
    folder = write_folder(tmp_path / 'walk', 4)
    for file in folder.iterdir():
        file.write_bytes(b'')
    with pytest.raises(SequenceError, match=r'frame0.png: the file is empty'):
        open_sequence(folder)
    folder = write_folder(tmp_path / 'late', 4)
    sequence = open_sequence(folder)
    for file in folder.iterdir():
        file.write_bytes(b'')
    with pytest.raises(SequenceError, match=r'frame0.png: the file is empty; no other picture'):
        list(sequence)


INTRINSICS = f'image_width: {WIDTH}\nimage_height: {HEIGHT}\nfx: 30\nfy: 30\ncx: 16\n'


@pytest.mark.parametrize(
    ('damage', 'complaint'),
    [
        (spoil('timestamps.txt', 'frame0.png 1.5\nframe1.png 2'), r'timestamps.txt: no stamp for frame2.png \(2 of 4'),
        (spoil('timestamps.txt', 'frame0.png\n'), r'timestamps.txt:1: wanted "name seconds"'),
        (spoil('timestamps.txt', 'frame0.png soon\n'), r"timestamps.txt:1: 'soon' is not a time"),
        (spoil('timestamps.txt', ''.join(f'frame{i}.png 3\n' for i in range(4))), 'the same stamp'),
        (spoil('poses.txt', '1 0 0 0 0 0 1\n'), r'poses.txt:1: 7 values'),
        (spoil('poses.txt', '# t\n1 0 0 0 0 0 0 0\n'), r'poses.txt:2: .*quaternion'),
        (spoil('poses.txt', '1 0 nan 0 0 0 0 1\n'), r'poses.txt:1: not finite'),
        (spoil('intrinsics.yaml', INTRINSICS), r"intrinsics.yaml: not a camera calibration \(KeyError\('cy'\)\)"),
        (spoil('intrinsics.yaml', INTRINSICS + 'cy: middle\n'), r'intrinsics.yaml: not a camera calibration'),
        (spoil('intrinsics.yaml', 'just words'), r'intrinsics.yaml: not a camera calibration'),
        (spoil('intrinsics.yaml', 'a: [1,\n'), r'intrinsics.yaml: '),
        (
            spoil('intrinsics.yaml', INTRINSICS.replace('32', '64') + 'cy: 12\n'),
            r'intrinsics.yaml: calibrated at 64x24, but the pictures have 32x24 pixels',
        ),
    ],
)
def test_damaged_folders_are_refused_naming_the_file(tmp_path, damage, complaint):
    folder = write_folder(tmp_path / 'walk', 4)
    damage(folder)
    with pytest.raises(SequenceError, match=complaint):
        list(open_sequence(folder))


def test_wrong_inputs_are_refused(tmp_path):
    folder = write_folder(tmp_path / 'walk', 2)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.mp4').write_text('no video')
    (tmp_path / 'text.bag').write_text('no bag')
    (tmp_path / 'text.mcap').write_text('no bag')
    (tmp_path / 'empty.db3').touch()
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        open_sequence(tmp_path / 'nowhere')
    for path, complaint in [
        (tmp_path / 'empty', 'empty: neither pictures .* nor a bag'),
        (tmp_path / 'text.mp4', 'text.mp4: not a video'),
        (tmp_path / 'text.bag', 'text.bag: not a readable bag'),
        (tmp_path / 'text.mcap', 'text.mcap: not a readable bag'),
        (tmp_path / 'empty.db3', 'empty.db3: not a readable bag'),
        (folder / 'frame0.png', 'single picture'),
    ]:
        with pytest.raises(SequenceError, match=complaint):
            open_sequence(path)
    for wrong in ({'stride': 0}, {'limit': 0}, {'fps': 0}, {'fps': float('nan')}, {'topic': '/image'}):
        with pytest.raises(SequenceError):
            open_sequence(folder, **wrong)
    (folder / 'timestamps.txt').write_text('frame0.png 1\nframe1.png 2\n')
    with pytest.raises(SequenceError, match='fps cannot be set'):
        open_sequence(folder, fps=10)


@pytest.mark.parametrize(('suffix', 'codec'), [('avi', 'MJPG'), ('mp4', 'mp4v')])
def test_video(tmp_path, suffix, codec):
    path = tmp_path / f'walk.{suffix}'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 12.5, (WIDTH, HEIGHT))
    for index in range(10):
        writer.write(picture(index)[..., ::-1])
    writer.release()
    sequence = open_sequence(path)
    items = list(sequence)
    assert len(sequence) == len(items) == 10
    assert [item.stamp for item in items] == [80_000_000 * (i + 1) for i in range(10)]
    shown = [np.median(to_rgb(item.image)[..., 0]) for item in items]
    assert np.abs(np.array(shown) - (20 * np.arange(10) + 10)).max() < 8
    strided = list(open_sequence(path, stride=4, fps=100))
    assert [item.index for item in strided] == [0, 4, 8]
    assert [item.stamp for item in strided] == [10_000_000, 50_000_000, 90_000_000]
    assert np.median(to_rgb(strided[1].image)[..., 0]) == shown[4]


def bag_path(tmp_path, kind):
    return tmp_path / ('bag.bag' if kind == 'ros1' else 'bag')


@pytest.mark.parametrize('kind', KINDS)
def test_bag_keeps_fields_and_stamps(tmp_path, kind):
    path = bag_path(tmp_path, kind)
    with BagWriter(path, kind) as bag:
        for i in range(6):
            bag.image('/cam/image_raw', START + 50 + 10**8 * i, i, stamp=START + 10**8 * i)
            bag.info('/cam/camera_info', START + 60 + 10**8 * i)
    paths = [path] if kind == 'ros1' else [path, next(path.glob('*.mcap' if kind == 'mcap' else '*.db3'))]
    for given in paths:
        sequence = open_sequence(given, stride=2)
        items = list(sequence)
        assert sequence.topic == '/cam/image_raw'
        assert len(sequence) == 3
        assert [item.index for item in items] == [0, 2, 4]
        assert [item.stamp for item in items] == [START + 10**8 * i for i in (0, 2, 4)]
        image = items[1].image
        assert (image.height, image.width, image.encoding, image.step) == (HEIGHT, WIDTH, 'bgr8', 3 * WIDTH + 2)
        assert len(image.data) == HEIGHT * image.step
        assert np.array_equal(to_rgb(image), picture(2))
        assert items[0].frame_id == 'left_optical'
        assert items[0].calibration.K[0, 0] == 30, 'the first image was recorded before the first CameraInfo'
        assert sequence.notes == ()


def test_bag_image_without_stamp_gets_the_time_of_recording(tmp_path):
    with BagWriter(tmp_path / 'bag', 'sqlite3') as bag:
        bag.image('/cam/image_raw', START, stamp=0)
    sequence = open_sequence(tmp_path / 'bag')
    assert next(iter(sequence)).stamp == START
    assert next(iter(sequence)).calibration is None
    assert 'no CameraInfo on /cam/camera_info' in sequence.notes[0]


def test_bag_with_compressed_images(tmp_path):
    with BagWriter(tmp_path / 'bag', 'mcap') as bag:
        for i in range(3):
            bag.compressed('/cam/image_raw/compressed', START + i, i)
            bag.compressed('/cam/depth/compressedDepth', START + i, i, '16UC1; compressedDepth')
            bag.info('/cam/camera_info', START + i)
    items = list(open_sequence(tmp_path / 'bag'))
    assert [item.image.format for item in items] == ['png'] * 3
    assert all(np.array_equal(to_rgb(item.image), picture(item.index)) for item in items)
    assert items[0].calibration is not None


def test_bag_topic_is_chosen_or_asked_for(tmp_path):
    with BagWriter(tmp_path / 'one', 'sqlite3') as bag:
        bag.image('/cam/image_raw', START)
        bag.compressed('/cam/image_raw/compressed', START)
    assert open_sequence(tmp_path / 'one').topic == '/cam/image_raw'
    assert open_sequence(tmp_path / 'one', topic='/cam/image_raw/compressed').topic == '/cam/image_raw/compressed'
    with BagWriter(tmp_path / 'two', 'sqlite3') as bag:
        bag.image('/left/image_raw', START)
        bag.image('/right/image_raw', START)
        bag.image('/right/image_raw', START + 1)
    with pytest.raises(SequenceError, match=r'choose one: /left/image_raw \(1\), /right/image_raw \(2\)'):
        open_sequence(tmp_path / 'two')
    with pytest.raises(SequenceError, match=r'no images on /centre; image topics: /left/image_raw'):
        open_sequence(tmp_path / 'two', topic='/centre')
    assert len(open_sequence(tmp_path / 'two', topic='/right/image_raw')) == 2
    with BagWriter(tmp_path / 'none', 'sqlite3') as bag:
        bag.info('/cam/camera_info', START)
    with pytest.raises(SequenceError, match='no images; image topics: none'):
        open_sequence(tmp_path / 'none')
    with pytest.raises(SequenceError, match='fps cannot be set'):
        open_sequence(tmp_path / 'one', fps=10)


def test_bag_takes_the_latest_calibration(tmp_path):
    second = 10**9
    with BagWriter(tmp_path / 'latched', 'sqlite3') as bag:
        bag.info('/cam/camera_info', START)
        for i in range(4):
            bag.image('/cam/image_raw', START + i * 10 * second)
    sequence = open_sequence(tmp_path / 'latched')
    assert all(item.calibration is not None for item in sequence), 'one that never changes stays in force'
    assert '1 CameraInfo messages for 4 images: not synchronised' in sequence.notes[0]
    with BagWriter(tmp_path / 'zoom', 'sqlite3') as bag:
        bag.info('/cam/camera_info', START, focal=30)
        bag.image('/cam/image_raw', START + second)
        bag.info('/cam/camera_info', START + 2 * second, focal=40)
        bag.image('/cam/image_raw', START + 3 * second)
        bag.image('/cam/image_raw', START + 3 * second + 1)
    found = [item.calibration and item.calibration.k[0] for item in open_sequence(tmp_path / 'zoom')]
    assert found == [30, 40, None], 'after a change, nothing older than a second is trusted'


def test_bag_folder_without_metadata(tmp_path):
    for name in ('a', 'b'):
        with BagWriter(tmp_path / name, 'mcap') as bag:
            bag.image('/cam/image_raw', START)
    (tmp_path / 'a' / 'metadata.yaml').unlink()
    assert len(open_sequence(tmp_path / 'a')) == 1
    (tmp_path / 'b' / 'b.mcap').rename(tmp_path / 'a' / 'second.mcap')
    with pytest.raises(SequenceError, match=r'2 bag files that are no parts of one, .*: a\.mcap, second\.mcap'):
        open_sequence(tmp_path / 'a')
    with pytest.raises(SequenceError, match=r'b: there is no storage file in it: b\.mcap is missing'):
        open_sequence(tmp_path / 'b')


@pytest.mark.parametrize('kind', KINDS)
def test_bag_cut_off(tmp_path, kind):
    path = bag_path(tmp_path, kind)
    with BagWriter(path, kind) as bag:
        for i in range(20):
            bag.image('/cam/image_raw', START + i, i % 10)
    storage = path if kind == 'ros1' else next(path.glob('*.mcap' if kind == 'mcap' else '*.db3'))
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size // 2])
    with pytest.raises(SequenceError, match='bag'):
        list(open_sequence(path))


def test_trajectory_file_is_exact(tmp_path):
    rng = np.random.default_rng(2)
    stamps = np.array([0, 1, 999_999_999, START, START + 1])
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, :3, :3] = Rotation.random(5, random_state=rng).as_matrix()
    poses[:, :3, 3] = rng.normal(size=(5, 3)) * 100
    write_tum(tmp_path / 'poses.txt', Trajectory(stamps, poses), Scale.METRIC)
    found = read_tum(tmp_path / 'poses.txt')
    assert found.stamps.tolist() == stamps.tolist()
    assert np.abs(found.T_world_camera - poses).max() < 5e-9
    write_tum(tmp_path / 'none.txt', Trajectory(stamps[:0], poses[:0]), Scale.METRIC)
    assert read_tum(tmp_path / 'none.txt').T_world_camera.shape == (0, 4, 4)
    with pytest.raises(ValueError, match='negative'):
        write_tum(tmp_path / 'poses.txt', Trajectory(np.array([-1]), poses[:1]), Scale.METRIC)


@pytest.fixture
def data():
    folder = os.environ.get('VGGT_ROS_TEST_DATA')
    if not folder:
        pytest.skip('VGGT_ROS_TEST_DATA does not name a folder of recorded data')
    return Path(folder)


@pytest.mark.parametrize('given', ['hololens', 'hololens/images'])
def test_recorded_walk(data, given):
    sequence = open_sequence(data / given, stride=20)
    items = list(sequence)
    assert len(sequence) == len(items) == 11
    assert np.allclose(items[0].calibration.K[0], [495.56775700934577, 0, 269.50289719626164])
    for item in items:
        assert to_rgb(item.image).shape == (360, 540, 3)
        assert sequence.trajectory.pose(item.stamp) is not None
        assert 0.3 < np.nanmedian(sequence.read_depth(item.index)) < 20
    # The file says 0.3 s and 0.1 s a picture, and its poses are orthonormal.
    assert [item.stamp for item in items] == [300_000_000 + 2_000_000_000 * i for i in range(11)]
    rotation = sequence.trajectory.T_world_camera[:, :3, :3]
    assert np.allclose(rotation @ rotation.transpose(0, 2, 1), np.eye(3), atol=1e-12)


def test_recorded_walk_agrees_with_its_truth(data):
    """Depth, poses and intrinsics fit one another: a picture's points land on the same depth in the next one."""
    sequence = open_sequence(data / 'hololens', stride=5, limit=2)
    first, second = sequence
    K = first.calibration.K
    depth = [sequence.read_depth(item.index) for item in (first, second)]
    T = np.linalg.inv(sequence.trajectory.pose(second.stamp)) @ sequence.trajectory.pose(first.stamp)
    v, u = np.mgrid[20:340:7, 20:520:7]
    known = np.isfinite(depth[0][v, u])
    z, v, u = depth[0][v, u][known], v[known], u[known]
    points = np.linalg.inv(K) @ (np.stack([u, v, np.ones_like(u)]) * z)
    moved = T[:3, :3] @ points + T[:3, 3:]
    pixels = np.round((K @ moved / moved[2])[:2]).astype(int)
    inside = (pixels >= 0).all(0) & (pixels < [[540], [360]]).all(0)
    seen = depth[1][pixels[1, inside], pixels[0, inside]]
    assert inside.mean() > 0.5
    assert np.nanmedian(np.abs(seen - moved[2, inside]) / seen) < 0.02


def test_recorded_robot_bag(data):
    sequence = open_sequence(data / 'bags' / 'jsk_pr2_elevator_button_light.bag')
    items = list(sequence)
    assert sequence.topic == '/wide_stereo/left/image_raw'
    assert len(sequence) == len(items) == 19
    assert '292 CameraInfo messages for 19 images: not synchronised' in sequence.notes[0]
    assert items[0].stamp == 1324259810_827363374
    assert items[0].frame_id == 'wide_stereo_optical_frame'
    assert items[0].image.encoding == 'bayer_bggr8'
    rgb = to_rgb(items[0].image)
    rectifier = Rectifier(items[0].calibration)
    assert rectifier.K[0].tolist() == [395.7145, 0, 335.86279]
    rectified = rectifier(rgb)
    assert rectified.shape == rgb.shape == (480, 640, 3)
    assert np.abs(rectified.astype(int) - rgb).mean() > 1, 'the lens distorts'
    red, _, blue = rgb.reshape(-1, 3).mean(0)
    assert red > 1.1 * blue, 'a yellow wall in warm light: a Bayer order read wrongly swaps red and blue'


def test_calibration_fills_a_message():
    message = SimpleNamespace(roi=SimpleNamespace())
    calibration = Calibration.pinhole(np.array([[30.0, 0, 15], [0, 31, 11], [0, 0, 1]]), (WIDTH, HEIGHT))
    calibration.fill(message)
    assert (message.width, message.height, message.distortion_model) == (WIDTH, HEIGHT, 'plumb_bob')
    assert message.p == (30, 0, 15, 0, 0, 31, 11, 0, 0, 0, 1, 0)
    assert Calibration.from_message(message) == calibration
