"""The watch on /tf and /tf_static that a frame which we place is placed by nobody else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic

from geometry_msgs.msg import TransformStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from tf2_msgs.msg import TFMessage

FORGET = 5.0  # seconds after which a frame that nobody else has placed on /tf any more is free again
_OWN = 256  # transforms of ours whose echo is waited for


class Parents:
    """A frame has one parent and one publisher (REP-105): a second one tears the tree or makes it flutter."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._static: dict[str, str] = {}
        self._moving: dict[str, tuple[str, float]] = {}
        self._own: OrderedDict[tuple, None] = OrderedDict()
        # Of its own: a busy /tf must not keep images and results waiting.
        group = MutuallyExclusiveCallbackGroup()
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._tf_static = node.create_subscription(
            TFMessage, '/tf_static', self._static_placed, latched, callback_group=group
        )
        self._tf = node.create_subscription(TFMessage, '/tf', self._placed, QoSProfile(depth=100), callback_group=group)

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._tf_static)
        self._node.destroy_subscription(self._tf)

    def sending(self, transforms: Iterable[TransformStamped]) -> None:
        """Say before they are sent which transforms are ours: /tf does not tell who sent what."""
        for transform in transforms:
            self._own[_content(transform)] = None
            if len(self._own) > _OWN:
                self._own.popitem(last=False)

    def conflict(self, child: str) -> str | None:
        """Who else places this frame, None when nobody does."""
        if child in self._static:
            return f'{child} already has the parent {self._static[child]} on {self._publishers(self._tf_static)}'
        parent, seen = self._moving.get(child, ('', -FORGET))
        if monotonic() - seen < FORGET:
            return f'{child} is already placed in {parent} on {self._publishers(self._tf)}'
        return None

    def _publishers(self, subscription: Subscription) -> str:
        """The topic and the other nodes that publish on it."""
        topic, own = subscription.topic_name, (self._node.get_namespace(), self._node.get_name())
        publishers = self._node.get_publishers_info_by_topic(topic)
        others = {(one.node_namespace, one.node_name) for one in publishers} - {own}
        names = sorted(f'{namespace.rstrip("/")}/{name}' for namespace, name in others)
        return f'{topic} (published by {" or ".join(names)})' if names else topic

    def _static_placed(self, message: TFMessage) -> None:
        self._static.update({one.child_frame_id: one.header.frame_id for one in message.transforms})

    def _placed(self, message: TFMessage) -> None:
        now = monotonic()
        for one in message.transforms:
            if _content(one) not in self._own:
                self._moving[one.child_frame_id] = one.header.frame_id, now


def _content(transform: TransformStamped) -> tuple:
    """All that it says. The stamp alone does not tell ours: who looks at the same images has the same stamps."""
    stamp, t, q = transform.header.stamp, transform.transform.translation, transform.transform.rotation
    names = transform.header.frame_id, transform.child_frame_id
    return (*names, stamp.sec, stamp.nanosec, t.x, t.y, t.z, q.x, q.y, q.z, q.w)
