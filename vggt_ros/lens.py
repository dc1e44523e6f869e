"""Lenses: what a distortion model's name and numbers mean, and what OpenCV makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from vggt_ros.calibration import Calibration

# Distortion model -> allowed numbers of coefficients (OpenCV's orders; each longer one continues the shorter).
MODELS = {
    'plumb_bob': (4, 5, 8, 12, 14),
    'rational_polynomial': (4, 5, 8, 12, 14),
    'equidistant': (4,),
}
# Other names of the same formulas: Kalibr's, OpenCV's and librealsense's.
ALIASES = {
    'radtan': 'plumb_bob',
    'brown_conrady': 'plumb_bob',
    'modified_brown_conrady': 'plumb_bob',
    'fisheye': 'equidistant',
    'kannala_brandt': 'equidistant',
    'kannala_brandt4': 'equidistant',
}


class CameraInfoError(ValueError):
    """A CameraInfo that cannot be used; the message says what is wrong and what was expected."""


@dataclass(frozen=True, eq=False)
class Lens:
    """K: (3, 3) of the raw image, its skew is not used. coefficients: (N,) in OpenCV's order. fisheye: equidistant."""

    K: np.ndarray
    coefficients: np.ndarray
    fisheye: bool = False

    @classmethod
    def of(cls, info: Calibration, K: np.ndarray) -> Lens:
        """As a camera_info describes it. Raises CameraInfoError for a model that OpenCV has not, by its name."""
        d, name = np.array(info.d, np.float64), info.distortion_model
        if not d.any():
            return cls(K, np.zeros(4))
        model = ALIASES.get(name.strip().lower(), name)
        if model not in MODELS:
            raise CameraInfoError(
                f'distortion model {name!r} is not supported; supported: {", ".join((*MODELS, *ALIASES))}'
            )
        if name.startswith('modified') and d[2:4].any():
            # librealsense bends the radially distorted point, OpenCV the ideal one.
            raise CameraInfoError(f'{name} with tangential coefficients is not supported: OpenCV has no such model')
        counts = [count for count in MODELS[model] if count <= len(d)]
        # Some drivers fill up with zeros what their messages have room for.
        if not counts or d[counts[-1] :].any():
            numbers = ', '.join(str(count) for count in MODELS[model])
            raise CameraInfoError(f'{name} has {numbers} coefficients, camera_info gives {len(d)}')
        return cls(K, d[: counts[-1]], model == 'equidistant')

    def seen_in(self, matrix: np.ndarray) -> Lens:
        """The lens as it is in other pixels, (3, 3) of the raw image's."""
        return replace(self, K=matrix @ self.K)

    def maps(self, R: np.ndarray, P: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Raw pixels x and y, (h, w) float32 each, of an image of (w, h) that is turned by R and projected by P."""
        make = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        x, y = make(self.K, self.coefficients, R, P, size, cv2.CV_32FC1)
        return np.asarray(x), np.asarray(y)

    def rectified(self, uv: np.ndarray, R: np.ndarray, P: np.ndarray) -> np.ndarray:
        """Where raw pixels (N, 2) are in that image, (N, 2)."""
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        return np.asarray(undistort(uv[:, None], self.K, self.coefficients, R=R, P=P))[:, 0]
