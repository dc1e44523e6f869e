"""The running node, over DDS: contracts of its outputs, bad input, lifecycle, services."""

import array
import threading
import time

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs')
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry, Path
from rcl_interfaces.srv import SetParameters
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from vggt_ros.msg import Status, TrackArray
from vggt_ros.srv import SaveMap

from exact import SIZE, ExactPredictor, K, depth_of, walk
from harness import START, Rig, image_message, info_message, matrix, poses, stamp_of, stamps, wait_until, zero_time
from vggt_ros import camera
from vggt_ros.evaluation.runs import ate
from vggt_ros.evaluation.scenarios import room_loop
from vggt_ros.files.trajectory import read_tum
from vggt_ros.odometry.gravity import assumed_level, map_from_camera
from vggt_ros.ros.compat import to_array
from vggt_ros.ros.messages import fill_image, ns_to_time
from vggt_ros.ros.parameters import LoadError
from vggt_ros.types import DeviceError, WindowTooLargeError

OUTPUTS = {
    '/vggt/odometry': Odometry,
    '/vggt/depth/image_rect': Image,
    '/vggt/depth/camera_info': CameraInfo,
    '/vggt/depth/confidence': Image,
    '/vggt/points': PointCloud2,
    '/vggt/tracks': TrackArray,
}


def as_array(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def expected_map(count: int) -> np.ndarray:
    start = np.eye(4)
    start[:3, :3] = map_from_camera(assumed_level().down)
    truth = walk(count)
    return start @ camera.invert(truth[0]) @ truth


@pytest.fixture(scope='module')
def walked():
    """One walk of 12 images with everybody listening; the tests look at what arrived."""
    with Rig(ExactPredictor(poses(12)), path_length=7) as rig:
        boxes = {topic: rig.listen(kind, topic) for topic, kind in OUTPUTS.items()}
        boxes['/tf'] = rig.listen(TFMessage, '/tf')
        boxes['/vggt/path'] = rig.listen(Path, '/vggt/path')
        boxes['best effort'] = []
        rig.client.create_subscription(Image, '/vggt/depth/image_rect', boxes['best effort'].append, 1)
        boxes['/vggt/status'] = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(12))
        assert rig.settled()
        assert wait_until(lambda: all(len(boxes[topic]) == 12 for topic in OUTPUTS))
        assert wait_until(lambda: boxes['/vggt/status'][-1].images_processed == 12)
        assert wait_until(lambda: boxes['/vggt/path'] and stamps(boxes['/vggt/path'])[-1] == stamp_of(11))
    return boxes


@pytest.mark.parametrize('topic', OUTPUTS)
def test_every_output_carries_the_stamp_of_its_image_exactly(walked, topic):
    assert stamps(walked[topic]) == [stamp_of(i) for i in range(12)]


def test_frames_are_the_cameras_and_the_maps(walked):
    for topic in ('/vggt/depth/image_rect', '/vggt/depth/camera_info', '/vggt/depth/confidence', '/vggt/points'):
        assert {message.header.frame_id for message in walked[topic]} == {'eye'}
    assert {m.header.frame_id for m in walked['/vggt/odometry']} == {'map'}
    assert {m.child_frame_id for m in walked['/vggt/odometry']} == {'eye'}


