"""The supervisor's view of the node: its status, its diagnostics, its services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String
from std_srvs.srv import Trigger

from vggt_ros.msg import Status
from vggt_ros.ros.outputs.publication import MAP_MEMORY
from vggt_ros.ros.soak.journal import Journal
from vggt_ros.srv import SaveMap
from vggt_ros.types import State

LEVELS = {
    DiagnosticStatus.OK: 'OK',
    DiagnosticStatus.WARN: 'WARN',
    DiagnosticStatus.ERROR: 'ERROR',
    DiagnosticStatus.STALE: 'STALE',
}
# Let messages come in for so many seconds at most, until something is true; whether it is. See ``Stage.wait``.
Wait = Callable[[float, Callable[[], bool]], bool]

INTERRUPTS = (KeyboardInterrupt, ExternalShutdownException)  # whichever comes first
WORKING = (State.TRACKING, State.STATIONARY, State.RELOCALIZED)


@dataclass(frozen=True)
class Work:
    """What the node has done over all its lives. epochs: how often its map has begun anew."""

    located: int = 0
    processed: int = 0
    refused: int = 0
    epochs: int = 0

    def since(self, before: Work) -> Work:
        """The difference."""
        return Work(
            self.located - before.located,
            self.processed - before.processed,
            self.refused - before.refused,
            self.epochs - before.epochs,
        )


class Watcher(Node):
    """Notes what the node says as ``STATE message`` (status) and ``LEVEL message`` (diagnostics).

    status: the newest, None before the first. work: see :class:`Work`. held: MiB of the map, by the node's own account.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__('watcher')
        self._journal = journal
        self.status: Status | None = None
        self.work, self.held = Work(), 0.0
        self._levels: dict[str, str] = {}
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(Status, '/vggt/status', self._on_status, latched)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._fault = self.create_publisher(String, '/vggt/fault', 10)
        self._asked = {
            name: self.create_client(kind, f'/vggt/{name}')
            for name, kind in {
                'change_state': ChangeState,
                'save_map': SaveMap,
                'pause': Trigger,
                'resume': Trigger,
            }.items()
        }

    def _on_status(self, message: Status) -> None:
        before, self.status = self.status, message

        def grown(name: str) -> int:
            new, old = getattr(message, name), 0 if before is None else getattr(before, name)
            return new - old if new >= old else new  # an activation counts from 0

        self.work = Work(
            self.work.located + grown('images_located'),
            self.work.processed + grown('images_processed'),
            self.work.refused + grown('images_refused'),
            self.work.epochs + grown('epoch'),
        )
        self._journal.note('status', f'{State(message.state).name} {message.message}')

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for one in message.status:
            if one.name.startswith('vggt'):
                self._levels[one.name] = LEVELS[one.level]
                self.held = next((float(pair.value) for pair in one.values if pair.key == MAP_MEMORY), self.held)
                self._journal.note('diagnostics', f'{LEVELS[one.level]} {one.message}')

    @property
    def well(self) -> bool:
        """Whether the node says that it is at work."""
        working = self.status is not None and State(self.status.state) in WORKING
        return working and 'ERROR' not in self._levels.values()

    def forget(self) -> None:
        """A new process speaks from now on."""
        self._levels.clear()
        self.status, self.held = None, 0.0

    def order(self, fault: str) -> None:
        """Tell the faulty node to fail."""
        self._fault.publish(String(data=fault))

    def change_state(self, transition: str, wait: Wait) -> bool:
        """Whether a transition of the lifecycle was made: 'configure', 'activate', 'deactivate' or 'cleanup'."""
        number = getattr(Transition, f'TRANSITION_{transition.upper()}')
        answer = self.call('change_state', wait, transition=Transition(id=number))
        return answer is not None and answer.success

    def call(self, name: str, wait: Wait, **fields: Any) -> Any:
        """Call a service of the node, 30 s at most; the answer, None without one. fields: of the request."""
        client = self._asked[name]
        if not wait(10.0, client.service_is_ready):
            self._journal.note('service', f'{name} is not there')
            return None
        future = client.call_async(client.srv_type.Request(**fields))  # type: ignore[attr-defined]
        if not wait(30.0, future.done):
            self._journal.note('service', f'{name} does not answer')
            return None
        answer = future.result()
        self._journal.note('service', f'{name} {answer.success} {getattr(answer, "message", "")}')
        return answer

    def listens(self, topic: str) -> bool:
        """Whether the node has subscribed to a topic."""
        return any(one.node_name == 'vggt' for one in self.get_subscriptions_info_by_topic(topic))


def spin(node: Node, seconds: float) -> None:
    """Let messages come in for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and rclpy.ok():
        rclpy.spin_once(node, timeout_sec=left)


@contextmanager
def on_the_graph() -> Iterator[None]:
    """From rclpy's beginning to its end, on the graph that the environment names by then."""
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()
