"""The four examples as a newcomer runs them: each in a process of its own."""

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from started import Started
from vggt_ros.camera import fit, invert, pixel_grid, project, transform
from vggt_ros.files.cloud import read_ply
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.trajectory import read_tum
from vggt_ros.pipeline import Pipeline
from vggt_ros.similarity import Similarity
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.trajectory import make_trajectory
from vggt_ros.synthetic.writers import write_folder
from vggt_ros.types import Frame

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))
SIZE, FRAMES = (160, 116), 8  # the network sees a part of them
NETWORK_SIZE = (112, 84)  # of such pictures, as the embedded network has them
NO_INFO = {'calibration': 'predicted'}  # so that no image has to wait for its camera_info, which may come late


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Pictures of a room with their intrinsics, stamps, true poses and depth."""
    path = tmp_path_factory.mktemp('walk') / 'walk'
    world, K = make_world('room', 1), default_intrinsics(SIZE)
    way = make_trajectory(world, 'handheld', 1, FRAMES, rate=4.0)
    write_folder(path, render_frames(world, way, K, SIZE), K, SIZE)
    return path


def command(name: str, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / 'examples' / f'{name}.py'), *map(str, words)]


def run(name: str, *words: object) -> subprocess.CompletedProcess:
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return subprocess.run(command(name, *words), capture_output=True, text=True, env=environment, timeout=300)


def test_there_are_four_short_ones_that_say_how_they_are_run():
    assert [path.stem for path in EXAMPLES] == ['depth_subscriber', 'folder', 'network', 'tracks_subscriber']
    for path in EXAMPLES:
        text = path.read_text()
        assert len(text.splitlines()) < 60, path.name
        assert f'\npython examples/{path.name}' in text.split('"""')[1], path.name
        assert 'sys.path' not in text, path.name


def shapes_and_cameras(text: str) -> tuple[dict[str, str], np.ndarray]:
    """What network.py prints: name -> shape, and (S, 4) x, y, z, focal length."""
    number = r'(-?\d+\.\d+)'
    line = rf'picture \d+: at \({number}, {number}, {number}\) in the first camera, focal length {number} px'
    cameras = np.array(re.findall(line, text), float)
    return dict(re.findall(r'^(\w+): (\(.*\))$', text, re.MULTILINE)), cameras


def test_the_network_as_a_library(folder):
    answer = run('network', folder, '--pictures', 3)
    assert answer.returncode == 0, answer.stderr
    shapes, cameras = shapes_and_cameras(answer.stdout)
    width, height = NETWORK_SIZE
    assert shapes['pose_enc'] == '(1, 3, 9)'
    assert shapes['depth'] == f'(1, 3, {height}, {width}, 1)'
    # The same as the network held ready says of these pictures.
    from vggt_ros.weights.registry import make_predictor

    frames = [Frame(item.index, item.stamp, item.image.to_rgb()) for item in open_sequence(folder, limit=3)]
    wanted = make_predictor(device='cpu', precision='float32', heads=('camera', 'depth')).predict(frames)
    np.testing.assert_allclose(cameras[:, :3], wanted.T_window_camera[:, :3, 3], atol=2e-4)
    np.testing.assert_allclose(cameras[:, 3], wanted.K[:, 0, 0], atol=0.1)
    assert np.abs(cameras[1:, :3]).max() > 0.01


def test_the_network_without_any_pictures():
    answer = run('network', '--pictures', 2)
    assert answer.returncode == 0, answer.stderr
    shapes, cameras = shapes_and_cameras(answer.stdout)
    assert shapes['pose_enc'] == '(1, 2, 9)'
    assert cameras.shape == (2, 4)
    assert np.isfinite(cameras).all()


@pytest.fixture(scope='module')
def output(folder, tmp_path_factory):
    """What folder.py makes of the pictures."""
    path = tmp_path_factory.mktemp('solved') / 'out'
    answer = run('folder', folder, path)
    assert answer.returncode == 0, answer.stderr
    assert f'{FRAMES} poses' in answer.stdout
    assert 'scale RELATIVE' in answer.stdout
    return path


