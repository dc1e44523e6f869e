"""The player: what it publishes is the input, stamps and all, and it goes as fast as it is followed."""

import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from exact import picture

pytestmark = pytest.mark.requires_ros

START = 1_700_000_000_123_456_789  # a stamp that no float keeps


@pytest.fixture
def folder(tmp_path):
    """Seven calibrated pictures with irregular stamps."""
    path = tmp_path / 'walk'
    (path / 'images').mkdir(parents=True)
    for index in range(7):
        cv2.imwrite(str(path / 'images' / f'{index}.png'), picture(index)[..., ::-1])
    lines = [f'{index}.png {str(stamp)[:-9]}.{str(stamp)[-9:]}' for index, stamp in enumerate(stamps())]
    (path / 'timestamps.txt').write_text('\n'.join(lines))
    (path / 'intrinsics.yaml').write_text('{image_width: 160, image_height: 120, fx: 110, fy: 111, cx: 79.5, cy: 59}')
    return path


def stamps():
    return [START + index * index * 1_000_001 for index in range(7)]


class Listener:
    """A player in this process, and somebody who hears it."""

    def __init__(self, kind='Image', topic='image', **parameters):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.parameter import Parameter
        from sensor_msgs import msg

        from vggt_ros.ros.player import Player

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('listener', context=self.context)
        self.images, self.infos, self.clocks = [], [], []
        self.node.create_subscription(getattr(msg, kind), topic, self.images.append, 100)
        self.node.create_subscription(msg.CameraInfo, 'camera_info', self.infos.append, 100)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        parameters = {'rate': 0.0, 'start_delay': 0.5} | parameters
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.player = Player(context=self.context, parameter_overrides=overrides)

    def __enter__(self):
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        import rclpy

        self.executor.shutdown()
        self.thread.join()
        for node in (self.node, self.player):
            node.destroy_node()  # else its latched messages live on into the next test
        rclpy.shutdown(context=self.context)

    def play(self, expected):
        """Play to the end and wait for so many images and infos."""
        from harness import wait_until

        self.player.play()
        assert wait_until(lambda: len(self.images) >= expected <= len(self.infos))


def heard(messages):
    from vggt_ros.ros.messages import time_to_ns

    return [time_to_ns(message.header.stamp) for message in messages]


def test_images_and_calibration_carry_the_exact_stamps_of_the_input(folder):
    with Listener(path=str(folder)) as listener:
        listener.play(7)
    assert heard(listener.images) == heard(listener.infos) == stamps()
    assert {m.header.frame_id for m in (*listener.images, *listener.infos)} == {'camera_optical_frame'}
    for index, message in enumerate(listener.images):
        assert (message.width, message.height, message.encoding, message.step) == (160, 120, 'rgb8', 480)
        assert (np.frombuffer(message.data, np.uint8).reshape(120, 160, 3) == picture(index)).all()
    assert list(listener.infos[3].k) == [110, 0, 79.5, 0, 111, 59, 0, 0, 1]


def test_stride_and_limit_and_clock(folder):
    from rosgraph_msgs.msg import Clock

    with Listener(path=str(folder), stride=2, limit=3, clock=True) as listener:
        listener.node.create_subscription(Clock, '/clock', listener.clocks.append, 100)
        listener.play(3)
    assert heard(listener.images) == stamps()[:5:2]
    assert [clock.clock for clock in listener.clocks] == [image.header.stamp for image in listener.images]


