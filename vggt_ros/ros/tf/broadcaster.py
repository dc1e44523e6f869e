"""Transforms on /tf: time never goes back, and no frame that somebody else places gets a second parent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from std_msgs.msg import Header

from vggt_ros.ros import messages
from vggt_ros.ros.compat import transform_broadcaster
from vggt_ros.ros.tf.heard import Heard
from vggt_ros.ros.tf.parents import Parents


class TransformEdge(NamedTuple):
    """Where a frame hangs. T: (4, 4) T_parent_child. advice: what to do when somebody else places the child."""

    parent: str
    child: str
    T: np.ndarray
    advice: str


class Broadcaster:
    """A publisher on /tf that watches what others publish there: ``parents``."""

    def __init__(self, node: Node, heard: Heard) -> None:
        self._node = node
        self.parents = Parents(node, heard)
        self._broadcaster = transform_broadcaster(node)
        self._newest: dict[str, int] = {}

    def close(self) -> None:
        """Stop listening and publishing."""
        self.parents.close()
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def reset(self) -> None:
        """Accept earlier stamps again."""
        self._newest.clear()

    def send(self, stamp: int, edges: Iterable[TransformEdge]) -> str | None:
        """Broadcast them in one message with this stamp (ns), unless a child has one as new; why not, where refused."""
        problem, transforms = None, []
        for edge in edges:
            conflict = self.parents.conflict(edge.child)
            if conflict:
                problem = f'{conflict}; {edge.parent} -> {edge.child} is not broadcast: {edge.advice}'
            elif stamp > self._newest.get(edge.child, -1):
                self._newest[edge.child] = stamp
                header = Header(stamp=messages.ns_to_time(stamp), frame_id=edge.parent)
                transforms.append(
                    TransformStamped(header=header, child_frame_id=edge.child, transform=messages.to_transform(edge.T))
                )
        if transforms:
            self.parents.sending(transforms)
            self._broadcaster.sendTransform(transforms)
        return problem
