"""What lives from activate to deactivate: subscriptions, threads, and the walls between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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
    under any other thread. on_restart: called when the stamps say that time began anew.
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
    ) -> None:
        self.counters = Counters()
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
            NetworkThread(pipeline, self._queued, problems, self.counters, self._findings, self._tracks_wanted.is_set),
        )
        for thread in self._threads:
            thread.start()
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions, self._sensors = Subscriptions(node, settings), sensors
        for sensor in sensors:
            sensor.open(group)
        kind, topic = (
            (Image, 'image') if settings['image_transport'] == 'raw' else (CompressedImage, 'image/compressed')
        )
        self._subscriptions.add(kind, topic, self._images, 1, group)
        self._subscriptions.add(CameraInfo, 'camera_info', intake.on_camera_info, 10, group)
        self.topics = [node.resolve_topic_name(topic)]

    @property
    def is_alive(self) -> bool:
        """False when a thread has died of an error: see the log."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def paused(self) -> bool:
        """Whether images are ignored."""
        return self._images.paused

    def stop(self) -> None:
        """Unsubscribe and end the threads; what they have found by then can still be taken."""
        self._subscriptions.close()
        for sensor in self._sensors:
            sensor.close()
        # All walls first: a thread may wait for room in the other's. A window in progress is still solved.
        for wall in (self._incoming, self._queued, self._findings):
            wall.close()
        for thread in self._threads:
            thread.join()

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
