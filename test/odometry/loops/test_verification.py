"""Loop candidates and their verification: loops are found, and never a false one in a look-alike corridor."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert
from vggt_ros.odometry.loops.place_index import DescriptorError, LoopConfig, PlaceIndex
from vggt_ros.odometry.loops.verification import (
    DepthView,
    Evidence,
    LoopGates,
    LoopVerdict,
    LoopVerifier,
    conflict,
    drift_covariance,
    moved,
    objections,
)
from vggt_ros.odometry.windows.alignment import Alignment, Anchor, align
from vggt_ros.similarity import Similarity
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.sequence import default_intrinsics, frame_truths
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.synthetic.trajectory import CameraPath, look_along
from vggt_ros.types import Frame

SIZE = (112, 84)


def descriptors(places, common: float = 0.0, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """(N, 64) unit vectors of scalar places: near places alike, far ones not, all with a ``common`` part."""
    rng = np.random.default_rng(seed)
    frequencies, phases = 0.5 * np.random.default_rng(99).normal(size=64), np.linspace(0, 2 * np.pi, 64, endpoint=False)
    raw = np.cos(np.outer(places, frequencies) + phases) + common + noise * rng.normal(size=(len(places), 64))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def there_and_back(count: int = 60, step: float = 0.4) -> np.ndarray:
    """Out along a line, back the same way a little beside it."""
    out = step * np.arange(count)
    return np.concatenate([out, out[::-1] + 0.3 * step])


@pytest.mark.parametrize('common', [0.0, 3.0])
def test_candidates_are_the_places_seen_before(common):
    """Whatever share all views have in common: the threshold is learnt. Cosines of 0.9 mean nothing by themselves."""
    places = there_and_back()
    rows = descriptors(places, common)
    index, found = PlaceIndex(), {}
    for i, row in enumerate(rows):
        candidates = index.add(10 * i, row)
        if candidates:
            found[i] = candidates[0]
    assert min(found) > 60  # never on the way out
    for i, candidate in found.items():
        assert abs(places[candidate.index // 10] - places[i]) < 1.0
        assert candidate.hits >= 3
        assert candidate.rivals == ()
    # The way back is found as soon as it is no longer recent and was left, and three times.
    assert len(found) >= 40
    if common:
        assert (rows @ rows.T).min() > 0.85
        assert 0.98 < index.threshold < 1


@pytest.mark.parametrize('step', [0.02, 0.1, 0.5])
def test_a_way_that_never_comes_back_has_no_candidates(step):
    """However slowly: a place that is still in view after many keyframes is no loop."""
    index = PlaceIndex()
    assert not any(index.add(i, row) for i, row in enumerate(descriptors(step * np.arange(150))))


def test_a_place_is_a_candidate_only_when_it_is_found_three_times():
    config = LoopConfig(hits=3)
    path = 0.4 * np.arange(60)
    for visits, expected in ((2, False), (3, True)):
        index = PlaceIndex(config)
        for i, row in enumerate(descriptors(path)):
            assert not index.add(i, row)
        back = descriptors(path[20 : 20 + visits], seed=1)
        answers = [index.add(100 + i, row) for i, row in enumerate(back)]
        assert bool(answers[-1]) == expected
        assert not any(answers[:2])
        if expected:
            assert abs(answers[-1][0].index - 22) <= 1
    # One miss between the hits is forgiven, two are not; and hits on different places do not add up.
    for middle, expected in (([500.0], True), ([500.0, 700.0], False)):
        index = PlaceIndex(config)
        for i, row in enumerate(descriptors(path)):
            index.add(i, row)
        answers = [
            index.add(100 + i, row)
            for i, row in enumerate(descriptors([path[20], path[21], *middle, path[22]], seed=1))
        ]
        assert bool(answers[-1]) == expected
    index = PlaceIndex(config)
    for i, row in enumerate(descriptors(path)):
        index.add(i, row)
    assert not any(index.add(100 + i, row) for i, row in enumerate(descriptors(path[[5, 40, 15]], seed=1)))


def test_look_alike_places_are_each_others_rivals():
    bays = np.concatenate([0.4 * np.arange(30) + start for start in (0.0, 0.0)])  # the second looks like the first
    gap = 1000 + 0.4 * np.arange(20)
    index = PlaceIndex()
    for i, row in enumerate(descriptors(np.concatenate([bays[:30], gap, bays[30:], gap + 100]))):
        index.add(i, row)
    for i, row in enumerate(descriptors(bays[10:16], seed=1)):
        candidates = index.add(200 + i, row)
    first, second = sorted(candidates, key=lambda one: one.index)
    assert (abs(first.index - 15) <= 1, abs(second.index - 65) <= 1) == (True, True)
    assert first.rivals == (second.index,)
    assert second.rivals == (first.index,)


def test_the_index_is_bounded_and_keeps_places_rather_than_copies():
    index = PlaceIndex(LoopConfig(capacity=60))
    # 200 keyframes at one place, 40 on the way to somewhere else
    places = np.concatenate([np.zeros(200), 0.4 * np.arange(40)])
    for i, row in enumerate(descriptors(places)):
        index.add(i, row)
        assert len(index) <= 60
    best = index.relocalise(descriptors([places[215]], seed=1)[0])[0]
    assert abs(places[best.index] - places[215]) < 0.5
    index.remove(best.index)
    assert index.relocalise(descriptors([places[215]], seed=1)[0])[0].index != best.index
    index.remove(12345)
    index.clear()
    assert len(index) == 0
    assert index.relocalise(descriptors([0.0])[0]) == ()
    assert index.threshold is None


def test_relocalisation_gives_different_places_recent_ones_too():
    index = PlaceIndex()
    places = 0.4 * np.arange(80)
    for i, row in enumerate(descriptors(places)):
        index.add(i, row)
    for place in (3, 40, 78):
        found = index.relocalise(descriptors(places[[place]], seed=1)[0], count=3)
        assert abs(found[0].index - place) <= 1
        assert len(found) == 3
        assert min(abs(a.index - b.index) for a in found for b in found if a is not b) > 5
        assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)


def known_places(places, config: LoopConfig | None = None) -> PlaceIndex:
    index = PlaceIndex(config)
    for i, row in enumerate(descriptors(places)):
        index.add(10 * i, row)
    return index


def test_what_looks_alike_is_known_before_there_are_candidates():
    """Twelve keyframes, out and back: too few for a threshold, and yet what is as like as neighbours are is known."""
    places = there_and_back(6)
    index = known_places(places)
    assert index.threshold is None

    def alike(place: float) -> tuple[int, ...]:
        return index.alike(descriptors([place], seed=1)[0])

    assert set(alike(places[1])) == {10, 100}  # the best of each visit, and no neighbour of theirs
    assert alike(places[5]) in ((50,), (60,))  # the turning point: one visit
    assert alike(500.0) == ()
    assert alike(places[1])[0] == 10  # the most alike first: the way back is a little beside it


def test_one_or_two_keyframes_say_nothing_about_what_is_not_alike():
    assert PlaceIndex().alike(descriptors([0.0])[0]) == ()
    index = known_places([0.0, 300.0], LoopConfig(suppress=0))
    assert index.alike(descriptors([0.0], seed=1)[0]) == ()


def test_with_a_threshold_alike_is_what_passes_it():
    places = there_and_back()
    index, query = known_places(places), descriptors([places[20]], seed=1)[0]
    found = index.alike(query)
    assert len(found) == 2
    rows = descriptors(places)
    assert all(rows[one // 10] @ query >= index.threshold for one in found)
    assert np.abs(places[[one // 10 for one in found]] - places[20]).max() < 0.5
    with pytest.raises(DescriptorError, match='length 1'):
        index.alike(2 * query)


def test_in_a_small_map_unlike_places_are_no_rivals():
    """Nine keyframes along a line: what is furthest from the first is the second of its places, and not like it."""
    places = 0.4 * np.arange(9)
    index = known_places(places)
    assert index.threshold is None
    best, *others = index.relocalise(descriptors(places[:1], seed=1)[0])
    assert best.index == 0
    assert others
    assert best.rivals == ()
    # Two bays that look alike still are.
    index = known_places(np.concatenate([places[:3], 500 + places[:3], places[:3]]), LoopConfig(reach=1, suppress=2))
    assert index.threshold is None
    best, second, *_ = index.relocalise(descriptors(places[1:2], seed=1)[0])
    assert {best.index, second.index} == {10, 70}
    assert (best.rivals, second.rivals) == ((second.index,), (best.index,))


def test_bad_descriptors_and_settings_are_refused():
    index = PlaceIndex()
    good = descriptors([0.0, 1.0])
    index.add(1, good[0])
    with pytest.raises(DescriptorError, match='length 1'):
        index.add(2, np.full(64, np.nan, np.float32))
    with pytest.raises(DescriptorError, match='length 1'):
        index.add(2, 2 * good[1])
    with pytest.raises(DescriptorError, match=r'shape \(32,\)'):
        index.add(2, good[1][:32])
    with pytest.raises(ValueError, match='keyframe 1 is in the index'):
        index.add(1, good[1])
    with pytest.raises(ValueError, match='capacity must be at least 2'):
        LoopConfig(capacity=1)


def test_drift_covariance_is_that_of_chained_errors():
    rng = np.random.default_rng(0)
    count, sigmas = 12, (0.01, 0.02, 0.008)
    steps = [np.eye(4) for _ in range(count - 1)]
    for step in steps:
        step[:3, :3] = Rotation.from_rotvec(0.3 * rng.normal(size=3)).as_matrix()
        step[:3, 3] = [0.1, 0.0, 0.8]
    T = [np.eye(4)]
    for step in steps:
        T.append(T[-1] @ step)
    expected = drift_covariance(np.stack(T), *sigmas)
    truth, errors = Similarity(1.0, T[-1][:3, :3], T[-1][:3, 3]), []
    for _ in range(800):
        chain = Similarity(1.0, np.eye(3), np.zeros(3))
        for step in steps:
            noise = Similarity(
                float(np.exp(sigmas[2] * rng.normal())),
                Rotation.from_rotvec(sigmas[0] * rng.normal(size=3)).as_matrix(),
                sigmas[1] * rng.normal(size=3),
            )
            chain = chain @ (noise @ Similarity.rigid(step))
        rotation = Rotation.from_matrix(chain.R @ truth.R.T).as_rotvec()
        errors.append([*rotation, *(chain.t - truth.t), np.log(chain.scale)])
    measured = np.cov(np.array(errors).T)
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(measured / np.outer(scale, scale), expected / np.outer(scale, scale), atol=0.17)


def wall(distance: float, T: np.ndarray | None = None) -> DepthView:
    """A camera that looks at a flat wall."""
    return DepthView(np.eye(4) if T is None else T, default_intrinsics(SIZE), np.full(SIZE[::-1], distance))


def test_conflict_is_seeing_through_a_surface_not_being_behind_one():
    ahead = np.eye(4)
    ahead[2, 3] = 1.0
    share, samples = conflict([wall(3.0)], [wall(2.0, ahead)], stride=4)
    assert share == 0
    assert samples > 500
    # The other sees 1 m through the wall.
    share, samples = conflict([wall(3.0)], [wall(3.0, ahead)])
    assert share > 0.9
    # Back to back: nothing in common.
    back = np.diag([-1.0, 1, -1, 1])
    assert conflict([wall(3.0)], [wall(3.0, back)]) == (0.0, 0)
    unknown = replace(wall(3.0), depth=np.full(SIZE[::-1], np.nan))
    assert conflict([unknown], [wall(3.0)]) == (0.0, 0)
    correction = Similarity(0.5, np.eye(3), np.array([0.0, 0.0, 1.0]))
    assert conflict([moved(wall(4.0), correction)], [wall(3.0)])[0] == 0


def alignment(similarity: Similarity, **options) -> Alignment:
    values = {
        'scale_sigma': 0.01,
        'rotation_spread': 0.005,
        'translation_spread': 0.02,
        'inliers': 0.9,
        'covariance': 1e-5 * np.eye(6),
    }
    return Alignment(similarity, **{**values, **options})


def evidence(shift=(0.1, 0.0, 0.0), sigma: float = 0.1, scale: float = 1.0, **options) -> Evidence:
    """A query 5 m from the map's origin; the loop says that the map has drifted by ``shift`` there."""
    T = np.eye(4)
    T[0, 3] = 5.0
    recent = Similarity(1.7, np.eye(3), T[:3, 3])
    loop = Similarity(1.7 * scale, np.eye(3), T[:3, 3] + shift)
    values = {
        'candidate': 3,
        'T_map_candidate': T,
        'T_map_query': T,
        'recent': alignment(recent),
        'loop': alignment(loop),
        'depth': 2.0,
        'drift': np.diag([0.01] * 3 + [sigma**2] * 3 + [0.02**2]),
        'conflict': (0.01, 3000),
    }
    return Evidence(**{**values, **options})


