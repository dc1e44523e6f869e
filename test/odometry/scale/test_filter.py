"""Metres from any mix of sources: against exact truth, with every kind of input that must be refused."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import ROOM, SIZE, K, depth_of, look, walk
from vggt_ros import camera
from vggt_ros.odometry.scale.filter import FIXED, PATIENCE, MeasurementVerdict, ScaleConfig, ScaleFilter
from vggt_ros.odometry.scale.measurements import OdometryScale, baseline_scale, depth_scale, fixed_scale, height_scale
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.types import Scale

UNIT = 0.4  # metres per map unit, the truth of most tests
LAMBDA = math.log(UNIT)


def feed(scale, count, **sources):
    """``count`` windows, each with one measurement per source; values are log-scales."""
    for _ in range(count):
        scale.predict()
        for source, value in sources.items():
            scale.update(ScaleMeasurement(source, value, 0.01**2))


def pose(rotvec, t):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    T[:3, 3] = t
    return T


def in_units(T, unit=UNIT):
    """A metric pose in map units."""
    T = np.array(T)
    T[..., :3, 3] /= unit
    return T


# --- the filter


def test_without_a_source_lengths_never_become_metres():
    scale = ScaleFilter()
    assert scale.scale is Scale.UNKNOWN
    feed(scale, 50)
    assert scale.scale is Scale.RELATIVE
    assert (scale.factor, scale.locked) == (1.0, False)
    assert scale.sigma >= 10


def test_metric_after_three_agreeing_measurements_and_relative_again_when_it_decays():
    scale = ScaleFilter()
    states = []
    for _ in range(3):
        feed(scale, 1, depth=LAMBDA)
        states.append(scale.scale)
    assert states == [Scale.RELATIVE, Scale.RELATIVE, Scale.METRIC]
    assert scale.factor == pytest.approx(UNIT, rel=1e-5)
    assert scale.locked
    feed(scale, 10)
    assert scale.scale is Scale.METRIC
    assert not scale.locked  # nobody has seen the map's scale for ten windows
    sigmas = []
    while scale.scale is Scale.METRIC:
        scale.predict()
        sigmas.append(scale.sigma)
    assert 0.08 < sigmas[-1] < 0.081
    assert sigmas[-2] <= 0.08
    # The random walk: variance grows by (0.3 %)^2 per window, from little more than the bias of 1 %.
    assert len(sigmas) == pytest.approx((0.08**2 - 0.01**2) / 0.003**2, rel=0.03)
    feed(scale, 1, depth=LAMBDA)
    assert scale.scale is Scale.METRIC


def test_hysteresis_between_the_two_bounds():
    scale = ScaleFilter()
    feed(scale, 3, depth=LAMBDA)
    scale.predict(0.065**2)  # sigma between 5 % and 8 %
    assert 0.05 < scale.sigma < 0.08
    assert scale.scale is Scale.METRIC
    fresh = ScaleFilter(ScaleConfig(bias={'poor': 0.065}))
    feed(fresh, 20, poor=LAMBDA)
    assert 0.05 < fresh.sigma < 0.08
    assert fresh.scale is Scale.RELATIVE


def test_repeating_one_source_does_not_beat_its_bias_but_a_second_source_does():
    scale = ScaleFilter(ScaleConfig(walk=0.0, bias={'a': 0.02, 'b': 0.02}))
    feed(scale, 500, a=LAMBDA)
    assert scale.sigma == pytest.approx(0.02, rel=0.01)
    feed(scale, 500, b=LAMBDA)
    assert scale.sigma == pytest.approx(0.02 / math.sqrt(2), rel=0.01)


@pytest.mark.parametrize('sources', [('depth',), ('depth', 'odometry', 'height')])
def test_sigma_is_honest(sources):
    """Errors over 200 runs in units of the filter's sigma have variance 1: constant biases, noise, random walk."""
    rng = np.random.default_rng(1)
    config = ScaleConfig(gate=0.9999)
    squares = []
    for _ in range(200):
        scale, truth = ScaleFilter(config), rng.normal(0, 1)
        biases = {source: rng.normal(0, config.bias[source]) for source in sources}
        for _ in range(40):
            truth += rng.normal(0, config.walk)
            scale.predict()
            for source, bias in biases.items():
                scale.update(ScaleMeasurement(source, truth + bias + rng.normal(0, 0.015), 0.015**2))
        squares.append(((scale.log_scale - truth) / scale.sigma) ** 2)
    assert 0.8 < np.mean(squares) < 1.2


