"""Rendered sequences on disk, and the command that writes them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from vggt_ros.files.opening import open_sequence
from vggt_ros.synthetic import sheet
from vggt_ros.synthetic.__main__ import main
from vggt_ros.synthetic.sequence import make_sequence
from vggt_ros.synthetic.writers import TRUTH_CHILD, TRUTH_PARENT
from vggt_ros.tools import benchmark

ARGUMENTS = ['--kind', 'room', '--seed', '3', '--frames', '3', '--size', '64x48', '--output']


@pytest.fixture(scope='module')
def wanted():
    return make_sequence('room', 3, frames=3, size=(64, 48))


def test_folder_is_read_back_as_it_was_rendered(tmp_path, wanted):
    folder = tmp_path / 'run'
    assert main([*ARGUMENTS, str(folder), '--exact-depth']) == 0
    sequence = open_sequence(folder)
    items = list(sequence)
    assert [item.stamp for item in items] == wanted.trajectory.stamps.tolist()
    np.testing.assert_allclose(items[0].calibration.K, wanted.K)
    np.testing.assert_allclose(sequence.trajectory.T_world_camera, wanted.trajectory.T_world_camera, atol=1e-8)
    for i, item in enumerate(items):
        np.testing.assert_array_equal(item.image.to_rgb(), wanted.images[i])
        np.testing.assert_allclose(sequence.read_depth(i), wanted.depth[i], atol=5.1e-4)
        np.testing.assert_array_equal(np.load(folder / 'depth' / f'{i:06d}.npy'), wanted.depth[i])


def test_bag_is_read_back_as_it_was_rendered(tmp_path, wanted):
    bag = tmp_path / 'bag'
    assert main([*ARGUMENTS, str(bag), '--format', 'mcap']) == 0
    items = list(open_sequence(bag, topic='/camera/image_raw'))
    assert [item.stamp for item in items] == wanted.trajectory.stamps.tolist()
    np.testing.assert_allclose(items[0].calibration.K, wanted.K)
    np.testing.assert_array_equal(items[2].image.to_rgb(), wanted.images[2])
    with AnyReader([bag]) as reader:
        messages = [(c, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages()]
    transforms = [message.transforms[0] for connection, message in messages if connection.topic == '/tf']
    assert [(one.header.frame_id, one.child_frame_id) for one in transforms] == [(TRUTH_PARENT, TRUTH_CHILD)] * 3
    shift = transforms[1].transform.translation
    np.testing.assert_allclose((shift.x, shift.y, shift.z), wanted.trajectory.T_world_camera[1, :3, 3])
    depth = [message for connection, message in messages if connection.topic.startswith('/truth')]
    assert depth[0].encoding == '32FC1'
    np.testing.assert_array_equal(depth[0].data.view(np.float32).reshape(48, 64), wanted.depth[0])


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / 'mine.txt').write_text('precious')
    for form in ('folder', 'mcap'):
        assert main([*ARGUMENTS, str(tmp_path), '--format', form]) == 1
        assert 'exists already' in capsys.readouterr().err
    assert [x.name for x in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.parametrize('wrong', [['--size', '64'], ['--size', '0x4'], ['--kind', 'castle'], []])
def test_wrong_arguments_are_explained(wrong, tmp_path):
    arguments = [*wrong, '--output', str(tmp_path / 'x')] if wrong else []
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


def test_bad_values_are_explained(tmp_path, capsys):
    assert main([*ARGUMENTS, str(tmp_path / 'x'), '--fov', '190']) == 1
    assert 'field of view' in capsys.readouterr().err
    assert main([*ARGUMENTS, str(tmp_path / 'x'), '--rate', '0']) == 1
    assert 'positive rate' in capsys.readouterr().err


def test_contact_sheet(tmp_path, monkeypatch):
    assert len(sheet.WORLDS) == 24
    monkeypatch.setattr(sheet, 'WORLDS', sheet.WORLDS[5:8])
    monkeypatch.setattr(sheet, 'TILE', (40, 30))
    assert main(['--contact-sheet', str(tmp_path / 'sheet.jpg')]) == 0
    assert cv2.imread(str(tmp_path / 'sheet.jpg')).shape == (34, 3 * 44, 3)


def test_the_benchmark_prices_every_option_and_effect(capsys):
    assert benchmark.main(['--renderer', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('room of 60 primitives at 224x168')
    plain, *others = (line.split()[-3:] for line in lines[3:])
    assert float(plain[2]) == 1
    assert len(others) == 12
    for milliseconds, frames, ratio in (plain, *others):
        rounding = 0.05 * (float(milliseconds) + float(frames)) + 0.01
        assert float(milliseconds) * float(frames) == pytest.approx(1000, abs=rounding)
        assert float(ratio) * float(plain[0]) == pytest.approx(float(milliseconds), rel=0.05)
