"""Real folders, as the demo plays them: here those are rendered ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vggt_ros.evaluation import colmap, rows_folders
from vggt_ros.evaluation.report import EvaluationSettings
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.tools import demo

COUNT = 16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('given') / 'flight'
    demo.render(path, 3, COUNT)
    return path


def test_a_folder_as_frames_with_their_truth(folder):
    walk = rows_folders.walk(folder)
    assert len(walk.frames) == COUNT
    assert [frame.stamp for frame in walk.frames] == [item.stamp for item in open_sequence(folder)]
    assert all(frame.K is not None for frame in walk.frames)
    assert len(walk.truth) == COUNT


def test_what_has_no_camera_or_no_poses_is_refused(folder, tmp_path):
    for missing in ('poses.txt', 'intrinsics.yaml'):
        other = tmp_path / missing
        other.mkdir()
        for file in folder.iterdir():
            if file.name != missing:
                (other / file.name).symlink_to(file)
        with pytest.raises(SequenceError, match=r'no true poses|not calibrated'):
            rows_folders.walk(other)


def test_our_share_and_error(folder):
    found = rows_folders.run(rows_folders.walk(folder))
    assert 0.8 < found.share <= 1
    assert found.epochs == 1
    assert found.ate < 0.2
    assert found.at_once < 0.2


def test_a_walk_that_nobody_can_place(folder):
    walk = rows_folders.walk(folder)
    grey = [replace(frame, image=np.full_like(frame.image, 128)) for frame in walk.frames]
    assert rows_folders.run(rows_folders.Walk(grey[:1], walk.truth)) == rows_folders.Outcome(0.0, 0, np.inf, np.inf)


def test_rows_tell_of_colmap_or_why_not(folder, monkeypatch):
    def places(pictures, K):
        assert len(list(Path(pictures).iterdir())) == COUNT
        return 2, {f'{i:06d}.png': pose[:3, 3] for i, pose in enumerate(rows_folders.walk(folder).truth.T_world_camera)}

    monkeypatch.setattr(colmap, 'positions', places)
    rows = rows_folders.folders(EvaluationSettings(folders=(folder,))).rows
    assert len(rows) == 3
    assert rows[-1].figure == '100%; 0.000'

    def fails(pictures, K):
        raise RuntimeError('COLMAP failed: no word')

    monkeypatch.setattr(colmap, 'positions', fails)
    assert rows_folders.folders(EvaluationSettings(folders=(folder,))).rows[-1].figure == 'COLMAP failed: no word'


def test_an_error_of_colmap_is_told_in_a_line(tmp_path):
    with pytest.raises(RuntimeError, match='COLMAP failed: '):
        colmap.positions(tmp_path / 'nothing', np.eye(3))


def test_colmap_itself(folder):
    pytest.importorskip('pycolmap')
    models, share, ate = rows_folders.by_colmap(rows_folders.walk(folder))
    assert models >= 1
    assert share > 0.5
    assert ate < 0.05
