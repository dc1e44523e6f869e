"""What fails is said, costs no more than itself, and the node is at work again or ends."""

import ctypes
import pkgutil
import threading
import time
import weakref

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from vggt_ros.msg import Status

from exact import ExactPredictor
from harness import Rig, image_message, info_message, poses, stamp_of, wait_until
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.supervisor import Supervisor
from vggt_ros.ros.thread_pool import CAMERA, TORCH
from vggt_ros.types import DeviceError, WindowTooLargeError

UNCONFIGURED = 'unconfigured'


class Failing(ExactPredictor):
    """Raises ``failure`` from the ``first`` window on, ``times`` times."""

    def __init__(self, poses, failure, first=4, times=1):
        super().__init__(poses)
        self.failure, self.first, self.left, self.asked = failure, first, times, 0

    def predict(self, frames, depth=None, queries=None):
        self.asked += 1
        if self.asked > self.first and self.left:
            self.left -= 1
            raise self.failure
        return super().predict(frames, depth, queries)


def newest(rig):
    """Listen to the status; a function that gives the newest."""
    status = rig.listen(Status, '/vggt/status', latched=True)
    assert wait_until(lambda: status)
    return lambda: status[-1]


def lifecycle(node):
    return node._state_machine.current_state[1]


@pytest.mark.parametrize('failure', [RuntimeError('sizes of tensors'), KeyError('x'), AssertionError()])
def test_a_window_that_nobody_understands_costs_its_map_and_no_more(failure):
    with Rig(Failing(poses(14), failure)) as rig:
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(14))
        assert rig.settled()
        assert wait_until(lambda: status[-1].state == Status.TRACKING)
        said = [one for one in status if type(failure).__name__ in one.message]
        assert said
        assert {one.state for one in said} <= {Status.LOST, Status.DEGRADED}
        assert status[-1].epoch == 1
        assert status[-1].images_processed > 5
        assert lifecycle(rig.node) == 'active'


def test_an_image_that_nobody_understands_costs_itself(monkeypatch):
    with Rig(ExactPredictor(poses(8))) as rig:
        status = newest(rig)
        rig.play(range(3))
        frames = rig.node._active._threads[0]._frames
        make = frames.make
        monkeypatch.setattr(frames, 'make', lambda incoming: (_ for _ in ()).throw(MemoryError('too large')))
        rig.play([3])
        assert wait_until(lambda: status().state == Status.LOST and 'MemoryError' in status().message)
        monkeypatch.setattr(frames, 'make', make)
        rig.play(range(4, 8))
        assert rig.settled()
        assert wait_until(lambda: status().state == Status.TRACKING)
        assert status().epoch == 0
        assert status().images_refused == 1


def play_until(rig, indices, condition):
    """Publish images of the walk, one after another, until the condition is true."""
    for index in indices:
        if condition():
            return True
        rig.info.publish(info_message(index))
        rig.image.publish(image_message(index, T_world_camera=poses(index + 1)[stamp_of(index)]))
        time.sleep(0.1)
    return wait_until(condition)


@pytest.mark.parametrize('failure', [DeviceError('cuda failed'), WindowTooLargeError(3), RuntimeError('what is this')])
def test_failures_in_a_row_give_everything_back(failure):
    with Rig(Failing(poses(40), failure, times=1000), failures_in_row=3) as rig:
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        status = newest(rig)
        rig.connected()
        assert play_until(rig, range(20), lambda: lifecycle(rig.node) == UNCONFIGURED)
        assert wait_until(lambda: status().state == Status.INACTIVE and str(failure) in status().message)
        assert wait_until(
            lambda: any(one.level == b'\x02' and str(failure) in one.message for m in diagnostics for one in m.status)
        )
        rig.predictor = ExactPredictor(poses(40))
        assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        rig.play(range(20, 26))
        assert wait_until(lambda: status().state == Status.TRACKING)


