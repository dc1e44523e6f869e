"""Depth and confidence from the network's pixels to the camera's, colour from the camera's to the network's."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, pixel_grid

DISCONTINUITY = 0.05  # relative difference between neighbours beyond which nothing is interpolated


def depth_to_source(depth: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) at the network's size -> (H, W) float32 at the source's; NaN outside the crop and where depth is unknown.

    Bilinear on surfaces, the nearest pixel at depth edges and beside holes: no point hangs between two surfaces.
    """
    u, v = _network_pixels(pixel_map)
    nearest = cv2.remap(depth, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=np.nan)
    # NaN spreads in OpenCV's arithmetic: exactly the pixels that touch a hole become NaN and take the nearest value.
    linear = cv2.remap(depth, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    with np.errstate(invalid='ignore'):
        smooth = np.abs(linear - nearest) <= DISCONTINUITY / 2 * nearest
    return np.where(smooth, linear, nearest)


def confidence_to_source(confidence: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) at the network's size -> (H, W) float32, bilinear; 0 outside the crop."""
    u, v = _network_pixels(pixel_map)
    inside = cv2.remap(np.ones_like(confidence), u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return cv2.remap(confidence, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * inside


def color_to_network(image: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(H, W, 3) uint8 source image -> (h, w, 3) uint8, one colour for each network pixel."""
    u, v = _lookup(pixel_map.to_source(pixel_grid(pixel_map.size)))
    return cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _network_pixels(pixel_map: PixelMap) -> tuple[np.ndarray, np.ndarray]:
    """Where each source pixel lies in the network's image; the same for every image of a camera."""
    return _lookup(pixel_map.to_network(pixel_grid(pixel_map.source)))


def _lookup(uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    uv = uv.astype(np.float32)
    return np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])
