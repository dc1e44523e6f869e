"""What came lately, found by its stamp: the executor's threads add, the worker looks."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar('T')

RESTART = 1_000_000_000  # ns: a stamp that goes back further is a new beginning, what came before is of another time


class Recent(Generic[T]):
    """Items by stamp (ns), thread-safe. The oldest go when they are more than ``memory`` bytes; one stays always."""

    def __init__(self, memory: int) -> None:
        if memory < 1:
            raise ValueError(f'memory must be a positive number of bytes, not {memory}')
        self._memory = memory
        self._items: deque[tuple[int, int, T]] = deque()  # stamp, bytes, item, as they came
        self._bytes = 0
        self._newest: int | None = None
        self._changed = threading.Condition()

    @property
    def newest(self) -> int | None:
        """The stamp that came last, whether or not its item is still here; None when none ever came."""
        with self._changed:
            return self._newest

    def add(self, stamp: int, item: T, size: int) -> None:
        """One item more; size: its bytes."""
        with self._changed:
            if self._newest is not None and stamp < self._newest - RESTART:
                self._drop(len(self._items))
            self._items.append((stamp, size, item))
            self._bytes += size
            self._newest = stamp
            while self._bytes > self._memory and len(self._items) > 1:
                self._drop(1)
            self._changed.notify_all()

    def wait(self, stamp: int, seconds: float) -> None:
        """Until an item of this stamp or a later one has come, but not longer than this many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None and self._newest >= stamp, seconds)

    def nearest(self, stamp: int) -> tuple[int, T] | None:
        """(its stamp, the item) nearest in time; None when nothing is here."""
        with self._changed:
            if not self._items:
                return None
            found, _, item = min(self._items, key=lambda entry: abs(entry[0] - stamp))
            return found, item

    def forget(self, before: int) -> None:
        """Let go what is older than this stamp and came before anything that is not."""
        with self._changed:
            while self._items and self._items[0][0] < before:
                self._drop(1)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._items.popleft()[1]
