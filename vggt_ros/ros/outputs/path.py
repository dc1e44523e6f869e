"""``~/path``: where the camera went, as far back as it is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from vggt_ros import camera
from vggt_ros.odometry.keyframe import typical_depth
from vggt_ros.ros import messages
from vggt_ros.ros.outputs.publishers import Publishers, wanted
from vggt_ros.ros.steady import steady_timer
from vggt_ros.similarity import Similarity, move_poses
from vggt_ros.types import Estimate

PERIOD = 1.0  # s between two messages
STEP = 0.02  # way between two poses, in median depths
SAME = 1e-6  # map units, and elements of a rotation: what has moved by less is told already
TURN = float(np.radians(2.0))  # or angle


@dataclass(eq=False)
class _Step:
    """index: of the image. stamp: ns. T: (4, 4) T_map_camera. message: as published last, None before. is_told: whether
    it still says so.
    """

    index: int
    stamp: int
    T: np.ndarray
    message: PoseStamped | None = None
    is_told: bool = False


class PathOutput:
    """Poses some way apart, and the newest; a message once in PERIOD seconds (of the wall clock) when something is new.

    The messages of the poses are kept: only new ones are made, and those filled anew that a correction has moved. 1,000
    of them then take milliseconds, once a second.
    """

    def __init__(self, node: LifecycleNode, publishers: Publishers, map_frame: str) -> None:
        self._node, self._map_frame = node, map_frame
        self._steps: deque[_Step] = deque()
        self._is_new = False
        self._publisher = publishers.add(Path, '~/path')
        self._timer = steady_timer(node, PERIOD, self.publish)

    def close(self) -> None:
        """End the timer."""
        self._node.destroy_timer(self._timer)

    def clear(self) -> None:
        """Forget all poses."""
        self._steps.clear()

    def go_on(self, estimate: Estimate, length: int) -> None:
        """The camera is here now. length: most poses kept, the newest stay."""
        if len(self._steps) > 1 and _is_near(self._steps[-2].T, self._steps[-1].T, estimate):
            self._steps.pop()  # was only where the camera stood
        self._steps.append(_Step(estimate.frame.index, estimate.frame.stamp, estimate.T_map_camera))
        while len(self._steps) > length:
            self._steps.popleft()
        self._is_new = True

    def correct(self, corrections: Mapping[int, Similarity]) -> None:
        """Move the poses with their keyframes."""
        if not corrections or not self._steps:
            return
        poses = np.stack([step.T for step in self._steps])
        moved = move_poses(corrections, [step.index for step in self._steps], poses)
        changed = np.abs(moved - poses).max((1, 2)) > SAME  # as a rule the newest of them
        for number in np.flatnonzero(changed).tolist():
            self._steps[number].T, self._steps[number].is_told = moved[number], False
        self._is_new |= bool(changed.any())

    def publish(self) -> None:
        """Once in PERIOD seconds; nothing when nothing is new or nobody listens."""
        if not self._is_new or not self._steps or not wanted(self._publisher):
            return
        stale = [step for step in self._steps if not step.is_told]
        poses = np.stack([step.T for step in stale])
        for step, q, t in zip(
            stale, Rotation.from_matrix(poses[:, :3, :3]).as_quat().tolist(), poses[:, :3, 3].tolist(), strict=True
        ):
            step.message = step.message or PoseStamped(header=self._header(step.stamp))
            messages.fill_pose(step.message.pose, t, q)
            step.is_told = True
        self._is_new = False
        head = self._header(self._steps[-1].stamp)
        self._publisher.publish(Path(header=head, poses=[step.message for step in self._steps]))

    def _header(self, stamp: int) -> Header:
        return Header(stamp=messages.ns_to_time(stamp), frame_id=self._map_frame)


def _is_near(kept: np.ndarray, newest: np.ndarray, estimate: Estimate) -> bool:
    step = camera.invert(kept) @ newest
    turn = np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1.0, 1.0))
    return bool(turn < TURN and np.linalg.norm(step[:3, 3]) < STEP * typical_depth(estimate.depth))
