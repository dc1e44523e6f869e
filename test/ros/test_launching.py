"""What the launch file hands on, without launch."""

from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from vggt_ros.ros import launching
from vggt_ros.ros.parameters import BY_NAME, PARAMETERS, OptionError

TEMPLATE = (Path(__file__).parents[2] / 'config' / 'vggt.rviz').read_text()


def test_every_parameter_is_an_argument_and_only_what_was_given_is_handed_on():
    arguments = dict.fromkeys([name for name, _ in launching.parameter_arguments()], launching.NOT_GIVEN)
    assert arguments.keys() == {'use_sim_time', *BY_NAME}
    assert launching.given_parameters(arguments) == {}
    given = {
        'weights': "''",
        'device': '0',
        'window': '12',
        'lost_timeout': '5',
        'rectified': 'true',
        'use_sim_time': 'False',
        'scale_sources': 'depth, height',
        'track_adapters': "['vins']",
    }
    found = launching.given_parameters(arguments | given)
    assert found == {
        'weights': '',
        'device': '0',
        'window': 12,
        'lost_timeout': 5.0,
        'rectified': True,
        'use_sim_time': False,
        'scale_sources': ['depth', 'height'],
        'track_adapters': ['vins'],
    }
    assert type(found['lost_timeout']) is float


@pytest.mark.parametrize('declared', PARAMETERS, ids=lambda one: one.name)
def test_defaults_survive_the_way_through_text(declared):
    text = ','.join(declared.default) if isinstance(declared.default, list) else str(declared.default)
    assert declared.parse(text) == declared.default


@pytest.mark.parametrize(
    ('name', 'text', 'problem'),
    [
        ('window', 'ninety', "window: 'ninety' is not a whole number"),
        ('window', '7.5', "window: '7.5' is not a whole number"),
        ('window', 'true', "window: 'true' is not a whole number"),
        ('window', '99', 'window: 99 is outside 3 to 64 frames'),
        ('lost_timeout', '', "lost_timeout: '' is not a number"),
        ('lost_timeout', '[', "lost_timeout: '\\[' is not a number"),
        ('lost_timeout', '.nan', 'lost_timeout: nan is outside'),
        ('rectified', 'perhaps', "rectified: 'perhaps' is not true or false"),
        ('mode', 'fast', "mode: 'fast' is not one of live, every_frame"),
        ('image_size', '100', 'image_size: 100 is not a multiple of 14'),
    ],
)
def test_wrong_values_are_refused_in_one_line(name, text, problem):
    with pytest.raises(OptionError, match=problem) as error:
        launching.given_parameters({name: text})
    assert '\n' not in str(error.value)


def test_unknown_arguments_are_refused_and_the_nearest_is_named():
    launching.refuse_unknown(['image:=/cam', '--debug', 'second/image:=/right'], launching.TOPICS)
    with pytest.raises(OptionError, match=r'there is no argument imaeg; did you mean image\?'):
        launching.refuse_unknown(['image:=/cam', 'imaeg:=/x'], launching.TOPICS)
    with pytest.raises(OptionError, match=r'there is no argument zzz$'):
        launching.refuse_unknown(['zzz:=1:=2'], launching.TOPICS)


def test_given_wins_over_the_file_and_that_over_what_is_built_in(tmp_path):
    path = tmp_path / 'parameters.yaml'
    path.write_text('/**: {ros__parameters: {map_frame: world, window: 5}}')
    found = launching.effective(str(path), '/a/vggt', {'window': 6})
    assert (found['map_frame'], found['window'], found['stride']) == ('world', 6, 1)
    assert launching.effective('', '/vggt', {})['map_frame'] == 'map'


@pytest.mark.parametrize(
    ('topic', 'namespace', 'full'),
    [
        ('image', '', '/image'),
        ('image', 'front', '/front/image'),
        ('image', '/a/b/', '/a/b/image'),
        ('/cam/image', 'front', '/cam/image'),
    ],
)
def test_names_are_seen_from_the_namespace(topic, namespace, full):
    assert launching.resolve(topic, namespace) == full


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_rviz_follows_the_launch(transport):
    settings = {'map_frame': '/robot1/map', 'image_transport': transport}
    config = yaml.safe_load(launching.rviz_config(TEMPLATE, '/front/eyes', '/cam/image_raw', settings))
    manager = config['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == 'robot1/map'
    topics = {one['Name']: one['Topic']['Value'] for one in manager['Displays'] if 'Topic' in one}
    assert topics.pop('Camera') == '/cam/image_raw' + ('/compressed' if transport == 'compressed' else '')
    assert len(topics) == 7
    assert all(topic.startswith('/front/eyes/') for topic in topics.values())


def test_rviz_is_as_the_file_has_it_without_arguments():
    settings = {'map_frame': 'map', 'image_transport': 'raw'}
    assert yaml.safe_load(launching.rviz_config(TEMPLATE, '/vggt', '/image', settings)) == yaml.safe_load(TEMPLATE)
