"""Keypoints that keep their identity from window to window.

The network follows queries laid in slot 0. Slot 0 is the frame published last, so the live tracks' own pixels are the
next window's queries and the ids travel by seed index; empty cells are topped up with new ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from vggt_ros import camera
from vggt_ros.types import Estimate, Frame, Tracks, WindowPrediction


@dataclass(frozen=True)
class TrackerConfig:
    """max_tracks: bound of live tracks, 0 = no tracking. min_score: visibility x confidence below it ends a track."""

    max_tracks: int = 256
    min_score: float = 0.2


class _Live(NamedTuple):
    """Tracks in one frame: ids (N,), source pixels (N, 2), age in images (N,)."""

    ids: np.ndarray
    uv: np.ndarray
    age: np.ndarray


class Tracker:
    """The live tracks, in the frame published last. ``queries`` before a window, ``update`` after it."""

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self.reset()

    def reset(self) -> None:
        """End all tracks; ids begin at 0 again (only with a new epoch)."""
        self._next_id = 0
        self.end_all()

    def end_all(self) -> None:
        """End all tracks; their ids are not used again."""
        self._live = self._asked = _Live(np.zeros(0, np.uint64), np.zeros((0, 2)), np.zeros(0, np.uint32))

    def queries(self, frame: Frame, pixel_map: camera.PixelMap) -> np.ndarray | None:
        """(Q, 2) network pixels of slot 0, which is ``frame``: live tracks first, then new points; None without any.

        New points get their ids here but live only from the next ``update`` on: a window that fails changes nothing.
        """
        fresh = self._fresh_points(frame, pixel_map)
        ids = np.arange(self._next_id, self._next_id + len(fresh), dtype=np.uint64)
        self._asked = _Live(
            np.concatenate([self._live.ids, ids]),
            np.concatenate([self._live.uv, fresh]),
            np.concatenate([self._live.age, np.zeros(len(fresh), np.uint32)]),
        )
        return pixel_map.to_network(self._asked.uv) if len(self._asked.ids) else None

    def update(self, prediction: WindowPrediction, slots: Sequence[int], estimates: Sequence[Estimate]) -> list[Tracks]:
        """The tracks in each new frame, in the order of time; one that is lost in a frame has ended."""
        if prediction.tracks is None:
            none = np.zeros(0)
            return [_tracks(_Live(*(a[:0] for a in self._asked)), none, none, estimate) for estimate in estimates]
        result = []
        live = self._asked
        self._next_id = max(self._next_id, int(live.ids[-1]) + 1)
        rows = np.arange(len(live.ids))
        for slot, estimate in zip(slots, estimates, strict=True):
            uv = prediction.tracks.uv[slot].astype(np.float64)
            visibility, confidence = prediction.tracks.visibility[slot], prediction.tracks.confidence[slot]
            size = np.array(prediction.maps[slot].size)
            with np.errstate(invalid='ignore'):
                inside = ((uv > -0.5) & (uv < size - 0.5)).all(axis=1)
                alive = inside & (visibility * confidence >= self.config.min_score)
            rows = rows[alive[rows]]
            self._live = _Live(live.ids[rows], prediction.maps[slot].to_source(uv[rows]), live.age[rows] + 1)
            live.age[rows] += 1
            result.append(_tracks(self._live, visibility[rows], confidence[rows], estimate))
        return result

    def _fresh_points(self, frame: Frame, pixel_map: camera.PixelMap) -> np.ndarray:
        """Corner-like source pixels away from the live tracks, (N, 2), as many as there is room for."""
        room = self.config.max_tracks - len(self._live.ids)
        if room <= 0:
            return np.zeros((0, 2))
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        width, height = frame.size
        # As far apart as max_tracks points can be that fill the image evenly.
        distance = 0.7 * np.sqrt(width * height / self.config.max_tracks)
        mask = np.zeros_like(grey)
        corner_a, corner_b = pixel_map.to_source(np.array([[0, 0], np.array(pixel_map.size) - 1.0]))
        left, top = np.maximum(np.ceil(corner_a), 0).astype(int)
        right, bottom = np.floor(corner_b).astype(int) + 1
        mask[top:bottom, left:right] = 255
        for u, v in np.rint(self._live.uv).astype(int):
            cv2.circle(mask, (int(u), int(v)), int(distance), 0, -1)
        corners = cv2.goodFeaturesToTrack(grey, room, 0.001, distance, mask=mask, blockSize=5)
        return np.zeros((0, 2)) if corners is None else corners[:, 0].astype(np.float64)


def _tracks(live: _Live, visibility: np.ndarray, confidence: np.ndarray, estimate: Estimate) -> Tracks:
    """Attach each track's 3-D point: the depth under its nearest network pixel, along the ray of its own pixel."""
    uv_network = estimate.map.to_network(live.uv)
    column, row = np.clip(np.rint(uv_network).astype(int), 0, np.array(estimate.map.size) - 1).T
    xyz = camera.rays(uv_network, estimate.K) * estimate.depth[row, column][:, None]
    return Tracks(
        estimate.frame,
        estimate.epoch,
        estimate.scale,
        live.ids,
        live.uv,
        visibility,
        confidence,
        live.age,
        xyz,
    )
