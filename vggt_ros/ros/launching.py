"""What the launch file hands to the node and to RViz. Without the launch packages: the file itself has the actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vggt_ros.ros.messages import frame_name
from vggt_ros.ros.parameter_files import values_for
from vggt_ros.ros.parameters import PARAMETERS, Declared, OptionError
from vggt_ros.ros.settings import nearest

LOG_LEVELS = ('debug', 'info', 'warn', 'error', 'fatal')
NOT_GIVEN = 'as params_file'  # default of arguments that are parameters: then the file has its say, else the table
SIM_TIME = Declared('use_sim_time', False, 'time from /clock; image stamps are used as they come either way')
TOPICS = {
    'image': "the camera's image topic; image/compressed is taken beside it with image_transport:=compressed",
    'camera_info': "the camera's calibration topic",
    'depth_registered': 'depth image registered to the camera, for scale source depth',
    'imu': 'IMU that tells which way is down',
    'second/image': 'second camera, for scale source baseline; second/image/compressed is taken beside it',
    'second/camera_info': "the second camera's calibration topic",
}
_PARAMETERS = (*PARAMETERS, SIM_TIME)


def parameter_arguments() -> list[tuple[str, str]]:
    """Every parameter as a launch argument: its name and description."""
    arguments = []
    for one in _PARAMETERS:
        notes = [one.unit, f'{one.range[0]} to {one.range[1]}' if one.range else '', ' | '.join(one.choices)]
        allowed = ', '.join(note for note in notes if note)
        text = f'{one.description} [{allowed}]' if allowed else one.description
        arguments.append((one.name, f'{text}; built in: {one.default!r}'))
    return arguments


def given_parameters(arguments: Mapping[str, str]) -> dict[str, Any]:
    """The parameters among a launch's arguments that were given, as the types that they have. Raises OptionError."""
    given = [one for one in _PARAMETERS if arguments.get(one.name, NOT_GIVEN) != NOT_GIVEN]
    return {one.name: one.parse(arguments[one.name]) for one in given}


def flag(arguments: Mapping[str, str], name: str) -> bool:
    """An argument of the launch itself that is true or false. Raises OptionError."""
    return bool(Declared(name, False, '').parse(arguments[name]))


def log_level(arguments: Mapping[str, str]) -> str:
    """The argument log_level: a level, or LOGGER:=LEVEL. Raises OptionError."""
    given = arguments['log_level']
    level = given.rpartition(':=')[2].lower()
    if level not in LOG_LEVELS:
        raise OptionError(f'log_level: {given!r} is not one of {", ".join(LOG_LEVELS)}')
    return given


def refuse_unknown(words: Iterable[str], known: Iterable[str]) -> None:
    """``ros2 launch`` takes any NAME:=VALUE. Raises OptionError for one that is not ``known``, naming the nearest."""
    known = list(known)
    for word in words:
        name, given, _ = word.partition(':=')
        if given and name not in known:
            raise OptionError(f'there is no argument {name}{nearest(name, known)}')


def effective(params_file: str, node: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the node with this full name will have: given, else from the file, else built in.

    Raises ParameterFileError.
    """
    told = values_for(Path(params_file), node) if params_file else {}
    return {one.name: given.get(one.name, told.get(one.name, one.default)) for one in _PARAMETERS}


def resolve(topic: str, namespace: str) -> str:
    """The full name of a topic or node as seen from a namespace."""
    return topic if topic.startswith('/') else '/' + '/'.join(part for part in (namespace.strip('/'), topic) if part)


def rviz_config(template: str, node: str, image: str, settings: Mapping[str, Any]) -> str:
    """The text of an RViz configuration for this node, from one for /vggt and /image in the frame map.

    node, image: full names. settings: the node's parameters by name.
    """
    config = yaml.safe_load(template)
    manager = config['Visualization Manager']
    manager['Global Options']['Fixed Frame'] = frame_name(settings['map_frame'])
    picture = f'{image}/compressed' if settings['image_transport'] == 'compressed' else image
    for display in manager['Displays']:
        if 'Topic' in display:
            topic = display['Topic']
            topic['Value'] = picture if topic['Value'] == '/image' else topic['Value'].replace('/vggt', node, 1)
    return yaml.safe_dump(config, sort_keys=False)


def save_seconds(settings: Mapping[str, Any]) -> float:
    """How long the node may take to save its map at the end."""
    return float(settings['save_timeout']) if settings['save_map'] else 0.0
