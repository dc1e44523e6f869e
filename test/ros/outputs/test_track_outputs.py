"""The tracks' topics: what each message holds, who gets one, and the subscriber of the docs."""

import array
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, PointCloud, PointCloud2
from vggt_ros.msg import TrackArray

from exact import ExactPredictor
from harness import Rig, poses, stamp_of, stamps, wait_until
from vggt_ros.ros import compat
from vggt_ros.ros.messages import header
from vggt_ros.ros.outputs import track_outputs
from vggt_ros.ros.outputs.track_messages import (
    FLOAT_IDS,
    Annotations,
    to_track_points,
    to_tracks,
    to_vins,
    to_vins_fusion,
)
from vggt_ros.ros.outputs.track_outputs import TrackOutputs
from vggt_ros.ros.parameters import LoadError
from vggt_ros.tools import benchmark
from vggt_ros.tracks import picture as track_picture
from vggt_ros.tracks.picture import DIM, TrackedPoints, draw_tracks, track_colours
from vggt_ros.types import Frame, Scale, Tracks

ROOT = Path(__file__).parents[3]
K = np.array([[100.0, 0, 50.0], [0, 200.0, 40.0], [0, 0, 1]])
SETTINGS = {'track_adapters': [''], 'track_tails': 12, 'mode': 'live', 'stride': 1}
TENTH = 100_000_000  # ns
SOFT = 40  # of 255: a thin line with soft edges does not quite have its colour


def some_tracks(ids, uv, *, stamp=5 * TENTH, epoch=3, age=10, K=K, size=(120, 80), xyz=None) -> Tracks:
    """Tracks with these ids and pixels, everything else different for each."""
    ids, uv = np.asarray(ids, np.uint64), np.asarray(uv, np.float64).reshape(-1, 2)
    count = len(ids)
    frame = Frame(7, stamp, np.full((size[1], size[0], 3), 100, np.uint8), K, 'eye')
    xyz = np.arange(3.0 * count).reshape(-1, 3) if xyz is None else np.asarray(xyz, np.float64)
    visibility, confidence = np.linspace(0.5, 1, count), np.linspace(0.1, 0.9, count)
    ages = np.full(count, age, np.uint32)
    return Tracks(frame, epoch, Scale.METRIC, ids, uv, visibility, confidence, ages, xyz, xyz + 100, K)


def seen(tracks: Tracks) -> TrackedPoints:
    return TrackedPoints(tracks.frame.stamp, tracks.id, tracks.uv, tracks.age)


def head(tracks: Tracks):
    return header(tracks, tracks.frame.frame_id)


def features(data: bytes) -> tuple[PointCloud, np.ndarray, dict[str, list[float]]]:
    message = deserialize_message(data, PointCloud)
    points = np.array([(p.x, p.y, p.z) for p in message.points])
    return message, points, {channel.name: list(channel.values) for channel in message.channels}


# Messages


def test_two_thousand_tracks_are_filled_in_bulk_and_exactly():
    rng = np.random.default_rng(0)
    ids = rng.choice(2**63, 2000).astype(np.uint64) * np.uint64(2)
    tracks = some_tracks(ids, rng.uniform(0, 80, (2000, 2)), xyz=rng.normal(size=(2000, 3)))
    message = to_tracks(tracks, head(tracks))
    expected = {'id': tracks.id, 'age': tracks.age, 'visibility': tracks.visibility, 'confidence': tracks.confidence}
    expected |= dict(zip('uv', tracks.uv.T, strict=True)) | dict(zip('xyz', tracks.xyz.T, strict=True))
    for name, values in expected.items():
        field = getattr(message, name)
        assert isinstance(field, array.array)  # any other type rclpy converts element by element
        np.testing.assert_array_equal(np.asarray(field), values.astype(field.typecode))
    assert (message.width, message.height, message.epoch, message.scale) == (120, 80, 3, TrackArray.SCALE_METRIC)
    assert message.header.frame_id == 'eye'
    assert deserialize_message(serialize_message(message), TrackArray) == message


