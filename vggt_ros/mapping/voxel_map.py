"""The map as a cloud that lives: it grows with the keyframes, follows their corrections and stays bounded.

Points belong to keyframes. A submap is one keyframe's pixels in its own camera frame, so a corrected pose or scale
moves them exactly and at no cost. A point is published only when another keyframe saw the same surface from a
sufficiently different viewpoint and too few looked through it: belief rises with agreement, falls faster with free
space, and is clamped so that a changed world can change the map (Hornung et al. 2013, OctoMap, section 3.2).
What agrees is averaged along the ray; what is published is averaged by confidence over voxels.

The newest ``active`` keyframes keep their depth images and are compared with one another in both directions. Older
ones keep only the points that held, which newer keyframes still confirm or see through.

Without translation nothing is published: the viewpoints do not differ. And a flawless plane mirror that is always
predicted as the same room behind it looks like a window in the wall: its ghosts stay until a keyframe looks through
their place. Mirrors whose depth is guessed differently from view to view stay out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vggt_ros import camera
from vggt_ros.files.cloud import voxels
from vggt_ros.mapping.submap import BEND, POINT_FIELDS, Submap, arrangement, compare, make_submap, overlapping
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate

CROWDED = 4  # retired points a voxel, on average, from which they are made one
HEAVIEST = 64.0  # points of weight that one stands for at most: a world that changes a little can still move it


@dataclass(frozen=True)
class MapConfig:
    """How fine and how large the map is, and what it believes."""

    voxel: float = 0.0  # edge length in map units; 0 = 2 % of the first keyframe's median depth
    budget: int = 1_000_000  # most points kept of retired keyframes, and most voxels published
    samples: int = 10_000  # most points taken from one keyframe
    active: int = 16  # keyframes that keep their depth images
    submaps: int = 256  # most retired keyframes that keep a pose of their own
    compared: int = 16  # most retired keyframes that a new one is compared with
    min_confidence: float = 0.1  # pixels below it neither make points nor testify
    parallax: float = 1.5  # degrees between two viewing rays from which the viewpoints count as different
    views: int = 2  # viewpoints that must agree on a point before it is published

    def __post_init__(self) -> None:
        for name in ('budget', 'samples', 'active', 'submaps', 'compared', 'views'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, not {getattr(self, name)}')
        if not 0 <= self.voxel < np.inf:
            raise ValueError(f'voxel must be a length, or 0 to choose it, not {self.voxel}')


@dataclass(frozen=True, eq=False)
class MapCloud:
    """N voxels. xyz: (N, 3) float32 map units. rgb: (N, 3) uint8. confidence: (N,) float32 in [0, 1)."""

    xyz: np.ndarray
    rgb: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


class VoxelMap:
    """See the module. Bounded in memory and in time per keyframe; not thread-safe.

    When there are several retired points for each voxel, or more than the budget, they are reduced to one a voxel;
    when that is not enough, whole submaps go, the farthest from the newest camera first. Beyond ``submaps`` retired
    keyframes the one with the fewest points hands them to its nearest neighbour and follows that one's corrections
    from then on.
    ``version`` changes with the map. ``full`` becomes True when something was dropped, and stays so until ``clear``.
    """

    def __init__(self, config: MapConfig | None = None) -> None:
        self.config = config or MapConfig()
        self.version = 0
        self.epoch: int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._active: deque[Submap] = deque()
        self._retired: list[Submap] = []
        self.voxel = self.config.voxel
        self.full = False
        self._told = False
        self._sparse = 0  # retired points when they were last one a voxel
        self.version += 1

    def begin(self, epoch: int) -> None:
        """Forget everything of another epoch."""
        if epoch != self.epoch and self.submaps:
            self.clear()
        self.epoch = epoch

    @property
    def submaps(self) -> list[Submap]:
        return [*self._retired, *self._active]

    def __len__(self) -> int:
        """Points held, published or not."""
        return sum(len(submap.points) for submap in self.submaps)

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return sum(submap.nbytes for submap in self.submaps)

    def notice(self) -> str | None:
        """What a person should hear about the budget: once after it was reached, else None."""
        if not self.full or self._told:
            return None
        self._told = True
        return (
            f'the map has reached its budget of {self.config.budget} points: from now on it forgets what lies farthest'
            ' from the camera; raise the budget or the voxel size to keep more'
        )

    def tune(self, min_confidence: float) -> None:
        """Another bound for the keyframes to come, see the configuration."""
        self.config = replace(self.config, min_confidence=min_confidence)

    def add(self, keyframe: Estimate) -> int:
        """Take a keyframe in; the number of points taken. One with a known index takes the place of the old one.

        An estimate of another epoch begins a new map. Raises ValueError when pose, K or sizes make no sense.
        """
        self.begin(keyframe.epoch)
        submap = make_submap(keyframe, self.config.samples, self.config.min_confidence)
        if submap is None:
            return 0
        self._active = deque(one for one in self._active if one.index != submap.index)
        self._retired = [one for one in self._retired if one.index != submap.index]
        if not self.voxel:
            self.voxel = 0.02 * submap.median
        for other in overlapping(submap, list(self._active), len(self._active)):
            compare(other, submap, self.config.parallax)
            compare(submap, other, self.config.parallax)
        for other in overlapping(submap, self._retired, self.config.compared):
            compare(other, submap, self.config.parallax)
        self._active.append(submap)
        while len(self._active) > self.config.active:
            self._retire(self._active.popleft())
        self.version += 1
        return len(submap.points)

    def correct(self, corrections: Mapping[int, Similarity]) -> None:
        """Move keyframes, by ``Frame.index``: x -> similarity x, from where the map had it to where it shall be.

        Keyframes that are not (or no longer) here are passed over. Where keyframes moved against one another, what
        they said about one another is forgotten: the active ones are compared anew, of the retired ones' points only
        those come back that a later keyframe confirms. A voxel size that was chosen here is scaled with the map.
        """
        moving = [submap for submap in self.submaps if submap.index in corrections]
        for submap in moving:
            moved = corrections[submap.index]
            if problem := moved.problem():
                raise ValueError(f'the correction of keyframe {submap.index} {problem}')
        if not moving:
            return
        before = arrangement(self.submaps)
        for submap in moving:
            moved = corrections[submap.index]
            submap.T = moved.pose(submap.T)
            submap.scale *= moved.scale
        if not self.config.voxel:
            self.voxel *= float(np.median([corrections[submap.index].scale for submap in moving]))
        bent = np.linalg.norm(arrangement(self.submaps) - before, axis=1) > BEND
        for submap in [one for one, is_bent in zip(self._retired, bent, strict=False) if is_bent]:
            submap.belief = np.maximum(submap.belief, 0)
        if bent[len(self._retired) :].any():
            self._compare_anew()
        self.version += 1

    def cloud(self) -> MapCloud:
        """What is believed, one point a voxel, position and colour averaged by confidence / distance^2."""
        xyz, rgb, confidence, weight, _ = self._believed(self.submaps)
        if not len(xyz):
            return MapCloud(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32))
        cell = voxels(xyz, self.voxel)
        total = np.bincount(cell, weight)
        mean = [np.bincount(cell, weight * column) / total for column in (*xyz.T, *rgb.T, confidence)]
        if len(total) > self.config.budget:
            keep = np.argpartition(-total, self.config.budget)[: self.config.budget]
            mean = [column[keep] for column in mean]
            self.full = True
        columns = np.stack(mean, axis=1)
        return MapCloud(
            columns[:, :3].astype(np.float32),
            columns[:, 3:6].round().astype(np.uint8),
            columns[:, 6].astype(np.float32),
        )

    def _compare_anew(self) -> None:
        order = list(self._active)
        for number, submap in enumerate(order):
            submap.clear_evidence()
            for other in overlapping(submap, order[:number], number):
                compare(other, submap, self.config.parallax)
                compare(submap, other, self.config.parallax)

    def _retire(self, submap: Submap) -> None:
        submap.depth = submap.weight = submap.cell = None
        submap.select(submap.belief >= self.config.views - 1)
        submap.place(submap.fused())
        if len(submap.points):
            self._retired.append(submap)
        # A place that is seen for ever must not cost more with every look.
        most = min(self.config.budget, CROWDED * max(self._sparse, self.config.samples))
        if sum(len(one.points) for one in self._retired) > most:
            self._shrink()
        while len(self._retired) > self.config.submaps:
            self._hand_over(min(self._retired, key=lambda one: len(one.points)))

    def _shrink(self) -> None:
        """Retired points to one a voxel and at most nine tenths of the budget: it is long before the next time."""
        xyz, rgb, _, weight, count = self._believed(self._retired)
        if not len(xyz):
            self._retired = []
            return
        cell = voxels(xyz, self.voxel)
        total = np.bincount(cell, weight)
        mean = np.stack([np.bincount(cell, weight * x) / total for x in (*xyz.T, *rgb.T)], 1)
        mass = total[cell] / np.maximum(weight, np.finfo(np.float32).tiny)  # so that the next mean is that of all
        best = np.empty(len(total), np.int64)
        order = np.argsort(weight)
        best[cell[order]] = order  # the last one written is the heaviest
        chosen = np.zeros(len(cell), bool)
        chosen[best] = True
        end = np.cumsum(count)
        for submap, mine in zip(self._retired, map(slice, end - count, end), strict=True):
            submap.select(submap.belief >= self.config.views - 1)
            submap.select(chosen[mine])
            values = mean[cell[mine][chosen[mine]]]
            submap.place(camera.transform(np.linalg.inv(submap.matrix()), values[:, :3]))
            submap.rgb = values[:, 3:].round().astype(np.uint8)
            submap.mass = np.minimum(submap.mass * mass[mine][chosen[mine]], HEAVIEST).astype(np.float32)
        here = self._active[-1].T[:3, 3] if self._active else self._retired[-1].T[:3, 3]
        self._retired.sort(key=lambda one: -float(np.linalg.norm(one.T[:3, 3] - here)))
        left = sum(len(one.points) for one in self._retired)
        while left > 0.9 * self.config.budget:
            left -= len(self._retired.pop(0).points)
            self.full = True
        self._retired = [one for one in self._retired if len(one.points)]
        self._sparse = sum(len(one.points) for one in self._retired)

    def _hand_over(self, small: Submap) -> None:
        self._retired.remove(small)
        nearest = min(self._retired, key=lambda one: float(np.linalg.norm(one.T[:3, 3] - small.T[:3, 3])))
        M = np.linalg.solve(nearest.matrix(), small.matrix())
        small.place(camera.transform(M, small.fused()))
        for name in POINT_FIELDS:
            setattr(nearest, name, np.concatenate([getattr(nearest, name), getattr(small, name)]))

    def _believed(self, submaps: list[Submap]) -> tuple[np.ndarray, ...]:
        """Believed points: xyz (N, 3) in the map, rgb (N, 3), confidence and weight (N,), how many of each submap."""
        parts = []
        for submap in submaps:
            chosen = submap.belief >= self.config.views - 1
            points, confidence = submap.fused()[chosen], submap.confidence[chosen]
            distance = np.maximum(submap.scale * np.linalg.norm(points, axis=1), self.voxel)
            weight = submap.mass[chosen] * confidence / distance**2
            count = np.array([len(points)])
            parts.append((camera.transform(submap.matrix(), points), submap.rgb[chosen], confidence, weight, count))
        if not parts:
            return np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0), np.empty(0, np.int32)
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
