"""The four examples as a newcomer runs them: each in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vggt_ros.files.cloud import read_ply
from vggt_ros.files.trajectory import read_tum
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.trajectory import make_trajectory
from vggt_ros.synthetic.writers import write_folder

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / 'examples').glob('*.py'))
SIZE, FRAMES = (224, 168), 10


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Pictures of a room with their intrinsics, stamps and true poses."""
    path = tmp_path_factory.mktemp('walk') / 'walk'
    world, K = make_world('room', 1), default_intrinsics(SIZE)
    way = make_trajectory(world, 'handheld', 1, FRAMES)
    write_folder(path, render_frames(world, way, K, SIZE), K, SIZE)
    return path


def run(name: str, *words: object) -> str:
    command = [sys.executable, str(ROOT / 'examples' / f'{name}.py'), *map(str, words)]
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300).stdout


def test_there_are_four_short_ones():
    assert [path.stem for path in EXAMPLES] == ['depth_subscriber', 'folder', 'network', 'tracks_subscriber']
    assert all(len(path.read_text().splitlines()) < 60 for path in EXAMPLES)


def test_the_network_as_a_library(folder):
    pictures = sorted((folder / 'images').glob('*.png'))[:3]
    lines = run('network', *pictures).splitlines()
    shapes = dict(line.split(': ', 1) for line in lines if re.match(r'\w+: \(', line))
    assert shapes['pose_enc'] == '(1, 3, 9)'
    assert shapes['depth'] == '(1, 3, 84, 112, 1)'
    places = [re.search(r'at \((.+), (.+), (.+)\) in the first camera, focal length (\d+) px', line) for line in lines]
    places = np.array([[float(x) for x in found.groups()] for found in places if found])
    assert places.shape == (3, 4)
    np.testing.assert_array_equal(places[0, :3], 0)
    assert np.linalg.norm(places[1:, :3], axis=1).min() > 0
    assert (places[:, 3] > 50).all()


def test_a_folder_to_poses_depth_and_cloud(folder, tmp_path):
    pytest.importorskip('open3d')
    assert f'{FRAMES} poses' in run('folder', folder, tmp_path / 'out')
    found, truth = read_tum(tmp_path / 'out' / 'trajectory.txt'), read_tum(folder / 'poses.txt')
    assert found.stamps.tolist() == truth.stamps.tolist()
    for stamp in truth.stamps:
        depth = np.load(tmp_path / 'out' / 'depth' / f'{stamp}.npy')
        assert depth.shape == (84, 112)
        assert np.isfinite(depth).mean() > 0.5
    xyz, rgb = read_ply(tmp_path / 'out' / 'cloud.ply')
    assert len(xyz) == len(rgb) > 1000
    # The way is the true one, up to the unit: it goes where the camera went.
    ours, true = (one.T_world_camera[:, :3, 3] - one.T_world_camera[0, :3, 3] for one in (found, truth))
    assert np.linalg.norm(ours[-1]) > 0
    assert np.corrcoef(np.linalg.norm(ours, axis=1), np.linalg.norm(true, axis=1))[0, 1] > 0.9


@pytest.mark.requires_ros
@pytest.mark.parametrize(
    ('name', 'topic', 'line'),
    [
        ('tracks_subscriber', '/vggt/tracks', r'(\d+)\.(\d{9}): \d+ tracks(, \d+ since \d+ images, .*)?'),
        ('depth_subscriber', '/vggt/depth/image_rect', r'(\d+)\.(\d{9}): \d+\.\d+ units ahead, at \(.*\) in map'),
    ],
)
def test_subscribers_print_a_line_for_every_image(name, topic, line):
    pytest.importorskip('rclpy')
    from exact import ExactPredictor
    from harness import Rig, poses, stamp_of, wait_until

    command = [sys.executable, str(ROOT / 'examples' / f'{name}.py')]
    with (
        Rig(ExactPredictor(poses(12))) as rig,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert wait_until(lambda: rig.node.count_subscribers(topic) == 1, 60)
            assert wait_until(lambda: rig.node.count_subscribers('/vggt/odometry') == (name == 'depth_subscriber'), 20)
            rig.play(range(12))
            assert rig.settled()
            lines = [process.stdout.readline().strip() for _ in range(8)]
        finally:
            process.terminate()
        assert process.wait(20) in (0, -15)
    found = [re.fullmatch(line, one) for one in lines]
    assert all(found), lines
    stamps = [int(one[1]) * 10**9 + int(one[2]) for one in found]
    assert set(stamps) <= {stamp_of(i) for i in range(12)}
    assert stamps == sorted(stamps)
