"""Windows with random units become one trajectory: the truth, up to the one unit of the epoch."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from exact import SIZE, ExactPredictor, K, depth_of, picture, view, walk
from vggt_ros import camera
from vggt_ros.depth import edges_at
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.gravity import assumed_level, map_from_camera
from vggt_ros.odometry.windows.alignment import AlignmentError, Anchor, align, log_distance_ratio
from vggt_ros.odometry.windows.robust import geometric_median, huber_mean, weighted_median
from vggt_ros.pipeline import Pipeline
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.types import Frame, Scale, State, WindowTooLargeError


def frames_of(poses):
    return [Frame(i, (i + 1) * 100_000_000, picture(i), K, 'eye') for i in range(len(poses))]


def run(poses, stride=1, spoil=None, **config):
    frames = frames_of(poses)
    predictor = ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)}, spoil=spoil)
    pipeline = Pipeline(predictor, OdometryConfig(refine=False, **config), TrackerConfig(64))
    estimates = []
    for i in range(0, len(frames), stride):
        estimates += pipeline.process(frames[i : i + stride]).estimates
    return estimates, predictor, pipeline


def expected_map(poses):
    """Poses in the map: level, looking along x from the origin at the start."""
    start = np.eye(4)
    start[:3, :3] = map_from_camera(assumed_level().down)
    return start @ camera.invert(poses[0]) @ poses


@pytest.mark.parametrize(('stride', 'window'), [(1, 4), (1, 8), (3, 8), (5, 12)])
def test_trajectory_is_the_truth_up_to_one_unit(stride, window):
    poses = walk(40)
    estimates, predictor, _ = run(poses, stride, window=window)
    assert [estimate.frame.index for estimate in estimates] == list(range(40))
    assert max(map(len, predictor.windows)) == window
    truth = expected_map(poses)
    estimated = np.stack([estimate.T_map_camera for estimate in estimates])
    unit = np.linalg.norm(estimated[-1, :3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    np.testing.assert_allclose(estimated[:, :3, :3], truth[:, :3, :3], atol=1e-6)
    np.testing.assert_allclose(estimated[:, :3, 3], unit * truth[:, :3, 3], atol=1e-6 * unit)
    for estimate, T in zip(estimates, poses, strict=True):
        depth = depth_of(T, estimate.K, estimate.map.size)
        np.testing.assert_allclose(estimate.depth, unit * depth, rtol=1e-5)
        assert estimate.state is State.TRACKING
        assert estimate.scale is Scale.RELATIVE


def test_velocity_is_the_motion_between_two_frames_in_the_cameras_axes():
    poses = walk(12)
    estimates, _, _ = run(poses, 1, window=6)
    truth = expected_map(poses)
    unit = np.linalg.norm(estimates[-1].T_map_camera[:3, 3]) / np.linalg.norm(truth[-1, :3, 3])
    for k in range(2, 12):
        step = camera.invert(poses[k - 1]) @ poses[k]
        linear = unit * poses[k][:3, :3].T @ (poses[k][:3, 3] - poses[k - 1][:3, 3]) / 0.1
        angular = Rotation.from_matrix(step[:3, :3]).as_rotvec() / 0.1
        np.testing.assert_allclose(estimates[k].velocity, [*linear, *angular], atol=1e-5)


def test_tracks_are_the_same_physical_points_in_every_image():
    """Known motion, exact windows without bundle adjustment: the points of the tracks lie still, on the walls."""
    poses = walk(40)
    frames = [dataclasses.replace(frame, image=view(T)) for frame, T in zip(frames_of(poses), poses, strict=True)]
    predictor = ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})
    pipeline = Pipeline(predictor, OdometryConfig(refine=False, window=8), TrackerConfig(96))
    tracks, estimates = [], []
    for first in range(0, len(frames), 4):
        tracks += [pipeline.look(frame).tracks for frame in frames[first : first + 4]]
        estimates += pipeline.process(frames[first : first + 4]).estimates
    unit = np.linalg.norm(estimates[-1].T_map_camera[:3, 3]) / np.linalg.norm(expected_map(poses)[-1, :3, 3])
    seen: dict[int, list] = {}
    for one, T in zip(tracks, poses, strict=True):
        z = depth_of(T, K, SIZE)[tuple(np.rint(one.uv).astype(int).T[::-1])]
        wall = camera.transform(T, camera.rays(one.uv, K) * z[:, None])
        for identity, xyz, point in zip(one.id.tolist(), camera.transform(T, one.xyz / unit), wall, strict=True):
            seen.setdefault(identity, []).append((xyz, point))
    assert max(map(len, seen.values())) > 25
    wander, off = [], []
    for pairs in seen.values():
        xyz, walls = np.array(pairs).swapaxes(0, 1)
        wander.append(np.linalg.norm(walls - walls[0], axis=1).max())
        off += np.linalg.norm(xyz - walls, axis=1)[np.isfinite(xyz[:, 0])].tolist()
    # 0.035 m on a wall 4 m away are a pixel.
    assert np.percentile(wander, 95) < 0.1
    assert len(off) > 500
    assert np.median(off) < 0.05


def test_reset_begins_a_new_epoch_at_the_origin():
    poses = walk(10)
    frames = frames_of(poses)
    predictor = ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})
    pipeline = Pipeline(predictor, OdometryConfig(refine=False, window=4))
    pipeline.process(frames[:5])
    pipeline.reset()
    estimate = pipeline.process(frames[5:8]).estimates[0]
    assert estimate.epoch == 1
    np.testing.assert_allclose(estimate.T_map_camera[:3, 3], 0, atol=1e-12)


@pytest.mark.parametrize(
    ('breakage', 'reason'),
    [
        (lambda f: f['T_window_camera'].__setitem__((-1, 0, 3), np.nan), 'pose that is not finite'),
        (lambda f: [z.fill(np.nan) for z in f['depth'].values()], 'no valid depth'),
        (lambda f: [z.fill(-1) for z in f['depth'].values()], 'no valid depth'),
    ],
)
def test_an_unusable_window_loses_nothing(breakage, reason):
    poses = walk(12)
    frames = frames_of(poses)
    predictor = ExactPredictor({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})
    pipeline = Pipeline(predictor, OdometryConfig(refine=False, window=5))
    good = pipeline.process(frames[:5]).estimates
    predictor.spoil = breakage
    broken = pipeline.process(frames[5:7])
    assert not broken.estimates
    assert broken.refused == 2
    assert reason in broken.reasons[0]
    assert pipeline.world.state is State.DEGRADED
    predictor.spoil = None
    after = pipeline.process(frames[7:9]).estimates
    truth = expected_map(poses)
    unit = np.linalg.norm(good[-1].T_map_camera[:3, 3]) / np.linalg.norm(truth[4, :3, 3])
    np.testing.assert_allclose(after[-1].T_map_camera[:3, 3], unit * truth[8, :3, 3], atol=1e-6 * unit)
    assert pipeline.world.state is State.TRACKING


def test_an_impossible_field_of_view_matters_only_without_calibration():
    def blind(fields):
        fields['K'][:, 0, 0] = np.nan

    estimates, _, _ = run(walk(6), spoil=blind)
    assert np.isfinite(estimates[-1].K).all()
    frame = [dataclasses.replace(frame, K=None) for frame in frames_of(walk(4))]
    predictor = ExactPredictor(dict(zip([f.stamp for f in frame], walk(4), strict=True)), spoil=blind)
    solution = Pipeline(predictor, OdometryConfig(refine=False)).process(frame)
    assert not solution.estimates
    assert 'field of view' in solution.reasons[0]


def test_out_of_memory_halves_the_window_once_and_goes_on():
    class Small(ExactPredictor):
        def predict(self, frames, depth=None, queries=None):
            if len(frames) > 5:
                raise WindowTooLargeError(len(frames))
            return super().predict(frames, depth, queries)

    poses = walk(20)
    frames = frames_of(poses)
    predictor = Small({frame.stamp: T for frame, T in zip(frames, poses, strict=True)})
    pipeline = Pipeline(predictor, OdometryConfig(refine=False, window=8, keyframe_distance=0.01))
    estimates = [estimate for frame in frames for estimate in pipeline.process([frame]).estimates]
    assert len(estimates) == 20
    assert pipeline.world.config.window in (3, 4)
    predictor.predict = lambda frames, *rest: (_ for _ in ()).throw(WindowTooLargeError(len(frames)))
    with pytest.raises(WindowTooLargeError):
        pipeline.process([dataclasses.replace(frames[-1], index=99, stamp=frames[-1].stamp + 1)])


# The pieces of the alignment


def test_medians_and_means_are_robust_and_symmetric():
    assert weighted_median(np.array([1.0, 2.0, 10.0]), np.array([1.0, 1.0, 1.0])) == 2.0
    assert weighted_median(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == 1.5
    assert weighted_median(np.array([3.0, 1.0]), np.array([5.0, 1.0])) == 3.0
    values = np.random.default_rng(0).normal(0, 1, 101)
    weights = np.random.default_rng(1).uniform(0.1, 1, 101)
    assert weighted_median(values, weights) == pytest.approx(-weighted_median(-values, weights))
    # The outlier's pull on the mean is at most delta: (4 * 0 + 1 * 0.03) / 4 and a little more by iteration.
    mean, _ = huber_mean(np.array([0.0, 0.0, 0.0, 0.0, 5.0]), np.ones(5), 0.03)
    assert 0 < mean < 0.01
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [100, 100, 100]])
    assert np.linalg.norm(geometric_median(points) - [0.5, 0.5, 0]) < 1.0


def anchors_of(count, rng, scale=1.7, noise=0.0, with_depth=True):
    R = Rotation.random(random_state=rng).as_matrix()
    t = rng.normal(size=3)
    anchors = []
    for _ in range(count):
        T_window = np.eye(4)
        T_window[:3, :3] = Rotation.random(random_state=rng).as_matrix()
        T_window[:3, 3] = rng.normal(size=3)
        T_map = np.eye(4)
        T_map[:3, :3] = R @ T_window[:3, :3]
        T_map[:3, 3] = scale * R @ T_window[:3, 3] + t
        depth = rng.uniform(2, 3, (1, 1)) + 0.002 * np.arange(80)[None] + np.zeros((96, 1))
        noisy = scale * depth * np.exp(noise * rng.normal(size=depth.shape))
        ones = np.ones(depth.shape)
        anchors.append(Anchor(T_map, T_window, noisy, depth, ones, ones) if with_depth else Anchor(T_map, T_window))
    return anchors, R, t


def test_alignment_recovers_a_known_similarity_in_spite_of_a_wrong_anchor():
    anchors, R, t = anchors_of(6, np.random.default_rng(3))
    wrong = dataclasses.replace(anchors[2], T_map=anchors[0].T_map @ anchors[1].T_map)
    exact = align(anchors).similarity
    np.testing.assert_allclose([exact.scale, *exact.t], [1.7, *t], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(exact.R, R, atol=1e-9)
    robust = align([*anchors[:2], wrong, *anchors[3:]]).similarity
    assert robust.scale == pytest.approx(1.7, rel=1e-6)
    assert Rotation.from_matrix(robust.R @ R.T).magnitude() < np.radians(0.3)
    assert np.linalg.norm(robust.t - t) < 0.05


def test_scale_is_unbiased_under_noise_in_either_direction():
    forth, back = [], []
    for seed in range(30):
        anchors, _, _ = anchors_of(3, np.random.default_rng(seed), noise=0.012)
        swapped = [Anchor(a.T_window, a.T_map, a.depth_window, a.depth_map, *[a.confidence_map] * 2) for a in anchors]
        forth.append(np.log(align(anchors).similarity.scale / 1.7))
        back.append(np.log(align(swapped).similarity.scale * 1.7))
    np.testing.assert_allclose(forth, -np.array(back), atol=2e-3)
    assert abs(np.mean(forth)) < 3 * np.std(forth) / np.sqrt(30) + 1e-4


def edges_of_all(depth):
    """Pixels whose log depth differs from a neighbour's by more than 5 %, (h, w) bool."""
    log_depth = np.log(np.where(depth > 0, depth, np.nan))
    edges = np.zeros(depth.shape, bool)
    down, right = np.abs(np.diff(log_depth, axis=0)) > 0.05, np.abs(np.diff(log_depth, axis=1)) > 0.05
    edges[:-1] |= down
    edges[1:] |= down
    edges[:, :-1] |= right
    edges[:, 1:] |= right
    return edges


