"""How well keypoints keep their identity, against exact correspondences. Pure functions of what was published.

An id's own point is the surface point under its pixel in the image in which it was first published. A pair is one id
in one image; it is right within ``TOLERANCE`` of the id's own point. Ids of different epochs are different tracks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.evaluation.scenarios import Scenario
from vggt_ros.synthetic.tracks import follow
from vggt_ros.tracks.tracker import GRID, grid_cell
from vggt_ros.types import Tracks

TOLERANCE = 3 / 224  # of the image's width
STAYS = 3  # images in a row on another id's point that make a switch

Follow = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(image, uv (Q, 2) in it) -> of the points seen there, in this image and all after it: uv (F, Q, 2), NaN where there
is none; the same if they had stood still since, (F, Q, 2); whether they are seen, (F, Q) bool."""


def published(tracks: Sequence[Tracks]) -> Published:
    """All pairs of a run. tracks: one for each image that was published, with tracks or without, in the order of time.

    Raises ValueError for what must never be published: images out of order, an id twice in an image, no pixel.
    """
    if not tracks:
        nothing = np.zeros(0, int)
        return Published((1, 1), nothing, nothing, nothing, np.zeros((0, 2)))
    images = np.array([one.frame.index for one in tracks])
    if (np.diff(images) <= 0).any():
        raise ValueError('the images are not in order, or one came twice')
    counts = [len(one.id) for one in tracks]
    epochs, image = np.repeat([one.epoch for one in tracks], counts), np.repeat(images, counts)
    ids, uv = np.concatenate([one.id for one in tracks]), np.concatenate([one.uv for one in tracks])
    # Ids are 64 bits and unsigned: a common array with the epochs would be one of floats.
    _, track = np.unique(np.rec.fromarrays([epochs, ids]), return_inverse=True)
    if len(np.unique(np.stack([image, track]), axis=1).T) < len(track):
        raise ValueError('an id was published twice in one image')
    if not np.isfinite(uv).all():
        raise ValueError('a track was published without a pixel')
    return Published(tracks[0].frame.size, images, image, track, uv)


@dataclass(frozen=True, eq=False)
class Published:
    """P pairs of M tracks, in the order of time. size: (width, height).

    images: (F,) the images that were published, with tracks or without. image: (P,) of each pair. track: (P,) which,
    0 to M - 1. uv: (P, 2) source pixels.
    """

    size: tuple[int, int]
    images: np.ndarray
    image: np.ndarray
    track: np.ndarray
    uv: np.ndarray

    @cached_property
    def first(self) -> np.ndarray:
        """(M,) the pair with which each track began."""
        return np.unique(self.track, return_index=True)[1]

    @cached_property
    def age(self) -> np.ndarray:
        """(P,) images in which the track was published before."""
        order = np.argsort(self.track, kind='stable')
        counts = np.bincount(self.track) if len(self.track) else np.zeros(0, int)
        age = np.empty(len(self.track), int)
        age[order] = np.arange(len(self.track)) - np.repeat(np.cumsum(counts) - counts, counts)
        return age

    @property
    def tolerance(self) -> float:
        """Source pixels."""
        return TOLERANCE * self.size[0]


@dataclass(frozen=True, eq=False)
class Judged:
    """Pairs and the truth. own, still: (M, F, 2) pixels of each track's own point in each image from 0 to F - 1, as it
    is and as if it had not moved since the track began; NaN before that, behind the camera, and where nothing was under
    the pixel. seen: (M, F) bool, whether the point is seen. right: (P,) bool, the pair is within the tolerance.
    """

    pairs: Published
    own: np.ndarray
    still: np.ndarray
    seen: np.ndarray

    @cached_property
    def right(self) -> np.ndarray:
        off = np.linalg.norm(self.pairs.uv - self.own[self.pairs.track, self.pairs.image], axis=1)
        with np.errstate(invalid='ignore'):
            return off <= self.pairs.tolerance


def judge(tracks: Sequence[Tracks], truth: Follow) -> Judged:
    """Put what was published beside the truth: each id's own point is followed from the image in which it began."""
    pairs = published(tracks)
    count = int(pairs.images[-1]) + 1 if len(pairs.images) else 0
    own, still = np.full((2, len(pairs.first), count, 2), np.nan)
    seen = np.zeros(own.shape[:2], bool)
    begun = pairs.image[pairs.first]
    for image in np.unique(begun):
        rows = np.flatnonzero(begun == image)
        uv, unmoved, visible = truth(int(image), pairs.uv[pairs.first[rows]])
        later = slice(int(image), count)
        for table, values in ((own, uv), (still, unmoved), (seen, visible)):
            table[rows, later] = np.swapaxes(values[: count - image], 0, 1)
    return Judged(pairs, own, still, seen)