def test_points_leave_out_what_is_not_known_and_keep_the_order_of_fields():
    xyz = np.array([[1.0, 2, 3], [np.nan, np.nan, np.nan], [4, 5, 6]])
    tracks = some_tracks([2**32 + 9, 1, 2], np.zeros((3, 2)), xyz=xyz, age=17)
    cloud = to_track_points(tracks, head(tracks))
    layout = [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields]
    names = ('x', 'y', 'z', 'id', 'age', 'confidence', 'rgb')
    datatypes = (7, 7, 7, 6, 6, 7, 7)  # FLOAT32 and UINT32 of PointField
    assert layout == [(n, 4 * i, t, 1) for i, (n, t) in enumerate(zip(names, datatypes, strict=True))]
    assert (cloud.height, cloud.width, cloud.point_step, cloud.is_dense) == (1, 2, 28, True)
    floats = np.frombuffer(cloud.data, '<f4').reshape(2, 7)
    words = np.frombuffer(cloud.data, '<u4').reshape(2, 7)
    np.testing.assert_array_equal(floats[:, :3], xyz[[0, 2]])
    np.testing.assert_array_equal(words[:, 3:5], [[9, 17], [2, 17]])
    np.testing.assert_array_equal(floats[:, 5], tracks.confidence[[0, 2]].astype(np.float32))
    r, g, b = track_colours(tracks.id)[[0, 2]].astype(int).T
    np.testing.assert_array_equal(words[:, 6], r << 16 | g << 8 | b)


def test_vins_gets_its_order_and_velocities():
    """Track 8 moves from (30, 20) to (40, 24) in 0.1 s; f is 100 and 200, c is (50, 40). Track 5 is new."""
    before = some_tracks([9, 8], [(0, 0), (30, 20)], stamp=4 * TENTH)
    tracks = some_tracks([5, 8], [(60, 50), (40, 24)])
    message, points, channels = features(to_vins(tracks, head(tracks), K, seen(before)))
    assert (stamps([message]), message.header.frame_id) == ([5 * TENTH], 'eye')
    np.testing.assert_allclose(points, [(0.1, 0.05, 1), (-0.1, -0.08, 1)], rtol=1e-6)
    assert list(channels) == [
        'id_of_point',
        'u_of_point',
        'v_of_point',
        'velocity_x_of_point',
        'velocity_y_of_point',
    ]
    expected = [(5, 8), (60, 40), (50, 24), (0, 1), (0, 0.2)]
    np.testing.assert_allclose(list(channels.values()), expected, rtol=1e-6)


def test_vins_fusion_has_the_camera_second_and_the_point_in_the_map_last():
    before = some_tracks([8], [(30, 20)], stamp=4 * TENTH)
    tracks = some_tracks([5, 8], [(60, 50), (40, 24)])
    _, points, channels = features(to_vins_fusion(tracks, head(tracks), K, seen(before)))
    np.testing.assert_allclose(points, [(0.1, 0.05, 1), (-0.1, -0.08, 1)], rtol=1e-6)
    assert list(channels)[:3] == ['id_of_point', 'camera_of_point', 'u_of_point']
    expected = [(5, 8), (0, 0), (60, 40), (50, 24), (0, 1), (0, 0.2), (100, 103), (101, 104), (102, 105)]
    np.testing.assert_allclose(list(channels.values()), expected, rtol=1e-6)


@pytest.mark.parametrize('frame_id', ['', 'e', 'ey', 'eye', 'eyes', 'camera_optical_frame'])
def test_vins_messages_are_whole_behind_any_header(frame_id):
    """They are written as bytes, so what comes behind a string of any length must be aligned."""
    tracks = some_tracks([1, 2, 3], [(1, 2), (3, 4), (5, 6)])
    message, points, channels = features(to_vins(tracks, header(tracks, frame_id), K, None))
    assert message.header.frame_id == frame_id
    assert points.shape == (3, 3)
    assert channels['u_of_point'] == [1, 3, 5]
    assert channels['velocity_y_of_point'] == [0, 0, 0]
    assert len(serialize_message(message)) == len(to_vins(tracks, header(tracks, frame_id), K, None))


