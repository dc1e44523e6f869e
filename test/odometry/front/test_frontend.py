"""The camera-rate pose over rendered pictures, hung on solved frames that are the truth or wrong by a known amount."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import fit, invert
from vggt_ros.evaluation.scenarios import PERIOD, ROOM, K, Scenario, _scenario
from vggt_ros.odometry.front.frontend import FrameResult, FrontEnd
from vggt_ros.synthetic.trajectory import look_at
from vggt_ros.types import Estimate, Scale, State

COUNT = 26
SOLVED = range(0, COUNT, 6)
LATE = 3  # images between a frame and its solution


@pytest.fixture(scope='module')
def scenario() -> Scenario:
    """A part of the room's ellipse: 26 images, 5 cm and 2 degrees apart."""
    angle = np.linspace(0, 0.75, COUNT)
    position = np.stack([2 * np.cos(angle), 1.5 * np.sin(angle), np.full(COUNT, 1.5)], axis=1)
    ahead = np.stack([-2 * np.sin(angle), 1.5 * np.cos(angle), np.zeros(COUNT)], axis=1)
    return _scenario(look_at(position, position + ahead), *ROOM, pictures=True)


def solution(scenario: Scenario, index: int, T_map=None, T_odom=None) -> Estimate:
    """The truth of one frame, or what is put in its place."""
    frame, T = scenario.frames[index], scenario.T_world_camera[index]
    pixel_map = fit(frame.size, 224)
    k = pixel_map.K_to_network(K)
    depth = scenario.truths[index].depth(k, pixel_map.size).astype(np.float32)
    return Estimate(
        frame=frame,
        T_map_camera=T if T_map is None else T_map,
        T_odom_camera=T if T_odom is None else T_odom,
        covariance=np.eye(6) * 1e-6,
        step_covariance=np.eye(6) * 1e-6,
        velocity=None,
        velocity_covariance=np.eye(6),
        depth=depth,
        confidence=np.ones_like(depth),
        K=k,
        map=pixel_map,
        state=State.TRACKING,
        scale=Scale.RELATIVE,
        epoch=0,
    )


@dataclass
class Run:
    sights: list[FrameResult]
    renewed: list[int]


def follow(scenario: Scenario, disturbed=lambda index: np.eye(4)) -> Run:
    """Every image is looked at, every sixth solved three images late; disturbed: index -> T_wrong_map."""
    front, sights, renewed = FrontEnd(), [], []
    for frame in scenario.frames:
        late = frame.index - LATE
        if late in SOLVED:
            T = disturbed(late) @ scenario.T_world_camera[late]
            assert front.solved(solution(scenario, late, T_map=T, T_odom=T))
            renewed.append(frame.index)
        sights.append(front.look(frame))
    return Run(sights, renewed)


def difference(T, truth):
    """(metres, rad) between two poses."""
    return np.linalg.norm(T[:3, 3] - truth[:3, 3]), Rotation.from_matrix(T[:3, :3] @ truth[:3, :3].T).magnitude()


def step_errors(scenario: Scenario, sights: list[FrameResult]) -> np.ndarray:
    """(N - 1, 2) error of each step in odom against the true step; NaN where there is none."""
    rows = []
    for i in range(1, len(sights)):
        a, b = sights[i - 1].located, sights[i].located
        if a is None or b is None:
            rows.append((np.nan, np.nan))
            continue
        true = invert(scenario.T_world_camera[i - 1]) @ scenario.T_world_camera[i]
        rows.append(difference(invert(a.T_odom_camera) @ b.T_odom_camera, true))
    return np.array(rows)


@pytest.fixture(scope='module')
def exact(scenario) -> Run:
    return follow(scenario)


def test_with_exact_solutions_every_image_is_located(scenario, exact):
    located = exact.sights[LATE:]
    assert all(sight.located is not None and sight.reason == '' for sight in located)
    errors = np.array(
        [difference(one.located.T_map_camera, scenario.T_world_camera[one.frame.index]) for one in located]
    )
    assert errors[:, 0].max() < 0.025
    assert errors[:, 1].max() < np.radians(0.4)
    for sight in located:
        error = sight.located.T_map_camera[:3, 3] - scenario.T_world_camera[sight.frame.index][:3, 3]
        assert error @ np.linalg.solve(sight.located.covariance[:3, :3], error) < 3 * 11.3  # 99 % of 3 dof, and some
        assert not sight.broken
        assert not sight.motion.stationary


