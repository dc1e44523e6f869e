"""A lens that is not what the network takes it for: it looks elsewhere, or sees longer or shorter than it does."""

from dataclasses import replace

import numpy as np
import pytest

from vggt_ros import pipeline
from vggt_ros.camera import invert
from vggt_ros.evaluation import hazards, live, scenarios
from vggt_ros.odometry.windows.lenses import misjudged, through_true_lenses, turn_to_axis
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.simulated import SimulatedNetwork

SIZE = scenarios.SIZE


@pytest.mark.parametrize('share', [0.0, 0.03, 0.08, -0.2])
def test_exact_predictions_become_exact_again(share):
    scenario = scenarios.room_loop(40, stop=6, K=scenarios.off_centre(share))
    network = SimulatedNetwork(scenario.truths, ErrorModel(centred=True), longest=SIZE[0])
    predicted = network.predict(scenario.frames, depth=[1, 5])
    found = through_true_lenses(scenario.frames, predicted)
    wanted = invert(scenario.T_world_camera[0]) @ scenario.T_world_camera
    np.testing.assert_allclose(found.T_window_camera, wanted, atol=1e-9)
    for slot in (1, 5):
        truth = network.network_depth(slot, predicted.maps[slot])
        np.testing.assert_allclose(found.depth[slot], truth, rtol=1e-5)
    if share:
        assert np.abs(predicted.T_window_camera - wanted).max() > 0.01
        assert np.abs(predicted.depth[5] / network.network_depth(5, predicted.maps[5]) - 1).max() > 0.01
    else:
        assert found is predicted


@pytest.mark.parametrize('factor', [1.05, 0.92, 0.5])
def test_a_lens_taken_for_another_is_put_right(factor):
    scenario = scenarios.room_loop(40, stop=6)
    errors = ErrorModel(centred=True, focal=factor, focal_follows=1.0)
    network = SimulatedNetwork(scenario.truths, errors, longest=SIZE[0])
    predicted = network.predict(scenario.frames, depth=[1, 5])
    assert misjudged(scenario.frames, predicted) == pytest.approx(np.log(factor))
    found = through_true_lenses(scenario.frames, predicted)
    wanted = invert(scenario.T_world_camera[0]) @ scenario.T_world_camera
    np.testing.assert_allclose(found.T_window_camera, wanted, atol=1e-9)
    for slot in (1, 5):
        np.testing.assert_allclose(found.depth[slot], network.network_depth(slot, predicted.maps[slot]), rtol=1e-5)


def test_frames_without_a_known_camera_say_nothing_of_the_lens():
    scenario = scenarios.room_loop(40, stop=3)
    network = SimulatedNetwork(scenario.truths, ErrorModel(focal=1.2), longest=SIZE[0])
    unknown = [replace(frame, K=None) for frame in scenario.frames]
    assert misjudged(unknown, network.predict(unknown)) == 0


@pytest.mark.parametrize('factor', [1.05, 0.92])
def test_a_lens_taken_for_another_does_not_bend_the_map(factor):
    """0.11 and 0.18 m where its word is taken as it is."""
    scenario = scenarios.room_loop(120, pictures=True, stop=60)
    errors = replace(hazards.ROUGH, centred=True, focal=factor, focal_follows=1.0)
    assert live.error(live.run_pipeline(scenario, errors, 0)).ate < 0.04


def test_a_camera_that_nobody_knows_stays_as_the_network_sees_it():
    scenario = scenarios.room_loop(40, stop=3, K=scenarios.off_centre(0.08))
    network = SimulatedNetwork(scenario.truths, ErrorModel(centred=True), longest=SIZE[0])
    unknown = [replace(frame, K=None) for frame in scenario.frames]
    predicted = network.predict(unknown)
    assert through_true_lenses(unknown, predicted) is predicted


def test_a_network_that_knows_the_principal_point_is_believed():
    scenario = scenarios.room_loop(40, stop=3, K=scenarios.off_centre(0.08))
    network = SimulatedNetwork(scenario.truths, ErrorModel(), longest=SIZE[0])
    predicted = network.predict(scenario.frames)
    assert through_true_lenses(scenario.frames, predicted) is predicted


@pytest.mark.parametrize('offset', [(0.0, 0.0), (20.0, 0.0), (-30.0, 12.0)])
def test_the_turn_takes_the_axis_to_the_middle_of_the_image(offset):
    K = scenarios.K.copy()
    K[:2, 2] += offset
    M = turn_to_axis(K, (np.array(SIZE) - 1) / 2)
    np.testing.assert_allclose(M @ M.T, np.eye(3), atol=1e-12)
    seen = K @ M @ [0, 0, 1]
    np.testing.assert_allclose(seen[:2] / seen[2], (np.array(SIZE) - 1) / 2, atol=1e-9)


def test_corners_and_the_network_agree_about_where_the_camera_looks(monkeypatch):
    """Corners know the true camera: with the network's view of it as it is, either is bent by the other."""
    scenario = scenarios.room_loop(120, pictures=True, stop=60, K=scenarios.off_centre(0.08))
    errors = replace(scenarios.TOY, centred=True)

    def ate():
        return live.error(live.run_pipeline(scenario, errors, 0)).ate

    corrected = ate()
    monkeypatch.setattr(pipeline, 'through_true_lenses', lambda _, prediction: prediction)
    assert corrected < 0.03
    assert ate() > 1.3 * corrected