def test_a_loop_is_accepted_when_two_windows_agree():
    verifier = LoopVerifier()
    assert verifier.judge(evidence()).verdict is LoopVerdict.WAIT
    decision = verifier.judge(evidence((0.11, 0.01, 0.0)))
    assert (decision.verdict, decision.reasons) == (LoopVerdict.ACCEPT, ())
    np.testing.assert_allclose(decision.correction.t, [0.11, 0.01, 0.0], atol=1e-12)
    # Accepted is done: the next begins anew. Two that contradict each other count as one.
    assert verifier.judge(evidence()).verdict is LoopVerdict.WAIT
    assert verifier.judge(evidence((-0.1, 0.0, 0.0))).verdict is LoopVerdict.WAIT
    assert verifier.judge(evidence((-0.1, 0.0, 0.0), scale=1.1, drift=np.eye(7))).verdict is LoopVerdict.WAIT
    # A rejected window breaks the row.
    verifier.clear()
    assert verifier.judge(evidence()).verdict is LoopVerdict.WAIT
    assert verifier.judge(evidence(conflict=(0.5, 3000))).verdict is LoopVerdict.REJECT
    assert verifier.judge(evidence()).verdict is LoopVerdict.WAIT


def test_a_drift_beyond_the_view_or_unknown_needs_three_windows():
    for options in ({'sigma': 2.5}, {'drift': None}):
        verifier = LoopVerifier()
        verdicts = [verifier.judge(evidence(**options)).verdict for _ in range(3)]
        assert verdicts == [LoopVerdict.WAIT, LoopVerdict.WAIT, LoopVerdict.ACCEPT]


