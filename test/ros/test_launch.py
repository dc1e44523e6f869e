"""The launch file on the real launch: who is told what, what is refused, and that it ends in a node that works."""

import contextlib
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import rclpy
from ament_index_python.packages import get_packages_with_prefixes
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from harness import wait_until
from started import Started
from vggt_ros.ros import parameters

ROOT = Path(__file__).parents[2]


def test_the_parameter_file_is_the_table_of_parameters():
    text = (ROOT / 'config' / 'vggt.yaml').read_text()
    assert text == parameters.to_yaml(), 'run python -m vggt_ros.ros.parameters > config/vggt.yaml'
    values = yaml.safe_load(text)['/**']['ros__parameters']
    assert values == {declared.name: declared.default for declared in parameters.PARAMETERS}
    assert all(declared.problem(declared.default) is None for declared in parameters.PARAMETERS)


def test_rviz_shows_topics_that_exist():
    published = ''.join(path.read_text() for path in (ROOT / 'vggt_ros' / 'ros' / 'outputs').glob('*.py'))
    text = (ROOT / 'config' / 'vggt.rviz').read_text()
    topics = [
        display['Topic']['Value'].removeprefix('/vggt/')
        for display in yaml.safe_load(text)['Visualization Manager']['Displays']
        if 'Topic' in display
    ]
    assert len(topics) == 8
    for topic in topics:
        assert topic == '/image' or f"'~/{topic}'" in published, topic


TOOLS = pytest.mark.requires_ros('launch', 'launch_ros', 'ros2cli', 'ros2launch')
COMMAND = ['ros2', 'launch', 'vggt_ros', 'vggt.launch.py']
WITHOUT_RVIZ = pytest.mark.skipif('rviz2' in get_packages_with_prefixes(), reason='rviz2 is installed')


class Launched(Started):
    """``ros2 launch`` at work, in a group of its own: an interrupt reaches launch alone, which passes it on."""

    def __init__(self, *arguments: str, command: list[str] = COMMAND) -> None:
        super().__init__([*command, *arguments], start_new_session=True)

    @property
    def nodes(self) -> list[int]:
        """Process ids of the nodes it has started."""
        return [int(pid) for pid in re.findall(r'process started with pid \[(\d+)\]', self.text)]

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(30)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        super().__exit__(*exc_info)


