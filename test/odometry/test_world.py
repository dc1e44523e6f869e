"""A world with a memory: lost and found again, a new map when nothing is recognised, loops that bend the map."""

import contextlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.evaluation import hazards, scenarios
from vggt_ros.odometry.config import NO_HINTS, MotionHints, OdometryConfig
from vggt_ros.odometry.gravity import Gravity, GravitySource, map_from_camera
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.loops.closing import Loops
from vggt_ros.odometry.loops.verification import ROTATION_FLOOR, SCALE_FLOOR, TRANSLATION_FLOOR
from vggt_ros.odometry.sensors import ScaleMeasurement
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.world import LostError, World, WorldConfig
from vggt_ros.similarity import Similarity
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.synthetic.trajectory import look_at
from vggt_ros.types import Frame, State

ERRORS = replace(hazards.ROUGH, blank=0.0)  # the pictures are black
ELSEWHERE = np.array([97.0, -2.5, 0.0]), np.array([103.0, 2.5, 2.6])


def two_rooms(before, away, after):
    """Along the ellipse in one room, in another room for a while, and on along the ellipse."""
    here = scenarios.room_loop(240, stop=before + after)
    angle = np.linspace(0, 1.0, away)
    position = np.stack([100 + 1.2 * np.cos(angle), 1.2 * np.sin(angle), np.full(away, 1.3)], axis=1)
    outward = position + np.stack([np.cos(2 * angle), np.sin(2 * angle), np.zeros(away)], axis=1)
    there = scenarios._scenario(look_at(position, outward), *ELSEWHERE, pictures=False)
    T = np.concatenate([here.T_world_camera, there.T_world_camera])
    both = scenarios.Scenario(here.frames + there.frames, T, here.truths + there.truths)
    numbers = np.arange(len(both.frames))
    return hazards.select(
        both, np.concatenate([numbers[:before], numbers[before + after :], numbers[before : before + after]])
    )


def run(scenario, world, seed=0, stride=6, hints=NO_HINTS, errors=ERRORS, metres=False):
    """(state, epoch, estimates) after every window. metres: whether a sensor knows the newest frame's depth."""
    network = SimulatedNetwork(scenario.truths, errors, seed, longest=112)
    told = []
    for start in range(0, len(scenario.frames), stride):
        window, estimates = world.plan(scenario.frames[start : start + stride]), []
        with contextlib.suppress(AlignmentError):
            outcome = world.update(window, network.predict(window.frames, window.depth), hints=hints)
            if metres:
                newest = outcome.estimates[-1]
                factor = network.network_depth(newest.frame.index, newest.map) / newest.depth
                said = ScaleMeasurement('depth', float(np.nanmedian(np.log(factor))), 0.005**2)
                outcome = world.measure(outcome, [said])
            estimates = outcome.estimates
        told.append((world.state, world.epoch, estimates))
    return told


def part(scenario, start, stop=None):
    """These frames of a scenario, as they are."""
    return replace(scenario, frames=scenario.frames[start:stop])


def position_error(scenario, estimates, reference):
    """Metres between estimated and true positions, by the similarity that the reference estimates have."""
    ours, true = (
        np.stack([f(one)[:3, 3] for one in reference])
        for f in (lambda one: one.T_map_camera, lambda one: scenario.T_world_camera[one.frame.index])
    )
    from vggt_ros.similarity import umeyama

    fit = umeyama(ours, true)
    return max(
        np.linalg.norm(fit.transform(one.T_map_camera[:3, 3]) - scenario.T_world_camera[one.frame.index][:3, 3])
        for one in estimates
    )


@pytest.fixture(scope='module')
def kidnapped():
    scenario = two_rooms(60, 36, 60)
    return scenario, run(scenario, World(OdometryConfig(window=12, anchor_depths=12), WorldConfig(lost_timeout=0.0)))


def test_a_camera_that_is_carried_away_is_lost_within_two_windows_and_publishes_nothing(kidnapped):
    _, told = kidnapped
    assert {state for state, _, _ in told[:10]} <= {State.TRACKING, State.DEGRADED}
    assert told[11][0] is State.LOST
    assert all(state is State.LOST and not estimates for state, _, estimates in told[11:16])