def test_outliers_are_rejected_with_a_reason_and_move_nothing():
    scale = ScaleFilter()
    feed(scale, 10, depth=LAMBDA)
    rng = np.random.default_rng(0)
    for step in range(30):
        scale.predict()
        before = scale.log_scale
        status = scale.update(ScaleMeasurement('depth', LAMBDA + rng.choice([-1, 1]) * rng.uniform(0.2, 2), 0.01**2))
        assert status.verdict is MeasurementVerdict.REJECTED
        assert 'standard deviations' in status.reason
        assert scale.log_scale == before
        if step % 3 == 2:
            scale.update(ScaleMeasurement('depth', LAMBDA, 0.01**2))
    assert status.rejected == 30
    assert scale.factor == pytest.approx(UNIT, rel=1e-3)
    assert scale.scale is Scale.METRIC


def test_scattered_outliers_alone_do_not_count_as_agreement():
    scale = ScaleFilter()
    feed(scale, 10, depth=LAMBDA)
    for step in range(40):
        feed(scale, 1, depth=LAMBDA + (0.3 if step % 2 else -0.3))
    assert scale.factor == pytest.approx(UNIT, rel=1e-3)


@pytest.mark.parametrize('wrong', [-3.0, -0.3, 0.3, 3.0])
def test_a_first_outlier_does_not_lock_the_truth_out(wrong):
    scale = ScaleFilter()
    feed(scale, 1, depth=LAMBDA + wrong)
    feed(scale, 5, depth=LAMBDA)
    assert scale.factor == pytest.approx(UNIT, rel=1e-3)
    assert scale.scale is Scale.RELATIVE  # not yet confirmed
    feed(scale, 2, depth=LAMBDA)
    assert scale.scale is Scale.METRIC


def test_a_jump_of_the_maps_unit_is_followed_and_never_without_a_state():
    scale = ScaleFilter()
    feed(scale, 100, depth=LAMBDA, odometry=LAMBDA)
    for _ in range(20):
        before, metric = scale.log_scale, scale.scale is Scale.METRIC
        feed(scale, 1, depth=LAMBDA + 0.25, odometry=LAMBDA + 0.25)
        if abs(scale.log_scale - before) > 0.03:
            assert metric
            assert scale.scale is Scale.RELATIVE
            jumped = True
    assert jumped
    assert scale.log_scale == pytest.approx(LAMBDA + 0.25, abs=0.01)
    assert scale.scale is Scale.METRIC


def test_one_word_against_another_believes_neither_and_says_so():
    scale = ScaleFilter()
    feed(scale, 50, odometry=LAMBDA)
    assert scale.scale is Scale.METRIC
    feed(scale, 60, odometry=LAMBDA, depth=LAMBDA + 0.3)
    assert scale.log_scale == pytest.approx(LAMBDA + 0.15, abs=0.02)
    assert 0.15 < scale.sigma < 0.3  # both stories lie within it
    assert scale.scale is Scale.RELATIVE
    assert scale.sources['depth'].rejected == 5
    feed(scale, 20, odometry=LAMBDA, depth=LAMBDA + 0.3, baseline=LAMBDA + 0.3)
    assert scale.log_scale == pytest.approx(LAMBDA + 0.3, abs=0.02)
    assert scale.scale is Scale.METRIC


def test_two_sources_outvote_a_third():
    scale = ScaleFilter()
    feed(scale, 60, depth=LAMBDA, baseline=LAMBDA, odometry=LAMBDA + 0.3)
    assert scale.log_scale == pytest.approx(LAMBDA, abs=0.01)
    assert scale.scale is Scale.METRIC


