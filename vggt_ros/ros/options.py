"""Parameters of the commands (player, recorder): read once at start, fixed from then on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.exceptions import ParameterException
from rclpy.node import Node

from vggt_ros.ros.parameters import Declared


class OptionError(ValueError):
    """A parameter that is missing or not allowed; the text says what is."""


def declare_options(node: Node, table: Sequence[Declared]) -> dict[str, Any]:
    """Declare a table of parameters as read-only; their values by name. Raises OptionError."""
    values = {}
    for option in table:
        descriptor = option.descriptor
        descriptor.read_only, descriptor.additional_constraints = True, ''
        try:
            values[option.name] = node.declare_parameter(option.name, option.default, descriptor).value
        except ParameterException as error:
            raise OptionError(str(error)) from error
    return values