def test_odom_adds_steps_up(scenario, exact):
    """It hangs on the map once, at its first image; from there on it goes by itself."""
    first = exact.sights[LATE]
    np.testing.assert_allclose(first.located.T_odom_camera, first.located.T_map_camera, atol=1e-9)
    errors = np.array(
        [difference(one.located.T_odom_camera, scenario.T_world_camera[one.frame.index]) for one in exact.sights[LATE:]]
    )
    assert errors[:, 0].max() < 0.03
    assert errors[:, 1].max() < np.radians(0.6)


def test_odom_has_no_seam_where_the_map_is_corrected(scenario, exact):
    def disturbed(index):
        """Every solved frame is somewhere else, by about 20 cm and 5 degrees."""
        rng, T = np.random.default_rng(index), np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix()
        T[:3, 3] = rng.normal(0, 0.12, 3)
        return T

    run = follow(scenario, disturbed)
    errors = step_errors(scenario, run.sights)[LATE:]
    across = np.zeros(len(errors), bool)
    across[np.array(run.renewed[1:]) - LATE - 1] = True
    assert across.sum() == 3
    assert np.isfinite(errors).all()
    # In the map the renewal is a jump ...
    jumps = [
        difference(invert(run.sights[i - 1].located.T_map_camera) @ run.sights[i].located.T_map_camera, np.eye(4))[0]
        for i in run.renewed[1:]
    ]
    assert min(jumps) > 0.1
    # ... and in odom nothing at all.
    assert errors[:, 0].max() < 0.015
    assert errors[across, 0].mean() < 1.5 * errors[~across, 0].mean() + 0.001
    assert errors[across, 1].mean() < 1.5 * errors[~across, 1].mean() + np.radians(0.02)
    # Where the solved frames stand in the map makes no difference to odom, except where it began.
    whole = [sight.located.T_odom_camera for sight in exact.sights[LATE:]]
    undisturbed = [invert(whole[0]) @ T for T in whole]
    now = [invert(run.sights[LATE].located.T_odom_camera) @ one.located.T_odom_camera for one in run.sights[LATE:]]
    np.testing.assert_allclose(now, undisturbed, atol=1e-6)


def test_before_anything_is_solved_there_is_no_pose_and_a_reason(scenario):
    front = FrontEnd()
    for frame in scenario.frames[:3]:
        sight = front.look(frame)
        assert sight.located is None
        assert sight.reason == 'no frame is solved yet'
        assert front.corners(frame.index) is not None
    assert front.corners(99) is None
    assert not front.solved(solution(scenario, 10))  # its corners are not known
    assert front.look(scenario.frames[3]).located is None


def moved_to(scenario: Scenario, picture: int, index: int):
    """Another frame's picture at the time of ``index``."""
    frame = scenario.frames[picture]
    return replace(frame, index=index, stamp=(index + 1) * PERIOD)


def test_a_teleport_is_broken_and_has_no_pose(scenario):
    front = FrontEnd()
    for frame in scenario.frames[:4]:
        front.look(frame)
    assert front.solved(solution(scenario, 2))
    assert front.look(scenario.frames[4]).located is not None
    image = np.ascontiguousarray(scenario.frames[25].image[::-1, ::-1])
    sight = front.look(replace(moved_to(scenario, 25, 5), image=image))
    assert sight.broken
    assert sight.located is None
    assert sight.reason != ''
    again = front.look(replace(moved_to(scenario, 25, 6), image=image))
    assert not again.broken


def test_a_break_parts_the_images_before_it_from_those_after(scenario, monkeypatch):
    monkeypatch.setattr('vggt_ros.odometry.front.frontend.HISTORY', 5)
    front = FrontEnd()

    def look_upside_down(index: int) -> None:
        frame = moved_to(scenario, 14 + index, index)
        front.look(replace(frame, image=np.ascontiguousarray(frame.image[::-1, ::-1])))

    for frame in scenario.frames[:4]:
        front.look(frame)
    for index in range(4, 7):
        look_upside_down(index)
    expected = {(0, 3): False, (3, 4): True, (0, 6): True, (2, 5): True, (4, 6): False, (4, 4): False}
    assert {ends: front.broken(*ends) for ends in expected} == expected
    for index in range(7, 10):
        assert front.broken(3, index)
        look_upside_down(index)
    assert not front.broken(3, 9)  # image 4 is forgotten
    front.look(moved_to(scenario, 0, 10))
    assert front.broken(9, 10)
    front.reset()
    assert not front.broken(9, 10)