def test_a_source_that_changes_alone_is_the_one_at_fault():
    """Slipping wheels beside a depth camera that goes on as before."""
    scale = ScaleFilter()
    feed(scale, 50, depth=LAMBDA, odometry=LAMBDA)
    for value in (LAMBDA + 0.3, LAMBDA):
        for _ in range(20):
            feed(scale, 1, depth=LAMBDA, odometry=value)
            assert scale.log_scale == pytest.approx(LAMBDA, abs=0.01)
            assert scale.scale is Scale.METRIC


def test_a_measurement_beats_a_promise():
    scale = ScaleFilter()
    feed(scale, 50, **{FIXED: LAMBDA + 0.4})
    assert scale.scale is Scale.METRIC
    feed(scale, 40, **{FIXED: LAMBDA + 0.4, 'depth': LAMBDA})
    assert scale.log_scale == pytest.approx(LAMBDA, abs=0.01)
    assert scale.scale is Scale.METRIC


def test_the_map_drifts_slowly_and_the_filter_follows():
    scale = ScaleFilter()
    for step in range(1000):
        feed(scale, 1, depth=LAMBDA + 0.001 * step)
        assert scale.log_scale == pytest.approx(LAMBDA + 0.001 * step, abs=0.02)
    assert scale.sources['depth'].rejected == 0


def test_late_source_rescaled_once_then_only_in_small_steps():
    """The protocol of the module's docstring, over a map whose unit drifts."""
    rng = np.random.default_rng(3)
    scale, unit = ScaleFilter(), UNIT  # metres per map unit, truth
    steps = []
    for window in range(300):
        unit *= math.exp(rng.normal(0, 0.003))
        scale.predict()
        if window >= 50:
            scale.update(ScaleMeasurement('depth', math.log(unit) + rng.normal(0, 0.015), 0.015**2))
        if scale.locked:
            steps.append(scale.factor)
            unit /= scale.factor
            scale.rescale(scale.factor)
            assert scale.factor == pytest.approx(1.0, abs=1e-12)
    assert len(steps) == 300 - 52
    assert steps[0] == pytest.approx(UNIT, rel=0.05)
    assert np.abs(np.log(steps[1:])).max() < 0.02
    assert unit == pytest.approx(1.0, abs=0.02)


def test_rescale_keeps_a_dispute_alive():
    scale = ScaleFilter()
    feed(scale, 20, depth=LAMBDA)
    feed(scale, 3, depth=LAMBDA + 0.3)
    scale.rescale(2.0)
    assert scale.factor == pytest.approx(UNIT / 2, rel=1e-3)
    feed(scale, 2, depth=LAMBDA + 0.3 - math.log(2))
    assert scale.log_scale == pytest.approx(LAMBDA + 0.3 - math.log(2), abs=0.01)


def test_three_thousand_windows_leave_the_covariance_sound():
    scale = ScaleFilter()
    feed(scale, 3000, depth=LAMBDA, odometry=LAMBDA, height=LAMBDA)
    assert np.linalg.eigvalsh(scale._P).min() > -1e-15
    assert 0.003 < scale.sigma < 0.01
    assert all(len(status.disputed) == 0 for status in scale.sources.values())


def test_who_is_asked_for_metres_and_has_none_is_named_with_the_reason_and_only_while_it_lasts():
    scale = ScaleFilter()

    def window(answer):
        scale.predict()
        scale.update(answer)
        return scale.complaint

    nothing = NoMeasurement('height', 'the ground was not seen')
    said = [window(nothing) for _ in range(PATIENCE + 3)]
    assert said[: PATIENCE - 1] == [''] * (PATIENCE - 1)
    assert said[PATIENCE:] == ['lengths are not metres: height: the ground was not seen'] * 3
    said = [window(ScaleMeasurement('height', 0.3, 1e-4)) for _ in range(5)]
    assert scale.scale is Scale.METRIC
    assert said[-1] == ''
    assert ScaleFilter().complaint == ''


def test_no_measurement_is_kept_for_diagnostics():
    scale = ScaleFilter()
    feed(scale, 3, depth=LAMBDA)
    status = scale.update(NoMeasurement('depth', 'the lens cap is on'))
    assert (status.verdict, status.reason) == (MeasurementVerdict.UNAVAILABLE, 'the lens cap is on')
    assert scale.sources['depth'].accepted == 3
    assert scale.scale is Scale.METRIC


