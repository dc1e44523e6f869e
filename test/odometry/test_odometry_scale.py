"""The metre: how it enters the map, and that nothing jumps without a word."""

import dataclasses

import numpy as np
import pytest

from vggt_ros.camera import invert
from vggt_ros.evaluation import runs, scenarios
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.types import Scale

JITTER = ErrorModel(normalised=True, window_scale=0.25)


@pytest.fixture(scope='module')
def known():
    return runs.run(scenarios.room_loop(60), JITTER, 0, sensor=True)


def test_lengths_are_metres_once_the_sensor_is_confirmed(known):
    scales = [one.scale for one in known.estimates]
    begun = scales.index(Scale.METRIC)
    assert 12 < begun < 40
    assert set(scales[:begun]) == {Scale.RELATIVE}
    assert set(scales[begun:]) == {Scale.METRIC}
    metres = runs.depth_scales(known)
    assert metres[0] > 1.5  # a unit of its own before
    np.testing.assert_allclose(metres[begun:], 1, atol=0.01)
    ours, true = runs.steps(known.T_map), runs.steps(known.T_true)
    np.testing.assert_allclose(ours[begun:, :3, 3], true[begun:, :3, 3], atol=0.003)


def test_odom_goes_on_where_it_was_when_the_unit_changes(known):
    begun = [one.scale for one in known.estimates].index(Scale.METRIC)
    across = invert(known.T_odom[begun - 1]) @ known.T_odom[begun]
    true = invert(known.T_true[begun - 1]) @ known.T_true[begun]
    # The step into the new unit is a step in metres, not a jump by the ratio of the units.
    np.testing.assert_allclose(across[:3, 3], true[:3, 3], atol=0.003)


def test_without_a_sensor_nothing_is_called_metric():
    run = runs.run(scenarios.room_loop(36), JITTER, 0)
    assert {one.scale for one in run.estimates} == {Scale.RELATIVE}


def test_a_sensor_holds_the_metre_where_the_anchors_alone_would_drift():
    scenario = scenarios.corridor(150.0, 1.0)
    errors = dataclasses.replace(JITTER, depth_frame=0.015, depth_pixel=0.01)
    held = runs.run(scenario, errors, 3, sensor=True)
    metres = runs.depth_scales(held)
    begun = [one.scale for one in held.estimates].index(Scale.METRIC)
    assert abs(np.median(metres[begun:]) - 1) < 0.01
    assert abs(np.median(metres[-24:]) - 1) < 0.02