def test_tf_is_the_known_motion_of_the_camera(walked):
    transforms = [t for message in walked['/tf'] for t in message.transforms]
    assert stamps(transforms) == [stamp_of(i) for i in range(12)]
    assert {(t.header.frame_id, t.child_frame_id) for t in transforms} == {('map', 'eye')}
    truth = expected_map(12)
    estimated = np.stack([matrix(t.transform) for t in transforms])
    unit = np.linalg.norm(estimated[-1, :3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    np.testing.assert_allclose(estimated[:, :3, :3], truth[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(estimated[:, :3, 3], unit * truth[:, :3, 3], atol=1e-6)


def test_depth_fits_its_camera_info_and_the_pixels_of_the_source(walked):
    truth = expected_map(12)
    last = walked['/tf'][-1].transforms[0].transform
    unit = np.linalg.norm(matrix(last)[:3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    for i, (depth, info) in enumerate(
        zip(walked['/vggt/depth/image_rect'], walked['/vggt/depth/camera_info'], strict=True)
    ):
        assert depth.encoding == '32FC1'
        assert (depth.width, depth.height) == (info.width, info.height) == SIZE
        np.testing.assert_allclose(np.reshape(info.k, (3, 3)), K, atol=1e-9)
        np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], K, atol=1e-9)
        assert set(info.d) == {0.0}
        measured = as_array(depth)
        expected = unit * depth_of(walk(12)[i], K, SIZE)
        known = np.isfinite(measured)
        assert known.mean() > 0.93  # the crop to multiples of 14 leaves a thin border
        error = np.abs(measured - expected)[known] / expected[known]
        assert np.median(error) < 1e-3
        assert np.quantile(error, 0.99) < 0.02


def test_confidence_is_between_zero_and_one(walked):
    for message in walked['/vggt/depth/confidence']:
        values = as_array(message)
        assert values.shape == SIZE[::-1]
        assert values.min() >= 0
        assert values.max() == pytest.approx(0.9)


def test_points_lie_on_the_walls(walked):
    truth = expected_map(12)
    unit = np.linalg.norm(matrix(walked['/tf'][-1].transforms[0].transform)[:3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    message = walked['/vggt/points'][-1]
    assert [field.name for field in message.fields] == ['x', 'y', 'z', 'rgb', 'confidence']
    assert (message.width, message.height) == camera.fit(SIZE, 126).size
    assert not message.is_dense
    cloud = np.frombuffer(message.data, np.float32).reshape(message.height, message.width, 5)
    K_network = camera.fit(SIZE, 126).K_to_network(K)
    expected = unit * camera.unproject(depth_of(walk(12)[-1], K_network, (message.width, message.height)), K_network)
    np.testing.assert_allclose(cloud[..., :3], expected, rtol=1e-4, atol=1e-5)


def test_tracks_keep_their_ids_and_say_what_their_unit_is(walked):
    first, last = walked['/vggt/tracks'][4], walked['/vggt/tracks'][-1]
    assert (last.width, last.height) == SIZE
    assert last.scale == TrackArray.SCALE_RELATIVE
    lengths = {len(getattr(last, name)) for name in ('id', 'u', 'v', 'visibility', 'confidence', 'age', 'x', 'y', 'z')}
    assert lengths == {len(last.id)}
    assert len(last.id) > 10
    assert set(first.id) & set(last.id)
    assert list(last.id) == sorted(set(last.id))
    assert max(last.age) >= 8
    known = np.isfinite(last.z)
    assert known.sum() > 5
    uv = camera.project(np.stack([last.x, last.y, last.z], axis=1)[known], K)
    away = np.linalg.norm(uv - np.stack([last.u, last.v], axis=1)[known], axis=1)
    assert np.median(away) < 2  # the pose of the image and the track's pixel each have an error of their own


def test_path_is_bounded(walked):
    lengths = [len(message.poses) for message in walked['/vggt/path']]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 7
    assert stamps(walked['/vggt/path'][-1].poses) == [stamp_of(i) for i in range(5, 12)]


def test_best_effort_subscriber_gets_data_too(walked):
    assert walked['best effort']


def test_status_counts_every_image(walked):
    *_, last = (one for one in walked['/vggt/status'] if one.state != Status.INACTIVE)
    assert last.state == Status.TRACKING
    assert last.scale == Status.SCALE_RELATIVE
    assert (last.images_received, last.images_processed, last.images_dropped, last.images_refused) == (12, 12, 0, 0)
    assert last.window_latency > 0


# Input


@pytest.mark.parametrize(
    ('spoil', 'kind'),
    [
        (lambda m: setattr(m, 'encoding', 'nonsense8'), 'image'),
        (lambda m: setattr(m, 'encoding', 'bgra8'), 'image'),
        (lambda m: (setattr(m, 'width', 0), setattr(m, 'step', 0)), 'image'),
        (lambda m: setattr(m, 'data', array.array('B', m.data[:-100])), 'image'),
        (lambda m: setattr(m, 'data', array.array('B')), 'image'),
        (lambda m: setattr(m, 'step', 100), 'image'),
        (lambda m: setattr(m.header, 'stamp', ns_to_time(stamp_of(4))), 'stamp repeated'),
        (lambda m: setattr(m.header, 'stamp', ns_to_time(stamp_of(3))), 'stamp back'),
    ],
    ids=['encoding', 'lying encoding', 'zero size', 'truncated', 'empty', 'step', 'repeated', 'out of order'],
)
def test_a_bad_image_is_reported_and_loses_nothing(spoil, kind):
    with Rig(ExactPredictor(poses(10))) as rig:
        status = rig.listen(Status, '/vggt/status', latched=True)
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(5))
        assert rig.settled()
        bad = image_message(5)
        spoil(bad)
        rig.send(bad)
        rig.play(range(6, 10))
        assert rig.settled()
        assert rig.problems()[kind] == 1
        assert wait_until(lambda: status and status[-1].images_processed == 9)
        assert status[-1].images_refused == 1
        assert status[-1].epoch == 0
        assert wait_until(lambda: stamps(tracks) == [stamp_of(i) for i in range(10) if i != 5])
        assert set(tracks[4].id) & set(tracks[-1].id)


def test_problems_show_in_the_diagnostics():
    with Rig(ExactPredictor(poses(4))) as rig:
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        bad = image_message(0, encoding='nonsense8')
        rig.play(range(0))
        rig.info.publish(info_message(0))
        time.sleep(0.1)
        rig.send(bad)
        assert wait_until(lambda: any('nonsense8' in s.message for m in diagnostics for s in m.status))
        images = next(s for m in reversed(diagnostics) for s in m.status if s.name.endswith('images'))
        assert images.level == b'\x01'
        assert {value.key: value.value for value in images.values}['problem: image'] == '1'


def test_a_hint_names_the_topic_when_nothing_arrives():
    with Rig(ExactPredictor(poses(4)), image_timeout=1.0) as rig:
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        assert wait_until(
            lambda: any('no image for' in s.message and '/image' in s.message for m in diagnostics for s in m.status)
        )


def test_without_a_clock_the_diagnostics_say_so_with_the_time_of_the_wall():
    with Rig(ExactPredictor(poses(4)), use_sim_time=True) as rig:
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        assert wait_until(lambda: any('no /clock' in s.message for m in diagnostics for s in m.status), 30)
        assert all(abs(m.header.stamp.sec - time.time()) < 60 for m in diagnostics)


def test_images_without_tracks_have_empty_messages_and_the_rest_goes_on():
    with Rig(ExactPredictor(poses(16))) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(6))
        for index in range(6, 9):
            rig.info.publish(info_message(index))
            blank = image_message(index)
            blank.data = to_array('B', np.full((120, 160, 3), 99, np.uint8))
            rig.send(blank)
        rig.play(range(9, 16))
        assert rig.settled()
        assert wait_until(lambda: stamps(tracks) == [stamp_of(i) for i in range(16)])
        assert {message.epoch for message in tracks} == {0}
        assert len(tracks[5].id) > 5
        assert [len(message.id) for message in tracks[6:9]] == [0, 0, 0]
        assert len(tracks[-1].id) > 5
        assert max(tracks[-1].id) > max(tracks[5].id)


def test_tracks_that_are_not_finite_are_reported_and_left_out():
    def spoil(fields):
        if fields['tracks'] is not None:
            fields['tracks'].uv[:, ::2] = np.nan

    with Rig(ExactPredictor(poses(16), spoil=spoil)) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(16))
        assert rig.settled()
        assert wait_until(lambda: len(tracks) == 16)
        assert rig.problems()['some tracks of the network are not finite'] > 0
        assert all(np.isfinite([*message.u, *message.v, *message.visibility]).all() for message in tracks)
        assert len(tracks[-1].id) > 5


def test_size_change_begins_a_new_epoch():
    with Rig(ExactPredictor(poses(8)), calibration='predicted') as rig:
        odometry = rig.listen(Odometry, '/vggt/odometry')
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(4))
        for i in range(4, 8):
            message = Image()
            fill_image(message, np.zeros((60, 80, 3), np.uint8) + np.uint8(i), 'rgb8')
            message.header = image_message(i).header
            rig.send(message)
        assert rig.settled()
        assert wait_until(lambda: len(tracks) == 8)
        assert [m.epoch for m in tracks] == [0] * 4 + [1] * 4
        assert tracks[-1].width == 80
        assert np.allclose([odometry[4].pose.pose.position.x, odometry[4].pose.pose.position.y], 0)
        assert rig.problems()['camera change'] == 1


def test_a_calibration_that_comes_late_or_changes_begins_a_new_epoch():
    with Rig(ExactPredictor(poses(9)), calibration_timeout=0.0) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(3), infos=False)
        for start, focal in ((3, 1.0), (6, 0.8)):
            rig.info.publish(info_message(start, np.diag([focal, focal, 1]) @ K))
            time.sleep(0.3)
            rig.play(range(start, start + 3), infos=False)
        assert rig.settled()
        assert wait_until(lambda: len(tracks) == 9)
        assert [m.epoch for m in tracks] == [0] * 3 + [1] * 3 + [2] * 3
        assert rig.problems()['camera change'] == 2


def play_at(rig, stamps):
    """Images of the walk with these stamps in place of their own."""
    rig.predictor.poses |= dict(zip(stamps, walk(len(stamps)), strict=True))
    rig.play([])
    rig.info.publish(info_message(0))
    time.sleep(0.1)
    for index, stamp in enumerate(stamps):
        message = image_message(index)
        message.header.stamp = ns_to_time(stamp)
        rig.send(message)


def test_time_going_far_back_is_a_restart():
    with Rig(ExactPredictor(poses(8))) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        tf = rig.listen(TFMessage, '/tf')
        play_at(rig, [stamp_of(i) + 10**10 for i in range(3)])
        assert wait_until(lambda: len(tracks) == 3)
        rig.play(range(3, 6))
        assert wait_until(lambda: len(tracks) == 6)
        assert [m.epoch for m in tracks] == [0] * 3 + [1] * 3
        assert rig.problems()['time jump'] == 1
        assert wait_until(lambda: len(tf) == 6)


def test_what_waits_is_solved_before_the_map_begins_anew():
    with Rig(ExactPredictor(poses(32)), stride=2) as rig:
        odometry = rig.listen(Odometry, '/vggt/odometry')
        later = [stamp_of(i) + 10**12 for i in range(24)]
        play_at(rig, later)
        rig.play(range(8))
        assert rig.settled()
        assert wait_until(lambda: len(odometry) == 32)
        assert stamps(odometry) == [*later, *map(stamp_of, range(8))]
        assert (rig.counts.processed, rig.counts.dropped, rig.counts.refused) == (32, 0, 0)
        assert rig.problems()['time jump'] == 1


def test_of_two_cameras_on_one_topic_the_first_is_kept_and_both_are_named():
    with Rig(ExactPredictor(poses(40))) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        other = rig.client.create_publisher(Image, 'image', 10)
        assert wait_until(other.get_subscription_count)
        rig.play(range(3))
        for index in range(3, 12):
            message = image_message(index)
            message.header.stamp = ns_to_time(stamp_of(index) + 10**11)
            before = rig.counts.received
            other.publish(message)
            assert wait_until(lambda before=before: rig.counts.received > before)
            rig.play([index], infos=False)
        assert wait_until(lambda: len(tracks) == 12)
        assert {message.epoch for message in tracks} == {0}
        assert stamps(tracks) == [stamp_of(index) for index in range(12)]
        assert rig.counts.refused == 9
        texts = rig.node._problems.present()
        assert any('take turns' in text and 'nodes publish images: /client, /client' in text for text in texts)


def test_an_image_that_stays_alone_with_its_time_is_refused_in_the_end():
    with Rig(ExactPredictor(poses(6))) as rig:
        rig.play(range(4))
        assert rig.settled()
        message = image_message(5)
        message.header.stamp.sec += 3600
        rig.send(message)
        assert rig.settled()
        assert (rig.counts.processed, rig.counts.refused) == (4, 1)


def test_a_full_queue_drops_the_newest_and_says_so():
    class Slow(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            go_on.wait(60)
            return super().predict(frames, depth, queries)

    go_on = threading.Event()
    with Rig(Slow(poses(60)), queue_size=5, calibration='predicted') as rig:
        rig.play(range(30), infos=False)
        # Two with the network's thread and in its mailbox, more where the camera's thread waits for room; five wait.
        assert wait_until(lambda: rig.counts.dropped > 10)
        dropped = rig.counts.dropped
        assert rig.problems()['queue full'] == dropped
        go_on.set()
        assert rig.settled()
        assert rig.counts.processed == 30 - dropped


def test_unstamped_images_get_a_hint():
    with Rig(ExactPredictor({0: walk(1)[0]}), calibration='predicted') as rig:
        rig.connected()
        for i in range(3):
            message = image_message(i)
            message.header.stamp = zero_time()
            rig.send(message)
        assert rig.problems()['stamp repeated'] == 2


@pytest.mark.parametrize(
    ('info', 'kind'),
    [
        (lambda: info_message(0, size=(320, 240)), 'camera_info'),
        (lambda: info_message(0, np.zeros((3, 3))), 'camera_info'),
        (lambda: info_message(0, np.full((3, 3), np.nan)), 'camera_info'),
        (None, 'uncalibrated'),
    ],
    ids=['size', 'zero K', 'NaN', 'missing'],
)
def test_a_camera_info_without_use_leaves_predicted_intrinsics(info, kind):
    with Rig(ExactPredictor(poses(4)), calibration_timeout=0.0) as rig:
        infos = rig.listen(CameraInfo, '/vggt/depth/camera_info')
        rig.connected()
        if info is not None:
            rig.info.publish(info())
            time.sleep(0.2)
        rig.play(range(4), infos=False)
        assert wait_until(lambda: len(infos) == 4)
        np.testing.assert_allclose(np.reshape(infos[-1].k, (3, 3)), K, atol=1e-6)  # the exact predictor knows it
        assert rig.problems()[kind] == 4
        # It came late, but it came.
        rig.info.publish(info_message(4))


def test_required_calibration_is_waited_for(monkeypatch):
    monkeypatch.setattr('vggt_ros.ros.inputs.intake.INFO_LATE', 0.0)
    with Rig(ExactPredictor(poses(8)), calibration='required') as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(3), infos=False)
        assert rig.problems()['camera_info missing'] == 3
        rig.play(range(3, 6))
        assert wait_until(lambda: len(tracks) == 3)
        assert stamps(tracks) == [stamp_of(i) for i in range(3, 6)]


def test_a_distorted_camera_is_rectified():
    """The published K is of the rectified image, and the network sees other pixels than the camera's."""
    seen = []

    class Watching(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            seen.extend(frame.image for frame in frames)
            return super().predict(frames, depth, queries)

    with Rig(Watching(poses(3))) as rig:
        infos = rig.listen(CameraInfo, '/vggt/depth/camera_info')
        rig.connected()
        bent = info_message(0)
        bent.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
        rig.info.publish(bent)
        time.sleep(0.2)
        rig.play(range(3), infos=False)
        assert wait_until(lambda: len(infos) == 3)
        assert set(infos[0].d) == {0.0}
        raw = np.frombuffer(image_message(0, T_world_camera=poses(3)[stamp_of(0)]).data, np.uint8).reshape(120, 160, 3)
        assert not np.array_equal(seen[0], raw)
        np.testing.assert_array_equal(seen[0][60, 80], raw[60, 80])  # beside the principal point nothing moves


def test_compressed_images():
    import cv2

    with Rig(ExactPredictor(poses(4)), image_transport='compressed') as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        publisher = rig.client.create_publisher(CompressedImage, 'image/compressed', 10)
        assert wait_until(lambda: publisher.get_subscription_count() and rig.info.get_subscription_count())
        for i in range(4):
            rig.info.publish(info_message(i))
            time.sleep(0.05)
            raw = image_message(i)
            pixels = np.frombuffer(raw.data, np.uint8).reshape(120, 160, 3)
            data = cv2.imencode('.png', pixels)[1] if i != 2 else np.arange(50, dtype=np.uint8)
            publisher.publish(CompressedImage(header=raw.header, format='png', data=to_array('B', data)))
        assert wait_until(lambda: len(tracks) == 3)
        assert rig.settled()
        assert rig.problems()['image'] == 1


# The network's failures


def test_nan_from_the_network_drops_the_window_only():
    def spoil(fields):
        if len(predictor.windows) == 4:
            fields['T_window_camera'][:] = np.nan

    predictor = ExactPredictor(poses(8), spoil=spoil)
    with Rig(predictor, calibration='predicted') as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.connected()
        for index in range(8):
            rig.send(image_message(index))  # without corners: they, too, would have something to say
        assert rig.settled()
        assert wait_until(lambda: len(tracks) == 8)
        assert {m.epoch for m in tracks} == {0}
        assert any('not finite' in m.message for m in status)
        assert wait_until(lambda: status[-1].state == Status.TRACKING and not status[-1].message)


def test_out_of_memory_shrinks_the_window_and_says_so():
    class Small(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            if len(frames) > 4:
                raise WindowTooLargeError(len(frames))
            return super().predict(frames, depth, queries)

    with Rig(Small(poses(10)), keyframe_distance=0.01) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(10))
        assert wait_until(lambda: len(tracks) == 10)
        assert rig.problems()['memory'] == 1


def test_a_window_that_grows_back_is_said_too(monkeypatch):
    monkeypatch.setattr('vggt_ros.odometry.windows.size.PATIENCE', 2)

    class Once(ExactPredictor):
        full = True

        def predict(self, frames, depth=None, queries=None):
            if len(frames) > 4 and self.full:
                self.full = False
                raise WindowTooLargeError(len(frames))
            return super().predict(frames, depth, queries)

    with Rig(Once(poses(14)), keyframe_distance=0.01) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(14))
        assert wait_until(lambda: len(tracks) == 14)
        assert rig.problems()['memory'] == 2


def test_what_is_amiss_from_the_start_is_said_at_once():
    predictor = ExactPredictor(poses(2))
    predictor.warnings = {'no GPU': 'the CPU computes, although an NVIDIA GPU is in this machine'}
    with Rig(predictor, start=False) as rig:
        rig.node.trigger_configure()
        assert rig.problems()['no GPU'] == 1


def test_a_lost_device_does_not_kill_the_node():
    class Gone(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            raise DeviceError('cuda failed (unspecified launch failure): the node needs a restart to use it again')

    with Rig(Gone(poses(4))) as rig:
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(4))
        assert rig.settled()
        assert wait_until(lambda: status and 'restart' in status[-1].message)
        assert rig.call('pause').success


# Lifecycle, services, parameters


def test_configure_fails_with_a_reason_and_works_afterwards():
    with Rig(LoadError('weights.pt is truncated'), start=False) as rig:
        assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        rig.predictor = ExactPredictor(poses(4))
        assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(3))
        assert wait_until(lambda: len(tracks) == 3)


