"""The node as a process of its own: what it says at start, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from harness import image_message, wait_until
from started import Started


@pytest.fixture
def client():
    """A node beside the one that is started."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('client', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def node_process(*parameters: str, name: str = 'vggt') -> Started:
    """``python -m vggt_ros.ros.node`` with parameters."""
    words = [word for parameter in parameters for word in ('-p', parameter)]
    command = [
        sys.executable,
        '-m',
        'vggt_ros.ros.node',
        '--ros-args',
        '-r',
        f'__node:={name}',
        '-p',
        'threads:=1',
        *words,
    ]
    return Started(command, PYTHONUNBUFFERED='1')


@pytest.mark.parametrize('interrupts', [1, 2])
def test_an_interrupt_at_work_ends_it_cleanly(client, interrupts):
    publisher = client.create_publisher(Image, 'image', 5)
    with node_process('calibration:=predicted', 'image_size:=126') as node:
        assert wait_until(publisher.get_subscription_count, 90), node.text
        for i in range(8):
            publisher.publish(image_message(i))
        for _ in range(interrupts):
            node.interrupt()
        assert node.wait(20) == 0, node.text
    assert 'Traceback' not in node.text


@pytest.mark.parametrize('way', ['interrupted', 'refused'])
def test_a_node_that_ended_is_gone_for_others_as_well(client, way):
    """Nobody is sent to a node that is not there, and its shared memory does not stay."""
    name = f'ending_{way}'  # nodes of other tests, in this process or killed, may still be in the graph
    with node_process(*([] if way == 'interrupted' else ['device:=nowhere']), name=name) as node:
        assert wait_until(lambda: name in client.get_node_names(), 60), node.text
        if way == 'interrupted':
            assert wait_until(lambda: client.count_publishers(f'/{name}/status'), 60), node.text
            node.interrupt()
        node.wait(30)
    assert wait_until(lambda: name not in client.get_node_names(), 5)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('when', ['loading', 'solving'])
def test_it_ends_whatever_the_network_does(client, number, when):
    publisher = client.create_publisher(Image, 'image', 5)
    command = [sys.executable, str(Path(__file__).parents[1] / 'hanging_node.py'), when]
    with Started([*command, '--ros-args', '-p', 'calibration:=predicted'], PYTHONUNBUFFERED='1') as node:
        if when == 'solving':
            assert wait_until(publisher.get_subscription_count, 90), node.text
        for i in range(100):
            publisher.publish(image_message(i))
            if 'asked' in node.text:
                break
            time.sleep(0.1)
        assert wait_until(lambda: 'asked' in node.text, 90), node.text
        node.process.send_signal(number)
        assert node.wait(10) == 0, node.text  # launch would kill it after as long
    assert 'Traceback' not in node.text


def test_an_impossible_request_of_the_lifecycle_is_refused(client):
    change = client.create_client(ChangeState, '/vggt/change_state')
    executor = SingleThreadedExecutor(context=client.context)
    executor.add_node(client)
    with node_process('calibration:=predicted', 'autostart:=false') as node:
        assert change.wait_for_service(90)
        answers = []
        for request in (Transition.TRANSITION_ACTIVATE, 200, Transition.TRANSITION_CONFIGURE):
            future = change.call_async(ChangeState.Request(transition=Transition(id=request)))
            executor.spin_until_future_complete(future, 30)
            answers.append(future.done() and future.result().success)
        assert answers == [False, False, True], node.text
        node.interrupt()
        assert node.wait(20) == 0
    assert 'Traceback' not in node.text


@pytest.mark.parametrize(
    ('parameter', 'reason'),
    [
        ('qos_overrides./image.subscription.reliability:=best', 'it must be one of .*reliable, best_effort'),
        ('qos_overrides./vggt/points.publisher.history:=all', 'it must be one of .*keep_last, keep_all'),
        ('window:=4 -p stride:=4', 'stride must leave room'),
        ('tf_mode:=odom -p odom_frame:=map', 'map'),
    ],
)
def test_what_only_the_user_can_change_is_said_and_ends_it(client, parameter, reason):
    executor = SingleThreadedExecutor(context=client.context)
    executor.add_node(client)
    heard = []
    client.create_subscription(DiagnosticArray, '/diagnostics', heard.append, 10)
    with node_process(*parameter.split(' -p ')) as node:
        end = time.monotonic() + 90
        while node.process.poll() is None and time.monotonic() < end:
            executor.spin_once(0.1)
        assert node.wait(1) == 2, node.text
        assert 'the node ends' in node.text
        assert 'Traceback' not in node.text
    said = [status for message in heard for status in message.status if status.level == DiagnosticStatus.ERROR]
    assert any(re.search(reason, status.message) for status in said), heard


