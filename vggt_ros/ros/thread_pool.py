"""Threads that are used again."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class ThreadPool:
    """Work goes to a thread that has nothing to do, or to a new one; none ever ends before the process does.

    torch and CUDA keep megabytes for every thread that has computed, on the host and on the device, beyond its end. A
    node that is activated again and again must not do so with new threads.
    name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Callable[[], None]]] = []

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin; what comes of it is in the future, and nowhere else."""
        future: Future[Any] = Future()
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = queue.SimpleQueue()
            # A daemon: one that hangs in a device does not keep the process.
            threading.Thread(target=self._serve, args=(jobs,), name=self._name, daemon=True).start()
        jobs.put(lambda: self._do(jobs, future, work, arguments))
        return future

    def _serve(self, jobs: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            jobs.get()()

    def _do(
        self,
        jobs: queue.SimpleQueue[Callable[[], None]],
        future: Future[Any],
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        tell: Callable[[Any], None]
        try:
            tell, outcome = future.set_result, work(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised where the future is asked
            tell, outcome = future.set_exception, error
        with self._lock:
            self._idle.append(jobs)  # before it is told: whoever waits for it may have more
        tell(outcome)


TORCH = ThreadPool('vggt_network')  # of this process, for all that computes with torch
CAMERA = ThreadPool('vggt_camera')