def test_a_configure_that_fails_half_way_leaves_nothing_behind():
    with Rig(ExactPredictor(poses(4)), start=False, scale_sources=['sonar']) as rig:

        def offered():
            return sorted(one.topic_name for one in rig.node.publishers), len(list(rig.node.timers))

        before = offered()
        for _ in range(2):
            assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert offered() == before
        rig.node.set_parameters([Parameter('scale_sources', value=[''])])
        assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(3))
        assert wait_until(lambda: len(tracks) == 3)


def test_windows_that_share_no_frame_are_refused():
    with Rig(ExactPredictor(poses(4)), start=False, window=4, stride=4) as rig:
        assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_deactivate_and_activate_go_on_with_the_same_map_and_cleanup_forgets_it():
    with Rig(ExactPredictor(poses(12))) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(4))
        assert wait_until(lambda: len(tracks) == 4)
        assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        rig.image.publish(image_message(4))
        time.sleep(0.3)
        assert len(tracks) == 4
        assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        rig.play(range(5, 8))
        assert wait_until(lambda: len(tracks) == 7)
        assert set(tracks[3].id) & set(tracks[-1].id)
        rig.node.trigger_deactivate()
        assert rig.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert wait_until(lambda: status[-1].images_received == 0)
        told = len(status)
        rig.node.trigger_configure()
        assert wait_until(lambda: len(status) > told)  # configured, no longer unconfigured
        rig.node.trigger_activate()
        rig.play(range(8, 11))
        assert wait_until(lambda: len(tracks) == 10)
        assert tracks[-1].epoch == 0
        assert min(tracks[-1].id) == 0
        assert max(message.images_received for message in status[told:]) <= 3  # what was counted before stays away


