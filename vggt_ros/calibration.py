"""The calibration of a camera: sensor_msgs/CameraInfo without its header, under the same field names, without ROS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Roi:
    """Window of the sensor in full-resolution pixels; all 0 means the whole sensor (sensor_msgs/RegionOfInterest)."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class Calibration:
    """One camera's calibration. Two are equal when every number is, so a change in mid-stream shows.

    width, height: size in pixels at which the camera was calibrated (before binning and ROI).
    distortion_model, d: as in sensor_msgs/distortion_models.hpp.
    k: 9 numbers, K of the raw image by rows. r: 9, rectifying rotation. p: 12, projection of the rectified image.
    All zero where unknown. Nothing is checked here: ``vggt_ros.rectify.Rectifier`` does that.
    """

    width: int
    height: int
    distortion_model: str = ''
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    p: tuple[float, ...] = (0.0,) * 12
    binning_x: int = 0
    binning_y: int = 0
    roi: Roi = Roi()

    @classmethod
    def from_message(cls, info: Any) -> Calibration:
        """From a CameraInfo message of ROS 2 (fields d k r p) or ROS 1 (D K R P)."""

        def numbers(name: str) -> tuple[float, ...]:
            return _floats(getattr(info, name if hasattr(info, name) else name.upper()))

        roi = info.roi
        return cls(
            width=int(info.width),
            height=int(info.height),
            distortion_model=info.distortion_model,
            d=numbers('d'),
            k=numbers('k'),
            r=numbers('r'),
            p=numbers('p'),
            binning_x=int(info.binning_x),
            binning_y=int(info.binning_y),
            roi=Roi(int(roi.x_offset), int(roi.y_offset), int(roi.height), int(roi.width), bool(roi.do_rectify)),
        )

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Calibration:
        """From the fields of a YAML file: ``image_width image_height fx fy cx cy``, optional ``distortion_model
        distortion``; or those that ROS's camera_calibration writes (``camera_matrix: {data: [...]}`` and so on).

        Raises ValueError when a value is missing or is no number.
        """
        try:
            size = (int(fields['image_width']), int(fields['image_height']))
            model = str(fields.get('distortion_model', 'plumb_bob'))
            if 'camera_matrix' in fields:
                names = ('distortion_coefficients', 'camera_matrix', 'rectification_matrix', 'projection_matrix')
                d, k, r, p = (_floats(fields[name]['data']) for name in names)
                return cls(*size, distortion_model=model, d=d, k=k, r=r, p=p)
            fx, fy, cx, cy = _floats(fields[name] for name in ('fx', 'fy', 'cx', 'cy'))
            k = (fx, float(fields.get('skew', 0)), cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
            return cls(*size, distortion_model=model, d=_floats(fields.get('distortion', ())), k=k)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f'not a camera calibration ({error!r}); wanted image_width, image_height, fx, fy, cx, cy'
                ' and, for a lens that distorts, distortion_model and distortion'
            ) from error

    @classmethod
    def pinhole(cls, K: np.ndarray, size: tuple[int, int]) -> Calibration:
        """An undistorted camera: K (3, 3) in pixels of an image of ``size`` (width, height)."""
        k = _floats(np.asarray(K).ravel())
        return cls(*size, distortion_model='plumb_bob', d=(0.0,) * 5, k=k, p=_projection(k))

    @property
    def K(self) -> np.ndarray | None:
        """(3, 3) float64 of the raw image at full resolution; None when the camera is not calibrated (K zero)."""
        return np.array(self.k).reshape(3, 3) if any(self.k) else None

    def fill(self, info: Any) -> None:
        """Copy every field into a ROS 2 CameraInfo message; its header stays as it is."""
        for name in ('width', 'height', 'distortion_model', 'd', 'k', 'r', 'p', 'binning_x', 'binning_y'):
            setattr(info, name, getattr(self, name))
        for name in ('x_offset', 'y_offset', 'height', 'width', 'do_rectify'):
            setattr(info.roi, name, getattr(self.roi, name))


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _projection(k: tuple[float, ...]) -> tuple[float, ...]:
    return (*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0)
