"""What became of the images of one activation, and how its threads are: told by every thread, read as a snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


@dataclass(frozen=True)
class Failures:
    """What a thread could not do, since it last could. in_row: how often. reason: of the newest, in words."""

    in_row: int = 0
    reason: str = ''


@dataclass(frozen=True)
class Counts:
    """A snapshot.

    received, located, processed, dropped, refused: images. windows: solved. latency: seconds from the arrival of the
    newest window's newest image to its result, NaN before the first. rate: windows per second, smoothed.
    Monotonic seconds, None before the first: last_received, of an image; last_seen, of one that could be looked at;
    last_located; last_solved, when a window was. busy_since: when the network began with what it is doing, None while
    it waits for images.
    failures: by thread, 'camera' and 'network'.
    """

    received: int = 0
    located: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0
    windows: int = 0
    latency: float = float('nan')
    rate: float = 0.0
    last_received: float | None = None
    last_seen: float | None = None
    last_located: float | None = None
    last_solved: float | None = None
    busy_since: float | None = None
    failures: Mapping[str, Failures] = field(
        default_factory=lambda: MappingProxyType({'camera': Failures(), 'network': Failures()})
    )

    @property
    def waiting(self) -> int:
        """Images that came and are not accounted for yet."""
        return self.received - self.processed - self.dropped - self.refused


class Counters:
    """Callbacks and threads tell at the same time; whoever wants to know takes a snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of images."""
        with self._lock:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + number})

    def received(self) -> None:
        """One image more has come."""
        with self._lock:
            self._counts = replace(self._counts, received=self._counts.received + 1, last_received=time.monotonic())

    def seen(self, located: bool) -> None:
        """The camera's thread has looked at an image."""
        now = time.monotonic()
        with self._lock:
            counts = replace(self._counts, last_seen=now)
            if located:
                counts = replace(counts, located=counts.located + 1, last_located=now)
            self._counts = counts

    def busy(self, busy: bool) -> None:
        """The network's thread begins with something, or has ended it."""
        with self._lock:
            self._counts = replace(self._counts, busy_since=time.monotonic() if busy else None)

    def failed(self, thread: str, reason: str) -> None:
        """Something that a thread could not do."""
        with self._lock:
            self._fail(thread, Failures(self._counts.failures[thread].in_row + 1, reason))

    def worked(self, thread: str) -> None:
        """Something that it could do."""
        with self._lock:
            if self._counts.failures[thread].in_row:
                self._fail(thread, Failures())

    def _fail(self, thread: str, failures: Failures) -> None:
        both = MappingProxyType({**self._counts.failures, thread: failures})
        self._counts = replace(self._counts, failures=both)

    def window_done(self, received: float, images: int) -> None:
        """One window more; ``received``: when its newest image came, monotonic seconds."""
        now = time.monotonic()
        with self._lock:
            counts = self._counts
            rate = counts.rate
            if counts.last_solved is not None:
                newest = 1 / max(now - counts.last_solved, 1e-6)
                rate = newest if counts.windows < 2 else rate + 0.2 * (newest - rate)
            self._counts = replace(
                counts,
                windows=counts.windows + 1,
                processed=counts.processed + images,
                latency=now - received,
                last_solved=now,
                rate=rate,
            )

    def snapshot(self) -> Counts:
        """As they are now."""
        with self._lock:
            return self._counts
