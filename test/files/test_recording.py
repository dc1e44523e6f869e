"""What the recorder writes: pictures, cloud, trajectory, bag; also when the disk is full."""

import resource
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from exact import K, depth_of, picture, walk
from vggt_ros import camera
from vggt_ros.evaluation import accuracy
from vggt_ros.files import recording
from vggt_ros.files.bag_writer import BagWriter, end_after_whole_records
from vggt_ros.files.cloud import CloudBuilder, read_ply, write_ply
from vggt_ros.files.pictures import LEGEND_WIDTH, UNKNOWN, DepthRange, colour, confidence_picture, depth_picture
from vggt_ros.files.trajectory import Trajectory, read_tum
from vggt_ros.types import Scale

SIZE = (160, 120)
START = 1_700_000_000_123_456_789  # a stamp that no float keeps
STORE = get_typestore(Stores.LATEST)
DEFINITION = {'test_msgs/msg/Word': 'uint64 number\nstring text'}


def frame(index, epoch=0, **changes):
    """A frame of the walk as the recorder gets it."""
    T = walk(12)[index % 12]
    depth = depth_of(T, K, SIZE).astype(np.float32)
    fields = {
        'pose': T,
        'depth': depth,
        'confidence': np.full_like(depth, 0.9),
        'xyz': camera.unproject(depth, K).astype(np.float32),
        'rgb': picture(index),
    }
    return recording.RecordedFrame(START + index * 100_000_001, epoch, Scale.RELATIVE, **(fields | changes))


def string(number):
    """A serialized std_msgs/String of about a kilobyte that does not compress."""
    noise = np.random.default_rng(number).integers(33, 126, 1000, np.uint8).tobytes().decode()
    return bytes(STORE.serialize_cdr(STORE.types['std_msgs/msg/String'](f'{number} {noise}'), 'std_msgs/msg/String'))


def read_bag(path):
    """(topic, time, first word) of every string in a bag."""
    with AnyReader([path], default_typestore=STORE) as reader:
        return [
            (connection.topic, time, int(reader.deserialize(raw, connection.msgtype).data.split()[0]))
            for connection, time, raw in reader.messages()
        ]


