"""Metric sources and gravity as a node gets them: messages over DDS, transforms from a table."""

import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros()
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from geometry_msgs.msg import Vector3
from rclpy.executors import SingleThreadedExecutor
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu

from exact import SIZE, K, picture
from exact_windows import LAMBDA, RIG, pair, sensor, solved, stamp_of
from harness import info_message, wait_until
from vggt_ros.odometry.gravity import STANDARD, GravitySource
from vggt_ros.odometry.scale.sources import FixedSource, HeightSource, NoInput
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.ros.inputs.gravity import GravitySensor
from vggt_ros.ros.inputs.sensor import Robot
from vggt_ros.ros.inputs.sensors import make_sensors
from vggt_ros.ros.messages import fill_image, ns_to_time
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Frame

SETTINGS = {
    'mode': 'every_frame',  # reliable: each message is sent once
    'queue_memory': 64,
    'image_transport': 'raw',
    'image_bits': 16,
    'image_size': 0,
    'rectified': False,
    'calibration': 'auto',
    'scale_sources': [''],
    'sync_tolerance': 0.02,
    'depth_near': 0.3,
    'depth_far': 8.0,
    'camera_height': 0.0,
    'metric_factor': 0.0,
    'odom_frame': 'odom',
    'base_frame': 'base_link',
    'gravity': 'auto',
}


