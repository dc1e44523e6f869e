"""The two walls between threads: where images wait for a thread, and where what was found waits for the executor."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar('T')


@dataclass(frozen=True)
class Room(Generic[T]):
    """How much may wait where every item counts: so many items, so many bytes together. weigh: bytes of an item."""

    items: int
    memory: int
    weigh: Callable[[T], int]


class Mailbox(Generic[T]):
    """Batches of ``stride`` items, handed to one consumer.

    Live (``room`` None): only the newest ``stride`` items wait, older ones are dropped.
    Otherwise what fits into ``room`` waits, ``stride`` items at least: ``put`` holds the producer back and nothing is
    dropped, ``offer`` drops what finds no room.
    """

    def __init__(self, stride: int, room: Room[T] | None = None) -> None:
        self._stride = stride
        self.room = room
        self._items: deque[T] = deque()
        self._memory = 0  # bytes of the items, where there is a bound
        self._changed = threading.Condition()
        self._last_put = 0.0
        self._closed = False

    def put(self, item: T) -> int:
        """Add an item; the number of older items dropped for it. After ``close`` nothing is kept."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(item))
            return self._add(item)

    def offer(self, item: T) -> int:
        """Add an item without waiting for room; the number of items dropped, this one among them."""
        with self._changed:
            return self._add(item) if self._closed or self._fits(item) else 1

    def _fits(self, item: T) -> bool:
        room, count = self.room, len(self._items)
        if room is None or count < self._stride:
            return True
        return count < room.items and self._memory + room.weigh(item) <= room.memory

    def _add(self, item: T) -> int:
        if self._closed:
            return 0
        self._items.append(item)
        self._memory += 0 if self.room is None else self.room.weigh(item)
        self._last_put = time.monotonic()
        dropped = 0
        while self.room is None and len(self._items) > self._stride:
            self._items.popleft()
            dropped += 1
        self._changed.notify_all()
        return dropped

    def take(self, patience: float = 1.0) -> list[T] | None:
        """Wait for ``stride`` items and take them, oldest first; None when the mailbox is closed.

        A smaller batch is handed over when nothing more has come for ``patience`` seconds: the end of a bag.
        """
        with self._changed:
            while not self._closed and len(self._items) < self._stride:
                wait = self._last_put + patience - time.monotonic() if self._items else None
                if wait is not None and wait <= 0:
                    break
                self._changed.wait(wait)
            if self._closed:
                return None
            batch = [self._items.popleft() for _ in range(min(self._stride, len(self._items)))]
            if self.room is not None:
                self._memory -= sum(map(self.room.weigh, batch))
            self._changed.notify_all()
            return batch

    def rest(self, seconds: float) -> None:
        """For the consumer: wait so long, or until the mailbox is closed."""
        if seconds > 0:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, seconds)

    def clear(self) -> int:
        """Forget what waits; the number of items dropped."""
        with self._changed:
            dropped = len(self._items)
            self._items.clear()
            self._memory = 0
            self._changed.notify_all()
            return dropped

    def close(self) -> None:
        """Wake the consumer and every producer for the last time."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Outbox(Generic[T]):
    """What waits for the executor, in the order in which it was found.

    bound: items that may wait; a slow executor holds the threads back, not the memory. notify: called after every item,
    to wake the executor.
    """

    def __init__(self, bound: int, notify: Callable[[], None]) -> None:
        self._queue: queue.Queue[T] = queue.Queue(maxsize=bound)
        self._notify = notify
        self._closed = threading.Event()

    def put(self, item: T) -> None:
        """Wait for room, and add; after ``close`` nothing is kept."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            self._notify()
            return

    def take(self) -> T | None:
        """The oldest, None without any."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        """Whoever waits for room gives up; nothing is added any more."""
        self._closed.set()
