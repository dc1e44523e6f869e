"""The node as a process: how it begins, how an interrupt ends it, and that it always ends."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from vggt_ros.ros import compat
from vggt_ros.ros.steady import steady_timer

_LIBC = ctypes.CDLL(None)  # glibc has the two functions below, other C libraries have not
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h

GRACE = 1.0  # seconds from the interrupt to the end of the process, whatever threads, device and middleware do
JOIN = 0.4  # of them for the threads
TRIM = 60.0  # seconds after which free memory goes back to the system


class _Deadline:
    """The end of the process, some seconds after it was first told to end. more: seconds beside GRACE."""

    def __init__(self) -> None:
        self.more = lambda: 0.0
        self._timer: threading.Timer | None = None

    def begin(self, status: int) -> None:
        """Only the first time counts."""
        if self._timer is None:
            self._timer = threading.Timer(GRACE + self.more(), os._exit, (status,))
            self._timer.daemon = True
            self._timer.start()


def run(make: Callable[[], Any], args: list[str] | None) -> int:
    """Make the node, spin it until its context ends, and end the process; returns 2 where it cannot be made.

    make: a Node with ``supervise()``, called when it has ``autostart``, ``close(patience)``, ``closing_time``, and
    ``exit_status`` for when it ends its context itself.

    An interrupt, however often it comes, only ends the context: Python's own KeyboardInterrupt would be raised wherever
    the main thread is.
    """
    _share_heaps()
    deadline = _Deadline()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Before rclpy.init, whose own handlers call these.
        signal.signal(number, lambda *_: deadline.begin(0))
    rclpy.init(args=args)
    try:
        node = make()
    except (ValueError, ParameterException) as error:
        print(f'vggt: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    deadline.more = lambda: node.closing_time
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    steady_timer(node, TRIM, trim_heaps, MutuallyExclusiveCallbackGroup())
    if node.get_parameter('autostart').value:
        node.supervise()
    status = 1
    try:
        _spin(executor, node)
        status = node.exit_status
    except BaseException:  # noqa: BLE001 - of a callback that nobody shields: it is said, and the process ends
        traceback.print_exc()
    deadline.begin(status)
    node.close(JOIN)
    _Deadline().begin(status)  # whatever had to be saved is saved
    executor.shutdown(timeout_sec=0.2)
    node.destroy_node()
    rclpy.try_shutdown()
    # Not through Python's own end: it waits for threads that do not end, and takes a second to free what the system
    # frees at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _share_heaps() -> None:
    """Let all threads use the same two heaps, before there are threads.

    glibc gives many threads heaps of their own, eight for each core. What one frees is no use to the others, and each
    comes to be as large as the largest thread ever was: a node that runs for hours or is configured again and again
    would hold some hundred MiB of nothing. Nor shall the room of each large image be taken from the system and given
    back, which has to clear it every time: at 4K that takes as long as all else. What idles goes with trim_heaps.
    """
    if mallopt := getattr(_LIBC, 'mallopt', None):
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # its own largest
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def free_memory() -> None:
    """Collect what only cycles hold, the network among it, and give what is free back to the system."""
    gc.collect()
    trim_heaps()


def trim_heaps() -> None:
    """Give what is free in the heaps back to the system: tens of milliseconds, other threads run on.

    glibc itself gives back the end of a heap alone: a map that began anew, or a minute of larger images, would never be
    seen to have gone.
    """
    if malloc_trim := getattr(_LIBC, 'malloc_trim', None):
        malloc_trim(0)


def _spin(executor: MultiThreadedExecutor, node: Node) -> None:
    try:
        compat.spin(executor)
    except ExternalShutdownException:
        pass
    except RuntimeError:
        # An interrupt takes the context away under whatever publishes at that moment: rclpy's RCLError is one.
        if node.context.ok():
            raise
