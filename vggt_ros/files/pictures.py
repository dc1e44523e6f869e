"""Depth and confidence as pictures that a person can read: fixed colours, a legend, and what is unknown in grey."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vggt_ros.types import Scale

UNKNOWN = (96, 96, 96)  # RGB, in no colour map
UNITS = {Scale.UNKNOWN: 'no fixed unit', Scale.RELATIVE: 'relative units', Scale.METRIC: 'm'}
LEGEND_WIDTH = 92
MIN_RATIO = 1.5  # of the farthest to the nearest depth of the scale


@dataclass(frozen=True)
class DepthRange:
    """Which depths the colours stand for, logarithmically: near is red, far is blue. The same for a whole recording."""

    near: float
    far: float

    @classmethod
    def of(cls, depth: np.ndarray, margin: float = 1.5) -> DepthRange | None:
        """From one (h, w) depth image with room for nearer and farther ones; None when nothing in it is known."""
        known = depth[np.isfinite(depth) & (depth > 0)]
        if known.size == 0:
            return None
        near, far = np.percentile(known, (2, 98))
        # A flat depth image shall look flat.
        widen = max(margin, (MIN_RATIO * near / far) ** 0.5)
        return cls(float(near / widen), float(far * widen))

    def colour(self, depth: np.ndarray) -> np.ndarray:
        """(...) -> (..., 3) uint8 RGB."""
        with np.errstate(invalid='ignore', divide='ignore'):
            place = np.log(depth / self.near) / np.log(self.far / self.near)
        return colour(1 - place, cv2.COLORMAP_TURBO)

    def at(self, place: float) -> float:
        """The depth at a place of the scale: 0 near, 1 far."""
        return self.near * (self.far / self.near) ** place


def colour(values: np.ndarray, colormap: int) -> np.ndarray:
    """(...) in [0, 1] (beyond: clipped; NaN: unknown) -> (..., 3) uint8 RGB."""
    flat = np.nan_to_num(np.clip(np.atleast_2d(values), 0, 1), nan=0.0)
    mapped = cv2.applyColorMap((flat * 255).round().astype(np.uint8), colormap)[..., ::-1]
    mapped = np.where(np.isnan(np.atleast_2d(values))[..., None], np.array(UNKNOWN, np.uint8), mapped)
    return mapped.reshape(*np.shape(values), 3)


def depth_picture(depth: np.ndarray, scale: DepthRange, unit: str) -> np.ndarray:
    """(h, w) depth -> (h', w', 3) uint8 RGB with a legend at the right."""
    labels = [(place, f'{scale.at(place):.3g}') for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    bar = scale.colour(np.array([scale.at(place) for place in np.linspace(1, 0, 256)]))
    return _with_legend(scale.colour(depth), bar, labels, ['depth', unit])


def confidence_picture(confidence: np.ndarray) -> np.ndarray:
    """(h, w) confidence in [0, 1] -> (h', w', 3) uint8 RGB with a legend at the right."""
    labels = [(place, f'{place:.2f}') for place in (0.0, 0.25, 0.5, 0.75, 1.0)]
    bar = colour(np.linspace(1, 0, 256), cv2.COLORMAP_VIRIDIS)
    return _with_legend(colour(confidence, cv2.COLORMAP_VIRIDIS), bar, labels, ['confidence'])


def _with_legend(picture: np.ndarray, bar: np.ndarray, labels: list[tuple[float, str]], title: list[str]) -> np.ndarray:
    """bar: (256, 3) colours from top to bottom. labels: (place from the bottom, 0 to 1; text)."""
    enlarge = max(1, -(-240 // picture.shape[0]))
    picture = picture.repeat(enlarge, 0).repeat(enlarge, 1)
    height = picture.shape[0]
    legend = np.full((height, LEGEND_WIDTH, 3), 255, np.uint8)
    top, bottom = 16 * len(title) + 14, height - 34
    strip = cv2.resize(bar[:, None], (16, bottom - top + 1), interpolation=cv2.INTER_LINEAR)
    legend[top : bottom + 1, 8:24] = strip
    for place, text in labels:
        row = round(bottom + (top - bottom) * place)
        cv2.line(legend, (24, row), (28, row), (0, 0, 0), 1)
        _write(legend, text, (32, row + 4))
    for line, text in enumerate(title):
        _write(legend, text, (6, 14 + 16 * line))
    legend[height - 20 : height - 8, 8:24] = UNKNOWN
    _write(legend, 'unknown', (32, height - 10))
    return np.hstack([picture, legend])


def _write(image: np.ndarray, text: str, origin: tuple[int, int]) -> None:
    cv2.putText(image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
