"""What every subscription to a sensor has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription


class Subscriptions:
    """Subscriptions that come and go together.

    Best effort meets every driver; a bag that must be seen whole (mode every_frame) is asked for reliably.
    settings: the node's parameters by name.
    """

    def __init__(self, node: Node, settings: dict[str, Any]) -> None:
        self._node = node
        self._every_frame = settings['mode'] == 'every_frame'
        self._queue_size = settings['queue_size']
        self._subscriptions: list[Subscription] = []

    def add(
        self, kind: type, topic: str, callback: Callable[[Any], None], depth: int, group: CallbackGroup | None
    ) -> None:
        """Subscribe to a relative topic. depth: messages that wait for the callback in live mode."""
        qos = QoSProfile(
            depth=max(depth, self._queue_size) if self._every_frame else depth,
            reliability=ReliabilityPolicy.RELIABLE if self._every_frame else ReliabilityPolicy.BEST_EFFORT,
        )
        overrides = QoSOverridingOptions.with_default_policies()
        self._subscriptions.append(
            self._node.create_subscription(
                kind, topic, callback, qos, callback_group=group, qos_overriding_options=overrides
            )
        )

    def close(self) -> None:
        """Unsubscribe from everything."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())
