"""How wrong a pose may be, learnt from how the anchors scatter."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert
from vggt_ros.odometry.windows.alignment import Alignment
from vggt_ros.types import Accuracy

_PRIOR_WEIGHT = 10.0  # anchors that what is supposed of the network is worth, before anything was seen
_PRIOR_FACTOR = 1.6  # by which the network may be worse than it is known for
_MEMORY = 200.0  # anchors; older ones are forgotten
_LATEST = 5  # images by which the surface is judged
UNKNOWN = 1e6
"""Variance of what is not known at all."""


@dataclass
class PoseNoise:
    """Variance per axis of the network's pose of one frame in its window: running means over the anchors' residuals.

    translation: squared share of the median depth; rotation: rad^2.
    """

    translation: float
    rotation: float
    weight: float = _PRIOR_WEIGHT

    @classmethod
    def of(cls, accuracy: Accuracy) -> PoseNoise:
        """Before anything was seen."""
        return cls((_PRIOR_FACTOR * accuracy.translation) ** 2, (_PRIOR_FACTOR * accuracy.rotation) ** 2)

    def learn(self, alignment: Alignment, depth: float) -> None:
        """One window more. An anchor's residual holds the error of the window and that of the map, which is smaller."""
        count = len(alignment.offsets)
        # Translation and rotation of the window were fitted to the anchors themselves: one of them is spent.
        if count < 2:
            return
        free = (count - 1) / count
        squares = (alignment.offsets**2).sum(1) / 3 / depth**2, alignment.angles**2 / 3
        # All anchors at once: their order must not matter.
        self.translation, self.rotation = (
            (self.weight * old + float(square @ alignment.shares) / free) / (self.weight + count)
            for old, square in zip((self.translation, self.rotation), squares, strict=True)
        )
        self.weight = min(self.weight + count, _MEMORY)

    def covariance(self, depth: float) -> np.ndarray:
        """(6, 6) of one frame's pose in its window: translation in units of ``depth``, rotation in rad."""
        return np.diag([self.translation * depth**2] * 3 + [self.rotation] * 3)


@dataclass
class SurfaceNoise:
    """How much the network's depth scatters about the points that corners tell, within an image: log, 0 until seen."""

    spread: float = 0.0

    def __post_init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_LATEST)

    def learn(self, spread: float) -> None:
        """One image more; NaN where its corners did not tell."""
        if np.isfinite(spread):
            self._latest.append(spread)
            self.spread = float(np.median(self._latest))


def velocity(
    before: np.ndarray, now: np.ndarray, nanoseconds: int, covariance: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    """Velocity (6,) in the camera's axes from a step between two poses (4, 4) of one window, and its covariance (6, 6).

    covariance: (6, 6) of either end in the map's axes. None, and a covariance that says so, without time between them.
    """
    seconds = nanoseconds * 1e-9
    if seconds <= 0:
        return None, np.diag([UNKNOWN] * 6)
    step = invert(now) @ before
    angular = Rotation.from_matrix(step[:3, :3]).inv().as_rotvec() / seconds
    turn = np.kron(np.eye(2), now[:3, :3].T)
    # Both ends of the step err.
    return np.concatenate([-step[:3, 3] / seconds, angular]), 2 * turn @ covariance @ turn.T / seconds**2