def test_ids_beyond_what_float32_counts_begin_again():
    ids = [FLOAT_IDS - 1, FLOAT_IDS, FLOAT_IDS + 1, FLOAT_IDS + 2]
    tracks = some_tracks(ids, np.zeros((4, 2)))
    _, _, channels = features(to_vins(tracks, head(tracks), K, None))
    assert channels['id_of_point'] == [FLOAT_IDS - 1, 0, 1, 2]


@pytest.mark.parametrize('stamp', [4 * TENTH, 5 * TENTH], ids=['the same stamp', 'a later one'])
def test_time_that_does_not_go_on_has_no_velocity(stamp):
    tracks = some_tracks([8], [(40, 24)], stamp=4 * TENTH)
    _, _, channels = features(to_vins(tracks, head(tracks), K, seen(some_tracks([8], [(30, 20)], stamp=stamp))))
    assert channels['velocity_x_of_point'] == channels['velocity_y_of_point'] == [0]


def foxglove_stub(*fields: str) -> ModuleType:
    """foxglove_msgs.msg as far as it is used. fields: of ImageAnnotations."""

    def kind(name, *names, **constants):
        defaults = dict.fromkeys(names)

        class Message(SimpleNamespace):
            def __init__(self, **values):
                assert values.keys() <= defaults.keys(), name
                super().__init__(**(defaults | values))

        for constant, value in constants.items():
            setattr(Message, constant, value)
        return Message

    module = ModuleType('foxglove_msgs.msg')
    module.Color, module.Point2 = kind('Color', 'r', 'g', 'b', 'a'), kind('Point2', 'x', 'y')
    annotation = ('timestamp', 'type', 'points', 'outline_color', 'outline_colors', 'fill_color', 'thickness')
    module.PointsAnnotation = kind('PointsAnnotation', *annotation, POINTS=1)
    module.ImageAnnotations = kind('ImageAnnotations', 'circles', 'points', 'texts', *fields)
    return module


@pytest.mark.parametrize('fields', [(), ('timestamp', 'metadata')], ids=['older', 'newer'])
def test_foxglove_counts_pixels_from_the_corner(fields):
    tracks = some_tracks([4, 5], [(0, 0), (10.25, 20)])
    message = Annotations(foxglove_stub(*fields))(tracks, head(tracks))
    (points,) = message.points
    assert points.type == 1
    assert points.timestamp == head(tracks).stamp
    assert [(p.x, p.y) for p in points.points] == [(0.5, 0.5), (10.75, 20.5)]
    colours = np.array([(c.r, c.g, c.b, c.a) for c in points.outline_colors])
    np.testing.assert_allclose(colours[:, :3] * 255, track_colours(tracks.id))
    assert (colours[:, 3] == 1).all()
    if fields:
        assert message.timestamp == head(tracks).stamp


# Overlay