@pytest.mark.parametrize('name', ['vggt_camera', 'vggt_network', 'vggt_map'])
def test_a_thread_that_ends_is_noticed_and_the_node_is_at_work_again(name):
    with Rig(ExactPredictor(poses(40))) as rig:
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(3))
        assert rig.settled()
        rig.node._supervisor = Supervisor(rig.node, rig.node, rig.node.end)
        end_thread(name)
        assert play_until(rig, range(3, 20), lambda: any('ended' in one.message for one in status))
        assert any(one.state == Status.INACTIVE and 'ended' in one.message for one in status)
        assert wait_until(lambda: lifecycle(rig.node) == 'active')
        assert play_until(rig, range(20, 40), lambda: status[-1].state == Status.TRACKING)


def end_thread(name):
    """Raise SystemExit in the thread of this name, when it does something next."""
    (thread,) = [one for one in threading.enumerate() if one.name == name]
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def test_a_camera_that_is_unplugged_is_said_and_one_that_comes_back_is_found():
    with Rig(ExactPredictor(poses(12)), image_timeout=0.5) as rig:
        status = newest(rig)
        assert wait_until(lambda: status().state == Status.INITIALIZING and 'no image for' in status().message)
        rig.play(range(6))
        assert wait_until(lambda: status().state == Status.TRACKING and not status().message)
        assert wait_until(lambda: status().state == Status.LOST and '/image' in status().message)
        rig.play(range(6, 9))
        assert wait_until(lambda: status().state == Status.TRACKING and not status().message)


def test_images_that_are_all_refused_are_no_images():
    with Rig(ExactPredictor(poses(12)), image_timeout=0.5) as rig:
        status = newest(rig)
        rig.play(range(4))
        end = time.monotonic() + 20
        for index in range(4, 1000):
            # On a slow machine half a second may pass before the first of them is there, and the reason with it.
            said = status()
            if 'nonsense8' in said.message or time.monotonic() > end:
                break
            rig.send(image_message(index, encoding='nonsense8'))
            time.sleep(0.05)
        assert said.state == Status.LOST
        assert 'no image of use' in said.message
        assert 'nonsense8' in said.message


def test_images_that_wait_for_their_first_camera_info_are_no_alarm():
    with Rig(ExactPredictor(poses(40)), image_timeout=0.5, calibration_timeout=1.5) as rig:
        status = rig.listen(Status, '/vggt/status', latched=True)
        end = time.monotonic() + 2.5
        for index in range(40):
            if time.monotonic() > end:
                break
            rig.play([index], infos=False)
            time.sleep(0.1)
        assert wait_until(lambda: status[-1].images_processed > 0)
        assert not [one.message for one in status if 'of use' in one.message]