@pytest.mark.parametrize(
    ('value', 'variance'), [(math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, math.nan)]
)
def test_impossible_measurements_cannot_be_made(value, variance):
    with pytest.raises(ValueError, match='must be'):
        ScaleMeasurement('depth', value, variance)


def test_impossible_settings_and_calls():
    for wrong in ({'gate': 1.0}, {'metric_below': 0.1}, {'bias': {'depth': 0.0}}, {'walk': -1.0}, {'persistence': 1}):
        with pytest.raises(ValueError, match=r'gate|metric_below|bias|persistence'):
            ScaleConfig(**wrong)
    with pytest.raises(ValueError, match='variance of a window'):
        ScaleFilter().predict(math.nan)
    for ratio in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match='positive'):
            ScaleFilter().rescale(ratio)


# --- registered depth image

PIXELS = camera.fit((640, 480), 252)
SOURCE_K = np.array([[440.0, 0, 319.5], [0, 440.0, 239.5], [0, 0, 1]])


def depth_case(sensor_size=(640, 480)):
    """The room in map units at the network's size, and in metres as a sensor sees it."""
    T = look([-1.0, 0.5, 1.2], 0.4, 0.2)
    ours = (depth_of(T, PIXELS.K_to_network(SOURCE_K), PIXELS.size) / UNIT).astype(np.float32)
    sensor_K = camera.PixelMap((640, 480), sensor_size, (0, 0), sensor_size).K_to_network(SOURCE_K)
    return ours, np.full(ours.shape, 0.8, np.float32), depth_of(T, sensor_K, sensor_size).astype(np.float32)


def measure_depth(ours, weight, sensor, late=0, **options):
    stamp = 1_700_000_000_123_456_789
    return depth_scale(ours, weight, PIXELS, stamp, sensor, stamp + late, **options)


@pytest.mark.parametrize('size', [(640, 480), (320, 240), (1280, 960), (848, 636)])
def test_depth_image_of_any_size_gives_the_exact_factor(size):
    answer = measure_depth(*depth_case(size))
    assert answer.log_scale == pytest.approx(LAMBDA, abs=2e-3)
    assert math.sqrt(answer.variance) == pytest.approx(0.015, rel=0.1)


def test_depth_image_with_holes_outliers_and_noise():
    rng = np.random.default_rng(0)
    ours, weight, sensor = depth_case()
    ours = ours * np.exp(rng.normal(0, 0.02, ours.shape)).astype(np.float32)
    spoilt = rng.random(ours.shape) < 0.2
    ours[spoilt] *= 3
    weight[spoilt] = 0.1  # the network knows
    sensor[rng.random(sensor.shape) < 0.3] = np.nan
    sensor[:100] = 0
    sensor[rng.random(sensor.shape) < 0.02] = -1
    answer = measure_depth(ours, weight, sensor)
    assert abs(answer.log_scale - LAMBDA) < 2 * math.sqrt(answer.variance)
    assert answer.log_scale == pytest.approx(LAMBDA, abs=0.01)


def test_a_wire_fence_that_only_the_sensor_sees_does_not_bias():
    """Pixels beside steps in depth are left out: half foreground, half background is neither."""
    ours, weight, sensor = depth_case()
    ours = ours * np.exp(0.1 * np.sin(np.arange(ours.shape[0]) / 5))[:, None].astype(np.float32)
    clean = measure_depth(ours, weight, sensor)
    sensor[:, ::5] *= 0.5
    fenced = measure_depth(ours, weight, sensor)
    assert fenced.log_scale == pytest.approx(clean.log_scale, abs=0.02)


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (lambda o, w, s: (o, w * 0, s), 'confidence'),
        (lambda o, w, s: (o * np.nan, w, s), 'have depth'),
        (lambda o, w, s: (-o, w, s), 'have depth'),
        (lambda o, w, s: (o * 0, w, s), 'have depth'),
        (lambda o, w, s: (o, w * np.nan, s), 'confidence'),
        (lambda o, w, s: (o, w, s * np.nan), 'usable samples'),
        (lambda o, w, s: (o, w, s * 0), 'usable samples'),
        (lambda o, w, s: (o, w, s + np.float32(20)), 'usable samples'),
        (lambda o, w, s: (o, w, s[:0]), 'empty'),
        (lambda o, w, s: (o, w, s[:, :400]), 'not registered'),
        (lambda o, w, s: (o * np.exp(np.linspace(-1, 1, o.shape[1], dtype=np.float32)), w, s), 'scatter'),
    ],
)
def test_depth_images_that_say_nothing_are_refused_with_a_reason(spoil, reason):
    answer = measure_depth(*spoil(*depth_case()))
    assert isinstance(answer, NoMeasurement)
    assert reason in answer.reason