def test_every_gate_has_its_say():
    similarity = evidence().loop.similarity
    cases = {
        'only 40% of the depth': {'loop': alignment(similarity, inliers=0.4)},
        r'loop anchors differ by 2\.\d deg': {'loop': alignment(similarity, rotation_spread=0.05)},
        r'loop anchors differ by 5\.0% of the depth': {'loop': alignment(similarity, translation_spread=0.1)},
        'scale by the loop anchors': {'loop': alignment(similarity, scale_sigma=0.05)},
        'scale by the recent anchors': {'recent': alignment(evidence().recent.similarity, scale_sigma=0.05)},
        'too little surface': {'conflict': (0.0, 10)},
        '30% of the surface contradicts': {'conflict': (0.3, 3000)},
        'times as large as is likely': {'shift': (1.0, 0.0, 0.0)},
        'a drift': {'scale': 1.3},
    }
    assert objections(evidence(), LoopGates()) == ()
    for pattern, options in cases.items():
        (reason,) = objections(evidence(**options), LoopGates())
        assert re.search(pattern, reason)


def test_a_rival_within_the_uncertainty_makes_a_loop_ambiguous():
    rival = evidence().T_map_candidate.copy()
    rival[0, 3] += 4.0
    assert objections(evidence(sigma=0.3, rivals=[rival]), LoopGates()) == ()
    assert objections(evidence(sigma=3.0, rivals=[rival]), LoopGates()) == (
        'another place looks alike and is as likely',
    )
    # A camera that is lost may be at any of them; the same place on another visit is no rival.
    assert len(objections(evidence(drift=None, rivals=[rival]), LoopGates())) == 1
    again = evidence().T_map_candidate.copy()
    again[0, 3] += 0.5
    assert objections(evidence(drift=None, rivals=[again]), LoopGates()) == ()


