"""Subscriptions that no executor watches."""

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Imu
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from harness import Spinning, wait_until
from vggt_ros.ros.polled import Polled, read


@pytest.fixture
def nodes():
    context = rclpy.Context()
    rclpy.init(context=context)
    node, client = (rclpy.create_node(name, context=context) for name in ('listener', 'speaker'))
    spinning = Spinning(context, node, client)
    yield node, client
    spinning.stop()
    node.destroy_node()
    client.destroy_node()
    rclpy.shutdown(context=context)


def names(taken):
    return [read(raw, Header).frame_id for raw in taken]


def test_what_came_is_taken_in_order_once_and_the_newest_wait(nodes):
    """The node's executor spins all the while."""
    node, client = nodes
    polled = Polled(node, Header, 'words', QoSProfile(depth=5))
    publisher = client.create_publisher(Header, 'words', 10)
    assert wait_until(lambda: publisher.get_subscription_count() == 1)
    taken = []
    for i in range(3):
        publisher.publish(Header(frame_id=str(i)))
    assert wait_until(lambda: taken.extend(polled.take()) or len(taken) == 3)
    assert names(taken) == ['0', '1', '2']
    watch = Polled(node, Header, 'words', QoSProfile(depth=1))
    assert wait_until(lambda: publisher.get_subscription_count() == 2)
    for i in range(9):
        publisher.publish(Header(frame_id=str(i)))
    last = []
    assert wait_until(lambda: last.extend(watch.take()) or (last and names(last)[-1] == '8'))
    assert names(polled.take()) == ['4', '5', '6', '7', '8']
    assert polled.take() == []


def test_after_close_nothing_comes_and_nobody_listens(nodes):
    node, client = nodes
    polled = Polled(node, Header, 'words', QoSProfile(depth=5))
    assert polled.topic == '/words'
    assert wait_until(lambda: client.count_subscribers('words') == 1)
    polled.close()
    polled.close()
    assert polled.take() == []
    assert wait_until(lambda: client.count_subscribers('words') == 0)


def test_no_message_wakes_the_executor(nodes):
    """It goes on waiting while messages come, and while they wait."""
    node, client = nodes
    polled = Polled(node, Header, 'words', QoSProfile(depth=50))
    publisher = client.create_publisher(Header, 'words', 50)
    assert wait_until(lambda: publisher.get_subscription_count() == 1)
    executor = node.executor
    rounds = []
    # Each round of the executor asks for the nodes it waits on.
    ask = executor.get_nodes
    executor.get_nodes = lambda: rounds.append(1) or ask()
    executor.wake()
    assert wait_until(lambda: rounds)
    del rounds[:]
    for _ in range(50):
        publisher.publish(Header())
    taken = []
    assert wait_until(lambda: taken.extend(polled.take()) or len(taken) == 50)
    assert len(rounds) < 10
    executor.wake()
    assert wait_until(lambda: rounds)


@pytest.mark.parametrize('kind', [Imu, TFMessage])
def test_messages_are_read_as_rclpy_reads_them(kind):
    from geometry_msgs.msg import TransformStamped
    from rclpy.serialization import serialize_message

    message = Imu() if kind is Imu else TFMessage(transforms=[TransformStamped(child_frame_id='eye')])
    found = read(serialize_message(message), kind)
    if kind is Imu:
        assert list(found.angular_velocity_covariance) == [0.0] * 9
        assert found.orientation.w == 1.0
    else:
        assert [one.child_frame_id for one in found.transforms] == ['eye']


def test_a_name_that_is_no_utf8_is_read_nevertheless():
    from rclpy.serialization import serialize_message

    raw = serialize_message(Header(frame_id='camera')).replace(b'mer', b'm\xffr')
    assert read(raw, Header).frame_id.startswith('cam')
