"""Corners as points of the map: where the rays of several frames meet, and where a camera is that sees them.

The map's keyframes were adjusted together, and remember their corners: what two of them see from far enough apart has
a place in the map, whatever the network thinks of its depth (the local map of PTAM, Klein and Murray 2007).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, invert, project, rays, transform
from vggt_ros.depth import depth_at
from vggt_ros.odometry.epipolar import EPIPOLAR, LEAST_COMMON, essential
from vggt_ros.odometry.klt import Corners, common

PARALLAX = np.radians(1.0)  # between two rays from which their point is known
REPROJECTION = 2.0  # px at 518
FEWEST = 15  # points that agree on a pose
FEWEST_FOR_LENGTH = 5  # landmarks that tell how far the camera went
SHARE = 0.4  # the same as a share of those that are seen
MOST = 0.5  # share of the corners of two images that must agree on how they moved
ROUNDS = 15  # of reweighted least squares
ITERATIONS, CONFIDENCE = 300, 0.999  # of RANSAC


class View(NamedTuple):
    """T: (4, 4) in the map. K: (3, 3) in source pixels. corners: of its image."""

    T: np.ndarray
    K: np.ndarray
    corners: Corners


class Landmarks(NamedTuple):
    """id: (N,) ascending. xyz: (N, 3) in the map."""

    id: np.ndarray
    xyz: np.ndarray

    def seen_in(self, corners: Corners) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the landmarks and of the corners of an image that are the same points."""
        _, held, now = np.intersect1d(self.id, corners.id, assume_unique=True, return_indices=True)
        return held, now

    def and_others(self, others: Landmarks) -> Landmarks:
        """Also those of the others that are not among these."""
        rest = ~np.isin(others.id, self.id)
        ids = np.concatenate([self.id, others.id[rest]])
        order = np.argsort(ids)
        return Landmarks(ids[order], np.concatenate([self.xyz, others.xyz[rest]])[order])


NO_LANDMARKS = Landmarks(np.zeros(0, np.int64), np.zeros((0, 3)))


def triangulate(views: Sequence[View]) -> Landmarks:
    """The corners that views see from different places, where their rays meet: least squares of the distances."""
    if not views:
        return NO_LANDMARKS
    ids, times = np.unique(np.concatenate([view.corners.id for view in views]), return_counts=True)
    ids = ids[times > 1]
    uv = np.full((len(views), len(ids), 2), np.nan)
    for row, view in enumerate(views):
        _, here, there = np.intersect1d(ids, view.corners.id, assume_unique=True, return_indices=True)
        uv[row, here] = view.corners.uv[there]
    seen = np.isfinite(uv[..., 0])
    directions = np.stack([rays(one, view.K) @ view.T[:3, :3].T for one, view in zip(uv, views, strict=True)])
    directions = np.nan_to_num(directions / np.linalg.norm(directions, axis=-1, keepdims=True))
    cosine = np.where(seen[:, None] & seen[None], np.einsum('vni,wni->vwn', directions, directions), 1.0).min((0, 1))
    good = cosine < np.cos(PARALLAX)
    across = np.where(seen[..., None, None], np.eye(3) - directions[..., :, None] * directions[..., None, :], 0.0)
    A = across.sum(0)
    b = np.einsum('vnij,vj->ni', across, np.stack([view.T[:3, 3] for view in views]))
    xyz = np.full((len(ids), 3), np.nan)
    xyz[good] = np.linalg.solve(A[good], b[good][..., None])[..., 0]
    for one, view, here in zip(uv, views, seen, strict=True):
        local = transform(invert(view.T), xyz)
        with np.errstate(invalid='ignore'):
            error = np.linalg.norm(project(local, view.K) - one, axis=1)
            good &= ~here | ((local[:, 2] > 0) & (error < REPROJECTION * view.corners.unit))
    return Landmarks(ids[good], xyz[good])


def by_depth(view: View, depth: np.ndarray, pixel_map: PixelMap) -> Landmarks:
    """The corners of a view where its depth (h, w), of the network's pixels and in map units, puts them."""
    z = depth_at(depth, pixel_map.to_network(view.corners.uv))
    known = np.isfinite(z)
    local = rays(view.corners.uv[known], view.K) * z[known, None]
    return Landmarks(view.corners.id[known], transform(view.T, local))


def locate(landmarks: Landmarks, corners: Corners, K: np.ndarray) -> np.ndarray | None:
    """(4, 4) T_map_camera of an image by what most of its corners agree on; None where they do not tell.

    K: (3, 3) in source pixels.
    """
    held, now = landmarks.seen_in(corners)
    if len(held) < FEWEST:
        return None
    points, uv = landmarks.xyz[held], corners.uv[now]
    found = consensus(points, uv, K, REPROJECTION * corners.unit, ITERATIONS, CONFIDENCE)
    if found is None or len(found.rows) < max(FEWEST, SHARE * len(held)):
        return None
    rows, turn, shift = found
    turn, shift = cv2.solvePnPRefineLM(points[rows], uv[rows], K, None, turn, shift)
    return camera_at(turn, shift)


