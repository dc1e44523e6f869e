"""What lives from activate to deactivate: subscriptions, threads, and the walls between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vggt_ros.pipeline import Pipeline
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import FrameMaker, Incoming
from vggt_ros.ros.inputs.intake import ImageInput, Intake
from vggt_ros.ros.inputs.sensor import RosSensor
from vggt_ros.ros.inputs.subscriptions import Subscriptions
from vggt_ros.ros.mailbox import Mailbox, Outbox
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.worker import CameraThread, Finding, NetworkThread, QueuedFrame

FINDINGS = 8  # that wait for the executor


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
        bound = queue_size if every else None
        self._incoming: Mailbox[Incoming] = Mailbox(1, bound)
        self._queued: Mailbox[QueuedFrame] = Mailbox(settings['stride'], bound)
        self._findings: Outbox[Finding] = Outbox(FINDINGS, notify)
        self._images = ImageInput(intake, self._incoming, self.counters, on_restart, self._look_for_listeners)
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
        kind, topic = (
            (Image, 'image') if settings['image_transport'] == 'raw' else (CompressedImage, 'image/compressed')
        )
        self.topics = (node.resolve_topic_name(topic),)
        group = MutuallyExclusiveCallbackGroup()
        with ExitStack() as parts:  # in the order in which they must end: first nothing new comes, then the threads end
            parts.callback(self._close_walls)
            subscriptions = Subscriptions(node, settings)
            parts.callback(subscriptions.close)
            for sensor in sensors:
                parts.callback(sensor.close)
                sensor.open(group)
            subscriptions.add(kind, topic, self._images, 1, group)
            subscriptions.add(CameraInfo, 'camera_info', intake.on_camera_info, 10, group)
            for thread in self._threads:
                thread.start()
            self._parts = parts.pop_all()

    @property
    def cause(self) -> str | None:
        """Why a thread has ended, None while both are at work."""
        for thread in self._threads:
            if not thread.is_alive():
                return thread.cause or f'{thread.name} has ended'
        return None

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
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _close_walls(self) -> None:
        """All of them before any thread is waited for: one may wait for room in the other's."""
        for wall in (self._incoming, self._queued, self._findings):
            wall.close()

    def take(self) -> Finding | None:
        """The oldest finding that waits, None without any."""
        return self._findings.take()

    def begin_epoch(self) -> None:
        """Forget what waits; the map begins anew with the next image."""
        self._images.begin_epoch()
        self._drop_queued()

    def pause(self, paused: bool) -> None:
        """While paused, images are ignored."""
        self._images.pause(paused)
        if paused:
            self._drop_queued()

    def _drop_queued(self) -> None:
        self.counters.count('dropped', self._queued.clear())

    def _look_for_listeners(self) -> None:
        (self._tracks_wanted.set if self._ask_tracks_wanted() else self._tracks_wanted.clear)()