def test_it_is_found_back_where_it_is(kidnapped):
    scenario, told = kidnapped
    back = [number for number, (state, _, _) in enumerate(told) if state is State.RELOCALIZED]
    assert back
    assert back[0] <= 21
    assert all(epoch == 0 for _, epoch, _ in told)
    before = [one for _, _, estimates in told[:10] for one in estimates]
    after = [one for _, _, estimates in told[back[0] :] for one in estimates]
    assert position_error(scenario, after, before) < 0.15
    assert told[back[0]][2][0].state is State.RELOCALIZED
    # odom goes on where it was: nobody knows how the camera came there.
    np.testing.assert_array_equal(told[back[0]][2][0].T_odom_camera, before[-1].T_odom_camera)


def test_when_nothing_is_recognised_in_time_a_new_map_begins():
    scenario = two_rooms(60, 60, 6)
    world = World(OdometryConfig(window=12, anchor_depths=12), WorldConfig(lost_timeout=2.0))
    told = run(scenario, world)
    epochs = [epoch for _, epoch, _ in told[:-1]]
    assert epochs[:12] == [0] * 12
    begun = epochs.index(1)
    assert set(epochs[begun:]) == {1}
    new = [one for state, _, estimates in told[begun:-1] for one in estimates]
    assert {one.epoch for one in new} == {1}
    assert {state for state, _, _ in told[begun:-1]} <= {State.TRACKING, State.DEGRADED}
    # All that was seen since it was lost is in the new map.
    assert world.keyframes[0].frame.index < new[0].frame.index


def test_a_camera_that_is_lost_for_ever_keeps_no_more_than_a_map():
    scenario = two_rooms(36, 180, 0)
    world = World(OdometryConfig(window=12, anchor_depths=12, keyframes=9), WorldConfig(lost_timeout=0.0))
    run(part(scenario, 0, 120), world)
    kept = []
    for start in range(120, len(scenario.frames), 24):
        run(part(scenario, start, start + 24), world)
        assert world.state is State.LOST
        lost = world._lost
        kept.append([one.frame.index for one in lost.keyframes])
        assert set(kept[-1]) <= {keyframe.frame.index for keyframe in lost.own.keyframes}
        assert len(kept[-1]) <= 9
    assert kept[-1][-1] > kept[0][-1]  # it went on all the time


def test_while_a_place_is_being_verified_no_new_map_begins(kidnapped):
    """Three windows have to agree, and the time runs out with the first of them."""
    scenario, told = kidnapped
    states = [state for state, _, _ in told]
    lost, back = states.index(State.LOST), states.index(State.RELOCALIZED)
    timeout = 0.6 * (back - 2 - lost) - 0.3
    world = World(OdometryConfig(window=12, anchor_depths=12), WorldConfig(lost_timeout=timeout))
    run(part(scenario, 0, 6 * (back - 1)), world)
    assert world.standing().reasons == ('lost: 1 of 3 windows agree',)
    after = run(part(scenario, 6 * (back - 1), 6 * (back + 1)), world)
    assert [(state, epoch) for state, epoch, _ in after] == [(State.LOST, 0), (State.RELOCALIZED, 0)]


def test_without_recognition_a_lost_camera_begins_anew_as_well():
    told = run(two_rooms(36, 48, 6), World(OdometryConfig(window=12, anchor_depths=12), WorldConfig(False, 1.0)))
    assert told[-2][1] == 1


# Broken