class Corridor:
    """A camera that looks at one wall of a corridor of equal bays, to the end and back, with an odometry that drifts.

    The network takes every look-alike for the place itself, without a doubt.
    """

    def __init__(self, seed: int, rotation: float, translation: float, scale: float) -> None:
        world = make_world('twins', seed)
        low, high = world.free
        x = np.arange(low[0] + 0.6, high[0] - 0.6, 0.3)
        x = np.concatenate([x, x[::-1] + 0.1])
        back = np.arange(len(x)) >= len(x) // 2
        position = np.stack([x, np.where(back, 0.1, -0.2), np.where(back, 1.35, 1.3)], axis=1)
        yaw = np.pi / 2 + 0.05 * np.sin(0.7 * np.arange(len(x)))
        path = CameraPath(0.3 * np.arange(1, len(x) + 1), look_along(position, yaw, np.full(len(x), -0.05)))
        K = default_intrinsics(SIZE)
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        self.truth = path.T_world_camera
        self.frames = [Frame(i, int(stamp), image, K) for i, stamp in enumerate(path.stamps)]
        errors = replace(ErrorModel.typical(), alias=1.0, lost_confident=1.0)
        self.network = SimulatedNetwork(frame_truths(world, path, K), errors, seed, longest=SIZE[0])
        self.pixels = self.network.pixel_map(SIZE)
        self.K = self.pixels.K_to_network(K)
        self.sigmas = (rotation, translation, scale)
        poses, self.unit = [self.truth[0]], [1.0]
        for before, after in zip(self.truth, self.truth[1:], strict=False):
            step = invert(before) @ after
            self.unit.append(float(self.unit[-1] * np.exp(scale * rng.normal())))
            step[:3, 3] = self.unit[-1] * (step[:3, 3] + translation * rng.normal(size=3))
            step[:3, :3] = step[:3, :3] @ Rotation.from_rotvec(rotation * rng.normal(size=3)).as_matrix()
            poses.append(poses[-1] @ step)
        self.T_map = np.stack(poses)

    def descriptor(self, i: int) -> np.ndarray:
        return self.network.predict([self.frames[i]], depth=()).descriptor[0]

    def view(self, i: int) -> DepthView:
        depth = self.network.network_depth(i, self.pixels) * self.unit[i]
        return DepthView(self.T_map[i], self.K, depth * np.exp(0.015 * np.random.default_rng(i).normal()))

    def evidence(self, query: int, candidate: int, rivals=(), lost: bool = False) -> Evidence:
        recent, loop = [query - 1, query - 2, query - 4], [candidate, candidate + 1]
        prediction = self.network.predict([self.frames[i] for i in (*recent, *loop, query)])

        def aligned(indices):
            anchors = []
            for i in indices:
                view, slot = self.view(i), prediction.slot(i)
                sure = np.full(view.depth.shape, 0.9)
                anchors.append(
                    Anchor(
                        view.T_map_camera,
                        prediction.T_window_camera[slot],
                        view.depth,
                        prediction.depth[slot],
                        sure,
                        prediction.confidence[slot],
                    )
                )
            return align(anchors)

        by_recent, by_loop = aligned(recent), aligned(loop)
        correction = by_loop.similarity @ by_recent.similarity.inverse()
        near = [moved(self.view(i), correction) for i in range(max(0, query - 8), query, 3)]
        old = [self.view(i) for i in range(max(0, candidate - 9), min(candidate + 10, query - 9), 3)]
        return Evidence(
            candidate=candidate,
            T_map_candidate=self.T_map[candidate],
            T_map_query=by_recent.similarity.pose(prediction.T_window_camera[-1]),
            recent=by_recent,
            loop=by_loop,
            depth=float(np.nanmedian(self.view(query).depth)),
            drift=None if lost else drift_covariance(self.T_map[candidate : query + 1], *self.sigmas),
            conflict=conflict(near, old),
            rivals=[self.T_map[i] for i in rivals],
        )

    def error(self, query: int, candidate: int, one: Evidence) -> float:
        """Metres between where the loop puts the frame before the query, seen from the candidate, and the truth."""
        T = invert(self.T_map[candidate]) @ one.loop.similarity.pose(np.eye(4))
        truth = invert(self.truth[candidate]) @ self.truth[query - 1]
        return float(np.linalg.norm(T[:3, 3] / self.unit[candidate] - truth[:3, 3]))


