"""Subscriptions that wake nobody: what comes waits in the middleware until it is asked for."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription, SubscriptionEventCallbacks  # there in Humble, too

from vggt_ros.ros.cdr import CdrError, deserialize, kind_of


class Polled:
    """A subscription whose messages are taken in bulk, as serialized bytes; the newest ``qos.depth`` of them wait.

    rclpy's executors build a new wait set whenever one message of any topic comes, which costs milliseconds: at 200 Hz
    most of a core, whatever the callback does. They leave out what its callback group does not let run, in every
    supported version, and ``take_message`` of the handle is what they call themselves.
    kind: message class. qos: with keep-last history. All methods may be called from any thread.
    """

    def __init__(self, node: Node, kind: type, topic: str, qos: QoSProfile, *, overridable: bool = False) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._subscription: Subscription | None = node.create_subscription(
            kind,
            topic,
            _never_called,
            qos,
            callback_group=_Unwatched(),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            raw=True,
            qos_overriding_options=QoSOverridingOptions.with_default_policies() if overridable else None,
        )
        self.topic = self._subscription.topic_name

    def take(self) -> list[bytes]:
        """What has come since the last call, in the order in which it came."""
        taken: list[bytes] = []
        with self._lock:
            subscription = self._subscription
            if subscription is None:
                return taken
            with subscription.handle:
                # No more than what waited at first or so: a storm must not hold the caller.
                for _ in range(subscription.qos_profile.depth):
                    message = subscription.handle.take_message(subscription.msg_type, True)
                    if message is None:
                        break
                    taken.append(message[0])
        return taken

    def close(self) -> None:
        """Unsubscribe; nothing comes any more."""
        with self._lock:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self._subscription = None


class _Unwatched(MutuallyExclusiveCallbackGroup):
    """Keeps a subscription out of the wait set.

    There are no events either (of incompatible QoS, by default): in Fast DDS they share the condition of new messages,
    so that a wait set with them would wake for every message, and at once again as long as one is not taken.
    """

    def can_execute(self, entity: Any) -> bool:
        return False


def _never_called(message: bytes) -> None:
    raise AssertionError('an executor ran a subscription that it must not watch')


def read(raw: bytes, kind: type) -> Any:
    """A serialized message of a common interface; rclpy reads what rosbags cannot, other representations than CDR."""
    try:
        return deserialize(raw, kind_of(kind))
    except CdrError:
        return deserialize_message(raw, kind)
