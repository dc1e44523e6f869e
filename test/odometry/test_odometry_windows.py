"""What every window must leave untouched: gauge, order of anchors, rejected windows; and odom beside the map."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import ExactPredictor, K, picture, walk
from vggt_ros import camera
from vggt_ros.evaluation.scenarios import TOY, room_loop
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.gravity import assumed_level, map_from_camera
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.window import Window
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Frame, State, WindowPrediction


def frames_of(poses):
    return [Frame(i, (i + 1) * 100_000_000, picture(i), K, 'eye') for i in range(len(poses))]


def exact(poses):
    frames = frames_of(poses)
    return frames, ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})


def noisy(count, seed=0):
    """Frames of the room's ellipse and a network with the toy errors."""
    scenario = room_loop()
    return scenario.frames[:count], SimulatedNetwork(scenario.truths, TOY, seed, longest=112)


def solve(frames, predictor, stride=2, config=None, change=lambda number, prediction: prediction):
    """All windows in a row; change: (number of the window, prediction) -> prediction."""
    odometry, estimates, waiting, number = Odometry(config or OdometryConfig(window=8)), [], [], 0
    for start in range(0, len(frames), stride):
        waiting += frames[start : start + stride]
        if (window := odometry.plan(waiting)) is not None:
            prediction = change(number, predictor.predict(window.frames, window.depth))
            estimates += odometry.update(window, prediction).estimates
            waiting, number = [], number + 1
    return estimates, odometry


def with_fields(prediction, **fields):
    return WindowPrediction(**{**vars(prediction), **fields})


def as_double(prediction):
    return with_fields(prediction, depth={slot: z.astype(np.float64) for slot, z in prediction.depth.items()})


def poses_of(estimates, name='T_map_camera'):
    return np.stack([getattr(estimate, name) for estimate in estimates])


# odom