def exactly(scenario: Scenario) -> Follow:
    """The truth of a rendered scenario. A place in the sky is a direction. Raises ValueError without a scene."""
    scene, T = scenario.scene, scenario.T_world_camera
    if scene is None:
        raise ValueError('the scenario was not rendered in this order: nothing is known about its points')
    K, size = scenario.truths[0].K, scenario.frames[0].size

    def truth(image: int, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points = follow(scene.since(image), T[image:], K, size, uv)
        exact, seen = points.uv[0].numpy().copy(), points.visible[0].numpy().copy()
        sky = points.object_id[0].numpy() == 0
        born = points.points[0, 0].numpy()
        direction = rays(uv[sky], K) @ T[image, :3, :3].T
        still = np.empty_like(exact)
        for row, T_camera_world in enumerate(invert(T[image:])):
            still[row] = project(transform(T_camera_world, born), K)
            still[row, sky] = exact[row, sky] = project(direction @ T_camera_world[:3, :3].T, K)
        return exact, still, seen

    return truth


def identity(judged: Judged, later_only: bool = False) -> float:
    """Share of the pairs that are right. later_only: without the pairs that began a track, which cannot be wrong."""
    chosen = judged.pairs.age > 0 if later_only else np.ones(len(judged.right), bool)
    return float(judged.right[chosen].mean()) if chosen.any() else 0.0


def switches(judged: Judged, living_only: bool = False) -> list[tuple[int, int, int]]:
    """(track, other track, image) for each track that leaves its own point and stays on another one's.

    That is, in STAYS images in a row of those in which it is published it is wrong and within the tolerance of where
    the point of the same other track is seen, one that began no later. Each track counts once. living_only: the other
    one must be published in these images. Without that, hardly a place is nobody's after some hundred tracks.
    """
    pairs, begun = judged.pairs, judged.pairs.image[judged.pairs.first]
    found: dict[int, tuple[int, int, int]] = {}
    near: list[dict[int, int]] = [{} for _ in begun]  # other track -> images in a row on its point
    for image in np.unique(pairs.image):
        here = np.flatnonzero(pairs.image == image)
        others = np.flatnonzero((begun <= image) & judged.seen[:, image] & np.isfinite(judged.own[:, image, 0]))
        wrong = here[~judged.right[here]]
        for pair in here[judged.right[here]]:
            near[pairs.track[pair]] = {}
        if living_only:
            others = np.intersect1d(others, pairs.track[here])
        tree = cKDTree(judged.own[others, image].reshape(-1, 2))
        for pair, rows in zip(wrong, tree.query_ball_point(pairs.uv[wrong], pairs.tolerance), strict=True):
            track = int(pairs.track[pair])
            near[track] = {one: near[track].get(one, 0) + 1 for one in others[rows].tolist() if one != track}
            long = [other for other, length in near[track].items() if length >= STAYS]
            if long and track not in found:
                found[track] = (track, long[0], int(image))
    return list(found.values())


def returns(judged: Judged) -> int:
    """Tracks that were absent for some published images and came back at another place than their own point."""
    pairs = judged.pairs
    place = np.searchsorted(pairs.images, pairs.image)
    order = np.argsort(pairs.track, kind='stable')
    track, place = pairs.track[order], place[order]
    back = (np.diff(track) == 0) & (np.diff(place) > 1) & ~judged.right[order][1:]
    return len(np.unique(track[1:][back]))


def lives(judged: Judged) -> np.ndarray:
    """(M,) images in which each track was on its own point."""
    return np.bincount(judged.pairs.track, judged.right, len(judged.pairs.first)).astype(int)


def moved(judged: Judged) -> float:
    """Share of the pairs whose own point is elsewhere than it would be had it stood still since its track began."""
    pairs = judged.pairs
    shift = np.linalg.norm((judged.own - judged.still)[pairs.track, pairs.image], axis=1)
    with np.errstate(invalid='ignore'):
        return float((shift > pairs.tolerance).mean()) if len(shift) else 0.0


def occupancy(pairs: Published) -> np.ndarray:
    """GRID as (rows, columns): in which share of the images each cell held a track, from the first that had any on."""
    images = pairs.images[pairs.images >= pairs.image.min()] if len(pairs.image) else pairs.images[:0]
    held = np.zeros((len(images), GRID[1], GRID[0]), bool)
    row, column = np.divmod(grid_cell(pairs.uv, pairs.size), GRID[0])
    held[np.searchsorted(images, pairs.image), row, column] = True
    return held.mean(0) if len(images) else np.zeros((GRID[1], GRID[0]))


def coverage(pairs: Published) -> float:
    """Share of the grid's cells that hold a track, mean over the images from the first that had any on."""
    return float(occupancy(pairs).mean())


def by_age(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """By age, in images in which a track was published before: share of the pairs that are right, and their number."""
    count = np.bincount(judged.pairs.age)
    return np.bincount(judged.pairs.age, judged.right) / np.maximum(count, 1), count
