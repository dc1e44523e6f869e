"""The live map against exact truth: where its points lie, what it leaves out, that it follows and stays bounded."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

pytest.importorskip('torch')  # the renderer's

from vggt_ros.camera import PixelMap, invert, pixel_grid, project, rays, transform, unproject
from vggt_ros.mapping import voxel_map as voxel_map_module
from vggt_ros.mapping.voxel_map import MapConfig, VoxelMap, voxels
from vggt_ros.similarity import Similarity
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.sequence import RenderedSequence, make_sequence
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Estimate, Frame

SIZE = (112, 84)
# Blank and unconnected views are the odometry's business, which refuses them before they reach the map.
TYPICAL = replace(ErrorModel.typical(), blank=0.0, overlap=0.0)


def keyframe(
    frame: Frame, T: np.ndarray, depth: np.ndarray, K: np.ndarray, confidence=None, epoch: int = 0
) -> Estimate:
    size = depth.shape[::-1]
    confidence = np.full(depth.shape, 0.9) if confidence is None else confidence
    used = {
        'frame': frame,
        'T_map_camera': T,
        'depth': depth.astype(np.float32),
        'confidence': confidence.astype(np.float32),
        'K': K,
        'map': PixelMap(frame.size, size, (0, 0), size),
        'epoch': epoch,
    }
    # The map asks for nothing else.
    return Estimate(**{one.name: used.get(one.name) for one in fields(Estimate)})


def exact(sequence: RenderedSequence) -> list[Estimate]:
    T = sequence.trajectory.T_world_camera
    return [keyframe(f, T[f.index], sequence.depth[f.index], sequence.K) for f in sequence.frames]


def predicted(sequence: RenderedSequence, window: int = 8, shared: int = 2) -> list[Estimate]:
    """Windows of the simulated network, each placed by its first frame and its median depth, as an odometry would."""
    network = SimulatedNetwork(sequence.truths, TYPICAL, longest=SIZE[0])
    estimates: dict[int, Estimate] = {}
    for start in range(0, len(sequence.frames) - shared, window - shared):
        frames = sequence.frames[start : start + window]
        prediction = network.predict(frames)
        truth = [sequence.depth[frame.index] for frame in frames]
        unit = np.exp(np.mean([np.nanmedian(np.log(z / prediction.depth[i])) for i, z in enumerate(truth)]))
        for slot, frame in enumerate(frames):
            T = prediction.T_window_camera[slot].copy()
            T[:3, 3] *= unit
            T = sequence.trajectory.T_world_camera[frames[0].index] @ T
            depth, confidence = prediction.depth[slot] * unit, prediction.confidence[slot]
            estimates.setdefault(frame.index, keyframe(frame, T, depth, sequence.K, confidence))
    return list(estimates.values())


def build(estimates: list[Estimate], **config) -> VoxelMap:
    voxel_map = VoxelMap(MapConfig(**config))
    for estimate in estimates:
        voxel_map.add(estimate)
    return voxel_map


def naive(estimates: list[Estimate]) -> np.ndarray:
    """Every fourth point of every keyframe, as they come."""
    points = [transform(e.T_map_camera, unproject(e.depth, e.K))[::2, ::2].reshape(-1, 3) for e in estimates]
    points = np.concatenate(points)
    return points[np.isfinite(points).all(1)]


def distance(sequence: RenderedSequence, xyz: np.ndarray) -> np.ndarray:
    """Metres from the nearest surface that stands still."""
    return np.abs(sequence.world.distance(xyz.astype(np.float64), still_only=True))


def completeness(sequence: RenderedSequence, xyz: np.ndarray, within: float, without: list[int]) -> float:
    """Share of the seen surfaces with a map point nearby."""
    seen = []
    for i, T in enumerate(sequence.trajectory.T_world_camera):
        points = transform(T, unproject(sequence.depth[i].astype(np.float64), sequence.K))[::4, ::4]
        seen.append(points[~np.isin(sequence.object_id[i][::4, ::4], without)])
    return float(np.mean(cKDTree(xyz).query(np.concatenate(seen))[0] < within))


def named(sequence: RenderedSequence, name: str) -> list[int]:
    return [identity for identity, one in sequence.world.names.items() if one == name]


@pytest.fixture(scope='module')
def moving() -> RenderedSequence:
    return make_sequence('room', 5, 'orbit', frames=24, size=SIZE, rate=2, world_options={'moving': True})


@pytest.fixture(scope='module')
def mirrors() -> RenderedSequence:
    return make_sequence('room', 5, 'orbit', frames=24, size=SIZE, rate=2, world_options={'mirrors': True})


def test_exact_depth_gives_exact_surfaces_and_all_of_them(mirrors):
    cloud = build(exact(mirrors)).cloud()
    off = distance(mirrors, cloud.xyz)
    assert np.percentile(off, 95) < 0.01  # a voxel's mean lies inside corners and beside curved surfaces
    assert off.max() < 0.06
    assert completeness(mirrors, cloud.xyz, 0.1, []) > 0.98


def test_typical_errors_are_averaged_and_moving_objects_stay_out(moving):
    estimates = predicted(moving)
    cloud = build(estimates).cloud()
    ours, theirs = distance(moving, cloud.xyz), distance(moving, naive(estimates))
    assert np.median(ours) < 0.02
    assert np.percentile(ours, 95) < 0.1
    assert np.median(ours) < 0.7 * np.median(theirs)
    # Every point this far from everything that stands still is one of a moving object, or hangs in the air.
    assert np.mean(ours > 0.3) < 0.02
    assert np.mean(theirs > 0.3) > 0.05
    movers = [int(one) for one in np.unique(moving.world.object_id[moving.world.moving])]
    assert completeness(moving, cloud.xyz, 0.1, movers) > 0.95
    on_voxels = voxels(cloud.xyz.astype(np.float64), build(estimates[:1]).voxel)
    assert len(np.unique(on_voxels)) > 0.999 * len(cloud)  # the rounding of a mean may cross a face


def test_true_colours_are_kept(mirrors):
    cloud = build(exact(mirrors)).cloud()
    T = invert(mirrors.trajectory.T_world_camera[12])
    local = transform(T, cloud.xyz.astype(np.float64))
    uv = np.rint(np.nan_to_num(project(local, mirrors.K), nan=-1)).astype(int)
    inside = ((uv >= 0) & (uv < np.array(SIZE))).all(1)
    uv, local = uv[inside], local[inside]
    visible = np.abs(mirrors.depth[12][uv[:, 1], uv[:, 0]] / local[:, 2] - 1) < 0.02
    diffuse = ~np.isin(mirrors.object_id[12][uv[:, 1], uv[:, 0]], named(mirrors, 'mirror') + named(mirrors, 'glass'))
    chosen = visible & diffuse
    assert chosen.sum() > 1000
    difference = mirrors.images[12][uv[:, 1], uv[:, 0]].astype(float) - cloud.rgb[inside]
    assert np.median(np.abs(difference[chosen])) < 12


def ghosts(sequence: RenderedSequence, estimates: list[Estimate], spread: float) -> list[Estimate]:
    """In place of every mirror the room behind it, about 2 m deep; how deep is guessed anew in every frame."""
    rng = np.random.default_rng(0)
    world, result = sequence.world, []
    for estimate in estimates:
        i, depth = estimate.frame.index, estimate.depth.copy()
        T = sequence.trajectory.T_world_camera[i]
        for identity in named(sequence, 'mirror'):
            row = int(np.argmax(world.object_id == identity))
            axis, centre = int(np.argmin(world.half[row])), world.T_world_primitive[row, :3, 3]
            plane = centre[axis] + np.sign(centre[axis]) * 2 * np.exp(spread * rng.normal())
            z = (plane - T[axis, 3]) / (rays(pixel_grid(SIZE), sequence.K) @ T[:3, :3].T)[..., axis]
            chosen = (sequence.object_id[i] == identity) & (z > 0)
            depth[chosen] = (z * estimate.depth / sequence.depth[i])[chosen]
        result.append(replace(estimate, depth=depth))
    return result


def test_mirrors_that_are_guessed_differently_stay_out(mirrors):
    estimates = ghosts(mirrors, predicted(mirrors), spread=0.3)
    ours, theirs = distance(mirrors, build(estimates).cloud().xyz), distance(mirrors, naive(estimates))
    assert np.mean(theirs > 0.3) > 0.1
    assert np.mean(ours > 0.3) < 0.05


def wall(distance: float, shape=(60, 80)) -> np.ndarray:
    return np.full(shape, distance)


K = np.array([[60.0, 0, 39.5], [0, 60.0, 29.5], [0, 0, 1.0]])


def at(index: int, x: float, depth: np.ndarray, **options) -> Estimate:
    """A camera at (x, 0, 0) that looks along z."""
    T = np.eye(4)
    T[0, 3] = x
    image = np.full((*depth.shape, 3), 100, np.uint8)
    return keyframe(Frame(index, index, image), T, depth, K, **options)


def test_one_view_is_not_believed_nor_are_two_from_the_same_place():
    voxel_map = build([at(0, 0.0, wall(2.0))])
    assert len(voxel_map) == 60 * 80
    assert len(voxel_map.cloud()) == 0
    voxel_map.add(at(1, 0.0, wall(2.0)))
    assert len(voxel_map.cloud()) == 0
    voxel_map.add(at(2, 0.3, wall(2.0)))
    cloud = voxel_map.cloud()
    np.testing.assert_allclose(cloud.xyz[:, 2], 2.0, atol=1e-6)
    # Only what two places saw: the third camera's image ends 0.3 m further right, at 60 px/m * 2 m a column is 1/30 m.
    width = 79 / 30
    assert cloud.xyz[:, 0].min() > -width / 2 + 0.3 - 0.04
    assert cloud.xyz[:, 0].max() < width / 2 + 0.04


def test_what_is_looked_through_goes_and_comes_back_when_it_is_seen_again():
    voxel_map = VoxelMap(MapConfig(voxel=0.05))

    def on_box() -> int:
        return int((voxel_map.cloud().xyz[:, 2] < 2.5).sum())

    def look(first: int, box: bool) -> None:
        """Four views, 0.2 m apart, of a wall 3 m away and perhaps a box 2 m away before it."""
        for number in range(4):
            depth = wall(3.0)
            left = 30 - round(60 * 0.2 * number / 2)
            if box:
                depth[20:40, left : left + 20] = 2.0
            voxel_map.add(at(first + number, 0.2 * number, depth))

    look(0, box=True)
    before = on_box()
    assert before > 50
    look(4, box=False)
    assert on_box() == 0
    look(8, box=True)
    look(12, box=True)
    assert on_box() > 0.8 * before


def test_depth_edges_make_no_points():
    depth = wall(3.0)
    depth[:, 40:] = 1.0
    depth[:, 39] = 2.0  # flies between the two
    for x in (0.0, 0.3):
        points = build([at(0, x, depth)]).submaps[0].points
        assert set(np.round(points[:, 2], 6)) == {1.0, 3.0}


def test_the_depths_of_agreeing_views_are_averaged_by_confidence():
    near, far = np.full((60, 80), 0.8), np.full((60, 80), 0.4)
    voxel_map = build([at(0, 0.0, wall(2.0), confidence=near), at(1, 0.3, wall(2.06), confidence=far)], voxel=0.5)
    expected = np.exp((0.8 * np.log(2.0) + 0.4 * np.log(2.06)) / 1.2)
    np.testing.assert_allclose(np.median(voxel_map.cloud().xyz[:, 2]), expected, atol=1e-3)


def similarity(scale: float, angle: float, t: tuple[float, float, float]) -> Similarity:
    return Similarity(scale, Rotation.from_rotvec([0, 0, angle]).as_matrix(), np.array(t))


def test_the_map_follows_a_correction_of_all_its_keyframes_exactly(moving):
    voxel_map = build(exact(moving), active=6)
    before = [(submap.fused(), submap.matrix(), submap.belief.copy()) for submap in voxel_map.submaps]
    moved = similarity(1.25, 0.4, (3.0, -2.0, 0.5))
    version = voxel_map.version
    voxel_map.correct(dict.fromkeys(range(24), moved))
    assert voxel_map.version > version
    assert len(voxel_map.submaps) > 6
    for submap, (points, M, belief) in zip(voxel_map.submaps, before, strict=True):
        expected = 1.25 * transform(M, points) @ moved.R.T + moved.t
        np.testing.assert_allclose(transform(submap.matrix(), submap.fused()), expected, atol=1e-5)
        np.testing.assert_array_equal(submap.belief, belief)


def test_a_closed_loop_straightens_the_map(moving):
    """Drift of pose and scale that grows, as before a loop is closed; then every keyframe is put where it belongs."""
    drift = [similarity(1 + 0.006 * i, 0.004 * i, (0.02 * i, 0, 0)) for i in range(24)]
    estimates = exact(moving)
    drifted = [
        replace(e, T_map_camera=d.pose(e.T_map_camera), depth=np.float32(d.scale) * e.depth)
        for e, d in zip(estimates, drift, strict=True)
    ]
    voxel_map = build(drifted, voxel=0.05)
    bad = distance(moving, voxel_map.cloud().xyz)
    inverse = {}
    for i, d in enumerate(drift):
        inverse[i] = Similarity(1 / d.scale, d.R.T, -(d.R.T @ d.t) / d.scale)
    voxel_map.correct({**inverse, 99: drift[1]})
    good = distance(moving, voxel_map.cloud().xyz)
    assert np.median(bad) > 0.05
    assert np.median(good) < 0.005
    # Retired points are averages over neighbours that had drifted apart: that much stays.
    assert np.percentile(good, 90) < min(0.06, 0.25 * np.percentile(bad, 90))


def test_corrections_of_active_keyframes_equal_a_map_built_anew(moving):
    estimates = exact(moving)[:10]
    off = similarity(1.0, 0.05, (0.3, 0.0, 0.0))
    wrong = [replace(e, T_map_camera=off.pose(e.T_map_camera)) if e.frame.index >= 5 else e for e in estimates]
    voxel_map = build(wrong)
    voxel_map.correct({i: Similarity(1.0, off.R.T, -off.R.T @ off.t) for i in range(5, 10)})
    anew = build(estimates)
    np.testing.assert_allclose(voxel_map.cloud().xyz, anew.cloud().xyz, atol=1e-4)


def test_ten_million_points_stay_within_the_budget_and_it_is_said_once():
    shape = (480, 640)
    depth = np.full(shape, 4.0)
    camera = np.array([[400.0, 0, 319.5], [0, 400.0, 239.5], [0, 0, 1.0]])
    image = np.zeros((*shape, 3), np.uint8)
    voxel_map = VoxelMap(MapConfig(voxel=0.01, budget=20_000, samples=5000, active=3, submaps=4))
    said, sent = [], 0
    for index in range(34):
        T = np.eye(4)
        T[0, 3] = 0.5 * index
        voxel_map.add(keyframe(Frame(index, index, image), T, depth, camera))
        sent += depth.size
        said.append(voxel_map.notice())
        assert len(voxel_map) <= 20_000 + 3 * 5000
        assert len(voxel_map.submaps) <= 4 + 3
        assert len(voxel_map.cloud()) <= 20_000
    assert sent > 10_000_000
    texts = [text for text in said if text]
    assert len(texts) == 1
    assert '20000 points' in texts[0]
    # What lies farthest from the newest camera went; its surroundings are all there.
    x = voxel_map.cloud().xyz[:, 0]
    assert x.min() > 3.0
    assert np.histogram(x, bins=10, range=(13.0, 16.0))[0].min() > 0


def test_the_same_place_for_ever_costs_no_more_than_once():
    voxel_map = VoxelMap(MapConfig(voxel=0.1, budget=15_000, active=3))
    for index in range(40):
        voxel_map.add(at(index, 0.3 * (index % 4), wall(2.0)))
    assert not voxel_map.full
    assert len(voxel_map) <= 15_000 + 3 * 4800
    np.testing.assert_allclose(voxel_map.cloud().xyz[:, 2], 2.0, atol=1e-5)


def test_looks_at_one_place_are_merged_long_before_the_budget_and_all_of_them_count(monkeypatch):
    """A wall from four places again and again, each look with 2 % of scale of its own."""
    rng = np.random.default_rng(1)
    looks = [at(i, 0.3 * (i % 4), wall(2.0) * np.exp(rng.normal(0, 0.02))) for i in range(100)]
    merged = VoxelMap(MapConfig(voxel=0.1, samples=1200, active=3))
    held = []
    for look in looks:
        merged.add(look)
        held.append(len(merged))
    assert max(held) <= voxel_map_module.CROWDED * 1200 + 4 * 1200
    monkeypatch.setattr(voxel_map_module, 'CROWDED', 10**6)
    apart = build(looks, voxel=0.1, samples=1200, active=3)
    assert len(apart) > 5 * max(held)
    off_merged, off_apart = (abs(float(np.mean(one.cloud().xyz[:, 2])) - 2.0) for one in (merged, apart))
    assert off_merged < off_apart + 0.004
    assert np.std(merged.cloud().xyz[:, 2]) < np.std(apart.cloud().xyz[:, 2]) + 0.004


def test_a_new_epoch_begins_a_new_map():
    voxel_map = build([at(0, 0.0, wall(2.0)), at(1, 0.3, wall(2.0))])
    assert len(voxel_map.cloud())
    voxel_map.add(at(2, 0.6, wall(2.0), epoch=1))
    assert len(voxel_map.submaps) == 1
    assert len(voxel_map.cloud()) == 0


def test_an_epoch_that_begins_without_a_keyframe_empties_the_map_too():
    voxel_map = build([at(0, 0.0, wall(2.0)), at(1, 0.3, wall(2.0))])
    version = voxel_map.version
    voxel_map.begin(0)
    assert voxel_map.version == version
    voxel_map.begin(1)
    assert voxel_map.version > version
    assert (voxel_map.epoch, len(voxel_map), len(voxel_map.cloud())) == (1, 0, 0)


def test_a_map_that_becomes_metric_keeps_as_many_voxels():
    """The size that was chosen is a share of the depth; one that was asked for is a length."""
    pair = [at(0, 0.0, wall(2.0)), at(1, 0.3, wall(2.0))]
    metric = dict.fromkeys(range(2), Similarity(4.0, np.eye(3), np.zeros(3)))
    chosen, asked = build(pair), build(pair, voxel=0.05)
    before = len(chosen.cloud())
    for voxel_map in (chosen, asked):
        voxel_map.correct(metric)
    assert chosen.voxel == pytest.approx(0.02 * 2.0 * 4)
    assert abs(len(chosen.cloud()) - before) < 0.02 * before
    assert asked.voxel == 0.05


def test_a_keyframe_that_comes_again_takes_its_place():
    voxel_map = build([at(0, 0.0, wall(2.0)), at(1, 0.3, wall(2.0)), at(0, 0.0, wall(2.0))])
    assert len(voxel_map.submaps) == 2


def test_nothing_usable_adds_nothing():
    voxel_map = VoxelMap()
    voxel_map.add(at(0, 0.0, wall(np.nan)))
    version = voxel_map.version
    for depth in (wall(np.nan), wall(0.0), wall(-1.0), wall(np.inf)):
        assert voxel_map.add(at(0, 0.0, depth)) == 0
    assert voxel_map.add(at(0, 0.0, wall(2.0), confidence=np.zeros((60, 80)))) == 0
    assert len(voxel_map.cloud()) == 0
    voxel_map.correct({0: similarity(1, 0, (0, 0, 0))})
    assert voxel_map.version == version


def test_impossible_input_is_refused_in_words():
    voxel_map = build([at(0, 0.0, wall(2.0))])
    good = at(1, 0.3, wall(2.0))
    with pytest.raises(ValueError, match='pose or K of keyframe 1 is not finite'):
        voxel_map.add(replace(good, T_map_camera=np.full((4, 4), np.nan)))
    with pytest.raises(ValueError, match='do not fit together'):
        voxel_map.add(replace(good, confidence=good.confidence[1:]))
    with pytest.raises(ValueError, match='keyframe 0 is not finite, or its scale is not positive'):
        voxel_map.correct({0: similarity(0.0, 0, (0, 0, 0))})
    with pytest.raises(ValueError, match='budget must be at least 1'):
        MapConfig(budget=0)
    with pytest.raises(ValueError, match='voxel must be a length'):
        MapConfig(voxel=-0.1)
    assert len(voxel_map.submaps) == 1
