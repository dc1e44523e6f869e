"""Corners followed through every camera image: pyramidal Lucas-Kanade, and each where it looks as it first did.

What follows a corner from image to image slides off it, in one direction where the camera goes forwards: what is nearer
than the corner moves faster and drags it along. On real streets that made the unit of a map grow by a tenth in 50 m.
So every step ends with a comparison with the corner's first picture (patches.py), as its surroundings have turned and
grown since; a corner that no longer looks like it ends (Shi and Tomasi, Good Features to Track, 1994). So does one that
does not move with the others, as a rigid scene would (epipolar.py): a tile of a floor is met again one tile further,
and looks as it did. One that is only not seen, in a blurred image or behind something, is looked for where its
neighbours say that it would be, for some images more: what is seen on both sides of a fast turn holds the map together.

All thresholds are in "px at 518": pixels of the image scaled so that its longest side is 518, the network's size. Large
images are tracked at that size; small ones as they are, for enlarging adds nothing but time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

from vggt_ros.camera import PixelMap, image_size
from vggt_ros.odometry import patches
from vggt_ros.odometry.corner_search import MAX_NOISE, MIN_NOISE, noise_level, search, strength_of_noise
from vggt_ros.odometry.corner_tracks import Tracks
from vggt_ros.odometry.epipolar import EPIPOLAR, LEAST_COMMON, agreeing
from vggt_ros.odometry.working_image import REFERENCE, gain_of, sharpness_of, working_image, working_size
from vggt_ros.types import Frame

CONTINUED = 0.5  # share of the corners that go on as they did, below which they are searched where they were
SURPRISE = 8.0  # px at 518 between where they would be and where they are, beyond which the same is done
FEW = 40  # corners below which every image is searched for more
BESIDE = 5  # corners by which the place is told of one that is not seen


@dataclass(frozen=True)
class KltConfig:
    """How corners are found and followed; lengths in px at 518."""

    max_corners: int = 600  # bound of live tracks
    full: float = 0.8  # share of it above which no new corners are looked for
    pause: int = 3  # templates between two searches, unless a tenth of the corners is lost before
    window: int = 21  # side of the Lucas-Kanade window, odd
    levels: int = 4  # pyramid levels above the image
    alike: float = 0.65  # least correlation with the first picture, without noise
    similar: float = 0.5  # the same while fewer than ``enough`` go on
    enough: int = 200
    slide: float = 3.0  # how far a corner may be from where it looks like it
    patience: int = 8  # templates for which a corner that is not seen is looked for
    missed: int = 300  # bound of those
    strayed: float = 6.0  # how far they may be from where they would be
    noise_factor: float = 3.0  # least corner strength relative to what the image's noise alone makes
    history: int = 256  # images that are remembered

    def __post_init__(self) -> None:
        if self.max_corners < 1 or self.history < 1:
            raise ValueError('max_corners and history must be at least 1')
        if self.window < 5 or self.window % 2 == 0:
            raise ValueError(f'the window must be odd and at least 5 px, not {self.window}')


@dataclass(frozen=True, eq=False)
class Corners:
    """The live corners in one image.

    index, stamp: of the frame. size: (width, height) of the source image. id: (N,) int64 ascending, the same physical
    point, which may be missed in some images; never used for another. uv: (N, 2) float64 source pixels. sharpness:
    variance of the Laplacian at half size, grey levels squared. gain: log2 of grey levels relative to the image before
    (0 for the first).
    """

    index: int
    stamp: int
    size: tuple[int, int]
    id: np.ndarray
    uv: np.ndarray
    sharpness: float
    gain: float

    @property
    def unit(self) -> float:
        """Source pixels per px at 518."""
        return max(self.size) / REFERENCE

    def __len__(self) -> int:
        return len(self.id)


def common(a: Corners, b: Corners) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``a`` and of ``b`` that are the same points; none when the images have different sizes."""
    if a.size != b.size:
        return np.zeros(0, int), np.zeros(0, int)
    _, rows_a, rows_b = np.intersect1d(a.id, b.id, assume_unique=True, return_indices=True)
    return rows_a, rows_b


class _Image(NamedTuple):
    """grey: (h, w) uint8 at the tracked size; thumbnail: (32, 32) float32 of it."""

    grey: np.ndarray
    thumbnail: np.ndarray