def test_a_folder_to_poses_depth_and_cloud(folder, output):
    rows = np.loadtxt(output / 'trajectory.txt')
    np.testing.assert_allclose(np.linalg.norm(rows[:, 4:], axis=1), 1, atol=1e-8)
    found, true = read_tum(output / 'trajectory.txt'), read_tum(folder / 'poses.txt')
    assert found.stamps.tolist() == true.stamps.tolist()
    assert {path.name for path in (output / 'depth').iterdir()} == {f'{stamp}.npy' for stamp in true.stamps}

    sequence, pixels = open_sequence(folder), fit(SIZE, max(NETWORK_SIZE))
    u, v = np.moveaxis(np.rint(pixels.to_source(pixel_grid(pixels.size))).astype(int), -1, 0)
    depth = np.stack([np.load(output / 'depth' / f'{stamp}.npy') for stamp in true.stamps])
    truth = np.stack([sequence.read_depth(index)[v, u] for index in range(FRAMES)])
    assert depth.shape == truth.shape
    assert np.isfinite(depth).mean() > 0.5
    metres = np.nanmedian(truth / depth)  # per unit of the map, one for poses, depth and cloud of all pictures
    assert np.nanmedian(np.abs(depth * metres / truth - 1)) < 0.1

    ours, theirs = (invert(way.T_world_camera[0]) @ way.T_world_camera for way in (found, true))
    way = np.linalg.norm(theirs[-1, :3, 3])
    assert way > 0.3
    assert np.linalg.norm(metres * ours[:, :3, 3] - theirs[:, :3, 3], axis=1).max() < 0.3 * way
    turned = Rotation.from_matrix(ours[:, :3, :3]).inv() * Rotation.from_matrix(theirs[:, :3, :3])
    assert np.degrees(turned.magnitude()).max() < 4

    xyz, rgb = read_ply(output / 'cloud.ply')
    assert len(xyz) > 10_000
    assert len(np.unique(rgb, axis=0)) > 100
    # Seen from the first camera most of it lies where the room is, and has the room's colours.
    points = transform(invert(found.T_world_camera[0]), xyz)
    uv = project(points, default_intrinsics(SIZE))
    inside = np.all((uv > 0) & (uv < np.array(SIZE) - 1), axis=1)
    assert inside.mean() > 0.5
    u, v = np.rint(uv[inside]).astype(int).T
    assert np.nanmedian(np.abs(points[inside, 2] * metres / sequence.read_depth(0)[v, u] - 1)) < 0.15
    picture = next(iter(sequence)).image.to_rgb()
    right, swapped = (np.abs(picture[v, u].astype(int) - colour).mean() for colour in (rgb[inside], rgb[inside, ::-1]))
    assert right < 0.6 * swapped


def test_a_loop_that_is_closed_moves_poses_and_depth_of_before(folder, output, tmp_path, monkeypatch):
    process = Pipeline.process

    def close_a_loop(pipeline, frames, track=True):
        result = process(pipeline, frames, track)
        if frames[-1].index < FRAMES - 1:
            return result
        return replace(result, corrections={0: Similarity(2.0, np.eye(3), np.zeros(3))})

    monkeypatch.setattr(Pipeline, 'process', close_a_loop)
    monkeypatch.setattr(sys, 'argv', command('folder', folder, tmp_path / 'out')[1:])
    runpy.run_path(sys.argv[0], run_name='__main__')
    found, straight = (read_tum(path / 'trajectory.txt') for path in (tmp_path / 'out', output))
    twice = np.array([2.0] * (FRAMES - 1) + [1.0])  # the last picture is as it is after the loop
    positions = twice[:, None] * straight.T_world_camera[:, :3, 3]
    np.testing.assert_allclose(found.T_world_camera[:, :3, 3], positions, atol=1e-3)
    for stamp, factor in zip(straight.stamps, twice, strict=True):
        depth, before = (np.load(path / 'depth' / f'{stamp}.npy') for path in (tmp_path / 'out', output))
        assert np.nanmedian(depth / before) == pytest.approx(factor, rel=1e-3)


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    answer = run('folder', tmp_path / 'nothing', tmp_path / 'out')
    assert answer.returncode != 0
    assert f'{tmp_path / "nothing"} does not exist' in answer.stderr


