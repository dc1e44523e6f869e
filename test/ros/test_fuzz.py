"""Messages, requests and parameters that nobody in his right mind sends: the node refuses them and stays at work."""

import array
import copy
import zlib

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')
pytestmark = pytest.mark.requires_ros('tf2_msgs')

from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from tf2_msgs.msg import TFMessage
from vggt_ros.msg import TrackArray
from vggt_ros.srv import SaveMap

from exact import ExactPredictor, K, walk
from harness import START, Rig, image_message, info_message, wait_until
from mutations import NUMBERS, TEXTS, mutated
from vggt_ros.calibration import Calibration
from vggt_ros.rectify import CameraInfoError, Rectifier
from vggt_ros.ros import parameters
from vggt_ros.ros.compat import to_array
from vggt_ros.ros.inputs.images import ImageError, to_depth, to_rgb
from vggt_ros.ros.messages import fill_image, ns_to_time
from vggt_ros.weights.registry import make_predictor

COUNT = 60  # messages of each kind over DDS
DIRECT = 1500  # given to a reader directly
STEP = 100_000_000  # ns between two good images


class Anywhere(dict):
    """Poses for any stamp: the camera walks to and fro with time."""

    WALK = walk(20)

    def __missing__(self, stamp):
        index = stamp // STEP % 38
        return self.WALK[index if index < 20 else 38 - index]


def compressed(index, form='.png'):
    raw = image_message(index)
    pixels = np.frombuffer(raw.data, np.uint8).reshape(raw.height, raw.width, 3)
    data = cv2.imencode(form, pixels)[1]
    return CompressedImage(header=raw.header, format=form[1:], data=to_array('B', data.ravel()))


def depth(index):
    message = Image(height=120, width=160, encoding='16UC1', step=320)
    message.header = image_message(index).header
    message.data = to_array('B', np.full((120, 160), 2000, np.uint16).view(np.uint8))
    return message


def imu(index):
    message = Imu()
    message.header.stamp, message.header.frame_id = image_message(index).header.stamp, 'eye'
    message.linear_acceleration.y = -9.81
    return message


def transforms(index):
    """A moving joint, a frame that is its own parent, a circle, nameless ones, and one that claims the camera."""
    message = TFMessage()
    for parent, child in (('torso', 'arm'), ('a', 'a'), ('b', 'c'), ('c', 'b'), ('', 'd'), ('e', ''), ('odom', 'eye')):
        transform = TransformStamped(child_frame_id=child)
        transform.header.frame_id, transform.header.stamp = parent, image_message(index).header.stamp
        transform.transform.rotation.w = 1.0
        message.transforms.append(transform)
    return message


SENT = {
    'image': (Image, image_message),
    'camera_info': (CameraInfo, info_message),
    'imu': (Imu, imu),
    'depth_registered': (Image, depth),
    '/tf': (TFMessage, transforms),
    '/tf_static': (TFMessage, transforms),
}


class Bench:
    """A node at work, and whether it still is."""

    POSES = Anywhere()

    def __init__(self, predictor=None, **options):
        self.rig = Rig(predictor or ExactPredictor(self.POSES), **options)
        self.stamp = START
        self.publishers = {}

    def publisher(self, kind, topic):
        if topic not in self.publishers:
            qos = QoSProfile(depth=2 * COUNT)
            if topic == '/tf_static':
                qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
            self.publishers[topic] = self.rig.client.create_publisher(kind, topic, qos)
        assert wait_until(self.publishers[topic].get_subscription_count), f'the node does not listen to {topic}'
        return self.publishers[topic]

    def good(self):
        """The next good image with its calibration; after a restart of time it begins a new map."""
        self.stamp += STEP
        index = (self.stamp - START) // STEP
        image = self.good_image(index)
        info = info_message(0)
        info.header.stamp = image.header.stamp = ns_to_time(self.stamp)
        self.rig.info.publish(info)
        before = self.rig.counts.received
        self.image.publish(image)
        assert wait_until(lambda: self.rig.counts.received > before), 'the node takes in no image any more'

    def good_image(self, index):
        return image_message(index, T_world_camera=self.POSES[self.stamp])

    @property
    def image(self):
        return self.rig.image

    def at_work(self):
        """Whether good images are solved: a few may be taken for stragglers of before a jump of time."""
        assert all(thread.is_alive() for thread in self.rig.spinning.threads), 'a callback raised'
        assert self.rig.node._active.cause is None
        before = self.rig.counts.processed
        for _ in range(12):
            for _ in range(5):
                self.good()
            # The first image of a map waits for the second: where a message changed the camera, it may be the last.
            assert wait_until(lambda: self.rig.counts.waiting <= 1), f'images are not accounted for: {self.rig.counts}'
            if self.rig.counts.processed >= before + 5 and wait_until(lambda: not self.rig.counts.waiting, 2):
                return
        pytest.fail(f'no good image is solved: {self.rig.problems()}')