def test_odom_begins_with_the_map_and_is_the_truth_up_to_a_unit():
    poses = walk(24)
    frames, predictor = exact(poses)
    estimates, _ = solve(frames, predictor, 3)
    start = np.eye(4)
    start[:3, :3] = map_from_camera(assumed_level().down)
    truth = start @ camera.invert(poses[0]) @ poses
    T_odom = poses_of(estimates, 'T_odom_camera')
    np.testing.assert_allclose(T_odom[0], start, atol=1e-12)
    unit = np.linalg.norm(T_odom[-1, :3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    np.testing.assert_allclose(T_odom[:, :3, :3], truth[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(T_odom[:, :3, 3], unit * truth[:, :3, 3], atol=1e-6 * unit)
    np.testing.assert_allclose(T_odom, poses_of(estimates), atol=1e-6 * unit)


def test_odoms_steps_are_those_of_one_window_each():
    """Noisy windows correct the map; odom takes from each what it says itself about its frames."""
    frames, network = noisy(24)
    said = []

    def listen(number, prediction):
        said.append(prediction)
        return prediction

    estimates, _ = solve(frames, network, 2, change=listen)
    steps = {estimate.frame.index: estimate.T_odom_camera for estimate in estimates}
    in_map = {estimate.frame.index: estimate.T_map_camera for estimate in estimates}
    corrected = []
    for number, prediction in enumerate(said):
        new = [2 * number, 2 * number + 1]
        published = prediction.indices[0]
        for before, now in [(published, new[0]), (new[0], new[1])]:
            if before == now:
                continue
            a, b = (prediction.T_window_camera[prediction.slot(index)] for index in (before, now))
            expected = camera.invert(a) @ b
            found = camera.invert(steps[before]) @ steps[now]
            np.testing.assert_allclose(found[:3, :3], expected[:3, :3], atol=1e-9)
            # The length has the window's own unit, one factor per window.
            direction = expected[:3, 3] / np.linalg.norm(expected[:3, 3])
            np.testing.assert_allclose(found[:3, 3] / np.linalg.norm(found[:3, 3]), direction, atol=1e-9)
            other = camera.invert(in_map[before]) @ in_map[now]
            corrected.append(np.abs(other - found).max())
    assert max(corrected) > 1e-3  # so the map does have seams


# Gauge


@pytest.mark.parametrize('seed', range(3))
def test_gauge_of_a_window_does_not_matter(seed):
    """A random Sim(3) on every raw window after the first."""
    rng = np.random.default_rng(seed)

    def moved(number, prediction):
        prediction = as_double(prediction)
        if number == 0:
            return prediction
        scale, G = np.exp(rng.normal()), np.eye(4)
        G[:3, :3], G[:3, 3] = Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 10, 3)
        T = prediction.T_window_camera.copy()
        T[:, :3, 3] *= scale
        return with_fields(
            prediction, T_window_camera=G @ T, depth={slot: z * scale for slot, z in prediction.depth.items()}
        )

    frames, network = noisy(30)
    plain, _ = solve(frames, network, change=lambda number, prediction: as_double(prediction))
    frames, network = noisy(30)
    other, _ = solve(frames, network, change=moved)
    size = np.abs(poses_of(plain)[:, :3, 3]).max()
    for name in ('T_map_camera', 'T_odom_camera'):
        a, b = poses_of(plain, name), poses_of(other, name)
        np.testing.assert_allclose(b[:, :3, :3], a[:, :3, :3], atol=1e-6)
        np.testing.assert_allclose(b[:, :3, 3], a[:, :3, 3], atol=1e-6 * size)
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(two.depth, one.depth, rtol=1e-5)
        np.testing.assert_allclose(two.covariance, one.covariance, rtol=1e-3, atol=1e-12)


def test_order_of_the_anchors_does_not_matter():
    rng = np.random.default_rng(0)
    frames, network = noisy(30)
    straight, _ = solve(frames, network)
    frames, network = noisy(30)
    odometry, shuffled, moved = Odometry(OdometryConfig(window=8)), [], 0
    for start in range(0, 30, 2):
        window = odometry.plan(frames[start : start + 2])
        anchors = len(window.frames) - window.new
        order = np.arange(len(window.frames))
        if anchors > 2:
            order[1:anchors] = 1 + rng.permutation(anchors - 1)
            moved += int((order != np.arange(len(order))).any())
        place = {old: new for new, old in enumerate(order)}
        window = Window(tuple(window.frames[i] for i in order), tuple(place[slot] for slot in window.depth), window.new)
        shuffled += odometry.update(window, network.predict(window.frames, window.depth)).estimates
    assert moved > 8
    for name in ('T_map_camera', 'T_odom_camera', 'covariance'):
        np.testing.assert_allclose(poses_of(shuffled, name), poses_of(straight, name), atol=1e-9)


# Windows that are not believed


class Broken(ExactPredictor):
    """Anchors stand at random while ``broken``."""

    broken = False

    def predict(self, frames, depth=None, queries=None):
        prediction = super().predict(frames, depth, queries)
        if not self.broken:
            return prediction
        T = prediction.T_window_camera.copy()
        T[1:, :3, :3] = Rotation.random(len(T) - 1, random_state=self.rng).as_matrix()
        T[1:, :3, 3] += self.rng.normal(0, 3, (len(T) - 1, 3))
        depth = {
            s: z * np.exp(self.rng.normal(0, 0.5, z.shape)).astype(np.float32) for s, z in prediction.depth.items()
        }
        return with_fields(prediction, T_window_camera=T, depth=depth)


def kept(odometry):
    """Everything a rejected window must not touch."""
    state = [odometry.latest.frame.index, odometry.latest.T_map_camera.copy(), odometry.T_odom_latest.copy()]
    for keyframe in odometry.keyframes:
        state += [keyframe.frame.index, keyframe.T_map_camera.copy(), keyframe.depth.copy(), keyframe.fused]
        state += [keyframe.confidence.copy(), keyframe.pose_weight]
    return state


def test_two_rejected_windows_in_a_row_are_lost_and_a_good_one_finds_back():
    poses = walk(40)
    frames = frames_of(poses)
    predictor = Broken({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})
    odometry = Odometry(OdometryConfig(window=8))

    def step(*numbers):
        window = odometry.plan([frames[i] for i in numbers])
        return odometry.update(window, predictor.predict(window.frames, window.depth))

    for start in range(0, 20, 2):
        estimates = step(start, start + 1).estimates
    assert odometry.state is State.TRACKING
    before = kept(odometry)
    states = []
    predictor.broken = True
    for start in (20, 22, 24):
        with pytest.raises(AlignmentError, match=r'scatter.*turned against each other'):
            step(start, start + 1)
        states.append(odometry.state)
        for a, b in zip(before, kept(odometry), strict=True):
            np.testing.assert_array_equal(a, b)
    assert states == [State.DEGRADED, State.LOST, State.LOST]
    predictor.broken = False
    outcome = step(26, 27)
    estimates += outcome.estimates
    assert outcome.state is odometry.state is State.TRACKING
    assert outcome.reasons == ()
    # And it is still the same map.
    T = camera.invert(estimates[0].T_map_camera) @ estimates[-1].T_map_camera
    true = camera.invert(poses[18]) @ poses[27]
    np.testing.assert_allclose(T[:3, :3], true[:3, :3], atol=1e-6)
    predictor.broken = True
    with pytest.raises(AlignmentError):
        step(28, 29)
    assert odometry.state is State.DEGRADED  # not in a row any more


def test_new_frames_from_elsewhere_are_refused_and_leave_nothing():
    """Only the new frames are placed at random, with depth that says the same: the anchors agree perfectly."""
    poses = walk(24)
    frames, predictor = exact(poses)
    odometry = Odometry(OdometryConfig(window=8))
    for start in range(0, 20, 2):
        window = odometry.plan(frames[start : start + 2])
        odometry.update(window, predictor.predict(window.frames, window.depth))
    before = kept(odometry)
    window = odometry.plan(frames[20:22])
    prediction = predictor.predict(window.frames, window.depth)
    away = np.eye(4)
    away[:3, :3] = Rotation.from_rotvec([0, np.pi, 0]).as_matrix()
    away[:3, 3] = [30, 0, 0]
    T = prediction.T_window_camera.copy()
    T[-2:] = away @ T[-2:]
    with pytest.raises(AlignmentError, match='share no surface with the map'):
        odometry.update(window, with_fields(prediction, T_window_camera=T))
    assert odometry.state is State.DEGRADED
    for a, b in zip(before, kept(odometry), strict=True):
        np.testing.assert_array_equal(a, b)
    # The same frames, placed where they are, go on.
    assert len(odometry.update(window, prediction).estimates) == 2
    assert odometry.state is State.TRACKING


def test_one_lost_frame_among_new_ones_is_left_out():
    poses = walk(24)
    frames, predictor = exact(poses)
    odometry = Odometry(OdometryConfig(window=8, keyframe_distance=1e-6))
    for start in range(0, 20, 2):
        window = odometry.plan(frames[start : start + 2])
        odometry.update(window, predictor.predict(window.frames, window.depth))
    window = odometry.plan(frames[20:23])
    prediction = predictor.predict(window.frames, window.depth)
    T = prediction.T_window_camera.copy()
    T[-3, :3, 3] += 100.0
    marks = np.eye(len(window.frames), dtype=np.float32)
    outcome = odometry.update(window, with_fields(prediction, T_window_camera=T, descriptor=marks))
    assert [estimate.frame.index for estimate in outcome.estimates] == [21, 22]
    assert outcome.state is State.DEGRADED
    assert outcome.reasons == ('1 of 3 new frames share no surface with the others',)
    for keyframe in list(odometry.keyframes)[-2:]:
        # Every keyframe is known by its own picture.
        np.testing.assert_array_equal(keyframe.descriptor, marks[prediction.slot(keyframe.frame.index)])


def test_depth_that_is_not_believed_does_not_enter_the_map():
    """Sky: what has no confidence stays unknown, however often the keyframe is seen again."""
    poses = walk(20)
    frames = frames_of(poses)

    def sky(fields):
        for confidence in fields['confidence'].values():
            confidence[:20] = 0.01

    predictor = ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)}, spoil=sky)
    estimates, odometry = solve(frames, predictor)
    assert max(keyframe.fused for keyframe in odometry.keyframes) > 2
    for estimate in estimates:
        assert np.isnan(estimate.depth[:20]).all()
    for keyframe in odometry.keyframes:
        assert np.isnan(keyframe.depth[:20]).all()
        assert np.isfinite(keyframe.depth[20:]).all()


@pytest.mark.parametrize(('window', 'stride'), [(3, 1), (4, 2), (4, 3), (4, 6), (8, 8)])
def test_however_many_frames_are_new_two_anchors_remain(window, stride):
    """A window full of new frames would have nothing to be compared with."""
    poses = walk(24)
    frames, predictor = exact(poses)
    estimates, odometry = solve(frames, predictor, stride, OdometryConfig(window=window))
    assert max(map(len, predictor.windows)) <= window
    assert odometry.state is State.TRACKING
    assert estimates[-1].frame.index == 23