def test_services():
    with Rig(ExactPredictor(poses(12))) as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.play(range(3))
        assert wait_until(lambda: len(tracks) == 3)
        assert rig.call('pause').success
        assert wait_until(lambda: status[-1].state == Status.PAUSED)
        assert wait_until(lambda: rig.image.get_subscription_count() == 0)  # nobody listens, and the calibration stays
        assert rig.info.get_subscription_count() == 1
        for index in range(3, 5):
            rig.image.publish(image_message(index))
        assert rig.counts.received == 3
        assert rig.call('resume').message == 'running'
        assert 'already' in rig.call('resume').message
        rig.play(range(5, 7))
        assert wait_until(lambda: len(tracks) == 5)
        assert rig.call('reset').success
        rig.play(range(7, 9))
        assert wait_until(lambda: len(tracks) == 7)
        assert [m.epoch for m in tracks] == [0] * 5 + [1] * 2
        assert (rig.counts.received, rig.counts.dropped) == (7, 0)
        rig.node.trigger_deactivate()
        assert not rig.call('pause').success


def test_parameters_are_checked():
    with Rig(ExactPredictor(poses(2))) as rig:
        client = rig.client.create_client(SetParameters, '/vggt/set_parameters')
        assert client.wait_for_service(10)

        def set_parameter(name, value):
            request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
            future = client.call_async(request)
            assert wait_until(future.done)
            return future.result().results[0]

        assert set_parameter('path_length', 5).successful
        refused = set_parameter('path_length', 0)
        assert not refused.successful
        assert '1' in refused.reason
        assert 'configured' in set_parameter('window', 4).reason
        rig.node.trigger_deactivate()
        rig.node.trigger_cleanup()
        assert set_parameter('window', 4).successful
        assert 'live, every_frame' in set_parameter('mode', 'dead').reason
        assert 'multiple of 14' in set_parameter('image_size', 500).reason
        assert '600' in set_parameter('max_tracks', 601).reason