class CompressedBench(Bench):
    """Likewise, over compressed images."""

    def good_image(self, index):
        return compressed(index)

    @property
    def image(self):
        return self.publisher(CompressedImage, 'image/compressed')


@pytest.fixture
def bench():
    bench = Bench(scale_sources=['depth'], max_time_jump=0.5, path_length=50)
    with bench.rig:
        bench.at_work()
        yield bench


@pytest.mark.parametrize('topic', SENT)
def test_mutated_messages_do_no_harm(bench, topic):
    kind, make = SENT[topic]
    rng = np.random.default_rng(len(topic))
    publisher = bench.publisher(kind, topic)
    for index in range(COUNT):
        publisher.publish(mutated(rng, make(index)))
        if index % 10 == 0:
            bench.good()
    bench.at_work()


SIZES = [
    (1, 1),
    (1, 200),
    (200, 1),
    (2, 2),
    (13, 17),
    (1024, 64),
    (64, 1024),
    (1600, 16),
    (15, 900),
    (500, 30),
    (4096, 8),
]


def test_pictures_of_any_shape_do_no_harm():
    """Well-formed, and listened to by somebody who wants tracks."""
    bench = Bench(make_predictor('', device='cpu', image_size=126), calibration='predicted')
    with bench.rig:
        bench.rig.listen(TrackArray, '/vggt/tracks')
        bench.at_work()
        rng = np.random.default_rng(5)
        for width, height in SIZES:
            picture = rng.integers(0, 256, (height, width, 3), np.uint8)
            for _ in range(4):
                bench.stamp += STEP
                message = Image()
                message.header.stamp, message.header.frame_id = ns_to_time(bench.stamp), 'eye'
                fill_image(message, picture, 'rgb8')
                bench.rig.send(message)
            assert bench.rig.settled()
        bench.at_work()


@pytest.mark.parametrize('size', [(100_000, 100_000), (2**31 - 1, 1), (0, 0), (40_000, 3)])
def test_a_header_that_lies_does_no_harm(size):
    """Width and height in the IHDR chunk of a PNG of 160x120 pixels, its checksum mended."""
    bench = CompressedBench(image_transport='compressed')
    with bench.rig:
        bench.at_work()
        refused = bench.rig.counts.refused
        for index in range(3):
            message = compressed(0)
            bench.stamp += STEP
            message.header.stamp = ns_to_time(bench.stamp)
            head = b'IHDR' + np.array(size, '>u4').tobytes() + bytes(message.data[24:29])
            message.data[12:33] = array.array('B', head + zlib.crc32(head).to_bytes(4, 'big'))
            before = bench.rig.counts.received
            bench.image.publish(message)
            assert wait_until(lambda before=before: bench.rig.counts.received > before), index
        assert wait_until(lambda: bench.rig.counts.refused == refused + 3), bench.rig.problems()
        bench.at_work()


@pytest.mark.parametrize('form', ['.png', '.jpg'])
def test_mutated_pictures_do_no_harm(form):
    bench = CompressedBench(image_transport='compressed', max_time_jump=0.5)
    with bench.rig:
        bench.at_work()
        rng = np.random.default_rng(3)
        for index in range(COUNT):
            message = compressed(index, form)
            for _ in range(rng.integers(1, 6)):
                message.data[rng.integers(len(message.data) if rng.integers(2) else 40)] = int(rng.integers(256))
            if rng.integers(3) == 0:
                message = mutated(rng, message)
            bench.image.publish(message)
        bench.at_work()