class _Followed(NamedTuple):
    """The tracks in an image: pixels (N, 2) float32, of those that are not seen where they would be; which are
    seen, (N,) bool; and how their first pictures are warped then, (N, 2, 2).
    """

    uv: np.ndarray
    alive: np.ndarray
    warp: np.ndarray


class KltTracker:
    """Corners from image to image. Not thread-safe; frames in the order of their index.

    Corners are followed from a template image, which is the image before as long as the camera moves. While it moves by
    less than a pixel the template stays, so at standstill noise cannot add up to motion. The search begins where a
    corner would be if it went on as it did: after a gap a pattern that repeats would be met one period off.
    """

    def __init__(self, config: KltConfig | None = None) -> None:
        self.config = config or KltConfig()
        self._next_id = 0
        self._history: OrderedDict[int, Corners] = OrderedDict()
        self.reset()

    def reset(self) -> None:
        """End all tracks and forget the history; ids are not used again."""
        self._history.clear()
        self._latest: np.ndarray | None = None  # thumbnail of the image before
        self._end_all()

    def _end_all(self) -> None:
        self._template: _Image | None = None
        self._tracks = Tracks.none()
        self._noise = MIN_NOISE  # grey levels, of the image in which corners were looked for last
        self._searched = self.config.pause  # templates since new corners were looked for
        self._found = 0  # corners alive after that

    def at(self, index: int) -> Corners | None:
        """The corners of the image with this index, or None when it is unknown or too long ago."""
        return self._history.get(index)

    def since(self, index: int) -> list[Corners]:
        """The corners of all remembered images after this one, oldest first."""
        return [corners for number, corners in self._history.items() if number > index]

    def update(self, frame: Frame) -> Corners:
        """Follow the corners into ``frame`` and add new ones where there are too few.

        A change of image size ends all tracks. Raises ValueError for an index that is not above the last one and for
        an image that is not (H, W, 3) uint8.
        """
        before = self._history[next(reversed(self._history))] if self._history else None
        if before is not None and frame.index <= before.index:
            raise ValueError(f'frame {frame.index} comes after frame {before.index}: keep their order')
        if frame.image.ndim != 3 or frame.image.shape[2] != 3 or frame.image.dtype != np.uint8:
            raise ValueError(f'the image must be (H, W, 3) uint8, not {frame.image.shape} {frame.image.dtype}')
        if before is not None and before.size != frame.size:
            self._end_all()
        pixel_map = working_size(frame.size)
        full = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        grey = working_image(full, pixel_map)
        allowed = None if frame.valid is None else self._allowed(frame.valid, pixel_map)
        image = _Image(grey, cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))
        unit = max(pixel_map.size) / REFERENCE
        seconds = 0.0 if before is None else (frame.stamp - before.stamp) * 1e-9
        uv, alive, warp = self._follow(image, allowed, unit, seconds)
        tracks, K = self._tracks, None if frame.K is None else pixel_map.K_to_network(frame.K)
        rigid = self._rigid(uv, alive, pixel_map, K)
        wrong, alive = alive & tracks.awake & ~rigid, alive & rigid
        awake = alive & tracks.awake
        moved = np.linalg.norm(uv - tracks.uv, axis=1)[awake]
        if seconds > 0:
            tracks.speed[alive] = (uv - tracks.seen)[alive] / np.float32(seconds)
        tracks.seen[:], tracks.last[alive] = uv, frame.index
        ids, now = tracks.id[alive], uv[alive]
        if len(ids) < max(0.8 * tracks.awake.sum(), FEW) or np.median(moved) > unit:
            tracks = tracks._replace(uv=uv, warp=warp, missed=np.where(alive, 0, tracks.missed + 1))
            kept = alive | self._missed(tracks, image_size(grey)) & ~wrong
            fresh = self._search(full, grey, now, allowed)
            speed = _beside(fresh, uv[awake], tracks.speed[awake])
            fresh_ids = np.arange(self._next_id, self._next_id + len(fresh), dtype=np.int64)
            self._next_id += len(fresh)
            self._template = image
            self._tracks = tracks.take(kept).and_others(Tracks.found(fresh_ids, fresh, speed, grey, frame.index))
            ids, now = np.concatenate([ids, fresh_ids]), np.concatenate([now, fresh])
        gain = 0.0 if self._latest is None else gain_of(self._latest, image.thumbnail)
        self._latest = image.thumbnail
        corners = Corners(frame.index, frame.stamp, frame.size, ids, pixel_map.to_source(now), sharpness_of(grey), gain)
        self._history[frame.index] = corners
        while len(self._history) > self.config.history:
            self._history.popitem(last=False)
        return corners

    def _allowed(self, valid: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
        """(h, w) uint8, 255 where a whole window has image: the rim of the valid area stands still and would lie."""
        mask = cv2.resize(valid.astype(np.uint8) * 255, pixel_map.size, interpolation=cv2.INTER_NEAREST)
        side = self.config.window
        return cv2.erode(mask, np.ones((side, side), np.uint8), borderValue=255)

    def _rigid(self, uv: np.ndarray, alive: np.ndarray, pixel_map: PixelMap, K: np.ndarray | None) -> np.ndarray:
        """(N,) bool: those of the living that move as a rigid scene does. One that was missed has no place in the
        template: what was seen in its last image and goes on tells of it.
        """
        tracks, within = self._tracks, EPIPOLAR * max(pixel_map.size) / REFERENCE
        rigid, awake = np.zeros(len(alive), bool), alive & tracks.awake
        rigid[awake] = agreeing(tracks.uv[awake].astype(float), uv[awake].astype(float), K, within)
        again, awake = alive & ~tracks.awake, rigid.copy()
        for index in np.unique(tracks.last[again]):
            past, mine = self._history.get(int(index)), again & (tracks.last == index)
            rows = np.flatnonzero(awake | mine)
            if past is None:
                continue
            _, there, here = np.intersect1d(past.id, tracks.id[rows], assume_unique=True, return_indices=True)
            if len(here) >= LEAST_COMMON and awake[rows[here]].sum() >= BESIDE:
                then, now = pixel_map.to_network(past.uv[there]), uv[rows[here]].astype(float)
                rigid[rows[here]] |= mine[rows[here]] & agreeing(then, now, K, within)
        return rigid

    def _missed(self, tracks: Tracks, size: tuple[int, int]) -> np.ndarray:
        """(N,) bool: those that are to be looked for again, the oldest first."""
        inside = ((tracks.uv >= 0) & (tracks.uv <= np.array(size) - 1)).all(axis=1)
        rows = np.flatnonzero((tracks.missed > 0) & (tracks.missed <= self.config.patience) & inside)
        missed = np.zeros(len(tracks.id), bool)
        missed[rows[: self.config.missed]] = True
        return missed

    def _follow(self, image: _Image, allowed: np.ndarray | None, unit: float, seconds: float) -> _Followed:
        """Where the tracks are in ``image``."""
        tracks = self._tracks
        if self._template is None or not len(tracks.id):
            return _Followed(tracks.uv, np.zeros(len(tracks.id), bool), tracks.warp)
        before = self._template.grey
        gain = gain_of(self._template.thumbnail, image.thumbnail)
        if abs(gain) > 0.1:  # Lucas-Kanade takes brightness as constant
            before = cv2.convertScaleAbs(before, alpha=2.0**gain)
        awake = tracks.awake
        guess = tracks.seen + tracks.speed * np.float32(max(seconds, 0.0))
        # Few levels first: on the coarse ones a pattern that repeats is met one period off.
        found = self._from(guess, min(2, self.config.levels), before, image.grey, allowed, unit)
        alive = found.alive & awake
        off = np.median(np.linalg.norm(found.uv - guess, axis=1)[alive]) if alive.any() else np.inf
        if alive.sum() < CONTINUED * awake.sum() or off > SURPRISE * unit:  # the camera did not go on as it did
            again = self._from(tracks.uv, self.config.levels, before, image.grey, allowed, unit)
            if again.alive.sum() > found.alive.sum():
                return again
        return found

    def _from(
        self,
        guess: np.ndarray,
        levels: int,
        before: np.ndarray,
        grey: np.ndarray,
        allowed: np.ndarray | None,
        unit: float,
    ) -> _Followed:
        """The same, with the search begun at ``guess`` (N, 2)."""
        tracks = self._tracks
        uv, awake = tracks.uv.copy(), np.flatnonzero(tracks.awake)
        found = np.zeros(len(tracks.id), bool)
        if len(awake):
            places, status, _ = cv2.calcOpticalFlowPyrLK(
                before,
                grey,
                tracks.uv[awake],
                guess[awake],
                winSize=(self.config.window, self.config.window),
                maxLevel=levels,
                criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
                flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
            )
            uv[awake], found[awake] = places, np.asarray(status)[:, 0].astype(bool)
        followed = self._as_first(grey, uv, found, unit)
        size = np.array(image_size(grey))
        alive = followed.alive & ((followed.uv >= 0) & (followed.uv <= size - 1)).all(axis=1)
        if allowed is not None:
            column, row = np.clip(np.rint(np.where(alive[:, None], followed.uv, 0)).astype(int), 0, size - 1).T
            alive &= allowed[row, column] > 0
        return followed._replace(alive=alive)

    def _as_first(self, grey: np.ndarray, uv: np.ndarray, found: np.ndarray, unit: float) -> _Followed:
        """Those of the corners that were ``found`` (N,), near ``uv`` (N, 2), where they look as they first did, and
        those that were missed before where they would be.
        """
        tracks, warp = self._tracks, self._tracks.warp.copy()
        rows = np.flatnonzero(found)
        if not len(rows):
            return _Followed(uv, found, warp)
        turned = patches.warps(tracks.uv[rows], uv[rows])
        warp[rows] = turned @ warp[rows]
        places, alike = self._compare(grey, rows, warp, uv[rows], self.config.slide * unit)
        # In a blurred image none looks quite as it did: the best are better than none.
        few = max(np.sort(alike)[-min(self.config.enough, len(alike))], self.config.similar)
        same = alike >= min(self.config.alike, few)
        uv, alive = uv.copy(), np.zeros(len(uv), bool)
        uv[rows[same]], alive[rows[same]] = places[same], True
        others = np.flatnonzero(~alive)
        if same.sum() < BESIDE or not len(others):
            return _Followed(uv, alive, warp)
        # What is not seen goes with its neighbours.
        near = cKDTree(tracks.uv[rows[same]]).query(tracks.uv[others], BESIDE)[1]
        uv[others] = tracks.uv[others] + np.median((uv - tracks.uv)[rows[same]][near], axis=1)
        again = tracks.missed[others] > 0
        others, near = others[again], near[again]
        warp[others] = turned[same][near[:, 0]] @ warp[others]
        places, alike = self._compare(grey, others, warp, uv[others], self.config.strayed * unit)
        same = alike >= self.config.alike
        uv[others[same]], alive[others[same]] = places[same], True
        return _Followed(uv, alive, warp)

    def _compare(
        self, grey: np.ndarray, rows: np.ndarray, warp: np.ndarray, uv: np.ndarray, reach: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where some tracks look most as they first did, near ``uv``, and how much; 0 where that is further away."""
        first = self._tracks.first[rows]
        places, alike = patches.align(grey, first, warp[rows], uv.astype(np.float64))
        # Two pictures with noise of one thing that has contrast without.
        noise = np.minimum(self._noise**2 / np.maximum(patches.contrast(first), 1e-9), 1.0)
        near = np.linalg.norm(places - uv, axis=1) <= reach
        return places, np.where(near & (alike > 0), alike + noise, 0.0)

    def _search(self, full: np.ndarray, grey: np.ndarray, uv: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
        """New corners (N, 2) float32 in ``grey``, away from those at ``uv``, when it is time to look for some."""
        nothing = np.zeros((0, 2), np.float32)
        self._searched += 1
        most = self.config.max_corners
        if len(uv) >= self.config.full * most or min(grey.shape) < self.config.window:
            return nothing
        if self._searched < self.config.pause and len(uv) >= max(0.9 * self._found, FEW):
            return nothing
        # Scaling keeps the density of white noise.
        self._noise = min(max(noise_level(full) * np.sqrt(grey.size / full.size), MIN_NOISE), MAX_NOISE)
        floor = self.config.noise_factor * strength_of_noise(self._noise)
        fresh = search(grey, floor, uv, most - len(uv), most, allowed)
        self._searched, self._found = 0, len(uv) + len(fresh)
        return fresh


def _beside(uv: np.ndarray, others: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """(N, 2) the speed of the nearest of the others (M, 2): a new corner moves like its neighbour."""
    return speed[cKDTree(others).query(uv)[1]] if len(others) else np.zeros_like(uv)
