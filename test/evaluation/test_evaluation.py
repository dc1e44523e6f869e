"""The evaluation measures what it says: known errors come out as they were put in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.evaluation import hazards, live, runs
from vggt_ros.evaluation.report import EvaluationSettings, Row, at_most, put, table
from vggt_ros.evaluation.scenarios import PERIOD, SIZE, K, Scenario, room_loop
from vggt_ros.tools import evaluate
from vggt_ros.types import Frame, PosedFrame, Scale, State

MAP = np.diag([0.5, 0.5, 0.5, 1.0])  # m -> map units


@pytest.fixture(scope='module')
def path() -> Scenario:
    return room_loop(60)


def in_map(T: np.ndarray) -> np.ndarray:
    """A pose with its position in map units, seen from another origin."""
    moved = T.copy()
    moved[:3, 3] *= 0.5
    origin = np.eye(4)
    origin[:3, :3] = Rotation.from_rotvec([0.3, -0.2, 1.0]).as_matrix()
    origin[:3, 3] = [1.0, -2.0, 3.0]
    return origin @ moved


def located(frame: Frame, T: np.ndarray, state: State = State.TRACKING, epoch: int = 0) -> PosedFrame:
    return PosedFrame(frame, in_map(T), in_map(T), np.eye(6), None, np.eye(6), state, Scale.RELATIVE, epoch)


@dataclass
class Seen:
    """What of a Sight is asked for."""

    frame: Frame
    located: PosedFrame | None


def of(scenario: Scenario, change=lambda index, one: one) -> live.Live:
    """The truth, published at once; change: (index, PosedFrame) -> what is published instead."""
    pairs = zip(scenario.frames, scenario.T_world_camera, strict=True)
    sights = [Seen(frame, change(frame.index, located(frame, T))) for frame, T in pairs]
    return live.Live(scenario, sights, [])


def shifted(one: PosedFrame, metres: float, state: State | None = None) -> PosedFrame:
    T = one.T_map_camera.copy()
    T[0, 3] += 0.5 * metres
    return replace(one, T_map_camera=T, state=one.state if state is None else state)


def test_the_truth_has_no_error_in_any_unit_and_frame(path):
    error = live.error(of(path))
    np.testing.assert_allclose([error.ate, error.jump, error.wrong], 0, atol=1e-9)
    assert error.turn < 1e-5


def test_ate_is_that_of_evo(path):
    pytest.importorskip('evo')
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, len(path.frames))
    run = of(path, lambda index, one: shifted(one, noise[index]))
    T = np.stack([one.T_map_camera for one in run.published])
    assert live.error(run).ate == pytest.approx(runs.ate(T, path.T_world_camera)[0], rel=1e-6)
    assert live.error(run).ate > 0.02


@pytest.mark.parametrize(('state', 'silent'), [(State.TRACKING, True), (State.DEGRADED, False), (State.LOST, False)])
def test_a_jump_counts_unless_a_state_announced_it(path, state, silent):
    """From frame 30 on everything is 0.4 m off; frame 30 says so, or not."""
    run = of(path, lambda i, one: one if i < 30 else shifted(one, 0.4, state if i == 30 else None))
    error = live.error(run)
    assert error.jump == pytest.approx(0.4 if silent else 0.0, abs=1e-6)
    # A relocalised pose is announced, and may still be in the wrong place.
    run = of(path, lambda i, one: one if i < 30 else shifted(one, 0.4, State.RELOCALIZED if i == 30 else None))
    error = live.error(run)
    np.testing.assert_allclose([error.jump, error.wrong], [0.0, 0.4], atol=1e-6)


def test_a_jump_in_odom_alone_counts(path):
    def change(index: int, one: PosedFrame) -> PosedFrame:
        return one if index < 30 else replace(one, T_odom_camera=shifted(one, 0.3).T_map_camera)

    error = live.error(of(path, change))
    np.testing.assert_allclose([error.ate, error.jump, error.wrong], [0.0, 0.3, 0.0], atol=1e-6)


def test_epochs_have_units_of_their_own_and_doubted_poses_do_not_count(path):
    def change(index: int, one: PosedFrame) -> PosedFrame | None:
        if index in (28, 29):
            return None
        if index < 28:
            return shifted(one, 3.0, State.DEGRADED) if index % 7 == 3 else one
        T = one.T_map_camera.copy()
        T[:3, 3] *= 7.0
        return replace(one, T_map_camera=T, T_odom_camera=T, epoch=1)

    error = live.error(of(path, change))
    np.testing.assert_allclose([error.ate, error.jump], 0, atol=1e-9)


def test_a_path_on_the_spot_or_straight_has_an_error_too(path):
    run = of(path, lambda index, one: replace(one, T_map_camera=np.eye(4)))
    spread = path.T_world_camera[:, :3, 3].std(0)
    assert live.error(run).ate == pytest.approx(np.linalg.norm(spread))
    straight = np.tile(np.eye(4), (60, 1, 1))
    straight[:, 0, 3] = np.linspace(0, 3, 60)
    assert live.error(of(replace(path, T_world_camera=straight))).ate < 1e-9


def test_no_pose_is_an_infinite_error(path):
    assert live.error(of(path, lambda index, one: None)).ate == np.inf
    assert of(path, lambda index, one: None).at_once == 0
    assert of(path, lambda index, one: one if index % 2 else None).at_once == pytest.approx(30 / 59)


@dataclass
class Recorder:
    """A pipeline that only writes down what it is given."""

    still: set[int] = field(default_factory=set)
    calls: list[tuple[int, list[int]]] = field(default_factory=list)
    looked: int = -1

    def look(self, frame: Frame, track: bool) -> Seen:
        self.looked = frame.index
        return Seen(frame, None)

    def due(self, sight: Seen) -> bool:
        return sight.frame.index not in self.still

    def process(self, frames: list[Frame], track: bool) -> None:
        self.calls.append((self.looked, [frame.index for frame in frames]))


def test_windows_come_as_in_the_node(path):
    for delay in (0, 2):
        pipeline = Recorder()
        found = list(live.drive(pipeline, path.frames[:15], stride=6, delay=delay))
        assert len(found) == 15
        assert pipeline.calls == [(5 + delay, list(range(6))), (11 + delay, list(range(6, 12)))]
    # Frames that are not due are left out; a window does not wait for more than a second.
    pipeline = Recorder(still=set(range(8, 25)))
    list(live.drive(pipeline, path.frames[:30], stride=6))
    assert pipeline.calls == [(5, list(range(6))), (17, [6, 7])]


def test_hazards_change_what_they_say_and_nothing_else(path):
    kept = hazards.missing(path, 0.3, 1)
    assert [frame.index for frame in kept.frames][:2] == [0, 1]
    assert 0.5 < len(kept.frames) / 60 < 0.9
    assert kept.truths is path.truths
    wrong = hazards.wrong_focal(path, 1.1)
    np.testing.assert_allclose(wrong.frames[3].K, K * [[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]])
    np.testing.assert_array_equal(wrong.truths[3].K, K)
    again = hazards.select(path, np.array([5, 5, 2]))
    assert [frame.index for frame in again.frames] == [0, 1, 2]
    assert [frame.stamp for frame in again.frames] == [PERIOD, 2 * PERIOD, 3 * PERIOD]
    np.testing.assert_array_equal(again.T_world_camera, path.T_world_camera[[5, 5, 2]])
    grey = replace(
        path, frames=[replace(one, image=np.full((*SIZE[::-1], 3), 100, np.uint8)) for one in path.frames[:2]]
    )
    first, second = (frame.image.astype(float) for frame in hazards.noisy(grey, 0).frames)
    assert (first - 100).std() == pytest.approx(np.hypot(1.5, np.sqrt(30)), rel=0.03)
    assert not np.array_equal(first, second)


def test_the_table_takes_the_place_of_the_old_one(tmp_path):
    rows = [at_most('a', 0.5, 1.0, '{:.1f}'), at_most('b', np.inf, 1.0, '{:.1f}'), Row('c', 'x')]
    assert [row.reached for row in rows] == [True, False, None]
    page = tmp_path / 'page.md'
    put(table(rows), page)
    assert page.read_text() == table(rows)
    page.write_text('# Title\n\nabove\n\n| old |\n|---|\n| 1 |\n\nbelow\n\n| another |\n|---|\n')
    put(table(rows), page)
    assert page.read_text() == f'# Title\n\nabove\n\n{table(rows)}\nbelow\n\n| another |\n|---|\n'


def test_seeds_of_a_row():
    assert list(EvaluationSettings(3).runs()) == [1000, 1001, 1002]
    assert list(EvaluationSettings(3, first_seed=5).runs(2)) == [5, 6]


def test_a_recording_that_does_not_tell_enough_is_one_line(tmp_path, capsys):
    (tmp_path / '0.png').write_bytes(b'no picture')
    assert evaluate.main(['--rows', 'recorded', '--data', str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert '0.png: cannot be read as a picture' in error[0]