class Bench:
    """A node with inputs under test, and publishers; ``transforms`` is the table that ``lookup`` reads."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('inputs', context=self.context)
        self.client = rclpy.create_node('client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.client)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()
        self.problems = Problems(self.node.get_logger())
        self.transforms = {}
        self.opened = []

    def _spin(self):
        while not self.ended.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    def lookup(self, target, source, stamp):
        return self.transforms.get((target, source), f'{source} is not connected to {target}')

    def robot(self, settings):
        return Robot(self.node, SETTINGS | settings, self.problems, self.lookup)

    def metric(self, *names, **settings):
        """The sensors of these scale sources, open."""
        *sensors, _ = make_sensors(self.robot({'scale_sources': list(names)} | settings))
        return [self._opened(one) for one in sensors]

    def gravity(self, **settings):
        return self._opened(GravitySensor(self.robot(settings)))

    def _opened(self, sensor):
        self.on_executor(sensor.open)
        self.opened.append(sensor)
        return sensor

    def publisher(self, kind, topic):
        publisher = self.client.create_publisher(kind, topic, 500)
        assert wait_until(publisher.get_subscription_count)
        return publisher

    def on_executor(self, call):
        """Where the node opens and closes its inputs: an executor may not be robbed of what it waits for."""
        task = self.executor.create_task(call)
        assert wait_until(task.done)

    def close(self):
        self.ended.set()
        self.thread.join()
        for inputs in self.opened:
            inputs.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.close()


def image(pixels, encoding, stamp, frame_id):
    message = Image()
    message.header.stamp, message.header.frame_id = ns_to_time(stamp), frame_id
    fill_image(message, pixels, encoding)
    return message


def answered(source, window, publish):
    """The first measurement after publishing, again and again: best effort may lose a message."""
    answers = []

    def asked():
        publish()
        answers.append(source.answer(window))
        return isinstance(answers[-1], ScaleMeasurement)

    assert wait_until(asked), answers[-1]
    return answers[-1]


# --- parameters


def test_no_source_is_the_default(bench):
    for names in ([''], [], None):
        assert bench.metric(scale_sources=names) == []


def test_sources_come_in_the_order_given_and_once(bench):
    names = ('fixed', 'depth', 'height', 'odometry', 'baseline', 'depth')
    sources = bench.metric(*names, camera_height=1.2, metric_factor=2.0)
    assert [source.name for source in sources] == list(names[:-1])
    assert isinstance(sources[0].source, FixedSource)
    assert isinstance(sources[2].source, HeightSource)


@pytest.mark.parametrize(
    ('settings', 'complaint'),
    [
        ({'scale_sources': ['lidar', 'depth']}, 'lidar is not one of depth, odometry, baseline, height, fixed'),
        ({'scale_sources': ['height']}, 'height of the camera must be positive'),
        ({'scale_sources': ['fixed']}, 'fixed factor must be positive'),
        ({'scale_sources': ['depth'], 'depth_near': 9.0}, 'near and far'),
        ({'scale_sources': ['odometry'], 'base_frame': ''}, 'odom_frame and base_frame'),
    ],
)
def test_impossible_settings_are_refused_with_what_is_allowed(bench, settings, complaint):
    with pytest.raises(LoadError, match=complaint):
        make_sensors(bench.robot(settings))


# --- depth


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
@pytest.mark.parametrize('mode', ['live', 'every_frame'])
def test_depth_images_give_metres(bench, encoding, mode):
    (source,) = bench.metric('depth', mode=mode)
    publisher = bench.publisher(Image, 'depth_registered')
    depth = sensor(3)
    pixels = (depth * 1000).round().astype(np.uint16) if encoding == '16UC1' else depth
    message = image(pixels, encoding, stamp_of(3), 'eye')
    # Padded rows in the other byte order.
    rows = np.pad(pixels.byteswap().view(np.uint8).reshape(SIZE[1], -1), ((0, 0), (0, 6)), constant_values=0xEE)
    message.is_bigendian, message.step, message.data = 1, rows.shape[1], rows.tobytes()
    answer = answered(source, solved(2, 3), lambda: publisher.publish(message))
    assert answer.log_scale == pytest.approx(LAMBDA, abs=3e-3)


def test_depth_images_that_lie_are_refused_and_told(bench):
    (source,) = bench.metric('depth')
    publisher = bench.publisher(Image, 'depth_registered')
    message = image(sensor(0), '32FC1', stamp_of(0), 'eye')
    message.step //= 2
    publisher.publish(message)
    assert wait_until(lambda: source._depth._images.newest is not None)
    assert bench.problems.counts() == {}  # nobody has looked at it
    answer = source.answer(solved(0))
    assert isinstance(answer, NoMeasurement)
    assert 'step 320 is less than 640 bytes' in answer.reason
    assert bench.problems.counts() == {'depth image': 1}
    assert answer.reason in bench.problems.present()


def test_images_of_no_time_are_refused_as_they_come(bench):
    bench.metric('depth', 'baseline')
    for topic in ('depth_registered', 'second/image'):
        message = image(sensor(0), '32FC1', 0, 'eye')
        message.header.stamp.sec = -5
        bench.publisher(Image, topic).publish(message)
    assert wait_until(lambda: bench.problems.counts() == {'depth image': 1, 'second camera': 1})
    assert all('stamp of -5 s' in text for text in bench.problems.present())


def test_a_topic_that_never_comes_is_told_once(bench):
    (source,) = bench.metric('depth')
    for index in range(80):
        assert isinstance(source.answer(solved(index)), NoInput)
        assert bool(bench.problems.counts()) == (index >= 50)  # five seconds
    assert bench.problems.counts() == {'scale source depth': 1}
    assert 'no depth image has come; check the topic /depth_registered' in bench.problems.present()[0]


def test_closed_inputs_hear_nothing(bench):
    inputs = bench.metric('depth', 'baseline')
    topics = ('depth_registered', 'second/image', 'second/camera_info')
    assert all(bench.client.count_subscribers(topic) == 1 for topic in topics)
    bench.on_executor(lambda: [one.close() for one in inputs])
    assert wait_until(lambda: not any(bench.client.count_subscribers(topic) for topic in topics))
    bench.on_executor(lambda: [one.open() for one in inputs])
    assert wait_until(lambda: all(bench.client.count_subscribers(topic) for topic in topics))


# --- odometry


def test_odometry_over_tf_that_is_not_there(bench):
    (source,) = bench.metric('odometry')
    assert source.answer(solved(0)).reason == 'eye is not connected to base_link'
    bench.transforms['base_link', 'eye'] = np.eye(4)
    assert source.answer(solved(1)).reason == 'base_link is not connected to odom'
    source.answer(solved(55))
    assert bench.problems.counts() == {'scale source odometry': 1}
    bench.transforms['odom', 'base_link'] = np.eye(4)
    assert 'of 3 stretches' in source.answer(solved(56)).reason


# --- the second camera


def frame(index, size=SIZE):
    return Frame(index, stamp_of(index), np.zeros((size[1], size[0], 3), np.uint8), K, 'eye')


class Pairs:
    """The second camera's publishers."""

    def __init__(self, bench, **settings):
        (self.camera,) = bench.metric('baseline', **settings)
        self.images = bench.publisher(Image, 'second/image')
        self.infos = bench.publisher(CameraInfo, 'second/camera_info')

    def calibrate(self, baseline=0.0):
        message = info_message(0)
        message.header.frame_id = 'eye2'
        message.p = np.hstack([K, [[-K[0, 0] * baseline], [0], [0]]]).ravel()
        self.infos.publish(message)
        assert wait_until(lambda: self.camera._info is not None)

    def send(self, index, late=0, pixels=None):
        pixels = picture(index) if pixels is None else pixels
        self.images.publish(image(pixels, 'rgb8', stamp_of(index) + late, 'eye2'))

    def answer(self, companion=True):
        return self.camera.answer(solved(1, companions=[pair(1)] if companion else []))

    def found(self, index):
        """What is found in the end; messages are on their way."""
        companions = {}

        def matched():
            companions.update(self.camera.read([frame(index - 1), frame(index)]).companions)
            return companions

        assert wait_until(matched), self.answer(False)
        return companions


