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
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from vggt_ros import camera, patches
from vggt_ros.history import for_all
from vggt_ros.odometry.alignment import Similarity
from vggt_ros.odometry.klt import REFERENCE, Corners
from vggt_ros.odometry.refine import Points
from vggt_ros.odometry.transfer import depth_at
from vggt_ros.track_table import TOLD, Table, View, settled
from vggt_ros.types import Estimate, Frame, Located, Scale, State, Tracks, WindowPrediction

GRID = (8, 6)  # cells across and down; new tracks go where there are few
SURE = (State.TRACKING, State.STATIONARY, State.RELOCALIZED)  # the camera is where it is said to be
HISTORY = 256  # images of which is remembered where the tracks were
ABSENT = 4  # tracks that are not in the image, for each that may be
RESERVED = 6  # images for which the place of a track that is not found is kept for it
GUESS = 10.0  # information about log z that a neighbour's is: 30 %
MOST = 1e4  # that is kept: 1 %
NOISE = 4.0  # px at 518 of a track in one image, which are mostly the pose's and the same in the next ones
DOUBT = 0.7  # factor of the confidence in every image in which only the corner speaks for a track


@dataclass(frozen=True)
class TrackerConfig:
    """max_tracks: most tracks in an image, 0 = none. min_score: visibility x confidence by the network below which, for
    ``patience`` windows in a row, a track ends; also the images for which a corner without its picture is believed.

    unique: ids begin where no earlier run and no earlier epoch can have had any.

    probation: images that a corner must hold before it is a track. spread: least distance of a new one from others, of
    what an even spread would have. roundness: of its picture, see patches.py. alike: least normalised correlation with
    the picture; again: the same for one that was not found in the image before. turned: how much a picture is warped
    before a new one is taken, of one with at least this confidence: trusted.

    Lengths in px at 518: slide: how far a point may be from its corner, fit: and from where the map has it, or
    ``usual`` times as far as most others are; apart: two tracks that come closer than this are one.
    """

    max_tracks: int = 256
    min_score: float = 0.2
    unique: bool = False
    patience: int = 2
    probation: int = 2
    spread: float = 0.5
    roundness: float = 0.1
    alike: float = 0.7
    again: float = 0.93
    turned: float = 0.2
    trusted: float = 0.7
    slide: float = 5.0
    fit: float = 3.0
    usual: float = 7.0
    apart: float = 8.0


