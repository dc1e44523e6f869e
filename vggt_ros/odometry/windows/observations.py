"""What the frames of a window have seen: the corners that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vggt_ros.camera import PixelMap
from vggt_ros.depth import depth_at
from vggt_ros.odometry.klt import Corners

MIN_POINTS = 12  # corners that a frame must share with others to be moved


class Points(NamedTuple):
    """Corners that several frames of a window saw: ids (N,) ascending, places in the map (N, 3), and whether most of
    their frames agree on the place (N,).
    """

    id: np.ndarray
    xyz: np.ndarray
    agreed: np.ndarray


NO_POINTS = Points(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0, bool))


@dataclass(frozen=True, eq=False)
class Slot:
    """What is known of one frame of the window.

    T_map_camera: (4, 4) as the network has it. corners: of its image. depth: (h, w) map units, NaN unknown, or None; K:
    (3, 3) in source pixels; weight, pose_weight: how many windows its depth and its pose are worth. known: of the map.
    fixed: stays. doubt: (translation in map units, rotation in rad), how much more than usual its pose may be wrong.
    fresh: for a frame of the map the depth that this window gave it, (h, w) map units, if any. turned: standard
    deviation of its rotation where something else than the network tells it, rad.
    """

    T_map_camera: np.ndarray
    corners: Corners | None
    depth: np.ndarray | None
    K: np.ndarray
    map: PixelMap
    weight: float = 1.0
    pose_weight: float = 1.0
    known: bool = False
    fixed: bool = False
    doubt: tuple[float, float] = (0.0, 0.0)
    fresh: np.ndarray | None = None
    turned: float | None = None


class Observations(NamedTuple):
    """Every corner in every slot that another slot sees too, sorted by slot: (M,) slot, point, depth (NaN unknown), and
    (M, 2) pixel; ``id`` (N,) of each point.
    """

    slot: np.ndarray
    point: np.ndarray
    uv: np.ndarray
    z: np.ndarray
    id: np.ndarray

    @property
    def points(self) -> int:
        """How many there are."""
        return len(self.id)

    def only(self, kept: np.ndarray) -> Observations:
        """Those of the points (N,) bool that are kept."""
        row = kept[self.point]
        number = np.cumsum(kept) - 1
        return Observations(self.slot[row], number[self.point[row]], self.uv[row], self.z[row], self.id[kept])


def observe(slots: Sequence[Slot]) -> Observations | None:
    """None when there is nothing to hold on to."""
    usable = [number for number, slot in enumerate(slots) if slot.corners is not None]
    while True:
        ids = [slots[number].corners.id for number in usable]  # type: ignore[union-attr]
        known, seen = np.unique(np.concatenate(ids), return_counts=True) if ids else (np.zeros(0, int), np.zeros(0))
        known = known[seen > 1]
        enough = [number for number, one in zip(usable, ids, strict=True) if np.isin(one, known).sum() >= MIN_POINTS]
        if len(enough) == len(usable):
            break
        usable = enough
    if len(usable) < 2:
        return None
    parts = []
    for number in usable:
        slot = slots[number]
        assert slot.corners is not None
        row = np.isin(slot.corners.id, known)
        uv = slot.corners.uv[row].astype(np.float64)
        z = np.full(len(uv), np.nan)
        if slot.depth is not None:
            z = depth_at(slot.depth, slot.map.to_network(uv))
        parts.append((np.full(len(uv), number), np.searchsorted(known, slot.corners.id[row]), uv, z))
    columns = [np.concatenate(one) for one in zip(*parts, strict=True)]
    observations = Observations(columns[0], columns[1], columns[2], columns[3], known)
    # A point whose depth nobody knows could be triangulated, but says nothing about the unit.
    placed = np.bincount(observations.point, np.isfinite(observations.z), observations.points) > 0
    observations = observations.only(placed)
    return observations if observations.points >= MIN_POINTS else None
