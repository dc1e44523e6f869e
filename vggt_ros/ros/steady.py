"""Timers by a clock that nothing of the robot can stop or set."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer


def steady_timer(node: Node, seconds: float, call: Callable[[], None], group: CallbackGroup | None = None) -> Timer:
    """A timer of the node that ticks without /clock, too, and through every change of the system's time."""
    return node.create_timer(seconds, call, group, Clock(clock_type=ClockType.STEADY_TIME))