class Tracker:
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
        self._banned = np.zeros(0, np.int64)  # corners that something else than a still point made

    def reset(self) -> None:
        """A new epoch: all tracks end, ids begin anew, unless they are unique."""
        with self._lock:
            self.epoch += 1
            self._clear()
            if not self.config.unique:
                self._next = 0

    # At camera rate ----------------------------------------------------------------------------------------------

    def look(self, frame: Frame, corners: Corners, located: Located | None, K: np.ndarray | None) -> Tracks:
        """The tracks in an image, one after another in the order of time.

        corners: of this image. located: where its camera is, K: (3, 3) in source pixels; None where nobody knows.
        """
        with self._lock:
            if located is not None and located.epoch != self.epoch:
                located = None
            if located is not None:
                self._scale = located.scale
            view = View(frame, K, None if located is None else located.T_map_camera)
            at = view.map.to_network(corners.uv)
            before = self._follow(corners, at)
            self._find(view, before, located is not None and located.state in SURE)
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
        self._banned = self._banned[np.isin(self._banned, corners.id)]
        # Of the others nobody could tell where to look.
        table.keep(alive | (table['public'] & table.placed))
        return table['here'] & (table['seen'] == self._latest)

    def _find(self, view: View, before: np.ndarray, sure: bool) -> None:
        """Look for the tracks' pictures. sure: the camera is where it is said to be."""
        table, config = self._table, self.config
        followed, T = table['corner'] >= 0, view.T
        expected, A = table.expected(T, view.K)
        start = np.where(followed[:, None], table['uv'], expected)
        rows, found, alike = self._aligned(view, A, start, followed)
        if T is not None:
            fine = alike > config.alike
            T = settled(T, table.points()[rows[fine]], found[fine], view.K)
            expected, A = table.expected(T, view.K)
            start[~followed] = expected[~followed]
            alone = self._aligned(view, A, start, table.placed & ~followed)
            rows, found, alike = (np.concatenate(both) for both in zip((rows, found, alike), alone, strict=True))
        led = followed[rows]
        error, fit = self._compare(view, T, rows, found, led & (alike > config.alike))
        shift = np.linalg.norm(found - start[rows], axis=1) / view.unit
        # Where the map has a say, a corner that slid is known as such; a track without one is where it is expected.
        reach = np.where(led & np.isfinite(table['z'][rows]), config.slide, config.fit)
        good = (alike > np.where(before[rows], config.alike, config.again)) & (shift < reach)
        if sure:
            good &= error < fit
        table['here'][:] = False
        table['here'][rows[good]] = True
        table['uv'][rows[good]] = found[good]
        table['confidence'][rows[good]] = (alike / (1 + (error / fit) ** 2))[good]
        table['off'][:] = np.where(table['here'], 0, table['off'] + 1)
        # A picture that is blurred for a moment: the corner will do, where the map does not object.
        close = np.ones(len(table), bool)
        close[rows] = self._compare(view, T, rows, start[rows], led)[0] < fit
        hold = ~table['here'] & before & followed & close & table['public'] & (table['off'] <= config.patience)
        table['here'][hold] = True
        table['confidence'][hold] *= DOUBT
        if T is not None:
            self._learn(view, T, rows[good])
        slid = np.zeros(len(table), bool)
        slid[rows[good & led & (shift > config.fit)]] = True
        self._release(slid | (table['off'] > config.patience))

    def _compare(
        self, view: View, T: np.ndarray | None, rows: np.ndarray, uv: np.ndarray, usual: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """How far pixels (M, 2) of these rows (M,) are from where the map has them, and how far they may be.

        In px at 518; 0 where nobody knows. usual: (M,) the ones by which the others are judged.
        """
        config = self.config
        if T is None:
            return np.zeros(len(rows)), config.fit
        residual = self._table.residual(view, T, rows, uv)
        error = residual.error(self._table['information'][rows], config.fit)
        usual = error[usual & np.isfinite(residual.length)]
        return error, max(config.fit, config.usual * float(np.median(usual))) if len(usual) else config.fit

    def _learn(self, view: View, T: np.ndarray, rows: np.ndarray) -> None:
        """How far along their rays the points of these rows (M,) are, from where they are now."""
        table = self._table
        residual = table.residual(view, T, rows, table['uv'][rows])
        told = np.isfinite(residual.along)
        step = residual.along[told] / np.maximum(residual.length[told], 1e-9)
        table.learn(rows[told], step, (residual.length[told] / NOISE) ** 2, MOST)

    def _aligned(
        self, view: View, A: np.ndarray, start: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (M,) of the tracks ``wanted`` (N,) bool that may be in the image, pixels there, and likeness."""
        rows = np.flatnonzero(wanted & view.inside(start) & np.isfinite(A).all((1, 2)))
        return rows, *patches.align(view.grey, self._table['tile'][rows], A[rows], start[rows])

    def _release(self, rows: np.ndarray) -> None:
        """These, (N,) bool, have lost their corners, which begin no others."""
        table = self._table
        corner = table['corner'][rows]
        self._banned = np.union1d(self._banned, corner[corner >= 0])
        table['corner'][rows] = -1

    def _end(self, rows: np.ndarray) -> None:
        """These, (N,) bool, are over; their corners begin no others."""
        self._release(rows)
        self._table.keep(~rows)

    def _part(self, view: View) -> None:
        """Of two tracks that have come together one slid onto the other's point: the one that fits less well ends."""
        table = self._table
        rows = np.flatnonzero(table['here'] & table['public'])
        if not len(rows):
            return
        pairs = cKDTree(table['uv'][rows]).query_pairs(self.config.apart * view.unit, output_type='ndarray')
        worse = np.take_along_axis(pairs, table['confidence'][rows[pairs]].argmin(1)[:, None], 1)
        over = np.zeros(len(table), bool)
        over[rows[worse]] = True
        self._end(over)

    def _free(self, corners: Corners) -> np.ndarray:
        """Rows of the corners that no track has."""
        return np.flatnonzero(~np.isin(corners.id, self._table['corner']) & ~np.isin(corners.id, self._banned))

    def _adopt(self, view: View, corners: Corners, at: np.ndarray) -> None:
        """Tracks without a corner take one that is where they are."""
        table, free = self._table, self._free(corners)
        rows = np.flatnonzero(table['here'] & (table['corner'] < 0))
        if not len(free) or not len(rows):
            return
        near, number = cKDTree(at[free]).query(table['uv'][rows], distance_upper_bound=self.config.fit / 2 * view.unit)
        rows, number = rows[np.isfinite(near)], number[np.isfinite(near)]
        number, once = np.unique(number, return_index=True)
        table['corner'][rows[once]] = corners.id[free[number]]

    def _begin(self, view: View, corners: Corners, at: np.ndarray) -> None:
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

    def _guess(self, view: View, uv: np.ndarray) -> np.ndarray:
        """(N,) the nearest track's z for pixels (N, 2), NaN unknown."""
        table = self._table
        rows = np.flatnonzero(table['here'] & table.placed)
        if view.T is None or not len(rows) or not len(uv):
            return np.full(len(uv), np.nan)
        z = camera.transform(camera.invert(view.T), table.points()[rows])[:, 2]
        z = z[cKDTree(table['uv'][rows]).query(uv)[1]]
        return np.where(z > 0, z, np.nan)

    def _room(self, view: View, uv: np.ndarray, taken: np.ndarray) -> np.ndarray:
        """Which of the pixels (N, 2), the first ones first, find room in their cells beside the rows taken (bool)."""
        cells, most = GRID[0] * GRID[1], self.config.max_tracks
        cell = grid_cell(uv, view.map.size)
        order = np.argsort(cell, kind='stable')
        rank = np.empty(len(cell), int)
        rank[order] = np.arange(len(cell)) - np.searchsorted(cell[order], cell[order])
        full = np.bincount(grid_cell(self._table['uv'][taken], view.map.size), minlength=cells)
        return np.flatnonzero(rank < -(-most // cells) - full[cell])[: max(most - int(taken.sum()), 0)]

    def _renew(self, view: View) -> None:
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

    def _publish(self, view: View) -> None:
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

    def _tracks(self, frame: Frame, view: View, K: np.ndarray | None) -> Tracks:
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
            ids, uv = self._recent.get(index, (np.zeros(0, np.uint64), np.zeros((0, 2))))
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
            self._place(points)
            self._place_by_depth(estimates[-1])
            self._correct(corrections)
            for estimate in estimates:  # better than what was known of them at camera rate
                rows = (self._table['anchor'] == estimate.frame.index) & self._table.anchored
                self._table['T'][rows] = estimate.T_map_camera
            return '' if asked is None or prediction.tracks is None else self._heed(estimates, prediction, asked)

    def _place(self, points: Points) -> None:
        """Only how far a point is: the ray is what the track is. Where a corner disagrees with itself, it moves."""
        table = self._table
        _, rows, at = np.intersect1d(table['corner'], points.id, return_indices=True)
        wrong = np.zeros(len(table), bool)
        wrong[rows[~points.agreed[at]]] = True
        z = table.distance(rows, points.xyz[at])
        told = points.agreed[at] & (z > 0)
        rows, z = rows[told], z[told]
        fresh = rows[np.isnan(table['z'][rows])]
        table['z'][rows] = np.where(np.isnan(table['z'][rows]), z, table['z'][rows])
        table['information'][fresh] = 0
        table.learn(rows, np.log(z / table['z'][rows]), np.full(len(rows), TOLD), MOST)
        self._banned = np.union1d(self._banned, points.id[~points.agreed])
        self._end(wrong)

    def _place_by_depth(self, estimate: Estimate) -> None:
        """Points of which no window's corners tell get the depth under their pixel."""
        table = self._table
        ids, uv = self._recent.get(estimate.frame.index, (np.zeros(0, np.uint64), np.zeros((0, 2))))
        new = np.flatnonzero(table['public'] & table.anchored & ~table.placed)
        _, rows, at = np.intersect1d(table['id'][new], ids, return_indices=True)
        rows, uv = new[rows], estimate.map.to_network(uv[at])
        depth = depth_at(estimate.depth, uv)
        points = camera.transform(estimate.T_map_camera, camera.rays(uv, estimate.K) * depth[:, None])
        z = table.distance(rows, points)
        told = z > 0
        table['z'][rows[told]] = z[told]
        table['information'][rows[told]] = TOLD

    def _correct(self, corrections: Mapping[int, Similarity]) -> None:
        table = self._table
        for index, moved in for_all(corrections, set(table['anchor'].tolist())).items():
            for row in np.flatnonzero((table['anchor'] == index) & table.anchored):
                table['T'][row] = moved.pose(table['T'][row])
                table['z'][row] *= moved.scale

    def _heed(self, estimates: Sequence[Estimate], prediction: WindowPrediction, asked: np.ndarray) -> str:
        """Tracks end that the network does not see in the newest frame, or elsewhere, window after window."""
        table, tracks = self._table, prediction.tracks
        assert tracks is not None
        newest = prediction.slot(estimates[-1].frame.index)
        visibility, confidence = tracks.visibility[newest], tracks.confidence[newest]
        finite = np.isfinite(visibility) & np.isfinite(confidence) & np.isfinite(tracks.uv).all((0, 2))
        away = np.full((len(estimates), len(asked)), np.nan)
        for row, estimate in enumerate(estimates):
            ids, uv = self._recent.get(estimate.frame.index, (asked[:0], np.zeros((0, 2))))
            _, at, then = np.intersect1d(asked, ids, return_indices=True)
            theirs = estimate.map.to_source(tracks.uv[prediction.slot(estimate.frame.index), at])
            away[row, at] = np.linalg.norm(theirs - uv[then], axis=1) * REFERENCE / max(estimate.frame.size)
        compared = np.isfinite(away).any(axis=0)
        far = np.zeros(len(asked), bool)
        far[compared] = np.nanmedian(away[:, compared], axis=0) > self.config.fit + 2 * self.reach
        _, rows, at = np.intersect1d(table['id'], asked, return_indices=True)
        chosen = finite[at] & table['public'][rows]
        rows, at = rows[chosen], at[chosen]
        table['visibility'][rows] = visibility[at]
        poor = (visibility[at] * confidence[at] < self.config.min_score) | far[at]
        table['poor'][rows] = np.where(poor, table['poor'][rows] + 1, 0)
        self._end((table['poor'] >= self.config.patience) & table['here'])
        return '' if finite.all() else 'some tracks of the network are not finite: they are left out'


def grid_cell(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) number of the cell of ``GRID`` of each pixel (N, 2), row by row."""
    # Pixel i covers [i - 0.5, i + 0.5).
    column, row = np.clip((uv + 0.5) * np.array(GRID) / np.array(size), 0, np.array(GRID) - 1).astype(int).T
    return row * GRID[0] + column
