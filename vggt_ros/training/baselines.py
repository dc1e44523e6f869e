"""What a user would try instead: nothing at all, and OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, pairwise

import cv2
import numpy as np

from vggt_ros.camera import PixelMap
from vggt_ros.types import Accuracy, Frame, Predictor, TrackPrediction, WindowPrediction

_FOV = 70.0  # degrees
_RATIO = 0.8  # Lowe's
_FORWARD_BACKWARD = 1.0  # pixels
_FEWEST = 8  # matches


class Still(Predictor):
    """A predictor for which no camera moves, everything is equally far, and points stay where they are."""

    def __init__(self, pixel_map: Callable[[tuple[int, int]], PixelMap]) -> None:
        self._pixel_map, self.accuracy = pixel_map, Accuracy()

    def pixel_map(self, size: tuple[int, int]) -> PixelMap:
        """As it was given."""
        return self._pixel_map(size)

    def describe(self) -> dict[str, str]:
        """What it is, for people."""
        return {'network': 'none'}

    def predict(
        self, frames: Sequence[Frame], depth: Sequence[int] | None = None, queries: np.ndarray | None = None
    ) -> WindowPrediction:
        """As :meth:`vggt_ros.types.Predictor.predict`."""
        maps, count = tuple(self.pixel_map(frame.size) for frame in frames), len(frames)
        width, height = maps[0].size
        focal = width / 2 / np.tan(np.radians(_FOV) / 2)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        tracks = None
        if queries is not None:
            sure = np.ones((count, len(queries)), np.float32)
            tracks = TrackPrediction(np.repeat(np.asarray(queries, np.float32)[None], count, axis=0), sure, sure)
        slots = range(count) if depth is None else depth
        return WindowPrediction(
            indices=tuple(frame.index for frame in frames),
            T_window_camera=np.tile(np.eye(4), (count, 1, 1)),
            K=np.tile(K, (count, 1, 1)),
            maps=maps,
            depth={slot: np.ones((height, width), np.float32) for slot in slots},
            confidence={slot: np.ones((height, width), np.float32) for slot in slots},
            descriptor=np.zeros((count, 1), np.float32),
            tracks=tracks,
        )


_DETECTORS: dict[str, tuple[Callable[[], cv2.Feature2D], int]] = {
    'SIFT': (cv2.SIFT.create, cv2.NORM_L2),
    # ORB's usual margin of 31 pixels would leave half of a small picture.
    'ORB': (partial(cv2.ORB.create, nfeatures=2000, edgeThreshold=15), cv2.NORM_HAMMING),
}


def essential_poses(
    images: Sequence[np.ndarray], K: np.ndarray, detector: str = 'SIFT'
) -> dict[tuple[int, int], np.ndarray]:
    """(i, j) -> T_j_i (4, 4) with a translation of length 1, by features, ratio test, RANSAC on the essential matrix.

    detector: 'SIFT' or 'ORB'. K is the true one. Pairs without enough matches are left out.
    """
    create, norm = _DETECTORS[detector]
    features, matcher = create(), cv2.BFMatcher(norm)
    found = [features.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in images]
    poses = {}
    for i, j in combinations(range(len(images)), 2):
        (points_i, words_i), (points_j, words_j) = found[i], found[j]
        if words_i is None or words_j is None:
            continue
        best = [pair for pair in matcher.knnMatch(words_i, words_j, k=2) if len(pair) == 2]
        good = [one for one, other in best if one.distance < _RATIO * other.distance]
        if len(good) < _FEWEST:
            continue
        a = np.array([points_i[match.queryIdx].pt for match in good])
        b = np.array([points_j[match.trainIdx].pt for match in good])
        E, inliers = cv2.findEssentialMat(a, b, K, cv2.RANSAC, 0.999, 1.0)
        if E is None or E.shape != (3, 3):
            continue
        _, R, t, _ = cv2.recoverPose(E, a, b, K, mask=inliers)
        poses[i, j] = np.eye(4)
        poses[i, j][:3, :3], poses[i, j][:3, 3] = R, t[:, 0]
    return poses


def klt_tracks(images: Sequence[np.ndarray], queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pyramidal Lucas-Kanade from frame to frame with a forward-backward check: uv (S, Q, 2) and visibility (S, Q)."""
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    points = queries.astype(np.float32)[:, None]
    alive = np.ones(len(queries), bool)
    uv, visibility = [points[:, 0].copy()], [alive.astype(np.float32)]
    for before, after in pairwise(grey):
        moved, status = _flow(before, after, points)
        back, status_back = _flow(after, before, moved)
        returns = np.linalg.norm((back - points)[:, 0], axis=-1) < _FORWARD_BACKWARD
        alive &= status & status_back & returns
        points = np.where(alive[:, None, None], moved, points)
        uv.append(points[:, 0].copy())
        visibility.append(alive.astype(np.float32))
    return np.stack(uv), np.stack(visibility)


def _flow(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points (Q, 1, 2) moved to, and whether that is known (Q,)."""
    moved, status, _ = cv2.calcOpticalFlowPyrLK(before, after, points, points.copy(), winSize=(15, 15), maxLevel=3)
    return np.asarray(moved), np.asarray(status)[:, 0] > 0
