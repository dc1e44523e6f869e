"""Keypoints that stay themselves: one physical point, one id, from image to image and across windows.

A track is a ray and a picture, those of the image in which it began: its anchor. The windows say how far along the ray
the point is. In every later image the point is looked for with that picture, warped as the camera has moved, from where
its corner (klt.py) went or, without one, from where the map expects it. What does not look like the picture, or is not
where the map has the point, is not published: it slid, is hidden, or moves. It may be found again under its id.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from vggt_ros import camera
from vggt_ros.odometry import patches
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.windows.observations import Points
from vggt_ros.similarity import Similarity
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.search import find
from vggt_ros.tracks.table import Table, TrackedView
from vggt_ros.tracks.window_update import correct, heed, place, place_by_depth, refine_anchors
from vggt_ros.types import Estimate, Frame, PosedFrame, Scale, State, Tracks, WindowPrediction

GRID = (8, 6)  # cells across and down; new tracks go where there are few
SURE = (State.TRACKING, State.STATIONARY, State.RELOCALIZED)  # the camera is where it is said to be
HISTORY = 256  # images of which is remembered where the tracks were
ABSENT = 4  # tracks that are not in the image, for each that may be
RESERVED = 6  # images for which the place of a track that is not found is kept for it
GUESS = 10.0  # information about log z that a neighbour's is: 30 %


class KeypointTracker:
    """``look`` at every image on one thread; ``queries`` and ``solved`` around every window on another.

    reach: px at 518 by which the network's tracks are off. epoch: of the tracks that ``look`` returns.
    """

    def __init__(self, config: TrackerConfig | None = None, reach: float = 2.0) -> None:
        self.config, self.reach = config or TrackerConfig(), reach
        self._lock = threading.Lock()
        self.epoch = 0
        # More than any run can have handed out before: 4 billion a second.
        self._next = int(time.time()) << 32 if self.config.unique else 0
        self._clear()

    def _clear(self) -> None:
        self._table = Table()
        self._scale = Scale.UNKNOWN
        self._latest = -1  # index of the newest image
        self._solved = -1  # of the newest one that was solved
        self._recent: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()  # ids and source pixels

    def tune(self, min_score: float) -> None:
        """Another bound from the next window on, see the configuration."""
        with self._lock:
            self.config = replace(self.config, min_score=min_score)

    def reset(self) -> None:
        """A new epoch: all tracks end, ids begin anew, unless they are unique."""
        with self._lock:
            self.epoch += 1
            self._clear()
            if not self.config.unique:
                self._next = 0

    # At camera rate ----------------------------------------------------------------------------------------------

    def look(self, frame: Frame, corners: Corners, located: PosedFrame | None, K: np.ndarray | None) -> Tracks:
        """The tracks in an image, one after another in the order of time.

        corners: of this image. located: where its camera is, K: (3, 3) in source pixels; None where nobody knows.
        """
        with self._lock:
            if located is not None and located.epoch != self.epoch:
                located = None
            if located is not None:
                self._scale = located.scale
            view = TrackedView(frame, K, None if located is None else located.T_map_camera)
            at = view.map.to_network(corners.uv)
            before = self._follow(corners, at)
            find(self._table, view, before, located is not None and located.state in SURE, self.config)
            self._adopt(view, corners, at)
            self._begin(view, corners, at)
            self._renew(view)
            self._publish(view)
            self._part(view)
            self._forget()
            return self._tracks(frame, view, K)

    def _follow(self, corners: Corners, at: np.ndarray) -> np.ndarray:
        """Where the corners went, the tracks go, for a beginning. Returns which, (N,) bool, the last image had."""
        table = self._table
        place = np.searchsorted(corners.id, table['corner'])
        alive = np.append(corners.id, -2)[place] == table['corner']
        table['uv'][alive] = at[place[alive]]
        table['corner'][~alive] = -1
        table.banned = table.banned[np.isin(table.banned, corners.id)]
        # Of the others nobody could tell where to look.
        table.keep(alive | (table['public'] & table.placed))
        return table['here'] & (table['seen'] == self._latest)

    def _part(self, view: TrackedView) -> None:
        """Of two tracks that have come together one slid onto the other's point: the one that fits less well ends."""
        table = self._table
        rows = np.flatnonzero(table['here'] & table['public'])
        if not len(rows):
            return
        pairs = cKDTree(table['uv'][rows]).query_pairs(self.config.apart * view.unit, output_type='ndarray')
        worse = np.take_along_axis(pairs, table['confidence'][rows[pairs]].argmin(1)[:, None], 1)
        over = np.zeros(len(table), bool)
        over[rows[worse]] = True
        table.end(over)

    def _free(self, corners: Corners) -> np.ndarray:
        """Rows of the corners that no track has."""
        return np.flatnonzero(~np.isin(corners.id, self._table['corner']) & ~np.isin(corners.id, self._table.banned))

    def _adopt(self, view: TrackedView, corners: Corners, at: np.ndarray) -> None:
        """Tracks without a corner take one that is where they are."""
        table, free = self._table, self._free(corners)
        rows = np.flatnonzero(table['here'] & (table['corner'] < 0))
        if not len(free) or not len(rows):
            return
        near, number = cKDTree(at[free]).query(table['uv'][rows], distance_upper_bound=self.config.fit / 2 * view.unit)
        rows, number = rows[np.isfinite(near)], number[np.isfinite(near)]
        number, once = np.unique(number, return_index=True)
        table['corner'][rows[once]] = corners.id[free[number]]

    def _begin(self, view: TrackedView, corners: Corners, at: np.ndarray) -> None:
        """New candidates on corners away from all tracks; the longest followed first: they have proved themselves."""
        table, free = self._table, self._free(corners)
        here = table['uv'][table['here']]
        if not self.config.max_tracks or not len(free):
            return
        if len(here):
            width, height = view.map.size
            spread = self.config.spread * np.sqrt(width * height / self.config.max_tracks)
            free = free[cKDTree(here).query(at[free])[0] > spread]
        tiles = patches.cut(view.grey, at[free])  # the corners' ids ascend, so the oldest come first
        round_ = patches.roundness(tiles) > self.config.roundness
        free, tiles = free[round_], tiles[round_]
        room = self._room(view, at[free], table['here'] & ~table['public'])
        chosen, tiles = free[room], tiles[room]
        z = self._guess(view, at[chosen])
        table.add(
            len(chosen),
            here=True,
            corner=corners.id[chosen],
            uv=at[chosen],
            seen=view.index,
            visibility=1.0,
            confidence=self.config.alike,
            anchor=view.index,
            tile=tiles,
            T=np.nan if view.T is None else view.T,
            ray=np.nan if view.T is None else camera.rays(at[chosen], view.K),
            z=z,
            information=np.where(np.isfinite(z), GUESS, 0),
        )

    def _guess(self, view: TrackedView, uv: np.ndarray) -> np.ndarray:
        """(N,) the nearest track's z for pixels (N, 2), NaN unknown."""
        table = self._table
        rows = np.flatnonzero(table['here'] & table.placed)
        if view.T is None or not len(rows) or not len(uv):
            return np.full(len(uv), np.nan)
        z = camera.transform(camera.invert(view.T), table.points()[rows])[:, 2]
        z = z[cKDTree(table['uv'][rows]).query(uv)[1]]
        return np.where(z > 0, z, np.nan)

    def _room(self, view: TrackedView, uv: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Which of the pixels (N, 2), the first ones first, find room in their cells beside the rows taken (bool)."""
        cells, most = GRID[0] * GRID[1], self.config.max_tracks
        cell = grid_cell(uv, view.map.size)
        order = np.argsort(cell, kind='stable')
        rank = np.empty(len(cell), int)
        rank[order] = np.arange(len(cell)) - np.searchsorted(cell[order], cell[order])
        full = np.bincount(grid_cell(self._table['uv'][taken], view.map.size), minlength=cells)
        return np.flatnonzero(rank < -(-most // cells) - full[cell])[: max(most - int(taken.sum()), 0)]

    def _renew(self, view: TrackedView) -> None:
        """Those that are warped too far, or never had a place to be warped from, get a new picture."""
        table, config = self._table, self.config
        _, A = table.expected(view.T, view.K)
        with np.errstate(invalid='ignore'):
            turned = np.abs(A - np.eye(2)).max((1, 2)) > config.turned
        if view.T is None:  # how it is warped cannot be told, but how alike it still is
            turned = ~table.anchored & (table['confidence'] < 0.5 + config.alike / 2)
        first = ~table.anchored & (view.T is not None)
        rows = np.flatnonzero(table['here'] & (first | (turned & (table['confidence'] > config.trusted))))
        table.anchor(rows, view)

    def _publish(self, view: TrackedView) -> None:
        """Candidates that have held for some images become tracks where there is room."""
        table = self._table
        rows = np.flatnonzero(table['here'] & ~table['public'] & (table['age'] >= self.config.probation))
        rows = rows[np.argsort(-table['age'][rows].astype(int), kind='stable')]
        back = table.placed & (table['off'] <= RESERVED)  # expected any moment
        chosen = rows[self._room(view, table['uv'][rows], table['public'] & (table['here'] | back))]
        table['public'][chosen] = True
        table['id'][chosen] = np.arange(self._next, self._next + len(chosen), dtype=np.uint64)
        table['age'][chosen] = 0
        self._next += len(chosen)

    def _forget(self) -> None:
        """The longest absent ones."""
        table = self._table
        absent = np.flatnonzero(~table['here'])
        excess = max(len(absent) - ABSENT * self.config.max_tracks, 0)
        keep = np.ones(len(table), bool)
        keep[absent[np.argsort(table['seen'][absent], kind='stable')[:excess]]] = False
        table.keep(keep)

    def _tracks(self, frame: Frame, view: TrackedView, K: np.ndarray | None) -> Tracks:
        table = self._table
        here = table['here']
        table['age'][here] += 1
        table['seen'][here] = self._latest = frame.index
        here = np.flatnonzero(here & table['public'])
        here = here[np.argsort(table['id'][here])]
        point = np.where(table.placed[:, None], table.points(), np.nan)[here]
        local = np.full_like(point, np.nan) if view.T is None else camera.transform(camera.invert(view.T), point)
        now = {name: table[name][here] for name in ('id', 'visibility', 'confidence', 'age')}
        uv = view.map.to_source(table['uv'][here])
        self._recent[frame.index] = now['id'], uv
        while len(self._recent) > HISTORY:
            self._recent.popitem(last=False)
        return Tracks(frame=frame, epoch=self.epoch, scale=self._scale, uv=uv, xyz=local, xyz_map=point, K=K, **now)

    # Around a window ---------------------------------------------------------------------------------------------

    def queries(self, index: int, pixel_map: camera.PixelMap) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids (Q,) and network pixels (Q, 2) of the tracks in the frame that has slot 0; None without any.

        index: of that frame.
        """
        with self._lock:
            ids, uv = self._shown(index)
            uv = pixel_map.to_network(uv)
            asked = np.isin(ids, self._table['id'][self._table['public']])
            asked &= ((uv >= 0) & (uv <= np.array(pixel_map.size) - 1)).all(1)  # the network sees a crop
            return (ids[asked], uv[asked]) if asked.any() else None

    def solved(
        self,
        estimates: Sequence[Estimate],
        points: Points,
        prediction: WindowPrediction,
        asked: np.ndarray | None,
        corrections: Mapping[int, Similarity],
    ) -> str:
        """What a window says of the tracks: where they are in the map, whether they can be seen.

        points: of the corners, as the window has them. asked: ids of the queries, in their order. corrections: how the
        map moved meanwhile, by frame index. Returns what a person should know, '' as a rule.
        """
        with self._lock:
            if not estimates or estimates[-1].epoch != self.epoch:
                return ''
            newest = estimates[-1].frame.index
            if newest <= self._solved:
                return 'a window came late or twice: the tracks heed only the newest'
            self._solved = newest
            self._scale = estimates[-1].scale
            place(self._table, points)
            place_by_depth(self._table, estimates[-1], *self._shown(newest))
            correct(self._table, corrections)
            refine_anchors(self._table, estimates)
            if asked is None or prediction.tracks is None:
                return ''
            shown = [self._shown(estimate.frame.index) for estimate in estimates]
            return heed(self._table, estimates, prediction, asked, shown, self.config, self.reach)

    def _shown(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,) and source pixels (N, 2) of the tracks in the image of this index, as far as it is remembered."""
        return self._recent.get(index, (np.zeros(0, np.uint64), np.zeros((0, 2))))


def grid_cell(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) number of the cell of ``GRID`` of each pixel (N, 2), row by row."""
    # Pixel i covers [i - 0.5, i + 0.5).
    column, row = np.clip((uv + 0.5) * np.array(GRID) / np.array(size), 0, np.array(GRID) - 1).astype(int).T
    return row * GRID[0] + column