def test_the_simultaneous_image_of_the_newest_frame_is_found(bench):
    pairs = Pairs(bench)
    pairs.calibrate()
    for index in range(4):
        pairs.send(index, late=7_000_000)
    companions = pairs.found(3)
    assert set(companions) == {3}
    companion = companions[3]
    assert (companion.index, companion.stamp, companion.frame_id) == (-4, stamp_of(3) + 7_000_000, 'eye2')
    np.testing.assert_array_equal(companion.image, picture(3))
    np.testing.assert_allclose(companion.K, K)


def test_the_worker_waits_a_little_for_the_second_image(bench):
    pairs = Pairs(bench)
    pairs.calibrate()
    pairs.send(0)
    assert pairs.found(0)
    found = {}

    def look(index):
        found.update(pairs.camera.read([frame(index)]).companions)

    for index in range(1, 21):  # on a busy machine an image may take longer than the worker waits
        worker = threading.Thread(target=look, args=(index,))
        worker.start()
        time.sleep(0.005)
        pairs.send(index)
        worker.join()
        if found:
            break
    assert found[index].index == -index - 1


def test_compressed_images_of_the_second_camera(bench):
    import cv2

    (camera,) = bench.metric('baseline', image_transport='compressed', calibration='predicted')
    publisher = bench.publisher(CompressedImage, 'second/image/compressed')
    message = CompressedImage(format='png', data=cv2.imencode('.png', picture(1)[..., ::-1])[1].tobytes())
    message.header.stamp = ns_to_time(stamp_of(1))
    publisher.publish(message)
    assert wait_until(lambda: camera._images.newest is not None)
    companion = camera.read([frame(1)]).companions[1]
    np.testing.assert_array_equal(companion.image, picture(1))
    assert companion.K is None


def test_a_baseline_from_tf_else_from_the_projection(bench):
    pairs = Pairs(bench)
    pairs.calibrate()
    pairs.send(1)
    pairs.found(1)
    assert 'eye2 is not connected to eye, and no baseline' in pairs.answer().reason
    bench.transforms['eye', 'eye2'] = RIG
    assert pairs.answer().log_scale == pytest.approx(LAMBDA, abs=1e-9)
    bench.transforms.clear()
    pairs.camera._info = None
    pairs.calibrate(baseline=0.3)
    T = pairs.camera.calibration()
    np.testing.assert_allclose(T[:3, 3], [0.3, 0, 0])
    np.testing.assert_array_equal(T[:3, :3], np.eye(3))


def test_why_the_second_camera_is_no_use(bench):
    pairs = Pairs(bench)
    assert pairs.camera.read([frame(0)]).companions == {}
    assert pairs.answer(False).reason == 'no image on /second/image'
    pairs.send(0)
    assert wait_until(lambda: pairs.camera._images.newest is not None)
    assert pairs.camera.read([frame(0)]).companions == {}
    assert 'its camera_info has not come' in pairs.answer(False).reason
    pairs.calibrate()
    pairs.send(1, late=45_000_000)
    assert wait_until(lambda: pairs.camera._images.newest == stamp_of(1) + 45_000_000)
    assert pairs.camera.read([frame(1)]).companions == {}
    assert 'not synchronised: its nearest image is 45.0 ms apart' in pairs.answer(False).reason
    pairs.send(2)
    assert wait_until(lambda: pairs.camera._images.newest == stamp_of(2))
    assert pairs.camera.read([frame(2, (320, 240))]).companions == {}
    assert 'pixels' in pairs.answer(False).reason
    assert bench.problems.counts() == {'second camera': 2}
    pairs.send(3)
    assert pairs.found(3)
    assert isinstance(pairs.answer(False), NoMeasurement)


# --- gravity

