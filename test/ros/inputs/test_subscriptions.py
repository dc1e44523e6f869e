"""Subscriptions ask for what is offered, and say whom they do not hear."""

import pytest

pytestmark = pytest.mark.requires_ros()
rclpy = pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vggt_ros.msg import Status

from harness import wait_until
from vggt_ros.ros.inputs.subscriptions import Subscriptions
from vggt_ros.ros.parameters import OptionError
from vggt_ros.ros.problems import Problems

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Bench:
    """A node that listens to images and their calibration, and a driver as if in a process of its own."""

    def __init__(self, mode, overrides=()):
        self.context, context = rclpy.Context(), rclpy.Context()
        rclpy.init(context=self.context)
        rclpy.init(context=context)
        overrides = [Parameter(f'qos_overrides.{name}', value=value) for name, value in overrides]
        self.node = rclpy.create_node('listener', context=self.context, parameter_overrides=overrides)
        self.driver = rclpy.create_node('driver', context=context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.problems = Problems(self.node.get_logger())
        self.subscriptions = Subscriptions(self.node, {'mode': mode}, self.problems)
        self.images, self.infos = [], []

    def listen(self):
        self.subscriptions.add_images(Image, 'image', self.images.append, 2, None)
        self.subscriptions.add(CameraInfo, 'camera_info', self.infos.append, 10, None, latched=True)

    def wait(self, condition, match=True):
        """Whether the condition comes true. match: whether the subscriptions look around meanwhile."""

        def came():
            self.executor.spin_once(timeout_sec=0.02)
            if match:
                self.subscriptions.match()
            return condition()

        return wait_until(came)

    def publisher(self, qos, kind=Image, topic='image'):
        publisher = self.driver.create_publisher(kind, topic, qos)
        known = self.node.get_publishers_info_by_topic
        assert wait_until(lambda: known(topic) and all(info.node_name == 'driver' for info in known(topic)))
        return publisher

    def asked(self, topic='/image'):
        """What the node asks for, as others see it."""
        return [info.qos_profile for info in self.driver.get_subscriptions_info_by_topic(topic)]

    def close(self):
        self.subscriptions.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.driver.destroy_node()
        rclpy.shutdown(context=self.driver.context)
        rclpy.shutdown(context=self.context)


@pytest.fixture
def bench(request):
    bench = Bench(getattr(request, 'param', 'every_frame'))
    yield bench
    bench.close()


@pytest.mark.parametrize('reliability', [RELIABLE, BEST_EFFORT])
@pytest.mark.parametrize(('bench', 'mode'), [('live',) * 2, ('every_frame',) * 2], indirect=['bench'])
@pytest.mark.parametrize('first', [True, False])
def test_every_publisher_is_heard_whoever_was_first(bench, mode, reliability, first):
    if not first:
        bench.listen()
    publisher = bench.publisher(QoSProfile(depth=10, reliability=reliability))
    if first:
        bench.listen()
    assert bench.wait(publisher.get_subscription_count)
    message = Image(height=3, encoding='rgb8')

    def heard():
        publisher.publish(message)
        return bench.images

    assert bench.wait(heard)
    assert bench.images[0] == serialize_message(message)
    assert bench.problems.counts() == {}
    lossless = mode == 'every_frame' and reliability is RELIABLE
    assert bench.wait(lambda: [qos.reliability for qos in bench.asked()] == [RELIABLE if lossless else BEST_EFFORT])


def test_a_best_effort_publisher_is_heard_before_anybody_looks_around(bench):
    bench.listen()
    publisher = bench.publisher(QoSProfile(depth=10, reliability=BEST_EFFORT))
    assert bench.wait(publisher.get_subscription_count, match=False)


def test_we_are_reliable_again_when_all_who_publish_are(bench):
    bench.listen()
    first = bench.publisher(QoSProfile(depth=10, reliability=BEST_EFFORT))
    bench.publisher(QoSProfile(depth=10))
    assert bench.wait(lambda: [qos.reliability for qos in bench.asked()] == [BEST_EFFORT])
    assert bench.wait(lambda: 'publishers of /image' in bench.problems.counts())
    assert '/image has 2 publishers, /driver, /driver' in bench.problems.present()[0]
    assert bench.subscriptions.publishers() == ['/driver', '/driver']
    bench.driver.destroy_publisher(first)
    assert bench.wait(lambda: [qos.reliability for qos in bench.asked()] == [RELIABLE])


@pytest.mark.parametrize('bench', ['live', 'every_frame'], indirect=True)
@pytest.mark.parametrize('first', [True, False])
def test_a_calibration_that_was_sent_before_we_came(bench, first):
    if not first:
        bench.listen()
    publisher = bench.publisher(LATCHED, CameraInfo, 'camera_info')
    publisher.publish(CameraInfo(width=7))
    if first:
        bench.listen()
    assert bench.wait(lambda: bench.infos)
    assert bench.infos[0].width == 7
    bench.driver.destroy_publisher(publisher)
    volatile = bench.publisher(QoSProfile(depth=10, reliability=BEST_EFFORT), CameraInfo, 'camera_info')
    assert bench.wait(volatile.get_subscription_count)

    def heard():
        volatile.publish(CameraInfo(width=8))
        return bench.infos[-1].width == 8

    assert bench.wait(heard)


def test_what_the_user_overrides_is_asked_for_and_what_follows_is_said():
    bench = Bench('live', [('/image.subscription.reliability', 'reliable'), ('/image.subscription.depth', 7)])
    try:
        bench.listen()
        bench.publisher(QoSProfile(depth=10, reliability=BEST_EFFORT))
        assert bench.wait(lambda: 'QoS of /image' in bench.problems.counts())
        (asked,) = bench.asked()
        assert asked.reliability is RELIABLE
        assert '/driver publish /image best effort' in bench.problems.present()[0]
        assert bench.node.get_parameter('qos_overrides./image.subscription.depth').value == 7
        bench.subscriptions.close()
        bench.listen()
        assert bench.wait(lambda: [qos.reliability for qos in bench.asked()] == [RELIABLE])
    finally:
        bench.close()


def test_an_override_that_is_none_is_refused():
    bench = Bench('live', [('/image.subscription.reliability', 'system_default')])
    try:
        with pytest.raises(OptionError, match="'system_default' is not one of reliable, best_effort, as_offered"):
            bench.listen()
    finally:
        bench.close()


@pytest.mark.parametrize(
    ('kind', 'topic'), [(CompressedImage, 'image/compressed'), (CompressedImage, 'image'), (CameraInfo, 'image')]
)
def test_images_of_another_kind_are_named(bench, kind, topic):
    bench.publisher(QoSProfile(depth=10), kind, topic)
    bench.listen()
    bench.subscriptions.match()
    (text,) = bench.problems.present()
    assert text.startswith(
        f'nobody publishes sensor_msgs/msg/Image on /image, but /driver sensor_msgs/msg/{kind.__name__}'
    )
    assert f'on /{topic}:' in text


def test_images_elsewhere_are_named(bench):
    bench.publisher(QoSProfile(depth=10), Image, '/camera/image_raw')
    bench.listen()
    bench.subscriptions.match()
    (text,) = bench.problems.present()
    assert text == 'nobody publishes /image; there are images on /camera/image_raw: see the remapping'


def test_what_another_node_like_this_makes_is_no_camera(bench):
    bench.publisher(QoSProfile(depth=10), Image, '/front/vggt/depth')
    bench.publisher(QoSProfile(depth=10), Status, '/front/vggt/status')
    bench.listen()
    bench.subscriptions.match()
    assert not bench.problems.present()


def test_while_paused_nobody_listens_to_images(bench):
    bench.listen()
    publisher, calibration = bench.publisher(QoSProfile(depth=10)), bench.publisher(LATCHED, CameraInfo, 'camera_info')
    assert bench.wait(lambda: publisher.get_subscription_count() and calibration.get_subscription_count())
    for paused in (True, True, False, False, True):
        bench.subscriptions.pause(paused)
        assert bench.wait(lambda wanted=not paused: publisher.get_subscription_count() == wanted)
        assert calibration.get_subscription_count() == 1
