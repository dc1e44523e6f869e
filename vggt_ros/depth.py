"""Depth images: looked up between pixels, taken to another size, and where their surfaces end.

Depth and confidence go from the network's pixels to the camera's, colour from the camera's to the network's.
"""

from __future__ import annotations

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, pixel_grid, shown_by

DISCONTINUITY = 0.05  # relative difference between neighbours beyond which nothing is interpolated
STEP = 0.1  # relative difference across 3 x 3 pixels beyond which a point may hang between two surfaces
BAND = 32  # rows of a large image that are worked on at once: the CPU's cache
EDGE = 0.05  # |d log z| between neighbours beyond which a pixel lies on a depth edge


def depth_to_source(depth: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) at the network's size -> (H, W) float32 at the source's; NaN outside the crop and where depth is unknown.

    Bilinear on surfaces, the nearest pixel at depth edges and beside holes: no point hangs between two surfaces.
    """
    nearest = _enlarged(depth, pixel_map, cv2.INTER_NEAREST_EXACT)
    # NaN spreads in OpenCV's arithmetic: exactly the pixels that touch a hole become NaN and take the nearest value.
    linear = _enlarged(depth, pixel_map, cv2.INTER_LINEAR)
    for top in range(0, len(nearest), BAND):
        between, near = linear[top : top + BAND], nearest[top : top + BAND]
        smooth = cv2.inRange(cv2.divide(between, near), 1 - DISCONTINUITY / 2, 1 + DISCONTINUITY / 2)
        cv2.copyTo(between, smooth, near)
    return _cropped(nearest, pixel_map, np.nan)


def confidence_to_source(confidence: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) at the network's size -> (H, W) float32, bilinear; 0 outside the crop."""
    return _cropped(_enlarged(confidence, pixel_map, cv2.INTER_LINEAR), pixel_map, 0)


def color_to_network(image: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(H, W, 3) uint8 picture of the source -> (h, w, 3) uint8, one colour for each network pixel."""
    at = shown_by(pixel_map.source, image).to_network(pixel_map.to_source(pixel_grid(pixel_map.size)))
    u, v = np.ascontiguousarray(np.moveaxis(at, -1, 0), np.float32)
    return cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def depth_at(depth: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """z-depth (N,) under pixels ``uv`` (N, 2) of a depth image (h, w): interpolated in inverse depth, exact on planes.

    NaN outside, at depth edges, and where a neighbouring pixel is unknown.
    """
    height, width = depth.shape
    if min(height, width) < 3:
        return np.full(len(uv), np.nan)
    inside = np.all((uv > -0.5) & (uv < np.array([width, height]) - 0.5), axis=1)
    uv = np.where(inside[:, None], uv, 0.0)
    column, row = np.clip(np.rint(uv).astype(int), 1, np.array([width, height]) - 2).T
    around = np.arange(-1, 2)
    patch = depth[row[:, None, None] + around[:, None], column[:, None, None] + around].astype(np.float64)
    with np.errstate(invalid='ignore'):
        smooth = inside & (patch.max((1, 2)) <= (1 + STEP) * patch.min((1, 2))) & (patch.min((1, 2)) > 0)
    inverse = 1 / np.where(smooth[:, None, None], patch, 1.0)
    # The plane through the patch, least squares.
    dx, dy = uv[:, 0] - column, uv[:, 1] - row
    slope_x, slope_y = (inverse * around).sum((1, 2)) / 6, (inverse * around[:, None]).sum((1, 2)) / 6
    return np.where(smooth, 1 / (inverse.mean((1, 2)) + slope_x * dx + slope_y * dy), np.nan)


def edge_mask(depth: np.ndarray) -> np.ndarray:
    """(h, w) depth, NaN unknown -> (h, w) bool: beside a step in depth, where a pixel may lie between two surfaces."""
    filled = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    far = cv2.dilate(filled, kernel)
    near = cv2.erode(np.where(filled > 0, filled, np.float32(np.inf)), kernel)
    return far - near > STEP * near


def edges_at(depth: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Whether the log depth of these pixels differs from a neighbour's by more than ``EDGE``; bool.

    depth: (h, w). rows, columns: integers that broadcast against each other; only these pixels are looked at.
    """
    height, width = depth.shape
    steps = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    around = [depth[np.clip(rows + i, 0, height - 1), np.clip(columns + j, 0, width - 1)] for i, j in steps]
    log_depth = np.log(np.where(np.stack(around) > 0, around, np.nan))
    return (np.abs(log_depth[1:] - log_depth[0]) > EDGE).any(0)


def _enlarged(values: np.ndarray, pixel_map: PixelMap, interpolation: int) -> np.ndarray:
    """(h, w) at the network's size -> (H, W) at the source's; what was cropped away is as its rim."""
    (left, top), (width, height) = pixel_map.offset, pixel_map.size
    right, bottom = pixel_map.resized[0] - left - width, pixel_map.resized[1] - top - height
    whole = cv2.copyMakeBorder(values, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(whole, pixel_map.source, interpolation=interpolation))


def _cropped(values: np.ndarray, pixel_map: PixelMap, outside: float) -> np.ndarray:
    """(H, W) at the source's size, changed in place: ``outside`` where the network's image, cropped, shows nothing."""
    width, height = pixel_map.source
    u = pixel_map.to_network(np.stack([np.arange(width), np.zeros(width)], -1))[:, 0]
    v = pixel_map.to_network(np.stack([np.zeros(height), np.arange(height)], -1))[:, 1]
    values[:, (u <= -0.5) | (u >= pixel_map.size[0] - 0.5)] = outside
    values[(v <= -0.5) | (v >= pixel_map.size[1] - 0.5)] = outside
    return values