def test_a_network_that_does_not_answer_is_said():
    class Slow(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            go.wait(60)
            return super().predict(frames, depth, queries)

    go = threading.Event()
    go.set()
    with Rig(Slow(poses(30)), mode='live', image_timeout=1.0) as rig:
        status = newest(rig)
        assert play_until(rig, range(20), lambda: status().state == Status.TRACKING)
        go.clear()
        assert play_until(rig, range(20, 100), lambda: 'not answered' in status().message) or not rig.connected()
        assert status().state in (Status.DEGRADED, Status.LOST)
        go.set()
        assert wait_until(lambda: 'not answered' not in status().message)


# Transitions


def at_work():
    """How many of the node's threads do something."""
    named = [one for one in threading.enumerate() if one.name.startswith('vggt_')]
    return len(named) - len(TORCH._idle) - len(CAMERA._idle)


def offered(node):
    return sorted(
        [one.topic_name for one in (*node.publishers, *node.subscriptions)] + [one.srv_name for one in node.services]
    ), len(list(node.timers))


@pytest.mark.parametrize(
    ('transition', 'place'),
    [
        ('configure', 'vggt_ros.ros.node.make_intake'),
        ('configure', 'vggt_ros.ros.node.Services'),
        ('configure', 'vggt_ros.ros.outputs.publication.LiveMap'),
        ('activate', 'vggt_ros.ros.activation.Subscriptions.add'),
        ('activate', 'vggt_ros.ros.activation.NetworkThread'),
        ('deactivate', 'vggt_ros.ros.activation.Mailbox.close'),
        ('cleanup', 'vggt_ros.ros.outputs.publishers.Publishers.close'),
    ],
)
def test_a_transition_that_fails_says_so_and_leaves_nothing_behind(transition, place, monkeypatch, capfd):
    with Rig(ExactPredictor(poses(40)), start=False) as rig:
        rig.node._supervisor = None
        before = offered(rig.node)
        order = ['configure', 'activate', 'deactivate', 'cleanup']
        for name in order[: order.index(transition)]:
            assert getattr(rig.node, f'trigger_{name}')() == TransitionCallbackReturn.SUCCESS
        with monkeypatch.context() as patch:
            original = pkgutil.resolve_name(place)

            def fail(*arguments, **options):
                if 'close' in place:
                    original(*arguments, **options)
                raise RuntimeError('nobody knows why')

            patch.setattr(place, fail)
            assert getattr(rig.node, f'trigger_{transition}')() == TransitionCallbackReturn.ERROR
        assert lifecycle(rig.node) == UNCONFIGURED
        assert offered(rig.node) == before
        assert wait_until(lambda: not at_work())
        assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        status = newest(rig)
        rig.play(range(6))
        assert wait_until(lambda: status().state == Status.TRACKING)
    text = capfd.readouterr().err
    assert 'nobody knows why' in text
    assert 'Traceback' in text


def test_a_cleanup_frees_the_network_at_once():
    with Rig(ExactPredictor(poses(4)), start=False) as rig:
        alive = []
        for _ in range(3):
            rig.predictor = ExactPredictor(poses(4))
            alive.append(weakref.ref(rig.predictor))
            for name in ('configure', 'activate', 'deactivate', 'cleanup'):
                assert getattr(rig.node, f'trigger_{name}')() == TransitionCallbackReturn.SUCCESS
        rig.predictor = None
        assert [one() for one in alive] == [None] * 3


def test_a_network_is_loaded_and_used_on_one_thread_however_often_it_is_configured(monkeypatch):
    used = []

    def noting(call):
        def noted(*arguments, **named):
            used.append(threading.get_ident())
            return call(*arguments, **named)

        return noted

    predictor = ExactPredictor(poses(40))
    monkeypatch.setattr(predictor, 'predict', noting(predictor.predict))
    with Rig(predictor, start=False) as rig:
        rig.node._load = noting(rig.node._load)
        status = newest(rig)
        for cycle in range(3):
            for name in ('configure', 'activate'):
                assert getattr(rig.node, f'trigger_{name}')() == TransitionCallbackReturn.SUCCESS
            rig.play(range(10 * cycle, 10 * cycle + 6))
            assert wait_until(lambda: status().state == Status.TRACKING)
            for name in ('deactivate', 'cleanup'):
                assert getattr(rig.node, f'trigger_{name}')() == TransitionCallbackReturn.SUCCESS
    assert len(used) > 6
    assert len(set(used)) == 1


# By itself


def test_a_network_that_is_not_there_yet_is_tried_again():
    with Rig(LoadError('the hub cannot be reached', passing=True), start=False) as rig:
        status = newest(rig)
        rig.node.supervise()
        assert wait_until(lambda: status().state == Status.INACTIVE and 'the hub cannot' in status().message)
        rig.predictor = ExactPredictor(poses(8))
        assert wait_until(lambda: lifecycle(rig.node) == 'active')
        rig.play(range(6))
        assert wait_until(lambda: status().state == Status.TRACKING)


def test_threads_that_were_told_to_end_are_no_failure():
    with Rig(ExactPredictor(poses(4))) as rig:
        rig.play(range(4))
        assert rig.settled()
        active = rig.node._active
        rig.node.trigger_deactivate()
        assert active.cause is None