def test_no_false_loop_in_a_look_alike_corridor():
    corridor = Corridor(1, np.radians(0.2), 0.006, 0.003)
    index, verifier, lost, candidate = PlaceIndex(), LoopVerifier(), LoopVerifier(), None
    accepted, fooled = [], 0
    for query in range(len(corridor.frames)):
        candidates = index.add(query, corridor.descriptor(query))
        candidate = candidates[0] if candidates else candidate
        if candidate is None:
            continue
        one = corridor.evidence(query, candidate.index, candidate.rivals)
        decision, error = verifier.judge(one), corridor.error(query, candidate.index, one)
        assert decision.verdict is not LoopVerdict.ACCEPT or error < 0.3
        # Without any idea of where it is, too: the bays that it knows are each other's rivals.
        unaware = lost.judge(replace(one, drift=None))
        assert unaware.verdict is not LoopVerdict.ACCEPT or error < 0.3
        fooled += error > 3
        if decision.verdict is LoopVerdict.ACCEPT:
            accepted.append(query)
        if decision.verdict is not LoopVerdict.WAIT:
            candidate = None
    # The look-alikes were there, and loops were found all the same, on the way back too.
    assert fooled >= 10
    assert len(accepted) >= 3
    assert max(accepted) > len(corridor.frames) / 2


def test_exact_look_alikes_show_in_nothing_but_the_drift_and_the_rivals():
    """What the module says that it cannot tell: one window at a bay that looks like one seen before, and its gates."""
    corridor = Corridor(1, np.radians(0.2), 0.006, 0.003)
    half = len(corridor.frames) // 2
    period = 4.0
    x = corridor.truth[:, 0, 3]
    query = half - 12
    candidate = int(np.argmin(np.abs(x[:half] - (x[query] - 2 * period))))
    rival = int(np.argmin(np.abs(x[:half] - (x[query] - period))))
    one = corridor.evidence(query, candidate)
    assert corridor.error(query, candidate, one) == pytest.approx(2 * period, abs=0.3)
    (reason,) = objections(one, LoopGates())
    assert 'times as large as is likely' in reason
    unsure = replace(one, drift=np.diag([0.1**2] * 3 + [10.0**2] * 3 + [0.1**2]))
    assert objections(unsure, LoopGates()) == ()
    assert objections(replace(unsure, rivals=[corridor.T_map[rival]]), LoopGates()) != ()
    assert objections(replace(unsure, drift=None, rivals=[corridor.T_map[rival]]), LoopGates()) != ()
