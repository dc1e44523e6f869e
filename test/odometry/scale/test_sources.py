"""Metric sources over windows of a walk whose truth is known: what is late, missing, wrong or unsynchronised."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import SIZE, look
from exact_windows import (
    LAMBDA,
    PERIOD,
    RIG,
    START,
    STEPS,
    UNIT,
    WALK,
    estimate,
    in_units,
    pair,
    sensor,
    solved,
    stamp_of,
)
from vggt_ros import camera
from vggt_ros.odometry.scale.filter import ScaleFilter
from vggt_ros.odometry.scale.recent import Recent
from vggt_ros.odometry.scale.sources import (
    BaselineSource,
    DepthSource,
    FixedSource,
    HeightSource,
    NoInput,
    OdometrySource,
)
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement, SolvedWindow
from vggt_ros.types import Scale, State

# --- registered depth images


def put(source, stamp, depth):
    """A depth image that needs no reading."""
    source.add(stamp, depth, depth.nbytes)


@pytest.mark.parametrize('size', [SIZE, (320, 240), (1280, 960), (1920, 1440)])
def test_depth_of_any_size_gives_the_exact_factor(size):
    source = DepthSource()
    put(source, stamp_of(3), sensor(3, size))
    answer = source.answer(solved(2, 3, 4))
    assert answer.source == 'depth'
    assert answer.log_scale == pytest.approx(LAMBDA, abs=3e-3)


def test_the_pair_nearest_in_time_is_taken_and_the_newest_of_equals():
    source = DepthSource()
    put(source, stamp_of(1) + 5_000_000, 3 * sensor(1))
    put(source, stamp_of(2), sensor(2))
    put(source, stamp_of(3) - 5_000_000, 3 * sensor(3))
    assert source.answer(solved(1, 2, 3)).log_scale == pytest.approx(LAMBDA, abs=3e-3)
    put(source, stamp_of(4), 3 * sensor(4))
    put(source, stamp_of(5), sensor(5))
    assert source.answer(solved(4, 5)).log_scale == pytest.approx(LAMBDA, abs=3e-3)


def test_an_unsynchronised_depth_topic_is_told_and_measures_nothing():
    source = DepthSource()
    for index in range(5):
        put(source, stamp_of(index) + 45_000_000, sensor(index))
    answer = source.answer(solved(2, 3))
    assert isinstance(answer, NoMeasurement)
    assert 'not synchronised: 45.0 ms apart, 20.0 ms allowed' in answer.reason
    assert isinstance(DepthSource(tolerance=45_000_000).answer(solved(1)), NoInput)
    patient = DepthSource(tolerance=45_000_000)
    put(patient, stamp_of(2) + 45_000_000, sensor(2))
    assert isinstance(patient.answer(solved(2)), ScaleMeasurement)


def test_depth_that_never_comes_or_ceases_is_told_apart():
    source = DepthSource()
    answer = source.answer(solved(0, 1))
    assert isinstance(answer, NoInput)
    assert 'no depth image has come' in answer.reason
    put(source, stamp_of(2), sensor(2))
    assert isinstance(source.answer(solved(2)), ScaleMeasurement)
    assert isinstance(source.answer(solved(9)), NoMeasurement)
    answer = source.answer(solved(10))
    assert not isinstance(answer, NoInput)
    assert 'since the last window' in answer.reason


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (lambda depth: depth * np.float32(np.nan), 'usable samples'),
        (lambda depth: depth * 0, 'usable samples'),
        (lambda depth: depth * np.float32(np.inf), 'usable samples'),
        (lambda depth: depth * 1000, 'usable samples'),
        (lambda depth: depth[:, :100], 'not registered'),
        (lambda depth: depth[:0], 'empty'),
    ],
)
def test_depth_images_without_sense_measure_nothing(spoil, reason):
    source = DepthSource()
    put(source, stamp_of(1), spoil(sensor(1)))
    answer = source.answer(solved(0, 1))
    assert isinstance(answer, NoMeasurement)
    assert reason in answer.reason


def test_half_of_the_depth_image_is_enough():
    depth = sensor(1)
    depth[:, ::2] = np.nan
    source = DepthSource()
    put(source, stamp_of(1), depth)
    # Neighbours of NaN are not beside an edge.
    assert source.answer(solved(1)).log_scale == pytest.approx(LAMBDA, abs=5e-3)


def test_depth_images_that_wait_are_bounded_and_the_newest_stay():
    depth = sensor(0)
    source = DepthSource(memory=10 * depth.nbytes)
    for index in range(1000):
        put(source, stamp_of(index), depth)
    kept = [stamp for stamp, *_ in source._images._items]
    assert kept == [stamp_of(index) for index in range(990, 1000)]


def test_impossible_ranges_are_refused():
    for near, far in ((0.0, 8.0), (3.0, 3.0), (1.0, math.nan)):
        with pytest.raises(ValueError, match='near and far'):
            DepthSource(near=near, far=far)


# --- what came lately


def test_recent_finds_the_nearest_and_forgets_the_old():
    recent = Recent(1000)
    assert (recent.newest, recent.nearest(5)) == (None, None)
    for stamp in (10, 30, 20, 40):  # not quite in order
        recent.add(stamp, str(stamp), 1)
    assert [recent.nearest(stamp) for stamp in (0, 24, 26, 99)] == [(10, '10'), (20, '20'), (30, '30'), (40, '40')]
    recent.forget(30)
    assert recent.nearest(0) == (20, '20')  # it came after one that is needed
    recent.forget(35)
    assert recent.nearest(0) == (40, '40')


def test_recent_keeps_the_newest_item_however_big_it_is():
    recent = Recent(100)
    recent.add(1, 'small', 60)
    recent.add(2, 'big', 1000)
    assert recent.nearest(0) == (2, 'big')
    recent.add(3, 'small', 60)
    assert recent.nearest(0) == (3, 'small')
    with pytest.raises(ValueError, match='memory'):
        Recent(0)


def test_recent_begins_anew_when_time_does():
    recent = Recent(1000)
    recent.add(START, 'before', 1)
    recent.add(START - 1_000_000_000, 'late', 1)
    assert recent.nearest(START) == (START, 'before')
    recent.add(5, 'new run', 1)
    assert recent.nearest(START) == (5, 'new run')
    assert recent.newest == 5


def test_recent_wakes_who_waits():
    recent = Recent(1000)
    waiter = threading.Thread(target=recent.wait, args=(10, 60.0))
    waiter.start()
    recent.add(9, '', 1)
    waiter.join(0.1)
    assert waiter.is_alive()
    recent.add(10, '', 1)
    waiter.join(10)
    assert not waiter.is_alive()
    recent.wait(11, 0.0)  # in vain, and not for ever


def test_depth_comes_from_another_thread_while_the_worker_asks():
    source = DepthSource(memory=40 * sensor(0).nbytes)
    depths = [sensor(index) for index in range(STEPS)]
    asked = threading.Semaphore(30)  # how far the sensor is ahead

    def publish():
        for index, depth in enumerate(depths):
            asked.acquire()
            put(source, stamp_of(index), depth)

    publisher = threading.Thread(target=publish)
    publisher.start()
    for index in range(STEPS):
        source._images.wait(stamp_of(index), 60.0)
        assert source.answer(solved(index)).log_scale == pytest.approx(LAMBDA, abs=3e-3)
        asked.release()
    publisher.join()


# --- odometry over TF

T_BASE_CAMERA = look([0.35, 0.1, 0.6], 0.2, 0.1)
T_ODOM_WORLD = look([3.0, -2.0, 0.0], 1.0)


class Transforms:
    """TF whose odometry reaches up to ``until`` (ns) and lacks the stamps in ``holes``."""

    def __init__(self, until=math.inf, holes=(), mounted=True, unit=1.0):
        self.until, self.holes, self.mounted = until, set(holes), mounted
        self.asked, self.answered = [], []

    def __call__(self, target, source, stamp):
        if (target, source, stamp) == ('base', 'eye', None):
            return T_BASE_CAMERA if self.mounted else 'eye is not connected to base'
        assert (target, source) == ('odom', 'base')
        self.asked.append(stamp)
        if stamp > self.until or stamp in self.holes:
            return 'the transform is not there'
        self.answered.append(stamp)
        T_world_camera = WALK[(stamp - START) // PERIOD]
        return T_ODOM_WORLD @ T_world_camera @ camera.invert(T_BASE_CAMERA)


def odometry_answers(transforms, source=None, size=3, frames=range(STEPS), lag=None, **options):
    """One answer for each window of ``size`` new frames; with ``lag`` TF comes that many frames after the images."""
    source = source or OdometrySource(transforms, 'odom', 'base')
    frames = list(frames)
    answers = []
    for first in range(0, len(frames), size):
        indices = frames[first : first + size]
        if lag is not None:
            transforms.until = stamp_of(indices[-1] - lag)
        answers.append(source.answer(solved(*indices, **options)))
    return answers


def measured(answers):
    return [answer for answer in answers if isinstance(answer, ScaleMeasurement)]


@pytest.mark.parametrize('size', [1, 3, 7])
@pytest.mark.parametrize('lag', [None, 4, 9])
def test_odometry_is_exact_across_windows_and_when_tf_is_late(size, lag):
    answers = measured(odometry_answers(Transforms(), size=size, lag=lag))
    assert len(answers) >= 2
    assert [answer.log_scale for answer in answers] == pytest.approx([LAMBDA] * len(answers), abs=1e-9)


def test_late_transforms_miss_no_image_and_use_none_twice():
    transforms = Transforms()
    odometry_answers(transforms, lag=4)
    assert transforms.answered == [stamp_of(index) for index in range(STEPS - 4)]


def test_corrections_of_the_map_are_no_steps():
    source = OdometrySource(Transforms(), 'odom', 'base')
    corrected = look([0.2, 0.1, -0.3], 0.1)
    answers = []
    for index in range(STEPS):
        moved = replace(estimate(index), T_map_camera=corrected @ in_units(WALK[index], UNIT))
        answers.append(source.answer(SolvedWindow([moved if index % 2 else estimate(index)], 1.0)))
    answers = measured(answers)
    assert len(answers) >= 2
    assert [answer.log_scale for answer in answers] == pytest.approx([LAMBDA] * len(answers), abs=1e-9)


def test_images_without_transforms_are_left_out_not_waited_for():
    holes = [stamp_of(index) for index in np.random.default_rng(0).choice(STEPS, STEPS // 3, replace=False)]
    answers = measured(odometry_answers(Transforms(holes=holes)))
    assert len(answers) >= 2
    assert [answer.log_scale for answer in answers] == pytest.approx([LAMBDA] * len(answers), abs=1e-9)


def test_tf_that_never_comes_is_told_and_asked_for_within_a_bound():
    transforms = Transforms(until=0)
    source = OdometrySource(transforms, 'odom', 'base')
    for answer in odometry_answers(transforms, source):
        assert isinstance(answer, NoInput)
        assert answer.reason == 'the transform is not there'
    # Ten images a second: those of the last second, and those of the newest window.
    assert len(source._waiting) <= 12
    assert max(map(transforms.asked.count, transforms.asked)) <= 5


def test_slow_images_wait_for_three_windows():
    transforms = Transforms(until=0)
    source = OdometrySource(transforms, 'odom', 'base')
    for index in range(0, STEPS, 30):  # one image in three seconds
        source.answer(solved(index))
    assert transforms.asked.count(stamp_of(0)) == 3
    assert [image.stamp for image in source._waiting] == [stamp_of(60), stamp_of(90)]


def test_tf_that_ceases_is_told_with_the_reason():
    transforms = Transforms(until=stamp_of(20))
    answers = odometry_answers(transforms)
    last = answers[-1]
    assert isinstance(last, NoMeasurement)
    assert not isinstance(last, NoInput)
    assert 'no transform for 3 images in 1 s: the transform is not there' in last.reason


def test_a_camera_that_is_not_on_the_robot_is_told():
    transforms = Transforms(mounted=False)
    source = OdometrySource(transforms, 'odom', 'base')
    answer = source.answer(solved(0, 1))
    assert isinstance(answer, NoInput)
    assert 'not connected' in answer.reason
    transforms.mounted = True
    assert measured(odometry_answers(transforms, source))


def test_the_way_before_a_rescaling_is_forgotten():
    """Half of a stretch in old units, half in new ones, would be a wrong ratio."""
    transforms = Transforms()
    source = OdometrySource(transforms, 'odom', 'base')
    odometry_answers(transforms, source, frames=range(52), lag=4)
    source.clear()
    transforms.until = math.inf
    answers = measured(odometry_answers(transforms, source, frames=range(52, STEPS), unit=1.0))
    assert answers
    assert [answer.log_scale for answer in answers] == pytest.approx([0.0] * len(answers), abs=1e-9)


def test_jumps_when_relocalized_are_no_steps():
    """They go along the camera's path: only the state tells them from a way that the wheels did not go."""
    source = OdometrySource(Transforms(), 'odom', 'base')
    jumps = (9, 27, 45)  # frames; each in a stretch of its own
    answers, gone = [], np.zeros(3)
    for index in range(STEPS):
        if index in jumps:
            way = WALK[index][:3, 3] - WALK[index - 1][:3, 3]
            gone += 0.1 * way / np.linalg.norm(way)
        T = WALK[index].copy()
        T[:3, 3] += gone
        state = State.RELOCALIZED if index in jumps else State.TRACKING
        answers.append(source.answer(solved(index, T=T, state=state)))
    assert [answer.log_scale for answer in measured(answers)] == pytest.approx([LAMBDA], abs=1e-9)


