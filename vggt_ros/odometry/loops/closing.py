"""Closing a loop: what it says is spread over the keyframes between, and the drift that may be expected of a way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.loops.posegraph import Edge, optimise
from vggt_ros.odometry.loops.verification import ROTATION_FLOOR, SCALE_FLOOR, TRANSLATION_FLOOR, drift_covariance
from vggt_ros.similarity import Similarity

LEAST = np.array([1e-8, 1e-8, 1e-8])  # variances of a step: nothing is known without any error


class Loops:
    """Pairs of keyframes that were found to be one place, by index; they hold the map together from then on."""

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._pairs)

    def forget(self, kept: Sequence[Keyframe]) -> None:
        """Drop the pairs whose keyframes the map has forgotten."""
        known = {keyframe.frame.index for keyframe in kept}
        self._pairs = [pair for pair in self._pairs if known.issuperset(pair)]

    def drift(self, keyframes: Sequence[Keyframe], start: int, T_query: np.ndarray, drift: np.ndarray) -> np.ndarray:
        """(7, 7) :func:`drift_covariance` from keyframe ``start`` (its index) to the query, on the surest way.

        keyframes: in the order of time. T_query: (4, 4); drift: (3,) as in :class:`Keyframe`, up to the query.
        """
        place = {keyframe.frame.index: number for number, keyframe in enumerate(keyframes)}
        way = np.stack([*(keyframe.drift for keyframe in keyframes), drift])
        steps = np.maximum(np.diff(way, axis=0), LEAST)
        ends = [(number, number + 1) for number in range(len(keyframes))]
        variances = list(steps)
        for first, second in self._pairs:
            ends.append((place[first], place[second]))
            depth = keyframes[place[first]].median_depth
            variances.append(np.square([ROTATION_FLOOR, TRANSLATION_FLOOR * depth, SCALE_FLOOR]))
        rows, columns = np.array(ends).T
        # What counts is how far the end is moved: by turns and stretches over the depth of a view, as well.
        depth = keyframes[place[start]].median_depth
        cost = np.array([one[1] + (one[0] + one[2]) * depth**2 for one in variances])
        graph = coo_array((cost, (rows, columns)), shape=(len(way), len(way)))
        _, before = dijkstra(graph, directed=False, indices=place[start], return_predecessors=True)
        path = [len(way) - 1]
        while path[-1] != place[start]:
            path.append(int(before[path[-1]]))
        path.reverse()
        steps_of = {tuple(sorted(pair)): one for pair, one in zip(ends, variances, strict=True)}
        sigmas = np.sqrt([steps_of[tuple(sorted(pair))] for pair in pairwise(path)])
        poses = [keyframe.T_map_camera for keyframe in keyframes] + [T_query]
        return drift_covariance(np.stack([poses[number] for number in path]), *sigmas.T)

    def gain(self, keyframes: Sequence[Keyframe], start: int, T_query: np.ndarray, drift: np.ndarray) -> float:
        """Largest variance of :meth:`drift` in any direction, in variances of a loop between the two."""
        depth = next(one.median_depth for one in keyframes if one.frame.index == start)
        sigma = np.repeat([ROTATION_FLOOR, TRANSLATION_FLOOR * depth, SCALE_FLOOR], (3, 3, 1))
        covariance = self.drift(keyframes, start, T_query, drift) / np.outer(sigma, sigma)
        return float(np.linalg.eigvalsh(covariance)[-1])

    def close(
        self, keyframes: Sequence[Keyframe], first: int, second: int, correction: Similarity, fixed_scale: bool
    ) -> Mapping[int, Similarity]:
        """Move the keyframes so that ``second`` stands where ``correction`` puts it; how each one's world was moved.

        keyframes: in the order of time; the oldest stays where it is. first, second: the indices of the place as it was
        known and as it was met again. The way between neighbours, and loops that were closed before, are held as they
        are. Raises GtsamMissingError.
        """
        indices = [keyframe.frame.index for keyframe in keyframes]
        at = dict(zip(indices, keyframes, strict=True))
        edges = [_edge(a, b, np.sqrt(np.maximum(b.drift - a.drift, LEAST))) for a, b in pairwise(keyframes)]
        sigmas = [np.array([ROTATION_FLOOR, TRANSLATION_FLOOR * at[one].median_depth, SCALE_FLOOR]) for one in indices]
        sigma = dict(zip(indices, sigmas, strict=True))
        nodes = {index: Similarity.rigid(at[index].T_map_camera) for index in indices}
        edges += [_edge(at[a], at[b], sigma[a], loop=True) for a, b in self._pairs]
        met = correction @ Similarity.rigid(at[second].T_map_camera)
        if fixed_scale:
            met = Similarity(1.0, met.R, met.t)
        edges.append(_measured(first, second, nodes[first].between(met), sigma[first], loop=True))
        found = optimise(nodes, edges, fixed_scale=fixed_scale, pinned=indices[0])
        self._pairs.append((first, second))
        return {index: node @ nodes[index].inverse() for index, node in found.nodes.items()}


def _edge(a: Keyframe, b: Keyframe, sigma: np.ndarray, loop: bool = False) -> Edge:
    measured = Similarity.rigid(a.T_map_camera).between(Similarity.rigid(b.T_map_camera))
    return _measured(a.frame.index, b.frame.index, measured, sigma, loop)


def _measured(first: int, second: int, measured: Similarity, sigma: np.ndarray, loop: bool) -> Edge:
    rotation, translation, scale = map(float, sigma)
    return Edge(first, second, measured, rotation, translation, scale, loop)
