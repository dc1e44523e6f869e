"""The node as a process of its own: what it says at start, and how it ends."""

import sys

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from sensor_msgs.msg import Image

from harness import image_message, wait_until
from started import Started


def node_process(*parameters: str) -> Started:
    """``python -m vggt_ros.ros.node`` with parameters."""
    words = [word for parameter in parameters for word in ('-p', parameter)]
    command = [sys.executable, '-m', 'vggt_ros.ros.node', '--ros-args', '-p', 'threads:=1', *words]
    return Started(command, PYTHONUNBUFFERED='1')


@pytest.mark.parametrize('interrupts', [1, 2])
def test_an_interrupt_at_work_ends_it_cleanly(interrupts):
    context = rclpy.Context()
    rclpy.init(context=context)
    client = rclpy.create_node('client', context=context)
    publisher = client.create_publisher(Image, 'image', 5)
    with node_process('calibration:=predicted', 'image_size:=126') as node:
        assert wait_until(publisher.get_subscription_count, 30), node.text
        for i in range(8):
            publisher.publish(image_message(i))
        for _ in range(interrupts):
            node.interrupt()
        assert node.wait(20) == 0, node.text
    assert 'Traceback' not in node.text
    client.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ('parameter', 'reason'),
    [('window:=99', 'window'), ('mode:=dead', 'live, every_frame'), ('image_size:=500', 'multiple of 14')],
)
def test_a_parameter_out_of_range_ends_it_with_the_range(parameter, reason):
    with node_process(parameter) as node:
        assert node.wait(20) == 2
        assert reason in node.text
        assert 'Traceback' not in node.text


def test_an_unreadable_checkpoint_leaves_it_waiting_for_a_better_one(tmp_path):
    (tmp_path / 'broken.safetensors').write_bytes(b'not a checkpoint')
    with node_process(f'weights:={tmp_path / "broken.safetensors"}') as node:
        assert wait_until(lambda: 'cannot configure' in node.text), node.text
        assert 'broken.safetensors' in node.text
        assert node.process.poll() is None
        node.interrupt()
        assert node.wait(20) == 0
    assert 'Traceback' not in node.text
