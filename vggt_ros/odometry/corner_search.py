"""New corners in an image: Shi and Tomasi's (Good Features to Track, 1994), above what noise alone makes."""

from __future__ import annotations

import cv2
import numpy as np

BLOCK = 5  # pixels of the corner measure's window
MIN_NOISE, MAX_NOISE = 1.0, 10.0  # grey levels: less is quantisation, and what looks like more is texture
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer 1996: blind to planes and edges


def search(
    grey: np.ndarray, noise: float, uv: np.ndarray, count: int, most: int, allowed: np.ndarray | None
) -> np.ndarray:
    """At most ``count`` new corners (N, 2) float32 in ``grey`` (h, w), away from those at ``uv`` (N, 2).

    noise: least strength of a corner, as cv2.cornerMinEigenVal measures it. most: corners that would fill the image
    evenly. allowed: (h, w) uint8, 255 where corners may be.
    """
    height, width = grey.shape
    distance = max(2, int(0.7 * np.sqrt(width * height / most)))
    mask = np.full_like(grey, 255) if allowed is None else allowed
    if len(uv):
        free = np.full_like(grey, 255)
        column, row = np.rint(uv).astype(int).T
        free[row, column] = 0
        side = 2 * distance + 1
        near = np.asarray(cv2.erode(free, np.ones((side, side), np.uint8), borderValue=255))
        mask = np.minimum(mask, near)
    _, peak, _, _ = cv2.minMaxLoc(cv2.cornerMinEigenVal(grey, BLOCK), mask)
    fresh = None
    if peak > noise:
        fresh = cv2.goodFeaturesToTrack(grey, count, noise / peak, distance, mask=mask, blockSize=BLOCK)
    return np.zeros((0, 2), np.float32) if fresh is None else fresh[:, 0]


def noise_level(grey: np.ndarray) -> float:
    """Standard deviation of white noise in grey levels, from the median response of Immerkaer's operator.

    J. Immerkaer, Fast Noise Variance Estimation, CVIU 64(2), 1996; the median instead of the mean, since texture fills
    the larger responses. Fine texture everywhere still reads as noise.
    """
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, _NOISE)[1:-1:3, 1:-1:3])
    # The kernel has norm 6; the median of |N(0, 1)| is 0.6745.
    return float(np.median(response)) / (6 * 0.6745) if response.size else 0.0


def strength_of_noise(sigma: float) -> float:
    """What white noise of ``sigma`` grey levels adds to cv2.cornerMinEigenVal of an 8-bit image.

    Sobel gradients, normalised to grey levels per pixel, carry 3/16 of its variance; OpenCV scales them by 2/255.
    """
    return 3 / 16 * sigma**2 * (2 / 255) ** 2
