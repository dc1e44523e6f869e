"""From the camera's raw image to a pinhole image, as sensor_msgs/CameraInfo describes it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.camera import MAX_PIXELS, PixelMap, image_size, pixel_grid
from vggt_ros.declared import declared
from vggt_ros.lens import CameraInfoError, Lens

PRECISION = 1 / 32  # source pixels: what OpenCV's fixed-point maps are exact to
GRID = 17  # points across and down by which two ways to rectify are compared
SKEW = 0.02  # of the focal length: more is no calibration's rest


class Rectifier:
    """Turns images of one calibration into pinhole images and knows their K.

    The output has the size of the input, so a depth image made from it has, too; its pixels are those of the rectified
    image, the same that OpenCV makes of a calibrated camera, and image_proc:

    - Where P is a projection (fx, fy > 0), the output has K = P[:, :3] and is turned by R. P's fourth column only tells
      where the other camera of a stereo pair is and is not used.
    - Where P is not filled in, the output keeps the raw image's K and is not turned. Other choices (OpenCV's
      getOptimalNewCameraMatrix with alpha 0) stretch x and y differently to hide the border, and fail for wide lenses;
      with K kept, the middle of the picture keeps its resolution and its square pixels.
    - K's skew, which OpenCV's calibration of fisheyes may give, is left out, as OpenCV's rectification does.

    An image that would move nowhere by ``PRECISION`` is taken as it is. One without distortion whose R or P say
    otherwise is not: it is turned and scaled by them (image_proc passes it on, with a K that is not its own).

    Either way some output pixels may lie outside the raw image. They are black, and False in ``valid``.

    Binning and ROI: an image of (roi.width / binning_x, roi.height / binning_y) pixels is expected. K moves with the
    pixel centres, as the average over each block of raw pixels does. With roi.do_rectify the output window is moved
    (not resized) to where the middle of the window lies in the rectified image; otherwise it is the same window.

    info: a CameraInfo message of ROS 2 or a Calibration. rectified: the images are rectified already (topics named
    image_rect share the raw image's CameraInfo, distortion and all): nothing is undone, K is P's if P is filled in.
    picture: (width, height) of the pictures that are rectified where they show the image smaller.
    Raises CameraInfoError, and nothing else on whatever a message may hold.

    Attributes: calibration; size, (width, height) of the images; K, (3, 3) float64 of the output, in source pixels;
    is_identity, nothing to undo.
    """

    def __init__(self, info: Any, *, rectified: bool = False, picture: tuple[int, int] | None = None) -> None:
        with declared(CameraInfoError, 'camera_info cannot be used'), np.errstate(all='ignore'):
            self.calibration = calibration = Calibration.from_message(info)
            _check_finite(calibration)
            K, R, P = _matrices(calibration)
            window, self.size = _window(calibration)
            self._picture = picture or self.size
            self.K = window @ (K if P is None else P)
            self.K[0, 1] = 0.0
            self._R = np.eye(3) if P is None or rectified else R
            self._lens = Lens(self.K, np.zeros(4)) if rectified else Lens.of(calibration, window @ K)
            if calibration.roi.do_rectify and not rectified:
                centre = (np.array([self.size], np.float64) - 1) / 2
                self.K[:2, 2] -= np.round(self._lens.rectified(centre, self._R, self.K) - centre)[0]
            _check_view(self.K, self.size)
            self._sample = self._look_up()
            self.is_identity = rectified or self._is_still()

    def _look_up(self) -> np.ndarray:
        """(GRID, GRID, 2) raw pixels under points of the output that are spread over all of it."""
        step = np.maximum((np.array(self.size) - 1) / (GRID - 1), 1e-6)
        coarse = np.diag([*1 / step, 1.0])
        sample = np.stack(self._lens.maps(self._R, coarse @ self.K, (GRID, GRID)), -1).astype(np.float64)
        if not self._inside(sample).any():
            raise CameraInfoError('the rectified image would show nothing of the raw one: K, D, R and P do not agree')
        return sample

    def _is_still(self) -> bool:
        return bool((np.abs(self._sample - _spread(self.size)) <= PRECISION).all())

    def _inside(self, raw: np.ndarray) -> np.ndarray:
        """Whether raw pixels (..., 2) are in the image."""
        return np.logical_and.reduce((raw >= -0.5) & (raw <= np.array(self.size) - 0.5), axis=-1)

    def moved(self, other: Rectifier) -> float:
        """Source pixels by which the meaning of a pixel differs, at most: where it comes from, or where it looks.

        Infinite when the images have different sizes.
        """
        if self.size != other.size:
            return np.inf
        both = self._inside(self._sample) & self._inside(other._sample)
        apart = np.abs(self._sample - other._sample)[both]
        corners = np.array([[0, 0, 1], [*(np.array(self.size) - 1), 1]], np.float64).T
        turned = np.abs(self.K @ np.linalg.inv(other.K) @ corners - corners)
        return float(max(apart.max(initial=0.0), turned.max(), 0.0 if both.any() else np.inf))

    @cached_property
    def _maps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Two for cv2.remap of a picture, and what of it is valid."""
        matrix = PixelMap(self.size, self._picture, (0, 0), self._picture).matrix
        maps = self._lens.seen_in(matrix).maps(self._R, matrix @ self.K, self._picture)
        valid = _valid(*maps)
        # Fixed-point maps: 1/32 pixel, three times as fast.
        x, y = cv2.convertMaps(*maps, cv2.CV_16SC2)
        return np.asarray(x), np.asarray(y), None if valid.all() else valid

    @property
    def valid(self) -> np.ndarray | None:
        """(H, W) bool, False where the raw image shows nothing; None where all pixels are."""
        return None if self.is_identity else self._maps[2]

    def check(self, size: tuple[int, int]) -> None:
        """Raises CameraInfoError where images are not of the size that camera_info describes."""
        if size != self.size:
            info = self.calibration
            raise CameraInfoError(
                f'the image has {size[0]}x{size[1]} pixels, its camera_info describes {self.size[0]}x{self.size[1]}'
                f' (calibrated {info.width}x{info.height}, binning {info.binning_x}x{info.binning_y},'
                f' roi {info.roi.width}x{info.roi.height})'
            )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Rectify (H, W[, C]); returns the image itself when there is nothing to undo. CameraInfoError on its size."""
        if image_size(image) != self._picture:
            self.check(image_size(image))
        if self.is_identity:
            return image
        with declared(CameraInfoError, 'the image cannot be rectified'):
            x, y, valid = self._maps
            rectified = np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        if valid is not None:
            rectified[~valid] = 0
        return rectified

    def depth(self, depth: np.ndarray) -> np.ndarray:
        """(H, W) float32 z-depth of the raw image -> that of the rectified one; NaN where it has none.

        Each pixel is the nearest raw one, for a mean of two surfaces is none. Where the image is turned, z is that
        along its new axis. Raises CameraInfoError on its size.
        """
        self.check(image_size(depth))
        if self.is_identity:
            return depth
        with declared(CameraInfoError, 'the depth image cannot be rectified'):
            x, y = self._lens.maps(self._R, self.K, self.size)
            nearest = np.asarray(cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderValue=np.nan))
        nearest[~_valid(x, y)] = np.nan
        grid = pixel_grid(self.size)
        rays = (np.concatenate([grid, np.ones_like(grid[..., :1])], -1)) @ np.linalg.inv(self.K).T
        return (nearest / (rays @ self._R[:, 2])).astype(np.float32)


def _spread(size: tuple[int, int]) -> np.ndarray:
    """(GRID, GRID, 2) pixels from corner to corner."""
    return np.stack(np.meshgrid(*(np.linspace(0, side - 1, GRID) for side in size)), -1)


def _check_finite(info: Calibration) -> None:
    for name, count in (('d', None), ('k', 9), ('r', 9), ('p', 12)):
        numbers = getattr(info, name)
        if count is not None and len(numbers) != count:
            raise CameraInfoError(f'camera_info has {len(numbers)} numbers in {name}, not {count}')
        if not np.isfinite(numbers).all():
            raise CameraInfoError(f'camera_info has numbers in {name} that are not finite: {numbers}')
    if info.width < 1 or info.height < 1:
        raise CameraInfoError(f'camera_info describes an image of {info.width}x{info.height} pixels')
    if info.width * info.height > MAX_PIXELS:
        megapixels = MAX_PIXELS // 10**6
        raise CameraInfoError(
            f'camera_info describes an image of {info.width}x{info.height} pixels, more than {megapixels} megapixels'
        )


def _check_view(K: np.ndarray, size: tuple[int, int]) -> None:
    """A focal length of 0.01 to 1000 images, and a middle that is not far outside: what else is no camera."""
    focal, centre = K.diagonal()[:2] / max(size), np.abs(K[:2, 2]) / max(size)
    if not (np.all((focal > 0.01) & (focal < 1000)) and np.all(centre < 100)):
        raise CameraInfoError(
            f'fx, fy, cx, cy = {K[0, 0]:g}, {K[1, 1]:g}, {K[0, 2]:g}, {K[1, 2]:g} are no camera of'
            f' {size[0]}x{size[1]} pixels'
        )


def _matrices(info: Calibration) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """K (3, 3), R (3, 3) and the left part of P (3, 3), None where P is not filled in."""
    if not any(info.k):
        raise CameraInfoError('the camera is not calibrated: K is zero')
    K, R, P = (np.array(x, np.float64).reshape(3, -1) for x in (info.k, info.r, info.p))
    if not _is_pinhole(K, SKEW):
        raise CameraInfoError(f'K is not [fx 0 cx; 0 fy cy; 0 0 1] with fx, fy > 0: {info.k}')
    if not R.any():
        R = np.eye(3)
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-2 or np.linalg.det(R) < 0:
        raise CameraInfoError(f'R is not a rotation: {info.r}')
    if R[2, 2] <= 0:
        raise CameraInfoError(f'R turns the rectified image away from the camera: {info.r}')
    if P[0, 0] == 0 or P[1, 1] == 0:
        return K, R, None
    if not _is_pinhole(P[:, :3]):
        raise CameraInfoError(f"P is not [fx' 0 cx' Tx; 0 fy' cy' Ty; 0 0 1 0] with fx', fy' > 0: {info.p}")
    return K, R, P[:, :3]


def _is_pinhole(K: np.ndarray, skew: float = 0.0) -> bool:
    """skew: of the focal length, that is let pass."""
    zeros = (K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1)
    upright = K[0, 0] > 0 and K[1, 1] > 0 and np.abs(zeros).max() < 1e-6
    return bool(upright and abs(K[0, 1]) < max(1e-6, skew * K[0, 0]))


def _window(info: Calibration) -> tuple[np.ndarray, tuple[int, int]]:
    """(3, 3) map from full-resolution pixels to the image's pixels, and the image's (width, height).

    Crop to the ROI, then average blocks of the binning's size: pixel edges scale, centres follow.
    """
    binning = np.maximum(1, (info.binning_x, info.binning_y))
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    if min(roi.x_offset, roi.y_offset) < 0 or roi.x_offset + width > info.width or roi.y_offset + height > info.height:
        raise CameraInfoError(
            f'the roi, {width}x{height} at ({roi.x_offset}, {roi.y_offset}), leaves the sensor of'
            f' {info.width}x{info.height} pixels'
        )
    size = (int(width // binning[0]), int(height // binning[1]))
    if min(size) < 1:
        raise CameraInfoError(f'binning {binning[0]}x{binning[1]} leaves nothing of {width}x{height} pixels')
    matrix = np.diag([*1 / binning, 1.0])
    matrix[:2, 2] = (0.5 - np.array([roi.x_offset, roi.y_offset])) / binning - 0.5
    return matrix, size


def _valid(map_x: np.ndarray, map_y: np.ndarray) -> np.ndarray:
    """(H, W) bool: output pixels that the raw image shows.

    A distortion polynomial holds for the calibrated image only; further out it may turn back and show the picture a
    second time, mirrored: there the map's Jacobian is not positive.
    """
    height, width = map_x.shape
    with np.errstate(invalid='ignore', over='ignore'):  # rays beyond 90 degrees are at infinity in a fisheye's map
        x_v, x_u = np.gradient(map_x)
        y_v, y_u = np.gradient(map_y)
        unfolded = x_u * y_v - x_v * y_u > 0
    inside = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
    return inside & unfolded