def test_after_a_break_a_view_like_a_place_far_away_is_not_placed_near():
    """A third of the ellipse, and at once back to where it was in the first half of that."""
    cut = hazards.select(scenarios.room_loop(240, stop=90), np.concatenate([np.arange(90), np.arange(18, 48)]))
    world = World(OdometryConfig(window=12, anchor_depths=12))
    before = [one for _, _, estimates in run(part(cut, 0, 90), world) for one in estimates]
    known = [(one, one.T_map_camera.copy(), one.depth.copy(), one.fused, one.pose_weight) for one in world.keyframes]
    window = world.plan(cut.frames[90:96])
    prediction = SimulatedNetwork(cut.truths, ERRORS, 0, longest=112).predict(window.frames, window.depth)
    with pytest.raises(LostError, match='places far from here look like them'):
        world.update(window, prediction, hints=MotionHints(broken=True))
    assert world.state is State.LOST
    assert world.standing().reasons == ('nothing connects the images, and places far from here look like them',)
    assert len(world.keyframes) == len(known)
    for keyframe, (one, T, depth, fused, pose_weight) in zip(world.keyframes, known, strict=True):
        assert keyframe is one
        np.testing.assert_array_equal(keyframe.T_map_camera, T)
        np.testing.assert_array_equal(keyframe.depth, depth)
        assert (keyframe.fused, keyframe.pose_weight) == (fused, pose_weight)
    after = run(part(cut, 96), world)
    states = [state for state, _, _ in after]
    assert State.RELOCALIZED in states
    assert set(states[: states.index(State.RELOCALIZED)]) == {State.LOST}
    assert position_error(cut, [one for _, _, estimates in after for one in estimates], before) < 0.15


def test_a_break_with_nothing_alike_far_away_is_doubted_and_placed():
    scenario = scenarios.room_loop(240, stop=42)
    certain, doubted = World(OdometryConfig()), World(OdometryConfig())
    sure, unsure = run(scenario, certain), run(part(scenario, 0, 12), doubted)
    assert {state for state, _, _ in sure[2:]} == {State.TRACKING}
    for start in range(12, 42, 6):
        unsure += run(part(scenario, start, start + 6), doubted, hints=MotionHints(broken=True))
        assert doubted.standing().reasons == ('nothing that was tracked connects the images',)
    assert {state for state, _, _ in unsure[2:]} == {State.DEGRADED}
    pairs = [pair for (_, _, a), (_, _, b) in zip(unsure, sure, strict=True) for pair in zip(a, b, strict=True)]
    assert len(pairs) == 42
    for one, same in pairs:
        np.testing.assert_array_equal(one.T_map_camera, same.T_map_camera)
        assert (one.state is State.DEGRADED) == (np.trace(one.covariance) > 1.5 * np.trace(same.covariance))
    assert position_error(scenario, [one for one, _ in pairs], [one for one, _ in pairs]) < 0.15


# Bounded


def resident():
    """Bytes of memory that this process holds."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096


def test_3000_frames_need_no_more_memory_than_half_of_them():
    scenario = scenarios.room_loop(240)
    network = SimulatedNetwork(scenario.truths, ERRORS, 0, longest=112)
    network.truth = lambda index: scenario.truths[index % 240]
    world = World(OdometryConfig(window=8, anchor_depths=3, keyframes=30))
    lost = 0
    for start in range(0, 3000, 6):
        if start == 1500:
            before = resident()
        frames = [replace(scenario.frames[i % 240], index=i, stamp=i * 10**8) for i in range(start, start + 6)]
        window = world.plan(frames)
        try:
            world.update(window, network.predict(window.frames, window.depth))
        except AlignmentError:
            lost += 1
        assert len(world.keyframes) <= 30
    assert resident() - before < 12e6  # all keyframes that came meanwhile would be 20 MB
    assert lost < 5
    assert world.state in (State.TRACKING, State.DEGRADED, State.RELOCALIZED)
    assert world.epoch == 0


# Standing still


def test_a_camera_that_stands_keeps_its_pose_and_has_fresh_depth():
    scenario = scenarios.room_loop(240, stop=30)
    network = SimulatedNetwork(scenario.truths, ERRORS, 0, longest=112)
    world = World(OdometryConfig(window=8))
    for start in range(0, 24, 6):
        window = world.plan(scenario.frames[start : start + 6])
        before = world.update(window, network.predict(window.frames, window.depth)).estimates[-1]
    kept = [keyframe.T_map_camera.copy() for keyframe in world.keyframes]
    for index in range(24, 30):
        window = world.plan(scenario.frames[index : index + 1])
        hints = MotionHints(held=True)
        (held,) = world.update(window, network.predict(window.frames, window.depth), hints=hints).estimates
        np.testing.assert_array_equal(held.T_map_camera, before.T_map_camera)
        np.testing.assert_array_equal(held.T_odom_camera, before.T_odom_camera)
        assert held.state is world.state is State.STATIONARY
        assert not held.velocity.any()
        assert held.frame.index == index
        assert np.isfinite(held.depth).mean() > 0.9
    for keyframe, T in zip(world.keyframes, kept, strict=True):
        np.testing.assert_array_equal(keyframe.T_map_camera, T)


# Gravity


def test_a_pitched_camera_does_not_tilt_the_map():
    """The camera looks down by 30 degrees: its map is level when gravity is known, and later when it comes to be."""
    pitch = np.radians(30.0)
    down = np.array([0.0, np.cos(pitch), np.sin(pitch)])
    scenario = scenarios.room_loop(240, stop=60)
    network = SimulatedNetwork(scenario.truths, replace(ERRORS, rotation=0.0), 0, longest=112)
    known, late = World(OdometryConfig(window=8)), World(OdometryConfig(window=8))
    known.level_first(Gravity(down, 0.01, GravitySource.IMU))
    assert known.gravity.source is GravitySource.IMU
    for world in (known, late):
        estimates = []
        for start in range(0, 60, 3):
            window = world.plan(scenario.frames[start : start + 3])
            outcome = world.update(window, network.predict(window.frames, window.depth))
            if world is late:
                R_camera0_camera = scenario.T_world_camera[0, :3, :3].T
                newest = outcome.estimates[-1].frame.index
                R_camera0_camera = R_camera0_camera @ scenario.T_world_camera[newest, :3, :3]
                outcome = world.level(outcome, Gravity(R_camera0_camera.T @ down, 0.01, GravitySource.IMU))
            estimates += outcome.estimates
        up = estimates[-1].T_map_camera[:3, :3] @ (-R_camera0_camera.T @ down if world is late else np.zeros(3))
        if world is late:
            # Half a degree a window: 20 windows turn it by 10 of the 30 degrees.
            tilt = np.degrees(np.arccos(up[2]))
            assert 19 < tilt < 21.5
            assert set(outcome.corrections) == {keyframe.frame.index for keyframe in world.keyframes}
        else:
            np.testing.assert_allclose(estimates[0].T_map_camera[:3, :3], map_from_camera(down), atol=1e-6)


# Loops


def keyframe(index, T, drift):
    frame = Frame(index, (index + 1) * 10**8, np.zeros((12, 16, 3), np.uint8))
    depth = np.full((12, 16), 2.0, np.float32)
    return Keyframe(frame, T, depth, depth / 4, np.eye(3), np.zeros(4, np.float32), drift=np.array(drift))


def ring(count=24, radius=2.0):
    """Poses on a circle, looking ahead, the last where the first is."""
    angle = np.linspace(0, 2 * np.pi, count)
    position = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(count)], axis=1)
    return look_at(position, position + np.stack([-np.sin(angle), np.cos(angle), np.zeros(count)], axis=1))


def test_a_loop_spreads_what_it_says_over_the_way():
    """Every step is 1 % too long and turns 0.5 degrees too far; the end of the ring is told where it belongs."""
    pytest.importorskip('gtsam')
    true = ring()
    drifted = [true[0]]
    for before, now in pairwise(true):
        step = camera.invert(before) @ now
        step[:3, 3] *= 1.01
        step[:3, :3] = step[:3, :3] @ Rotation.from_rotvec([0, np.radians(0.5), 0]).as_matrix()
        drifted.append(drifted[-1] @ step)
    variance = np.array([np.radians(0.5) ** 2, 0.02**2, 0.01**2])
    keyframes = [keyframe(i, T, i * variance) for i, T in enumerate(drifted)]
    back = true[-1] @ camera.invert(drifted[-1])
    loops = Loops()
    moved = loops.close(keyframes, 0, 23, Similarity(1.0, back[:3, :3], back[:3, 3]), fixed_scale=True)
    np.testing.assert_allclose(moved[0].pose(drifted[0]), true[0], atol=1e-9)
    errors = [np.linalg.norm(moved[i].pose(T)[:3, 3] - true[i][:3, 3]) for i, T in enumerate(drifted)]
    before = [np.linalg.norm(T[:3, 3] - true[i][:3, 3]) for i, T in enumerate(drifted)]
    assert errors[-1] < 0.02
    assert max(errors) < 0.35 * max(before)
    assert len(loops) == 1


def test_the_drift_of_a_way_is_that_of_the_shorter_one():
    variance = np.array([1e-5, 1e-4, 1e-5])
    keyframes = [keyframe(i, T, i * variance) for i, T in enumerate(ring())]
    loops, T = Loops(), ring()[-1]
    whole = loops.drift(keyframes, 0, T, 24 * variance)
    half = loops.drift(keyframes, 12, T, 24 * variance)
    assert np.all(np.linalg.eigvalsh(whole)[-3:] > np.linalg.eigvalsh(half)[-3:])
    pytest.importorskip('gtsam')
    loops.close(keyframes, 0, 23, Similarity(1.0, np.eye(3), np.zeros(3)), fixed_scale=True)
    after = loops.drift(keyframes, 0, T, 24 * variance)
    assert np.trace(after) < 0.5 * np.trace(whole)
    loops.forget(keyframes[1:])
    assert len(loops) == 0


def test_what_a_loop_would_tell_is_the_drift_in_its_own_variances():
    variance = np.array([1e-5, 1e-4, 1e-5])
    standing = [keyframe(i, np.eye(4), i * variance) for i in range(8)]  # no lever: the sum of the steps
    loop = np.square([ROTATION_FLOOR, 2.0 * TRANSLATION_FLOOR, SCALE_FLOOR])
    loops = Loops()
    assert loops.gain(standing, 2, np.eye(4), 8 * variance) == pytest.approx((6 * variance / loop).max())
    T = ring()
    moving = [keyframe(i, one, i * variance) for i, one in enumerate(T)]
    gains = [loops.gain(moving[:i], 0, T[i], i * variance) for i in range(1, 24)]
    assert (np.diff(gains) > 0).all()
    assert gains[-1] > 3
    pytest.importorskip('gtsam')
    loops.close(moving, 0, 23, Similarity(1.0, np.eye(3), np.zeros(3)), fixed_scale=True)
    # What is left is the loop's own, and then what comes after it.
    assert loops.gain(moving, 0, T[23], 23 * variance) == pytest.approx(1.0, abs=0.01)
    assert 1.01 < loops.gain(moving, 0, T[1], 24 * variance) < loops.gain(moving, 0, T[2], 25 * variance) < gains[-1]


@pytest.mark.parametrize(('gain', 'least', 'most'), [(None, 0, 0), (0.0, 5, 32)])
def test_on_known_ground_no_loop_is_closed_that_tells_nothing(monkeypatch, gain, least, most):
    """There and back over 2 m, twice, in metres and with a network so good that the way says more than a loop would."""
    pytest.importorskip('gtsam')
    if gain is not None:
        monkeypatch.setattr('vggt_ros.odometry.world.GAIN', gain)
    phase = 2 * np.pi * np.arange(96) / 48
    position = np.stack([np.cos(phase), np.full(96, -0.5), np.full(96, 1.4)], axis=1)
    yaw = 0.6 * np.sin(phase)
    ahead = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(96)], axis=1)
    scenario = scenarios._scenario(look_at(position, position + ahead), *scenarios.ROOM, pictures=False)
    good = replace(ERRORS, rotation=0.08, translation=0.002, depth_window=0.005, depth_frame=0.005, depth_pixel=0.003)
    world = World(OdometryConfig(window=8))
    told = run(scenario, world, stride=3, errors=good, metres=True)
    states = [state for state, _, _ in told]
    assert least <= states.count(State.RELOCALIZED) <= most
    assert set(states) <= {State.TRACKING, State.DEGRADED, State.RELOCALIZED}
    late = [one for _, _, estimates in told[16:] for one in estimates]
    assert position_error(scenario, late, late) < 0.1
