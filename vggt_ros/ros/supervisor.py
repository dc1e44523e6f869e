"""Who brings the node to work, and back to work when something failed that nobody understands (``autostart``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.node import Node
from rclpy.qos import InvalidQoSProfileException
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.timer import Timer

from vggt_ros.ros.steady import steady_timer

PAUSES = (1.0, 60.0)  # seconds before the second attempt; doubled for every further one, up to
ATTEMPTS = 5  # attempts that end in something that nobody understands
LAST_WORDS = 3.0  # seconds for which the status and /diagnostics say why, before the process ends
PROVEN = 100  # windows after which a start has been a success, and pauses begin anew

# What rclpy raises for parameters, QoS overrides and names that cannot be.
_MISCONFIGURED = (ParameterException, InvalidQosOverridesError, InvalidQoSProfileException, NameValidationException)


def is_misconfigured(error: Exception) -> bool:
    """Whether rclpy means that the user's parameters cannot be."""
    return isinstance(error, _MISCONFIGURED)


class Refusal(Exception):
    """The node is not at work; the text says why. passing: another attempt may go well. understood: by us."""

    def __init__(self, text: str, passing: bool, understood: bool = True) -> None:
        super().__init__(text)
        self.passing, self.understood = passing, understood


class Supervised(Protocol):
    """What is brought to work."""

    def bring_up(self) -> None:
        """Configure and activate. Raises Refusal."""
        ...


class Supervisor:
    """Attempts with growing pauses, until one goes well or no further one can.

    node: has the timers, in its default callback group: transitions and attempts exclude one another. end: called with
    the exit status of the process when there is nothing more to try: 2 for what the user must change, 1 for a failure.
    """

    def __init__(self, node: Node, supervised: Supervised, end: Callable[[int], None]) -> None:
        self._node, self._supervised, self._end = node, supervised, end
        self._timer: Timer | None = None
        self._pause = PAUSES[0]
        self._misunderstood = 0
        self._recovering = False

    def start(self) -> None:
        """The first attempt, as soon as the executor spins."""
        self._after(0.0, self._attempt)

    def recover(self, windows: int) -> None:
        """Begin anew after a failure; everything has been given back. windows: solved since the start before."""
        if windows >= PROVEN:
            self._pause = PAUSES[0]
        self._recovering = True
        self._try_again()

    def _try_again(self) -> None:
        self._node.get_logger().info(f'trying again in {self._pause:.0f} s')
        self._after(self._pause, self._attempt)
        self._pause = min(2 * self._pause, PAUSES[1])

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once; an executor may tick once more than the timer lives."""

        def once() -> None:
            timer, self._timer = self._timer, None
            if timer is not None:
                self._node.destroy_timer(timer)
                call()

        self._timer = steady_timer(self._node, seconds, once)

    def _attempt(self) -> None:
        try:
            self._supervised.bring_up()
        except Refusal as refusal:
            if not self._node.context.ok():
                return
            self._misunderstood += not refusal.understood
            # A device that failed under this process is given back to a new one only.
            if self._recovering or not refusal.passing or self._misunderstood >= ATTEMPTS:
                self._node.get_logger().fatal(f'the node ends: {refusal}')
                failed = self._recovering or not refusal.understood
                status = 1 if failed or refusal.passing else 2
                self._after(LAST_WORDS, lambda: self._end(status))
            else:
                self._try_again()
        else:
            self._recovering, self._misunderstood = False, 0
