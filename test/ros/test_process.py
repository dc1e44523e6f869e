"""The node as a process of its own: what it says at start, and how it ends."""

import os
import signal
import subprocess
import sys
import threading

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from sensor_msgs.msg import Image

from harness import image_message, wait_until


class Node:
    """``python -m vggt_ros.ros.node`` with parameters; ``text`` is what it has printed."""

    def __init__(self, *parameters):
        words = [word for parameter in parameters for word in ('-p', parameter)]
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'vggt_ros.ros.node', '--ros-args', '-p', 'threads:=1', *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {'PYTHONUNBUFFERED': '1'},
        )
        self.text = ''
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.text += line

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


@pytest.mark.parametrize('interrupts', [1, 2])
def test_an_interrupt_at_work_ends_it_cleanly(interrupts):
    context = rclpy.Context()
    rclpy.init(context=context)
    client = rclpy.create_node('client', context=context)
    publisher = client.create_publisher(Image, 'image', 5)
    with Node('calibration:=predicted', 'image_size:=126') as node:
        assert wait_until(publisher.get_subscription_count, 30), node.text
        for i in range(8):
            publisher.publish(image_message(i))
        for _ in range(interrupts):
            node.process.send_signal(signal.SIGINT)
        assert node.process.wait(20) == 0, node.text
    assert 'Traceback' not in node.text
    client.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ('parameter', 'reason'),
    [('window:=99', 'window'), ('mode:=dead', 'live, every_frame'), ('image_size:=500', 'multiple of 14')],
)
def test_a_parameter_out_of_range_ends_it_with_the_range(parameter, reason):
    with Node(parameter) as node:
        assert node.process.wait(20) == 2
        node.reader.join()
        assert reason in node.text
        assert 'Traceback' not in node.text


def test_an_unreadable_checkpoint_leaves_it_waiting_for_a_better_one(tmp_path):
    (tmp_path / 'broken.safetensors').write_bytes(b'not a checkpoint')
    with Node(f'weights:={tmp_path / "broken.safetensors"}') as node:
        assert wait_until(lambda: 'cannot configure' in node.text), node.text
        assert 'broken.safetensors' in node.text
        assert node.process.poll() is None
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(20) == 0
    assert 'Traceback' not in node.text
