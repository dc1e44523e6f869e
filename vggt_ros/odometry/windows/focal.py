"""The focal length that the network sees: smoothed where no other is known, else compared with what is."""

from __future__ import annotations

from collections import deque

import numpy as np

from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import WindowPrediction

WINDOWS = 3  # that have to agree
TOLERANCE = 0.05  # relative error of a focal length that does no harm
SHARE = 0.1  # of a new frame in the mean


class SmoothFocal:
    """Focal lengths of an unknown camera, smoothed over frames (log domain)."""

    def __init__(self) -> None:
        self._log: np.ndarray | None = None

    def smoothed(self, K: np.ndarray) -> np.ndarray:
        """(3, 3) with one more frame's focal lengths in the mean."""
        new = np.log([K[0, 0], K[1, 1]])
        self._log = new if self._log is None else self._log + SHARE * (new - self._log)
        K = K.copy()
        K[0, 0], K[1, 1] = np.exp(self._log)
        return K


class FocalCheck:
    """Compares the predicted with the given focal length, window by window.

    sigma: relative standard deviation of the network's own focal length, common to all windows.
    """

    def __init__(self, sigma: float) -> None:
        self._bound = max(TOLERANCE, 3 * sigma)
        self._ratios: deque[float] = deque(maxlen=WINDOWS)

    def reset(self) -> None:
        """Forget the windows so far."""
        self._ratios.clear()

    def update(self, window: Window, prediction: WindowPrediction) -> str:
        """What is wrong with the calibration, in words; empty when nothing is, or it is not known yet."""
        ratios = []
        for slot in window.new_slots:
            K = window.frames[slot].K
            if K is not None:
                given = prediction.maps[slot].K_to_network(K)
                with np.errstate(invalid='ignore', divide='ignore'):
                    ratios.append(np.log(prediction.K[slot][0, 0] / given[0, 0]))
        if not ratios:
            return ''
        self._ratios.append(float(np.median(ratios)))
        typical = float(np.median(self._ratios))
        if len(self._ratios) < WINDOWS or not abs(typical) > self._bound:
            return ''
        return (
            f'the focal length in camera_info seems wrong: the network sees one {np.expm1(typical):+.0%} from it;'
            ' check the calibration, the zoom, and whether the images were resized without their camera_info'
        )
