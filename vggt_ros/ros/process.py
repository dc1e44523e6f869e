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

GRACE = 1.2  # seconds from the interrupt to the end of the process, whatever threads, device and middleware do
JOIN = 0.5  # of them for the threads


def run(make: Callable[[], Any], args: list[str] | None) -> int:
    """Make the node and spin it until its context ends; the exit status.

    make: a Node with ``supervise()``, called when it has ``autostart``, ``close(patience)``, ``closing_time``, and
    ``exit_status`` for when it ends its context itself.

    An interrupt, however often it comes, only ends the context: Python's own KeyboardInterrupt would be raised wherever
    the main thread is.
    """
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


def free_memory() -> None:
    """Collect what only cycles hold, the network among it, and give what is free back to the system.

    glibc keeps what was freed, in one heap for each of many threads: a node that is configured again and again would
    come to hold some hundred MiB of nothing.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _spin(executor: MultiThreadedExecutor, node: Node) -> None:
    try:
        compat.spin(executor)
    except ExternalShutdownException:
        pass
    except RuntimeError:
        # An interrupt takes the context away under whatever publishes at that moment: rclpy's RCLError is one.
        if node.context.ok():
            raise