def test_a_solved_frame_without_depth_does_not_end_the_pose(scenario):
    front = FrontEnd()
    for frame in scenario.frames[:4]:
        front.look(frame)
    assert front.solved(solution(scenario, 1))
    assert front.look(scenario.frames[4]).located is not None
    blind = solution(scenario, 3)
    assert not front.solved(replace(blind, depth=np.full_like(blind.depth, np.nan)))
    sight = front.look(scenario.frames[5])
    assert difference(sight.located.T_map_camera, scenario.T_world_camera[5])[0] < 0.025
    assert difference(sight.located.T_odom_camera, scenario.T_world_camera[5])[0] < 0.025


def test_standstill_is_seen_and_does_not_move(scenario):
    front, rng = FrontEnd(), np.random.default_rng(0)
    sights = []
    for index in range(14):
        frame = moved_to(scenario, 3, index)
        noisy = np.clip(frame.image + rng.normal(0, 2, frame.image.shape), 0, 255).astype(np.uint8)
        sights.append(front.look(replace(frame, image=noisy)))
        if index == 1:
            assert front.solved(replace(solution(scenario, 3), frame=frame))
    assert not sights[1].motion.stationary
    assert all(sight.motion.stationary for sight in sights[7:])
    for sight in sights[2:]:
        metres, angle = difference(sight.located.T_map_camera, scenario.T_world_camera[3])
        assert metres < 0.01
        assert angle < np.radians(0.2)
    held = [sight.located for sight in sights[7:]]
    assert {one.state for one in held} == {State.STATIONARY}
    assert len({one.T_map_camera.tobytes() for one in held}) == len({one.T_odom_camera.tobytes() for one in held}) == 1
    assert not any(one.velocity.any() for one in held)


def test_a_large_thing_that_moves_is_said(scenario):
    """The left half of the picture travels with the camera: the corners do not agree on one motion."""
    front = FrontEnd()
    for frame in scenario.frames[:3]:
        front.look(frame)
    assert front.solved(solution(scenario, 2))
    whole = front.look(scenario.frames[3]).located
    assert whole.state is State.TRACKING
    states = []
    for frame in scenario.frames[4:12]:
        image = frame.image.copy()
        image[:, :100] = scenario.frames[3].image[:, :100]
        sight = front.look(replace(frame, image=image))
        states.append(sight.located and sight.located.state)
    assert State.DEGRADED in states
    assert State.TRACKING not in states[states.index(State.DEGRADED) :]


def test_reset_forgets_everything(scenario):
    front = FrontEnd()
    for frame in scenario.frames[:3]:
        front.look(frame)
    assert front.solved(solution(scenario, 2))
    assert front.look(scenario.frames[3]).located is not None
    front.reset()
    assert front.corners(3) is None
    sight = front.look(scenario.frames[0])  # time may begin anew
    assert sight.located is None
    assert sight.reason == 'no frame is solved yet'
    assert sight.motion.still_since == scenario.frames[0].stamp
    assert not sight.broken


def test_images_that_go_back_in_time_are_refused(scenario):
    front = FrontEnd()
    front.look(scenario.frames[1])
    for frame in (scenario.frames[1], scenario.frames[0], replace(scenario.frames[2], stamp=scenario.frames[1].stamp)):
        with pytest.raises(ValueError, match='comes after'):
            front.look(frame)
    front.look(scenario.frames[3])
    assert len(front.corners(scenario.frames[3].index)) > 20


def test_without_calibration_the_solved_frames_focal_length_serves(scenario):
    front = FrontEnd()
    for frame in scenario.frames[:5]:
        sight = front.look(replace(frame, K=None))
        if frame.index == 2:
            assert front.solved(solution(scenario, 2))
    assert difference(sight.located.T_map_camera, scenario.T_world_camera[4])[0] < 0.015


def test_the_cameras_intrinsics_come_before_those_of_the_newest_solved_frame(scenario):
    front, frame = FrontEnd(), scenario.frames[3]
    unknown = replace(frame, K=None)
    assert front.intrinsics(unknown) is None
    for one in scenario.frames[:3]:
        front.look(one)
    solved = solution(scenario, 2)
    solved = replace(solved, K=solved.K * [[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]])
    front.solved(solved)
    np.testing.assert_array_equal(front.intrinsics(frame), frame.K)
    np.testing.assert_allclose(front.intrinsics(unknown), solved.map.K_to_source(solved.K))
    assert front.intrinsics(replace(unknown, image=unknown.image[::2, ::2])) is None  # of another camera
    front.lose()
    assert front.intrinsics(unknown) is not None
    front.reset()
    assert front.intrinsics(unknown) is None