@pytest.mark.parametrize(
    ('parameter', 'reason'),
    [('window:=99', 'window'), ('mode:=dead', 'live, every_frame'), ('image_size:=500', 'multiple of 14')],
)
def test_a_parameter_out_of_range_ends_it_with_the_range(parameter, reason):
    with node_process(parameter) as node:
        assert node.wait(90) == 2
        assert reason in node.text
        assert 'Traceback' not in node.text


def test_an_unreadable_checkpoint_leaves_it_waiting_for_a_better_one(tmp_path):
    (tmp_path / 'broken.safetensors').write_bytes(b'not a checkpoint')
    with node_process(f'weights:={tmp_path / "broken.safetensors"}') as node:
        assert wait_until(lambda: 'cannot configure' in node.text, 90), node.text
        assert 'broken.safetensors' in node.text
        assert node.process.poll() is None
        node.interrupt()
        assert node.wait(20) == 0
    assert 'Traceback' not in node.text


def test_what_is_free_between_what_is_held_goes_back_to_the_system():
    text = """
from vggt_ros.ros.heaps import HEAPS
from vggt_ros.tools.soak.samples import look_at
import os
held = [bytes(b'x') * 65536 for _ in range(4000)]
del held[::2], held[::2]
before = look_at(os.getpid())[0]
HEAPS.trim()
print(before - look_at(os.getpid())[0])
"""
    result = subprocess.run([sys.executable, '-c', text], capture_output=True, text=True, check=True, timeout=120)
    assert float(result.stdout) > 100  # of 187 MiB


@pytest.mark.parametrize(('width', 'mapped'), [(320, 1), (3840, 0)])
def test_what_is_larger_than_an_image_is_the_systems(width, mapped):
    """Blocks of 4 MiB beside images of 320x240 and of 3840x2160, by glibc's own count of those that are mapped."""
    text = f"""
import ctypes
from vggt_ros.ros.heaps import HEAPS
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                'arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost'.split()]
libc.mallinfo2.restype = Info
HEAPS.share()
HEAPS.fit(3 * {width} * {width} * 3 // 4)
before = libc.mallinfo2().hblks
libc.malloc(4 << 20)
print(libc.mallinfo2().hblks - before)
"""
    result = subprocess.run([sys.executable, '-c', text], capture_output=True, text=True, check=True, timeout=120)
    assert int(result.stdout) == mapped


def test_linear_algebra_takes_no_core_from_others():
    """OpenBLAS makes its threads when it is imported, one for each core but the first unless it is told."""
    text = "import os, vggt_ros.ros.node; print(os.environ['OPENBLAS_NUM_THREADS'], len(os.listdir('/proc/self/task')))"
    command = [sys.executable, '-c', text]

    def found(**named):
        environment = {name: value for name, value in os.environ.items() if name != 'OPENBLAS_NUM_THREADS'} | named
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
        return tuple(map(int, result.stdout.split()))

    asked, threads = found()
    assert asked == 1
    assert threads < found(OPENBLAS_NUM_THREADS='4')[1]


def test_a_thread_at_work_does_not_keep_others_waiting():
    """Calls beside a thread of pure Python, by turns as Python and as the node lets threads change places."""
    text = """
import sys, threading, time
from vggt_ros.ros.process import take_turns
def work():
    while True:
        sum(range(100))
threading.Thread(target=work, daemon=True).start()
def calls():
    started = time.perf_counter()
    for _ in range(50):
        time.sleep(0.0005)  # as a call of torch that lets others in
    return time.perf_counter() - started
python = sys.getswitchinterval()
before, after = [], []
for _ in range(5):
    sys.setswitchinterval(python)
    before.append(calls())
    take_turns()
    after.append(calls())
print(sorted(before)[2] / sorted(after)[2])
"""
    result = subprocess.run([sys.executable, '-c', text], capture_output=True, text=True, check=True, timeout=120)
    assert float(result.stdout) > 2
