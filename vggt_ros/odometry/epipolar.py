"""What the corners of two images say together: the essential matrix, and which of them lie on its lines."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

EPIPOLAR = 1.0  # px at 518, from the line on which a corner must lie
CONFIDENCE, ITERATIONS = 0.999, 1000  # of RANSAC
LEAST_COMMON = 25  # corners of two images from which their motion can be told
SHARE = 0.3  # of them that must agree on a motion for the others to be wrong


def essential(a: np.ndarray, b: np.ndarray, K: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The essential matrix (3, 3) that most agree on, and who (N,) they are; None where there is none.

    a, b: (N, 2) pixels of the same points in two images. K: (3, 3) of both. within: px, from the epipolar line. Five
    points (Nister 2004) in MAGSAC++ (Barath et al. 2020).
    """
    return _found(lambda: cv2.findEssentialMat(a, b, K, cv2.USAC_MAGSAC, CONFIDENCE, within))


def _found(search: Callable[[], tuple[np.ndarray | None, np.ndarray]]) -> tuple[np.ndarray, np.ndarray] | None:
    """A matrix (3, 3) and who (N,) agree on it; None where OpenCV finds none, or several, or trips over samples that
    tell nothing: there its USAC fails an assertion.
    """
    try:
        matrix, kept = search()
    except cv2.error:
        return None
    return None if matrix is None or matrix.shape != (3, 3) else (matrix, kept[:, 0].astype(bool))


def agreeing(a: np.ndarray, b: np.ndarray, K: np.ndarray | None, within: float) -> np.ndarray:
    """(N,) which of the points move as one rigid scene does before a moving camera; all where too few tell.

    As :func:`essential`; without K by the fundamental matrix.
    """
    everything = np.ones(len(a), bool)
    if len(a) < LEAST_COMMON:
        return everything
    if K is not None:
        found = essential(a, b, K, within)
    else:
        found = _found(lambda: cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, within, CONFIDENCE, ITERATIONS))
    return everything if found is None or found[1].mean() < SHARE else found[1]
