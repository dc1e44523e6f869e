"""The node's parameters by name: declared, changed while it runs, and refused where they do not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, ReliabilityPolicy

from vggt_ros.ros.inputs.subscriptions import AS_OFFERED
from vggt_ros.ros.messages import frame_name
from vggt_ros.ros.parameter_files import shared_names, silent_files
from vggt_ros.ros.parameters import BY_NAME, PARAMETERS, LoadError, OptionError

# What may be overridden of the QoS of a topic, and by which words; depth by a number.
_POLICIES = {'history': tuple(HistoryPolicy.__members__), 'reliability': (*ReliabilityPolicy.__members__, AS_OFFERED)}


def nearest(name: str, names: Iterable[str]) -> str:
    """'; did you mean NAME?' for a name that is none of ``names``, where one of them is like it."""
    like = get_close_matches(name, list(names), n=1)
    return f'; did you mean {like[0]}?' if like else ''


def declare(node: Node, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Declare the whole table; the values by name, which :func:`change` keeps true.

    Raises OptionError with the allowed values when an override breaks its own range.
    A value for a parameter that does not exist is refused, too, since rclpy ignores it. Only where it comes from a
    wildcard section of a file, which other nodes may share ('/**'), it is a warning. arguments: the command line.
    """
    unknown = [name for name in node._parameter_overrides if name not in BY_NAME and not _of_rclpy(node, name)]
    shared = shared_names(arguments)
    for name in unknown:
        text = f'there is no parameter {name}{nearest(name, BY_NAME)}'
        if name not in shared:
            raise OptionError(text)
        node.get_logger().warning(f'{text} (from a section for several nodes of a parameter file)')
    for path, addressed in silent_files(arguments, node.get_fully_qualified_name()).items():
        others = f'but {", ".join(addressed)}' if addressed else 'nor anybody else'
        node.get_logger().warning(f'{path} does not speak to {node.get_fully_qualified_name()}, {others}')
    settings = {}
    for parameter in PARAMETERS:
        # rclpy knows ranges, not choices.
        value = node.declare_parameter(parameter.name, parameter.default, parameter.descriptor).value
        problem = parameter.problem(value)
        if problem:
            raise OptionError(problem)
        settings[parameter.name] = _as_used(parameter.name, value)
    return settings


def check_overrides(node: Node) -> None:
    """Refuse values of QoS overrides before the network is loaded. Raises LoadError."""
    for name, override in node._parameter_overrides.items():
        if not name.startswith('qos_overrides.'):
            continue
        policy, value = name.rpartition('.')[2], override.value
        if policy == 'depth' and (type(value) is not int or value < 0):
            raise LoadError(f'{name} is {value!r}; it must be a number of messages')
        words = [word.lower() for word in _POLICIES.get(policy, ()) if word != 'UNKNOWN']
        if words and (not isinstance(value, str) or value.lower() not in words):
            raise LoadError(f'{name} is {value!r}; it must be one of {", ".join(words)}')


def doubt_overrides(node: Node) -> None:
    """Warn of QoS overrides that nothing has asked for, once everything is offered and subscribed to."""
    for name in node._parameter_overrides:
        if name.startswith('qos_overrides.') and not node.has_parameter(name):
            text = f'{name} has no effect: there is no such topic here, or no such policy to override'
            node.get_logger().warning(text)


def _as_used(name: str, value: Any) -> Any:
    return frame_name(value) if name.endswith('_frame') else value


def _of_rclpy(node: Node, name: str) -> bool:
    return node.has_parameter(name) or name.startswith('qos_overrides.') or name == 'start_type_description_service'


def change(settings: dict[str, Any], changes: Sequence[Parameter], configured: bool) -> str | None:
    """Why these changes must be refused; None when they may happen: then ``settings`` has them.

    Whoever holds ``settings`` reads what is not structural anew at each use, so that it takes effect there and then.
    """
    new = {}
    for one in changes:
        parameter = BY_NAME.get(one.name)
        if parameter is None:
            continue  # use_sim_time, QoS overrides: not ours
        if parameter.structural and configured:
            return f'{one.name} is fixed while the node is configured: deactivate and clean up first'
        problem = parameter.problem(one.value)
        if problem:
            return problem
        new[one.name] = _as_used(one.name, one.value)
    near, far = (new.get(name, settings[name]) for name in ('depth_near', 'depth_far'))
    if near >= far and not new.keys().isdisjoint(('depth_near', 'depth_far')):
        return f'depth images are believed from depth_near to depth_far: {near} < {far} does not hold'
    settings.update(new)
    return None
