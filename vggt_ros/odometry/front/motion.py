"""Whether the camera stands still and whether an image is blurred, from tracked corners alone.

Lengths are in px at 518 (see klt.py), so that one set of thresholds serves every camera.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vggt_ros.odometry.klt import Corners, common

ENOUGH = 20  # corners that two images must share before anything is said about the motion between them
CELLS = 6  # the image is judged in CELLS x CELLS cells


@dataclass(frozen=True)
class MotionConfig:
    """When the camera stands still, and when an image is blurred."""

    still: float = 0.4  # px at 518 by which the image may have moved
    still_time: float = 0.5  # s for which it must have stayed there
    sharpness: float = 0.5  # blurred when below this share of the running level
    memory: int = 30  # images whose median sharpness is that level


@dataclass(frozen=True)
class Motion:
    """What is said of one image. still_since: stamp (ns) of the image that the camera has not moved from."""

    stationary: bool
    still_since: int
    blurred: bool


class MotionDetector:
    """Judges every image. Not thread-safe; images in the order of their stamps."""

    def __init__(self, config: MotionConfig | None = None) -> None:
        self.config = config or MotionConfig()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._newest: int | None = None  # stamp, ns
        self._still: Corners | None = None  # the image that the camera has not moved from
        self._still_since = 0  # ns
        self._sharpness: deque[float] = deque(maxlen=self.config.memory)

    def update(self, corners: Corners) -> Motion:
        """Judge one image. Raises ValueError when its stamp is not later than that of the image before."""
        if self._newest is not None and corners.stamp <= self._newest:
            raise ValueError(
                f'image at {corners.stamp} ns comes after one at {self._newest} ns: drop it, or reset after a jump '
                'of the clock'
            )
        self._newest = corners.stamp
        stationary = self._stands_still(corners)
        return Motion(stationary, self._still_since, self._blurred(corners.sharpness))

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
    cells = [ndimage.median(axis, cell, np.unique(cell)) for axis in shift.T]
    return float(np.median(np.linalg.norm(cells, axis=0))) / b.unit