def test_colours_are_stable_and_easily_told_apart():
    ids = np.arange(2**40, 2**40 + 4000, dtype=np.uint64)
    colours = track_colours(ids)
    np.testing.assert_array_equal(colours[::-1], track_colours(ids[::-1]))
    assert (colours.max(1) == 255).all()  # bright, on a dimmed image
    hues = cv2.cvtColor(colours[None], cv2.COLOR_RGB2HSV_FULL)[0, :, 0].astype(int)
    for step in range(1, 5):  # ids given one after the other
        apart = np.abs(hues[step:] - hues[:-step])
        assert np.minimum(apart, 256 - apart).min() >= 256 * 0.09
    assert (np.bincount(hues // 16, minlength=16) > 4000 / 16 * 0.7).all()


def test_dots_are_centred_on_their_pixels_to_a_fraction():
    image = np.zeros((80, 120, 3), np.uint8)
    for u, v in ((40.0, 30.0), (40.5, 30.25), (0.0, 0.0)):
        tracks = some_tracks([77], [(u, v)])
        picture = draw_tracks(image, [seen(tracks)])
        colour = track_colours(tracks.id)[0]
        np.testing.assert_array_equal(picture[round(v), round(u)], colour)
        if u:
            weight = picture.astype(float).sum(-1)
            rows, columns = np.mgrid[:80, :120]
            centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
            assert centre == pytest.approx((u, v), abs=0.06)


def test_tails_go_where_the_track_was_and_not_farther():
    image = np.full((80, 120, 3), 200, np.uint8)
    history = [seen(some_tracks([1, 2], [(10 + 5 * i, 20), (10 + 5 * i, 60)], age=6)) for i in range(17)]
    history.append(seen(some_tracks([2, 3], [(95, 60), (60, 40)], age=6)))
    picture = draw_tracks(image, history, length=12)
    background = np.full(3, 200 * DIM)
    colour = track_colours(np.array([2], np.uint64))[0]
    np.testing.assert_allclose(picture[60, 36:90], np.tile(colour, (54, 1)), atol=SOFT)
    np.testing.assert_array_equal(picture[60, 10:34], np.tile(background, (24, 1)))
    np.testing.assert_array_equal(picture[15:26], np.tile(background, (11, 120, 1)))  # track 1 has ended
    np.testing.assert_array_equal(picture[40, 60], track_colours(np.array([3], np.uint64))[0])
    assert not (image != 200).any()
    short = draw_tracks(image, history, length=0)
    np.testing.assert_array_equal(short[60, 10:90], np.tile(background, (80, 1)))


def test_new_tracks_are_small_and_old_ones_have_a_ring():
    image = np.zeros((80, 120, 3), np.uint8)
    ids = np.array([1], np.uint64)

    def sizes(age):
        picture = draw_tracks(image, [seen(some_tracks(ids, [(60, 40)], age=age))])
        inside = (picture == track_colours(ids)[0]).all(-1)
        return int(inside.sum()), bool(picture[40, 64].any())

    (new, _), (usual, ring), (_, old_ring) = sizes(1), sizes(10), sizes(track_picture.OLD)
    assert new < usual
    assert not ring
    assert old_ring


# Topics


class Bench:
    """TrackOutputs on a node of its own and a client, over DDS."""

    def __init__(self, **settings):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('vggt', context=self.context)
        self.client = rclpy.create_node('client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.client)
        self.thread = threading.Thread(target=compat.spin, args=(self.executor,), daemon=True)
        self.thread.start()
        self.outputs = TrackOutputs(self.node, SETTINGS | settings)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.outputs.close()
        self.executor.shutdown()
        self.thread.join()
        self.client.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def listen(self, kind, topic):
        inbox = []
        self.client.create_subscription(kind, topic, inbox.append, 10)
        assert wait_until(lambda: self.node.count_subscribers(topic) > 0)
        # The graph may know of a subscription before the publisher has matched it.
        publishers = {p.topic_name: p for p, _ in (*self.outputs._topics, *self.outputs._features)}
        assert wait_until(lambda: publishers[topic].get_subscription_count() > 0)
        return inbox


TOPICS = {
    '/vggt/tracks': TrackArray,
    '/vggt/tracks/points': PointCloud2,
    '/vggt/tracks/image': Image,
    '/vggt/tracks/vins': PointCloud,
    '/vggt/tracks/vins_fusion': PointCloud,
}


def test_nothing_is_computed_for_nobody(monkeypatch):
    calls = []
    for name in ('to_tracks', 'to_track_points', 'to_vins', 'to_vins_fusion', 'draw_tracks'):
        fill = getattr(track_outputs, name)
        monkeypatch.setattr(
            track_outputs, name, lambda *given, name=name, fill=fill: (calls.append(name), fill(*given))[1]
        )
    with Bench(track_adapters=['vins', 'vins_fusion']) as bench:
        assert not bench.outputs.wanted()
        bench.outputs.publish(some_tracks([1], [(5, 5)]))
        assert not calls
        points = bench.listen(PointCloud2, '/vggt/tracks/points')
        assert bench.outputs.wanted()
        bench.outputs.publish(some_tracks([1], [(5, 5)]))
        assert wait_until(lambda: points)
        assert calls == ['to_track_points']


def test_no_tracks_give_an_empty_message_on_every_topic():
    with Bench(track_adapters=['vins', 'vins_fusion']) as bench:
        boxes = {topic: bench.listen(kind, topic) for topic, kind in TOPICS.items()}
        bench.outputs.publish(some_tracks([], np.empty((0, 2))))
        assert wait_until(lambda: all(boxes.values())), {topic: len(box) for topic, box in boxes.items()}
    for box in boxes.values():
        (message,) = box
        assert (stamps([message]), message.header.frame_id) == ([5 * TENTH], 'eye')
    assert len(boxes['/vggt/tracks'][0].id) == 0
    assert boxes['/vggt/tracks/points'][0].width == 0
    assert len(boxes['/vggt/tracks/points'][0].fields) == 7
    for name, channels in (('vins', 5), ('vins_fusion', 9)):
        message = boxes[f'/vggt/tracks/{name}'][0]
        assert not message.points
        assert [len(channel.values) for channel in message.channels] == [0] * channels
    picture = boxes['/vggt/tracks/image'][0]
    assert (picture.encoding, picture.width, picture.height) == ('rgb8', 120, 80)


def test_overlay_has_tails_from_before_its_subscriber_and_forgets_with_the_epoch():
    with Bench(track_tails=3) as bench:
        for i in range(5):
            bench.outputs.publish(some_tracks([1], [(20 + 10 * i, 70)], stamp=i * TENTH))
        pictures = bench.listen(Image, '/vggt/tracks/image')
        bench.outputs.publish(some_tracks([1], [(70, 70)], stamp=5 * TENTH))
        bench.outputs.publish(some_tracks([1], [(80, 70)], stamp=6 * TENTH, epoch=4))
        bench.outputs.publish(some_tracks([1], [(90, 50)], stamp=7 * TENTH, epoch=4, size=(160, 80)))
        assert wait_until(lambda: len(pictures) == 3)
    first, second, third = (np.frombuffer(m.data, np.uint8).reshape(m.height, m.width, 3) for m in pictures)
    colour = track_colours(np.array([1], np.uint64))[0]
    np.testing.assert_allclose(first[70, 41:64], np.tile(colour, (23, 1)), atol=SOFT)
    assert (first[70, 20:38] == 65).all()  # 3 images back, no farther
    assert (second[70, 20:75] == 65).all()
    assert third.shape == (80, 160, 3)
    assert (third[55:75] == 65).all()
    assert (first[:20] > 240).any()  # number of tracks and epoch
    assert not np.array_equal(first[:20], second[:20])


def test_vins_needs_intrinsics_and_takes_the_cameras_before_predicted_ones():
    predicted = np.diag([50.0, 50, 1])
    with Bench(track_adapters=['vins']) as bench:
        box = bench.listen(PointCloud, '/vggt/tracks/vins')
        bench.outputs.publish(some_tracks([1], [(60, 50)], K=None, stamp=1))
        bench.outputs.publish(replace(some_tracks([1], [(60, 50)], K=None, stamp=2), K=predicted))
        bench.outputs.publish(some_tracks([1], [(60, 50)], stamp=3))
        assert wait_until(lambda: len(box) == 2)
    assert stamps(box) == [2, 3]
    xy = [(m.points[0].x, m.points[0].y) for m in box]
    np.testing.assert_allclose(xy, [(1.2, 1.0), (0.1, 0.05)], rtol=1e-6)


def test_foxglove_has_its_topic(monkeypatch):
    """With a type that is installed in place of ImageAnnotations."""
    stand_in = SimpleNamespace(ImageAnnotations=TrackArray)
    monkeypatch.setattr(compat, 'foxglove_messages', lambda: stand_in)
    monkeypatch.setattr(track_outputs, 'Annotations', lambda messages: to_tracks if messages is stand_in else None)
    with Bench(track_adapters=['foxglove']) as bench:
        box = bench.listen(TrackArray, '/vggt/tracks/annotations')
        bench.outputs.publish(some_tracks([6], [(5, 5)]))
        assert wait_until(lambda: box)
    assert list(box[0].id) == [6]


def test_unknown_and_missing_adapters_are_refused_with_the_reason(monkeypatch):
    with Bench() as bench:
        with pytest.raises(LoadError, match='track_adapters: orb is not one of vins, vins_fusion, foxglove'):
            TrackOutputs(bench.node, SETTINGS | {'track_adapters': ['vins', 'orb']})
        monkeypatch.setitem(sys.modules, 'foxglove_msgs', None)
        with pytest.raises(compat.MissingPackage, match='foxglove_msgs, which is not installed'):
            TrackOutputs(bench.node, SETTINGS | {'track_adapters': ['foxglove']})
        monkeypatch.undo()


def test_the_node_does_not_configure_with_an_unknown_adapter():
    with Rig(ExactPredictor(poses(1)), start=False, track_adapters=['orb']) as rig:
        assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE


def test_the_subscriber_of_the_docs_feeds_a_back_end():
    """The code in docs/guides/tracks.md as it stands there, in a process of its own, with the running node."""
    text = (ROOT / 'docs' / 'guides' / 'tracks.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    with Rig(ExactPredictor(poses(10)), track_adapters=['vins']) as rig:
        direct = rig.listen(TrackArray, '/vggt/tracks')
        vins = rig.listen(PointCloud, '/vggt/tracks/vins')
        environment = os.environ | {'PYTHONUNBUFFERED': '1'}
        command = [sys.executable, '-c', code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            try:
                assert wait_until(lambda: rig.node.count_subscribers('/vggt/tracks') == 2, 60)
                publisher = rig.node._publication.tracks._topics[0][0]
                assert wait_until(lambda: publisher.get_subscription_count() == 2)
                rig.play(range(10))
                assert wait_until(lambda: len(direct) == len(vins) == 10)
                lines = [process.stdout.readline().split() for _ in range(10 + sum(len(m.id) for m in direct))]
            finally:
                process.kill()
    for message, features in zip(direct, vins, strict=True):
        title, rows = lines[0], np.array(lines[1 : 1 + len(message.id)], float).reshape(-1, 6)
        lines = lines[1 + len(message.id) :]
        assert title[1] == str(stamps([message])[0])
        assert rows[:, 0].tolist() == list(message.id) == list(features.channels[0].values)
        np.testing.assert_allclose(rows[:, 1], message.u, atol=1e-3)
        np.testing.assert_allclose(rows[:, 5], message.z, atol=1e-3)
        np.testing.assert_array_equal(features.channels[1].values, message.u)
    assert stamps(vins) == stamps(direct) == [stamp_of(i) for i in range(10)]
    assert len(direct[-1].id) > 15
    moved = np.asarray(vins[-1].channels[3].values)
    assert np.isfinite(moved).all()
    assert (moved != 0).sum() > 10


def test_the_benchmark_prices_every_message(capsys):
    assert benchmark.main(['--messages', '50', '--runs', '1']) == 0
    plain, *others = (line.split()[-4:] for line in capsys.readouterr().out.splitlines()[2:])
    assert float(plain[3]) == 1
    assert len(others) == 4
    for _, _, total, ratio in others:
        assert float(ratio) * float(plain[2]) == pytest.approx(float(total), rel=0.1, abs=2e-3)
