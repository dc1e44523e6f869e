"""What lives from activate to deactivate: subscriptions, threads, and the mailboxes between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vggt_ros.odometry.front.frontend import Sight
from vggt_ros.pipeline import Pipeline, Solution
from vggt_ros.ros.inputs.gravity import GravityInput
from vggt_ros.ros.inputs.intake import FrameMaker, Incoming, Intake
from vggt_ros.ros.inputs.scale import MetricInputs
from vggt_ros.ros.inputs.subscriptions import Inputs
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.worker import Aids, CameraThread, Looked, Results, Statistics, Worker


class Activation:
    """Images in, sights and solutions out; ``notify`` is called when there is something to ``take``.

    settings: the node's parameters by name. tracks_wanted: asked on the executor, for Ctrl-C takes the context away
    under any other thread. on_time_jump: called when the stamps say that time began anew.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: dict[str, Any],
        pipeline: Pipeline,
        intake: Intake,
        make_frame: FrameMaker,
        metric: MetricInputs,
        gravity: GravityInput,
        problems: Problems,
        notify: Callable[[], None],
        tracks_wanted: Callable[[], bool],
        on_time_jump: Callable[[], None],
    ) -> None:
        self.statistics = Statistics()
        self.paused = False
        self._ask_tracks_wanted = tracks_wanted
        self._on_time_jump = on_time_jump
        self._tracks_wanted = False
        self._metric, self._gravity = metric, gravity
        every, queue_size = settings['mode'] == 'every_frame', settings['queue_size']
        self._resets = 0  # asked for; each image carries their number, so that none of before is taken for one after
        self._incoming: Mailbox[tuple[int, Incoming]] = Mailbox(1, queue_size if every else None)
        self._looked: Mailbox[Looked] = Mailbox(settings['stride'], queue_size if every else None)
        self._intake = intake
        aids = Aids(
            lambda: self._tracks_wanted,
            metric.companions,
            lambda frame: gravity.at(frame.stamp, frame.frame_id),
        )
        self._results = Results(notify)
        self._worker = Worker(pipeline, self._looked, problems, self.statistics, self._results, aids)
        self._camera = CameraThread(
            pipeline,
            self._incoming,
            self._looked,
            make_frame,
            problems,
            self.statistics,
            self._results,
            every,
            lambda: self._tracks_wanted,
        )
        self._camera.start()
        self._worker.start()
        group = MutuallyExclusiveCallbackGroup()
        self._inputs = Inputs(node, settings)
        metric.open(group)
        gravity.open()
        kind, topic = (
            (Image, 'image') if settings['image_transport'] == 'raw' else (CompressedImage, 'image/compressed')
        )
        self._inputs.subscribe(kind, topic, self._on_image, 1, group)
        self._inputs.subscribe(CameraInfo, 'camera_info', self._intake.on_camera_info, 10, group)
        self.topics = [node.resolve_topic_name(topic)]

    @property
    def is_alive(self) -> bool:
        """False when a thread has died of an error: see the log."""
        return self._camera.is_alive() and self._worker.is_alive()

    def stop(self) -> None:
        """Unsubscribe and end the threads; what they have found by then can still be taken."""
        for inputs in (self._inputs, self._metric, self._gravity):
            inputs.close()
        # All queues first: a thread may wait for room in the other's. A window in progress is still solved.
        for waiting in (self._incoming, self._looked, self._results):
            waiting.close()
        self._camera.join()
        self._worker.join()

    def take(self) -> Sight | Solution | None:
        """The oldest result that waits, None without any."""
        return self._results.take()

    def begin_epoch(self) -> None:
        """Forget what waits; the map begins anew with the next image."""
        self._resets += 1
        self._drop_waiting()

    def _drop_waiting(self) -> None:
        self.statistics.count('dropped', self._incoming.clear() + self._looked.clear())

    def pause(self, paused: bool) -> None:
        """While paused, images are ignored."""
        self.paused = paused
        if paused:
            self._drop_waiting()

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.statistics.count('received')
        if self.paused:
            self.statistics.count('dropped')
            return
        incoming = self._intake.accept(message)
        if incoming is None:
            self.statistics.count('refused')
            return
        if self._intake.restarted:
            self._intake.restarted = False
            self._on_time_jump()
            self.begin_epoch()
        self._tracks_wanted = self._ask_tracks_wanted()
        self.statistics.count('dropped', self._incoming.put((self._resets, incoming)))
