"""~/path: poses some way apart, a message a second at most, whose poses are made once and moved by corrections."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytestmark = pytest.mark.requires_ros
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.srv', reason='the workspace is not built')

from exact_windows import STEPS, estimate, stamp_of
from harness import matrix
from vggt_ros.odometry.keyframe import typical_depth
from vggt_ros.ros.messages import time_to_ns
from vggt_ros.ros.outputs import path
from vggt_ros.ros.outputs.path import PathOutput
from vggt_ros.similarity import Similarity


class Stage:
    """Stands for node, publishers and publisher. sent: what was published. listeners: how many there are."""

    def __init__(self) -> None:
        self.sent, self.listeners, self.timers = [], 1, []
        self.output = PathOutput(self, self, 'map')

    def add(self, kind, topic):
        assert topic == '~/path'
        return self

    def create_timer(self, period, call, group, clock):
        self.timers.append((period, call, clock))

    def get_subscription_count(self):
        return self.listeners

    def publish(self, message):
        self.sent.append([(time_to_ns(one.header.stamp), one, matrix(one.pose)) for one in message.poses])
        assert time_to_ns(message.header.stamp) == self.sent[-1][-1][0]
        assert {message.header.frame_id, *(one.header.frame_id for one in message.poses)} == {'map'}

    def walk(self, indices, length=1000):
        for index in indices:
            self.output.go_on(estimate(index), length)

    def tick(self):
        """What the timer does; the last message."""
        period, call, _ = self.timers[0]
        assert period == path.PERIOD
        call()
        return self.sent[-1] if self.sent else None


def test_poses_lie_apart_and_the_newest_ends_the_path():
    stage = Stage()
    stage.walk(range(STEPS))
    found = stage.tick()
    stamps = [stamp for stamp, _, _ in found]
    assert stamps == sorted(stamps)
    assert (stamps[0], stamps[-1]) == (stamp_of(0), stamp_of(STEPS - 1))
    assert 10 < len(found) < STEPS / 2
    indices = [(stamp - stamp_of(0)) // (stamp_of(1) - stamp_of(0)) for stamp in stamps]
    for index, (_, _, T) in zip(indices, found, strict=True):
        np.testing.assert_allclose(T, estimate(index).T_map_camera, atol=1e-9)
    for index, ((_, _, a), (_, _, b)) in zip(indices[1:-1], pairwise(found), strict=False):
        way = np.linalg.norm(b[:3, 3] - a[:3, 3]) / typical_depth(estimate(index).depth)
        turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude()
        assert way > 0.9 * path.STEP or turn > 0.9 * path.TURN


def test_a_camera_that_stands_still_makes_no_path():
    stage = Stage()
    stage.walk(range(0, STEPS, 10))
    before = len(stage.tick())
    for index in range(STEPS, STEPS + 500):
        stage.output.go_on(estimate(index, T=estimate(STEPS - 10, unit=1.0).T_map_camera), 1000)
    found = stage.tick()
    assert len(found) <= before + 1
    assert found[-1][0] == stamp_of(STEPS + 499)


@pytest.mark.parametrize('length', [1, 2, 7])
def test_it_is_bounded_and_the_newest_stay(length):
    stage = Stage()
    for index in range(0, STEPS, 10):
        stage.walk([index], length)
        assert len(stage.tick()) == min(length, index // 10 + 1)
    assert [stamp for stamp, _, _ in stage.tick()] == [stamp_of(index) for index in range(0, STEPS, 10)][-length:]


def test_nothing_is_made_for_nobody_or_twice():
    stage = Stage()
    assert stage.tick() is None  # before there is a pose
    stage.listeners = 0
    stage.walk(range(0, STEPS, 10))
    assert stage.tick() is None
    stage.listeners = 1
    first = stage.tick()
    assert stage.tick() is first
    assert len(stage.sent) == 1  # nothing was new
    stage.walk([STEPS - 1])
    assert [one for _, one, _ in stage.tick()][:-1] == [one for _, one, _ in first]
    assert all(a is b for (_, a, _), (_, b, _) in zip(stage.sent[0], stage.sent[1], strict=False))


def test_poses_follow_the_corrections_of_their_keyframes():
    stage = Stage()
    stage.walk(range(0, STEPS, 10))
    stage.tick()
    random = np.random.default_rng(0)
    corrections = {
        index: Similarity(1.0 + 0.1 * index, Rotation.random(random_state=random).as_matrix(), random.normal(size=3))
        for index in (0, 50, 110)
    }
    stage.output.correct(corrections)
    nearest = [0, 0, 0, *[50] * 6, 110, 110, 110]  # 80 is as far from both: the earlier one
    for index, (_, _, T) in zip(range(0, STEPS, 10), stage.tick(), strict=True):
        expected = corrections[nearest[index // 10]].pose(estimate(index).T_map_camera)
        np.testing.assert_allclose(T, expected, atol=1e-9)
    stage.output.correct({})
    assert len(stage.sent) == 2
    stage.tick()
    assert len(stage.sent) == 2


def test_after_a_reset_the_old_path_is_gone():
    stage = Stage()
    stage.walk(range(0, STEPS, 10))
    stage.tick()
    stage.output.clear()
    stage.tick()
    assert len(stage.sent) == 1
    stage.output.go_on(replace(estimate(0), epoch=1), 1000)
    assert len(stage.tick()) == 1