# --- baseline, height, fixed factor


def test_a_calibrated_baseline_is_exact():
    answer = BaselineSource(lambda: RIG).answer(solved(0, 1, 2, companions=[pair(1), pair(2)]))
    assert answer.source == 'baseline'
    assert answer.log_scale == pytest.approx(LAMBDA, abs=1e-9)


def test_a_second_camera_that_is_no_use_is_told():
    calibration = 'left and right are not connected'
    source = BaselineSource(lambda: calibration)
    answer = source.answer(solved(0))
    assert isinstance(answer, NoInput)
    assert answer.reason == calibration
    calibration = RIG
    assert 'no simultaneous image' in source.answer(solved(0)).reason
    assert isinstance(source.answer(solved(0, companions=[pair(0)])), ScaleMeasurement)
    answer = source.answer(solved(1))
    assert isinstance(answer, NoMeasurement)
    assert not isinstance(answer, NoInput)
    window = solved(1, companions=[pair(1)])
    window.estimates[0].depth[:] = np.nan
    assert 'median depth is nan' in source.answer(window).reason


@pytest.mark.parametrize('pitch', [0.2, 0.8])
@pytest.mark.parametrize('height', [0.5, 1.4])
def test_the_height_above_the_floor_is_exact_in_a_map_whose_z_is_up(pitch, height):
    T = look([0.5, -0.3, height], 0.3, pitch)
    T[:3, :3] = T[:3, :3] @ Rotation.from_euler('z', 0.3).as_matrix()
    answer = HeightSource(height).answer(solved(0, T=T))
    assert answer.source == 'height'
    assert answer.log_scale == pytest.approx(LAMBDA, abs=3e-3)


