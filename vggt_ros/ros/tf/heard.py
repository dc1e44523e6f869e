"""What is said on /tf and /tf_static, for all who care."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from vggt_ros.ros.polled import Polled
from vggt_ros.ros.steady import steady_timer

PERIOD = 0.5  # s between looks where nobody asks
MOST = 20_000  # messages of /tf that wait to be read
DEPTH = 2000  # messages that wait in between: 4 kHz of them

# A serialized tf2_msgs/TFMessage, and whether it came on /tf_static.
Listener = Callable[[bytes, bool], None]


class Unread:
    """Messages of /tf that nobody has read yet, not older than ``seconds`` and at most MOST: cheap for an idle node.

    For one thread at a time.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, bytes]] = deque(maxlen=MOST)

    def add(self, raw: bytes) -> None:
        """Has come now."""
        now = monotonic()
        self._waiting.append((now, raw))
        while now - self._waiting[0][0] > self._seconds:
            self._waiting.popleft()

    def take(self) -> Iterator[tuple[float, bytes]]:
        """Each with the monotonic second at which it came, oldest first; they do not wait any more."""
        while self._waiting:
            yield self._waiting.popleft()

    def clear(self) -> None:
        """Forget them."""
        self._waiting.clear()


class Heard:
    """Listens while there are listeners; hands every message to all of them, when asked and twice a second.

    node: its executor spins. ``update`` may be called from any thread; listeners are called by one thread at a time.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        self._topics: tuple[Polled, Polled] | None = None
        self._latched: deque[bytes] = deque(maxlen=DEPTH)

    def listen(self, listener: Listener) -> None:
        """Hand it what is latched, and what comes from now on."""
        with self._lock:
            self._listeners.append(listener)
            for raw in self._latched:
                listener(raw, True)
            if self._topics is None:
                latched = QoSProfile(depth=DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
                self._topics = (
                    Polled(self._node, TFMessage, '/tf_static', latched),
                    Polled(self._node, TFMessage, '/tf', QoSProfile(depth=DEPTH)),
                )
                # In a group of its own: it must not keep results waiting.
                self._timer = steady_timer(self._node, PERIOD, self.update, MutuallyExclusiveCallbackGroup())

    def forget(self, listener: Listener) -> None:
        """Hand it nothing more; with the last listener the subscriptions go."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            if self._listeners or self._topics is None:
                return
            self._node.destroy_timer(self._timer)
            for polled in self._topics:
                polled.close()
            self._topics = None
            self._latched.clear()

    def update(self) -> None:
        """Hand over what has come by now."""
        with self._lock:
            if self._topics is None:
                return
            for polled, static in zip(self._topics, (True, False), strict=True):
                for raw in polled.take():
                    if static:
                        self._latched.append(raw)
                    for listener in self._listeners:
                        listener(raw, static)
