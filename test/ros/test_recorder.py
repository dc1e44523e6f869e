"""The recorder: what is missing of an image is given up when later ones have come, not after some seconds."""

import json
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros


@pytest.fixture
def recorder(tmp_path):
    """(recorder that is spun, publishers of the joined topics by name)."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from vggt_ros.ros.recorder import JOINED, OUTPUTS, Recorder

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('sender', context=context)
    publishers = {name: node.create_publisher(OUTPUTS[name], f'vggt/{name}', 20) for name in JOINED}
    recorder = Recorder(context=context, parameter_overrides=[Parameter('output', value=str(tmp_path / 'out'))])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(recorder)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield recorder, publishers
    executor.shutdown()
    thread.join()
    node.destroy_node()
    recorder.destroy_node()
    rclpy.shutdown(context=context)


def send(publishers, index, leave_out=()):
    from harness import stamp_of
    from vggt_ros.ros.messages import POINT, ns_to_time

    for name, publisher in publishers.items():
        if name in leave_out:
            continue
        message = publisher.msg_type()
        message.header.stamp = ns_to_time(stamp_of(index))
        if name == 'odometry':
            message.pose.pose.position.x = float(index)
        elif name == 'points':
            message.height, message.width, message.data = 2, 3, np.ones(6, POINT).tobytes()
        else:
            message.height, message.width, message.step = 2, 3, 12
            message.data = np.full((2, 3), 1.5, np.float32).tobytes()
        publisher.publish(message)


def test_an_image_that_lacks_something_waits_for_later_ones_only(recorder, tmp_path):
    from harness import wait_until
    from vggt_ros.ros import recorder as module

    node, publishers = recorder
    assert wait_until(lambda: all(p.get_subscription_count() for p in publishers.values()))
    send(publishers, 0)
    assert wait_until(lambda: node.recording.frames == 1)
    send(publishers, 1, leave_out=('depth/image_rect', 'points'))
    time.sleep(0.3)
    assert node.recording.frames == 1  # it may still come
    began = time.monotonic()
    send(publishers, 2)
    assert wait_until(lambda: node.recording.frames == 3)
    assert time.monotonic() - began < module.STRAGGLER
    send(publishers, 3, leave_out=('odometry',))
    assert wait_until(lambda: node.recording.frames == 4, module.STRAGGLER + 20)  # nothing comes any more
    node.finish()
    status = json.loads((tmp_path / 'out' / 'status.json').read_text())
    assert (status['frames'], status['frames_incomplete']) == (4, 2)
    assert np.loadtxt(tmp_path / 'out' / 'trajectory.txt')[:, 1].tolist() == [0, 1, 2]
    assert len(list((tmp_path / 'out' / 'depth').iterdir())) == 3