@pytest.mark.parametrize('shape', [(84, 112), (83, 117), (5, 5), (61, 64)])
def test_edges_on_the_grid_are_those_of_the_image(shape):
    rng = np.random.default_rng(shape[1])
    depth = np.exp(rng.normal(0, 0.03, shape)).astype(np.float32)
    depth[rng.random(shape) < 0.1] = np.nan
    depth[rng.random(shape) < 0.05] = -1.0
    rows, columns = (np.arange(4, length, 8) for length in shape)
    grid = edges_at(depth, *np.ix_(rows, columns))
    assert grid.shape == depth[4::8, 4::8].shape
    np.testing.assert_array_equal(grid, edges_of_all(depth)[4::8, 4::8])


def test_distances_between_cameras_tell_the_scale_better_than_noisy_depth():
    """Six cameras 1 m apart, positions to 1 cm: the scale to 0.3 %, where depth alone tells it to 1.2 %; unbiased."""
    found, told, alone = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        T_map = np.tile(np.eye(4), (6, 1, 1))
        T_map[:, 0, 3] = np.arange(6)
        T_window = T_map.copy()
        T_window[:, :3, 3] = (T_map[:, :3, 3] + rng.normal(0, 0.01, (6, 3))) / 1.7
        wrong = np.exp(rng.normal(0, 0.03, 6))  # each frame's depth
        ones = np.ones((40, 40))
        anchors = [
            Anchor(a, b, 3.0 * ones, 3.0 / 1.7 * one * ones, ones, ones)
            for a, b, one in zip(T_map, T_window, wrong, strict=True)
        ]
        alignment = align(anchors, position_sigma=0.01)
        found.append(np.log(alignment.similarity.scale / 1.7))
        told.append(alignment.scale_sigma)
        alone.append(np.log(align(anchors).similarity.scale / 1.7))
    assert np.std(found) < 0.4 * np.std(alone)
    assert abs(np.mean(found)) < 0.002
    assert 0.6 < np.std(found) / np.mean(told) < 1.5
    # Cameras in one place say nothing about scale.
    assert log_distance_ratio(T_map * 0 + np.eye(4), T_map * 0 + np.eye(4), np.ones(6), 0.01) is None


def test_alignment_says_why_it_cannot():
    with pytest.raises(AlignmentError, match='no frame is shared'):
        align([])
    anchors, _, _ = anchors_of(2, np.random.default_rng(0), with_depth=False)
    with pytest.raises(AlignmentError, match='scale is unknown'):
        align(anchors)
    assert align(anchors, scale_prior=1.7).similarity.scale == pytest.approx(1.7)
    broken = dataclasses.replace(anchors[0], T_window=np.full((4, 4), np.nan))
    with pytest.raises(AlignmentError, match='not finite'):
        align([broken], scale_prior=1.0)
