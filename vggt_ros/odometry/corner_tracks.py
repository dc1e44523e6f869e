"""What is remembered of every corner that is followed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vggt_ros.odometry import patches


class Tracks(NamedTuple):
    """N corners by ascending id.

    uv: (N, 2) float32 pixels of the template, of one that was missed in it where it would be. seen: the same of the
    image before. speed: (N, 2) float32, px / s. first: (N, TILE, TILE) uint8, its first picture; warp: (N, 2, 2) from
    offsets in that to offsets in the template. missed: (N,) in how many templates in a row. last: (N,) index of the
    frame in which it was seen last.
    """

    id: np.ndarray
    uv: np.ndarray
    seen: np.ndarray
    speed: np.ndarray
    first: np.ndarray
    warp: np.ndarray
    missed: np.ndarray
    last: np.ndarray

    @classmethod
    def found(cls, id: np.ndarray, uv: np.ndarray, speed: np.ndarray, grey: np.ndarray, frame: int) -> Tracks:
        """New ones in an image (h, w), the frame with this index."""
        count = len(id)
        first, warp = patches.cut(grey, uv), np.tile(np.eye(2), (count, 1, 1))
        return cls(id, uv, uv.copy(), speed, first, warp, np.zeros(count, int), np.full(count, frame))

    @classmethod
    def none(cls) -> Tracks:
        """Nothing."""
        nowhere = np.zeros((0, 2), np.float32)
        return cls.found(np.zeros(0, np.int64), nowhere, nowhere, np.zeros((1, 1), np.uint8), 0)

    @property
    def awake(self) -> np.ndarray:
        """(N,) bool: those that were seen in the template."""
        return self.missed == 0

    def take(self, rows: np.ndarray) -> Tracks:
        """Some of them, by a mask or numbers."""
        return Tracks(*(one[rows] for one in self))

    def and_others(self, others: Tracks) -> Tracks:
        """With others behind them."""
        return Tracks(*(np.concatenate(both) for both in zip(self, others, strict=True)))
