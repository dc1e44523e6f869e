"""A network that is of no use, or was of none once: corners carry the pose, and that is said."""

from dataclasses import replace

import numpy as np
import pytest

from vggt_ros.evaluation import hazards, live, scenarios
from vggt_ros.odometry.windows import by_corners as corners_carry
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Accuracy, State


@pytest.fixture(scope='module')
def room():
    return scenarios.room_loop(120, pictures=True, stop=36)


def run(room, errors=None, network=None, stride=1):
    errors = errors or hazards.ROUGH
    network = network or SimulatedNetwork(room.truths, errors, 0, 224)
    # It claims to be as good as any, however wrong it is.
    network.accuracy = Accuracy()
    return live.run_pipeline(room, errors, 0, window=8, stride=stride, delay=0, predictor=network)


def by_corners(found):
    return [window for window in found.windows if any('placed by corners' in x for x in window.result.reasons)]


def share(found):
    """Of the images with a pose that is to be used."""
    return np.mean([one is not None and one.state is not State.LOST for one in found.published])


@pytest.fixture(scope='module')
def good(room):
    return run(room)


def test_a_good_network_carries_everything_itself(good):
    assert by_corners(good) == []


def test_poses_that_are_noise_do_no_harm_and_are_said(room, good):
    """10 degrees and 30 % of the depth: each window is refused, and each is placed."""
    bad = run(room, replace(hazards.ROUGH, rotation=10.0, translation=0.3))
    assert len(by_corners(bad)) > len(room.frames) - 5
    assert all(len(text) > len('placed by corners: ') for text in by_corners(bad)[0].result.reasons)
    assert share(bad) > 0.95
    assert live.error(bad).ate < 3 * live.error(good).ate
    assert live.error(bad).jump < 0.05


def test_a_pose_that_hangs_on_few_corners_is_in_doubt(room, monkeypatch):
    monkeypatch.setattr('vggt_ros.odometry.windows.by_corners.SURE', 10_000)
    few = replace(room, frames=room.frames[:12])
    found = by_corners(run(few, replace(hazards.ROUGH, rotation=10.0, translation=0.3)))
    assert len(found) > 5
    assert all(window.result.state is State.DEGRADED for window in found)


class Misplacing(SimulatedNetwork):
    """One frame is put elsewhere, 25 degrees and half a depth away, in whatever window it is."""

    def predict(self, frames, depth=None, queries=None):
        found = super().predict(frames, depth, queries)
        T = found.T_window_camera.copy()
        for slot, frame in enumerate(frames):
            if frame.index == 18 and slot:
                T[slot, :3, :3] = T[slot, :3, :3] @ np.array([[0.906, 0, 0.423], [0, 1, 0], [-0.423, 0, 0.906]])
                T[slot, :3, 3] += 0.5
        return replace(found, T_window_camera=T)


def test_one_image_that_the_network_misplaces_costs_nothing(room):
    found = run(room, network=Misplacing(room.truths, hazards.ROUGH, 0, 224))
    assert share(found) == 1
    assert len(by_corners(found)) > 0
    assert live.error(found).ate < 0.04
    assert live.error(found).jump < 0.05


def test_a_map_may_begin_by_its_corners(room):
    """The first window is of no use either; its depth alone says what a length is."""
    found = run(room, replace(hazards.ROUGH, rotation=20.0, translation=0.5), stride=6)
    first = next(window.result for window in found.windows if window.result.estimates)
    assert any('placed by corners' in text for text in first.reasons)
    assert share(found) > 0.8
    assert live.error(found).ate < 0.06


def test_where_only_pairs_of_images_tell_the_camera_goes_on_and_that_is_said(room, monkeypatch):
    """Nothing that is seen for longer holds the new frame: it hangs on the one before."""
    monkeypatch.setattr('vggt_ros.odometry.windows.by_corners._holds', lambda refined, new: False)
    few = replace(room, frames=room.frames[:24])
    found = run(few, replace(hazards.ROUGH, rotation=10.0, translation=0.3))
    paired = [window for window in by_corners(found) if 'only pairs of images tell' in window.result.reasons[0]]
    assert len(paired) > 5
    assert all(window.result.state is State.DEGRADED for window in paired)
    assert live.error(found).jump < 0.1


def test_a_camera_that_few_points_hold_goes_on_by_what_it_shares_with_the_image_before(room, monkeypatch):
    """Neither surfaces nor points tie the new frame to the map; most of its corners moved as the image before says."""
    monkeypatch.setattr('vggt_ros.odometry.odometry.linked', lambda placed, new, least, seen: seen.tolist())
    refine = corners_carry.refine

    def few(*args, **named):
        refined = refine(*args, **named)
        return replace(refined, ties=np.minimum(refined.ties, 10))

    monkeypatch.setattr(corners_carry, 'refine', few)
    found = run(replace(room, frames=room.frames[:24]), replace(hazards.ROUGH, rotation=10.0, translation=0.3))
    carried = [window for window in by_corners(found) if window.result.estimates]
    assert len(carried) > 15
    assert all(window.result.state is State.DEGRADED for window in carried), 'nobody knows its place well'
    assert share(found) > 0.9
