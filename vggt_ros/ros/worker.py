"""The two threads between the images and their results.

The camera's thread looks at every image: decoded, tracked, located. The network's thread, the one that runs torch,
solves windows of those that reach it. What either finds waits in one queue for the executor, in the order of time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from vggt_ros.odometry.front.frontend import Sight
from vggt_ros.odometry.gravity import Gravity
from vggt_ros.pipeline import Pipeline, Solution
from vggt_ros.ros.inputs.intake import FrameMaker, Incoming
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.problems import Problems
from vggt_ros.types import DeviceError, Frame, WindowTooLargeError

RESULTS = 8  # that wait for the executor: a slow one holds the threads back, not the memory


@dataclass
class Statistics:
    """Counters of one activation. latency: seconds from the newest image's arrival to its result, NaN before."""

    received: int = 0
    located: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0
    windows: int = 0
    latency: float = float('nan')
    rate: float = 0.0
    _finished: float = field(default=0.0, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def waiting(self) -> int:
        """Images that came and are not accounted for yet."""
        return self.received - self.processed - self.dropped - self.refused

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter; callbacks and threads count at the same time."""
        with self._lock:
            setattr(self, name, getattr(self, name) + number)

    def window_done(self, received: float, images: int) -> None:
        """One window more; ``received``: when its newest image came."""
        now = time.monotonic()
        self.windows += 1
        self.count('processed', images)
        self.latency = now - received
        if self._finished:
            rate = 1 / max(now - self._finished, 1e-6)
            self.rate = rate if self.windows < 3 else self.rate + 0.2 * (rate - self.rate)
        self._finished = now


@dataclass(frozen=True, eq=False)
class Looked:
    """A frame on its way to the network. received: monotonic seconds. epoch: how often the map has begun anew."""

    frame: Frame
    received: float
    epoch: int


class Results:
    """What waits for the executor. notify: called after every result, to wake it."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._queue: queue.Queue[Sight | Solution] = queue.Queue(maxsize=RESULTS)
        self._notify = notify
        self._closed = threading.Event()

    def close(self) -> None:
        """Whoever waits for room gives up; nothing is added any more."""
        self._closed.set()

    def put(self, result: Sight | Solution) -> None:
        """Wait for room, and add."""
        while not self._closed.is_set():
            try:
                self._queue.put(result, timeout=0.1)
            except queue.Full:
                continue
            self._notify()
            return

    def take(self) -> Sight | Solution | None:
        """The oldest, None without any."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None


class CameraThread(threading.Thread):
    """Decodes and looks at every image until its mailbox is closed; hands those that are due to the network's.

    incoming: images, each with the number of resets that were asked for before it came. every: hand over all of them.
    tracks_wanted: whether anybody listens to keypoint tracks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        incoming: Mailbox[tuple[int, Incoming]],
        outgoing: Mailbox[Looked],
        make_frame: FrameMaker,
        problems: Problems,
        statistics: Statistics,
        results: Results,
        every: bool,
        tracks_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(name='vggt_camera', daemon=True)
        self._pipeline = pipeline
        self._incoming, self._outgoing = incoming, outgoing
        self._frames = make_frame
        self._problems = problems
        self._statistics = statistics
        self._results = results
        self._every, self._tracks_wanted = every, tracks_wanted
        self._asked = 0
        self._epoch = 0
        self._size: tuple[int, int] | None = None

    def run(self) -> None:
        while (batch := self._incoming.take()) is not None:
            for asked, incoming in batch:
                frame = self._frames.make(incoming)
                if frame is None:
                    self._statistics.count('refused')
                else:
                    self._look(frame, incoming.received, asked)

    def _look(self, frame: Frame, received: float, asked: int) -> None:
        resized = self._size not in (None, frame.size)
        if resized:
            self._problems.report(
                'size change', f'the images are now {frame.size}, not {self._size}: the map begins anew'
            )
        if resized or asked != self._asked:
            self._pipeline.reset_looking()
            self._epoch += 1
        self._size, self._asked = frame.size, asked
        sight = self._pipeline.look(frame, self._tracks_wanted())
        self._statistics.count('located', sight.located is not None)
        self._results.put(sight)
        if self._every or self._pipeline.due(sight):
            self._statistics.count('dropped', self._outgoing.put(Looked(frame, received, self._epoch)))
        else:
            self._statistics.count('dropped')


@dataclass(frozen=True)
class Aids:
    """What is asked for every window. tracks_wanted: whether to run the tracker. companions: the second camera's images
    at the time of these frames, by frame index. gravity: which way is down in a frame, None where nobody knows.
    """

    tracks_wanted: Callable[[], bool]
    companions: Callable[[Sequence[Frame]], Mapping[int, Frame]]
    gravity: Callable[[Frame], Gravity | None]


class Worker(threading.Thread):
    """The network's thread: windows of what the mailbox holds, until it is closed."""

    def __init__(
        self,
        pipeline: Pipeline,
        mailbox: Mailbox[Looked],
        problems: Problems,
        statistics: Statistics,
        results: Results,
        aids: Aids,
    ) -> None:
        super().__init__(name='vggt_worker', daemon=True)
        self._pipeline = pipeline
        self._mailbox = mailbox
        self._problems = problems
        self._statistics = statistics
        self._results = results
        self._aids = aids
        self._epoch = 0
        self._unanswered = 0  # frames given to the pipeline that have neither come back nor been refused

    def run(self) -> None:
        while (batch := self._mailbox.take()) is not None:
            for _, same in groupby(batch, lambda looked: looked.epoch):
                self._process(list(same))

    def _process(self, batch: list[Looked]) -> None:
        if batch[0].epoch != self._epoch:
            self._epoch = batch[0].epoch
            self._pipeline.begin_epoch()
            self._statistics.count('dropped', self._unanswered)
            self._unanswered = 0
        solution = self._solve([looked.frame for looked in batch])
        self._statistics.count('refused', solution.refused)
        self._unanswered -= solution.refused + len(solution.estimates)
        if solution.estimates:
            self._statistics.window_done(batch[-1].received, len(solution.estimates))
        self._results.put(solution)

    def _solve(self, frames: list[Frame]) -> Solution:
        self._unanswered += len(frames)
        window_limit = self._pipeline.odometry.config.window
        aids = self._aids
        try:
            solution = self._pipeline.process(
                frames, aids.tracks_wanted(), aids.companions(frames), aids.gravity(frames[-1])
            )
        except (WindowTooLargeError, DeviceError) as error:
            self._problems.report('device', str(error))
            return self._pipeline.solution(refused=self._unanswered, reasons=(str(error),))
        finally:
            window = self._pipeline.odometry.config.window
            if window != window_limit:
                self._problems.report('memory', f'out of memory on the device: the window shrinks to {window} frames')
        if solution.refused:
            self._problems.report('window', f'{solution.refused} frames dropped: {"; ".join(solution.reasons)}')
        for warning in solution.warnings:
            self._problems.report('warning', warning)
        return solution
