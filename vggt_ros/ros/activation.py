"""What lives from activate to deactivate: subscriptions, threads, and the walls between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo

from vggt_ros.pipeline import Pipeline
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import FrameMaker, Incoming
from vggt_ros.ros.inputs.intake import ImageInput, Intake
from vggt_ros.ros.inputs.sensor import RosSensor
from vggt_ros.ros.inputs.serialized import transported
from vggt_ros.ros.inputs.subscriptions import Subscriptions
from vggt_ros.ros.mailbox import Mailbox, Outbox, Room
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.steady import steady_timer
from vggt_ros.ros.worker import CameraThread, Finding, NetworkThread, QueuedFrame

IN_DDS = 5  # images that wait in DDS, as many as the profile for sensor data has
FINDINGS = 8  # that wait for the executor
LOOK = 1.0  # s between looks at who publishes


class Activation:
    """Images in, findings out; ``notify`` is called when there is something to ``take``.

    settings: the node's parameters by name. tracks_wanted: asked on the executor, for Ctrl-C takes the context away
    under any other thread. on_restart: called when the stamps say that time began anew. pause_after: how many seconds
    the network rests after a window that took so many. What fails on the way leaves nothing behind.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: dict[str, Any],
        pipeline: Pipeline,
        intake: Intake,
        make_frame: FrameMaker,
        sensors: Sequence[RosSensor],
        problems: Problems,
        notify: Callable[[], None],
        tracks_wanted: Callable[[], bool],
        on_restart: Callable[[], None],
        pause_after: Callable[[float], float],
    ) -> None:
        self.counters = Counters()
        self.began = time.monotonic()
        self._ask_tracks_wanted, self._tracks_wanted = tracks_wanted, threading.Event()
        every, queue_size = settings['mode'] == 'every_frame', settings['queue_size']
        stride, memory = settings['stride'], settings['queue_memory'] << 20
        waiting: Room[Incoming] = Room(queue_size, memory * 3 // 4, lambda incoming: len(incoming.data))
        decoded: Room[QueuedFrame] = Room(2 * stride, memory // 4, lambda queued: queued.nbytes)
        self._incoming: Mailbox[Incoming] = Mailbox(1, waiting if every else None)
        self._queued: Mailbox[QueuedFrame] = Mailbox(stride, decoded if every else None)
        self._findings: Outbox[Finding] = Outbox(FINDINGS, notify)
        self._subscriptions, self._sensors = Subscriptions(node, settings, problems), sensors
        self._images = ImageInput(
            intake,
            self._incoming,
            problems,
            self.counters,
            on_restart,
            self._look_for_listeners,
            self._subscriptions.publishers,
        )
        self._threads = (
            CameraThread(
                pipeline,
                self._incoming,
                self._queued,
                make_frame,
                problems,
                self.counters,
                self._findings,
                every,
                self._tracks_wanted.is_set,
            ),
            NetworkThread(
                pipeline,
                self._queued,
                problems,
                self.counters,
                self._findings,
                self._tracks_wanted.is_set,
                pause_after,
            ),
        )
        kind, topic = transported(settings, 'image')
        self.topics = (node.resolve_topic_name(topic),)
        group = MutuallyExclusiveCallbackGroup()
        with ExitStack() as parts:  # in the order in which they must end: first nothing new comes, then the threads end
            parts.callback(self._close_walls)
            parts.callback(self._subscriptions.close)
            for sensor in sensors:
                parts.callback(sensor.close)
                sensor.open(group)
            self._subscriptions.add_images(kind, topic, self._images, IN_DDS, group)
            self._subscriptions.add(CameraInfo, 'camera_info', intake.on_camera_info, 10, group, latched=True)
            parts.callback(node.destroy_timer, steady_timer(node, LOOK, self._look_around, group))
            for thread in self._threads:
                thread.start()
            self._parts = parts.pop_all()

    @property
    def cause(self) -> str | None:
        """Why a thread has ended, None while both are at work or when they were told to end."""
        return next((thread.cause for thread in self._threads if thread.cause is not None), None)

    @property
    def paused(self) -> bool:
        """Whether images are ignored."""
        return self._images.paused

    def stop(self, patience: float) -> bool:
        """Unsubscribe and end the threads; what they have found by then can still be taken.

        A window in progress is still solved, unless it takes longer than ``patience`` seconds: then its thread is left
        alone, and the answer is False.
        """
        self._parts.close()
        end = time.monotonic() + patience
        return all(thread.ended(max(0.0, end - time.monotonic())) for thread in self._threads)

    def _close_walls(self) -> None:
        """All of them before any thread is waited for: one may wait for room in the other's."""
        with ExitStack() as walls:  # each, whatever becomes of the others
            for wall in (self._incoming, self._queued, self._findings):
                walls.callback(wall.close)

    def take(self) -> Finding | None:
        """The oldest finding that waits, None without any."""
        return self._findings.take()

    def begin_epoch(self) -> None:
        """The map begins anew with the next image that comes."""
        self._images.begin_epoch()

    def pause(self, paused: bool) -> None:
        """While paused nobody listens to images, and those that wait are dropped."""
        self._images.pause(paused)
        self.began = time.monotonic()
        for subscriptions in self._all_subscriptions():
            subscriptions.pause(paused)
        if paused:
            self.counters.count('dropped', self._queued.clear())

    def _all_subscriptions(self) -> list[Subscriptions]:
        return [self._subscriptions, *(sensor.subscriptions for sensor in self._sensors)]

    def _look_around(self) -> None:
        self._images.settle()
        for subscriptions in self._all_subscriptions():
            subscriptions.match()

    def _look_for_listeners(self) -> None:
        (self._tracks_wanted.set if self._ask_tracks_wanted() else self._tracks_wanted.clear)()
