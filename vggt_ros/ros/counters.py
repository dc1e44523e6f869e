"""What became of the images of one activation: counted by every thread, read as a frozen snapshot."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Counts:
    """A snapshot.

    received, located, processed, dropped, refused: images. windows: solved. latency: seconds from the arrival of the
    newest window's newest image to its result, NaN before the first. rate: windows per second, smoothed.
    """

    received: int = 0
    located: int = 0
    processed: int = 0
    dropped: int = 0
    refused: int = 0
    windows: int = 0
    latency: float = float('nan')
    rate: float = 0.0

    @property
    def waiting(self) -> int:
        """Images that came and are not accounted for yet."""
        return self.received - self.processed - self.dropped - self.refused


class Counters:
    """Callbacks and threads count at the same time; whoever wants to know takes a snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        self._finished: float | None = None  # monotonic seconds of the last window

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of images."""
        with self._lock:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + number})

    def window_done(self, received: float, images: int) -> None:
        """One window more; ``received``: when its newest image came, monotonic seconds."""
        now = time.monotonic()
        with self._lock:
            counts = self._counts
            rate = counts.rate
            if self._finished is not None:
                newest = 1 / max(now - self._finished, 1e-6)
                rate = newest if counts.windows < 2 else rate + 0.2 * (newest - rate)
            self._finished = now
            self._counts = replace(
                counts,
                windows=counts.windows + 1,
                processed=counts.processed + images,
                latency=now - received,
                rate=rate,
            )

    def snapshot(self) -> Counts:
        """As they are now."""
        with self._lock:
            return self._counts
