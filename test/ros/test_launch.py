"""The launch file on the real launch: it ends in an active node that answers."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from harness import wait_until
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


def run(*words: str, timeout: float = 60) -> str:
    """Output of a ros2 command."""
    result = subprocess.run(['ros2', *words], capture_output=True, text=True, timeout=timeout, check=False)
    return result.stdout + result.stderr


@pytest.mark.requires_ros('launch', 'launch_ros', 'ros2cli', 'ros2launch')
def test_launch_ends_in_an_active_node(tmp_path):
    log = (tmp_path / 'launch.log').open('w')
    command = [
        'ros2',
        'launch',
        'vggt_ros',
        'vggt.launch.py',
        'namespace:=front',
        'image:=/cam/image_rect',
        'device:=cpu',
    ]
    # A group of its own, so that the interrupt reaches launch alone, as it passes it on to the node itself.
    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ)
    try:
        assert wait_until(lambda: 'active' in run('lifecycle', 'get', '/front/vggt', '--no-daemon'), 60)
        information = run('node', 'info', '/front/vggt', '--no-daemon', '--spin-time', '3')
        assert '/cam/image_rect: sensor_msgs/msg/Image' in information
        assert '/front/vggt/tracks: vggt_ros/msg/TrackArray' in information
        assert '[INFO]' in (tmp_path / 'launch.log').read_text()
    finally:
        process.send_signal(2)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is None:
            os.killpg(process.pid, 9)
    assert 'process has finished cleanly' in (tmp_path / 'launch.log').read_text()
    assert process.returncode == 0


@pytest.mark.requires_ros('launch', 'launch_ros', 'ros2cli', 'ros2launch')
def test_launch_documents_its_arguments():
    text = run('launch', 'vggt_ros', 'vggt.launch.py', '--show-args')
    for argument in ('image', 'camera_info', 'namespace', 'params_file', 'weights', 'device', 'rviz', 'use_sim_time'):
        assert f"'{argument}':" in text
