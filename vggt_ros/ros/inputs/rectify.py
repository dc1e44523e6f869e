"""From the camera's raw image to a pinhole image, as sensor_msgs/CameraInfo describes it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from vggt_ros.calibration import Calibration

# Distortion model -> allowed numbers of coefficients (OpenCV's orders; each longer one continues the shorter).
MODELS = {
    'plumb_bob': (4, 5, 8, 12, 14),
    'rational_polynomial': (4, 5, 8, 12, 14),
    'equidistant': (4,),
}


class CameraInfoError(ValueError):
    """A CameraInfo that cannot be used; the message says what is wrong and what was expected."""


class Rectifier:
    """Turns images of one calibration into pinhole images and knows their K.

    An image whose calibration has no distortion (d empty or zero) is taken as it is, otherwise it is undistorted with
    OpenCV through maps made once. The output has the size of the input, so a depth image made from it has, too; its
    pixels are those of the rectified image, the same that image_proc makes of a calibrated camera:

    - Where P is a projection (fx, fy > 0), the output has K = P[:, :3] and is turned by R. P's fourth column only tells
      where the other camera of a stereo pair is and is not used.
    - Where P is not filled in, the output keeps the raw image's K and is not turned. Other choices (OpenCV's
      getOptimalNewCameraMatrix with alpha 0) stretch x and y differently to hide the border, and fail for wide lenses;
      with K kept, the middle of the picture keeps its resolution and its square pixels.

    Either way some output pixels may lie outside the raw image. They are black, and False in ``valid``.

    Binning and ROI: an image of (roi.width / binning_x, roi.height / binning_y) pixels is expected. K moves with the
    pixel centres, as the average over each block of raw pixels does. With roi.do_rectify the output window is moved
    (not resized) to where the middle of the window lies in the rectified image; otherwise it is the same window.

    info: a CameraInfo message of ROS 2 or a Calibration. rectified: the images are rectified already (topics named
    image_rect share the raw image's CameraInfo, distortion and all): nothing is undone, K is P's if P is filled in.
    Raises CameraInfoError.

    Attributes: calibration (compare it with a new message's to see a change); size, (width, height) of the images;
    K, (3, 3) float64 of the output; valid, (H, W) bool or None where all pixels are; is_identity, nothing to undo.
    """

    def __init__(self, info: Any, *, rectified: bool = False) -> None:
        self.calibration = calibration = Calibration.from_message(info)
        _check_finite(calibration)
        K, R, P = _matrices(calibration)
        distortion = _distortion(calibration)
        window, self.size = _window(calibration)
        self.is_identity = rectified or not distortion.any()
        self.valid: np.ndarray | None = None
        if P is None:
            P, R = K, np.eye(3)
        self.K = window @ P
        if not self.is_identity:
            self._make_maps(window @ K, distortion, R)

    def _make_maps(self, K: np.ndarray, distortion: np.ndarray, R: np.ndarray) -> None:
        """K: of the raw image's own pixels. Moves ``self.K`` where the ROI asks for it."""
        fisheye = self.calibration.distortion_model == 'equidistant'
        if self.calibration.roi.do_rectify:
            centre = (np.array([[self.size]], np.float64) - 1) / 2
            undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
            moved = undistort(centre, K, distortion, R=R, P=self.K)
            self.K[:2, 2] -= np.round(moved - centre)[0, 0]
        make_maps = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
        maps = make_maps(K, distortion, R, self.K, self.size, cv2.CV_32FC1)
        valid = _valid(*maps)
        self.valid = None if valid.all() else valid
        # Fixed-point maps: 1/32 pixel, three times as fast.
        self._maps = cv2.convertMaps(*maps, cv2.CV_16SC2)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Rectify (H, W[, C]); returns the image itself when there is nothing to undo. CameraInfoError on its size."""
        height, width = image.shape[:2]
        if (width, height) != self.size:
            info = self.calibration
            raise CameraInfoError(
                f'the image has {width}x{height} pixels, its camera_info describes {self.size[0]}x{self.size[1]}'
                f' (calibrated {info.width}x{info.height}, binning {info.binning_x}x{info.binning_y},'
                f' roi {info.roi.width}x{info.roi.height})'
            )
        if self.is_identity:
            return image
        rectified = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if self.valid is not None:
            rectified[~self.valid] = 0
        return rectified


def _check_finite(info: Calibration) -> None:
    for name in 'dkrp':
        if not np.isfinite(getattr(info, name)).all():
            raise CameraInfoError(f'camera_info has numbers in {name} that are not finite: {getattr(info, name)}')
    if info.width < 1 or info.height < 1:
        raise CameraInfoError(f'camera_info describes an image of {info.width}x{info.height} pixels')


def _matrices(info: Calibration) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """K (3, 3), R (3, 3) and the left part of P (3, 3), None where P is not filled in."""
    if not any(info.k):
        raise CameraInfoError('the camera is not calibrated: K is zero')
    K, R, P = (np.array(x).reshape(3, -1) for x in (info.k, info.r, info.p))
    if not _is_pinhole(K):
        raise CameraInfoError(f'K is not [fx 0 cx; 0 fy cy; 0 0 1] with fx, fy > 0: {info.k}')
    if not R.any():
        R = np.eye(3)
    if np.abs(R @ R.T - np.eye(3)).max() > 1e-2 or np.linalg.det(R) < 0:
        raise CameraInfoError(f'R is not a rotation: {info.r}')
    if P[0, 0] == 0 or P[1, 1] == 0:
        return K, R, None
    if not _is_pinhole(P[:, :3]):
        raise CameraInfoError(f"P is not [fx' 0 cx' Tx; 0 fy' cy' Ty; 0 0 1 0] with fx', fy' > 0: {info.p}")
    return K, R, P[:, :3]


def _is_pinhole(K: np.ndarray) -> bool:
    zeros = (K[0, 1], K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1)
    return bool(K[0, 0] > 0 and K[1, 1] > 0 and np.abs(zeros).max() < 1e-6)


def _distortion(info: Calibration) -> np.ndarray:
    d = np.array(info.d, np.float64)
    if not d.any():
        return np.zeros(4)
    if info.distortion_model not in MODELS:
        raise CameraInfoError(
            f'distortion model {info.distortion_model!r} is not supported; supported: {", ".join(MODELS)}'
        )
    if len(d) not in MODELS[info.distortion_model]:
        numbers = ', '.join(str(x) for x in MODELS[info.distortion_model])
        raise CameraInfoError(f'{info.distortion_model} has {numbers} coefficients, camera_info gives {len(d)}')
    return d


def _window(info: Calibration) -> tuple[np.ndarray, tuple[int, int]]:
    """(3, 3) map from full-resolution pixels to the image's pixels, and the image's (width, height).

    Crop to the ROI, then average blocks of the binning's size: pixel edges scale, centres follow.
    """
    binning = np.maximum(1, (info.binning_x, info.binning_y))
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    if roi.x_offset + width > info.width or roi.y_offset + height > info.height:
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
    with np.errstate(invalid='ignore'):  # rays beyond 90 degrees are at infinity in a fisheye's map
        x_v, x_u = np.gradient(map_x)
        y_v, y_u = np.gradient(map_y)
        unfolded = x_u * y_v - x_v * y_u > 0
    inside = (map_x >= -0.5) & (map_x <= width - 0.5) & (map_y >= -0.5) & (map_y <= height - 0.5)
    return inside & unfolded
