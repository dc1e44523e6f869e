"""Camera in; TF, depth, clouds, map and tracks out. ``ros2 launch vggt_ros vggt.launch.py --show-args`` tells more.

The node activates itself (parameter ``autostart``); ``autostart:=false`` leaves that to a lifecycle manager.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory('vggt_ros'))
# The variable's names before and since Kilted; other middlewares do not read them.
FAST_DDS_PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

ARGUMENTS = {
    'image': (
        'image',
        "the camera's image topic; image/compressed is taken beside it with image_transport:=compressed",
    ),
    'camera_info': ('camera_info', "the camera's calibration topic"),
    'image_transport': ('raw', 'raw or compressed'),
    'namespace': ('', 'namespace of the node and of relative topics'),
    'name': ('vggt', 'name of the node; its outputs are <namespace>/<name>/...'),
    'params_file': (str(SHARE / 'config' / 'vggt.yaml'), 'YAML file of parameters; the arguments below override it'),
    'weights': ('', 'checkpoint file or hub id such as facebook/VGGT-1B; empty: the embedded network'),
    'device': ('auto', 'auto, cpu, cuda, cuda:1, ...'),
    'tf_mode': ('camera', 'camera, odom, map, full or none: which transforms are broadcast, see docs/guides/frames.md'),
    'odom_frame': ('odom', 'frame in which the robot moves without jumps'),
    'base_frame': ('', "root of the robot's own frames (base_footprint, base_link); empty: the camera itself"),
    'scale_sources': (
        "['']",
        "who knows metres, a list: ['depth'], ['odometry', 'height'], ..., see docs/guides/scale.md",
    ),
    'depth_registered': ('depth_registered', 'depth image registered to the camera, for scale source depth'),
    'imu': ('imu', 'IMU that tells which way is down'),
    'autostart': ('true', 'configure and activate at start'),
    'use_sim_time': ('false', 'time from /clock; image stamps are used as they come either way'),
    'rviz': ('false', 'open RViz with config/vggt.rviz'),
    'log_level': ('info', 'debug, info, warn, error'),
}
# Launch arguments that are parameters of the node under the same name.
PARAMETERS = {
    'image_transport': str,
    'weights': str,
    'device': str,
    'tf_mode': str,
    'odom_frame': str,
    'base_frame': str,
    'scale_sources': list[str],
    'autostart': bool,
    'use_sim_time': bool,
}


def large_shared_memory() -> dict[str, str]:
    """Environment of the node: shared memory that holds its images (config/fastdds.xml), unless a profile is set."""
    if any(name in os.environ for name in FAST_DDS_PROFILES):
        return {}
    return dict.fromkeys(FAST_DDS_PROFILES, str(SHARE / 'config' / 'fastdds.xml'))


def generate_launch_description() -> LaunchDescription:
    """One lifecycle node, and RViz if wanted."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    overrides = {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind in PARAMETERS.items()}
    image, camera_info = LaunchConfiguration('image'), LaunchConfiguration('camera_info')
    vggt = LifecycleNode(
        package='vggt_ros',
        executable='vggt_node',
        name=LaunchConfiguration('name'),
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file'), overrides],
        remappings=[
            ('image', image),
            ('image/compressed', PathJoinSubstitution([image, 'compressed'])),
            ('camera_info', camera_info),
            *((topic, LaunchConfiguration(topic)) for topic in ('depth_registered', 'imu')),
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        additional_env=large_shared_memory(),
        output='screen',
        emulate_tty=True,
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', str(SHARE / 'config' / 'vggt.rviz')],
        parameters=[{'use_sim_time': overrides['use_sim_time']}],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*declared, vggt, rviz])
