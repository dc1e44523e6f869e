"""What the pipeline says of itself, and which state is true."""

import gc
import sys
import weakref
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from exact import SIZE, ExactPredictor, K, view, walk
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.gravity import Gravity, GravitySource
from vggt_ros.odometry.sensors import NoMeasurement, Reading, ScaleMeasurement, Sensor
from vggt_ros.odometry.windows.size import PATIENCE
from vggt_ros.odometry.world import WorldConfig
from vggt_ros.pipeline import Pipeline, PipelineReport, WindowResult, current_state
from vggt_ros.types import Estimate, Frame, PosedFrame, Scale, State, WindowTooLargeError

POSES = walk(12)
FRAMES = [Frame(i, (i + 1) * 100_000_000, view(T), K, 'eye') for i, T in enumerate(POSES)]


def pipeline(*sensors):
    truth = {frame.stamp: T for frame, T in zip(FRAMES, POSES, strict=True)}
    return Pipeline(ExactPredictor(truth), OdometryConfig(window=6, refine=False), sensors=sensors)


def located(state):
    return PosedFrame(FRAMES[0], np.eye(4), np.eye(4), np.eye(6), None, np.eye(6), state, Scale.RELATIVE, 0)


@pytest.mark.parametrize(
    ('window', 'image', 'state'),
    [
        (State.INITIALIZING, None, State.INITIALIZING),
        (State.TRACKING, None, State.TRACKING),
        (State.TRACKING, State.TRACKING, State.TRACKING),
        (State.TRACKING, State.STATIONARY, State.STATIONARY),
        (State.TRACKING, State.DEGRADED, State.DEGRADED),
        (State.DEGRADED, State.STATIONARY, State.STATIONARY),
        (State.DEGRADED, State.TRACKING, State.DEGRADED),
        (State.LOST, State.STATIONARY, State.LOST),
        (State.LOST, State.DEGRADED, State.LOST),
        (State.RELOCALIZED, State.DEGRADED, State.RELOCALIZED),
    ],
)
def test_the_newer_word_counts_unless_the_place_is_lost(window, image, state):
    one = None if image is None else located(image)
    assert current_state(window, one) is state
    assert current_state(window, one, paused=True) is State.PAUSED


def test_results_and_reports_are_frozen_and_their_parts_too():
    for kind in (WindowResult, PipelineReport, Reading, Estimate, PosedFrame):
        assert is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
    report = pipeline().report()
    assert isinstance(report, PipelineReport)
    assert {field.name for field in fields(report)} == {'epoch', 'window', 'gravity', 'sources', 'nbytes', 'predictor'}


def test_a_report_stays_what_it_was():
    one = pipeline()
    before = one.report()
    for start in range(0, 12, 3):
        one.process(FRAMES[start : start + 3])
    one.reset()
    assert (before.epoch, one.report().epoch) == (0, 1)


class Keeping(ExactPredictor):
    """Fails where a window holds a frame that was to be forgotten."""

    def __init__(self, truth):
        super().__init__(truth)
        self.held, self.most = set(), 0

    def keep(self, indices):
        self.held &= set(indices)

    def predict(self, frames, depth=None, queries=None):
        again = {frame.index for frame in frames} - self.held
        assert all(index > max(self.held, default=-1) for index in again)
        self.held |= again
        self.most = max(self.most, len(self.held))
        return super().predict(frames, depth, queries)


def test_the_predictor_is_told_what_it_need_not_hold():
    poses = walk(62)
    predictor = Keeping({i + 1: T for i, T in enumerate(poses)})
    one = Pipeline(predictor, OdometryConfig(window=6, keyframes=6, refine=False))
    frames = [Frame(i, i + 1, view(T), K, 'eye') for i, T in enumerate(poses)]
    for frame in frames[:60]:
        one.process([frame])
    assert len(one.world.keyframes) == 6
    assert predictor.most <= 6 + 2  # the map's, the latest and the new one
    one.reset()
    one.process(frames[60:])
    assert predictor.held == {60, 61}


class Robot(Sensor):
    """One class that knows everything: down, a second image, and metres."""

    name = 'depth'

    def __init__(self):
        self.read_of, self.answered, self.cleared = [], [], 0

    def read(self, frames):
        self.read_of.append([frame.index for frame in frames])
        companion = Frame(-frames[-1].index - 1, frames[-1].stamp, frames[-1].image, K, 'eye2')
        return Reading({frames[-1].index: companion}, Gravity(np.array([0.0, 1.0, 0.0]), 0.01, GravitySource.IMU))

    def answer(self, solved):
        self.answered.append(len(solved.companions))
        return ScaleMeasurement('depth', float(np.log(0.5)), 1e-4)

    def clear(self):
        self.cleared += 1


class Silent(Sensor):
    """Knows nothing."""

    def answer(self, solved):
        return NoMeasurement('height', 'no ground in sight')


