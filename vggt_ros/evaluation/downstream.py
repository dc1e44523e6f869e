"""What a back end gets out of keypoint tracks: camera poses from their pixels alone, no network pose and no depth.

Plain incremental structure from motion: a two-view start with enough parallax, then image by image PnP and
triangulation, bundle adjustment by COLMAP in between. Everything that is believed here was published as (id, u, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import cv2
import numpy as np

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.evaluation.tracking import published
from vggt_ros.types import Tracks

STARTS = 10  # images from one candidate of the start to the next
FEWEST = 12  # points that locate an image, and that make a start
WIDE = np.radians(2.0)  # least angle between two rays that make a point
MEDIAN_WIDE = np.radians(4.0)  # angle at a start's points beyond which more is no better
NEAR = 2.0 / 224  # of the width: reprojection error within which an observation agrees
EVERY = 10  # images between two bundle adjustments


def poses_from_tracks(tracks: Sequence[Tracks], K: np.ndarray) -> np.ndarray:
    """(F, 4, 4) T_world_camera of the images of ``tracks``, NaN where an image could not be located.

    K: (3, 3) in source pixels. The unit and the frame are arbitrary. All NaN when no two images make a start.
    """
    pairs = published(tracks)
    images = np.array([one.frame.index for one in tracks])
    uv = np.full((len(images), len(pairs.first), 2), np.nan)
    uv[np.searchsorted(images, pairs.image), pairs.track] = pairs.uv
    return _Reconstruction(uv, K, pairs.size).poses()


class _Reconstruction:
    """T: (F, 4, 4) T_camera_world, NaN unknown. xyz: (M, 3), NaN unknown. uv: (F, M, 2), NaN not observed."""

    def __init__(self, uv: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> None:
        self.uv, self.K, self.size = uv, K, size
        self.near = NEAR * size[0]
        self.observed = np.isfinite(uv[..., 0])
        self.T = np.full((len(uv), 4, 4), np.nan)
        self.xyz = np.full((uv.shape[1], 3), np.nan)
        self._refused = np.zeros(len(uv), bool)  # PnP failed since the last adjustment

    @property
    def located(self) -> np.ndarray:
        """(F,) bool."""
        return np.isfinite(self.T[:, 0, 0])

    def poses(self) -> np.ndarray:
        """Run it."""
        if not self._start():
            return self.T
        self._adjust()
        since = 0
        while (image := self._next()) is not None:
            if not self._locate(image):
                continue
            self._triangulate()
            since += 1
            if since == EVERY:
                self._adjust()
                since = 0
        for _ in range(2):
            self._adjust()
            self._triangulate()
        self._adjust()
        return invert(self.T)

    def _start(self) -> bool:
        """Two images: the more points they share and the wider the angle between their rays, the better."""
        best: tuple[float, Any] = (0.0, None)
        for a, b in combinations(range(0, len(self.uv), STARTS), 2):
            both = np.flatnonzero(self.observed[a] & self.observed[b])
            if len(both) < FEWEST:
                continue
            cv2.setRNGSeed(0)
            E, inlier = cv2.findEssentialMat(self.uv[a, both], self.uv[b, both], self.K, cv2.RANSAC, 0.999, self.near)
            if E is None or E.shape != (3, 3):
                continue
            _, R, t, inlier = cv2.recoverPose(E, self.uv[a, both], self.uv[b, both], self.K, mask=inlier)
            T = np.eye(4)
            T[:3, :3], T[:3, 3] = R, t[:, 0]
            chosen = both[inlier[:, 0] > 0]
            if len(chosen) < FEWEST:
                continue
            angle = np.median(_angles(rays(self.uv[a, chosen], self.K), rays(self.uv[b, chosen], self.K) @ R))
            score = len(chosen) * min(float(angle) / MEDIAN_WIDE, 1.0)
            if score > best[0]:
                best = score, (a, b, T)
        if best[1] is None:
            return False
        a, b, T = best[1]
        self.T[a], self.T[b] = np.eye(4), T
        self._triangulate()
        return bool(np.isfinite(self.xyz[:, 0]).sum() >= FEWEST)

    def _next(self) -> int | None:
        """The image not yet located that sees most of the points; None when none sees enough."""
        count = (self.observed & np.isfinite(self.xyz[:, 0])).sum(1)
        count[self.located | self._refused] = 0
        return int(count.argmax()) if count.max() >= FEWEST else None

    def _locate(self, image: int) -> bool:
        """PnP; False when too few points agree."""
        chosen = np.flatnonzero(self.observed[image] & np.isfinite(self.xyz[:, 0]))
        xyz, uv = self.xyz[chosen], self.uv[image, chosen]
        cv2.setRNGSeed(0)
        found, turn, t, inlier = cv2.solvePnPRansac(
            xyz, uv, self.K, None, iterationsCount=300, reprojectionError=2 * self.near, flags=cv2.SOLVEPNP_SQPNP
        )
        if not found or inlier is None or len(inlier) < FEWEST:
            self._refused[image] = True
            return False
        rows = inlier[:, 0]
        turn, t = cv2.solvePnPRefineLM(xyz[rows], uv[rows], self.K, None, turn, t)
        self.T[image] = np.eye(4)
        self.T[image, :3, :3], self.T[image, :3, 3] = cv2.Rodrigues(turn)[0], t[:, 0]
        return True

    def _triangulate(self) -> None:
        """Points of tracks that have none yet, from two of the located images that see them; most others must agree."""
        located = np.flatnonzero(self.located)
        seen = self.observed[located] & np.isnan(self.xyz[:, 0])
        rows = np.flatnonzero(seen.sum(0) >= 2)
        first, last = seen.argmax(0), len(located) - 1 - seen[::-1].argmax(0)
        # The observation nearest to the middle between them.
        distance = np.abs(np.arange(len(located))[:, None] - (first + last) / 2)
        middle = np.where(seen, distance, np.inf).argmin(0)
        for begin, end in ((first, last), (first, middle), (middle, last)):
            rows = rows[np.isnan(self.xyz[rows, 0])]
            self._from_two(rows, located[begin[rows]], located[end[rows]])

    def _from_two(self, rows: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        """The point nearest to both rays; a, b: an image for each of the rows."""
        c, d = [], []
        for image in (a, b):
            T = invert(self.T[image])
            ray = np.einsum('nij,nj->ni', T[:, :3, :3], rays(self.uv[image, rows], self.K))
            c.append(T[:, :3, 3])
            d.append(ray / np.linalg.norm(ray, axis=1, keepdims=True))
        wide = _angles(d[0], d[1]) > WIDE
        rows, c, d = rows[wide], [one[wide] for one in c], [one[wide] for one in d]
        # Sum of (I - d d^T)(x - c) = 0 over both rays.
        across = [np.eye(3) - one[:, :, None] * one[:, None] for one in d]
        right = sum(np.einsum('nij,nj->ni', A, one) for A, one in zip(across, c, strict=True))
        self.xyz[rows] = np.linalg.solve(across[0] + across[1], np.asarray(right)[..., None])[..., 0]
        agrees = self._agrees(rows)
        bad = agrees.sum(0) < np.maximum(2, 0.7 * (self.observed[:, rows] & self.located[:, None]).sum(0))
        self.xyz[rows[bad]] = np.nan

    def _agrees(self, rows: np.ndarray) -> np.ndarray:
        """(F, len(rows)) bool: the observation in a located image is where the point is."""
        agrees = np.zeros((len(self.uv), len(rows)), bool)
        for image in np.flatnonzero(self.located):
            off = project(transform(self.T[image], self.xyz[rows]), self.K) - self.uv[image, rows]
            with np.errstate(invalid='ignore'):
                agrees[image] = np.linalg.norm(off, axis=1) < 2 * self.near
        return agrees

    def _adjust(self) -> None:
        """Bundle adjustment of everything located; points with fewer than two observations that agree are dropped."""
        import pycolmap

        rows = np.flatnonzero(np.isfinite(self.xyz[:, 0]))
        agrees = self._agrees(rows)
        enough = agrees.sum(0) >= 2
        self.xyz[rows[~enough]] = np.nan
        rows, agrees = rows[enough], agrees[:, enough]
        model = pycolmap.Reconstruction()
        fx, fy, cx, cy = self.K[[0, 1, 0, 1], [0, 1, 2, 2]]
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(
                camera_id=1,
                model='PINHOLE',
                width=self.size[0],
                height=self.size[1],
                # COLMAP's pixel centres lie at 0.5.
                params=[fx, fy, cx + 0.5, cy + 0.5],
            )
        )
        places = [pycolmap.Track() for _ in rows]
        for image in np.flatnonzero(self.located):
            columns = np.flatnonzero(agrees[image])
            points = [pycolmap.Point2D(uv) for uv in self.uv[image, rows[columns]] + 0.5]
            entry = pycolmap.Image(name=str(image), camera_id=1, image_id=int(image) + 1, points2D=points)
            model.add_image_with_trivial_frame(entry, pycolmap.Rigid3d(self.T[image, :3]))
            for number, column in enumerate(columns):
                places[column].add_element(int(image) + 1, number)
        numbers = [
            model.add_point3D(xyz, place, np.zeros(3, np.uint8))
            for xyz, place in zip(self.xyz[rows], places, strict=True)
        ]
        options = pycolmap.BundleAdjustmentOptions()
        options.refine_focal_length = options.refine_extra_params = options.print_summary = False
        options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
        options.ceres.solver_options.max_num_iterations = 30
        options.ceres.solver_options.num_threads = 1
        config = pycolmap.BundleAdjustmentConfig()
        for number in model.images:
            config.add_image(number)
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        # pycolmap.bundle_adjustment would write two lines into the log each time, whatever its level.
        pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
        for image in np.flatnonzero(self.located):
            self.T[image, :3] = model.images[int(image) + 1].cam_from_world().matrix()
        self.xyz[rows] = [model.points3D[number].xyz for number in numbers]
        self._refused[:] = False


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles in rad between directions (N, 3)."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1))
