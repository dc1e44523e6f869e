"""The PyPI stand-ins for tf2_ros and sensor_msgs_py, against what the real ones put on the wire."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from vggt_ros.ros import compat


@pytest.fixture
def without_tf2_ros(monkeypatch):
    monkeypatch.setattr(compat, '_tf2_ros', lambda: None)


@pytest.fixture
def node(without_tf2_ros, monkeypatch):
    """A node that keeps what is published, and a tf2_msgs that needs no build."""
    pytest.importorskip('rclpy')
    messages = ModuleType('tf2_msgs.msg')
    messages.TFMessage = SimpleNamespace
    monkeypatch.setitem(sys.modules, 'tf2_msgs', ModuleType('tf2_msgs'))
    monkeypatch.setitem(sys.modules, 'tf2_msgs.msg', messages)
    published = []
    node = SimpleNamespace(published=published)

    def create_publisher(kind, topic, qos):
        node.topic, node.qos = topic, qos
        return SimpleNamespace(publish=lambda message: published.append(message.transforms))

    node.create_publisher = create_publisher
    return node


def transform(child, x=0):
    return SimpleNamespace(child_frame_id=child, x=x)


def test_transforms_go_to_tf_one_message_each_call(node):
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    broadcaster = compat.transform_broadcaster(node)
    a, b = transform('a'), transform('b')
    broadcaster.sendTransform(a)
    broadcaster.sendTransform([a, b])
    assert node.published == [[a], [a, b]]
    assert node.topic == '/tf'
    assert node.qos.depth == 100
    assert node.qos.reliability == ReliabilityPolicy.RELIABLE
    assert node.qos.durability == DurabilityPolicy.VOLATILE


def test_lookup_without_tf2_ros_is_a_clear_error(without_tf2_ros):
    with pytest.raises(compat.MissingPackage, match='needs tf2_ros'):
        compat.transform_buffer()


def test_the_log_line_names_the_choices():
    line = compat.describe()
    assert 'cv_bridge' in line
    assert 'tf2' in line


def test_organized_cloud_keeps_rows_and_columns():
    messages = pytest.importorskip('sensor_msgs.msg')
    header = pytest.importorskip('std_msgs.msg').Header(frame_id='camera')
    points = np.zeros((3, 5), [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<f4'), ('confidence', '<f4')])
    points['x'] = np.arange(15).reshape(3, 5)
    points['z'][1, 2] = np.nan
    points['rgb'] = np.uint32(0x00102030).view(np.float32)
    cloud = compat.point_cloud(header, points)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (3, 5, 20, 100)
    assert [(x.name, x.offset, x.datatype, x.count) for x in cloud.fields] == [
        (name, 4 * i, messages.PointField.FLOAT32, 1) for i, name in enumerate(points.dtype.names)
    ]
    assert not cloud.is_dense
    assert cloud.header.frame_id == 'camera'
    assert cloud.data.tobytes() == points.tobytes()
    flat = compat.point_cloud(header, points.ravel()[:7], dense=True)
    assert (flat.height, flat.width, flat.row_step, flat.is_dense) == (1, 7, 140, True)
    with pytest.raises(TypeError, match='structured'):
        compat.point_cloud(header, np.zeros((4, 3), np.float32))


def test_an_executor_goes_on_when_something_was_destroyed_under_it():
    InvalidHandle = pytest.importorskip('rclpy.exceptions').InvalidHandle
    ends = [InvalidHandle('destruction was requested'), None]
    compat.spin(SimpleNamespace(spin=lambda: raise_or_return(ends.pop(0))))
    assert not ends
    with pytest.raises(KeyError):
        compat.spin(SimpleNamespace(spin=lambda: raise_or_return(KeyError('x'))))


def raise_or_return(error):
    if error is not None:
        raise error