def test_whoever_adds_a_sensor_writes_one_class():
    robot = Robot()
    one = pipeline(robot, Silent(), Sensor())
    results = [one.process(FRAMES[start : start + 3]) for start in range(0, 12, 3)]
    assert robot.read_of == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert robot.answered == [1, 1, 1, 1]
    assert results[-1].scale is Scale.METRIC
    assert robot.cleared == 1  # what it kept was in the unit of before
    report = one.report()
    assert report.gravity is GravitySource.IMU
    assert 'accepted' in report.sources['depth']
    assert report.sources['height'].startswith('unavailable')


def test_of_two_that_know_a_thing_the_first_is_believed():
    class Base(Sensor):
        def read(self, frames):
            return Reading(gravity=Gravity(np.array([0.0, 0.0, 1.0]), 0.1, GravitySource.BASE))

    one = pipeline(Sensor(), Robot(), Base())
    one.process(FRAMES[:3])
    assert one.report().gravity is GravitySource.IMU


def test_frames_that_are_refused_leave_a_result_that_says_why():
    one = pipeline()
    one.process(FRAMES[:3])
    one.predictor.spoil = lambda fields: fields['T_window_camera'].__setitem__((-1, 0, 3), np.nan)
    result = one.process(FRAMES[3:6])
    assert (result.refused, list(result.estimates), result.state) == (3, [], State.DEGRADED)
    assert result.reasons == one.standing().reasons == ('the network predicted a pose that is not finite',)
    one.predictor.spoil = None
    assert one.process(FRAMES[6:9]).reasons == ()
    assert FRAMES[0].size == SIZE


class Activation:
    """Something that a weak reference can point at."""


class Limited(ExactPredictor):
    """A device with room for so many frames, whose errors hold what it had computed, as tracebacks do."""

    def __init__(self, poses, room):
        super().__init__(poses)
        self.room, self.computed, self.held = room, [], []

    def predict(self, frames, depth=None, queries=None):
        self.held.append([one() is not None for one in self.computed])
        activation = Activation()
        self.computed.append(weakref.ref(activation))
        if len(frames) > self.room:
            raise WindowTooLargeError(len(frames))
        return super().predict(frames, depth, queries)


def limited(room, count, window=6):
    poses = walk(count)
    truth = [Frame(i, (i + 1) * 100_000_000, view(T), K, 'eye') for i, T in enumerate(poses)]
    predictor = Limited({frame.stamp: T for frame, T in zip(truth, poses, strict=True)}, room)
    return Pipeline(predictor, OdometryConfig(window=window, refine=False, keyframe_distance=0.01)), truth


def test_the_second_attempt_begins_when_nothing_of_the_first_is_held():
    one, truth = limited(4, 8)
    gc.disable()
    try:
        for frame in truth:
            one.process([frame])
    finally:
        gc.enable()
    assert len(one.predictor.computed) > len(one.predictor.windows)  # some did not fit
    assert not any(any(held) for held in one.predictor.held)


def test_the_window_grows_back_when_the_device_has_memory_again():
    one, truth = limited(4, 8)
    for frame in truth:
        one.process([frame])
    assert one.report().window == 3
    one.predictor.room = 6
    sizes = []
    for number in range(8, 8 + 2 * PATIENCE):
        frame = Frame(number, (number + 1) * 100_000_000, truth[-1].image, K, 'eye')
        one.predictor.poses[frame.stamp] = POSES[-1]
        assert len(one.process([frame]).estimates) == 1
        sizes.append(one.report().window)
    assert (sizes[0], sizes[-1]) == (3, 6)
    assert sizes == sorted(sizes)


def test_a_lost_camera_sees_as_many_frames_as_any_other():
    one, truth = limited(6, 8)
    for frame in truth[:4]:
        one.process([frame])
    one.predictor.spoil = lambda fields: fields['T_window_camera'].__setitem__((-1, 0, 3), np.nan)
    for frame in truth[4:6]:
        one.process([frame])
    assert one.world.state is State.LOST
    one.predictor.spoil, one.predictor.room = None, 1
    with pytest.raises(WindowTooLargeError):
        one.process(truth[6:])
    assert one.world.plan([truth[7]] * 6) is None or len(one.world.plan([truth[7]] * 6).frames) <= 3


def test_without_gtsam_it_goes_on_without_loops_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, 'gtsam', None)
    one = pipeline()
    assert list(one.warnings) == ['loops']
    warning = one.warnings['loops']
    assert 'loops are not closed' in warning
    assert 'pip install' in warning
    assert one.process(FRAMES[:3]).estimates
    assert Pipeline(ExactPredictor({}), world=WorldConfig(loops=False)).warnings == {}


def test_what_the_predictor_warns_of_the_pipeline_does_too():
    predictor = ExactPredictor({})
    predictor.warnings = {'no GPU': 'the CPU computes'}
    assert Pipeline(predictor, world=WorldConfig(loops=False)).warnings == {'no GPU': 'the CPU computes'}