def test_unsynchronised_depth_is_refused_to_the_nanosecond():
    case = depth_case()
    assert isinstance(measure_depth(*case, late=20_000_000), ScaleMeasurement)
    for late in (20_000_001, -20_000_001):
        answer = measure_depth(*case, late=late)
        assert 'not synchronised: 20.0 ms' in answer.reason


def test_depth_in_millimetres_or_of_a_wrong_shape_is_a_mistake():
    ours, weight, sensor = depth_case()
    with pytest.raises(ValueError, match='millimetres'):
        measure_depth(ours, weight, (sensor * 1000).astype(np.uint16))
    with pytest.raises(ValueError, match='must match'):
        measure_depth(ours[:-1], weight, sensor)


# --- odometry over TF

LEVER = pose([-np.pi / 2, 0.1, 0.0], [0.35, 0.1, 0.6])  # the camera ahead of the turning centre


def drive(count, noise=0.0, seed=0, slip=1.0, turn=0.06):
    """Steps of camera (map units) and base (metres); wheels that report ``slip`` times the way."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        base = pose([0, 0, turn * np.sin(i / 7)], [0.05 + 0.02 * np.cos(i), 0, 0])
        step = in_units(camera.invert(LEVER) @ base @ LEVER)
        step[:3, 3] += rng.normal(0, noise, 3)
        reported = base.copy()
        reported[:3, 3] *= slip
        yield step, reported


def test_odometry_with_a_lever_arm_is_exact():
    odometry = OdometryScale(LEVER)
    for steps in drive(60):
        odometry.add(*steps)
    answer = odometry.measure()
    assert answer.log_scale == pytest.approx(LAMBDA, abs=1e-9)
    assert math.sqrt(answer.variance) < 0.02
    assert '0 of 3' in odometry.measure().reason  # each stretch is used once


def test_without_the_lever_arm_turning_would_be_mistaken_for_driving():
    centred = LEVER.copy()
    centred[:3, 3] = 0
    odometry = OdometryScale(centred)
    for steps in drive(120, turn=0.2):
        odometry.add(*steps)
    answer = odometry.measure()
    assert isinstance(answer, NoMeasurement) or abs(answer.log_scale - LAMBDA) > 0.03


def test_odometry_noise_does_not_bias_and_variance_is_honest():
    errors, sigmas = [], []
    for seed in range(40):
        odometry = OdometryScale(LEVER)
        for steps in drive(100, noise=0.01 / UNIT, seed=seed):
            odometry.add(*steps)
        answer = odometry.measure()
        errors.append(answer.log_scale - LAMBDA)
        sigmas.append(math.sqrt(answer.variance))
    assert abs(np.mean(errors)) < 0.01
    assert 0.3 < np.sqrt(np.mean(np.square(errors))) / np.mean(sigmas) < 1.5


def test_standing_and_turning_on_the_spot_say_nothing():
    odometry = OdometryScale(pose([0, 0, 0], [0, 0, 0.5]))
    for _ in range(500):
        odometry.add(pose([0, 0, 0.02], [1e-4, 0, 0]), pose([0, 0, 0.02], [0, 0, 0]))
    assert '0 of 3' in odometry.measure().reason


def test_spinning_wheels_are_slip():
    odometry = OdometryScale(LEVER)
    for _, base in drive(100):
        odometry.add(np.eye(4), base)  # the camera stands
    assert 'slip' in odometry.measure().reason
    for step, _ in drive(100):
        odometry.add(step, pose([0, 0, 0.05], [0.05, 0, 0]))  # the wheels turn another way
    assert 'slip' in odometry.measure().reason
    for steps in drive(60):
        odometry.add(*steps)
    assert odometry.measure().log_scale == pytest.approx(LAMBDA, abs=1e-6)


def test_a_stretch_with_slip_among_good_ones_does_not_count():
    odometry = OdometryScale(LEVER)
    for i, (step, base) in enumerate(drive(200)):
        odometry.add(step if not 50 < i < 80 else np.eye(4), base)
    assert odometry.measure().log_scale == pytest.approx(LAMBDA, abs=1e-6)


def test_missing_transforms_end_the_stretch_and_are_told():
    odometry = OdometryScale(LEVER)
    for i, (step, base) in enumerate(drive(60)):
        odometry.add(step, None if i % 3 == 0 else base)
    assert 'no transform' in odometry.measure().reason
    step, base = next(drive(1))
    odometry.add(step * np.nan, base)
    assert 'not finite' in odometry.measure().reason
    for steps in drive(60):
        odometry.add(*steps)
    assert odometry.measure().log_scale == pytest.approx(LAMBDA, abs=1e-9)


# --- known baseline

RIG = pose([0.01, -0.02, 0.005], [0.3, 0.01, -0.02])


def rig(count=4, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    left = walk(count)
    right = left @ RIG
    right[:, :3, 3] += rng.normal(0, noise, (count, 3)) if noise else 0
    return in_units(left), in_units(right)


def test_known_baseline_is_exact_and_weaker_for_far_scenes():
    near, far = (baseline_scale(*rig(), RIG, depth / UNIT) for depth in (2.0, 8.0))
    assert near.log_scale == pytest.approx(LAMBDA, abs=1e-9)
    assert far.variance > 4 * near.variance


def test_baseline_noise_does_not_bias():
    depth = 5.0
    answers = [baseline_scale(*rig(4, 0.006 * depth, seed), RIG, depth / UNIT) for seed in range(200)]
    errors = np.array([answer.log_scale - LAMBDA for answer in answers])
    assert abs(errors.mean()) < 0.02
    assert 0.5 < errors.std() / np.mean([math.sqrt(answer.variance) for answer in answers]) < 1.2


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (lambda left, right: (left, right, RIG, 40.0 / UNIT), '2 % are needed'),
        (lambda left, right: (left, left @ pose([0, 0, 0.2], [0.3, 0, 0]), RIG, 5.0), 'rotation differs'),
        (lambda left, right: (left, left @ pose([0.01, -0.02, 0.005], [-0.3, 0, 0]), RIG, 5.0), '2 % are needed'),
        (lambda left, right: (left * np.nan, right, RIG, 5.0), 'no pair'),
        (lambda left, right: (left[:0], right[:0], RIG, 5.0), 'no pair'),
        (lambda left, right: (left, right, RIG, np.nan), 'median depth'),
        (lambda left, right: (left, right, RIG, 0.0), 'median depth'),
    ],
)
def test_baselines_that_say_nothing_are_refused(spoil, reason):
    answer = baseline_scale(*spoil(*rig()))
    assert isinstance(answer, NoMeasurement)
    assert reason in answer.reason


def test_baseline_of_zero_is_a_mistake():
    with pytest.raises(ValueError, match='baseline'):
        baseline_scale(*rig(), np.eye(4), 5.0)


# --- height above the ground


def down_of(T):
    return T[:3, :3].T @ np.array([0, 0, -1.0])


@pytest.mark.parametrize('height', [0.3, 1.2])
@pytest.mark.parametrize('pitch', [0.0, 0.4, 0.9, np.pi / 2 - 0.01])
@pytest.mark.parametrize('roll', [0.0, 0.3, np.pi])
def test_height_above_the_floor_of_a_room(height, pitch, roll):
    T = look([0.5, -0.3, height], 0.3, pitch) @ pose([0, 0, roll], [0, 0, 0])
    depth = depth_of(T, K, SIZE) / UNIT
    answer = height_scale(depth, np.full(depth.shape, 0.9), K, down_of(T), height)
    assert answer.log_scale == pytest.approx(LAMBDA, abs=2e-3)


def test_noisy_depth_and_a_gravity_that_is_a_little_wrong():
    rng = np.random.default_rng(0)
    T = look([0.5, -0.3, 0.8], 0.3, 0.3)
    depth = depth_of(T, K, SIZE) / UNIT * np.exp(rng.normal(0, 0.02, SIZE[::-1]))
    depth[rng.random(depth.shape) < 0.1] = np.nan
    down = Rotation.from_rotvec([0.025, 0, 0.02]).apply(down_of(T))
    answer = height_scale(depth, np.full(depth.shape, 0.9), K, down, 0.8, height_sigma=0.01)
    assert answer.log_scale == pytest.approx(LAMBDA, abs=0.02)
    assert math.hypot(0.015, 0.01 / 0.8) < math.sqrt(answer.variance) < 0.03


def with_table(T, top, near, far):
    """Depth of the room with a horizontal board at height ``top`` between two distances ahead."""
    depth = depth_of(T, K, SIZE)
    directions = camera.rays(camera.pixel_grid(SIZE), K) @ T[:3, :3].T
    with np.errstate(divide='ignore', invalid='ignore'):
        z = (top - T[2, 3]) / directions[..., 2]
    ahead = z * directions[..., 0]
    hit = (z > 0) & (ahead > near) & (ahead < far)
    return np.where(hit, np.minimum(z, depth), depth)


def test_a_table_is_not_the_ground_even_where_it_fills_more_of_the_view():
    T = look([-2.0, 0, 1.5], 0.0, 0.6)
    depth = with_table(T, 0.75, 0.7, 2.2) / UNIT
    answer = height_scale(depth, np.full(depth.shape, 0.9), K, down_of(T), 1.5)
    assert answer.log_scale == pytest.approx(LAMBDA, abs=0.002)


def test_no_ground_in_view():
    T = look([0.0, 0, 1.5], 0.0, -0.2)  # up, at the wall
    depth = depth_of(T, K, SIZE)
    answer = height_scale(depth, np.full(depth.shape, 0.9), K, down_of(T), 1.5)
    assert isinstance(answer, NoMeasurement)
    wall = np.full(SIZE[::-1], 3.0)
    answer = height_scale(wall, np.full(wall.shape, 0.9), K, np.array([0, 1.0, 0]), 1.5)
    assert 'no level surface' in answer.reason
    rough = 3 * np.exp(np.random.default_rng(0).normal(0, 0.5, SIZE[::-1]))
    answer = height_scale(rough, np.full(wall.shape, 0.9), K, np.array([0, 1.0, 0]), 1.5)
    assert 'no ground' in answer.reason


@pytest.mark.parametrize('value', [np.nan, 0.0, -2.0, np.inf])
def test_height_from_impossible_depth(value):
    depth = np.full(SIZE[::-1], value)
    answer = height_scale(depth, np.full(depth.shape, 0.9), K, np.array([0, 1.0, 0]), 1.5)
    assert 'only 0 samples' in answer.reason


def test_height_without_confidence_pixels_or_sense():
    T = look([0, 0, ROOM[1, 2] / 2], 0.0, 0.4)
    depth = depth_of(T, K, SIZE)
    assert 'only 0 samples' in height_scale(depth, np.zeros(depth.shape), K, down_of(T), 1.5).reason
    empty = np.zeros((0, 0))
    assert 'only 0 samples' in height_scale(empty, empty, K, down_of(T), 1.5).reason
    with pytest.raises(ValueError, match='height'):
        height_scale(depth, depth, K, down_of(T), 0.0)


# --- fixed factor


def test_fixed_factor_of_the_networks_unit_sees_the_map_drift():
    assert fixed_scale(2.0).log_scale == pytest.approx(math.log(2))
    # A network that predicts metres, a map whose unit has become half of one.
    assert fixed_scale(1.0, map_units=2.0).log_scale == pytest.approx(math.log(0.5))
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match='fixed factor'):
            fixed_scale(factor)
