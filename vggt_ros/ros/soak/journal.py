"""Who said what, and when."""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True)
class _Entry:
    """A text and every time in a row that it was said, monotonic seconds."""

    text: str
    times: list[float]


class Journal:
    """Texts by channel (status, diagnostics, process, service, camera, ...), from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, list[_Entry]] = {}

    def note(self, channel: str, text: str) -> None:
        """Said now."""
        now = time.monotonic()
        with self._lock:
            entries = self._entries.setdefault(channel, [])
            if entries and entries[-1].text == text:
                entries[-1].times.append(now)
            else:
                entries.append(_Entry(text, [now]))

    def first(self, channel: str, pattern: str, since: float) -> float | None:
        """When a text of this channel that the pattern finds was first said at or after ``since``, None if never."""
        with self._lock:
            for entry in self._entries.get(channel, ()):
                if entry.times[-1] >= since and re.search(pattern, entry.text):
                    return entry.times[bisect_left(entry.times, since)]
        return None

    def texts(self, channel: str, since: float) -> list[str]:
        """All that was said at or after ``since``, in order."""
        with self._lock:
            return [entry.text for entry in self._entries.get(channel, ()) if entry.times[-1] >= since]
