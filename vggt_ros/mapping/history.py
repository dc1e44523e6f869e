"""Where the camera was: all known poses of an epoch. They hang on keyframes and follow their corrections."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, image_size, invert
from vggt_ros.files.trajectory import Trajectory
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate

QUALITY = 90  # of the JPEG files: some 15 kB at 320x240, 60 at 640x480


@dataclass(frozen=True, eq=False)
class Pinhole:
    """One image of the COLMAP model.

    name: of the image file. K: (3, 3) in its pixels, integer = centre. size: (width, height). T_map_camera: (4, 4).
    jpeg: the file.
    """

    name: str
    K: np.ndarray
    size: tuple[int, int]
    T_map_camera: np.ndarray
    jpeg: bytes


@dataclass(eq=False)
class _Keyframe:
    """T: (4, 4) T_map_camera. K: of the picture that was kept, of this size, a JPEG file. scale: map units per map unit
    of the time when it came."""

    stamp: int
    T: np.ndarray
    K: np.ndarray
    size: tuple[int, int]
    jpeg: bytes
    scale: float = 1.0


_POSE = np.dtype(
    [
        ('index', np.int64),
        ('stamp', np.int64),
        ('keyframe', np.int64),  # its index
        ('T', np.float64, (4, 4)),  # T_keyframe_camera, lengths in the keyframe's first unit
    ]
)


class History:
    """Poses by ``Frame.index``, each relative to the last keyframe before it (or the first one). Not thread-safe.

    Bounded: beyond ``poses`` poses every second one of the older half is dropped, and so are keyframes beyond
    ``keyframes``, and pictures of keyframes beyond ``pictures`` bytes: the past grows thinner, and never ends.
    """

    def __init__(self, poses: int = 50_000, keyframes: int = 2_000, pictures: int = 64 << 20) -> None:
        self._most_keyframes, self._most_pictures = keyframes, pictures
        # One block: tens of thousands of small arrays that live for hours keep the heap around them from shrinking.
        self._table = np.empty(poses + 1, _POSE)
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._poses = self._table[:0]  # those in use, by index
        self._keyframes: dict[int, _Keyframe] = {}
        self._order: list[int] = []  # of the keyframes' indices

    @property
    def nbytes(self) -> int:
        """What its pictures hold in memory."""
        return sum(len(keyframe.jpeg) for keyframe in self._keyframes.values())

    def add_keyframe(self, estimate: Estimate) -> None:
        """A keyframe and its pose. One that is known moves, and takes what hangs on it along."""
        index, T = estimate.frame.index, estimate.T_map_camera.astype(np.float64)
        known = self._keyframes.get(index)
        if known is not None:
            known.T = T
        else:
            self._keyframes[index] = _keyframe(estimate, T)
            insort(self._order, index)
            self._thin_keyframes()
            self._thin_pictures()
        self.add_pose(index, estimate.frame.stamp, T)

    def add_pose(self, index: int, stamp: int, T_map_camera: np.ndarray) -> None:
        """A pose (4, 4) in the map as it is now, in place of an earlier one of this image.

        Before the first keyframe it is left out: there is nothing to hang it on. So is one that is not finite.
        """
        if not self._order or not np.isfinite(T_map_camera).all():
            return
        nearest = self._order[max(0, bisect_right(self._order, index) - 1)]
        keyframe = self._keyframes[nearest]
        T = invert(keyframe.T) @ T_map_camera
        T[:3, 3] /= keyframe.scale
        at, count = int(np.searchsorted(self._poses['index'], index)), len(self._poses)
        if at == count or self._poses['index'][at] != index:
            self._poses = self._table[: count + 1]
            self._poses[at + 1 :] = self._poses[at:-1].copy()
        self._poses[at] = index, stamp, nearest, T
        if len(self._poses) == len(self._table):
            kept = np.delete(self._poses, np.s_[1 : len(self._table) // 2 : 2])
            self._poses = self._table[: len(kept)]
            self._poses[:] = kept

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
        poses = self._poses[np.argsort(self._poses['stamp'], kind='stable')]
        return Trajectory(poses['stamp'].copy(), self._placed(poses))

    def pinholes(self) -> list[Pinhole]:
        """The keyframes that still have their picture, in order. Images are named by their stamps in nanoseconds."""
        found = [one for index in self._order if (one := self._keyframes[index]).jpeg]
        return [Pinhole(f'{one.stamp}.jpg', one.K, one.size, one.T, one.jpeg) for one in found]

    def _thin_pictures(self) -> None:
        having = [one for index in self._order if (one := self._keyframes[index]).jpeg]
        if sum(len(one.jpeg) for one in having) > self._most_pictures:
            for one in having[1 : len(having) // 2 : 2]:
                one.jpeg = b''

    def _thin_keyframes(self) -> None:
        if len(self._order) <= self._most_keyframes:
            return
        gone = self._order[1 : self._most_keyframes // 2 : 2]
        orphans = self._poses[np.isin(self._poses['keyframe'], gone)]
        placed = self._placed(orphans)
        for index in gone:
            del self._keyframes[index]
        self._order = sorted(self._keyframes)
        for orphan, T_map_camera in zip(orphans, placed, strict=True):
            self.add_pose(int(orphan['index']), int(orphan['stamp']), T_map_camera)

    def _placed(self, poses: np.ndarray) -> np.ndarray:
        """(N,) of the table -> (N, 4, 4) T_map_camera."""
        keyframes = [self._keyframes[index] for index in self._order]
        which = np.searchsorted(self._order, poses['keyframe'])
        T = poses['T'].copy()
        T[:, :3, 3] *= np.array([keyframe.scale for keyframe in keyframes])[which, None]
        return np.array([keyframe.T for keyframe in keyframes]).reshape(-1, 4, 4)[which] @ T


def _keyframe(estimate: Estimate, T_map_camera: np.ndarray) -> _Keyframe:
    frame = estimate.frame
    size = image_size(frame.image)
    # Of a large camera a smaller picture was kept, see Frame.kept.
    K = PixelMap(frame.size, size, (0, 0), size).K_to_network(estimate.map.K_to_source(estimate.K))
    jpeg = cv2.imencode('.jpg', frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return _Keyframe(frame.stamp, T_map_camera, K, size, jpeg.tobytes())
