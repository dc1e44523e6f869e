"""The map that windows hang on: a bounded list of keyframes, and the frame published last."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vggt_ros.odometry.keyframe import Keyframe, pose_distance
from vggt_ros.odometry.windows.window import Window
from vggt_ros.similarity import Similarity

NEWEST = 10  # keyframes that are not forgotten, whatever they look like


class KeyframeMap:
    """keyframes: in the order of time. latest: the frame published last, a keyframe or not; None at first.

    distance: least pose distance (keyframe.py) between neighbours. capacity: most keyframes.
    """

    def __init__(self, distance: float, capacity: int) -> None:
        self.keyframes: list[Keyframe] = []
        self.latest: Keyframe | None = None
        self._distance, self._capacity = distance, capacity

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        pictures = sum(keyframe.frame.image.nbytes for keyframe in self.keyframes)
        return pictures + sum(keyframe.nbytes for keyframe in self.keyframes)

    def remember(self, view: Keyframe, worthy: bool) -> bool:
        """The frame published last, and whether it became a keyframe. worthy: whether it may."""
        self.latest = view
        far = not self.keyframes or pose_distance(self.keyframes[-1], view) > self._distance
        if far and worthy:
            self.keyframes.append(view)
        if len(self.keyframes) > self._capacity:
            del self.keyframes[self._redundant()]
        return far and worthy

    def anchors(self, window: Window) -> list[Keyframe]:
        """The anchors of a window, in slot order."""
        if self.latest is None:
            return []
        known = {keyframe.frame.index: keyframe for keyframe in (*self.keyframes, self.latest)}
        return [known[frame.index] for frame in window.frames[: window.anchors]]

    def move(self, moved: Similarity) -> None:
        """Every x in the map becomes ``moved`` x."""
        for keyframe in {id(one): one for one in (*self.keyframes, self.latest) if one is not None}.values():
            keyframe.move(moved)

    def bend(self, corrections: Mapping[int, Similarity]) -> Similarity:
        """Each frame's x becomes its ``corrections`` x, by index; returns that of the latest.

        They name every keyframe; where they do not name the latest frame, it goes with the newest of these.
        """
        newest = corrections[self.keyframes[-1].frame.index]
        for keyframe in self.keyframes:
            keyframe.move(corrections[keyframe.frame.index])
        if self.latest is None:
            return newest
        newest = corrections.get(self.latest.frame.index, newest)
        if all(self.latest is not keyframe for keyframe in self.keyframes):
            self.latest.move(newest)
        return newest

    def _redundant(self) -> int:
        """The keyframe that looks most like the one before it: its place stays known by that neighbour."""
        marks = np.stack([keyframe.descriptor for keyframe in self.keyframes[: max(2, len(self.keyframes) - NEWEST)]])
        return 1 + int(np.argmax(np.sum(marks[1:] * marks[:-1], axis=1)))