R_WORLD_CAMERA = Rotation.from_euler('zyx', [0.4, 0.2, -1.9])
DOWN = R_WORLD_CAMERA.inv().apply([0, 0, -1.0])
R_CAMERA_IMU = Rotation.from_euler('xyz', [0.3, -1.2, 2.0])


def imu_messages(seconds=0.6, rate=100, **fields):
    """An IMU at rest until the stamp of image 0."""
    force = R_CAMERA_IMU.inv().apply(-STANDARD * DOWN)
    for i in range(round(seconds * rate), -1, -1):
        message = Imu(**fields)
        message.header.stamp = ns_to_time(stamp_of(0) - i * 1_000_000_000 // rate)
        message.header.frame_id = 'imu_link'
        message.linear_acceleration.x, message.linear_acceleration.y, message.linear_acceleration.z = force
        yield message


def mount(rotation):
    T = np.eye(4)
    T[:3, :3] = rotation.as_matrix()
    T[:3, 3] = 1, 2, 3
    return T


def still(bench, gravity, **fields):
    """Publish an IMU at rest and wait until all of it has come."""
    publisher = bench.publisher(Imu, 'imu')
    for message in imu_messages(**fields):
        publisher.publish(message)
    assert wait_until(
        lambda: gravity._listen() or (gravity._imu._samples and gravity._imu._samples[-1][0] == stamp_of(0))
    )


@pytest.mark.parametrize('gyroscope', [True, False])
@pytest.mark.parametrize('mode', ['auto', 'imu'])
def test_gravity_from_an_imu_on_the_robot(bench, mode, gyroscope):
    bench.transforms['eye', 'imu_link'] = mount(R_CAMERA_IMU)
    bench.transforms['base_link', 'eye'] = np.eye(4)  # wrong, and not asked
    gravity = bench.gravity(gravity=mode)
    absent = {'angular_velocity_covariance': [-1.0] + [0.0] * 8, 'angular_velocity': Vector3(x=9.0)}
    fields = {} if gyroscope else absent
    still(bench, gravity, **fields)
    measured = gravity.at(stamp_of(0), 'eye')
    assert measured.source is GravitySource.IMU
    np.testing.assert_allclose(measured.down, DOWN, atol=1e-6)
    assert gravity.reason == ''
    assert bench.problems.counts() == {}


def test_an_imu_without_accelerometer_tells_nothing(bench):
    gravity = bench.gravity(gravity='imu')
    publisher = bench.publisher(Imu, 'imu')
    for message in imu_messages(linear_acceleration_covariance=[-1.0] + [0.0] * 8):
        publisher.publish(message)
    assert wait_until(lambda: gravity._listen() or 'imu' in bench.problems.counts())
    assert 'no accelerometer' in bench.problems.present()[0]
    assert gravity.at(stamp_of(0), 'eye').source is GravitySource.ASSUMED_LEVEL


def test_gravity_from_a_level_base(bench):
    bench.transforms['base_link', 'eye'] = mount(R_WORLD_CAMERA)
    for mode in ('auto', 'base'):
        measured = bench.gravity(gravity=mode).at(stamp_of(0), 'eye')
        assert measured.source is GravitySource.BASE
        np.testing.assert_allclose(measured.down, DOWN, atol=1e-9)


def test_without_anything_the_camera_is_assumed_level_and_the_reason_is_told_once(bench):
    gravity = bench.gravity()
    for _ in range(3):
        measured = gravity.at(stamp_of(0), 'eye')
        assert measured.source is GravitySource.ASSUMED_LEVEL
        np.testing.assert_array_equal(measured.down, [0, 1, 0])
        assert gravity.reason == 'nothing on /imu; eye is not connected to base_link'
    assert bench.problems.counts() == {'gravity': 1}


def test_an_imu_that_hangs_on_nothing_or_is_of_another_time(bench):
    gravity = bench.gravity(gravity='imu')
    still(bench, gravity)
    assert gravity.at(stamp_of(0), 'eye').source is GravitySource.ASSUMED_LEVEL
    assert gravity.reason == 'imu_link is not connected to eye'
    gravity.at(stamp_of(50), 'eye')
    assert 'IMU samples in the 0.5 s before the image' in gravity.reason


def test_level_is_a_choice_and_no_problem(bench):
    gravity = bench.gravity(gravity='level')
    assert gravity.at(stamp_of(0), 'eye').source is GravitySource.ASSUMED_LEVEL
    assert bench.client.count_subscribers('imu') == 0
    assert bench.problems.counts() == {}
    with pytest.raises(LoadError, match='base_frame'):
        bench.gravity(gravity='base', base_frame='')
