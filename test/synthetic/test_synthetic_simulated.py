"""The simulated network: exact without errors, and wrong in the ways and amounts that were asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vggt_ros.camera import invert, transform, unproject
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.sequence import default_intrinsics, frame_truths, make_sequence
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.synthetic.trajectory import CameraPath, look_at
from vggt_ros.synthetic.truth import FrameTruth, sample_depth
from vggt_ros.types import Frame, Predictor

SIZE = (112, 84)


@pytest.fixture(scope='module')
def sequence():
    return make_sequence('room', 3, frames=12, size=SIZE)


def network(sequence, seed=0, **errors) -> SimulatedNetwork:
    return SimulatedNetwork(sequence.truths, ErrorModel(**errors), seed, longest=SIZE[0])


def relative(sequence, slots):
    T = sequence.trajectory.T_world_camera[slots]
    return invert(T[0]) @ T


def angle(R: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((np.trace(R, axis1=-2, axis2=-1) - 1) / 2, -1, 1)))


def test_without_errors_it_is_the_truth(sequence):
    predictor: Predictor = network(sequence)
    slots = [4, 0, 7, 9]
    frames = [sequence.frames[i] for i in slots]
    prediction = predictor.predict(frames, queries=np.array([[30.0, 40.0], [80.0, 20.0]]))
    assert prediction.indices == (4, 0, 7, 9)
    np.testing.assert_allclose(prediction.T_window_camera, relative(sequence, slots), atol=1e-12)
    np.testing.assert_array_equal(prediction.T_window_camera[0], np.eye(4))
    np.testing.assert_allclose(prediction.K, np.tile(sequence.K, (4, 1, 1)), atol=1e-12)
    for slot, index in enumerate(slots):
        np.testing.assert_allclose(prediction.depth[slot], sequence.depth[index], rtol=1e-6)
        assert prediction.depth[slot].dtype == np.float32
        np.testing.assert_allclose(prediction.confidence[slot], 0.9, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(prediction.descriptor, axis=1), 1, atol=1e-6)


def test_tracks_without_errors_are_the_renderers():
    for moving in (False, True):
        sequence = make_sequence('room', 3, frames=6, size=SIZE, world_options={'moving': moving})
        queries = np.random.default_rng(1).integers(2, (110, 82), (120, 2)).astype(float)
        exact = sequence.tracks(queries)
        predicted = network(sequence).predict(sequence.frames, depth=(), queries=queries).tracks
        visible = exact.visible[0].numpy()
        error = np.linalg.norm(predicted.uv - exact.uv[0].numpy(), axis=-1)
        assert error[visible].max() < 0.05
        assert (visible == (predicted.visibility > 0.5)).mean() > 0.95  # edges are pixel-sharp only
        np.testing.assert_array_equal(predicted.uv[0], queries)


def test_other_sizes_give_exact_truth_in_network_pixels():
    world = make_world('room', 1)
    size = (160, 110)
    sequence = make_sequence('room', 1, frames=2, size=size)
    predictor = SimulatedNetwork(sequence.truths, longest=84)
    rendered = frame_truths(world, sequence.trajectory, sequence.K)
    exact = SimulatedNetwork(rendered, longest=84)
    pixel_map = predictor.pixel_map(size)
    first, second = (one.predict(sequence.frames) for one in (predictor, exact))
    np.testing.assert_allclose(first.K[0], pixel_map.matrix @ sequence.K)
    assert first.depth[0].shape == pixel_map.size[::-1]
    close = np.abs(first.depth[0] / second.depth[0] - 1)
    assert np.median(close) < 1e-6  # inverse depth is linear on planes
    assert (close < 0.01).mean() > 0.95


def test_sample_depth_is_exact_on_a_plane_and_nearest_at_edges():
    K = default_intrinsics((20, 15))
    v, u = np.mgrid[:15, :20]
    normal, distance = np.array([0.3, -0.2, 1.0]), 2.0

    def plane(u, v):
        ray = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u, float)], -1)
        return distance / (ray @ normal)

    uv = np.random.default_rng(0).uniform((0, 0), (19, 14), (50, 2))
    np.testing.assert_allclose(sample_depth(plane(u, v), uv), plane(*uv.T), rtol=1e-12)
    step = np.where(u < 10, 1.0, 2.0)
    assert set(sample_depth(step, np.array([[9.4, 3.0], [9.6, 3.0]]))) == {1.0, 2.0}
    assert np.isnan(sample_depth(step, np.array([[-1.0, 3.0], [5.0, 14.6]]))).all()


def test_the_gauge_scales_depth_and_poses_alike(sequence):
    exact = network(sequence).predict(sequence.frames[:4])
    scaled = network(sequence, window_scale=0.5).predict(sequence.frames[:4])
    unit = scaled.depth[0][0, 0] / exact.depth[0][0, 0]
    assert abs(np.log(unit)) > 0.01
    for slot in range(4):
        np.testing.assert_allclose(scaled.depth[slot], exact.depth[slot] * unit, rtol=1e-5)
    np.testing.assert_allclose(scaled.T_window_camera[:, :3, 3], exact.T_window_camera[:, :3, 3] * unit, rtol=1e-5)
    np.testing.assert_allclose(scaled.T_window_camera[:, :3, :3], exact.T_window_camera[:, :3, :3])
    normalised = network(sequence, normalised=True).predict(sequence.frames[:4])
    points = [
        transform(normalised.T_window_camera[i], unproject(normalised.depth[i], normalised.K[i])) for i in range(4)
    ]
    assert np.linalg.norm(points, axis=-1).mean() == pytest.approx(1, rel=0.02)


def test_the_same_window_gives_the_same_prediction_in_any_order_of_the_later_slots(sequence):
    typical = ErrorModel.typical()
    frames = sequence.frames
    first, again = (
        SimulatedNetwork(sequence.truths, typical, 5, longest=SIZE[0]).predict(frames[:5]) for _ in range(2)
    )
    np.testing.assert_array_equal(first.T_window_camera, again.T_window_camera)
    np.testing.assert_array_equal(first.depth[3], again.depth[3])
    order = [0, 3, 1, 4, 2]
    shuffled = SimulatedNetwork(sequence.truths, typical, 5, longest=SIZE[0]).predict(
        [frames[i] for i in order], depth=[1]
    )
    assert list(shuffled.depth) == [1]
    np.testing.assert_array_equal(shuffled.depth[1], first.depth[3])
    np.testing.assert_array_equal(shuffled.confidence[1], first.confidence[3])
    np.testing.assert_allclose(shuffled.T_window_camera, first.T_window_camera[order], atol=1e-12)
    np.testing.assert_array_equal(shuffled.descriptor, first.descriptor[order])
    other = SimulatedNetwork(sequence.truths, typical, 6, longest=SIZE[0]).predict(frames[:5])
    assert not np.array_equal(other.T_window_camera, first.T_window_camera)


def test_errors_have_the_size_that_was_asked_for(sequence):
    frames = sequence.frames
    noisy = network(sequence, depth_pixel=0.02, rotation=0.5, translation=0.01, focal_window=0.03, outliers=0.1)
    rotations, shifts, focals, logs = [], [], [], []
    median = np.median(sequence.depth[:8])
    for start in range(4):
        for reference in range(start, start + 8):
            window = [frames[reference], *(f for f in frames[start : start + 8] if f.index != reference)]
            prediction = noisy.predict(window, depth=[1])
            truth = relative(sequence, list(prediction.indices))
            rotations.append(angle(truth[1:, :3, :3].transpose(0, 2, 1) @ prediction.T_window_camera[1:, :3, :3]))
            shifts.append((prediction.T_window_camera - truth)[1:, :3, 3].ravel())
            focals.append(np.log(prediction.K[0, 0, 0] / sequence.K[0, 0]))
            logs.append(np.log(prediction.depth[1] / sequence.depth[prediction.indices[1]]))
    assert np.sqrt(np.mean(np.square(rotations)) / 3) == pytest.approx(0.5, rel=0.1)
    assert np.std(shifts) == pytest.approx(0.01 * median, rel=0.2)
    assert np.std(focals) == pytest.approx(0.03, rel=0.4)
    errors = np.concatenate([log.ravel() for log in logs])
    assert 1.48 * np.median(np.abs(errors)) == pytest.approx(0.02, rel=0.15)
    assert (np.abs(errors) > 0.1).mean() == pytest.approx(0.1 * 0.85, rel=0.15)  # P(|N(0, 0.5)| > 0.1) = 0.84


def test_window_bias_frame_bias_and_persistence(sequence):
    frames = sequence.frames

    def bias(predictor, window, slot):
        prediction = predictor.predict([frames[i] for i in window], depth=[slot])
        return np.median(np.log(prediction.depth[slot] / sequence.depth[window[slot]]))

    common = network(sequence, depth_window=0.05)
    assert bias(common, [0, 1, 2], 0) == pytest.approx(bias(common, [0, 1, 2], 2), abs=1e-6)
    assert bias(common, [0, 1, 2], 0) != pytest.approx(bias(common, [0, 1, 3], 0), abs=1e-4)
    own = network(sequence, depth_frame=0.05)
    assert bias(own, [0, 1, 2], 0) != pytest.approx(bias(own, [0, 1, 2], 2), abs=1e-4)
    lasting = network(sequence, depth_frame=0.05, persistence=1.0)
    assert bias(lasting, [0, 1, 2], 1) == pytest.approx(bias(lasting, [3, 1], 1), abs=1e-6)
    assert abs(bias(lasting, [3, 1], 1)) > 1e-3


def test_confidence_follows_the_errors_when_asked(sequence):
    correlations = []
    for correlation in (0.0, 0.5, 1.0):
        predictor = network(sequence, depth_pixel=0.03, confidence_correlation=correlation)
        prediction = predictor.predict(sequence.frames[:2])
        error = np.abs(np.log(prediction.depth[1] / sequence.depth[1]))
        confidence = prediction.confidence[1]
        assert (confidence > 0).all()
        assert (confidence < 1).all()
        correlations.append(0.0 if confidence.std() < 1e-6 else np.corrcoef(error.ravel(), confidence.ravel())[0, 1])
    assert correlations[0] == 0
    assert -0.8 < correlations[1] < -0.2
    assert correlations[2] < -0.85


def two_places() -> tuple[list[Frame], list[FrameTruth]]:
    """Six frames: three of one wall of a box, three of the opposite wall, nothing in common."""
    size = (56, 42)
    K = default_intrinsics(size, 60)
    frames, truths = [], []
    ray = np.stack([*np.meshgrid((np.arange(56) - K[0, 2]) / K[0, 0], (np.arange(42) - K[1, 2]) / K[1, 1])], -1)
    rng = np.random.default_rng(0)
    for i in range(6):
        side = 1.0 if i < 3 else -1.0
        position = np.array([0.05 * i, 0.1 * i, 0.0])
        T = look_at(position, position + np.array([side, 0.0, 0.0]))
        depth = np.full((42, 56), 3.0 - side * position[0]) + 0 * ray[..., 0]
        frames.append(Frame(i, i + 1, rng.integers(0, 256, (42, 56, 3), np.uint8), K))
        truths.append(FrameTruth(T, K, depth))
    return frames, truths


def test_frames_without_common_surface_are_placed_at_random_but_stay_rigid():
    frames, truths = two_places()
    errors = ErrorModel(overlap=0.2, lost_scale=0.0, lost_confident=1.0)
    predictor = SimulatedNetwork(truths, errors, 1, longest=56)
    T = predictor.predict(frames).T_window_camera
    truth = np.stack([invert(truths[0].T_world_camera) @ one.T_world_camera for one in truths])
    np.testing.assert_allclose(T[:3], truth[:3], atol=1e-9)
    assert angle((invert(truth[3]) @ T[3])[None, :3, :3])[0] > 10
    np.testing.assert_allclose(invert(T[3]) @ T[4:], invert(truth[3]) @ truth[4:], atol=1e-9)
    assert predictor.notes == ('placed at random: [3, 4, 5]',)
    assert predictor.predict(frames).confidence[4].mean() == pytest.approx(0.9, abs=1e-3)
    order = [0, 5, 2, 4, 1, 3]
    np.testing.assert_allclose(predictor.predict([frames[i] for i in order]).T_window_camera, T[order], atol=1e-9)
    doubting = SimulatedNetwork(truths, replace(errors, lost_confident=0.0), 1, longest=56)
    assert doubting.predict(frames).confidence[4].max() < 0.5
    assert doubting.predict(frames).confidence[1].max() > 0.8
    predictor.predict(frames[:3])
    assert predictor.notes == ()


def test_look_alike_places_are_taken_for_one():
    world = make_world('twins', 2)
    middle = np.array([0.5 * world.period[0], 0.0, 1.3])  # of one bay, facing its wall
    first = look_at(middle, middle + np.array([0.0, 1.0, 0.0]))
    second = first.copy()
    second[:3, 3] -= world.period
    path = CameraPath(np.array([0.1, 0.2]), np.stack([first, second]))
    K = default_intrinsics(SIZE)
    truths = frame_truths(world, path, K)
    frames = [Frame(i, i, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K) for i in range(2)]
    errors = ErrorModel(overlap=0.3, alias=1.0)
    confused = SimulatedNetwork(truths, errors, longest=SIZE[0])
    prediction = confused.predict(frames)
    assert confused.notes == ('taken for a look-alike: [1]',)
    np.testing.assert_allclose(prediction.T_window_camera[1], np.eye(4), atol=1e-6)
    assert prediction.descriptor[0] @ prediction.descriptor[1] > 0.999
    assert prediction.confidence[1].mean() > 0.8
    wary = SimulatedNetwork(truths, replace(errors, alias=0.0), longest=SIZE[0])
    assert angle(wary.predict(frames).T_window_camera[1:, :3, :3])[0] > 10
    assert wary.notes == ('placed at random: [1]',)


def test_large_moving_objects_pull_the_pose_along():
    frames, truths = two_places()
    drift = np.eye(4)
    drift[0, 3] = 0.4
    mask = np.zeros((42, 56), int)
    mask[:, :42] = 7
    moving = [
        replace(truth, moving={7: np.linalg.matrix_power(drift, i)}, object_id=mask)
        for i, truth in enumerate(truths[:3])
    ]
    T = SimulatedNetwork(moving, ErrorModel(pull=0.8, pull_above=0.2), longest=56).predict(frames[:3]).T_window_camera
    truth = invert(moving[0].T_world_camera) @ moving[2].T_world_camera
    share = 0.8 * (0.75 - 0.2) / 0.8
    # The object moves 0.8 m forward; seen from it, the camera moves 0.8 m back.
    expected = truth[:3, 3] + share * np.array([0, 0, -0.8])
    np.testing.assert_allclose(T[2, :3, 3], expected, atol=1e-9)
    small = [replace(truth, object_id=np.where(np.arange(56) < 8, mask, 0)) for truth in moving]
    T = SimulatedNetwork(small, ErrorModel(pull=0.8, pull_above=0.2), longest=56).predict(frames[:3]).T_window_camera
    np.testing.assert_allclose(T[2], truth, atol=1e-9)


def test_blank_views_give_confident_nonsense():
    frames, truths = two_places()
    frames[1] = Frame(1, 2, np.full((42, 56, 3), 180, np.uint8), frames[1].K)
    predictor = SimulatedNetwork(truths, ErrorModel(blank=2.0, blank_confident=1.0), longest=56)
    prediction = predictor.predict(frames[:3])
    truth = np.stack([invert(truths[0].T_world_camera) @ one.T_world_camera for one in truths[:3]])
    assert angle((invert(truth[1]) @ prediction.T_window_camera[1])[None, :3, :3])[0] > 10
    np.testing.assert_allclose(prediction.T_window_camera[2], truth[2], atol=1e-9)
    assert np.median(np.abs(np.log(prediction.depth[1] / truths[1].depth))) > 0.02
    assert np.isfinite(prediction.depth[1]).all()
    assert prediction.confidence[1].mean() > 0.8


def test_bad_windows_and_bad_models_are_refused(sequence):
    predictor = network(sequence)
    with pytest.raises(ValueError, match='at least one frame'):
        predictor.predict([])
    with pytest.raises(ValueError, match='twice'):
        predictor.predict([sequence.frames[0], sequence.frames[0]])
    with pytest.raises(ValueError, match=r'\(Q, 2\)'):
        predictor.predict(sequence.frames[:2], queries=np.zeros(4))
    with pytest.raises(ValueError, match='outliers is a share'):
        ErrorModel(outliers=1.5)
    with pytest.raises(ValueError, match='rotation must not be negative'):
        ErrorModel(rotation=-1.0)
