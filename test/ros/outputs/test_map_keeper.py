"""~/map and ~/save_map over DDS, on a plain node whose clock stands still."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs', 'vggt_ros.srv')
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.srv', reason='the workspace is not built')

import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from vggt_ros.srv import SaveMap

from harness import Spinning, stamp_of, stamps, wait_until
from vggt_ros.camera import PixelMap
from vggt_ros.files.trajectory import read_tum
from vggt_ros.mapping import voxel_map
from vggt_ros.mapping.voxel_map import MapConfig, VoxelMap
from vggt_ros.pipeline import WindowResult
from vggt_ros.ros import loading
from vggt_ros.ros.outputs import live_map, map_keeper
from vggt_ros.ros.outputs.live_map import LiveMap
from vggt_ros.ros.outputs.map_keeper import MapKeeper
from vggt_ros.ros.parameters import PARAMETERS, LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate, Frame, Scale, State, Tracks

SIZE = (80, 60)
K = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1.0]])
COLOUR = (200, 100, 50)
NO_TRACKS = Tracks(None, 0, None, *(np.empty(0) for _ in range(7)))


def estimate(index: int, x: float = 0.0, depth: float = 2.0, size=SIZE, epoch: int = 0) -> Estimate:
    """A camera at (x, 0, 0) that looks along z at a wall."""
    T = np.eye(4)
    T[0, 3] = x
    image = np.tile(np.array(COLOUR, np.uint8), (size[1], size[0], 1))
    return Estimate(
        frame=Frame(index, stamp_of(index), image, K, 'eye'),
        T_map_camera=T,
        T_odom_camera=T,
        covariance=np.eye(6),
        velocity=None,
        velocity_covariance=np.eye(6),
        state=State.TRACKING,
        scale=Scale.METRIC,
        epoch=epoch,
        step_covariance=np.eye(6),
        depth=np.full(size[::-1], depth, np.float32),
        confidence=np.full(size[::-1], 0.9, np.float32),
        K=K,
        map=PixelMap(size, size, (0, 0), size),
    )


def solution(*keyframes: Estimate, others=(), corrections=None, epoch: int = 0) -> WindowResult:
    estimates = [*keyframes, *others]
    return WindowResult(
        estimates=estimates, keyframes=keyframes, corrections=corrections or {}, scale=Scale.METRIC, epoch=epoch
    )


def shift(*t: float, scale: float = 1.0) -> Similarity:
    return Similarity(scale, np.eye(3), np.array(t))


class MapRig:
    """The map on a node of its own, and a client beside it."""

    def __init__(self, period: float = 0.1, **config) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        # Nobody publishes /clock: the map must not depend on it.
        still = [Parameter('use_sim_time', value=True)]
        self.node = rclpy.create_node('vggt', context=self.context, parameter_overrides=still)
        self.client = rclpy.create_node('client', context=self.context)
        self.problems = Problems(self.node.get_logger())
        self.map = LiveMap(self.node, self.problems, MapConfig(**config), 'world', period)
        self.spinning = Spinning(self.context, self.node, self.client)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.map.close()
        self.spinning.stop()
        self.node.destroy_node()
        self.client.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def listen(self):
        """A new subscriber as RViz is one, and what it receives."""
        inbox: list[PointCloud2] = []
        qos = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        return self.client.create_subscription(PointCloud2, '/vggt/map', inbox.append, qos), inbox

    def leave(self, subscription) -> None:
        """End a subscription and wait until the node knows."""
        self.client.destroy_subscription(subscription)
        assert wait_until(lambda: self.node.count_subscribers('/vggt/map') == 0)

    def save(self, folder) -> SaveMap.Response:
        client = self.client.create_client(SaveMap, '/vggt/save_map')
        assert client.wait_for_service(10)
        future = client.call_async(SaveMap.Request(folder=str(folder)))
        assert wait_until(future.done)
        return future.result()


def points(message: PointCloud2) -> np.ndarray:
    """The points by field name, read by the offsets that the message declares."""
    assert {field.datatype for field in message.fields} == {7}  # float32
    dtype = np.dtype(
        {
            'names': [field.name for field in message.fields],
            'formats': ['<f4'] * len(message.fields),
            'offsets': [field.offset for field in message.fields],
            'itemsize': message.point_step,
        }
    )
    return np.frombuffer(message.data, dtype)


PAIR = (estimate(0), estimate(1, x=0.3))


def test_a_late_subscriber_gets_the_map_that_was_published_before():
    with MapRig() as rig:
        first, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        assert wait_until(lambda: inbox and inbox[-1].width)
        rig.leave(first)
        _, late = rig.listen()
        assert wait_until(lambda: late)
        message = late[0]
    assert message == inbox[-1]
    assert message.header.frame_id == 'world'
    assert stamps([message]) == [stamp_of(1)]
    assert (message.height, message.is_dense) == (1, True)
    found = points(message)
    assert found.dtype.names == ('x', 'y', 'z', 'rgb', 'confidence')
    assert len(found) == message.width > 1000
    np.testing.assert_allclose(found['z'], 2.0, atol=1e-5)
    np.testing.assert_allclose(found['confidence'], 0.9, atol=1e-5)
    assert set(found['rgb'].view(np.uint32).tolist()) == {200 << 16 | 100 << 8 | 50}


def test_for_nobody_no_cloud_is_made_but_who_comes_gets_one(monkeypatch):
    made = []
    real = VoxelMap.cloud
    monkeypatch.setattr(VoxelMap, 'cloud', lambda self: made.append(self) or real(self))
    with MapRig() as rig:
        rig.map.add(solution(*PAIR))
        time.sleep(1.0)  # ten periods
        assert not made
        subscription, inbox = rig.listen()
        assert wait_until(lambda: inbox)
        assert len(points(inbox[0])) > 1000
        rig.leave(subscription)
        count = len(made)
        rig.map.add(solution(estimate(2, x=0.6)))
        time.sleep(1.0)
        assert len(made) == count
        # First what is latched, then at once what has changed since.
        _, late = rig.listen()
        assert wait_until(lambda: late and stamps(late)[-1] == stamp_of(2))


def test_the_rate_is_bounded_and_the_newest_map_comes_in_the_end():
    with MapRig(period=0.5) as rig:
        _, inbox = rig.listen()
        assert wait_until(lambda: rig.node.count_subscribers('/vggt/map'))
        started = time.monotonic()
        for index in range(40):
            rig.map.add(solution(estimate(index, x=0.1 * index)))
            time.sleep(0.05)
        assert wait_until(lambda: inbox and stamps(inbox)[-1] == stamp_of(39))
        most = 1 + (time.monotonic() - started) / 0.5
        assert 3 <= len(inbox) <= most
        before = len(inbox)
        time.sleep(1.2)
        assert len(inbox) == before, 'a map that did not change was published again'


def test_corrections_move_what_hangs_on_their_keyframes():
    with MapRig() as rig:
        _, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        assert wait_until(lambda: inbox and inbox[-1].width)
        before = points(inbox[-1])
        # The odometry has forgotten the first keyframe; the third is where the correction has put it already.
        moved = shift(5.0, 0.0, 1.0, scale=1.5)
        third = estimate(2, x=0.6, depth=1.5 * 2.0)
        third = replace(third, T_map_camera=moved.pose(third.T_map_camera))
        rig.map.add(solution(third, corrections={1: moved, 2: moved}))
        assert wait_until(lambda: stamps(inbox)[-1] == stamp_of(2))
        after = points(inbox[-1])
    np.testing.assert_allclose(after['z'], 1.5 * 2.0 + 1.0, atol=1e-5)
    assert abs(after['x'].min() - (1.5 * before['x'].min() + 5.0)) < 0.1
    # The third camera sees 0.3 m further.
    assert abs(after['x'].max() - (1.5 * (before['x'].max() + 0.3) + 5.0)) < 0.1


def test_a_new_epoch_empties_the_map_even_when_nobody_listens():
    with MapRig() as rig:
        subscription, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        assert wait_until(lambda: inbox and inbox[-1].width)
        rig.map.add(solution(epoch=1))
        assert wait_until(lambda: inbox[-1].width == 0)
        rig.map.add(solution(estimate(7, epoch=1), estimate(8, x=0.3, epoch=1), epoch=1))
        assert wait_until(lambda: stamps(inbox)[-1] == stamp_of(8))
        assert inbox[-1].width
        rig.leave(subscription)
        rig.map.add(solution(epoch=2))
        time.sleep(1.0)
        _, late = rig.listen()
        assert wait_until(lambda: late)
        assert late[0].width == 0


def test_ten_million_points_stay_within_the_budget_and_it_is_said_once():
    size = (640, 480)
    with MapRig(voxel=0.01, budget=20_000, samples=5000, active=3, submaps=4) as rig:
        _, inbox = rig.listen()
        for index in range(34):
            # No faster than the map takes them in, so that none stays out.
            rig.map.add(solution(estimate(index, x=0.5 * index, depth=4.0, size=size)))
            assert rig.map._keeper.ask(lambda contents: len(contents.map)).result(10) <= 20_000 + 3 * 5000
        assert wait_until(lambda: stamps(inbox)[-1] == stamp_of(33))
        assert 34 * size[0] * size[1] > 10_000_000
        assert 0 < max(message.width for message in inbox) <= 20_000
        assert rig.problems.counts() == {'map budget': 1}
        assert '20000 points' in rig.problems.present()[0]


# Saving


def test_a_saved_map_opens_in_other_programs_and_is_the_map_that_is_shown(tmp_path):
    open3d, pycolmap = pytest.importorskip('open3d'), pytest.importorskip('pycolmap')
    with MapRig() as rig:
        _, inbox = rig.listen()
        rig.map.add_located(estimate(0))  # before there is a map
        rig.map.add(solution(PAIR[0], PAIR[1], others=[estimate(2, x=0.4)]))
        rig.map.add_located(estimate(3, x=9.0))
        rig.map.add_located(estimate(4, x=0.5))
        rig.map.add(solution(others=[estimate(3, x=0.45)], corrections={}))
        rig.map.add(solution(corrections={0: shift(1.0, 0.0, 0.0), 1: shift(1.0, 0.0, 0.0)}))
        assert wait_until(lambda: inbox and inbox[-1].width and points(inbox[-1])['x'].max() > 2.0)
        answer = rig.save(tmp_path / 'map')
    assert answer.success
    assert answer.message == f'{inbox[-1].width} points, 5 poses and 2 keyframes in {tmp_path}/map; unit: metres'
    shown = points(inbox[-1])
    for name in ('map.ply', 'map.pcd'):
        cloud = open3d.io.read_point_cloud(str(tmp_path / 'map' / name))
        xyz = np.asarray(cloud.points).astype(np.float32)
        np.testing.assert_array_equal(xyz, np.stack([shown[axis] for axis in 'xyz'], -1))
        assert ((np.asarray(cloud.colors) * 255).round() == COLOUR).all()
    trajectory = read_tum(tmp_path / 'map' / 'trajectory.txt')
    assert trajectory.stamps.tolist() == [stamp_of(index) for index in range(5)]
    np.testing.assert_allclose(trajectory.T_world_camera[:, 0, 3], [1.0, 1.3, 1.4, 1.45, 1.5], atol=1e-9)
    model = pycolmap.Reconstruction(str(tmp_path / 'map' / 'colmap'))
    assert sorted(image.name for image in model.images.values()) == [f'{stamp_of(0)}.jpg', f'{stamp_of(1)}.jpg']
    moved = model.find_image_with_name(f'{stamp_of(1)}.jpg').cam_from_world().matrix()
    np.testing.assert_allclose(moved, [[1, 0, 0, -1.3], [0, 1, 0, 0], [0, 0, 1, 0]], atol=1e-9)
    fields = json.loads((tmp_path / 'map' / 'metadata.json').read_text())
    assert (fields['scale'], fields['epoch'], fields['points']) == ('METRIC', 0, len(shown))


def test_without_a_name_the_folder_is_named_by_date_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MapRig() as rig:
        rig.map.add(solution(*PAIR))
        answers = [rig.save('') for _ in range(3)]
        assert all(answer.success for answer in answers)
        folders = os.listdir(tmp_path)
        assert len(folders) == 3
        for folder in folders:
            assert re.fullmatch(r'vggt_map_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d)?', folder)
            assert sum(f'{tmp_path}/{folder};' in answer.message for answer in answers) == 1


def test_what_cannot_be_saved_is_answered_in_words_and_the_node_goes_on(tmp_path, monkeypatch):
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'file').write_text('mine')
    with MapRig() as rig:
        answer = rig.save(tmp_path / 'map')
        assert (answer.success, answer.message.split(':')[0]) == (False, 'there is no map yet')
        rig.map.add(solution(*PAIR))
        for folder, reason in {
            tmp_path / 'taken': 'is not an empty folder: choose another name',
            tmp_path / 'taken' / 'file' / 'below': 'cannot be written: a part of this path is a file',
            '~nobody_has_this_name/map': 'give a full path',
        }.items():
            answer = rig.save(folder)
            assert not answer.success
            assert reason in answer.message
        monkeypatch.setattr(VoxelMap, 'cloud', lambda self: (_ for _ in ()).throw(ValueError('voxels are too small')))
        answer = rig.save(tmp_path / 'map')
        assert (answer.success, answer.message) == (False, 'voxels are too small')
        assert rig.map.is_alive
    assert os.listdir(tmp_path) == ['taken']
    assert os.listdir(tmp_path / 'taken') == ['file']


def test_while_a_map_is_written_everything_else_goes_on(tmp_path, monkeypatch):
    writing, finish = threading.Event(), threading.Event()

    def slow(folder, saved):
        writing.set()
        assert finish.wait(20)
        return f'written to {folder}'

    monkeypatch.setattr(live_map, 'save_map', slow)
    with MapRig() as rig:
        _, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        client = rig.client.create_client(SaveMap, '/vggt/save_map')
        assert client.wait_for_service(10)
        future = client.call_async(SaveMap.Request(folder='x'))
        assert writing.wait(10)
        rig.map.add(solution(estimate(2, x=0.6)))
        assert wait_until(lambda: inbox and stamps(inbox)[-1] == stamp_of(2))
        assert not future.done()
        finish.set()
        assert wait_until(future.done)
        assert future.result().message == 'written to x'


def test_after_a_cleanup_the_node_begins_with_an_empty_map():
    with MapRig() as rig:
        _, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        assert wait_until(lambda: inbox)
        rig.map.close()
        rig.map.add(solution(estimate(2, x=0.6)))  # the worker may be a moment late
        rig.map = LiveMap(rig.node, rig.problems, MapConfig(), 'world', 0.1)
        assert rig.save('map').message.startswith('there is no map yet')
        rig.map.add(solution(estimate(5), estimate(6, x=0.3)))
        assert wait_until(lambda: stamps(inbox)[-1] == stamp_of(6))


# The thread


def keeper(problems: Problems) -> MapKeeper:
    return MapKeeper(MapConfig(), problems)


@pytest.fixture
def problems():
    logged: list[str] = []
    found = Problems(SimpleNamespace(warning=logged.append))
    found.logged = logged
    return found


@pytest.fixture
def apart(monkeypatch):
    """Points of one voxel stay apart, so that every keyframe keeps some."""
    monkeypatch.setattr(voxel_map, 'CROWDED', 1000)


def test_who_gives_never_waits_and_the_newest_keyframes_stay(problems, apart):
    kept = keeper(problems)  # not started yet: the slowest map there is
    for index in range(0, 60, 3):
        group = [estimate(index + i, x=0.3 * (index + i)) for i in range(3)]
        kept.add(solution(*group[:2], others=group[2:]))
    kept.add(solution(corrections={59: shift(0.0, 0.0, 7.0)}))
    kept.start()
    indices = kept.ask(lambda contents: sorted(submap.index for submap in contents.map.submaps)).result(20)
    trajectory = kept.ask(lambda contents: contents.history.trajectory()).result(20)
    kept.stop()
    given = [index for index in range(60) if index % 3 < 2]
    assert indices == given[-map_keeper.WAITING :]
    assert 'cannot keep up' in problems.logged[0]
    # Poses and corrections got through, from the first keyframe on.
    assert trajectory.stamps.tolist() == [stamp_of(index) for index in range(indices[0], 60)]
    np.testing.assert_allclose(trajectory.T_world_camera[:, 2, 3], 7.0, atol=1e-9)


def test_many_keyframes_at_once_are_all_taken(problems, apart):
    """A camera that was lost brings a whole map along."""
    kept = keeper(problems)
    kept.add(solution(*(estimate(index, x=0.3 * index) for index in range(2 * map_keeper.WAITING))))
    kept.start()
    assert kept.ask(lambda contents: len(contents.map.submaps)).result(20) == 2 * map_keeper.WAITING
    kept.stop()
    assert not problems.counts()


def test_poses_that_wait_are_bounded_and_corrections_are_never_left_out(problems, monkeypatch):
    monkeypatch.setattr(map_keeper, 'POSES', 100)
    kept = keeper(problems)
    kept.add(solution(*PAIR))
    for index in range(2, 500):
        kept.add_located(estimate(index, x=0.01 * index))
        if index % 50 == 0:
            kept.add(solution(corrections={0: shift(1.0, 0, 0), 1: shift(1.0, 0, 0)}))
        assert len(kept._waiting) <= 101
    kept.start()
    found = kept.ask(lambda contents: contents.history.trajectory()).result(10)
    kept.stop()
    assert 50 < len(found) < 150
    assert (found.stamps[0], found.stamps[-1]) == (stamp_of(0), stamp_of(499))
    assert found.T_world_camera[0, 0, 3] == pytest.approx(9.0)


def test_what_comes_late_from_an_older_epoch_changes_nothing(problems):
    kept = keeper(problems)
    kept.start()
    kept.add(solution(*PAIR))
    kept.add(solution(estimate(5, epoch=1), epoch=1))
    kept.add_located(estimate(3))
    kept.add(solution(estimate(4)))
    found = kept.ask(lambda contents: (contents.map.epoch, contents.map.submaps[0].index)).result(10)
    trajectory = kept.ask(lambda contents: contents.history.trajectory()).result(10)
    kept.stop()
    assert found == (1, 5)
    assert trajectory.stamps.tolist() == [stamp_of(5)]


def test_poses_that_are_lost_or_in_another_unit_stay_out_of_the_trajectory(problems):
    kept = keeper(problems)
    kept.start()
    kept.add(solution(*PAIR))
    kept.add_located(estimate(2))
    kept.add_located(replace(estimate(3), state=State.LOST))
    kept.add_located(replace(estimate(4), scale=Scale.RELATIVE))  # located before the map became metric
    kept.add_located(estimate(5))
    trajectory = kept.ask(lambda contents: contents.history.trajectory()).result(10)
    kept.stop()
    assert trajectory.stamps.tolist() == [stamp_of(index) for index in (0, 1, 2, 5)]


def test_an_unusable_keyframe_is_reported_and_the_others_are_taken(problems):
    kept = keeper(problems)
    kept.start()
    broken = estimate(1)
    broken.T_map_camera[0, 0] = np.nan
    kept.add(solution(PAIR[0]))
    kept.add(solution(broken))
    kept.add(solution(estimate(2), corrections={0: shift(np.nan, 0.0, 0.0)}))
    indices = kept.ask(lambda contents: [submap.index for submap in contents.map.submaps]).result(10)
    alive = kept.is_alive()
    kept.stop()
    assert alive
    assert indices == [0, 2]
    assert problems.counts() == {'map': 2}
    assert 'keyframe 1 is not finite' in problems.logged[0]


def test_who_asks_gets_an_answer_even_when_the_node_ends(problems, tmp_path):
    kept = keeper(problems)
    waiting = kept.ask(lambda contents: len(contents.map))
    kept.add(solution(*PAIR))
    kept._stopping = True
    kept.start()
    kept.stop()
    assert waiting.cancelled()
    success, message = live_map.save(kept, str(tmp_path / 'map'))
    assert not success
    assert 'the map is gone' in message


def test_a_map_that_is_too_busy_is_told(problems, tmp_path, monkeypatch):
    monkeypatch.setattr(live_map, 'PATIENCE', 0.05)
    success, message = live_map.save(keeper(problems), str(tmp_path / 'map'))
    assert not success
    assert 'try again' in message


# Saving at the end


@pytest.fixture
def full(problems):
    """A keeper at work with a map in it."""
    kept = keeper(problems)
    kept.start()
    kept.add(solution(*PAIR))
    yield kept
    kept.stop()


def held(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_at_the_end_the_map_takes_the_place_of_the_one_from_before(full, tmp_path):
    for epoch, number in ((0, 2), (1, 3)):
        if epoch:
            full.add(solution(*(estimate(10 + index, x=0.3 * index, epoch=1) for index in range(3)), epoch=1))
        said = live_map.save_in_time(full, str(tmp_path / 'map'), 20.0)
        assert re.match(rf'map saved: \d+ points, {number} poses and {number} keyframes in {tmp_path}/map', said)
        fields = json.loads((tmp_path / 'map' / 'metadata.json').read_text())
        assert (fields['epoch'], fields['keyframes']) == (epoch, number)
    assert os.listdir(tmp_path) == ['map']


def test_when_time_runs_out_the_former_map_is_whole(full, tmp_path, monkeypatch):
    live_map.save_in_time(full, str(tmp_path / 'map'), 20.0)
    before, real, finish = held(tmp_path / 'map'), live_map.write_beside, threading.Event()
    threads = []

    def slow(target, saved):
        threads.append(threading.current_thread())
        made = real(target, saved)
        assert finish.wait(20)
        return made

    monkeypatch.setattr(live_map, 'write_beside', slow)
    said = live_map.save_in_time(full, str(tmp_path / 'map'), 0.3)
    assert said == f'the map was not saved: it was not written within 0.3 s; {tmp_path}/map is as it was'
    assert threads[0].daemon  # does not hold the process up
    finish.set()
    threads[0].join()
    assert os.listdir(tmp_path) == ['map']
    assert held(tmp_path / 'map') == before


def test_a_thread_of_the_map_that_hangs_or_has_ended_costs_no_more_than_the_time(full, tmp_path):
    finish = threading.Event()
    full.ask(lambda contents: finish.wait(20))
    assert 'not written within 0.2 s' in live_map.save_in_time(full, str(tmp_path / 'map'), 0.2)
    finish.set()
    full.stop()
    assert "the map's thread has ended" in live_map.save_in_time(full, str(tmp_path / 'map'), 20.0)
    assert os.listdir(tmp_path) == []


def test_an_error_that_nobody_expected_is_said_at_once(full, tmp_path, monkeypatch):
    def fail(target, saved):
        raise MemoryError

    monkeypatch.setattr(live_map, 'write_beside', fail)
    monkeypatch.setattr(threading, 'excepthook', lambda args: None)
    assert 'the map was not saved' in live_map.save_in_time(full, str(tmp_path / 'map'), 20.0)


def test_without_a_map_the_former_one_stays(full, problems, tmp_path):
    live_map.save_in_time(full, str(tmp_path / 'map'), 20.0)
    before = held(tmp_path / 'map')
    empty = keeper(problems)
    empty.start()
    said = live_map.save_in_time(empty, str(tmp_path / 'map'), 20.0)
    empty.stop()
    assert said.startswith(f'no map is saved, {tmp_path}/map is as it was: there is no map yet')
    assert '\n' not in said
    assert held(tmp_path / 'map') == before


def test_a_folder_that_is_not_a_map_is_refused_before_the_node_begins(tmp_path):
    (tmp_path / 'thesis.txt').write_text('three years')
    settings = {declared.name: declared.default for declared in PARAMETERS}
    loading.check(settings | {'save_map': str(tmp_path / 'map')})
    with pytest.raises(LoadError, match=r'save_map: .*holds more than a saved map'):
        loading.check(settings | {'save_map': str(tmp_path)})


def test_the_thread_survives_that_ctrl_c_takes_the_context_away():
    with MapRig() as rig:
        _, inbox = rig.listen()
        rig.map.add(solution(*PAIR))
        assert wait_until(lambda: inbox)
        for executor in rig.spinning.executors:
            executor.shutdown()
        rclpy.shutdown(context=rig.context)
        rig.map.add(solution(estimate(2, x=0.6)))
        made = rig.map._keeper.ask(rig.map._make)
        made.add_done_callback(lambda future: rig.map._guard.trigger())
        made.result(10)
        assert rig.map._keeper.ask(lambda contents: len(contents.map.submaps)).result(10) == 3
        assert rig.map.is_alive