def locate_turned(landmarks: Landmarks, corners: Corners, K: np.ndarray, R: np.ndarray) -> np.ndarray | None:
    """The same for an image of which is known how it is turned, R (3, 3) in the map: only its place is sought.

    Where little is seen, a turn and a shift look nearly alike, and points that are off make one into the other.
    """
    held, now = landmarks.seen_in(corners)
    if len(held) < FEWEST:
        return None
    points, rays_ = landmarks.xyz[held], rays(corners.uv[now], K) @ R.T
    directions = rays_ / np.linalg.norm(rays_, axis=1, keepdims=True)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    within = REPROJECTION * corners.unit / K[0, 0]
    share, place = np.ones(len(points)), np.zeros(3)
    for _ in range(ROUNDS):
        A = np.einsum('n,nij->ij', share, across)
        place = np.linalg.solve(A + 1e-12 * np.trace(A) * np.eye(3), np.einsum('n,nij,nj->i', share, across, points))
        far = np.einsum('ni,ni->n', points - place, directions)
        off = np.linalg.norm(np.einsum('nij,nj->ni', across, points - place), axis=1)
        angle = off / np.maximum(far, 1e-9)
        share = np.where(far > 0, 1 / np.maximum(far, 1e-9) ** 2 / (1 + (angle / within) ** 2) ** 2, 0.0)
        if not share.any():
            return None
    if ((far > 0) & (angle < within)).sum() < max(FEWEST, SHARE * len(held)):
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, place
    return T


class Consensus(NamedTuple):
    """rows: (N,) of the points that agree. turn, shift: (3, 1) of the pose by the three that they agree with."""

    rows: np.ndarray
    turn: np.ndarray
    shift: np.ndarray


def consensus(
    points: np.ndarray, uv: np.ndarray, K: np.ndarray, within: float, iterations: int, confidence: float
) -> Consensus | None:
    """The pose by three of the points (N, 3) that most agree with, to ``within`` pixels of uv (N, 2): RANSAC."""
    found, turn, shift, inliers = cv2.solvePnPRansac(
        points,
        uv,
        K,
        None,
        iterationsCount=iterations,
        reprojectionError=within,
        confidence=confidence,
        flags=cv2.SOLVEPNP_AP3P,
    )
    return None if not found or inliers is None else Consensus(inliers[:, 0], turn, shift)


def camera_at(turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(4, 4) pose of a camera that OpenCV has as a rotation vector and a translation of the points."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return invert(T)


def two_views(first: Corners, second: Corners, K: np.ndarray) -> np.ndarray | None:
    """(4, 4) T_first_second, with a way of length 1, of two images of one camera; None where their corners do not tell.

    By the essential matrix that most of them agree on.
    """
    rows, others = common(first, second)
    if len(rows) < LEAST_COMMON:
        return None
    a, b = first.uv[rows], second.uv[others]
    found = essential(a, b, K, EPIPOLAR * first.unit)
    if found is None or found[1].sum() < max(FEWEST, MOST * len(rows)):
        return None
    R, t = _motion(found[0], rays(a[found[1]], K), rays(b[found[1]], K))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t
    return invert(T)


def _motion(E: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the four motions x_b = R x_a + t of an essential matrix the one of a camera: R (3, 3), t (3,) of length 1.

    a, b: (N, 3) rays of the same points. Of the two turns, half a turn apart, it is the smaller one, for both images
    see the points: where the way is short, points behind the camera (Hartley and Zisserman, 9.6) do not tell.
    """
    R_1, R_2, t = cv2.decomposeEssentialMat(E)
    R, t = (R_1 if np.trace(R_1) > np.trace(R_2) else R_2), t[:, 0]
    # b x (z R a + t) = 0, in the mean by the squared parallax, has a depth z > 0.
    turned = np.cross(b, a @ R.T)
    return R, -t if (turned * np.cross(b, t)).sum() > 0 else t


def bridged(view: View, seen: Corners, landmarks: Landmarks) -> np.ndarray | None:
    """(4, 4) T_map_camera of an image that shares more corners with a view than there are landmarks to hold it.

    Rotation and direction by the corners of the two, the length of the way by the landmarks, each of which tells one:
    the median. It is nothing where the camera only turned, whatever direction was found.
    """
    step = two_views(view.corners, seen, view.K)
    held, now = landmarks.seen_in(seen)
    if step is None or len(held) < FEWEST_FOR_LENGTH:
        return None
    R, t = step[:3, :3], step[:3, 3]
    points = transform(invert(view.T), landmarks.xyz[held])
    observed = rays(seen.uv[now], view.K)
    # observed x R^T (X - s t) = 0
    far, way = np.cross(observed, points @ R), np.cross(observed, t @ R)
    lengths = (far * way).sum(1) / np.maximum((way**2).sum(1), 1e-12)
    step[:3, 3] *= np.median(lengths)
    return view.T @ step
