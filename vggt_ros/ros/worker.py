"""The one thread that runs torch: takes images from the mailbox, hands results to the executor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vggt_ros.odometry.alignment import AlignmentError
from vggt_ros.odometry.odometry import PredictionError
from vggt_ros.pipeline import Pipeline, Result
from vggt_ros.ros.intake import FrameMaker, Incoming
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.problems import Problems
from vggt_ros.types import DeviceError, Frame, WindowTooLargeError


@dataclass
class Statistics:
    """Counters of one activation. latency: seconds from the newest image's arrival to its result, NaN before."""

    received: int = 0
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
        """Add to a counter; callbacks and worker count at the same time."""
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


class Worker(threading.Thread):
    """Runs until ``stop``. results holds at most two batches: a slow executor holds the worker back, not the memory.

    notify: called from this thread after every batch, to wake the executor. tracks_wanted: whether to run the tracker.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        mailbox: Mailbox[Incoming],
        make_frame: FrameMaker,
        problems: Problems,
        statistics: Statistics,
        notify: Callable[[], None],
        tracks_wanted: Callable[[], bool],
    ) -> None:
        super().__init__(name='vggt_worker', daemon=True)
        self._pipeline = pipeline
        self._mailbox = mailbox
        self._frames = make_frame
        self._problems = problems
        self._statistics = statistics
        self._notify = notify
        self._tracks_wanted = tracks_wanted
        self._reset = threading.Event()
        self._stopping = threading.Event()
        self._size: tuple[int, int] | None = None
        self._unanswered = 0  # frames given to the pipeline that have neither come back nor been refused
        self.results: queue.Queue[list[Result]] = queue.Queue(maxsize=2)
        self.state_text = ''

    def request_reset(self) -> None:
        """Begin a new epoch before the next window."""
        self._reset.set()

    def stop(self) -> None:
        """End the thread and wait for it; at most the window in progress is still solved."""
        self._stopping.set()
        self._mailbox.close()
        self.join()

    def run(self) -> None:
        while (batch := self._mailbox.take()) is not None:
            if self._reset.is_set():
                self._reset.clear()
                self._begin_epoch(None)
            frames = [frame for frame in map(self._frames.make, batch) if frame is not None]
            self._statistics.count('refused', len(batch) - len(frames))
            if frames:
                results = self._solve(frames)
                if results:
                    self._statistics.window_done(batch[-1].received, len(results))
                self._deliver(results)

    def _solve(self, frames: list[Frame]) -> list[Result]:
        """Results of these frames; none, with the reason reported, when the window was no use."""
        size = frames[-1].size
        if self._size is None:
            self._size = size
        if any(frame.size != self._size for frame in frames):
            self._problems.report('size change', f'the images are now {size}, not {self._size}: the map begins anew')
            self._begin_epoch(size)
            fitting = [frame for frame in frames if frame.size == size]
            self._statistics.count('dropped', len(frames) - len(fitting))
            frames = fitting
        self._unanswered += len(frames)
        window_limit = self._pipeline.odometry.config.window
        try:
            results = self._pipeline.process(frames, self._tracks_wanted())
        except (AlignmentError, PredictionError) as error:
            return self._refuse('window', f'window dropped: {error}')
        except (WindowTooLargeError, DeviceError) as error:
            return self._refuse('device', str(error))
        finally:
            window = self._pipeline.odometry.config.window
            if window != window_limit:
                self._problems.report('memory', f'out of memory on the device: the window shrinks to {window} frames')
        self.state_text = ''
        self._unanswered -= len(results)
        return results

    def _begin_epoch(self, size: tuple[int, int] | None) -> None:
        """Forget the map; frames that still waited for a first window are dropped with it."""
        self._pipeline.reset()
        self._statistics.count('dropped', self._unanswered)
        self._unanswered = 0
        self._size = size

    def _refuse(self, kind: str, text: str) -> list[Result]:
        self._statistics.count('refused', self._unanswered)
        self._unanswered = 0
        self.state_text = text
        self._problems.report(kind, text)
        return []

    def _deliver(self, results: list[Result]) -> None:
        while not self._stopping.is_set():
            try:
                self.results.put(results, timeout=0.1)
            except queue.Full:
                continue
            self._notify()
            return
