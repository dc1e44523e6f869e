"""What the camera did since the last keyframe, from tracked corners alone, and whether the image is worth a window.

Lengths are in px at 518 (see klt.py), so that one set of thresholds serves every camera.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import project, rays
from vggt_ros.odometry.klt import Corners, common

ENOUGH = 20  # corners that two images must share before anything is said about the motion between them
CELLS = 6  # the image is judged in CELLS x CELLS cells


@dataclass(frozen=True)
class KeyframeConfig:
    """When an image becomes a keyframe, and when the camera stands still. Lengths in px at 518, times in s.

    parallax, rotation (rad), tracked: a keyframe when the rotation-compensated parallax or the rotation since the last
    keyframe is above, or the share of its corners that still live below. flow, patience: or when it is this long ago
    and the flow since then above. still, still_time: STATIONARY when the image has not moved further for that long.
    sharpness: blurred when below this share of the running level, the median of ``memory`` images. gain: exposure jump
    when grey levels change by more than this between two images, in log2. turn, turn_parallax: a pure rotation turns
    by more (rad), with less parallax.
    """

    parallax: float = 12.0
    rotation: float = float(np.radians(8.0))
    tracked: float = 0.6
    flow: float = 2.0
    patience: float = 1.5
    still: float = 0.4
    still_time: float = 0.5
    sharpness: float = 0.5
    memory: int = 30
    gain: float = 0.25
    turn: float = float(np.radians(5.0))
    turn_parallax: float = 1.0


@dataclass(frozen=True, eq=False)
class Motion:
    """One image judged against the image before and against the last keyframe. NaN where corners are too few.

    flow: median shift since the image before; flow_keyframe: since the keyframe; px at 518. rotation: (3, 3)
    R_keyframe_camera, or None; angle: its magnitude in rad. parallax: median shift that the rotation leaves, px at 518.
    tracked: share of the keyframe's corners that still live. corners: how many live now. blurred, exposure_jump,
    stationary, pure_rotation: what they say. still_since: stamp (ns) of the image that the camera has not moved from.
    keyframe: the image is one; reason: why: 'first', 'parallax', 'rotation', 'tracked', 'time', else ''.
    """

    index: int
    flow: float
    flow_keyframe: float
    rotation: np.ndarray | None
    angle: float
    parallax: float
    tracked: float
    corners: int
    blurred: bool
    exposure_jump: bool
    stationary: bool
    still_since: int
    pure_rotation: bool
    keyframe: bool
    reason: str


class KeyframeSelector:
    """Judges every image and remembers the last keyframe. Not thread-safe; images in the order of their stamps."""

    def __init__(self, config: KeyframeConfig | None = None) -> None:
        self.config = config or KeyframeConfig()
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image with corners is a keyframe."""
        self._last: Corners | None = None
        self._keyframe: Corners | None = None
        self._still: Corners | None = None  # the image that the camera has not moved from
        self._still_since = 0  # ns
        self._sharpness: deque[float] = deque(maxlen=self.config.memory)

    def update(self, corners: Corners, K: np.ndarray, R_keyframe_camera: np.ndarray | None = None) -> Motion:
        """Judge one image; when it is a keyframe, the next ones are compared with it.

        K: (3, 3) in source pixels, known or predicted. R_keyframe_camera: (3, 3) the rotation since the last keyframe
        where it is known better than from corners (PnP, gyroscope). Without, it is fitted to the corners' rays, which
        takes a part of the shift of a surface that fills the view for rotation.
        Raises ValueError when the stamp is not later than that of the image before.
        """
        if self._last is not None and corners.stamp <= self._last.stamp:
            raise ValueError(
                f'image at {corners.stamp} ns comes after one at {self._last.stamp} ns: drop it, or reset after a jump '
                'of the clock'
            )
        flow = np.nan if self._last is None else median_shift(self._last, corners)
        stationary = self._stands_still(corners)
        blurred = self._blurred(corners.sharpness)
        flow_keyframe = angle = parallax = tracked = np.nan
        R = None
        if self._keyframe is not None:
            rows, now = common(self._keyframe, corners)
            tracked = len(rows) / max(len(self._keyframe), 1)
            if len(rows) >= ENOUGH:
                before, after = self._keyframe.uv[rows], corners.uv[now]
                flow_keyframe = float(np.median(np.linalg.norm(after - before, axis=1))) / corners.unit
                R = fit_rotation(rays(before, K), rays(after, K)) if R_keyframe_camera is None else R_keyframe_camera
                angle = float(Rotation.from_matrix(R).magnitude())
                parallax = _parallax(before, after, R, K) / corners.unit
        reason = '' if stationary or blurred else self._reason(corners, angle, parallax, tracked, flow_keyframe)
        config = self.config
        motion = Motion(
            index=corners.index,
            flow=flow,
            flow_keyframe=flow_keyframe,
            rotation=R,
            angle=angle,
            parallax=parallax,
            tracked=tracked,
            corners=len(corners),
            blurred=blurred,
            exposure_jump=abs(corners.gain) > config.gain,
            stationary=stationary,
            still_since=self._still_since,
            pure_rotation=bool(angle > config.turn and parallax < config.turn_parallax),
            keyframe=reason != '',
            reason=reason,
        )
        if motion.keyframe:
            self._keyframe = corners
        self._last = corners
        return motion

    def _reason(self, corners: Corners, angle: float, parallax: float, tracked: float, flow: float) -> str:
        """Why the image should be a keyframe; '' when it should not. Comparisons with NaN are False."""
        config = self.config
        if self._keyframe is None:
            return 'first' if len(corners) >= ENOUGH else ''
        if parallax > config.parallax:
            return 'parallax'
        if angle > config.rotation:
            return 'rotation'
        # A view with nothing to hold on to is no keyframe, however little is left of the last one.
        if tracked < config.tracked and len(corners) >= ENOUGH:
            return 'tracked'
        if flow > config.flow and (corners.stamp - self._keyframe.stamp) * 1e-9 >= config.patience:
            return 'time'
        return ''

    def _stands_still(self, corners: Corners) -> bool:
        """Whether the image has stayed where it was for the given time.

        Compared with one fixed image, not with the image before: slow motion adds up, noise does not.
        """
        if self._still is not None:
            shift = cell_shift(self._still, corners)
            if shift <= self.config.still:
                if len(common(self._still, corners)[0]) < 0.5 * len(self._still):
                    self._still = corners  # corners die of noise, too
                return bool((corners.stamp - self._still_since) * 1e-9 >= self.config.still_time)
        self._still, self._still_since = corners, corners.stamp
        return False

    def _blurred(self, sharpness: float) -> bool:
        """Judged against the running level, which a blurred image joins as well: a lasting change is no blur."""
        level = float(np.median(self._sharpness)) if self._sharpness else sharpness
        self._sharpness.append(sharpness)
        return sharpness < self.config.sharpness * level


