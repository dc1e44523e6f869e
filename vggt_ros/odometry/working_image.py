"""The picture in which corners are followed, and what is told of it as a whole.

Lengths are in "px at 518": pixels of the image scaled so that its longest side is 518, the network's size. Large images
are looked at in that size; small ones as they are, for enlarging adds nothing but time.
"""

from __future__ import annotations

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, image_size

REFERENCE = 518  # longest side to which all thresholds refer


def working_size(source: tuple[int, int]) -> PixelMap:
    """Source pixels <-> pixels of the tracked image, whose longest side is at most 518."""
    ratio = min(1.0, REFERENCE / max(source))
    size = (max(1, round(source[0] * ratio)), max(1, round(source[1] * ratio)))
    return PixelMap(source, size, (0, 0), size)


def working_image(full: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) uint8 of the tracked size, of the grey picture (H, W) of a frame."""
    if pixel_map.size == image_size(full):
        return full
    return np.asarray(cv2.resize(full, pixel_map.size, interpolation=cv2.INTER_AREA))


def gain_of(before: np.ndarray, after: np.ndarray) -> float:
    """log2 of the ratio of grey levels, median over blocks that are neither dark nor saturated; 0 without any."""
    usable = (before > 8) & (after > 8) & (before < 245) & (after < 245)
    return float(np.median(np.log2(after[usable] / before[usable]))) if usable.sum() >= 32 else 0.0


def sharpness_of(grey: np.ndarray) -> float:
    """Variance of the Laplacian at half size, where noise weighs less and motion blur of a few pixels still shows."""
    half = cv2.pyrDown(grey)
    return float(cv2.Laplacian(half, cv2.CV_32F).var())