@pytest.fixture
def client():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('client', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown(context=context)


def values(client, node: str, *names: str) -> list:
    """Parameters of a node, as soon as it is there."""
    service = client.create_client(GetParameters, f'{node}/get_parameters')
    assert service.wait_for_service(60), f'{node} is not there'
    future = service.call_async(GetParameters.Request(names=names))
    assert wait_until(future.done)
    found = [
        Parameter.from_parameter_msg(ParameterMessage(name=name, value=value)).value
        for name, value in zip(names, future.result().values, strict=True)
    ]
    client.destroy_client(service)
    return [list(value) if isinstance(value, (list, tuple)) else value for value in found]


@pytest.fixture
def params_file(tmp_path):
    path = tmp_path / 'robot.yaml'
    told = {'weights': 'w.pt', 'device': 'cpu', 'tf_mode': 'full', 'base_frame': 'body', 'odom_frame': 'drift',
            'scale_sources': ['height'], 'camera_height': 1.5, 'image_transport': 'compressed', 'autostart': False,
            'use_sim_time': True, 'window': 5}  # fmt: skip
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': told}}))
    return path, told


@TOOLS
def test_what_the_file_says_holds_where_no_argument_says_otherwise(client, params_file):
    path, told = params_file
    with Launched(f'params_file:={path}'):
        assert values(client, '/vggt', *told) == list(told.values())
        assert values(client, '/vggt', 'stride', 'rectified') == [1, False]


@TOOLS
def test_arguments_alone_reach_the_node(client):
    given = {
        'autostart': False,
        'rectified': True,
        'mode': 'every_frame',
        'window': 6,
        'stride': 2,
        'calibration': 'required',
        'camera_height': 2.0,
        'metric_factor': 1.5,
        'map_frame': 'world',
        'camera_frame': 'eye',
        'scale_sources': ['height', 'fixed'],
        'weights': '10',
    }
    texts = given | {'camera_height': 2, 'scale_sources': 'height,fixed'}
    with Launched(*(f'{name}:={value}' for name, value in texts.items())):
        assert values(client, '/vggt', *given) == list(given.values())
        assert values(client, '/vggt', 'device', 'use_sim_time', 'tf_mode') == ['auto', False, 'camera']


@TOOLS
def test_arguments_win_over_the_file(client, params_file):
    path, told = params_file
    with Launched(f'params_file:={path}', 'window:=7', "weights:=''", 'use_sim_time:=false', 'scale_sources:=fixed'):
        expected = told | {'window': 7, 'weights': '', 'use_sim_time': False, 'scale_sources': ['fixed']}
        assert values(client, '/vggt', *expected) == list(expected.values())


@TOOLS
@pytest.mark.parametrize(
    ('argument', 'text'),
    [
        ('rectifeid:=true', 'there is no argument rectifeid; did you mean rectified?'),
        ('window:=ninety', "window: 'ninety' is not a whole number"),
        ('respawn:=perhaps', "respawn: 'perhaps' is not true or false"),
        ('params_file:=/nowhere.yaml', '/nowhere.yaml: '),
        pytest.param('rviz:=true', 'rviz:=true needs the package rviz2', marks=WITHOUT_RVIZ),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_before_anything_starts(argument, text):
    with Launched('autostart:=false', argument) as launched:
        assert launched.wait(60) != 0
        assert [line for line in launched.lines if text in line]
        assert not launched.nodes


@TOOLS
def test_launch_ends_as_its_node_did():
    with Launched('device:=nowhere') as launched:
        assert launched.wait(90) != 0, launched.text
        assert len(launched.nodes) == 1
        (last,) = [line for line in launched.lines if 'has ended with exit status 2' in line]
        assert 'vggt_node' in last


@TOOLS
def test_a_node_that_is_killed_comes_again_where_respawn_is_wanted(client):
    with Launched('autostart:=false', 'respawn:=true', 'window:=7') as launched:
        assert values(client, '/vggt', 'window') == [7]
        os.kill(launched.nodes[0], signal.SIGKILL)
        assert wait_until(lambda: len(launched.nodes) == 2, 60)
        state = client.create_client(GetState, '/vggt/get_state')

        def answers():
            """What DDS has not yet noticed to be dead does not."""
            future = state.call_async(GetState.Request())
            return wait_until(future.done, 3)

        assert wait_until(answers, 60)
        launched.interrupt()
        assert launched.wait(60) == 0, launched.text
        assert len(launched.nodes) == 2


TWO = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

def robot(name, **arguments):
    arguments |= {'namespace': name, 'map_frame': f'{name}/map', 'odom_frame': f'{name}/odom', 'autostart': 'false'}
    return GroupAction([IncludeLaunchDescription(AnyLaunchDescriptionSource(FILE), launch_arguments=arguments.items())])

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('speed', default_value='1'),
        robot('front', window='6', image='cam/image'),
        robot('rear', image='/shared/image'),
    ])
"""


@TOOLS
def test_two_nodes_on_one_machine_have_names_topics_and_frames_of_their_own(client, tmp_path):
    """Included by somebody's own launch file, whose arguments are not ours to judge."""
    path = tmp_path / 'two.launch.py'
    path.write_text(f'FILE = {str(ROOT / "launch" / "vggt.launch.py")!r}\n{TWO}')
    with Launched('speed:=3', command=['ros2', 'launch', str(path)]) as launched:
        assert values(client, '/front/vggt', 'window', 'map_frame', 'odom_frame') == [6, 'front/map', 'front/odom']
        assert values(client, '/rear/vggt', 'window', 'map_frame', 'odom_frame') == [8, 'rear/map', 'rear/odom']
        assert len(launched.nodes) == 2
        for name in ('front', 'rear'):
            assert wait_until(lambda name=name: client.count_publishers(f'/{name}/vggt/status') == 1)
        assert client.count_publishers('/vggt/status') == 0


@TOOLS
def test_launch_ends_in_an_active_node(client):
    with Launched('namespace:=front', 'image:=/cam/image_rect', 'device:=cpu') as launched:
        state = client.create_client(GetState, '/front/vggt/get_state')
        assert state.wait_for_service(60)

        def active():
            future = state.call_async(GetState.Request())
            return wait_until(future.done) and future.result().current_state.label == 'active'

        assert wait_until(active, 60), launched.text
        # Its services may be known before its name is.
        assert wait_until(lambda: ('vggt', '/front') in client.get_node_names_and_namespaces())
        subscribed = dict(client.get_subscriber_names_and_types_by_node('vggt', '/front'))
        assert subscribed['/cam/image_rect'] == ['sensor_msgs/msg/Image']
        published = dict(client.get_publisher_names_and_types_by_node('vggt', '/front'))
        assert published['/front/vggt/tracks'] == ['vggt_ros/msg/TrackArray']
        launched.interrupt()
        assert launched.wait(60) == 0
        assert 'process has finished cleanly' in launched.text


@TOOLS
def test_launch_documents_its_arguments():
    with Started([*COMMAND, '--show-args']) as shown:
        assert shown.wait(60) == 0
    topics = ('image', 'camera_info', 'second/image', 'second/camera_info')
    for argument in (*topics, 'namespace', 'params_file', 'rviz', 'use_sim_time', *parameters.BY_NAME):
        assert f"'{argument}':" in shown.text
