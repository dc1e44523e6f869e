"""Corners followed through every camera image: pyramidal Lucas-Kanade, and each where it looks as it first did.

What follows a corner from image to image slides off it, in one direction where the camera goes forwards: what is nearer
than the corner moves faster and drags it along. On real streets that made the unit of a map grow by a tenth in 50 m.
So every step ends with a comparison with the corner's first picture (patches.py), as its surroundings have turned and
grown since; a corner that no longer looks like it ends (Shi and Tomasi, Good Features to Track, 1994). So does one that
does not move with the others, as a rigid scene would (epipolar.py): a tile of a floor is met again one tile further,
and looks as it did.

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
from vggt_ros.odometry.epipolar import EPIPOLAR, agreeing
from vggt_ros.types import Frame

REFERENCE = 518  # longest side to which all thresholds refer
CONTINUED = 0.5  # share of the corners that go on as they did, below which they are searched where they were
SURPRISE = 8.0  # px at 518 between where they would be and where they are, beyond which the same is done
FEW = 40  # corners below which every image is searched for more
BLOCK = 5  # pixels of the corner measure's window
MIN_NOISE, MAX_NOISE = 1.0, 10.0  # grey levels: less is quantisation, and what looks like more is texture
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer 1996: blind to planes and edges


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
    point until it dies, never used again. uv: (N, 2) float64 source pixels. sharpness: variance of the Laplacian at
    half size, grey levels squared. gain: log2 of grey levels relative to the image before (0 for the first).
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
    """The template's corners in an image: pixels (N, 2) float32, which are there (N,) bool, and how their first
    pictures are warped then, (N, 2, 2).
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
        self._id = np.zeros(0, np.int64)
        self._uv = np.zeros((0, 2), np.float32)  # pixels of the template
        self._seen = np.zeros((0, 2), np.float32)  # pixels of the image before
        self._speed = np.zeros((0, 2), np.float32)  # px / s
        self._first = np.zeros((0, patches.TILE, patches.TILE), np.uint8)  # pictures of when they were found
        self._warp = np.zeros((0, 2, 2))  # from offsets in these to offsets in the template
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
        K = None if frame.K is None else pixel_map.K_to_network(frame.K)
        alive[alive] = agreeing(self._uv[alive].astype(float), uv[alive].astype(float), K, EPIPOLAR * unit)
        moved = np.linalg.norm(uv - self._uv, axis=1)[alive]
        if seconds > 0:
            self._speed[alive] = (uv - self._seen)[alive] / np.float32(seconds)
        self._seen[alive] = uv[alive]
        ids, uv, speed = self._id[alive], uv[alive], self._speed[alive]
        if len(ids) < max(0.8 * len(alive), FEW) or np.median(moved) > unit:
            fresh = self._search(full, image.grey, uv, allowed)
            ids = np.concatenate([ids, np.arange(self._next_id, self._next_id + len(fresh), dtype=np.int64)])
            uv = np.concatenate([uv, fresh])
            self._next_id += len(fresh)
            self._template, self._id, self._uv = image, ids, uv
            self._first = np.concatenate([self._first[alive], patches.cut(image.grey, fresh)])
            self._warp = np.concatenate([warp[alive], np.tile(np.eye(2), (len(fresh), 1, 1))])
            # A new corner moves like its neighbour.
            near = cKDTree(uv[: len(speed)]).query(fresh)[1] if len(speed) else np.zeros(0, int)
            self._seen = uv.copy()
            self._speed = np.concatenate([speed, speed[near] if len(speed) else np.zeros_like(fresh)])
        gain = 0.0 if self._latest is None else _gain(self._latest, image.thumbnail)
        self._latest = image.thumbnail
        corners = Corners(
            frame.index, frame.stamp, frame.size, ids, pixel_map.to_source(uv), _sharpness(image.grey), gain
        )
        self._history[frame.index] = corners
        while len(self._history) > self.config.history:
            self._history.popitem(last=False)
        return corners

    def _allowed(self, valid: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
        """(h, w) uint8, 255 where a whole window has image: the rim of the valid area stands still and would lie."""
        mask = cv2.resize(valid.astype(np.uint8) * 255, pixel_map.size, interpolation=cv2.INTER_NEAREST)
        side = self.config.window
        return cv2.erode(mask, np.ones((side, side), np.uint8), borderValue=255)

    def _follow(self, image: _Image, allowed: np.ndarray | None, unit: float, seconds: float) -> _Followed:
        """Where the template's corners are in ``image``."""
        if self._template is None or not len(self._id):
            return _Followed(self._uv, np.zeros(len(self._id), bool), self._warp)
        before = self._template.grey
        gain = _gain(self._template.thumbnail, image.thumbnail)
        if abs(gain) > 0.1:  # Lucas-Kanade takes brightness as constant
            before = cv2.convertScaleAbs(before, alpha=2.0**gain)
        guess = self._seen + self._speed * np.float32(max(seconds, 0.0))
        # Few levels first: on the coarse ones a pattern that repeats is met one period off.
        found = self._from(guess.copy(), min(2, self.config.levels), before, image.grey, allowed, unit)
        alive = found.alive
        off = np.median(np.linalg.norm(found.uv - guess, axis=1)[alive]) if alive.any() else np.inf
        if alive.mean() < CONTINUED or off > SURPRISE * unit:  # the camera did not go on as it did
            again = self._from(self._uv.copy(), self.config.levels, before, image.grey, allowed, unit)
            if again.alive.sum() > alive.sum():
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
        """The same, with the search begun at ``guess`` (N, 2), which is overwritten."""
        uv, found, _ = cv2.calcOpticalFlowPyrLK(
            before,
            grey,
            self._uv,
            guess,
            winSize=(self.config.window, self.config.window),
            maxLevel=levels,
            criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02),
            flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        )
        followed = self._as_first(grey, uv, np.asarray(found)[:, 0].astype(bool), unit)
        size = np.array(image_size(grey))
        alive = followed.alive & ((followed.uv >= 0) & (followed.uv <= size - 1)).all(axis=1)
        if allowed is not None:
            column, row = np.clip(np.rint(np.where(alive[:, None], followed.uv, 0)).astype(int), 0, size - 1).T
            alive &= allowed[row, column] > 0
        return followed._replace(alive=alive)

    def _as_first(self, grey: np.ndarray, uv: np.ndarray, found: np.ndarray, unit: float) -> _Followed:
        """Those of the corners that were ``found`` (N,), near ``uv`` (N, 2), where they look as they first did."""
        rows, warp = np.flatnonzero(found), self._warp.copy()
        if not len(rows):
            return _Followed(uv, found, warp)
        warp[rows] = patches.warps(self._uv[rows], uv[rows]) @ warp[rows]
        places, alike = patches.align(grey, self._first[rows], warp[rows], uv[rows].astype(np.float64))
        # Two pictures with noise of one thing that has contrast without.
        noise = np.minimum(self._noise**2 / np.maximum(patches.contrast(self._first[rows]), 1e-9), 1.0)
        near = np.linalg.norm(places - uv[rows], axis=1) <= self.config.slide * unit
        alike = np.where(near & (alike > 0), alike + noise, 0.0)
        # In a blurred image none looks quite as it did: the best are better than none.
        few = max(np.sort(alike)[-min(self.config.enough, len(alike))], self.config.similar)
        same = alike >= min(self.config.alike, few)
        uv, alive = uv.copy(), np.zeros(len(uv), bool)
        uv[rows[same]], alive[rows[same]] = places[same], True
        return _Followed(uv, alive, warp)

    def _search(self, full: np.ndarray, grey: np.ndarray, uv: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
        """New corners (N, 2) float32 in ``grey``, away from those at ``uv``, when it is time to look for some."""
        nothing = np.zeros((0, 2), np.float32)
        height, width = grey.shape
        self._searched += 1
        if len(uv) >= self.config.full * self.config.max_corners or min(height, width) < self.config.window:
            return nothing
        if self._searched < self.config.pause and len(uv) >= max(0.9 * self._found, FEW):
            return nothing
        # As far apart as max_corners points can be that fill the image evenly.
        distance = max(2, int(0.7 * np.sqrt(width * height / self.config.max_corners)))
        mask = np.full_like(grey, 255) if allowed is None else allowed
        if len(uv):
            free = np.full_like(grey, 255)
            column, row = np.rint(uv).astype(int).T
            free[row, column] = 0
            side = 2 * distance + 1
            near = np.asarray(cv2.erode(free, np.ones((side, side), np.uint8), borderValue=255))
            mask = np.minimum(mask, near)
        _, peak, _, _ = cv2.minMaxLoc(cv2.cornerMinEigenVal(grey, BLOCK), mask)
        # Scaling keeps the density of white noise.
        self._noise = min(max(noise_level(full) * np.sqrt(grey.size / full.size), MIN_NOISE), MAX_NOISE)
        floor = self.config.noise_factor * _noise_strength(self._noise)
        fresh = None
        if peak > floor:
            room = self.config.max_corners - len(uv)
            fresh = cv2.goodFeaturesToTrack(grey, room, floor / peak, distance, mask=mask, blockSize=BLOCK)
        self._searched, self._found = 0, len(uv) + (0 if fresh is None else len(fresh))
        return nothing if fresh is None else fresh[:, 0]


def working_size(source: tuple[int, int]) -> PixelMap:
    """Source pixels <-> pixels of the tracked image, whose longest side is at most 518."""
    ratio = min(1.0, REFERENCE / max(source))
    size = (max(1, round(source[0] * ratio)), max(1, round(source[1] * ratio)))
    return PixelMap(source, size, (0, 0), size)


def working_image(full: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """(h, w) uint8 of the tracked size, of the grey picture (H, W) of a frame."""
    if pixel_map.size == image_size(full):
        return full
    return np.asarray(cv2.resize(full, pixel_map.size, interpolation=cv2.INTER_AREA))


def noise_level(grey: np.ndarray) -> float:
    """Standard deviation of white noise in grey levels, from the median response of Immerkaer's operator.

    J. Immerkaer, Fast Noise Variance Estimation, CVIU 64(2), 1996; the median instead of the mean, since texture fills
    the larger responses. Fine texture everywhere still reads as noise.
    """
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, _NOISE)[1:-1:3, 1:-1:3])
    # The kernel has norm 6; the median of |N(0, 1)| is 0.6745.
    return float(np.median(response)) / (6 * 0.6745) if response.size else 0.0


def _noise_strength(sigma: float) -> float:
    """What white noise of ``sigma`` grey levels adds to cv2.cornerMinEigenVal of an 8-bit image.

    Sobel gradients, normalised to grey levels per pixel, carry 3/16 of its variance; OpenCV scales them by 2/255.
    """
    return 3 / 16 * sigma**2 * (2 / 255) ** 2


def _gain(before: np.ndarray, after: np.ndarray) -> float:
    """log2 of the ratio of grey levels, median over blocks that are neither dark nor saturated; 0 without any."""
    usable = (before > 8) & (after > 8) & (before < 245) & (after < 245)
    return float(np.median(np.log2(after[usable] / before[usable]))) if usable.sum() >= 32 else 0.0


def _sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian at half size, where noise weighs less and motion blur of a few pixels still shows."""
    half = cv2.pyrDown(grey)
    return float(cv2.Laplacian(half, cv2.CV_32F).var())