def test_compressed_images_of_a_bag_are_played_as_they_are(tmp_path):
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    types = store.types
    files = [cv2.imencode('.jpg', picture(index))[1].ravel() for index in range(2)]
    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        kind = 'sensor_msgs/msg/CompressedImage'
        connection = bag.add_connection('/eye/image/compressed', kind, typestore=store)
        for index, file in enumerate(files):
            time = types['builtin_interfaces/msg/Time'](5 + index, 999_999_999)
            message = types[kind](types['std_msgs/msg/Header'](time, 'eye'), 'jpeg', file)
            bag.write(connection, 1000 + index, store.serialize_cdr(message, kind))
    with Listener('CompressedImage', 'image/compressed', path=str(tmp_path / 'bag')) as listener:
        from harness import wait_until

        listener.player.play()
        assert wait_until(lambda: len(listener.images) == 2)
    assert heard(listener.images) == [5_999_999_999, 6_999_999_999]
    assert [m.header.frame_id for m in listener.images] == ['eye', 'eye']
    assert [(m.format, bytes(m.data)) for m in listener.images] == [('jpeg', file.tobytes()) for file in files]
    assert listener.infos == []  # the bag has no calibration


def test_the_player_runs_no_further_ahead_than_it_is_allowed(folder):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vggt_ros.msg import Status

    ahead = []
    with Listener(path=str(folder), follow='eye/status', max_in_flight=2, start_delay=0.0) as listener:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = listener.node.create_publisher(Status, 'eye/status', latched)
        # It has solved images of somebody else before.
        status = Status(images_processed=40, images_dropped=2)
        publisher.publish(status)

        def solve():
            ahead.append(listener.player.backlog.in_flight)
            if listener.images:
                status.images_processed = 40 + len(listener.images)
                publisher.publish(status)

        listener.node.create_timer(0.05, solve)
        listener.play(7)
        assert listener.player.backlog.in_flight == 0  # it has waited for the last
    assert max(ahead) <= 2
    assert heard(listener.images) == stamps()


def test_it_gives_up_on_images_that_nobody_accounts_for(folder, capfd):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vggt_ros.msg import Status

    parameters = {'follow': 'eye/status', 'patience': 0.3}
    with Listener(path=str(folder), **parameters) as listener:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = listener.node.create_publisher(Status, 'eye/status', latched)
        publisher.publish(Status(state=Status.LOST))
        assert listener.player.play() == 7
    assert '7 of 7 images were never accounted for on /eye/status' in capfd.readouterr().err


def test_backlog_counts_what_has_happened_since_it_began():
    from vggt_ros.ros.player import Backlog

    backlog = Backlog()
    assert not backlog.connected
    backlog.on_total(100)
    assert backlog.connected
    for _ in range(5):
        backlog.on_publish()
    assert backlog.in_flight == 5
    backlog.on_total(103)
    assert (backlog.accounted, backlog.in_flight) == (3, 2)
    backlog.on_total(1)  # the node was activated anew
    assert (backlog.accounted, backlog.in_flight) == (4, 1)
    backlog.on_total(6)  # another camera's images are among them
    assert backlog.in_flight == 0


def test_a_node_at_work_is_waited_for(monkeypatch):
    """While its first window takes its time it says so; a window that hangs is LOST, and no sign of work."""
    from vggt_ros.ros import player

    now = 100.0
    monkeypatch.setattr(player.time, 'monotonic', lambda: now)
    backlog = player.Backlog()
    backlog.on_total(0)
    backlog.on_publish()
    for _ in range(60):
        now += 1
        backlog.on_total(0, at_work=True)
    assert backlog.idle == 0
    assert backlog.longest_gap == 0
    now += 20
    backlog.on_total(0, at_work=False)
    assert backlog.idle == 20


@pytest.mark.parametrize(
    ('parameters', 'complaint'),
    [
        ([], 'nothing to play: set the parameter path'),
        (['path:=/no/where'], '/no/where does not exist'),
        (['path:=/etc/hostname'], 'not a video'),
        (['path:=/etc', 'rate:=-1.0'], 'rate'),
        (['path:=/etc', 'stride:=0'], 'stride'),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(parameters, complaint):
    options = [word for parameter in parameters for word in ('-p', parameter)]
    done = subprocess.run(
        [sys.executable, '-m', 'vggt_ros.ros.player', '--ros-args', *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert complaint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
