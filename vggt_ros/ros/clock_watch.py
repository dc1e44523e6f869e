"""Whether the node's clock goes: with ``use_sim_time`` somebody else must make it go."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node

STILL = 5.0  # seconds after which a clock that stands is worth a word


class ClockWatch:
    """To be asked now and then."""

    def __init__(self, node: Node) -> None:
        self._clock: Any = node.get_clock()  # a ROSClock
        self._newest, self._changed = -1, time.monotonic()

    def problem(self) -> str:
        """Why the clock does not go, empty when it does or is the system's."""
        if not self._clock.ros_time_is_active:
            return ''
        stamp, now = self._clock.now().nanoseconds, time.monotonic()
        if stamp != self._newest:
            self._newest, self._changed = stamp, now
        still = now - self._changed
        if still < STILL:
            return ''
        if stamp == 0:
            return 'no /clock: use_sim_time is set, and nobody publishes it'
        return f'/clock has stood still for {still:.0f} s'
