"""The node as a process: how it begins, how an interrupt ends it, and that it always ends."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from vggt_ros.ros import compat

_LIBC = ctypes.CDLL(None)  # glibc has the two functions below, other C libraries have not
_M_ARENA_MAX = -8  # malloc.h

GRACE = 1.2  # seconds from the interrupt to the end of the process, whatever threads, device and middleware do
JOIN = 0.5  # of them for the threads


def run(make: Callable[[], Any], args: list[str] | None) -> int:
    """Make the node and spin it until its context ends; the exit status.

    make: a Node with ``supervise()``, called when it has ``autostart``, ``close(patience)``, ``closing_time``, and
    ``exit_status`` for when it ends its context itself.

    An interrupt, however often it comes, only ends the context: Python's own KeyboardInterrupt would be raised wherever
    the main thread is.
    """
    _share_heaps()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # before rclpy.init, whose own handlers call these
    rclpy.init(args=args)
    try:
        node = make()
    except (ValueError, ParameterException) as error:
        print(f'vggt: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    if node.get_parameter('autostart').value:
        node.supervise()
    status = 1
    try:
        _spin(executor, node)
        status = node.exit_status
    finally:
        deadline = threading.Timer(GRACE + node.closing_time, os._exit, (status,))
        deadline.daemon = True
        deadline.start()
        node.close(JOIN)
        executor.shutdown(timeout_sec=0.2)
        node.destroy_node()
        rclpy.try_shutdown()
        # Once more from launch or the terminal while Python ends: nobody is there any more to handle it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return status


def _share_heaps() -> None:
    """Let all threads use the same two heaps, before there are threads.

    glibc gives many threads heaps of their own, eight for each core. What one frees is no use to the others, and each
    comes to be as large as the largest thread ever was: a node that runs for hours or is configured again and again
    would hold some hundred MiB of nothing.
    """
    if mallopt := getattr(_LIBC, 'mallopt', None):
        mallopt(_M_ARENA_MAX, 2)


def free_memory() -> None:
    """Collect what only cycles hold, the network among it, and give what is free back to the system."""
    gc.collect()
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
