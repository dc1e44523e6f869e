"""What /diagnostics says about the node, once a second."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.node import Node

from vggt_ros.ros.counters import Counts
from vggt_ros.ros.outputs.standing import Standing
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Scale, State


class Diagnostics:
    """One DiagnosticStatus for the images and one for the odometry; levels follow what happened recently."""

    def __init__(self, node: Node, problems: Problems) -> None:
        self._node = node
        self._problems = problems
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._received = 0
        self._last_time = time.monotonic()

    def publish(self, standing: Standing, counts: Counts, scale: Scale, details: dict[str, str]) -> None:
        """details: what else is worth knowing."""
        array = DiagnosticArray()
        now = self._node.get_clock().now()
        # Simulated time is zero until the first /clock: monitors would take the message for years old.
        array.header.stamp = (now if now.nanoseconds else Clock().now()).to_msg()
        array.status = [self._images(standing, counts), self._odometry(standing, counts, scale, details)]
        self._publisher.publish(array)

    def _images(self, standing: Standing, counts: Counts) -> DiagnosticStatus:
        now = time.monotonic()
        rate = max(counts.received - self._received, 0) / max(now - self._last_time, 1e-3)
        self._received, self._last_time = counts.received, now
        level, message = DiagnosticStatus.OK, 'images arrive'
        if standing.state is State.INACTIVE:
            message = 'the node is not active'
        if present := self._problems.present():
            level, message = DiagnosticStatus.WARN, '; '.join(present)
        if standing.silence:
            level, message = DiagnosticStatus.ERROR, standing.silence
            self._problems.report('silence', standing.silence)
        values = {'rate [Hz]': f'{rate:.1f}', 'received': counts.received, 'dropped': counts.dropped}
        values |= {f'problem: {kind}': count for kind, count in self._problems.counts().items()}
        return self._status('images', level, message, values)

    def _odometry(self, standing: Standing, counts: Counts, scale: Scale, details: dict[str, str]) -> DiagnosticStatus:
        level = DiagnosticStatus.OK
        if standing.state in (State.DEGRADED, State.LOST):
            level = DiagnosticStatus.WARN
        if standing.failed:
            level = DiagnosticStatus.ERROR
        values = {
            'scale': scale.name,
            'windows': counts.windows,
            'rate [Hz]': f'{counts.rate:.2f}',
            'latency [s]': f'{counts.latency:.3f}',
            'images processed': counts.processed,
            **details,
        }
        message = ': '.join(filter(None, (standing.state.name, standing.message)))
        return self._status('odometry', level, message, values)

    def _status(self, name: str, level: bytes, message: str, values: dict) -> DiagnosticStatus:
        full_name = self._node.get_fully_qualified_name()
        return DiagnosticStatus(
            level=level,
            name=f'{full_name.lstrip("/")}: {name}',
            hardware_id=full_name,
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