def median_shift(a: Corners, b: Corners) -> float:
    """Median length of the corners' shifts from ``a`` to ``b``, px at 518; NaN when they share too few."""
    rows_a, rows_b = common(a, b)
    if len(rows_a) < ENOUGH:
        return np.nan
    return float(np.median(np.linalg.norm(b.uv[rows_b] - a.uv[rows_a], axis=1))) / b.unit


def cell_shift(a: Corners, b: Corners) -> float:
    """Median over the cells of an image of the length of each cell's median shift, px at 518; NaN with too few corners.

    The noise of single corners, which has no direction, averages out inside a cell; coherent motion of any kind does
    not, and something that moves in less than half of the cells does not count.
    """
    rows_a, rows_b = common(a, b)
    if len(rows_a) < ENOUGH:
        return np.nan
    shift = b.uv[rows_b] - a.uv[rows_a]
    column, row = np.clip(a.uv[rows_a] / np.array(a.size) * CELLS, 0, CELLS - 1).astype(int).T
    cell = row * CELLS + column
    cells = [np.median(shift[cell == one], axis=0) for one in np.unique(cell)]
    return float(np.median(np.linalg.norm(cells, axis=1))) / b.unit


def fit_rotation(rays_a: np.ndarray, rays_b: np.ndarray) -> np.ndarray:
    """R (3, 3) with rays_a ~ R rays_b, (N, 3) directions of any length, N >= 2; robust against a minority of outliers.

    Wahba's problem by Kabsch's algorithm, reweighted with Geman and McClure's weights, whose scale follows the median
    residual.
    """
    a = rays_a / np.linalg.norm(rays_a, axis=1, keepdims=True)
    b = rays_b / np.linalg.norm(rays_b, axis=1, keepdims=True)
    weights = np.ones(len(a))
    for _ in range(8):
        R, _ = Rotation.align_vectors(a, b, weights=weights)
        residual = np.linalg.norm(a - R.apply(b), axis=1)
        scale = max(1.4826 * float(np.median(residual)), 1e-6)
        weights = 1 / (1 + (residual / scale) ** 2) ** 2
    return R.as_matrix()


def _parallax(before: np.ndarray, after: np.ndarray, R: np.ndarray, K: np.ndarray) -> float:
    """Median distance, source pixels, of ``before`` and ``after`` turned back by R; NaN when all turn out of view."""
    turned = project(rays(after, K) @ R.T, K)
    shift = np.linalg.norm(turned - before, axis=1)
    shift = shift[np.isfinite(shift)]
    return float(np.median(shift)) if len(shift) else np.nan
