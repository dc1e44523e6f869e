"""Camera in; TF, depth, clouds, map and tracks out. ``ros2 launch vggt_ros vggt.launch.py --show-args`` tells more.

Every parameter of the node is an argument. One that is given wins over params_file, and that over what is built in;
"weights:=''" gives an empty one.
The node activates itself (parameter ``autostart``); ``autostart:=false`` leaves that to a lifecycle manager.
"""

import os
import sys
import tempfile
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix, get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnShutdown
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from vggt_ros.ros import launching

SHARE = Path(get_package_share_directory('vggt_ros'))
# The variable's names before and since Kilted; other middlewares do not read them.
FAST_DDS_PROFILES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
KILL_AFTER = 5.0  # seconds between the interrupt and the next signal, launch's own default

ARGUMENTS = {
    'namespace': ('', 'namespace of the node and of relative topics'),
    'name': ('vggt', 'name of the node; its outputs are <namespace>/<name>/...'),
    'params_file': ('', 'YAML file of parameters such as config/vggt.yaml; arguments that are given override it'),
    'rviz': ('false', 'open RViz with config/vggt.rviz, on the topics and frame of these arguments'),
    'respawn': ('false', 'start the node again, two seconds after it has ended by itself'),
    'log_level': ('info', ', '.join(launching.LOG_LEVELS) + '; or of one logger, as vggt:=debug'),
}


def declare() -> list[DeclareLaunchArgument]:
    """The arguments: those of the launch, the topics, and every parameter of the node."""
    arguments = [(name, default, text) for name, (default, text) in ARGUMENTS.items()]
    arguments += [(topic, topic, text) for topic, text in launching.TOPICS.items()]
    arguments += [(name, launching.NOT_GIVEN, text) for name, text in launching.parameter_arguments()]
    return [DeclareLaunchArgument(name, default_value=default, description=text) for name, default, text in arguments]


def large_shared_memory() -> dict[str, str]:
    """Environment of the node: shared memory that holds its images (config/fastdds.xml), unless a profile is set."""
    if any(name in os.environ for name in FAST_DDS_PROFILES):
        return {}
    return dict.fromkeys(FAST_DDS_PROFILES, str(SHARE / 'config' / 'fastdds.xml'))


def launched_directly() -> bool:
    """Whether this file is what the command line starts; else its arguments are those of the file that includes us."""
    words = [Path(word) for word in sys.argv]
    named = {'vggt_ros', Path(__file__).name} <= {str(word) for word in words}
    return named or any(word.is_file() and word.samefile(__file__) for word in words)


def has_ended(event: ProcessExited, context: LaunchContext) -> None:
    """Raise RuntimeError for a node that has ended by itself with an error: launch ends, too, and not with status 0."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f'{event.process_name} has ended with exit status {event.returncode}, for the reason above')


def nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """One lifecycle node, and RViz if wanted. Raises ValueError with one line for arguments that are not allowed."""
    directly = launched_directly()
    if directly:
        launching.refuse_unknown(context.argv, [argument.name for argument in declare()])
    arguments = context.launch_configurations
    given = launching.given_parameters(arguments)
    namespace, params_file = arguments['namespace'], arguments['params_file']
    name = launching.resolve(arguments['name'], namespace)
    settings = launching.effective(params_file, name, given)
    typed = {
        one: ParameterValue(value, value_type=list[str] if isinstance(value, list) else type(value))
        for one, value in given.items()
    }
    remappings = [(topic, arguments[topic]) for topic in launching.TOPICS]
    remappings += [(f'{topic}/compressed', f'{arguments[topic]}/compressed') for topic in ('image', 'second/image')]
    with_rviz, respawn = launching.flag(arguments, 'rviz'), launching.flag(arguments, 'respawn')
    if with_rviz:
        try:
            get_package_prefix('rviz2')
        except PackageNotFoundError as error:  # found out by launch itself it would leave our node without a parent
            raise ValueError('rviz:=true needs the package rviz2, which is not here') from error
    vggt = LifecycleNode(
        package='vggt_ros',
        executable='vggt_node',
        name=arguments['name'],
        namespace=namespace,
        parameters=[*([params_file] if params_file else []), *([typed] if typed else [])],
        remappings=remappings,
        arguments=['--ros-args', '--log-level', launching.log_level(arguments)],
        additional_env=large_shared_memory(),
        output='screen',
        emulate_tty=True,
        respawn=respawn,
        respawn_delay=2.0,
        sigterm_timeout=str(KILL_AFTER + launching.save_seconds(settings)),
    )
    entities = [vggt]
    if directly and not respawn:
        entities.append(RegisterEventHandler(OnProcessExit(target_action=vggt, on_exit=has_ended)))
    if not with_rviz:
        return entities
    template = (SHARE / 'config' / 'vggt.rviz').read_text()
    image = launching.resolve(arguments['image'], namespace)
    with tempfile.NamedTemporaryFile('w', prefix='vggt_', suffix='.rviz', delete=False) as config:
        config.write(launching.rviz_config(template, name, image, settings))
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', config.name],
        parameters=[{'use_sim_time': settings['use_sim_time']}],
    )
    written = Path(config.name)
    forget = RegisterEventHandler(OnShutdown(on_shutdown=lambda *_: written.unlink(missing_ok=True)))
    return [*entities, rviz, forget]


def generate_launch_description() -> LaunchDescription:
    """The arguments, and what is made of them."""
    return LaunchDescription([*declare(), OpaqueFunction(function=nodes)])
