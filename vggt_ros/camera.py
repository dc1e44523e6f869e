"""The pinhole camera, and every crop and resize as one object that maps pixels and K both ways.

Pixels: integer coordinates are pixel centres, as in OpenCV and sensor_msgs/CameraInfo. VGGT's own convention
(principal point at W/2) is converted in :func:`intrinsics_from_fov`, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_PIXELS = 100_000_000  # of an image: what promises more is refused before anybody makes room for it


@dataclass(frozen=True)
class PixelMap:
    """Source image -> resized to ``resized`` -> cropped at ``offset`` to ``size``: the network's image.

    source, resized, size: (width, height) in pixels. offset: (x, y) of the crop's first pixel in the resized image.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    @property
    def scale(self) -> np.ndarray:
        """(2,) network pixels per source pixel, x and y."""
        return np.array(self.resized, np.float64) / np.array(self.source, np.float64)

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) homogeneous map from source to network pixels: K_network = matrix @ K_source."""
        # Pixel i covers [i - 0.5, i + 0.5): edges scale, centres follow.
        shift = 0.5 * self.scale - 0.5 - np.array(self.offset)
        matrix = np.diag([*self.scale, 1.0])
        matrix[:2, 2] = shift
        return matrix

    def to_network(self, uv: np.ndarray) -> np.ndarray:
        """Source pixels (..., 2) -> network pixels (..., 2)."""
        matrix = self.matrix
        return np.asarray(uv) * matrix.diagonal()[:2] + matrix[:2, 2]

    def to_source(self, uv: np.ndarray) -> np.ndarray:
        """Network pixels (..., 2) -> source pixels (..., 2)."""
        matrix = self.matrix
        return (np.asarray(uv) - matrix[:2, 2]) / matrix.diagonal()[:2]

    def K_to_network(self, K: np.ndarray) -> np.ndarray:
        """Intrinsics of the source image (..., 3, 3) -> of the network's image."""
        return self.matrix @ K

    def K_to_source(self, K: np.ndarray) -> np.ndarray:
        """Intrinsics of the network's image (..., 3, 3) -> of the source image."""
        return np.linalg.inv(self.matrix) @ K


def fit(source: tuple[int, int], longest: int = 518, multiple: int = 14) -> PixelMap:
    """The pixel map that keeps the aspect ratio: uniform scale, then a centred crop to multiples of ``multiple``.

    source: (width, height) of the camera image. The longest side becomes ``longest``, the other the nearest multiple
    (at least one); the scale is the smallest that covers both, so at most a few pixels of one side are cropped away:
    but of an image that is more than ``longest : multiple`` flat both ends.
    Raises ValueError for an empty image or a ``longest`` that is not a multiple.
    """
    width, height = source
    if width < 1 or height < 1:
        raise ValueError(f'image size {width}x{height} is empty')
    if longest < multiple or longest % multiple:
        raise ValueError(f'longest side {longest} is not a positive multiple of {multiple}')
    ratio = longest / max(width, height)
    target = [max(multiple, round(side * ratio / multiple) * multiple) for side in source]
    scale = max(target[0] / width, target[1] / height)
    resized = [max(goal, round(side * scale)) for goal, side in zip(target, source, strict=True)]
    offset = [(full - goal) // 2 for full, goal in zip(resized, target, strict=True)]
    return PixelMap((width, height), (resized[0], resized[1]), (offset[0], offset[1]), (target[0], target[1]))


def image_size(image: np.ndarray) -> tuple[int, int]:
    """(width, height) of an array (H, W[, C])."""
    return image.shape[1], image.shape[0]


def shown_by(source: tuple[int, int], image: np.ndarray) -> PixelMap:
    """Source pixels -> pixels of a picture (H, W[, C]) that shows all of the source's image, smaller or not."""
    return PixelMap(source, image_size(image), (0, 0), image_size(image))


def intrinsics_from_fov(fov_h: np.ndarray, fov_w: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """VGGT's fields of view in radians (each (...,), vertical and horizontal) -> K (..., 3, 3) for ``size`` (w, h).

    VGGT puts the principal point at (W/2, H/2) measured from the image's corner (arXiv 2503.11651, section 3.1);
    with integer pixel centres that is ((W - 1) / 2, (H - 1) / 2).
    A field of view of 0 or beyond pi is no camera: K is NaN there.
    """
    width, height = size
    fov_h, fov_w = np.asarray(fov_h, np.float64), np.asarray(fov_w, np.float64)
    K = np.zeros((*fov_h.shape, 3, 3))
    for axis, (side, fov) in enumerate(((width, fov_w), (height, fov_h))):
        valid = (fov > 1e-3) & (fov < np.pi - 1e-3)
        K[..., axis, axis] = np.where(valid, side / 2 / np.tan(np.where(valid, fov, 1.0) / 2), np.nan)
        K[..., axis, 2] = (side - 1) / 2
    K[..., 2, 2] = 1.0
    return K


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """(h, w, 2) float64 pixel centres (u, v) of an image of ``size`` (w, h)."""
    width, height = size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    return np.stack([u, v], axis=-1)


def rays(uv: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) -> camera-frame directions with z = 1, (..., 3)."""
    xy = (np.asarray(uv, np.float64) - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    return np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], axis=-1)


def unproject(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """z-depth (h, w) -> points (h, w, 3) float64 in the camera's optical frame; NaN stays NaN."""
    return rays(pixel_grid(image_size(depth)), K) * depth[..., None]


def project(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Points (..., 3) in the optical frame -> pixels (..., 2); NaN for points at or behind the camera."""
    points = np.asarray(points, np.float64)
    z = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
    return points[..., :2] / z * np.array([K[0, 0], K[1, 1]]) + K[:2, 2]


def transform(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply T (4, 4) to points (..., 3)."""
    return points @ T[:3, :3].T + T[:3, 3]


def invert(T: np.ndarray) -> np.ndarray:
    """Inverse of rigid transforms (..., 4, 4)."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    inverse = np.zeros_like(T)
    inverse[..., :3, :3] = R_t
    inverse[..., :3, 3] = -(R_t @ T[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse
