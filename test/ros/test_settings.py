"""Parameters: what takes effect while the node runs, what is refused, and who is told what by a file."""

import re

import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs')
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from exact import SIZE, ExactPredictor
from harness import Rig, poses, wait_until
from vggt_ros.ros.node import VGGTNode
from vggt_ros.ros.parameter_files import ParameterFileError, shared_names, silent_files, values_for
from vggt_ros.ros.parameters import PARAMETERS, OptionError

FILE = """
/**:
  ros__parameters: {window: 4, widnow: 5, speed: 1.0}
/front/*:
  ros__parameters: {window: 5, device: cpu}
front:
  vggt:
    ros__parameters: {stride: 2}
/rear/vggt:
  ros__parameters: {window: 9}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'parameters.yaml'
    path.write_text(FILE)
    return path


def set_all(node, **values):
    """At once, as the service set_parameters_atomically does."""
    return node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])


def test_what_may_change_while_the_node_runs_takes_effect_with_the_next_window():
    with Rig(ExactPredictor(poses(12))) as rig:
        depth = rig.listen(Image, '/vggt/depth/image_rect')
        rig.play(range(4))
        assert wait_until(lambda: depth and rig.settled())
        assert (depth[-1].width, depth[-1].height) == SIZE
        assert set_all(rig.node, depth_size='network', min_confidence=0.3, min_track_score=0.6).successful
        assert set_all(rig.node, lost_timeout=3.0, map_min_confidence=0.7, map_period=0.5).successful
        seen = len(depth)
        rig.play(range(4, 8))
        assert wait_until(lambda: rig.settled() and len(depth) > seen)
        assert (depth[-1].width, depth[-1].height) != SIZE
        assert rig.node._pipeline.world.config.min_confidence == 0.3
        assert rig.node._pipeline.tracker.config.min_score == 0.6
        assert rig.node._pipeline.world._config.lost_timeout == 3.0
        contents = rig.node._publication._map._keeper.ask(lambda contents: contents.map.config.min_confidence)
        assert contents.result(20) == 0.7


def test_what_may_not_is_refused_with_the_reason_and_changes_nothing():
    with Rig(ExactPredictor(poses(1)), start=False, depth_far=6.0) as rig:
        assert set_all(rig.node, window=5, map_frame='/world').successful
        assert rig.node._settings['map_frame'] == 'world'  # as ROS 1 wrote it
        assert set_all(rig.node, map_frame='map').successful
        rig.node.trigger_configure()
        structural = {one.name: one.default for one in PARAMETERS if one.structural}
        for name, value in structural.items():
            refused = set_all(rig.node, **{name: value, 'path_length': 7})
            assert not refused.successful
            assert refused.reason.startswith(f'{name} is fixed while the node is configured')
        assert rig.node._settings['path_length'] == 1000
        refused = set_all(rig.node, depth_near=6.5)
        assert refused.reason == 'depth images are believed from depth_near to depth_far: 6.5 < 6.0 does not hold'
        assert set_all(rig.node, depth_near=6.5, depth_far=7.0).successful
        assert rig.node._settings == {one.name: rig.node.get_parameter(one.name).value for one in PARAMETERS}


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('widnow', 5, 'there is no parameter widnow; did you mean window?'),
        ('zzz', 5, 'there is no parameter zzz$'),
        ('mode', 'fast', "mode: 'fast' is not one of live, every_frame"),
    ],
)
def test_a_node_with_a_wrong_parameter_does_not_begin(name, value, text):
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        with pytest.raises(OptionError, match=text):
            VGGTNode(context=context, parameter_overrides=[Parameter(name, value=value)])
    finally:
        rclpy.shutdown(context=context)


def test_what_a_file_says_to_other_nodes_too_is_only_doubted(file, monkeypatch, capfd):
    """rclpy does not tell whether a section was for this node alone."""
    arguments = ['vggt_node', '--ros-args', '--params-file', str(file)]
    monkeypatch.setattr('sys.argv', arguments)
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    try:
        node = VGGTNode(context=context, namespace='front')
        assert (node.get_parameter('window').value, node.get_parameter('stride').value) == (5, 2)
        node.close()
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    said = capfd.readouterr().err
    assert 'there is no parameter widnow; did you mean window? (from a section for several nodes' in said
    assert 'there is no parameter speed (from' in said


def test_a_file_for_others_is_said(file, monkeypatch, capfd):
    file.write_text('vgt: {ros__parameters: {window: 5}}')
    arguments = ['vggt_node', '--ros-args', '--params-file', str(file)]
    monkeypatch.setattr('sys.argv', arguments)
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context)
    try:
        node = VGGTNode(context=context)
        assert node.get_parameter('window').value == 8
        node.close()
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    assert f'{file} does not speak to /vggt, but /vgt' in capfd.readouterr().err


def test_who_is_told_nothing(file):
    arguments = ['--params-file', str(file)]
    assert silent_files(arguments, '/vggt') == {}
    file.write_text('front: {vggt: {ros__parameters: {}}}\n/rear/*: {ros__parameters: {window: 3}}')
    assert silent_files(arguments, '/front/vggt') == silent_files(arguments, '/rear/eye') == {}
    assert silent_files(arguments, '/vggt') == {file: ['/front/vggt', '/rear/*']}
    file.write_text('')
    assert silent_files(arguments, '/vggt') == {file: []}


def test_a_qos_override_that_nobody_asks_for_is_said(capfd):
    overrides = {
        'qos_overrides./image.subscription.depht': 3,
        'qos_overrides./vggt/points.publisher.depth': 3,
        'qos_overrides./imag.subscription.depth': 3,
    }
    with Rig(ExactPredictor(poses(2)), **overrides):
        pass
    said = capfd.readouterr().err
    assert 'qos_overrides./image.subscription.depht has no effect' in said
    assert 'qos_overrides./imag.subscription.depth has no effect' in said
    assert 'points.publisher' not in said


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('/image.subscription.reliability', 'best', 'must be one of .*reliable, best_effort'),
        ('/image.subscription.reliability', 1, 'must be one of'),
        ('/vggt/points.publisher.history', 'unknown', 'must be one of .*keep_last, keep_all'),
        ('/image.subscription.depth', 'ten', 'a number of messages'),
        ('/image.subscription.depth', True, 'a number of messages'),
        ('/image.subscription.depth', -1, 'a number of messages'),
    ],
)
def test_a_qos_override_that_cannot_be_is_refused_before_the_network_is_loaded(name, value, reason):
    loaded = []
    with Rig(ExactPredictor(poses(2)), start=False, **{f'qos_overrides.{name}': value}) as rig:
        rig.node._load = lambda settings: loaded.append(settings)
        assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert re.search(f'qos_overrides.{name} .*{reason}', rig.node._inactive.message)
    assert not loaded


@pytest.mark.parametrize(('policy', 'value'), [('reliability', 'BEST_EFFORT'), ('history', 'keep_all'), ('depth', 3)])
def test_a_qos_override_that_can_be_is_not(policy, value):
    with Rig(ExactPredictor(poses(2)), **{f'qos_overrides./image.subscription.{policy}': value}) as rig:
        assert rig.node._active is not None
        assert rig.node.get_parameter(f'qos_overrides./image.subscription.{policy}').value == value


def test_a_node_takes_what_a_node_has_dumped():
    """``ros2 param dump`` and ``params_file``."""
    with Rig(ExactPredictor(poses(2))) as rig:
        dumped = {name: parameter.value for name, parameter in rig.node._parameters.items()}
    assert {'qos_overrides./image.subscription.reliability', 'use_sim_time', 'window'} < set(dumped)
    with Rig(ExactPredictor(poses(2)), **dumped) as rig:
        assert rig.node._active is not None, rig.node._inactive
        assert {name: parameter.value for name, parameter in rig.node._parameters.items()} == dumped


def test_a_file_tells_each_node_its_own(file):
    common = {'window': 4, 'widnow': 5, 'speed': 1.0}
    assert values_for(file, '/front/vggt') == common | {'window': 5, 'device': 'cpu', 'stride': 2}
    assert values_for(file, '/front/a/vggt') == values_for(file, '/vggt') == common
    assert values_for(file, '/rear/vggt') == common | {'window': 9}
    assert shared_names(['-r', 'a:=b', '--params-file', str(file)]) == {'window', 'widnow', 'speed', 'device'}
    assert shared_names([str(file)]) == set()


@pytest.mark.parametrize('text', [None, 'a: [', '\xff'], ids=['missing', 'torn', 'latin'])
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, text):
    path = tmp_path / 'bad.yaml'
    if text is not None:
        path.write_bytes(text.encode('latin-1'))
    with pytest.raises(ParameterFileError) as error:
        values_for(path, '/vggt')
    assert str(error.value).startswith(f'{path}: ')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['', '3', 'a: 1', 'vggt: {ros__parameters: }', '[1, 2]'])
def test_a_file_that_says_nothing_is_empty(tmp_path, text):
    path = tmp_path / 'empty.yaml'
    path.write_text(text)
    assert values_for(path, '/vggt') == {}
