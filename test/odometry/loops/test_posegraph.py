"""The pose graph: exact where there is truth, and what false loops may and may not do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from vggt_ros.odometry.loops import posegraph
from vggt_ros.odometry.loops.posegraph import Edge, GtsamMissingError, PoseGraphError, optimise
from vggt_ros.odometry.windows.alignment import Similarity

needs_gtsam = pytest.mark.usefixtures('gtsam')


@pytest.fixture(scope='module')
def gtsam():
    return pytest.importorskip('gtsam')


def turn(rng: np.random.Generator, sigma: float) -> np.ndarray:
    return Rotation.from_rotvec(sigma * rng.normal(size=3)).as_matrix()


def ring(count: int, radius: float = 5.0) -> list[Similarity]:
    """Cameras on a circle that rises and falls, all of the same unit."""
    angles = 2 * np.pi * np.arange(count) / count
    return [
        Similarity(
            1.0,
            Rotation.from_euler('zx', [a, 0.2 * np.sin(2 * a)]).as_matrix(),
            np.array([radius * np.cos(a), radius * np.sin(a), 0.3 * np.sin(3 * a)]),
        )
        for a in angles
    ]


def drifting(truth, rng, rotation, translation, scale, bias=0.0):
    """What odometry makes of it: edges between neighbours, and the nodes chained from them."""
    nodes, edges = {0: truth[0]}, []
    for i in range(len(truth) - 1):
        noise = Similarity(
            float(np.exp(scale * rng.normal() + bias)), turn(rng, rotation), translation * rng.normal(size=3)
        )
        measured = truth[i].between(truth[i + 1]) @ noise
        edges.append(Edge(i, i + 1, measured, rotation, translation, max(scale, abs(bias), 1e-6)))
        nodes[i + 1] = nodes[i] @ measured
    return nodes, edges


def loop(truth, first, second, error=None, sigma=1.0, **options) -> Edge:
    measured = truth[first].between(truth[second])
    measured = measured if error is None else measured @ error
    return Edge(first, second, measured, 0.005 * sigma, 0.02 * sigma, 0.01 * sigma, loop=True, **options)


def ate(nodes, truth) -> float:
    """Root mean square error of position, not aligned: the pinned pose is the true one."""
    return float(np.sqrt(np.mean([np.sum((nodes[i].t - one.t) ** 2) for i, one in enumerate(truth)])))


def apart(a: dict[int, Similarity], b: dict[int, Similarity]) -> float:
    """Largest difference of any number of the nodes."""
    return max(
        max(np.abs(a[i].R - b[i].R).max(), np.abs(a[i].t - b[i].t).max(), abs(a[i].scale - b[i].scale)) for i in a
    )


def optimum(nodes, edges, huber: float) -> tuple[dict[int, Similarity], float]:
    """The same problem solved by scipy: nothing of the code under test but the edges."""

    def logarithm(one: Similarity) -> np.ndarray:
        # [[s R, t], [0, 1]] = exp [[A, u], [0, 0]] with A = W + l I, t = V u and V = sum A^n / (n + 1)!; GTSAM's
        # [[R, t / s], [0, 1 / s]] = exp [[W, u], [0, -l]] is the same over s, with the same u.
        rotation = Rotation.from_matrix(one.R).as_rotvec()
        A = np.cross(np.eye(3), -rotation) + np.log(one.scale) * np.eye(3)
        V = term = np.eye(3)
        for n in range(2, 14):
            term = term @ A / n
            V = V + term
        return np.array([*rotation, *np.linalg.solve(V, one.t), np.log(one.scale)])

    first, *others = sorted(nodes)

    def unpack(x: np.ndarray) -> dict[int, Similarity]:
        result = {first: nodes[first]}
        for i, v in zip(others, x.reshape(-1, 7), strict=True):
            step = Similarity(float(np.exp(v[6])), Rotation.from_rotvec(v[:3]).as_matrix(), v[3:6])
            result[i] = nodes[i] @ step
        return result

    def residuals(x: np.ndarray) -> np.ndarray:
        at, out = unpack(x), []
        for edge in edges:
            r = logarithm(edge.measured.between(at[edge.first].between(at[edge.second])))
            r /= [edge.rotation_sigma] * 3 + [edge.translation_sigma] * 3 + [edge.scale_sigma]
            norm = np.linalg.norm(r)
            if edge.loop and norm > huber:
                r *= np.sqrt(2 * huber * norm - huber**2) / norm
            out.append(r)
        return np.concatenate(out)

    solution = least_squares(residuals, np.zeros(7 * len(others)), method='lm', xtol=1e-12, ftol=1e-14)
    return unpack(solution.x), float(solution.cost)


@needs_gtsam
@pytest.mark.parametrize('fixed_scale', [False, True])
def test_consistent_edges_restore_the_truth_from_anywhere(fixed_scale):
    rng, truth = np.random.default_rng(1), ring(12)
    units = np.ones(12) if fixed_scale else np.exp(0.3 * rng.normal(size=12))
    truth = [Similarity(float(u), one.R, one.t) for u, one in zip(units, truth, strict=True)]
    edges = [Edge(i, i + 1, truth[i].between(truth[i + 1]), 0.01, 0.02) for i in range(11)]
    edges.append(loop(truth, 0, 11))
    wild = {
        i: Similarity(
            1.0 if fixed_scale or not i else float(one.scale * np.exp(0.1 * rng.normal())),
            one.R @ turn(rng, 0.1 if i else 0.0),
            one.t + (0.3 * rng.normal(size=3) if i else 0),
        )
        for i, one in enumerate(truth)
    }
    wild[0] = truth[0]
    result = optimise(wild, edges, fixed_scale=fixed_scale)
    assert apart(result.nodes, dict(enumerate(truth))) < 1e-6
    assert result.error < 1e-9 < 1 < result.error_before
    assert result.residuals.max() < 1e-4


@needs_gtsam
def test_one_true_loop_takes_the_drift_out_of_a_ring():
    """Error and scale at the end, over 8 rings of 100 keyframes whose unit drifts by a fifth."""
    before, after, scales = [], [], []
    for seed in range(8):
        truth = ring(100)
        nodes, edges = drifting(truth, np.random.default_rng(seed), 0.001, 0.004, 0.002, bias=0.002)
        result = optimise(nodes, [*edges, loop(truth, 0, 99)])
        before.append(ate(nodes, truth))
        after.append(ate(result.nodes, truth))
        scales.append((nodes[99].scale, result.nodes[99].scale))
    assert np.median(before) / np.median(after) > 5
    assert np.all(np.array(before) > 3 * np.array(after))
    assert np.abs(np.log(np.array(scales)[:, 0])).min() > 0.15
    assert np.abs(np.log(np.array(scales)[:, 1])).max() < 0.045


@needs_gtsam
def test_a_drift_of_scale_by_forty_does_not_end_in_a_poor_minimum():
    truth = ring(400)
    nodes, edges = drifting(truth, np.random.default_rng(0), 0.003, 0.01, 0.01, bias=0.01)
    assert nodes[399].scale > 40
    result = optimise(nodes, [*edges, loop(truth, 0, 399)])
    assert ate(nodes, truth) > 50
    assert ate(result.nodes, truth) < 0.5
    assert result.nodes[399].scale == pytest.approx(1, abs=0.02)


@needs_gtsam
@pytest.mark.parametrize('seed', range(4))
def test_one_false_loop_is_outvoted_by_true_ones(seed):
    truth = ring(60)
    nodes, edges = drifting(truth, np.random.default_rng(seed), 0.002, 0.01, 0.003)
    true = [loop(truth, i, 59 - i) for i in range(3)]
    # Half way round, taken for the first keyframe: 10 m wrong.
    false = loop(truth, 0, 30, error=truth[0].between(truth[30]).inverse())
    good = optimise(nodes, [*edges, *true])
    robust = optimise(nodes, [*edges, *true, false])
    squares = optimise(nodes, [*edges, *true, false], huber=1e9)
    assert ate(good.nodes, truth) < 0.12
    assert ate(robust.nodes, truth) < 0.6
    assert ate(squares.nodes, truth) > 6
    # It shows, so that it can be left out.
    assert robust.residuals[-1] > 100 * robust.residuals[:-1].max()


@needs_gtsam
@pytest.mark.parametrize('fixed_scale', [False, True])
def test_the_pinned_pose_stays_bit_for_bit_in_place(fixed_scale):
    truth = ring(20)
    nodes, edges = drifting(truth, np.random.default_rng(2), 0.01, 0.05, 0.0 if fixed_scale else 0.02)
    edges.append(loop(truth, 0, 19))
    for pinned in (None, 7):
        result = optimise(nodes, edges, fixed_scale=fixed_scale, pinned=pinned)
        kept = 0 if pinned is None else pinned
        assert apart({0: nodes[kept]}, {0: result.nodes[kept]}) < 1e-15
        assert apart(nodes, result.nodes) > 0.01


@needs_gtsam
def test_the_gauge_is_free():
    """The whole graph in another frame and unit: the same correction there."""
    rng, truth = np.random.default_rng(3), ring(20)
    nodes, edges = drifting(truth, rng, 0.003, 0.02, 0.005)
    edges.append(loop(truth, 0, 19))
    gauge = Similarity(3.0, turn(rng, 1.0), 10 * rng.normal(size=3))
    plain = optimise(nodes, edges).nodes
    moved = optimise({i: gauge @ node for i, node in nodes.items()}, edges).nodes
    assert apart(moved, {i: gauge @ node for i, node in plain.items()}) < 1e-6


@needs_gtsam
def test_sigmas_decide_who_gives_way():
    """Two edges between the same keyframes: the result lies between them as their weights say."""
    a, b = (Similarity(s, np.eye(3), np.array([x, 0.0, 0.0])) for s, x in ((1.0, 1.0), (1.0, 1.3)))
    start = dict.fromkeys((0, 1), Similarity.identity())
    for sigma, x in ((1.0, 1.15), (2.0, 1.06), (0.5, 1.24)):
        edges = [Edge(0, 1, a, 0.1, 0.1, 0.1), Edge(0, 1, b, 0.1, 0.1 * sigma, 0.1)]
        assert optimise(start, edges).nodes[1].t[0] == pytest.approx(x, abs=1e-9)
    # All sigmas times a common factor change nothing but the error.
    truth = ring(15)
    nodes, edges = drifting(truth, np.random.default_rng(4), 0.003, 0.01, 0.003)
    edges.append(loop(truth, 0, 14))
    coarse = [
        Edge(e.first, e.second, e.measured, 3 * e.rotation_sigma, 3 * e.translation_sigma, 3 * e.scale_sigma, e.loop)
        for e in edges
    ]
    fine_result, coarse_result = optimise(nodes, edges, huber=1e9), optimise(nodes, coarse, huber=1e9)
    assert apart(fine_result.nodes, coarse_result.nodes) < 1e-6
    assert fine_result.error == pytest.approx(9 * coarse_result.error, rel=1e-6)
    # A stiff scale sends the correction elsewhere than a soft one.
    soft = [Edge(e.first, e.second, e.measured, 0.003, 0.01, 0.03) for e in edges[:-1]]
    stiff = [Edge(e.first, e.second, e.measured, 0.003, 0.01, 1e-6) for e in edges[:-1]]
    ends = [optimise(nodes, [*one, edges[-1]]).nodes[14].scale for one in (soft, stiff)]
    assert abs(np.log(ends[0])) < abs(np.log(ends[1]))
    assert ends[1] == pytest.approx(nodes[14].scale, abs=1e-3)


@needs_gtsam
def test_fixed_scale_keeps_every_scale_one_and_takes_the_drift_out():
    truth = ring(100)
    nodes, edges = drifting(truth, np.random.default_rng(5), 0.003, 0.01, 0.0)
    result = optimise(nodes, [*edges, loop(truth, 0, 99)], fixed_scale=True)
    assert {node.scale for node in result.nodes.values()} == {1.0}
    assert ate(result.nodes, truth) < 0.5 * ate(nodes, truth)
    with pytest.raises(PoseGraphError, match=r'edge 0 - 99 has scale 1\.02'):
        optimise(nodes, [*edges, loop(truth, 0, 99, Similarity(1.02, np.eye(3), np.zeros(3)))], fixed_scale=True)


@needs_gtsam
@pytest.mark.parametrize('false', [False, True])
def test_it_is_the_optimum_that_scipy_finds(false):
    """Residuals of thousandths: the same to 2e-6, with a loop on Huber's linear branch too."""
    truth = ring(5, radius=1.0)
    nodes, edges = drifting(truth, np.random.default_rng(6), 0.001, 0.001, 0.001)
    edges.append(loop(truth, 0, 4, sigma=0.1))
    if false:
        error = Similarity(1.004, Rotation.from_rotvec([0.004, 0, 0]).as_matrix(), np.array([0.0, 0.006, 0.0]))
        edges.append(loop(truth, 1, 3, error, sigma=0.1))
    result = optimise(nodes, edges, huber=2.0)
    expected, cost = optimum(nodes, edges, huber=2.0)
    assert apart(nodes, expected) > 1e-4
    assert apart(result.nodes, expected) < 2e-6
    assert result.error == pytest.approx(cost, rel=1e-6)
    assert (result.residuals[-1] > 2) == false


