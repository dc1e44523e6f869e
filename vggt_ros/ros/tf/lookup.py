"""Transforms that others publish, from tf2's buffer; never waits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from vggt_ros.ros import compat, messages
from vggt_ros.ros.tf.frames import Frames
from vggt_ros.ros.tf.heard import Heard, Unread


def open_lookup(node: Node, heard: Heard, settings: Mapping[str, Any]) -> Lookup | NoLookup:
    """What the node's parameters ask for. Raises MissingPackage where it cannot do without, and tf2_ros is absent.

    What may hang on something that moves (a camera on a head, an IMU's mounting) is worth a look, but not
    indispensable.
    """
    frames = Frames.from_settings(settings)
    sources = settings['scale_sources'] or ()
    needed = frames.looks_up or settings['gravity'] == 'base' or 'odometry' in sources
    if not needed and frames.mode == 'none' and settings['gravity'] == 'level' and 'baseline' not in sources:
        return NoLookup('no transforms are asked for')
    try:
        return Lookup(node, heard)
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
    """Remembers /tf and /tf_static from now on; may be asked from any thread.

    Messages of /tf stay serialized until somebody asks: an idle node has no work with them.
    heard: hands them over. seconds: how far back it remembers.
    Raises :class:`vggt_ros.ros.compat.MissingPackage` where tf2_ros is not installed.
    """

    def __init__(self, node: Node, heard: Heard, seconds: float = 10.0) -> None:
        self._buffer = compat.transform_buffer(seconds)
        self._failure = compat.transform_exception()
        self._heard = heard
        self._lock = threading.Lock()
        self._unread = Unread(seconds)
        heard.listen(self._on_message)
        # tf2's Python buffer watches the system's clock; simulated time is the node's.
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True)
        self._jumps = node.get_clock().create_jump_callback(threshold, post_callback=lambda jump: self.clear())

    def __call__(self, target: str, source: str, stamp: int | None = None) -> np.ndarray | str:
        """T_target_source (4, 4), interpolated at ``stamp`` (ns; None: the latest), or why there is none.

        Fixed transforms hold at every stamp; moving ones are never extrapolated.
        """
        self._heard.update()
        with self._lock:
            for _, raw in self._unread.take():
                for transform in deserialize_message(raw, TFMessage).transforms:
                    self._buffer.set_transform(transform, 'tf')
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp or 0))
        except self._failure as error:
            return str(error)
        return messages.from_transform(found.transform)

    def _on_message(self, raw: bytes, static: bool) -> None:
        if static:
            for transform in deserialize_message(raw, TFMessage).transforms:
                self._buffer.set_transform_static(transform, 'tf_static')
            return
        with self._lock:
            self._unread.add(raw)

    def clear(self) -> None:
        """Forget what moves, because time began anew: tf2 refuses stamps far before those it has. /tf_static stays."""
        self._heard.update()
        with self._lock:
            self._unread.clear()
            self._buffer.clear()

    def close(self) -> None:
        """Stop remembering."""
        self._jumps.unregister()
        self._heard.forget(self._on_message)
