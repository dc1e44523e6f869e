"""The demo, end to end: real processes over DDS, from the player to the summary picture."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from bags import HEIGHT, WIDTH, BagWriter
from exact import ROOM, K, depth_of, view, walk
from vggt_ros.files import recording
from vggt_ros.files.cloud import read_ply
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.trajectory import format_stamp, read_tum
from vggt_ros.synthetic.sequence import RenderedFrame
from vggt_ros.synthetic.writers import write_folder
from vggt_ros.tools import demo, summary
from vggt_ros.tools.processes import Child
from vggt_ros.tools.recorded import Recorded, RunAccuracy, measure

pytestmark = pytest.mark.requires_ros

START = 1_700_000_000_123_456_789  # a stamp that no float keeps
PERIOD = 100_000_001
SIZE = (160, 120)
# The recorded topics that have one message for each image.
PER_IMAGE = (
    'odometry',
    'pose',
    'depth/image_rect',
    'depth/camera_info',
    'depth/confidence',
    'points',
    'tracks',
)
TEST = Path(__file__).parents[1]


def make_walk(path, count):
    """A folder with pictures of the room of exact.py and their truth."""
    frames = (
        RenderedFrame(i, START + i * PERIOD, view(T), depth_of(T, K, SIZE).astype(np.float32), None, T)
        for i, T in enumerate(walk(count))
    )
    write_folder(path, frames, K, SIZE)
    return path


def settings_with_truth(folder, output, **options):
    """A demo whose network knows the truth; everything else is real."""
    command = (sys.executable, str(TEST / 'exact_node.py'), str(folder))
    # The pictures have nothing to do with each other: no corners to refine poses by.
    node = {'refine': False} | options.pop('node', {})
    return demo.RunSettings(input=folder, output=output, node_command=command, node=node, **options)


def processes_about(path):
    """The processes that have this path on their command line."""
    found = []
    for file in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = file.read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if str(path) in words and int(file.parent.name) != os.getpid():
            found.append(words)
    return found


@pytest.fixture(scope='module')
def known(tmp_path_factory):
    """The folder that a demo leaves whose network knows the truth, and its input."""
    base = tmp_path_factory.mktemp('known')
    walked = make_walk(base / 'walk', 12)
    assert demo.run(settings_with_truth(walked, base / 'output')) == 0
    return walked, base / 'output'


def test_every_image_comes_back_with_its_exact_stamp(known):
    walked, output = known
    truth = read_tum(walked / 'poses.txt')
    trajectory = read_tum(output / 'trajectory.txt')
    assert trajectory.stamps.tolist() == truth.stamps.tolist() == [START + i * PERIOD for i in range(12)]
    with AnyReader([output / 'outputs'], default_typestore=get_typestore(Stores.LATEST)) as reader:
        stamps = {}
        for connection, received, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            header = message.transforms[0].header if connection.topic == '/tf' else message.header
            stamps.setdefault(connection.topic, []).append(header.stamp.sec * 10**9 + header.stamp.nanosec)
            assert abs(received - time.time_ns()) < 600e9
    for topic in (*(f'/vggt/{name}' for name in PER_IMAGE), '/tf'):
        assert sorted(stamps[topic]) == truth.stamps.tolist(), topic
    assert {'/vggt/status', '/diagnostics'} < set(stamps)


def test_trajectory_depth_and_cloud_are_those_of_the_truth(known):
    walked, output = known
    accuracy = measure(Recorded(output), open_sequence(walked))
    assert accuracy.trajectory.poses == 12
    assert accuracy.trajectory.rmse < 1e-3
    assert accuracy.depth < 0.02
    xyz, rgb = read_ply(output / 'cloud.ply')
    world = accuracy.trajectory.similarity.transform(xyz)
    off_the_walls = np.minimum(np.abs(world - ROOM[0]), np.abs(world - ROOM[1])).min(1)
    assert len(world) > 2000
    assert np.percentile(off_the_walls, 95) < 0.1
    assert len(np.unique(rgb, axis=0)) > 100


def test_pictures_and_status_are_there(known):
    _, output = known
    names = [f'{i:06d}.png' for i in range(12)]
    for folder in ('depth', 'confidence'):
        assert sorted(file.name for file in (output / folder).iterdir()) == names
        assert cv2.imread(str(output / folder / names[5])).shape[0] == 240
    lines = (output / 'frames.txt').read_text().splitlines()
    assert lines == [f'{i:06d} {str(START + i * PERIOD)[:10]}.{str(START + i * PERIOD)[10:]}' for i in range(12)]
    status = json.loads((output / 'status.json').read_text())
    assert status['frames'] == status['images_received'] == status['images_processed'] == 12
    assert status['frames_incomplete'] == status['images_dropped'] == status['images_refused'] == 0
    assert (status['state'], status['scale']) == ('TRACKING', 'RELATIVE')
    assert set(status['states_seen']) >= {'INITIALIZING', 'TRACKING'}
    assert status['node']['network'] == 'exact truth'
    assert status['node']['windows'] == '11'
    drawn = cv2.imread(str(output / 'summary.png'))
    assert min(drawn.shape[:2]) > 1000
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10_000


def test_the_picture_shows_depth_beside_the_true_depth_in_metres(known, monkeypatch, tmp_path):
    walked, output = known
    shown = {}
    monkeypatch.setattr(summary, '_draw_frames', lambda sheet, stamps, rows, units: shown.update(rows, units=units))
    recorded, sequence = Recorded(output), open_sequence(walked)
    summary.draw(recorded, sequence, measure(recorded, sequence), 'walk', tmp_path / 'summary.png')
    assert shown['units']['depth'].startswith('m,')
    assert shown['depth'].keys() == shown['true depth'].keys() == shown['input'].keys()
    assert len(shown['depth']) == summary.COLUMNS
    for stamp, truth in shown['true depth'].items():
        assert np.nanmedian(np.abs(shown['depth'][stamp] / truth - 1)) < 0.02


def test_nothing_is_left_running(known):
    assert processes_about(known[1]) == []


def test_the_embedded_network_says_its_name_and_how_wrong_it_was(tmp_path, capfd):
    walked = make_walk(tmp_path / 'walk', 4)
    command = ['--input', str(walked), '--output', str(tmp_path / 'out'), '--image-size', '56', '--param', 'threads:=1']
    assert demo.main(command) == 0
    printed = capfd.readouterr().out
    recorded = Recorded(tmp_path / 'out')
    assert recorded.network == 'vggt-tiny (embedded)'
    assert recorded.network in printed
    sheet = summary.Sheet([])
    summary._title(sheet, recorded, measure(recorded, open_sequence(walked)), 'walk', ())
    title = ' '.join(text.get_text() for text in sheet.figure.texts)
    for text in (printed, title):
        assert 'ATE' in text
        assert 'AbsRel' in text


def test_a_damaged_picture_costs_itself_and_is_told_everywhere(tmp_path, capfd):
    walked, output = make_walk(tmp_path / 'walk', 8), tmp_path / 'out'
    picture = sorted((walked / 'images').iterdir())[3]
    picture.write_bytes(b'')
    assert demo.main([], lambda _: demo.run(settings_with_truth(walked, output))) == 3
    stamps = [START + i * PERIOD for i in range(8) if i != 3]
    assert read_tum(output / 'trajectory.txt').stamps.tolist() == stamps
    reason = f'not used: {picture}: the file is empty'
    assert reason in capfd.readouterr().out
    assert json.loads((output / 'status.json').read_text())['input'] == [reason]
    listed = (output / 'frames.txt').read_text().splitlines()
    assert [line.split()[1] for line in listed] == [format_stamp(stamp) for stamp in stamps]
    assert listed[0].endswith(f'  # {reason}')


def test_one_picture_alone_is_refused_at_once(tmp_path, capfd):
    walked = make_walk(tmp_path / 'walk', 1)
    assert demo.main(['--input', str(walked), '--output', str(tmp_path / 'out')]) == 2
    assert 'one picture alone' in capfd.readouterr().err


def test_interrupting_stops_everything_and_leaves_what_was_recorded(tmp_path):
    walked, output = make_walk(tmp_path / 'walk', 300), tmp_path / 'out'
    code = (
        'import sys; from pathlib import Path\n'
        f'sys.path[:0] = [{str(TEST)!r}, {str(Path(__file__).parent)!r}]; import test_demo\n'
        f'settings = test_demo.settings_with_truth(Path({str(walked)!r}), Path({str(output)!r}))\n'
        'sys.exit(test_demo.demo.main([], lambda _: test_demo.demo.run(settings)))'
    )
    with subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.PIPE, text=True, cwd=TEST.parent) as running:
        try:
            deadline = time.monotonic() + 60
            while not (output / 'depth' / '000003.png').exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == 130
        finally:
            running.kill()
        assert 'interrupted' in running.stderr.read()
    assert processes_about(output) == []
    poses = len(read_tum(output / 'trajectory.txt'))
    assert 4 <= poses < 300
    with AnyReader([output / 'outputs'], default_typestore=get_typestore(Stores.LATEST)) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    assert counts['/vggt/odometry'] == poses
    assert len(read_ply(output / 'cloud.ply')[0]) > 100


def test_a_disk_that_fails_is_named_and_the_rest_stays_readable(tmp_path, capfd):
    walked, output = make_walk(tmp_path / 'walk', 60), tmp_path / 'out'

    def fail_the_disk():
        while not (output / 'depth' / '000002.png').exists():
            time.sleep(0.02)
        shutil.rmtree(output / 'depth')

    threading.Thread(target=fail_the_disk, daemon=True).start()
    settings = settings_with_truth(walked, output)
    assert demo.main([], lambda _: demo.run(settings)) == 4
    assert re.search(r'cannot write \S*out/depth/\d+\.png: No such file or directory', capfd.readouterr().err)
    assert processes_about(output) == []
    assert len(read_tum(output / 'trajectory.txt')) >= 3
    with AnyReader([output / 'outputs'], default_typestore=get_typestore(Stores.LATEST)) as reader:
        assert '/vggt/odometry' in {connection.topic for connection in reader.connections}


@pytest.mark.parametrize(
    ('arguments', 'code', 'complaint'),
    [
        (['--input', '/no/where'], 2, '/no/where does not exist'),
        (['--input', '/etc/hostname'], 2, 'not a video'),
        (['--input', 'WALK', '--topic', '/image'], 2, 'makes sense for a bag only'),
        (['--input', 'WALK', '--weights', 'nothing.pt'], 2, 'nothing.pt is neither a file nor a hub id'),
        (['--input', 'WALK', '--param', 'windwo:=3'], 2, 'windwo is no parameter of the VGGT node'),
        (['--input', 'WALK', '--output', 'WALK/intrinsics.yaml/x'], 4, 'intrinsics.yaml/x: Not a directory'),
    ],
)
def test_what_cannot_work_ends_at_once_with_the_reason(tmp_path, capfd, arguments, code, complaint):
    walked = make_walk(tmp_path / 'walk', 2)
    arguments = ['--output', str(tmp_path / 'out'), *(word.replace('WALK', str(walked)) for word in arguments)]
    assert demo.main(arguments) == code
    assert complaint in capfd.readouterr().err
    assert not (tmp_path / 'out' / 'trajectory.txt').exists()


def test_images_that_cannot_be_decoded_are_refused_before_anything_is_started(tmp_path, capfd):
    with BagWriter(tmp_path / 'walk', 'mcap') as bag:
        for i in range(3):
            data = np.zeros(12 * WIDTH * HEIGHT, np.uint8)
            fields = {'height': HEIGHT, 'width': WIDTH, 'encoding': '32FC3', 'is_bigendian': 0, 'step': 12 * WIDTH}
            bag.write('/cam/image_raw', 'Image', START + i, data=data, **fields)
    assert demo.main(['--input', str(tmp_path / 'walk'), '--output', str(tmp_path / 'out')]) == 2
    said = capfd.readouterr()
    assert "image 0: encoding '32FC3' is not supported" in said.err
    assert 'starting' not in said.out


def test_a_node_that_cannot_load_its_weights_ends_the_demo_with_its_reason(tmp_path, capfd):
    walked = make_walk(tmp_path / 'walk', 2)
    (tmp_path / 'broken.safetensors').write_bytes(b'nonsense')
    weights = str(tmp_path / 'broken.safetensors')
    assert demo.main(['--input', str(walked), '--output', str(tmp_path / 'out'), '--weights', weights]) == 1
    assert re.search(r'demo: the VGGT node could not start: .*broken\.safetensors', capfd.readouterr().err)
    assert processes_about(tmp_path) == []


def test_the_last_words_of_a_process_that_dies_are_shown(tmp_path):
    walked = make_walk(tmp_path / 'walk', 2)
    command = (sys.executable, '-c', 'import sys; print("the GPU is on fire"); sys.exit(7)')
    with pytest.raises(demo.DemoError, match=r'(?s)vggt ended with code 7.*the GPU is on fire'):
        demo.run(demo.RunSettings(input=walked, output=tmp_path / 'out', node_command=command))
    assert processes_about(tmp_path) == []


def test_a_child_that_ignores_every_request_is_killed(tmp_path):
    code = 'import signal, time; [signal.signal(x, print) for x in (2, 15)]; print("up", flush=True); time.sleep(99)'
    up = threading.Event()
    child = Child('deaf', [sys.executable, '-c', code], tmp_path / 'log', os.environ, lambda line: up.set())
    assert up.wait(20)
    assert child.stop(patience=0.2, more=0.2) == -signal.SIGKILL
    assert (tmp_path / 'log').read_text().splitlines()[0] == 'up'


def test_the_picture_says_what_is_missing(known, tmp_path):
    """Neither input nor cloud nor tracks at hand: still a picture, which says so."""
    _, output = known
    poor = tmp_path / 'poor'
    poor.mkdir()
    for name in ('status.json', 'trajectory.txt'):
        shutil.copy(output / name, poor)
    recording.BagWriter(poor / 'outputs', {}).close()
    summary.draw(Recorded(poor), None, RunAccuracy(), 'poor', poor / 'summary.png')
    assert cv2.imread(str(poor / 'summary.png')) is not None


def check_real(output, count, stamps):
    trajectory = read_tum(output / 'trajectory.txt')
    assert trajectory.stamps.tolist() == stamps
    assert np.isfinite(trajectory.T_world_camera).all()
    assert len(list((output / 'depth').iterdir())) == count
    assert (output / 'summary.png').stat().st_size > 100_000
    status = json.loads((output / 'status.json').read_text())
    assert status['images_received'] == status['images_processed'] == count
    return status


def test_real_frames_of_a_walk(test_data, tmp_path):
    output = tmp_path / 'out'
    arguments = ['--input', str(test_data / 'hololens' / 'images'), '--limit', '12', '--output', str(output)]
    assert demo.main([*arguments, '--image-size', '112', '--window', '4', '--param', 'threads:=1']) == 0
    truth = read_tum(test_data / 'hololens' / 'poses.txt')
    status = check_real(output, 12, truth.stamps[:12].tolist())
    assert status['node']['window'] == '4'
    depth = Recorded(output).images('/depth/image_rect', truth.stamps[:1].tolist())
    assert [image.shape for image in depth.values()] == [(360, 540)]


def test_bayer_images_of_a_ros_1_bag_with_unsynchronised_calibration(test_data, tmp_path):
    bag, output = test_data / 'bags' / 'jsk_pr2_elevator_button_light.bag', tmp_path / 'out'
    arguments = ['--input', str(bag), '--output', str(output), '--image-size', '112', '--window', '4']
    assert demo.main([*arguments, '--param', 'threads:=1']) == 0
    check_real(output, 19, [item.stamp for item in open_sequence(bag)])
    with AnyReader([output / 'outputs'], default_typestore=get_typestore(Stores.LATEST)) as reader:
        connections = [x for x in reader.connections if x.topic == '/vggt/depth/camera_info']
        infos = [reader.deserialize(raw, x.msgtype) for x, _, raw in reader.messages(connections)]
    assert {info.header.frame_id for info in infos} == {'wide_stereo_optical_frame'}
    # The rectified camera of the bag's calibration: P, not the distorted K.
    assert all(np.allclose(info.k[[0, 2, 4, 5]], [395.7145, 335.86279, 395.7145, 245.62557]) for info in infos)
