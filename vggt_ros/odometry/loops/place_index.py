"""Have I been here before? Candidates for loops and for relocalisation, from descriptors of keyframes.

The descriptors are mean-pooled backbone tokens, which the network computes anyway. They only propose: a candidate joins
the next window as an anchor, and :mod:`vggt_ros.odometry.loops.verification` decides.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

LEARN_FROM = 100  # the latest similarities of neighbours that the threshold is learnt from
LEARN_AT_LEAST = 10


class DescriptorError(ValueError):
    """A descriptor that cannot be compared with the others."""


@dataclass(frozen=True)
class LoopConfig:
    """What counts as a place seen before."""

    capacity: int = 400  # keyframes remembered
    # keyframes this far apart in time still share much of their view; a candidate has to be as like as they are
    reach: int = 3
    recent: int = 10  # the latest keyframes that are never candidates
    # least keyframes since the candidate that must have been unlike the query: the camera has left the place
    away: int = 5
    suppress: int = 5  # around a candidate this many keyframes before and after are the same place
    # queries in a row that must find the place; they may move on by ``suppress`` keyframes each, and miss it once
    hits: int = 3

    def __post_init__(self) -> None:
        for name, least in (('capacity', 2), ('reach', 1), ('recent', 1), ('away', 0), ('suppress', 0), ('hits', 1)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} must be at least {least}, but is {getattr(self, name)}')


@dataclass(frozen=True)
class Candidate:
    """A keyframe that looks like the query.

    similarity: cosine. hits: queries in a row that have found this place, this one included. rivals: other places that
    look as much like it, best first: see :class:`vggt_ros.odometry.loops.verification.Evidence`.
    """

    index: int
    similarity: float
    hits: int
    rivals: tuple[int, ...]


class PlaceIndex:
    """Descriptors of keyframes in the order of time, and which of them look alike.

    Mean-pooled tokens of all views of one building are alike, so no fixed threshold parts same from other places. The
    threshold is the median similarity of keyframes that lie ``reach`` apart in time, over the latest LEARN_FROM of
    them: such views are known to share surface, whatever the network and the building. (DBoW2 normalises by the
    similarity to the previous image for the same reason, Galvez-Lopez and Tardos 2012.) Below LEARN_AT_LEAST there are
    no candidates.
    """

    def __init__(self, config: LoopConfig | None = None) -> None:
        self.config = config or LoopConfig()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._indices: list[int] = []
        self._times: list[int] = []  # running number of the keyframe
        self._descriptors = np.zeros((0, 0), np.float32)
        self._count = 0
        self._neighbours: deque[float] = deque(maxlen=LEARN_FROM)
        self._chains: list[tuple[int, int, int]] = []  # running number found, hits, queries since

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def indices(self) -> tuple[int, ...]:
        """The keyframes that are remembered, in the order of time."""
        return tuple(self._indices)

    @property
    def threshold(self) -> float | None:
        """The cosine from which a keyframe is a candidate; None while it is unknown."""
        return float(np.median(self._neighbours)) if len(self._neighbours) >= LEARN_AT_LEAST else None

    def add(self, index: int, descriptor: np.ndarray) -> tuple[Candidate, ...]:
        """Remember a keyframe; the places where it may have been before, found often enough, best first.

        index: unique. descriptor: (C,) L2-normalised. When the index is full, the keyframe that is most like the one
        before it is forgotten: the place stays known by its neighbour.
        """
        descriptor = self._checked(descriptor)
        if index in self._indices:
            raise ValueError(f'keyframe {index} is in the index already')
        similarity = self._similarity(descriptor)
        if len(similarity) >= self.config.reach:
            self._neighbours.append(float(similarity[-self.config.reach]))
        candidates = self._candidates(similarity)
        self._indices.append(index)
        self._times.append(self._count)
        self._count += 1
        self._descriptors = np.concatenate([self._descriptors.reshape(-1, len(descriptor)), descriptor[None]])
        if len(self._indices) > self.config.capacity:
            old = self._descriptors[: -self.config.recent] if len(self) > self.config.recent + 1 else self._descriptors
            redundancy = np.sum(old[1:] * old[:-1], axis=1)
            self.remove(self._indices[1 + int(np.argmax(redundancy))])
        return candidates

    def remove(self, index: int) -> None:
        """Forget one keyframe, because the map has; unknown ones are ignored."""
        if index in self._indices:
            place = self._indices.index(index)
            del self._indices[place], self._times[place]
            self._descriptors = np.delete(self._descriptors, place, axis=0)

    def relocalise(self, descriptor: np.ndarray, count: int = 3) -> tuple[Candidate, ...]:
        """The ``count`` most alike places, best first, recent ones and unlikely ones too: for a camera that is lost."""
        similarity = self._similarity(self._checked(descriptor))
        best = self._suppressed(similarity, np.arange(len(similarity)))[:count]
        found = [self._indices[place] for place in best]
        alike = [place for place in best if similarity[place] >= self._least]
        rivals = [self._indices[place] for place in alike]
        return tuple(
            Candidate(index, float(similarity[place]), 1, tuple(one for one in rivals if one != index))
            for index, place in zip(found, best, strict=True)
        )

    def alike(self, descriptor: np.ndarray) -> tuple[int, ...]:
        """The best keyframe of every place that looks like this one as much as its own neighbours would."""
        similarity = self._similarity(self._checked(descriptor))
        if not self._neighbours:
            return ()  # nobody knows what neighbours look like
        places = self._suppressed(similarity, np.flatnonzero(similarity >= self._least))
        return tuple(self._indices[place] for place in places)

    @property
    def _least(self) -> float:
        """The threshold, or with few keyframes what is known of neighbours so far: it says what is not alike."""
        return float(np.median(self._neighbours)) if self._neighbours else -1.0

    def _candidates(self, similarity: np.ndarray) -> tuple[Candidate, ...]:
        config, threshold = self.config, self.threshold
        if threshold is None:
            return ()
        unlike_since = np.cumsum((similarity < threshold)[::-1])[::-1]
        times = np.array(self._times)
        eligible = (
            (similarity >= threshold) & (unlike_since >= config.away) & (times <= self._count - 1 - config.recent)
        )
        places = self._suppressed(similarity, np.flatnonzero(eligible))
        chains = []
        for place in places:
            met = [hits for time, hits, _ in self._chains if abs(time - times[place]) <= max(config.suppress, 1)]
            chains.append((int(times[place]), 1 + max(met, default=0), 0))
        continued = [time for time, _, _ in chains]
        waiting = [
            (time, hits, missed + 1)
            for time, hits, missed in self._chains
            if missed == 0 and all(abs(time - other) > max(config.suppress, 1) for other in continued)
        ]
        self._chains = chains + waiting
        found = [self._indices[place] for place in places]
        return tuple(
            Candidate(index, float(similarity[place]), hits, tuple(one for one in found if one != index))
            for index, place, (_, hits, _) in zip(found, places, chains, strict=True)
            if hits >= config.hits
        )

    def _suppressed(self, similarity: np.ndarray, places: np.ndarray) -> list[int]:
        """The best of each place: greedy non-maximum suppression in time."""
        kept: list[int] = []
        for place in places[np.argsort(-similarity[places], kind='stable')]:
            if all(abs(self._times[place] - self._times[other]) > self.config.suppress for other in kept):
                kept.append(int(place))
        return kept

    def _similarity(self, descriptor: np.ndarray) -> np.ndarray:
        return self._descriptors @ descriptor if len(self) else np.zeros(0, np.float32)

    def _checked(self, descriptor: np.ndarray) -> np.ndarray:
        descriptor = np.asarray(descriptor, np.float32)
        if descriptor.ndim != 1 or (len(self) and len(descriptor) != self._descriptors.shape[1]):
            raise DescriptorError(f'a descriptor of shape {descriptor.shape} cannot be compared with the others')
        if not abs(float(np.linalg.norm(descriptor)) - 1) < 1e-3:
            raise DescriptorError('a descriptor must be finite and of length 1')
        return descriptor