@needs_gtsam
def test_residuals_of_hundredths_are_near_the_optimum():
    truth = ring(5, radius=1.0)
    nodes, edges = drifting(truth, np.random.default_rng(7), 0.02, 0.03, 0.03)
    edges.append(loop(truth, 0, 4))
    expected, cost = optimum(nodes, edges, huber=3.75)
    result = optimise(nodes, edges, huber=3.75)
    assert apart(nodes, expected) > 0.02
    assert apart(result.nodes, expected) < 5e-4
    assert cost <= result.error < cost * 1.0001


@needs_gtsam
def test_graphs_without_a_unique_answer_are_refused():
    truth = ring(4)
    nodes, edges = drifting(truth, np.random.default_rng(0), 0.01, 0.01, 0.01)
    with pytest.raises(PoseGraphError, match='no nodes'):
        optimise({}, [])
    with pytest.raises(PoseGraphError, match='pinned keyframe 9'):
        optimise(nodes, edges, pinned=9)
    with pytest.raises(PoseGraphError, match=r'leads from keyframe 0 to \[3\]'):
        optimise(nodes, edges[:-1])
    with pytest.raises(PoseGraphError, match='2 is not among the nodes'):
        optimise({i: nodes[i] for i in (0, 1, 3)}, edges)
    with pytest.raises(PoseGraphError, match='401 nodes are more than 400'):
        optimise(dict.fromkeys(range(401), Similarity.identity()), edges)
    with pytest.raises(PoseGraphError, match='node 1 is not finite'):
        optimise({**nodes, 1: Similarity.rigid(np.full((4, 4), np.nan))}, edges)
    with pytest.raises(PoseGraphError, match='node 1 has no rotation'):
        optimise({**nodes, 1: Similarity.rigid(np.diag([2.0, 2, 2, 1]))}, edges)
    with pytest.raises(PoseGraphError, match='rotation_sigma must be positive'):
        Edge(0, 1, truth[0], 0.0, 0.1)
    with pytest.raises(PoseGraphError, match='with itself'):
        Edge(1, 1, truth[0], 0.1, 0.1)


def test_without_gtsam_it_says_what_to_install(monkeypatch):
    nodes, edges = drifting(ring(3), np.random.default_rng(0), 0.01, 0.01, 0.01)

    def old(name):
        return '4.2.0'

    monkeypatch.setitem(sys.modules, 'gtsam', None)
    with pytest.raises(GtsamMissingError, match=r'pip install .gtsam>=4\.3'):
        optimise(nodes, edges)
    monkeypatch.undo()
    monkeypatch.setattr(posegraph, 'version', old)
    with pytest.raises(GtsamMissingError, match=r'4\.2\.0 is too old'):
        optimise(nodes, edges)


@needs_gtsam
def test_a_pre_release_is_not_too_old(monkeypatch, gtsam):
    monkeypatch.setattr(posegraph, 'version', lambda name: '4.3a1')
    assert posegraph.require_gtsam() is gtsam
