"""The node as a process: how it begins, how an interrupt ends it, and that it always ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import cv2
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node

from vggt_ros.device import spare_core
from vggt_ros.ros import compat
from vggt_ros.ros.heaps import HEAPS
from vggt_ros.ros.steady import steady_timer

GRACE = 1.0  # seconds from the interrupt to the end of the process, whatever threads, device and middleware do
JOIN = 0.4  # of them for the threads
PICTURES = 4  # most threads of OpenCV: more gain little, and wait for each other at work
TURN = 0.0005  # seconds after which a thread that works in Python lets another one that waits
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


def take_turns() -> None:
    """Let threads change places in Python every half a millisecond, not every five as by default.

    Each of the thousands of calls to torch in a window gives the interpreter's lock away, and waits for it afterwards
    as long as another thread has work in Python. With five milliseconds a call, beside a GPU, the node found time for
    six images of ten.
    """
    sys.setswitchinterval(TURN)


def run(make: Callable[[], Any], args: list[str] | None) -> int:
    """Make the node, spin it until its context ends, and end the process; returns 2 where it cannot be made.

    make: a Node with ``supervise()``, called when it has ``autostart``, ``close(patience)``, ``closing_time``, and
    ``exit_status`` for when it ends its context itself.

    An interrupt, however often it comes, only ends the context: Python's own KeyboardInterrupt would be raised wherever
    the main thread is.
    """
    HEAPS.share()
    take_turns()
    cv2.setNumThreads(min(PICTURES, spare_core()))
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
    steady_timer(node, TRIM, HEAPS.trim, MutuallyExclusiveCallbackGroup())
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
    # rclpy's state machine holds the node below: while it does, others see the node for 20 s after its end, and the
    # shared memory of its middleware stays for ever.
    node._state_machine = None
    rclpy.try_shutdown()
    # Not through Python's own end: it waits for threads that do not end, and takes a second to free what the system
    # frees at once.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _spin(executor: MultiThreadedExecutor, node: Node) -> None:
    try:
        compat.spin(executor)
    except ExternalShutdownException:
        pass
    except RuntimeError:
        # An interrupt takes the context away under whatever publishes at that moment: rclpy's RCLError is one.
        if node.context.ok():
            raise
