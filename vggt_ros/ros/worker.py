"""The two threads between the images and their results.

What one image or window does to a decoder, OpenCV, torch or us costs that image or window: it is counted, said, and the
thread goes on. What nobody understands costs the map as well, for nobody knows what it left half done.

The camera's thread looks at every image: decoded, tracked, located. The network's thread, the one that runs torch,
solves windows of those that reach it. What either finds waits in one outbox for the executor, in the order of time;
beside every window lies a frozen report of the network's thread, which nobody else may look into.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from itertools import groupby

from vggt_ros.odometry.front.frontend import FrameResult
from vggt_ros.pipeline import Pipeline, PipelineReport, WindowResult
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import FrameMaker, Incoming
from vggt_ros.ros.mailbox import Mailbox, Outbox
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.thread_pool import CAMERA, TORCH, ThreadPool
from vggt_ros.types import DeviceError, Frame, WindowTooLargeError


@dataclass(frozen=True, eq=False)
class QueuedFrame:
    """A frame on its way to the network. received: monotonic seconds. epoch: how often the map has begun anew."""

    frame: Frame
    received: float
    epoch: int

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return self.frame.image.nbytes + (0 if self.frame.valid is None else self.frame.valid.nbytes)


@dataclass(frozen=True, eq=False)
class ReportedWindow:
    """A window's result, and what the pipeline said of itself right after it."""

    result: WindowResult
    report: PipelineReport


Finding = FrameResult | ReportedWindow
"""What waits for the executor."""


class Worker:
    """What a thread does, and whose end is always noticed.

    threads: of which one does it. cause: why it ended, None while it runs or when it was told to.
    """

    def __init__(self, name: str, threads: ThreadPool, problems: Problems, counters: Counters) -> None:
        self._name, self._threads = name, threads
        self._problems = problems
        self._counters = counters
        self.cause: str | None = None

    def start(self) -> None:
        """Begin, once."""
        self._end = self._threads.submit(self._run)

    def ended(self, patience: float) -> bool:
        """Whether it ends within so many seconds."""
        return not wait((self._end,), patience).not_done

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - a thread must not die in silence, of SystemExit either
            self.cause = f"the {self._name}'s thread ended: {type(error).__name__}: {error}"
            self._problems.failed(self.cause, error)

    def work(self) -> None:
        """Until there is nothing more to do."""
        raise NotImplementedError

    def failed(self, what: str, error: Exception) -> None:
        """Count, and say with its traceback, what nobody understands."""
        reason = f'{what}: {type(error).__name__}: {error}'
        self._counters.failed(self._name, reason)
        self._problems.failed(reason, error)


class CameraThread(Worker):
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
        super().__init__('camera', CAMERA, problems, counters)
        self._pipeline = pipeline
        self._incoming, self._outgoing = incoming, outgoing
        self._frames = make_frame
        self._findings = findings
        self._every, self._tracks_wanted = every, tracks_wanted
        self._resets = 0  # that were asked for before the newest image
        self._epoch = 0

    def work(self) -> None:
        while (batch := self._incoming.take()) is not None:
            for incoming in batch:
                self._attempt(incoming)

    def _attempt(self, incoming: Incoming) -> None:
        try:
            frame = self._frames.make(incoming)
        except Exception as error:  # noqa: BLE001 - see the top of this file
            self.failed('an image could not be read', error)
            frame = None
        if frame is None:
            self._counters.count('refused')
            return
        try:
            result = self._look(frame, incoming)
        except Exception as error:  # noqa: BLE001 - see the top of this file
            self._counters.count('refused')
            self.failed('an image could not be looked at, the map begins anew', error)
            self._begin_epoch()
            return
        self._counters.seen(result.located is not None)
        self._counters.worked('camera')
        self._findings.put(result)
        if self._every or self._pipeline.due(result):
            self._counters.count('dropped', self._outgoing.put(QueuedFrame(frame, incoming.received, self._epoch)))
        else:
            self._counters.count('dropped')

    def _look(self, frame: Frame, incoming: Incoming) -> FrameResult:
        changed = self._frames.changed()
        if changed:
            self._problems.report('camera change', f'the camera changed ({changed}): the map begins anew')
        begins = changed or incoming.resets != self._resets
        self._resets = incoming.resets
        if begins:
            self._begin_epoch()
        return self._pipeline.look(frame, self._tracks_wanted())

    def _begin_epoch(self) -> None:
        self._frames.begin_epoch()
        self._pipeline.reset_looking()
        self._epoch += 1


class NetworkThread(Worker):
    """Solves windows of what its mailbox holds, until it is closed. tracks_wanted: as for the camera's thread.

    pause_after: seconds to rest after a window that took so many seconds, asked after each.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        mailbox: Mailbox[QueuedFrame],
        problems: Problems,
        counters: Counters,
        findings: Outbox[Finding],
        tracks_wanted: Callable[[], bool],
        pause_after: Callable[[float], float],
    ) -> None:
        super().__init__('network', TORCH, problems, counters)
        self._pipeline = pipeline
        self._mailbox = mailbox
        self._findings = findings
        self._tracks_wanted = tracks_wanted
        self._pause_after = pause_after
        self._epoch = 0
        self._unanswered = 0  # frames given to the pipeline that have neither come back nor been refused
        self._window = pipeline.report().window

    def work(self) -> None:
        while (batch := self._mailbox.take()) is not None:
            began = time.monotonic()
            for _, same in groupby(batch, lambda queued: queued.epoch):
                self._attempt(list(same))
            self._mailbox.rest(self._pause_after(time.monotonic() - began))

    def _attempt(self, batch: list[QueuedFrame]) -> None:
        self._counters.busy(True)
        try:
            self._process(batch)
        except Exception as error:  # noqa: BLE001 - see the top of this file
            self.failed('a window could not be solved, the map begins anew', error)
            self._pipeline.abandon()
            self._counters.count('refused', self._unanswered)
            self._unanswered = 0
            self._findings.put(ReportedWindow(self._pipeline.standing(), self._pipeline.report()))
        finally:
            self._counters.busy(False)

    def _process(self, batch: list[QueuedFrame]) -> None:
        if batch[0].epoch != self._epoch:
            self._epoch = batch[0].epoch
            self._pipeline.begin_epoch()
            self._counters.count('dropped', self._unanswered)
            self._unanswered = 0
        result = self._solve([queued.frame for queued in batch])
        report = self._pipeline.report()
        if report.window != self._window:
            smaller, self._window = report.window < self._window, report.window
            said = 'out of memory on the device: the window shrinks' if smaller else 'the window grows back'
            self._problems.report('memory', f'{said} to {report.window} frames')
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
            self._counters.failed('network', str(error))
            self._problems.report('device', str(error))
            return self._pipeline.standing(self._unanswered, (str(error),))
        if result.estimates or result.refused:  # else too few images have come for a window: that proves nothing
            self._counters.worked('network')
        if result.refused:
            self._problems.report('window', f'{result.refused} frames dropped: {"; ".join(result.reasons)}')
        for warning in result.warnings:
            self._problems.report(warning.partition(':')[0], warning)
        return result
