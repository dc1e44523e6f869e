"""Publishers as all outputs of the node have them: reliable, overridable by QoS parameters, asked before being fed."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

QUEUE = 10  # messages that wait in DDS for a late subscriber; their memory is held until the publisher goes


def image_queue(settings: dict[str, Any]) -> int:
    """The same for images of the camera's size, 33 MB each at 4K: live, those of one window and one more."""
    return QUEUE if settings['mode'] == 'every_frame' else min(settings['stride'] + 1, QUEUE)


class Publishers:
    """Makes publishers on a node, and destroys them all with ``close``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._all: list[Publisher] = []

    def add(self, kind: type, topic: str, queue: int = QUEUE, latched: bool = False) -> Publisher:
        """A new publisher. queue: its QoS depth. latched: who subscribes later gets the last message."""
        qos = QoSProfile(depth=1 if latched else queue)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        overriding = QoSOverridingOptions.with_default_policies()
        publisher = self._node.create_publisher(kind, topic, qos, qos_overriding_options=overriding)
        self._all.append(publisher)
        return publisher

    def close(self) -> None:
        """Destroy them."""
        for publisher in self._all:
            self._node.destroy_publisher(publisher)
        self._all.clear()


def wanted(publisher: Publisher) -> bool:
    """Whether anybody listens: nothing is computed for nobody."""
    return publisher.get_subscription_count() > 0
