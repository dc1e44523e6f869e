"""Keypoints that stay themselves: one physical point, one id, from image to image and across windows.

Three witnesses keep a track. Corners (klt.py) are followed at camera rate and place it in every image. The windows know
where the point is in the map: a corner that does not fit there, because it slid or because the thing moves, ends its
track. The network's tracker says whether the point can be seen. A track whose corner is lost sleeps; when a new corner
appears where the map expects the point, and looks like it, the track goes on under its id.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from vggt_ros import camera
from vggt_ros.history import for_all
from vggt_ros.odometry.alignment import Similarity
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.refine import Points
from vggt_ros.types import Estimate, Frame, Located, Scale, State, Tracks, WindowPrediction

GRID = (8, 6)  # cells across and down; new tracks go where there are few
PATCH = 15  # side of the picture that a track keeps of itself, px at 518
KEEP_PATCH = 5  # images between two pictures; the last but one is kept, the last may show what the corner slid onto
SLEEPERS = 4  # tracks that sleep, for each that may live
MEAN = 8  # windows whose word about a point is averaged
UNSURE = 0.5  # confidence of a track whose point nobody has judged yet


@dataclass(frozen=True)
class TrackerConfig:
    """max_tracks: most live tracks, 0 = none. min_score: visibility x confidence by the network below which, for
    ``patience`` windows in a row, a track ends. Lengths in px at 518: fit: how far the corner may be from where the map
    has the point; wake: how far from there a corner may be to be taken for a track that sleeps. alike: least
    normalised correlation of its picture with the track's.
    """

    max_tracks: int = 256
    min_score: float = 0.2
    patience: int = 2
    fit: float = 8.0
    wake: float = 5.0
    alike: float = 0.75


class _Table:
    """Rows of everything that is known of tracks, as arrays of equal length."""

    FIELDS = (
        ('id', np.uint64, ()),
        ('corner', np.int64, ()),  # -1: sleeps
        ('uv', np.float64, (2,)),
        ('age', np.uint32, ()),
        ('visibility', np.float64, ()),
        ('confidence', np.float64, ()),
        ('point', np.float64, (3,)),  # map, NaN unknown
        ('windows', np.int64, ()),  # that have judged the point
        ('off', np.int64, ()),  # images in a row in which it was not where the map has it
        ('poor', np.int64, ()),  # windows in a row in which the network did not see it
        ('seen', np.int64, ()),  # index of the last image in which it was
    )

    def __init__(self) -> None:
        self.columns = {name: np.zeros((0, *shape), kind) for name, kind, shape in self.FIELDS}
        self.patches: list[tuple[np.ndarray, np.ndarray]] = []  # the last but one, the last

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def keep(self, rows: np.ndarray) -> None:
        """Only these rows, (N,) bool."""
        self.columns = {name: values[rows] for name, values in self.columns.items()}
        self.patches = [patch for patch, kept in zip(self.patches, rows, strict=True) if kept]

    def add(self, patches: Sequence[np.ndarray], **values: np.ndarray) -> None:
        """More rows; what is not given is 0."""
        count = len(patches)
        for name, kind, shape in self.FIELDS:
            new = np.zeros((count, *shape), kind)
            if name in values:
                new[...] = values[name]
            self.columns[name] = np.concatenate([self.columns[name], new])
        self.patches += [(patch, patch) for patch in patches]


class Tracker:
    """``look`` at every image on one thread; ``queries`` and ``solved`` around every window on another.

    epoch: of the tracks that ``look`` returns.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._lock = threading.Lock()
        self.epoch = 0
        self._clear()

    def _clear(self) -> None:
        self._table = _Table()
        self._next = 0
        self._scale = Scale.UNKNOWN
        self._banned = np.zeros(0, np.int64)  # corners that something else than a still point made

    def reset(self) -> None:
        """A new epoch: all tracks end, ids begin at 0."""
        with self._lock:
            self.epoch += 1
            self._clear()

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
            T = None if located is None else located.T_map_camera
            grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
            self._follow(frame, corners)
            known = located is not None and located.state in (State.TRACKING, State.STATIONARY)
            if T is not None and K is not None and known:
                self._judge(frame, corners, T, K)
            if self.config.max_tracks:
                if T is not None and K is not None:
                    self._wake(frame, grey, corners, T, K)
                self._begin(frame, grey, corners)
            self._picture(frame, grey, corners.unit)
            self._bound()
            return self._tracks(frame, T)

    def _follow(self, frame: Frame, corners: Corners) -> None:
        """Where the corners went, the tracks go; those whose corner is gone sleep."""
        table = self._table
        at = np.searchsorted(corners.id, table['corner'])
        at = np.minimum(at, max(len(corners) - 1, 0))
        alive = (table['corner'] >= 0) & (len(corners) > 0)
        if len(corners):
            alive &= corners.id[at] == table['corner']
        table['uv'][alive] = corners.uv[at[alive]] if len(corners) else 0
        table['age'][alive] += 1
        table['seen'][alive] = frame.index
        table['corner'][~alive] = -1
        table['off'][~alive] = 0
        self._banned = self._banned[np.isin(self._banned, corners.id)]
        # Without a place in the map nobody could tell where to wake it.
        table.keep(alive | np.isfinite(table['point'][:, 0]))

    def _judge(self, frame: Frame, corners: Corners, T: np.ndarray, K: np.ndarray) -> None:
        """A corner that is not where the map has its point has slid, or is on something that moves."""
        table = self._table
        live = (table['corner'] >= 0) & np.isfinite(table['point'][:, 0])
        uv, _ = _project(table['point'], T, K)
        error = np.linalg.norm(uv - table['uv'], axis=1) / corners.unit
        off = live & ~(error <= self.config.fit)
        table['off'][:] = np.where(off, table['off'] + 1, np.where(live, 0, table['off']))
        with np.errstate(invalid='ignore'):
            fits = 1 / (1 + (error / self.config.fit) ** 2)
        table['confidence'][live] = fits[live]
        self._end(table['off'] > self.config.patience)

    def _end(self, rows: np.ndarray) -> None:
        """These tracks, (N,) bool, are over; their corners begin no others."""
        corner = self._table['corner'][rows]
        self._banned = np.union1d(self._banned, corner[corner >= 0])
        self._table.keep(~rows)

    def _free(self, corners: Corners) -> np.ndarray:
        """Rows of the corners that no track has."""
        return np.flatnonzero(~np.isin(corners.id, self._table['corner']) & ~np.isin(corners.id, self._banned))

    def _wake(self, frame: Frame, grey: np.ndarray, corners: Corners, T: np.ndarray, K: np.ndarray) -> None:
        """Tracks that sleep go on where a corner is where they are expected, and looks like them."""
        table = self._table
        free, asleep = self._free(corners), np.flatnonzero(table['corner'] < 0)
        room = self.config.max_tracks - int((table['corner'] >= 0).sum())
        if not len(free) or not len(asleep) or room <= 0:
            return
        uv, depth = _project(table['point'][asleep], T, K)
        size = np.array(frame.size)
        expected = (depth > 0) & (uv > -0.5).all(axis=1) & (uv < size - 0.5).all(axis=1)
        asleep, uv = asleep[expected], uv[expected]
        if not len(asleep):
            return
        near, number = cKDTree(corners.uv[free]).query(uv, distance_upper_bound=self.config.wake * corners.unit)
        taken: set[int] = set()
        for place in np.argsort(near, kind='stable'):
            if not np.isfinite(near[place]) or len(taken) >= room:
                break
            row, corner = asleep[place], free[number[place]]
            if corner in taken or not self._alike(grey, corners, corner, row):
                continue
            taken.add(int(corner))
            table['corner'][row], table['uv'][row] = corners.id[corner], corners.uv[corner]
            table['age'][row] += 1
            table['seen'][row] = frame.index

    def _alike(self, grey: np.ndarray, corners: Corners, corner: int, row: int) -> bool:
        here = _patch(grey, corners.uv[corner], corners.unit)
        return bool(
            cv2.matchTemplate(here, self._table.patches[row][0], cv2.TM_CCOEFF_NORMED)[0, 0] > self.config.alike
        )

    def _begin(self, frame: Frame, grey: np.ndarray, corners: Corners) -> None:
        """New tracks on corners of cells that have few; the longest followed first: it has proved itself."""
        table = self._table
        live = table['corner'] >= 0
        room = self.config.max_tracks - int(live.sum())
        free = self._free(corners)
        if room <= 0 or not len(free):
            return
        budget = int(np.ceil(self.config.max_tracks / (GRID[0] * GRID[1])))
        full = np.bincount(_cell(table['uv'][live], frame.size), minlength=GRID[0] * GRID[1])
        chosen: list[int] = []
        for corner in free[np.argsort(corners.id[free], kind='stable')]:
            cell = _cell(corners.uv[[corner]], frame.size)[0]
            if full[cell] < budget and len(chosen) < room:
                full[cell] += 1
                chosen.append(corner)
        count = len(chosen)
        table.add(
            [_patch(grey, corners.uv[corner], corners.unit) for corner in chosen],
            id=np.arange(self._next, self._next + count, dtype=np.uint64),
            corner=corners.id[chosen],
            uv=corners.uv[chosen],
            age=np.ones(count),
            visibility=np.ones(count),
            confidence=np.full(count, UNSURE),
            point=np.full((count, 3), np.nan),
            seen=np.full(count, frame.index),
        )
        self._next += count

    def _picture(self, frame: Frame, grey: np.ndarray, unit: float) -> None:
        table = self._table
        for row in np.flatnonzero((table['corner'] >= 0) & (table['age'] % KEEP_PATCH == 0) & (table['off'] == 0)):
            table.patches[row] = table.patches[row][1], _patch(grey, table['uv'][row], unit)

    def _bound(self) -> None:
        """The longest asleep are forgotten."""
        table = self._table
        asleep = np.flatnonzero(table['corner'] < 0)
        excess = len(asleep) - SLEEPERS * self.config.max_tracks
        if excess > 0:
            keep = np.ones(len(table), bool)
            keep[asleep[np.argsort(table['seen'][asleep], kind='stable')[:excess]]] = False
            table.keep(keep)

    def _tracks(self, frame: Frame, T: np.ndarray | None) -> Tracks:
        table = self._table
        live = table['corner'] >= 0
        point = table['point'][live]
        here = np.full_like(point, np.nan) if T is None else camera.transform(camera.invert(T), point)
        now = {name: table[name][live] for name in ('id', 'uv', 'visibility', 'confidence', 'age')}
        return Tracks(frame=frame, epoch=self.epoch, scale=self._scale, xyz=here, xyz_map=point, **now)

    # Around a window ---------------------------------------------------------------------------------------------

    def queries(self, corners: Corners | None, pixel_map: camera.PixelMap) -> tuple[np.ndarray, np.ndarray] | None:
        """Ids (Q,) and network pixels (Q, 2) of the live tracks in the frame that has slot 0; None without any.

        corners: of that frame.
        """
        with self._lock:
            table = self._table
            if corners is None or not len(corners):
                return None
            _, rows, at = np.intersect1d(table['corner'], corners.id, return_indices=True)
            return (table['id'][rows], pixel_map.to_network(corners.uv[at])) if len(rows) else None

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
            self._scale = estimates[-1].scale
            self._place(points)
            self._correct(corrections)
            if asked is None or prediction.tracks is None:
                return ''
            return self._seen(prediction, prediction.slot(estimates[-1].frame.index), asked)

    def _correct(self, corrections: Mapping[int, Similarity]) -> None:
        table = self._table
        if not corrections or not len(table):
            return
        moved = for_all(corrections, [int(index) for index in table['seen']])
        for row, index in enumerate(table['seen']):
            if int(index) in moved:
                one = moved[int(index)]
                table['point'][row] = one.scale * one.R @ table['point'][row] + one.t

    def _place(self, points: Points) -> None:
        table = self._table
        _, rows, at = np.intersect1d(table['corner'], points.id, return_indices=True)
        good = points.agreed[at]
        rows_good, at_good = rows[good], at[good]
        # A mean, not the newest: that would follow a corner that slides.
        new, old = points.xyz[at_good], table['point'][rows_good]
        weight = np.minimum(table['windows'][rows_good], MEAN)[:, None]
        table['point'][rows_good] = np.where(np.isfinite(old), (weight * old + new) / (weight + 1), new)
        table['windows'][rows_good] += 1
        wrong = np.zeros(len(table), bool)
        wrong[rows[~good]] = True
        self._end(wrong)
        self._banned = np.union1d(self._banned, points.id[~points.agreed])

    def _seen(self, prediction: WindowPrediction, slot: int, asked: np.ndarray) -> str:
        assert prediction.tracks is not None
        table, tracks = self._table, prediction.tracks
        visibility, confidence = tracks.visibility[slot], tracks.confidence[slot]
        finite = np.isfinite(visibility) & np.isfinite(confidence) & np.isfinite(tracks.uv[slot]).all(axis=1)
        _, rows, at = np.intersect1d(table['id'], asked[finite], return_indices=True)
        at = np.flatnonzero(finite)[at]
        table['visibility'][rows] = visibility[at]
        poor = visibility[at] * confidence[at] < self.config.min_score
        table['poor'][rows] = np.where(poor, table['poor'][rows] + 1, 0)
        tired = (table['poor'] >= self.config.patience) & (table['corner'] >= 0)
        self._end(tired)
        return '' if finite.all() else f'the tracker gave {int((~finite).sum())} tracks that are not finite'


def _project(points: np.ndarray, T: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2), NaN behind the camera, and z-depth (N,) of points of the map."""
    local = camera.transform(camera.invert(T), points)
    with np.errstate(invalid='ignore', divide='ignore'):
        uv = camera.project(local, K)
        return np.where(local[:, 2:] > 0, uv, np.nan), local[:, 2]


def _cell(uv: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N,) number of the grid cell of each pixel (N, 2)."""
    column, row = np.clip((uv + 0.5) * np.array(GRID) / np.array(size), 0, np.array(GRID) - 1).astype(int).T
    return row * GRID[0] + column


def _patch(grey: np.ndarray, uv: np.ndarray, unit: float) -> np.ndarray:
    """(PATCH, PATCH) uint8 around a pixel, as it would be 518 wide."""
    matrix = np.array([[unit, 0, uv[0] - unit * (PATCH - 1) / 2], [0, unit, uv[1] - unit * (PATCH - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, matrix, (PATCH, PATCH), flags=flags, borderMode=cv2.BORDER_REPLICATE)