def test_services_answer_whatever_is_asked(bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = bench.rig.client.create_client(SaveMap, '/vggt/save_map')
    assert client.wait_for_service(10)
    (tmp_path / 'file').write_text('')
    for folder in (
        '',
        '/',
        '..',
        'ÄÖ\t\n',
        'a' * 5000,
        'file',
        'file/below',
        '/dev/null/x',
        '/proc/1/x',
        '~nobody_of_this_name/x',
        'a/' * 300,
    ):
        future = client.call_async(SaveMap.Request(folder=folder))
        assert wait_until(future.done), folder
        assert future.result().message
    for name in ('pause', 'pause', 'reset', 'resume', 'resume', 'reset'):
        assert bench.rig.call(name).success
    bench.at_work()


VALUES = [
    *(ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=number) for number in NUMBERS),
    *(ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=n) for n in (0, -1, 7, 2**63 - 1, -(2**63))),
    *(ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text) for text in TEXTS),
    *(
        ParameterValue(type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=v)
        for v in ([], ['moon'], ['', ''])
    ),
    *(ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=value) for value in (True, False)),
    ParameterValue(type=ParameterType.PARAMETER_DOUBLE_ARRAY, double_array_value=[float('nan')] * 3),
    ParameterValue(type=ParameterType.PARAMETER_BYTE_ARRAY, byte_array_value=[b'\x00']),
    ParameterValue(type=ParameterType.PARAMETER_NOT_SET),
]


def set_parameters(rig, changes):
    """The answers of the node's own service."""
    client = rig.client.create_client(SetParameters, '/vggt/set_parameters')
    assert client.wait_for_service(10)
    future = client.call_async(SetParameters.Request(parameters=changes))
    assert wait_until(future.done), 'the node does not answer'
    return future.result().results


def test_parameters_keep_to_their_ranges_at_work(bench):
    rng = np.random.default_rng(0)
    names = [declared.name for declared in parameters.PARAMETERS] + ['no_such_parameter', 'use_sim_time ', '']
    changes = [ParameterMessage(name=name, value=VALUES[rng.integers(len(VALUES))]) for name in names for _ in range(6)]
    for result, change in zip(set_parameters(bench.rig, changes), changes, strict=True):
        assert result.successful or result.reason, change
    for declared in parameters.PARAMETERS:
        assert declared.problem(bench.rig.node.get_parameter(declared.name).value) is None
    bench.at_work()


@pytest.mark.parametrize('seed', range(4))
def test_any_accepted_parameters_configure_or_are_refused_with_a_reason(seed):
    """A transition that raises would be an ERROR."""
    rng = np.random.default_rng(seed)
    with Rig(ExactPredictor(Anywhere()), start=False) as rig:
        usual = {declared.name: rig.node.get_parameter(declared.name) for declared in parameters.PARAMETERS}
        for _ in range(5):
            names = rng.choice(sorted(set(usual) - {'autostart', 'map_budget'}), 4, replace=False)
            set_parameters(
                rig, [ParameterMessage(name=str(name), value=VALUES[rng.integers(len(VALUES))]) for name in names]
            )
            made = rig.node.trigger_configure()
            assert made in (TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE)
            if made == TransitionCallbackReturn.SUCCESS:
                assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
                assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
                assert rig.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
            assert all(result.successful for result in rig.node.set_parameters(list(usual.values())))


# Readers alone


@pytest.mark.parametrize(
    ('read', 'make', 'declared'),
    [
        (to_rgb, image_message, ImageError),
        (to_depth, depth, ImageError),
        (lambda message: Rectifier(message), info_message, CameraInfoError),
    ],
    ids=['image', 'depth', 'camera_info'],
)
def test_readers_raise_what_they_declare(read, make, declared):
    rng = np.random.default_rng(1)
    message, reasons = make(0), []
    if isinstance(message, CameraInfo):
        message.d, message.r = [-0.3, 0.1, 0.0, 0.0, 0.0], np.eye(3).ravel()
        message.p = np.hstack([K, np.zeros((3, 1))]).ravel()
    for _ in range(DIRECT):
        try:
            read(mutated(rng, message))
        except declared as error:
            reasons.append(str(error))
    assert 20 < len(reasons) < DIRECT - 20
    assert all(reason and '\n' not in reason for reason in reasons)


def test_every_camera_info_is_remembered_as_it_is():
    rng = np.random.default_rng(2)
    for _ in range(DIRECT):
        message = mutated(rng, info_message(0))
        calibration, again = Calibration.from_message(message), CameraInfo()
        calibration.fill(again)
        again.header = copy.deepcopy(message.header)
        np.testing.assert_array_equal(again.k, message.k)
        np.testing.assert_array_equal(again.d, message.d)


def test_a_node_refuses_parameters_that_make_no_sense_at_once():
    for name, value in (('window', 10**9), ('min_confidence', float('nan')), ('mode', 'moon'), ('image_size', 500)):
        with pytest.raises((ValueError, ParameterException), match=name):
            Rig(ExactPredictor({}), start=False, **{name: value})
