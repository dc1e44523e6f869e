"""What /diagnostics says about the node, once a second."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from vggt_ros.ros.counters import Counts
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Scale, State

SILENCE = 5.0  # seconds without an image after which a hint names the topics


class Diagnostics:
    """One DiagnosticStatus for the images and one for the odometry; levels follow what happened recently."""

    def __init__(self, node: Node, problems: Problems) -> None:
        self._node = node
        self._problems = problems
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._received = 0
        self._last_time = time.monotonic()
        self._last_image = self._last_time

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def publish(
        self,
        counts: Counts,
        topics: list[str],
        state: State,
        scale: Scale,
        failure: str,
        details: dict[str, str],
    ) -> None:
        """topics: the subscribed input topics. failure: why the node cannot work at all, empty when it can."""
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [self._images(counts, topics), self._odometry(counts, state, scale, failure, details)]
        self._publisher.publish(array)

    def _images(self, counts: Counts, topics: list[str]) -> DiagnosticStatus:
        now = time.monotonic()
        rate = (counts.received - self._received) / max(now - self._last_time, 1e-3)
        if counts.received != self._received or counts.waiting:
            self._last_image = now
        self._received, self._last_time = counts.received, now
        level, message = DiagnosticStatus.OK, 'images arrive'
        silent = now - self._last_image
        if state_problems := self._problems.present():
            level, message = DiagnosticStatus.WARN, '; '.join(state_problems)
        if topics and silent > SILENCE:
            hint = f'no image for {silent:.0f} s on {" or ".join(topics)}: is it published, with a matching QoS?'
            level, message = DiagnosticStatus.ERROR, hint
            self._problems.report('silence', hint)
        values = {'rate [Hz]': f'{rate:.1f}', 'received': counts.received, 'dropped': counts.dropped}
        values |= {f'problem: {kind}': count for kind, count in self._problems.counts().items()}
        return self._status('images', level, message, values)

    def _odometry(
        self, counts: Counts, state: State, scale: Scale, failure: str, details: dict[str, str]
    ) -> DiagnosticStatus:
        level = DiagnosticStatus.OK
        if state in (State.DEGRADED, State.LOST):
            level = DiagnosticStatus.WARN
        if failure:
            level = DiagnosticStatus.ERROR
        values = {
            'scale': scale.name,
            'windows': counts.windows,
            'rate [Hz]': f'{counts.rate:.2f}',
            'latency [s]': f'{counts.latency:.3f}',
            'images processed': counts.processed,
            **details,
        }
        return self._status('odometry', level, failure or state.name, values)

    def _status(self, name: str, level: bytes, message: str, values: dict) -> DiagnosticStatus:
        full_name = self._node.get_fully_qualified_name()
        return DiagnosticStatus(
            level=level,
            name=f'{full_name.lstrip("/")}: {name}',
            hardware_id=full_name,
            message=message,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
