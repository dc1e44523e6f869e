"""A principal point that is not in the image's middle: the network looks past it, the odometry does not."""

from dataclasses import replace

import numpy as np
import pytest

from vggt_ros import pipeline
from vggt_ros.camera import invert
from vggt_ros.evaluation import live, scenarios
from vggt_ros.odometry.windows.axes import along_true_axes, turn_to_axis
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.simulated import SimulatedNetwork

SIZE = scenarios.SIZE


@pytest.mark.parametrize('share', [0.0, 0.03, 0.08, -0.2])
def test_exact_predictions_become_exact_again(share):
    scenario = scenarios.room_loop(40, stop=6, K=scenarios.off_centre(share))
    network = SimulatedNetwork(scenario.truths, ErrorModel(centred=True), longest=SIZE[0])
    predicted = network.predict(scenario.frames, depth=[1, 5])
    found = along_true_axes(scenario.frames, predicted)
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


def test_a_camera_that_nobody_knows_stays_as_the_network_sees_it():
    scenario = scenarios.room_loop(40, stop=3, K=scenarios.off_centre(0.08))
    network = SimulatedNetwork(scenario.truths, ErrorModel(centred=True), longest=SIZE[0])
    unknown = [replace(frame, K=None) for frame in scenario.frames]
    predicted = network.predict(unknown)
    assert along_true_axes(unknown, predicted) is predicted


def test_a_network_that_knows_the_principal_point_is_believed():
    scenario = scenarios.room_loop(40, stop=3, K=scenarios.off_centre(0.08))
    network = SimulatedNetwork(scenario.truths, ErrorModel(), longest=SIZE[0])
    predicted = network.predict(scenario.frames)
    assert along_true_axes(scenario.frames, predicted) is predicted


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
    monkeypatch.setattr(pipeline, 'along_true_axes', lambda _, prediction: prediction)
    assert corrected < 0.03
    assert ate() > 3 * corrected
