"""Sim(3) pose graph over keyframes: what a loop says is spread over the way that it closes.

A node is the Similarity that takes a keyframe's own coordinates (its camera's axes, lengths in the unit in which its
depth was first stored) to the map. Odometry says that neighbours have the same unit; a loop that was seen by one window
says how the unit has drifted since. With a metric source it cannot drift, the scale is fixed and the graph is SE(3).

Run it on loops only: 400 keyframes take 0.1 to 0.3 s. How to apply the result: the keyframe's pose becomes the rigid
part of its node and its stored depth is multiplied by the change of the node's scale; the change of the newest
keyframe's pose is the step of map -> odom, and its scale the new unit of what follows. Keep the nodes with their
scales for the next run: edges stay as they were measured, in the units of the keyframes' making.

Optimisation: GTSAM's Levenberg-Marquardt. Loop edges carry Huber's loss and not a redescending one: with the tight
scale of odometry Cauchy's takes a true loop over a long way for an outlier and leaves the drift. GTSAM's between
factors leave the derivative of the logarithm out, so the optimum is exact to second order in the residuals: 1e-7 of
the map for residuals of a thousandth, 1e-4 for a few hundredths; far below the noise in either case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from vggt_ros.similarity import Similarity

MAX_NODES = 400
MAX_ITERATIONS = 100
INSTALL = "pip install 'gtsam>=4.3a1,<4.4'"


class PoseGraphError(ValueError):
    """The graph has no unique solution, or is not one."""


class GtsamMissingError(RuntimeError):
    """The library of the pose graph is absent or too old."""


@dataclass(frozen=True, eq=False)
class Edge:
    """One measurement between two keyframes.

    measured: takes the second keyframe's coordinates to the first's, lengths in the units of either.
    rotation_sigma: radians. translation_sigma: units of the second keyframe. scale_sigma: of the log of the scale.
    Each is the standard deviation per axis. loop: may be wrong, its pull is bounded by Huber's loss.
    """

    first: int
    second: int
    measured: Similarity
    rotation_sigma: float
    translation_sigma: float
    scale_sigma: float = 0.01
    loop: bool = False

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise PoseGraphError(f'an edge joins keyframe {self.first} with itself')
        for name in ('rotation_sigma', 'translation_sigma', 'scale_sigma'):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise PoseGraphError(f'{name} must be positive, but is {value}: nothing is known without any error')
        if problem := self.measured.problem():
            raise PoseGraphError(f'edge {self.first} - {self.second} {problem}')


@dataclass(frozen=True, eq=False)
class Optimised:
    """nodes: corrected, one for each that came in. residuals: (E,) for each edge, in their order, the norm of its
    residual in standard deviations: a loop far beyond the others is false. error: half the sum of their squares
    (Huber's loss for loops), before and after.
    """

    nodes: dict[int, Similarity]
    residuals: np.ndarray
    error_before: float
    error: float


def optimise(
    nodes: Mapping[int, Similarity],
    edges: Sequence[Edge],
    *,
    fixed_scale: bool = False,
    pinned: int | None = None,
    huber: float | None = None,
) -> Optimised:
    """The nodes that explain the edges best.

    nodes: keyframe index -> its similarity; the start of the search. Edges between neighbours in time and
    loops are alike but for ``Edge.loop``. fixed_scale: SE(3), every scale stays 1. pinned: the node that does not
    move, by default the one with the lowest index. huber: where a loop's loss becomes linear, in standard
    deviations of its whole residual; by default what 95 % of true loops stay below (3.75, with fixed scale 3.55).

    Raises PoseGraphError when there are more than MAX_NODES nodes, an edge names a keyframe that is not there, a node
    hangs on no chain of edges from the pinned one, something is not finite or, with fixed_scale, a scale is not 1.
    Raises GtsamMissingError when GTSAM is not installed.
    """
    pinned = min(nodes, default=None) if pinned is None else pinned
    _check(nodes, edges, pinned, fixed_scale)
    assert pinned is not None
    gtsam = require_gtsam()
    group = _Rigid(gtsam) if fixed_scale else _Scaled(gtsam)

    values = gtsam.Values()
    for index, node in nodes.items():
        values.insert(index, group.forth(node))
    huber = float(np.sqrt(chi2.ppf(0.95, 6 if fixed_scale else 7))) if huber is None else huber
    robust, squares = gtsam.NonlinearFactorGraph(), gtsam.NonlinearFactorGraph()
    for graph, k in ((robust, huber), (squares, None)):
        graph.push_back(group.pin(pinned, group.forth(nodes[pinned])))
        for edge in edges:
            graph.push_back(group.between(edge, _noise(gtsam, edge, k, fixed_scale)))

    result = _descend(gtsam, robust, values)
    residuals = _residuals(robust, result, edges, fixed_scale)
    if any(edge.loop and residual > huber for edge, residual in zip(edges, residuals, strict=True)):
        # Huber's pull is too weak to lead out of a poor minimum when the scale has drifted far; that of squares is not.
        other = _descend(gtsam, robust, _descend(gtsam, squares, values))
        if robust.error(other) < robust.error(result):
            result, residuals = other, _residuals(robust, other, edges, fixed_scale)
    return Optimised(
        nodes={index: group.back(result, index) for index in nodes},
        residuals=residuals,
        error_before=robust.error(values),
        error=robust.error(result),
    )


class _Scaled:
    """Sim(3). GTSAM acts x -> s (R x + t): its translation is ours over the scale."""

    def __init__(self, gtsam: ModuleType) -> None:
        self.gtsam = gtsam

    def forth(self, one: Similarity):
        return self.gtsam.Similarity3(one.R, one.t / one.scale, one.scale)

    def back(self, values, index: int) -> Similarity:
        one = values.atSimilarity3(index)
        return Similarity(one.scale(), one.rotation().matrix(), one.scale() * one.translation())

    def pin(self, index: int, value):
        return self.gtsam.NonlinearEqualitySimilarity3(index, value)

    def between(self, edge: Edge, noise):
        return self.gtsam.BetweenFactorSimilarity3(edge.first, edge.second, self.forth(edge.measured), noise)


class _Rigid:
    """SE(3)."""

    def __init__(self, gtsam: ModuleType) -> None:
        self.gtsam = gtsam

    def forth(self, one: Similarity):
        return self.gtsam.Pose3(self.gtsam.Rot3(one.R), one.t)

    def back(self, values, index: int) -> Similarity:
        one = values.atPose3(index)
        return Similarity(1.0, one.rotation().matrix(), np.array(one.translation()))

    def pin(self, index: int, value):
        return self.gtsam.NonlinearEqualityPose3(index, value)

    def between(self, edge: Edge, noise):
        return self.gtsam.BetweenFactorPose3(edge.first, edge.second, self.forth(edge.measured), noise)


def _descend(gtsam: ModuleType, graph, values):
    parameters = gtsam.LevenbergMarquardtParams()
    parameters.setMaxIterations(MAX_ITERATIONS)
    parameters.setRelativeErrorTol(1e-12)
    parameters.setAbsoluteErrorTol(1e-12)
    return gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()


def _residuals(graph, values, edges: Sequence[Edge], fixed_scale: bool) -> np.ndarray:
    """(E,) norms in standard deviations; factor 0 pins a node."""
    errors = (graph.at(number + 1).unwhitenedError(values) for number in range(len(edges)))
    return np.array([np.linalg.norm(e / _sigmas(edge, fixed_scale)) for e, edge in zip(errors, edges, strict=True)])


def _sigmas(edge: Edge, fixed_scale: bool) -> np.ndarray:
    """In GTSAM's order: rotation, translation, log scale."""
    rigid = [edge.rotation_sigma] * 3 + [edge.translation_sigma] * 3
    return np.array(rigid if fixed_scale else [*rigid, edge.scale_sigma])


def _noise(gtsam: ModuleType, edge: Edge, huber: float | None, fixed_scale: bool):
    noise = gtsam.noiseModel.Diagonal.Sigmas(_sigmas(edge, fixed_scale))
    if not edge.loop or huber is None:
        return noise
    return gtsam.noiseModel.Robust.Create(gtsam.noiseModel.mEstimator.Huber.Create(huber), noise)


def _check(nodes: Mapping[int, Similarity], edges: Sequence[Edge], pinned: int | None, fixed_scale: bool) -> None:
    if pinned is None:
        raise PoseGraphError('the pose graph has no nodes')
    for index, node in nodes.items():
        if problem := node.problem():
            raise PoseGraphError(f'node {index} {problem}')
    if pinned not in nodes:
        raise PoseGraphError(f'the pinned keyframe {pinned} is not among the nodes')
    if len(nodes) > MAX_NODES:
        raise PoseGraphError(f'{len(nodes)} nodes are more than {MAX_NODES}: leave some keyframes out')
    place = {index: number for number, index in enumerate(nodes)}
    for edge in edges:
        for index in (edge.first, edge.second):
            if index not in place:
                raise PoseGraphError(
                    f'an edge joins {edge.first} and {edge.second}, but {index} is not among the nodes'
                )
    if fixed_scale:
        scales = {f'node {index}': node.scale for index, node in nodes.items()}
        scales |= {f'edge {edge.first} - {edge.second}': edge.measured.scale for edge in edges}
        for name, scale in scales.items():
            if abs(scale - 1) > 1e-9:
                raise PoseGraphError(f'the scale is fixed, but {name} has scale {scale:.6g}')
    ends = np.array([[place[edge.first], place[edge.second]] for edge in edges]).reshape(-1, 2)
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(nodes), len(nodes)))
    _, label = connected_components(links, directed=False)
    alone = [index for index, number in place.items() if label[number] != label[place[pinned]]]
    if alone:
        raise PoseGraphError(
            f'no chain of edges leads from keyframe {pinned} to {alone[:5]}: their place is undetermined'
        )


def require_gtsam() -> ModuleType:
    """GTSAM, imported where it is needed; 4.2 has no graphs of Sim(3). Raises GtsamMissingError."""
    try:
        found = version('gtsam')
        if tuple(map(int, re.findall(r'\d+', found)[:2])) < (4, 3):  # 4.3a1 is the newest for Python 3.10
            raise GtsamMissingError(f'gtsam {found} is too old: {INSTALL}')
        import gtsam
    except (PackageNotFoundError, ImportError) as error:
        raise GtsamMissingError(f'the pose graph needs gtsam 4.3: {INSTALL}') from error
    return gtsam
