"""What is known of keypoint tracks, as arrays; how they look and where they should be in an image."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from vggt_ros import camera
from vggt_ros.odometry import patches
from vggt_ros.odometry.working_image import REFERENCE, working_image, working_size
from vggt_ros.types import Frame

TOLD = 400.0  # information about log z that a window brings: 5 %
MOST = 1e4  # of it that is kept, so that it can still change: 1 %
NEAR = 20  # points that determine what all have in common


class TrackedView:
    """A frame at the size at which corners are followed; all pixels here are of that size.

    T: (4, 4) T_map_camera, None unknown. K: (3, 3), of use with T only. unit: pixels per px at 518.
    """

    def __init__(self, frame: Frame, K: np.ndarray | None, T: np.ndarray | None) -> None:
        self.map = working_size(frame.size)
        self.grey, self.index = working_image(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), self.map), frame.index
        self.T = None if K is None else T
        self.K = np.eye(3) if K is None else self.map.K_to_network(K)
        self.unit = max(self.map.size) / REFERENCE

    def inside(self, uv: np.ndarray) -> np.ndarray:
        """(N,) whether pixels (N, 2) are in the image; NaN is not."""
        with np.errstate(invalid='ignore'):
            return np.logical_and.reduce((uv > -0.5) & (uv < np.array(self.map.size) - 0.5), axis=1)


class Table:
    """One row for each track and each candidate. The anchor is the image in which its picture was taken.

    banned: ids of corners that something else than a still point made; they begin no tracks.
    """

    FIELDS = (
        ('id', np.uint64, ()),
        ('public', np.bool_, ()),  # a track; else a candidate, without id
        ('here', np.bool_, ()),  # found in the newest image
        ('corner', np.int64, ()),  # id of the corner that leads it, -1: none
        ('uv', np.float64, (2,)),  # where it was last
        ('age', np.uint32, ()),  # images in which it was found
        ('seen', np.int64, ()),  # index of the last of them
        ('off', np.int64, ()),  # images since
        ('poor', np.int64, ()),  # windows in a row in which the network does not agree
        ('visibility', np.float64, ()),
        ('confidence', np.float64, ()),
        ('anchor', np.int64, ()),  # index of its image
        ('tile', np.uint8, (patches.TILE, patches.TILE)),
        ('T', np.float64, (4, 4)),  # T_map_camera of the anchor, NaN unknown
        ('ray', np.float64, (3,)),  # in the anchor, z = 1
        ('z', np.float64, ()),  # along the ray, NaN unknown
        ('information', np.float64, ()),  # 1 / variance of log z
    )

    def __init__(self) -> None:
        self._columns = {name: np.zeros((0, *shape), kind) for name, kind, shape in self.FIELDS}
        self.banned = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self['id'])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows, (N,) bool."""
        if not rows.all():
            self._columns = {name: values[rows] for name, values in self._columns.items()}

    def add(self, count: int, **values: np.ndarray | float) -> None:
        """More rows; what is not given is 0."""
        for name, kind, shape in self.FIELDS:
            new = np.zeros((count, *shape), kind)
            new[...] = values.get(name, 0)
            self._columns[name] = np.concatenate([self._columns[name], new])

    def release(self, rows: np.ndarray) -> None:
        """These, (N,) bool, have lost their corners, which begin no others."""
        corner = self['corner'][rows]
        self.banned = np.union1d(self.banned, corner[corner >= 0])
        self['corner'][rows] = -1

    def end(self, rows: np.ndarray) -> None:
        """These, (N,) bool, are over; their corners begin no others."""
        self.release(rows)
        self.keep(~rows)

    @property
    def anchored(self) -> np.ndarray:
        """(N,) whether it is known where the anchor is."""
        return np.isfinite(self['T'][:, 0, 0])

    @property
    def placed(self) -> np.ndarray:
        """(N,) whether a window has said where the point is."""
        return (self['information'] >= TOLD) & np.isfinite(self['z'])

    def points(self) -> np.ndarray:
        """(N, 3) in the map, NaN unknown."""
        T = self['T']
        return np.einsum('nij,nj->ni', T[:, :3, :3], self['ray'] * self['z'][:, None]) + T[:, :3, 3]

    def distance(self, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
        """(M,) depth in the anchors of these rows (M,) of points (M, 3) of the map, NaN unknown."""
        T = self['T'][rows]
        return np.einsum('ni,ni->n', T[:, :3, 2], points - T[:, :3, 3])

    def anchor(self, rows: np.ndarray, view: TrackedView) -> None:
        """Take the pictures of these rows (M,) anew, where they are now; the points stay."""
        uv = self['uv'][rows]
        self['tile'][rows] = patches.cut(view.grey, uv)
        self['anchor'][rows] = view.index
        if view.T is None:
            return
        z = camera.transform(camera.invert(view.T), self.points()[rows])[:, 2]
        self['z'][rows] = np.where(z > 0, z, np.nan)
        self['T'][rows], self['ray'][rows] = view.T, camera.rays(uv, view.K)

    def learn(self, rows: np.ndarray, step: np.ndarray, information: np.ndarray, most: float) -> None:
        """Change log z of these rows (M,) by what was measured (M,), as far as it is not known better; one filter each.

        The depth filter of SVO (Forster et al., ICRA 2014, section VI), without its outliers. most: information that is
        kept, so that it can still change.
        """
        total = self['information'][rows] + information
        self['z'][rows] *= np.exp(np.clip(step * information / np.maximum(total, 1e-9), -0.3, 0.3))
        self['information'][rows] = np.minimum(total, most)

    def expected(self, T_map_camera: np.ndarray | None, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) where the points should be, NaN unknown, and (N, 2, 2) how offsets in their pictures look here.

        A picture is taken for a plane that faced the camera (SVO, section IV); as it was, where no pose is known; NaN
        where only one of two is.
        """
        uv, A = np.full((len(self), 2), np.nan), np.tile(np.eye(2), (len(self), 1, 1))
        anchored = self.anchored
        A[anchored] = np.nan
        if T_map_camera is None or not anchored.any():
            return uv, A
        T = camera.invert(T_map_camera) @ self['T'][anchored]
        z = np.where(np.isfinite(self['z'][anchored]), self['z'][anchored], 1e6)
        steps = np.array([[0, 0, 0], [1 / K[0, 0], 0, 0], [0, 1 / K[1, 1], 0]])
        points = (self['ray'][anchored][:, None] + steps) * z[:, None, None]
        found = camera.project(np.einsum('nij,nkj->nki', T[:, :3, :3], points) + T[:, None, :3, 3], K)
        uv[anchored] = found[:, 0]
        A[anchored] = np.swapaxes(found[:, 1:] - found[:, :1], 1, 2)
        return uv, A

    def residual(self, view: TrackedView, T: np.ndarray, rows: np.ndarray, uv: np.ndarray) -> Residual:
        """Pixels (M, 2) of these rows (M,) against where the points should be, seen from T_map_camera ``T`` (4, 4)."""
        T_inverse, K = camera.invert(T), view.K
        local = camera.transform(T_inverse, self.points()[rows])
        x, y, z = np.where(local[:, 2:] > 0, local, np.nan).T
        lever = local - camera.transform(T_inverse, self['T'][rows, :3, 3])
        # d uv / d log z: the point moves along its ray, away from the anchor.
        along = np.stack([lever[:, 0] - x / z * lever[:, 2], lever[:, 1] - y / z * lever[:, 2]], -1)
        along *= np.diag(K)[:2] / z[:, None] / view.unit
        away = (uv - camera.project(local, K)) / view.unit
        length = np.linalg.norm(along, axis=1)
        direction = along / np.maximum(length, 1e-9)[:, None]
        part = (away * direction).sum(1)
        return Residual(part, np.linalg.norm(away - part[:, None] * direction, axis=1), length)


class Residual(NamedTuple):
    """In px at 518, (M,) each: along the image of the ray and across it; length: px for a change of log z by 1."""

    along: np.ndarray
    across: np.ndarray
    length: np.ndarray

    def error(self, information: np.ndarray, fit: float) -> np.ndarray:
        """(M,) px at 518, 0 where unknown; along the ray what is not known (``information`` of log z) is forgiven.

        fit: standard deviation of what is known.
        """
        slack = self.length / np.sqrt(np.maximum(information, 1e-6)) / fit
        return np.nan_to_num(np.hypot(self.across, self.along / np.hypot(1, slack)))


def settled(T: np.ndarray, points: np.ndarray, uv: np.ndarray, K: np.ndarray) -> np.ndarray:
    """T_map_camera (4, 4) near ``T`` that brings most points (N, 3) to their pixels (N, 2): what all have in common is
    the camera's error. As it is when there are too few of them.
    """
    for _ in range(3):
        local = camera.invert(T)
        error = np.linalg.norm(camera.project(camera.transform(local, points), K) - uv, axis=1)
        finite = np.isfinite(error)
        if finite.sum() < NEAR:
            break
        near = error <= 2 * np.median(error[finite])
        turn, shift = cv2.solvePnPRefineLM(
            points[near], uv[near], K, None, cv2.Rodrigues(local[:3, :3])[0], local[:3, 3:].copy()
        )
        local = np.eye(4)
        local[:3, :3], local[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
        if not np.isfinite(local).all():
            break
        T = camera.invert(local)
    return T