def have_heard(direct: list, lines: list[str], count: int) -> bool:
    """Whether we and the example have so many images; asked after each, nobody's queue overflows."""
    from harness import wait_until

    return wait_until(lambda: len(direct) == len(lines) == count)


@pytest.mark.requires_ros
def test_the_way_of_every_track():
    from vggt_ros.msg import TrackArray

    from exact import ExactPredictor
    from harness import Rig, poses, stamps, wait_until

    with Rig(ExactPredictor(poses(12)), **NO_INFO) as rig, Started(command('tracks_subscriber')) as example:
        direct = rig.listen(TrackArray, '/vggt/tracks')
        publisher = rig.node._publication.tracks._topics[0][0]
        assert wait_until(lambda: publisher.get_subscription_count() >= 2, 60), example.lines
        for index in range(12):
            rig.play([index], infos=False)
            assert have_heard(direct, example.lines, index + 1), example.lines
        example.interrupt()
        assert example.wait(30) == 0, example.lines
    line = r'(\d+): (\d+) tracks(?:; (\d+) in (\d+) images, from \((.+), (.+)\) to \((.+), (.+)\))?'
    found = [re.fullmatch(line, one) for one in example.lines]
    assert all(found), example.lines
    ways = {}
    for message, one in zip(direct, found, strict=True):
        for track, u, v in zip(message.id, message.u, message.v, strict=True):
            ways.setdefault(track, []).append((u, v))
        assert int(one[1]) == stamps([message])[0]
        assert int(one[2]) == len(message.id)
        if one[3] is None:
            assert not message.id
            continue
        way = ways[int(one[3])]
        assert int(one[4]) == len(way) == max(len(ways[track]) for track in message.id)
        np.testing.assert_allclose([float(x) for x in one.groups()[4:]], [*way[0], *way[-1]], atol=0.051)
    assert int(found[-1][2]) > 15
    assert int(found[-1][4]) > 5


