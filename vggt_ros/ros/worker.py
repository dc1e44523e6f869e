"""The two threads between the images and their results.

The camera's thread looks at every image: decoded, tracked, located. The network's thread, the one that runs torch,
solves windows of those that reach it. What either finds waits in one outbox for the executor, in the order of time;
beside every window lies a frozen report of the network's thread, which nobody else may look into.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from vggt_ros.odometry.front.frontend import FrameResult
from vggt_ros.pipeline import Pipeline, PipelineReport, WindowResult
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import FrameMaker, Incoming
from vggt_ros.ros.mailbox import Mailbox, Outbox
from vggt_ros.ros.problems import Problems
from vggt_ros.types import DeviceError, Frame, WindowTooLargeError


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A frame on its way to the network. received: monotonic seconds. epoch: how often the map has begun anew."""

    frame: Frame
    received: float
    epoch: int


@dataclass(frozen=True, eq=False)
class ReportedWindow:
    """A window's result, and what the pipeline said of itself right after it."""

    result: WindowResult
    report: PipelineReport


Finding = FrameResult | ReportedWindow
"""What waits for the executor."""


class CameraThread(threading.Thread):
    """Decodes and looks at every image until its mailbox is closed; hands those that are due to the network's.

    every: hand over all of them. tracks_wanted: whether anybody listens to keypoint tracks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        incoming: Mailbox[Incoming],
        outgoing: Mailbox[QueuedFrame],
        make_frame: FrameMaker,
        problems: Problems,
        counters: Counters,
        findings: Outbox[Finding],
        every: bool,
        tracks_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(name='vggt_camera', daemon=True)
        self._pipeline = pipeline
        self._incoming, self._outgoing = incoming, outgoing
        self._frames = make_frame
        self._problems = problems
        self._counters = counters
        self._findings = findings
        self._every, self._tracks_wanted = every, tracks_wanted
        self._resets = 0  # that were asked for before the newest image
        self._epoch = 0
        self._size: tuple[int, int] | None = None

    def run(self) -> None:
        while (batch := self._incoming.take()) is not None:
            for incoming in batch:
                frame = self._frames.make(incoming)
                if frame is None:
                    self._counters.count('refused')
                else:
                    self._look(frame, incoming)

    def _look(self, frame: Frame, incoming: Incoming) -> None:
        resized = self._size not in (None, frame.size)
        if resized:
            self._problems.report(
                'size change', f'the images are now {frame.size}, not {self._size}: the map begins anew'
            )
        if resized or incoming.resets != self._resets:
            self._pipeline.reset_looking()
            self._epoch += 1
        self._size, self._resets = frame.size, incoming.resets
        result = self._pipeline.look(frame, self._tracks_wanted())
        self._counters.count('located', result.located is not None)
        self._findings.put(result)
        if self._every or self._pipeline.due(result):
            self._counters.count('dropped', self._outgoing.put(QueuedFrame(frame, incoming.received, self._epoch)))
        else:
            self._counters.count('dropped')


class NetworkThread(threading.Thread):
    """Solves windows of what its mailbox holds, until it is closed. tracks_wanted: as for the camera's thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        mailbox: Mailbox[QueuedFrame],
        problems: Problems,
        counters: Counters,
        findings: Outbox[Finding],
        tracks_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(name='vggt_network', daemon=True)
        self._pipeline = pipeline
        self._mailbox = mailbox
        self._problems = problems
        self._counters = counters
        self._findings = findings
        self._tracks_wanted = tracks_wanted
        self._epoch = 0
        self._unanswered = 0  # frames given to the pipeline that have neither come back nor been refused
        self._window = pipeline.report().window

    def run(self) -> None:
        while (batch := self._mailbox.take()) is not None:
            for _, same in groupby(batch, lambda queued: queued.epoch):
                self._process(list(same))

    def _process(self, batch: list[QueuedFrame]) -> None:
        if batch[0].epoch != self._epoch:
            self._epoch = batch[0].epoch
            self._pipeline.begin_epoch()
            self._counters.count('dropped', self._unanswered)
            self._unanswered = 0
        result = self._solve([queued.frame for queued in batch])
        report = self._pipeline.report()
        if report.window != self._window:
            self._window = report.window
            self._problems.report(
                'memory', f'out of memory on the device: the window shrinks to {report.window} frames'
            )
        self._counters.count('refused', result.refused)
        self._unanswered -= result.refused + len(result.estimates)
        if result.estimates:
            self._counters.window_done(batch[-1].received, len(result.estimates))
        self._findings.put(ReportedWindow(result, report))

    def _solve(self, frames: list[Frame]) -> WindowResult:
        self._unanswered += len(frames)
        try:
            result = self._pipeline.process(frames, self._tracks_wanted())
        except (WindowTooLargeError, DeviceError) as error:
            self._problems.report('device', str(error))
            return self._pipeline.standing(self._unanswered, (str(error),))
        if result.refused:
            self._problems.report('window', f'{result.refused} frames dropped: {"; ".join(result.reasons)}')
        for warning in result.warnings:
            self._problems.report('warning', warning)
        return result