@contextmanager
def full_disk(size):
    """No file may grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_unknown_depth_is_grey_and_nothing_else_is():
    scale = DepthRange(0.5, 8.0)
    colours = scale.colour(np.array([[np.nan, 0.1, 0.5, 2.0, 8.0, 100.0]]))[0]
    assert tuple(colours[0]) == UNKNOWN
    assert not (colours[1:] == UNKNOWN).all(-1).any()
    assert (colours[1] == colours[2]).all()  # clipped
    assert (colours[4] == colours[5]).all()
    ramp = scale.colour(np.geomspace(0.5, 8, 9)).astype(int)
    assert ramp[1][0] > ramp[1][2]  # near is red
    assert ramp[-2][2] > ramp[-2][0]  # far is blue


def test_the_depth_scale_is_the_same_for_all_pictures_and_written_beside_them():
    depth = np.full((120, 160), 2.0, np.float32)
    scale = DepthRange.of(np.geomspace(1, 4, 1000).reshape(10, 100))
    assert scale.near < 1 < 4 < scale.far
    one, other = depth_picture(depth, scale, 'm'), depth_picture(np.where(depth > 0, 2.0, 0) * 1.5, scale, 'm')
    assert one.shape == (240, 320 + LEGEND_WIDTH, 3)  # small ones are enlarged: the legend can be read
    assert (one[:, 320:] == other[:, 320:]).all()
    assert (one[:, :320] == scale.colour(np.float64(2.0))).all()
    assert (one[:, 320:] < 100).any()  # there is writing
    assert DepthRange.of(np.full((4, 4), np.nan)) is None
    flat = DepthRange.of(np.full((4, 4), 3.0))
    assert flat.near < 3 < flat.far


def test_confidence_goes_from_0_to_1():
    values = np.array([[0.0, 1.0], [0.5, np.nan]])
    shown = confidence_picture(values)[::120, ::120][:2, :2]
    assert (shown == colour(values, cv2.COLORMAP_VIRIDIS)).all()
    assert tuple(shown[1, 1]) == UNKNOWN


def test_the_cloud_lies_on_the_walls_and_stays_bounded():
    builder = CloudBuilder(limit=3000, voxel=0.02)
    for index in range(12):
        one = frame(index)
        builder.add(one.xyz, one.rgb, one.pose)
        assert sum(map(len, builder._parts)) <= 3000 + 160 * 120
    xyz, rgb = builder.result()
    assert 500 < len(xyz) == len(rgb) <= 3000
    assert builder.voxel > 0.02
    low, high = np.array([[-4.0, -3.0, 0.0], [4.0, 3.0, 3.0]])
    assert (np.minimum(np.abs(xyz - low), np.abs(xyz - high)).min(1) < builder.voxel).all()


def test_points_between_two_surfaces_do_not_enter_the_cloud():
    depth = np.full((40, 40), 4.0, np.float32)
    depth[:, 20:] = 2.0
    depth[:, 20] = 3.0  # hangs in the air
    depth[5, 5] = np.nan
    builder = CloudBuilder(voxel=0.001)
    builder.add(camera.unproject(depth, K).astype(np.float32), np.zeros((40, 40, 3), np.uint8), np.eye(4))
    assert set(np.unique(builder.result()[0][:, 2].round(6))) == {2.0, 4.0}


def test_ply_files_come_back(tmp_path):
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(50, 3)).astype(np.float32), rng.integers(0, 256, (50, 3), np.uint8)
    write_ply(tmp_path / 'cloud.ply', xyz, rgb)
    again = read_ply(tmp_path / 'cloud.ply')
    assert (again[0] == xyz).all()
    assert (again[1] == rgb).all()
    open3d = pytest.importorskip('open3d')
    theirs = open3d.io.read_point_cloud(str(tmp_path / 'cloud.ply'))
    assert np.allclose(theirs.points, xyz)
    assert np.allclose(np.asarray(theirs.colors) * 255, rgb)
    (tmp_path / 'other.ply').write_bytes(b'ply\nend_header\n')
    with pytest.raises(ValueError, match=r'other\.ply'):
        read_ply(tmp_path / 'other.ply')


def test_bags_come_back_with_foreign_types_and_times_in_order(tmp_path):
    bag = BagWriter(tmp_path / 'bag', DEFINITION)
    times = [START, START + 5, START + 3, START + 9]
    for number, time in enumerate(times):
        bag.write('/words', 'std_msgs/msg/String', time, string(number))
    word = b'\x00\x01\x00\x00' + np.uint64(7).tobytes() + np.uint32(3).tobytes() + b'hi\0'
    bag.write('/word', 'test_msgs/msg/Word', START + 10, word, latched=True)
    bag.close()
    assert bag.counts == {'/words': 4, '/word': 1}
    with AnyReader([tmp_path / 'bag'], default_typestore=STORE) as reader:
        messages = [(time, reader.deserialize(raw, x.msgtype)) for x, time, raw in reader.messages()]
    assert [time for time, _ in messages] == [START, START + 5, START + 5, START + 9, START + 10]
    assert (messages[-1][1].number, messages[-1][1].text) == (7, 'hi')


def test_metadata_of_a_bag_opens_in_humble(tmp_path):
    writer = BagWriter(tmp_path / 'outputs', {})
    text = get_typestore(Stores.LATEST)
    message = text.types['std_msgs/msg/String'](data='moon')
    writer.write('/moon', 'std_msgs/msg/String', 5, bytes(text.serialize_cdr(message, 'std_msgs/msg/String')))
    writer.close()
    fields = yaml.safe_load((tmp_path / 'outputs' / 'metadata.yaml').read_text())['rosbag2_bagfile_information']
    assert fields['version'] <= 8
    assert all(
        isinstance(x['topic_metadata']['offered_qos_profiles'], str) for x in fields['topics_with_message_count']
    )


def test_an_mcap_file_cut_anywhere_is_readable_up_to_the_cut(tmp_path):
    bag = BagWriter(tmp_path / 'bag', {})
    for number in range(5000):
        bag.write('/words', 'std_msgs/msg/String', START + number, string(number))
    bag.close()
    whole = bag.file.read_bytes()
    counts = []
    for cut in np.linspace(60, len(whole), 12).astype(int):
        path = tmp_path / 'cut.mcap'
        path.write_bytes(whole[:cut])
        end_after_whole_records(path)
        assert path.stat().st_size <= cut + 50
        numbers = [number for _, _, number in read_bag(path)]
        assert numbers == list(range(len(numbers)))
        counts.append(len(numbers))
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-2] > 2000
    assert counts[-1] == 5000
    (tmp_path / 'no.mcap').write_bytes(b'nonsense' * 4)
    with pytest.raises(ValueError, match='not an MCAP file'):
        end_after_whole_records(tmp_path / 'no.mcap')


def test_a_full_disk_ends_the_bag_where_it_is_readable(tmp_path):
    bag = BagWriter(tmp_path / 'bag', {})

    def fill():
        for number in range(10_000):
            bag.write('/words', 'std_msgs/msg/String', START + number, string(number))

    with full_disk(3_000_000), pytest.raises(OSError, match='File too large'):
        fill()
    bag.close()  # nothing left to do
    numbers = [number for _, _, number in read_bag(tmp_path / 'bag' / 'bag.mcap')]
    assert len(numbers) > 1000
    assert numbers == list(range(len(numbers)))


def test_a_recording_holds_what_was_written(tmp_path):
    folder = tmp_path / 'new' / 'folder'
    record = recording.RecordingWriter(folder, {})
    frames = [frame(index) for index in range(3)]
    for one in frames:
        record.write_frame(one)
        assert len(read_tum(folder / recording.TRAJECTORY)) == record.frames  # at once, not in the end
    record.write_frame(frame(3, pose=None))
    record.write_frame(frame(4, depth=None, confidence=None))
    record.write_message('/words', 'std_msgs/msg/String', START, string(1))
    record.close({'frames': 5})
    trajectory = read_tum(folder / recording.TRAJECTORY)
    assert trajectory.stamps.tolist() == [START + i * 100_000_001 for i in (0, 1, 2, 4)]
    assert np.allclose(trajectory.T_world_camera[:3], np.stack([x.pose for x in frames]), atol=1e-8)
    first = np.linalg.inv(frames[0].pose)
    rows = np.loadtxt(folder / recording.KITTI).reshape(-1, 3, 4)
    assert np.allclose(rows[:3], [(first @ x.pose)[:3] for x in frames], atol=1e-8)
    names = [f'{i:06d}.png' for i in range(4)]
    assert sorted(x.name for x in (folder / recording.DEPTH).iterdir()) == names
    assert sorted(x.name for x in (folder / recording.CONFIDENCE).iterdir()) == names
    shown = cv2.imread(str(folder / recording.DEPTH / '000002.png'))[..., ::-1]
    scale = DepthRange.of(frames[0].depth)  # of the first picture, for all
    assert (shown[::2, :320:2] == scale.colour(frames[2].depth)).all()
    lines = (folder / recording.FRAMES).read_text().splitlines()
    assert lines[1] == '000001 1700000000.223456790'
    assert len(lines) == 5
    assert len(read_bag(folder / recording.BAG)) == 1


def test_epochs_are_not_mixed(tmp_path):
    record = recording.RecordingWriter(tmp_path, {}, voxel=0.05)
    for index, epoch in enumerate((3, 3, 4)):
        record.write_frame(frame(index, epoch))
    record.close({})
    assert len(read_tum(tmp_path / 'trajectory.txt')) == 2
    assert len(read_tum(tmp_path / 'trajectory_epoch_4.txt')) == 1
    assert len(read_ply(tmp_path / 'cloud.ply')[0]) > 100
    assert len(read_ply(tmp_path / 'cloud_epoch_4.ply')[0]) > 100
    assert np.loadtxt(tmp_path / 'kitti_trajectory.txt').shape == (2, 12)
    assert np.allclose(np.loadtxt(tmp_path / 'kitti_trajectory_epoch_4.txt').reshape(3, 4), np.eye(4)[:3])
    assert {'cloud.glb', 'cloud_epoch_4.glb'} <= {x.name for x in tmp_path.iterdir()}


def test_a_second_recording_never_touches_the_first(tmp_path):
    assert recording.fresh_folder(tmp_path / 'none') == tmp_path / 'none'
    assert recording.fresh_folder(tmp_path) == tmp_path  # empty, or with other things in it
    recording.RecordingWriter(tmp_path, {}).close({})
    assert recording.fresh_folder(tmp_path) == tmp_path / 'run_2'
    recording.RecordingWriter(tmp_path / 'run_2', {}).close({})
    assert recording.fresh_folder(tmp_path) == tmp_path / 'run_3'


def test_a_full_disk_is_named_and_leaves_what_was_written(tmp_path):
    record = recording.RecordingWriter(tmp_path, {})
    record.write_frame(frame(0))
    record.write_message('/words', 'std_msgs/msg/String', START, string(0))
    with full_disk(2000):
        with pytest.raises(recording.OutputError, match=r'cannot write .*depth/000001\.png: File too large'):
            record.write_frame(frame(1))
        record.abandon()
    assert not (tmp_path / 'depth' / '000001.png').exists()
    assert cv2.imread(str(tmp_path / 'depth' / '000000.png')) is not None
    assert len(read_tum(tmp_path / 'trajectory.txt')) == 1
    assert read_bag(tmp_path / 'outputs' / 'outputs.mcap') in ([], [('/words', START, 0)])


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(recording.OutputError, match=r'cannot write .*file/folder: Not a directory'):
        recording.RecordingWriter(tmp_path / 'file' / 'folder', {})


def test_similarity_is_recovered_and_agrees_with_evo():
    rng = np.random.default_rng(4)
    poses = walk(30)
    stamps = np.arange(30) * 10**8
    ours = poses.copy()
    R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    R *= np.sign(np.linalg.det(R))
    ours[:, :3, 3] = 0.37 * poses[:, :3, 3] @ R.T + rng.normal(size=3) + 0.01 * rng.normal(size=(30, 3))
    error = accuracy.trajectory_error(Trajectory(stamps, ours), Trajectory(stamps, poses))
    assert error.poses == 30
    assert np.allclose(error.similarity.scale, 1 / 0.37, rtol=0.02)
    assert np.allclose(error.similarity.R, R.T, atol=0.05)
    assert np.allclose(error.path, np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())
    pytest.importorskip('evo')
    from evo.core import metrics
    from evo.core.trajectory import PoseTrajectory3D

    theirs = PoseTrajectory3D(poses_se3=list(ours), timestamps=stamps * 1e-9)
    truth = PoseTrajectory3D(poses_se3=list(poses), timestamps=stamps * 1e-9)
    theirs.align(truth, correct_scale=True)
    ape = metrics.APE(metrics.PoseRelation.translation_part)
    ape.process_data((truth, theirs))
    assert np.isclose(error.rmse, ape.get_statistic(metrics.StatisticsType.rmse), rtol=1e-9)


def test_only_equal_stamps_are_compared():
    poses = walk(6)
    truth = Trajectory(START + np.arange(6) * 10, poses)
    error = accuracy.trajectory_error(Trajectory(START + np.array([10, 20, 21, 40, 50]), poses[[1, 2, 0, 4, 5]]), truth)
    assert error.poses == 4
    assert error.rmse < 1e-9
    with pytest.raises(ValueError, match='0 positions are too few'):
        accuracy.trajectory_error(Trajectory(truth.stamps + 1, poses), truth)
    with pytest.raises(ValueError, match='does not move'):
        accuracy.trajectory_error(Trajectory(truth.stamps, np.tile(np.eye(4), (6, 1, 1))), truth)


def test_depth_error_is_relative_after_one_scale():
    truth = np.array([[1.0, 2.0], [4.0, np.nan]])
    ours = np.array([[0.5, 1.0], [3.0, 7.0]])
    error, scale = accuracy.depth_error([(ours, truth)])
    assert scale == 2.0
    assert np.isclose(error, (0 + 0 + 0.5) / 3)
    with pytest.raises(ValueError, match='no pixel'):
        accuracy.depth_error([])