def test_second_parent_is_refused():
    with Rig(ExactPredictor(poses(4))) as rig:
        from geometry_msgs.msg import TransformStamped
        from rclpy.qos import DurabilityPolicy, QoSProfile

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        static = rig.client.create_publisher(TFMessage, '/tf_static', latched)
        hung = TransformStamped(child_frame_id='eye')
        hung.header.frame_id = 'odom'
        static.publish(TFMessage(transforms=[hung]))
        tf = rig.listen(TFMessage, '/tf')
        assert wait_until(lambda: rig.node._publication.transforms._broadcaster.parents.conflict('eye'))
        rig.play(range(4))
        assert rig.settled()
        assert wait_until(lambda: rig.problems().get('tf') == 4)
        assert not tf


def test_the_tracker_rests_while_nobody_listens():
    asked = []

    class Watching(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            asked.append(queries is not None)
            return super().predict(frames, depth, queries)

    with Rig(Watching(poses(16))) as rig:
        rig.play(range(4))
        assert rig.settled()
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        assert wait_until(rig.node._publication.tracks.wanted)
        rig.play(range(4, 16))
        assert rig.settled()
        assert wait_until(lambda: stamps(tracks) == [stamp_of(i) for i in range(4, 16)])
        assert not any(asked[:3])
        assert asked[-1]
        assert set(tracks[-5].id) & set(tracks[-1].id)


def test_live_mode_takes_the_newest_and_counts_the_rest():
    class Slow(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            time.sleep(0.3)
            return super().predict(frames, depth, queries)

    with Rig(Slow(poses(30)), mode='live') as rig:
        tracks = rig.listen(TrackArray, '/vggt/tracks')
        rig.play(range(30))
        assert rig.settled()
        counts = rig.counts
        assert counts.dropped > 5
        assert counts.processed + counts.dropped == 30
        assert wait_until(lambda: stamps(tracks)[-1:] == [stamp_of(29)])
        assert stamps(tracks) == sorted(stamps(tracks))
        assert stamps(tracks)[0] >= START


def test_in_live_mode_every_image_has_a_pose_while_the_network_is_at_work():
    """A network that takes three images' time; the corners of rendered pictures carry its depth on."""
    scenario = room_loop(240, pictures=True, stop=40)
    truth = {stamp_of(frame.index): T for frame, T in zip(scenario.frames, scenario.T_world_camera, strict=True)}

    class Slow(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            time.sleep(0.15)
            return super().predict(frames, depth, queries)

    def message(frame):
        image = Image()
        fill_image(image, frame.image, 'rgb8')
        image.header.stamp, image.header.frame_id = ns_to_time(stamp_of(frame.index)), 'eye'
        return image

    with Rig(Slow(truth, longest=224, K=scenario.frames[0].K), mode='live', refine=True) as rig:
        odometry = rig.listen(Odometry, '/vggt/odometry')
        tf = rig.listen(TFMessage, '/tf')
        status = rig.listen(Status, '/vggt/status', latched=True)
        rig.connected()
        rig.info.publish(info_message(0, scenario.frames[0].K, (224, 168)))
        time.sleep(0.2)
        for frame in scenario.frames:
            rig.send(message(frame))
            time.sleep(0.08)
        assert rig.settled()
        assert wait_until(lambda: odometry and stamps(odometry)[-1] == stamp_of(39))
        assert wait_until(lambda: status[-1].images_processed + status[-1].images_dropped == 40)
        last = status[-1]  # before the node ends, which it says, too
    found = stamps(odometry)
    assert found == sorted(set(found))  # no time goes back, no image has two poses
    assert found == stamps([t for m in tf for t in m.transforms])
    assert len(found) > 30
    assert last.images_located >= 25
    assert last.images_processed < 30  # the network has not seen them all
    poses_found = np.stack([matrix(t.transform) for m in tf for t in m.transforms])
    true = np.stack([truth[stamp] for stamp in found])
    error, scale = ate(poses_found, true)
    assert error < 0.02
    steps = np.linalg.norm(np.diff(poses_found[:, :3, 3], axis=0), axis=1) * scale
    assert steps.max() < 4 * np.median(steps)
    assert {m.epoch for m in status} == {0}


def test_the_saved_trajectory_has_every_image_that_was_located_and_no_other(tmp_path):
    """Some images are blank: nobody can say where they were taken."""
    scenario = room_loop(240, pictures=True, stop=45)
    truth = {stamp_of(frame.index): T for frame, T in zip(scenario.frames, scenario.T_world_camera, strict=True)}
    blank = range(25, 31)

    class Slow(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            time.sleep(0.12)
            return super().predict(frames, depth, queries)

    with Rig(Slow(truth, longest=224, K=scenario.frames[0].K), mode='live', refine=True) as rig:
        odometry = rig.listen(Odometry, '/vggt/odometry')
        rig.connected()
        rig.info.publish(info_message(0, scenario.frames[0].K, (224, 168)))
        time.sleep(0.2)
        for frame in scenario.frames:
            image = Image()
            fill_image(image, np.full_like(frame.image, 90) if frame.index in blank else frame.image, 'rgb8')
            image.header.stamp, image.header.frame_id = ns_to_time(stamp_of(frame.index)), 'eye'
            rig.send(image)
            time.sleep(0.06)
        assert rig.settled()
        assert wait_until(lambda: odometry and stamps(odometry)[-1] == stamp_of(44))
        client = rig.client.create_client(SaveMap, '/vggt/save_map')
        future = client.call_async(SaveMap.Request(folder=str(tmp_path / 'map')))
        assert wait_until(future.done)
        assert future.result().success, future.result().message
        counts = rig.counts
        solved = {stamp for window in rig.predictor.windows for stamp in window}
    saved = set(read_tum(tmp_path / 'map' / 'trajectory.txt').stamps.tolist())
    assert set(stamps(odometry)) <= saved
    # What was not published at camera rate, because a later image was, was placed by a window.
    assert saved - set(stamps(odometry)) <= solved
    assert {stamp_of(index) for index in blank} - solved
    assert not saved & ({stamp_of(index) for index in blank} - solved)
    assert counts.processed < len(saved) < 45
