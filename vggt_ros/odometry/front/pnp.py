"""The camera's pose at camera rate, from corners that carry the depth of the newest solved frame.

A window takes its time; meanwhile the corners of a frame that it solved are still being followed. Perspective-n-point
on them gives the motion since that frame. When a newer frame is solved, ``carry`` takes the points over from the
corners that were alive in it, however long ago that was, as long as the tracker remembers them. Corners that appear
later take the depth that the solved frame has where they are, so that a pose does not end with the first corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.depth import depth_at
from vggt_ros.odometry.front.depth_cloud import DepthCloud
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.windows.landmarks import camera_at, consensus
from vggt_ros.types import Accuracy, Estimate

CHI2 = 9.21  # 99 % of two degrees of freedom
MEDIAN_CHI2 = 1.386  # median of two degrees of freedom
CELL = 80  # px at 518 within which errors of depth are alike
HUBER = 1.5  # whitened residuals beyond it count linearly


class PoseError(ValueError):
    """The corners do not determine where the camera is; the message says why."""


@dataclass(frozen=True)
class PnpConfig:
    """What is believed of the points, and what is asked of a pose. Lengths in px at 518 (see klt.py)."""

    pixel: float = 0.5  # standard deviation of a corner's place
    depth: float = 0.02  # relative standard deviation of a point's depth against the others in the same frame
    reprojection: float = 3.0  # RANSAC's threshold
    iterations: int = 200  # of RANSAC
    confidence: float = 0.999  # of RANSAC
    min_points: int = 25  # corners that carry depth
    min_inliers: int = 20  # of them that must agree
    min_share: float = 0.25  # the same as a share
    # rad, standard deviation beyond which the points do not determine the pose
    max_rotation: float = float(np.radians(1.0))
    max_translation: float = 0.05  # the same, share of the points' median depth
    adopt_share: float = 0.5  # least share of points that agree for new corners to take depth through that pose

    @classmethod
    def of(cls, accuracy: Accuracy) -> PnpConfig:
        """For points of a network of this accuracy: a third of its error is left where corners have bent its depth."""
        worse = max(1.0, accuracy.surface / 3 / cls.depth)
        return cls(depth=cls.depth * worse, reprojection=cls.reprojection * min(worse, 2.0))


@dataclass(frozen=True, eq=False)
class CameraPose:
    """Where the camera was in one image.

    index, reference: of the image, and of the solved frame whose points say so. T_map_camera, T_reference_camera:
    (4, 4). covariance: (6, 6) of T_map_camera as in ``Estimate``; motion_covariance: the part of it that comes from the
    motion since the reference, also in the map's axes. points: corners that carried depth; share: of them that agree;
    inliers: ids of those. residual: median reprojection error of the inliers, px at 518.
    """

    index: int
    reference: int
    T_map_camera: np.ndarray
    T_reference_camera: np.ndarray
    covariance: np.ndarray = field(repr=False)
    motion_covariance: np.ndarray = field(repr=False)
    points: int
    share: float
    inliers: np.ndarray = field(repr=False)
    residual: float


class PoseTracker:
    """Holds the points of the newest solved frame. Not thread-safe."""

    def __init__(self, config: PnpConfig | None = None) -> None:
        self.config = config or PnpConfig()
        self.reset()

    def reset(self) -> None:
        """Forget the points."""
        self._estimate: Estimate | None = None
        self._id = np.zeros(0, np.int64)
        self._points = np.zeros((0, 3))
        self._inherited = np.zeros((0, 6, 6))  # covariance of the pose through which each point got its depth
        self._carried = 0  # points that got theirs from their own pixel; they come first
        self._scale_sigma = 0.0

    def carry(
        self, corners: Corners, estimate: Estimate, scale_sigma: float = 0.01, later: Sequence[Corners] = ()
    ) -> int:
        """Give the corners of a solved frame its depth; they replace the points held before. Returns their number.

        Fewer than ``min_points`` carry no pose: then the points held before stay, and the number is 0.

        corners: of the image that was solved, as the tracker remembers them. scale_sigma: standard deviation of the
        log of the map's scale at this frame, common to all points. later: of the images since then, oldest first: where
        the first corners end on the way, new ones take over.
        Raises ValueError when corners and estimate are of different images.
        """
        if corners.index != estimate.frame.index or corners.size != estimate.map.source:
            raise ValueError(
                f'corners of image {corners.index}, {corners.size}, do not belong to an estimate of image '
                f'{estimate.frame.index}, {estimate.map.source}'
            )
        uv = estimate.map.to_network(corners.uv)
        points = rays(uv, estimate.K) * depth_at(estimate.depth, uv)[:, None]
        known = np.isfinite(points[:, 2])
        if known.sum() < self.config.min_points:
            return 0
        self._estimate, self._scale_sigma = estimate, scale_sigma
        self._cloud = DepthCloud(estimate.depth, estimate.K)
        self._id, self._points = corners.id[known], points[known]
        self._carried = len(self._id)
        self._inherited = np.zeros((self._carried, 6, 6))
        self._catch_up(later)
        return self._carried

    def locate(self, corners: Corners, K: np.ndarray | None = None) -> CameraPose:
        """Where the camera was when it saw ``corners``.

        K: (3, 3) in source pixels; None = that of the solved frame. Raises PoseError, with the reason, where the
        corners leave the pose open.
        """
        estimate, config = self._estimate, self.config
        if estimate is None:
            raise PoseError('no frame is solved yet')
        if corners.size != estimate.map.source:
            raise PoseError(f'the image size changed from {estimate.map.source} to {corners.size}')
        K = estimate.map.K_to_source(estimate.K) if K is None else K
        ids, held, now = np.intersect1d(self._id, corners.id, assume_unique=True, return_indices=True)
        if len(ids) < config.min_points:
            raise PoseError(f'only {len(ids)} of {len(self._id)} points with depth are still seen')
        points, uv = self._points[held], corners.uv[now]
        T = self._consensus(points, uv, K, corners.unit)
        T, inliers, information, factor = self._refine(T, points, uv, K, corners.unit)
        share = float(inliers.mean())
        if inliers.sum() < config.min_inliers or share < config.min_share:
            raise PoseError(f'only {inliers.sum()} of {len(ids)} points agree on a pose')
        covariance = _inverse(information) * factor + self._inherited[held[inliers]].mean(axis=0)
        median_depth = float(np.median(points[inliers, 2]))
        sigma = np.sqrt(np.linalg.eigvalsh(covariance[:3, :3])[-1]), np.sqrt(np.linalg.eigvalsh(covariance[3:, 3:])[-1])
        if not (sigma[0] < config.max_translation * median_depth and sigma[1] < config.max_rotation):
            raise PoseError(f'the points leave {sigma[0] / median_depth:.1%} of the depth and {sigma[1]:.3f} rad open')
        if share >= config.adopt_share:
            self._adopt(corners, T, K, covariance)
        # A common error of depth stretches the way since the reference.
        covariance = covariance.copy()
        covariance[:3, :3] += self._scale_sigma**2 * np.outer(T[:3, 3], T[:3, 3])
        turn = np.kron(np.eye(2), estimate.T_map_camera[:3, :3])
        motion_covariance = turn @ covariance @ turn.T
        # The reference's own error, with the lever from there to here.
        lever = np.eye(6)
        lever[:3, 3:] = -_cross(estimate.T_map_camera[:3, :3] @ T[:3, 3])
        error = np.linalg.norm(project(transform(invert(T), points[inliers]), K) - uv[inliers], axis=1)
        return CameraPose(
            index=corners.index,
            reference=estimate.frame.index,
            T_map_camera=estimate.T_map_camera @ T,
            T_reference_camera=T,
            covariance=lever @ estimate.covariance @ lever.T + motion_covariance,
            motion_covariance=motion_covariance,
            points=len(ids),
            share=share,
            inliers=ids[inliers],
            residual=float(np.median(error)) / corners.unit,
        )

    def _catch_up(self, images: Sequence[Corners]) -> None:
        """Hand depth on through as few images as will do: always the last that still sees half of the points."""
        while images:
            shared = np.array([np.isin(one.id, self._id).sum() for one in images])
            step = int(np.flatnonzero(shared >= 0.5 * shared[0])[-1])
            if step == len(images) - 1:
                return  # the newest will be located by itself
            try:
                self.locate(images[step])
            except PoseError:
                return
            images = images[step + 1 :]

    def _adopt(self, corners: Corners, T: np.ndarray, K: np.ndarray, covariance: np.ndarray) -> None:
        """Give depth to corners that have none, as the solved frame shows it from ``T``; forget adopted ones gone.

        Such a point is as wrong as the pose that it was seen from: its ``covariance`` is inherited.
        """
        rows = np.flatnonzero(~np.isin(corners.id, self._id))
        z = self._cloud.depth_at(corners.uv[rows], T, K, corners.size)
        rows, z = rows[np.isfinite(z)], z[np.isfinite(z)]
        points = transform(T, rays(corners.uv[rows], K) * z[:, None])
        keep = np.isin(self._id, corners.id) | (np.arange(len(self._id)) < self._carried)
        self._id = np.concatenate([self._id[keep], corners.id[rows]])
        self._points = np.concatenate([self._points[keep], points])
        new = np.broadcast_to(covariance, (len(rows), 6, 6))
        self._inherited = np.concatenate([self._inherited[keep], new])

    def _consensus(self, points: np.ndarray, uv: np.ndarray, K: np.ndarray, unit: float) -> np.ndarray:
        """T_reference_camera (4, 4) that most points agree on: RANSAC with three of them, then all that agree."""
        config = self.config
        agreed = consensus(points, uv, K, config.reprojection * unit, config.iterations, config.confidence)
        if agreed is None or len(agreed.rows) < config.min_inliers:
            count = 0 if agreed is None else len(agreed.rows)
            raise PoseError(f'only {count} of {len(points)} points agree on a pose')
        rows = agreed.rows
        found, rotation, translation = cv2.solvePnP(points[rows], uv[rows], K, None, flags=cv2.SOLVEPNP_SQPNP)
        if not found:
            raise PoseError(f'{len(rows)} points that agree have no common pose')
        return camera_at(rotation, translation)

    def _refine(
        self, T: np.ndarray, points: np.ndarray, uv: np.ndarray, K: np.ndarray, unit: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Gauss-Newton on whitened reprojection errors with Huber's weights, from T_reference_camera ``T``.

        Returns T, the inliers (N,) bool, the inliers' information (6, 6) about (translation, rotation) in the
        reference's axes, and the factor by which the errors' variance differs from what was believed.
        """
        for _ in range(10):
            residual, jacobian = self._linearise(T, points, uv, K, unit)
            norm = np.linalg.norm(residual, axis=1)
            close = self._close(residual, T, points, uv, K, unit)
            weight = np.where(close, np.minimum(1, HUBER / np.maximum(np.nan_to_num(norm), 1e-12)), 0)
            step = _inverse(_normal(jacobian, weight)) @ np.einsum(
                'nij,ni,n->j', np.nan_to_num(jacobian), np.nan_to_num(residual), weight
            )
            T = T.copy()
            T[:3, 3] += step[:3]
            T[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix() @ T[:3, :3]
            if np.abs(step[3:]).max() < 1e-7 and np.abs(step[:3]).max() < 1e-7 * np.median(points[:, 2]):
                break
        residual, jacobian = self._linearise(T, points, uv, K, unit)
        square = np.sum(residual**2, axis=1)
        close = self._close(residual, T, points, uv, K, unit)
        factor = float(np.median(square[close])) / MEDIAN_CHI2 if close.any() else np.inf
        inliers = close & (square <= CHI2 * max(factor, 1.0))
        information = _normal(jacobian, inliers.astype(np.float64))
        if inliers.any():
            score = np.einsum('nij,ni->nj', jacobian[inliers], residual[inliers])
            factor = max(factor, _clustered(score, uv[inliers] / unit, information))
        return T, inliers, information, factor

    def _close(
        self, residual: np.ndarray, T: np.ndarray, points: np.ndarray, uv: np.ndarray, K: np.ndarray, unit: float
    ) -> np.ndarray:
        """(N,) bool: RANSAC would have taken the point, or its whitened residual (N, 2) is no larger than believed."""
        error = np.linalg.norm(project(transform(invert(T), points), K) - uv, axis=1)
        return (error <= self.config.reprojection * unit) | (np.sum(residual**2, axis=1) <= CHI2)

    def _linearise(
        self, T: np.ndarray, points: np.ndarray, uv: np.ndarray, K: np.ndarray, unit: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whitened residuals (N, 2), measured minus predicted, and Jacobians (N, 2, 6) of the prediction.

        A point's depth error moves its image along one direction, by more the longer the baseline: residuals along it
        weigh less.
        """
        R_t = T[:3, :3].T
        offset = points - T[:3, 3]
        seen = offset @ R_t.T
        x, y, z = np.where(seen[:, 2:] > 0, seen, np.nan).T
        to_pixel = np.zeros((len(points), 2, 3))
        to_pixel[:, 0, 0], to_pixel[:, 0, 2] = K[0, 0] / z, -K[0, 0] * x / z**2
        to_pixel[:, 1, 1], to_pixel[:, 1, 2] = K[1, 1] / z, -K[1, 1] * y / z**2
        to_pixel = to_pixel @ R_t
        # The camera moves by dt and turns by dr about the reference's axes: the point seen changes by -R^T (dt + dr x).
        jacobian = np.concatenate([-to_pixel, to_pixel @ _cross(offset)], axis=2)
        residual = uv - project(seen, K)
        pixel = self.config.pixel * unit
        along = (to_pixel @ points[:, :, None])[..., 0] * self.config.depth  # pixels per standard deviation of depth
        length = np.linalg.norm(along, axis=1)
        direction = along / np.maximum(length, 1e-12)[:, None]
        shrink = 1 - pixel / np.hypot(pixel, length)
        whiten = (np.eye(2) - shrink[:, None, None] * direction[:, :, None] * direction[:, None, :]) / pixel
        return (whiten @ residual[..., None])[..., 0], whiten @ jacobian


def _normal(jacobian: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum of w J^T J over the points, (6, 6)."""
    rows = (np.nan_to_num(jacobian) * np.sqrt(weight)[:, None, None]).reshape(-1, 6)
    return rows.T @ rows


def _clustered(score: np.ndarray, uv: np.ndarray, information: np.ndarray) -> float:
    """Factor of the covariance when neighbours err together, as smooth errors of depth make them.

    score: (N, 6) J^T r. uv: (N, 2) px at 518. The scatter of the scores summed over each cell of the image, relative
    to what independent errors would give (cluster-robust covariance, Liang and Zeger 1986), averaged over the axes; six
    parameters take the freedom of three cells. Raises PoseError when there are no more cells than that.
    """
    _, cell = np.unique(np.floor(uv / CELL).astype(int) @ np.array([1, 1000]), return_inverse=True)
    cells = int(cell.max()) + 1
    if cells <= 3:
        raise PoseError('the points that agree lie in one spot: they do not determine a pose')
    total = np.zeros((cells, 6))
    np.add.at(total, cell, score)
    return float(np.trace(_inverse(information) @ (total.T @ total))) / 6 * cells / (cells - 3)


def _inverse(information: np.ndarray) -> np.ndarray:
    """Inverse of an information matrix; PoseError when it leaves something entirely open."""
    try:
        inverse = np.linalg.inv(information)
    except np.linalg.LinAlgError:
        inverse = np.full((6, 6), np.nan)
    if not np.isfinite(inverse).all() or np.diag(inverse).min() <= 0:
        raise PoseError('the points that agree do not determine a pose')
    return inverse


def _cross(vectors: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 3, 3) with _cross(a) @ b = a x b."""
    x, y, z = np.moveaxis(np.asarray(vectors), -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*np.shape(vectors), 3)
