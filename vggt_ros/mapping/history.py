"""Where the camera was: all known poses of an epoch. They hang on keyframes and follow their corrections."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vggt_ros.camera import invert
from vggt_ros.files.trajectory import Trajectory
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate


@dataclass(frozen=True, eq=False)
class Pinhole:
    """One image of the COLMAP model.

    name: of the image file. K: (3, 3) in pixels of the source image, integer = centre. size: (width, height).
    T_map_camera: (4, 4).
    """

    name: str
    K: np.ndarray
    size: tuple[int, int]
    T_map_camera: np.ndarray


@dataclass(eq=False)
class _Keyframe:
    """T: (4, 4) T_map_camera. scale: map units per map unit of the time when it came. K: of the source image."""

    stamp: int
    T: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    scale: float = 1.0


@dataclass(frozen=True, eq=False, slots=True)  # tens of thousands of them
class _Pose:
    """T_keyframe_camera: (4, 4), lengths in the keyframe's first unit."""

    stamp: int
    keyframe: _Keyframe
    T_keyframe_camera: np.ndarray

    def T_map_camera(self) -> np.ndarray:
        T = self.T_keyframe_camera.copy()
        T[:3, 3] *= self.keyframe.scale
        return self.keyframe.T @ T


class History:
    """Poses by ``Frame.index``, each relative to the last keyframe before it (or the first one). Not thread-safe.

    Bounded: beyond ``poses`` poses every second one of the older half is dropped, and so are keyframes beyond
    ``keyframes``: the past grows thinner, and never ends.
    """

    def __init__(self, poses: int = 50_000, keyframes: int = 2_000) -> None:
        self._most_poses, self._most_keyframes = poses, keyframes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._poses: dict[int, _Pose] = {}
        self._keyframes: dict[int, _Keyframe] = {}
        self._order: list[int] = []  # of the keyframes' indices

    def add_keyframe(self, estimate: Estimate) -> None:
        """A keyframe and its pose. One that is known moves, and takes what hangs on it along."""
        index, T = estimate.frame.index, estimate.T_map_camera.astype(np.float64)
        known = self._keyframes.get(index)
        if known is not None:
            known.T = T
        else:
            K = estimate.map.K_to_source(estimate.K)
            self._keyframes[index] = _Keyframe(estimate.frame.stamp, T, K, estimate.frame.size)
            insort(self._order, index)
            self._thin_keyframes()
        self.add_pose(index, estimate.frame.stamp, T)

    def add_pose(self, index: int, stamp: int, T_map_camera: np.ndarray) -> None:
        """A pose (4, 4) in the map as it is now, in place of an earlier one of this image.

        Before the first keyframe it is left out: there is nothing to hang it on. So is one that is not finite.
        """
        if not self._order or not np.isfinite(T_map_camera).all():
            return
        keyframe = self._keyframes[self._order[max(0, bisect_right(self._order, index) - 1)]]
        T = invert(keyframe.T) @ T_map_camera
        T[:3, 3] /= keyframe.scale
        self._poses[index] = _Pose(stamp, keyframe, T)
        if len(self._poses) > self._most_poses:
            for old in sorted(self._poses)[1 : self._most_poses // 2 : 2]:
                del self._poses[old]

    def correct(self, corrections: Mapping[int, Similarity]) -> None:
        """Move the keyframes that are named by index, x -> similarity x, and all poses that hang on them."""
        for index, moved in corrections.items():
            if (keyframe := self._keyframes.get(index)) is not None:
                keyframe.T = moved.pose(keyframe.T)
                keyframe.scale *= moved.scale

    def keyframes(self) -> list[int]:
        """The indices of the keyframes, in order."""
        return list(self._order)

    def trajectory(self) -> Trajectory:
        """All poses in the order of their stamps."""
        poses = sorted(self._poses.values(), key=lambda pose: pose.stamp)
        T = np.array([pose.T_map_camera() for pose in poses]).reshape(-1, 4, 4)
        return Trajectory(np.array([pose.stamp for pose in poses], np.int64), T)

    def pinholes(self) -> list[Pinhole]:
        """The keyframes in order. Images are named by their stamps in nanoseconds."""
        found = [self._keyframes[index] for index in self._order]
        return [Pinhole(f'{one.stamp}.png', one.K, one.size, one.T) for one in found]

    def _thin_keyframes(self) -> None:
        if len(self._order) <= self._most_keyframes:
            return
        gone = set()
        for index in self._order[1 : self._most_keyframes // 2 : 2]:
            gone.add(self._keyframes.pop(index))
        self._order = sorted(self._keyframes)
        for index, pose in list(self._poses.items()):
            if pose.keyframe in gone:
                self.add_pose(index, pose.stamp, pose.T_map_camera())