def test_no_floor_in_the_depth_is_no_height():
    window = solved(0, T=look([0.5, -0.3, 1.0], 0.3, 0.5))
    window.estimates[0].depth[:] = np.nan
    assert 'only 0 samples' in HeightSource(1.0).answer(window).reason
    assert 'below the horizon' in HeightSource(1.0).answer(solved(0, T=look([0.5, -0.3, 1.0], 0.3, -0.8))).reason


def test_a_fixed_factor_counts_in_the_networks_unit():
    answer = FixedSource(2.0).answer(solved(0, window_scale=5.0))
    assert answer.source == 'fixed'
    assert answer.log_scale == pytest.approx(math.log(2.0 / 5.0))


def test_impossible_promises_are_refused():
    for value in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match='height of the camera'):
            HeightSource(value)
        with pytest.raises(ValueError, match='fixed factor'):
            FixedSource(value)


def test_together_they_make_the_map_metric():
    depth = DepthSource()
    sources = [depth, OdometrySource(Transforms(), 'odom', 'base'), BaselineSource(lambda: RIG), FixedSource(1.0)]
    scale = ScaleFilter()
    for index in range(STEPS):
        put(depth, stamp_of(index), sensor(index))
        scale.predict()
        for source in sources:
            # A network that predicts metres, in a map whose unit is UNIT metres.
            scale.update(source.answer(solved(index, companions=[pair(index)], window_scale=1 / UNIT)))
    assert scale.scale is Scale.METRIC
    assert scale.factor == pytest.approx(UNIT, rel=2e-3)
    assert {name: status.rejected for name, status in scale.sources.items()} == dict.fromkeys(
        ('depth', 'odometry', 'baseline', 'fixed'), 0
    )
    for source in sources:
        source.clear()
        assert source.name in scale.config.bias
