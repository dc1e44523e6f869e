"""Transforms that others publish, from tf2's buffer; never waits."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from vggt_ros.ros import compat, messages
from vggt_ros.ros.tf.frames import Frames


def open_lookup(node: Node, settings: dict[str, Any]) -> Lookup | NoLookup:
    """What the node's parameters ask for. Raises MissingPackage where it cannot do without, and tf2_ros is absent.

    An IMU's mounting (gravity auto) is worth a look, but not indispensable.
    """
    needed = Frames.from_settings(settings).looks_up or settings['gravity'] == 'base'
    needed = needed or 'odometry' in (settings['scale_sources'] or ())
    if not needed and settings['gravity'] == 'level' and 'baseline' not in (settings['scale_sources'] or ()):
        return NoLookup('no transforms are asked for')
    try:
        return Lookup(node)
    except compat.MissingPackage as error:
        if needed:
            raise
        return NoLookup(str(error))


class NoLookup:
    """Answers with the reason why there are no transforms."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(self, target: str, source: str, stamp: int | None = None) -> str:
        return self._reason

    def clear(self) -> None:
        """Nothing to forget."""

    def close(self) -> None:
        """Nothing to end."""


class Lookup:
    """Listens to /tf and /tf_static from now on; may be asked from any thread.

    node: its executor feeds the buffer. seconds: how far back it remembers.
    Raises :class:`vggt_ros.ros.compat.MissingPackage` where tf2_ros is not installed.
    """

    def __init__(self, node: Node, seconds: float = 10.0) -> None:
        self._buffer, self._listener = compat.transform_listener(node, seconds)
        self._failure = compat.transform_exception()
        # tf2's Python buffer watches the system's clock; simulated time is the node's.
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(threshold, post_callback=lambda jump: self.clear())

    def __call__(self, target: str, source: str, stamp: int | None = None) -> np.ndarray | str:
        """T_target_source (4, 4), interpolated at ``stamp`` (ns; None: the latest), or why there is none.

        Fixed transforms hold at every stamp; moving ones are never extrapolated.
        """
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp or 0))
        except self._failure as error:
            return str(error)
        return messages.from_transform(found.transform)

    def clear(self) -> None:
        """Forget what moves, because time began anew: tf2 refuses stamps far before those it has. /tf_static stays."""
        self._buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        self._jumps.unregister()
        self._listener.unregister()
