"""The latched topic ``~/status``, from the node's construction to its end."""

from __future__ import annotations

import threading

from rclpy.node import Node

from vggt_ros.msg import Status
from vggt_ros.ros import messages
from vggt_ros.ros.counters import Counts
from vggt_ros.ros.outputs.publishers import Publishers
from vggt_ros.ros.outputs.standing import Standing
from vggt_ros.types import Frame, Scale


class StatusOutput:
    """Says how things stand whenever it is something new; may be called by any thread of the executor."""

    def __init__(self, node: Node) -> None:
        self._publisher = Publishers(node).add(Status, '~/status', latched=True)
        self._lock = threading.Lock()
        self._last: tuple = ()

    def say(self, standing: Standing, scale: Scale, epoch: int, latest: Frame | None, counts: Counts) -> None:
        """latest: the newest image that was looked at."""
        counters = (counts.received, counts.located, counts.processed, counts.dropped, counts.refused)
        with self._lock:
            key = (standing.state, scale, epoch, standing.message, counters)
            if key == self._last:
                return
            self._last = key
            message = Status(epoch=epoch, state=int(standing.state), scale=int(scale), message=standing.message)
            if latest is not None:
                message.header = messages.header_of(latest)
            (
                message.images_received,
                message.images_located,
                message.images_processed,
                message.images_dropped,
                message.images_refused,
            ) = counters
            message.window_latency, message.rate = float(counts.latency), float(counts.rate)
            self._publisher.publish(message)
