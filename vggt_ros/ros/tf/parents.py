"""Who places which frame on /tf and /tf_static: the tree as others make it, without our own part."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from vggt_ros.camera import invert
from vggt_ros.ros.messages import frame_name, from_transform
from vggt_ros.ros.polled import read
from vggt_ros.ros.tf.heard import Heard, Unread

FORGET = 5.0  # seconds after which a frame that nobody else has placed on /tf any more is free again
_OWN = 256  # transforms of ours whose echo is waited for


class _Fixed(NamedTuple):
    """Where a frame of /tf_static hangs. T: (4, 4) T_parent_child."""

    parent: str
    T: np.ndarray


class Parents:
    """A frame has one parent and one publisher (REP-105): a second one tears the tree or makes it flutter.

    Messages of /tf stay serialized until somebody asks: an idle node has no work with them.
    node: its name is ours. heard: hands over what is said.
    """

    def __init__(self, node: Node, heard: Heard) -> None:
        self._node, self._heard = node, heard
        self._lock = threading.Lock()  # what is heard is handed over by whoever asks first
        self._static: dict[str, _Fixed] = {}
        self._moving: dict[str, tuple[str, float]] = {}
        self._ours: set[str] = set()
        self._own: OrderedDict[tuple, None] = OrderedDict()
        self._unread = Unread(FORGET)
        heard.listen(self._on_message)

    def close(self) -> None:
        """Stop listening."""
        self._heard.forget(self._on_message)

    def sending(self, transforms: Iterable[TransformStamped]) -> None:
        """Say before they are sent which transforms are ours: /tf does not tell who sent what."""
        with self._lock:
            for transform in transforms:
                self._ours.add(transform.child_frame_id)
                self._own[_content(transform)] = None
                if len(self._own) > _OWN:
                    self._own.popitem(last=False)

    def conflict(self, child: str) -> str | None:
        """Who else places this frame, None when nobody does."""
        self._heard.update()
        with self._lock:
            self._read()
            fixed, moving = self._static.get(child), self._placed(child)
        if fixed is not None:
            return f'{child} already has the parent {fixed.parent} on {self._publishers("/tf_static")}'
        if moving is not None:
            return f'{child} is already placed in {moving} on {self._publishers("/tf")}'
        return None

    def root(self, frame: str, stands_still: Callable[[str], bool]) -> str:
        """The frame at the top of the tree of others in which this one hangs, itself where it hangs in none.

        What is placed in a frame that ``stands_still`` is a top, too: there begins what others know of the motion.
        """
        self._heard.update()
        with self._lock:
            self._read()
            for above in self._above(frame):
                if stands_still(above):
                    break
                frame = above
        return frame

    def fixed(self, frame: str, root: str) -> np.ndarray | None:
        """T_frame_root (4, 4) over transforms of /tf_static, None where a part between them moves."""
        T_root_frame = np.eye(4)
        with self._lock:
            while frame != root:
                fixed = self._static.get(frame)
                if fixed is None:
                    return None
                frame, T_parent_frame = fixed
                T_root_frame = T_parent_frame @ T_root_frame
        return invert(T_root_frame)

    def _above(self, frame: str) -> Iterator[str]:
        """The parent, its parent, and so on; where others have made a circle, once around."""
        met = {frame}
        while True:
            fixed = self._static.get(frame)
            parent = self._placed(frame) if fixed is None else fixed.parent
            if parent is None or parent in met:
                return
            met.add(parent)
            yield parent
            frame = parent

    def _placed(self, child: str) -> str | None:
        """In what others place this frame on /tf."""
        parent, seen = self._moving.get(child, (None, -FORGET))
        return parent if monotonic() - seen < FORGET else None

    def _publishers(self, topic: str) -> str:
        """The topic and the other nodes that publish on it."""
        own = self._node.get_namespace(), self._node.get_name()
        publishers = self._node.get_publishers_info_by_topic(topic)
        others = {(one.node_namespace, one.node_name) for one in publishers} - {own}
        names = sorted(f'{namespace.rstrip("/")}/{name}' for namespace, name in others)
        return f'{topic} (published by {" or ".join(names)})' if names else topic

    def _on_message(self, raw: bytes, static: bool) -> None:
        with self._lock:
            if static:
                for parent, child, one in _usable(raw):
                    self._static[child] = _Fixed(parent, from_transform(one.transform))
                return
            self._unread.add(raw)

    def _read(self) -> None:
        for seen, raw in self._unread.take():
            for parent, child, one in _usable(raw):
                if child not in self._ours or _content(one) not in self._own:
                    self._moving[child] = parent, seen


def _usable(raw: bytes) -> Iterator[tuple[str, str, Any]]:
    """Parent, child and transform of what tf2 would not refuse, either."""
    for one in read(raw, TFMessage).transforms:
        child, parent = frame_name(one.child_frame_id), frame_name(one.header.frame_id)
        if child and parent and child != parent and _is_rigid(one.transform):
            yield parent, child, one


def _is_rigid(transform: Any) -> bool:
    """Finite, and its quaternion as near to length 1 as tf2 wants it (BufferCore::setTransform)."""
    t, q = transform.translation, transform.rotation
    return abs(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w - 1) < 0.01 and math.isfinite(t.x + t.y + t.z)


def _content(transform: Any) -> tuple:
    """All that it says. The stamp alone does not tell ours: who looks at the same images has the same stamps."""
    stamp, t, q = transform.header.stamp, transform.transform.translation, transform.transform.rotation
    names = transform.header.frame_id, transform.child_frame_id
    return (*names, stamp.sec, stamp.nanosec, t.x, t.y, t.z, q.x, q.y, q.z, q.w)
