"""Keypoint tracks drawn on their image: a colour for each id, a tail of where it was, a ring around old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vggt_ros.camera import PixelMap, image_size, shown_by

NEW, OLD = 5, 30  # images: younger tracks have small dots, older ones a ring
DIM = 0.65  # the image steps back behind the tracks
SHIFT = 4  # bits of a fraction of a pixel in OpenCV's drawing; whole numbers are pixel centres there, too

# 2^64 over the golden ratio: steps of it go around the circle of hues so that ids near one another differ clearly.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_HUES = np.stack([np.arange(256), np.full(256, 215), np.full(256, 255)], -1).astype(np.uint8)
PALETTE = cv2.cvtColor(_HUES[None], cv2.COLOR_HSV2RGB_FULL)[0]  # (256, 3) uint8 RGB


@dataclass(frozen=True, eq=False)
class TrackedPoints:
    """Keypoints in one image. stamp: ns. id: (N,) uint64. uv: (N, 2) source pixels. age: (N,) uint32 images."""

    stamp: int
    id: np.ndarray
    uv: np.ndarray
    age: np.ndarray


def palette_index(ids: np.ndarray) -> np.ndarray:
    """(N,) uint64 ids -> (N,) places in ``PALETTE``, always the same for the same id."""
    return ((ids.astype(np.uint64) * _STEP) >> np.uint64(56)).astype(np.intp)


def track_colours(ids: np.ndarray) -> np.ndarray:
    """(N,) uint64 ids -> (N, 3) uint8 RGB."""
    return PALETTE[palette_index(ids)]


def draw_tracks(
    image: np.ndarray,
    tracks: Sequence[TrackedPoints],
    length: int = 12,
    caption: str = '',
    source: tuple[int, int] | None = None,
) -> np.ndarray:
    """The picture (H, W, 3) uint8 RGB of the last of ``tracks`` with its keypoints, and where they were before.

    length: images that a tail goes back. caption: a line of text in the upper left corner. source: (width, height) of
    the image in whose pixels the tracks are, None: the picture.
    """
    picture = cv2.convertScaleAbs(image, alpha=DIM)
    unit = max(1, round(image.shape[1] / 400))
    if tracks:
        newest = tracks[-1]
        colours = track_colours(newest.id).tolist()
        tails = _tails(tracks[-length - 1 :], shown_by(source or image_size(image), image))
        for tail, colour in zip(tails, colours, strict=True):
            cv2.polylines(picture, [tail], False, colour, unit, cv2.LINE_AA, SHIFT)
        for tail, colour, age in zip(tails, colours, newest.age.tolist(), strict=True):
            _draw_dot(picture, tail[-1].tolist(), colour, age, unit)
    if caption:
        _write(picture, caption)
    return picture


def _tails(tracks: Sequence[TrackedPoints], to_picture: PixelMap) -> list[np.ndarray]:
    """For each track of the last image its pixels in all of them, (n, 2) int32 with ``SHIFT`` bits of fraction."""
    newest = tracks[-1]
    uv = np.full((len(newest.id), len(tracks), 2), np.nan)
    for column, points in enumerate(tracks):
        _, now, then = np.intersect1d(newest.id, points.id, assume_unique=True, return_indices=True)
        uv[now, column] = to_picture.to_network(points.uv[then])
    known = ~np.isnan(uv[..., 0])
    fixed = np.rint(np.where(known[..., None], uv, 0) * (1 << SHIFT)).astype(np.int32)
    return [pixels[one] for pixels, one in zip(fixed, known, strict=True)]


def _draw_dot(picture: np.ndarray, centre: list[int], colour: list[int], age: int, unit: int) -> None:
    radius = unit if age < NEW else 2 * unit
    # A dark rim tells a dot from an image of its own colour.
    cv2.circle(picture, centre, (radius + 1) << SHIFT, (0, 0, 0), -1, cv2.LINE_AA, SHIFT)
    cv2.circle(picture, centre, radius << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    if age >= OLD:
        cv2.circle(picture, centre, (radius + 2 * unit) << SHIFT, colour, unit, cv2.LINE_AA, SHIFT)


def _write(picture: np.ndarray, text: str) -> None:
    scale = max(0.4, picture.shape[1] / 1200)
    origin = (round(10 * scale), round(30 * scale))
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        width = max(1, round(thickness * scale * 1.5))
        cv2.putText(picture, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, width, cv2.LINE_AA)