@pytest.fixture
def talker():
    """A node that says what a VGGT node might say."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('talker', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def publishers(node, kinds: dict[str, type]) -> dict:
    """Topic -> its publisher, once the example listens to it."""
    from harness import wait_until

    made = {topic: node.create_publisher(kind, f'/vggt/{topic}', 10) for topic, kind in kinds.items()}
    assert all(wait_until(publisher.get_subscription_count, 60) for publisher in made.values())
    return made


@pytest.mark.requires_ros
def test_a_track_that_comes_back_goes_on_and_a_new_epoch_begins_anew(talker):
    from vggt_ros.msg import TrackArray

    from harness import wait_until

    with Started(command('tracks_subscriber')) as example:
        publisher = publishers(talker, {'tracks': TrackArray})['tracks']
        for second, (epoch, ids) in enumerate([(0, [7]), (0, [8]), (0, [7]), (1, [7]), (1, [])]):
            message = TrackArray(epoch=epoch, id=ids, u=[10.0 * second] * len(ids), v=[5.0] * len(ids))
            message.header.stamp.sec = second
            publisher.publish(message)
        assert wait_until(lambda: len(example.lines) == 5), example.lines
        example.interrupt()
        assert example.wait(30) == 0, example.lines
    assert example.lines == [
        '0: 1 tracks; 7 in 1 images, from (0.0, 5.0) to (0.0, 5.0)',
        '1000000000: 1 tracks; 8 in 1 images, from (10.0, 5.0) to (10.0, 5.0)',
        '2000000000: 1 tracks; 7 in 2 images, from (0.0, 5.0) to (20.0, 5.0)',
        '3000000000: 1 tracks; 7 in 1 images, from (30.0, 5.0) to (30.0, 5.0)',
        '4000000000: 0 tracks',
    ]


@pytest.mark.requires_ros
def test_depth_that_comes_late_is_told_with_the_pose_of_its_own_image(talker):
    from nav_msgs.msg import Odometry
    from sensor_msgs.msg import CameraInfo, Image

    from harness import image_message, wait_until
    from vggt_ros.ros.messages import fill_image

    with Started(command('depth_subscriber')) as example:
        topics = {'odometry': Odometry, 'depth/camera_info': CameraInfo, 'depth/image_rect': Image}
        by_topic = publishers(talker, topics)
        headers = [image_message(index).header for index in range(4)]
        for index, header in enumerate(headers):
            odometry = Odometry(header=header, child_frame_id='eye')
            odometry.pose.pose.position.x = float(index)
            by_topic['odometry'].publish(odometry)
        for index in (1, 3):
            depth = Image(header=headers[index])
            fill_image(depth, np.full((120, 160), np.nan if index == 3 else 2.5, np.float32), '32FC1')
            by_topic['depth/image_rect'].publish(depth)
            info = CameraInfo(header=headers[index], k=[110.0, 0.0, 79.5, 0.0, 110.0, 59.5, 0.0, 0.0, 1.0])
            by_topic['depth/camera_info'].publish(info)
        assert wait_until(lambda: len(example.lines) == 2), example.lines
        example.interrupt()
        assert example.wait(30) == 0, example.lines
    told = [line.split(': ')[1] for line in example.lines]
    assert told[0] == 'ahead 2.500 units; eye at (1.000, 0.000, 0.000) units in eye'
    assert told[1] == 'ahead unknown; eye at (3.000, 0.000, 0.000) units in eye'


@pytest.mark.requires_ros
@pytest.mark.parametrize(('sources', 'unit'), [([''], 'relative units'), (['height'], 'm')])
def test_how_far_it_is_ahead(sources, unit):
    from nav_msgs.msg import Odometry

    from exact import ExactPredictor, K, depth_of, walk
    from harness import Rig, poses, stamp_of, wait_until

    scale = {'scale_sources': sources, 'camera_height': 1.4, 'gravity': 'level'}
    with Rig(ExactPredictor(poses(24)), **scale, **NO_INFO) as rig, Started(command('depth_subscriber')) as example:
        direct = rig.listen(Odometry, '/vggt/odometry')
        publication = rig.node._publication
        outputs = publication._outputs
        for publisher in (outputs.depth, outputs.camera_info, rig.node._reporter._status._publisher):
            assert wait_until(publisher.get_subscription_count, 60), example.lines
        assert wait_until(lambda: outputs.odometry.get_subscription_count() >= 2), example.lines
        rig.play(range(2), infos=False)  # the first one waits for the second
        for index in range(2, 24):
            assert have_heard(direct, example.lines, index), example.lines
            rig.play([index], infos=False)
        assert have_heard(direct, example.lines, 24), example.lines
        example.interrupt()
        assert example.wait(30) == 0, example.lines
    line = r'(\d+)\.(\d{9}): ahead ([\d.]+) (.+); eye at \((.+), (.+), (.+)\) (.+) in map'
    found = [re.fullmatch(line, one) for one in example.lines]
    assert all(found), example.lines
    assert [int(one[1]) * 10**9 + int(one[2]) for one in found] == [stamp_of(index) for index in range(24)]
    assert {one[4] for one in found[12:]} == {one[8] for one in found[12:]} == {unit}, example.lines
    place = [[getattr(message.pose.pose.position, axis) for axis in 'xyz'] for message in direct]
    np.testing.assert_allclose([[float(one[column]) for column in (5, 6, 7)] for one in found], place, atol=6e-4)
    true = np.array([depth_of(T, K, (160, 120))[60, 80] for T in walk(24)])
    metres = true[12:] / np.array([float(one[3]) for one in found[12:]])  # per unit
    np.testing.assert_allclose(metres, metres[0], rtol=0.02)
    assert (abs(metres[0] - 1) < 0.08) == (unit == 'm')
