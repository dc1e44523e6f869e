"""The life of keypoint tracks: patches, and the tracker behind a pipeline over rendered images with exact truth."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import pytest

from vggt_ros.evaluation import live, runs, tracking, walks
from vggt_ros.evaluation.hazards import passing_object, select
from vggt_ros.evaluation.rows_tracks import NOISE, klt
from vggt_ros.odometry import patches
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.klt import Corners
from vggt_ros.pipeline import Pipeline
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.tracker import GRID, KeypointTracker
from vggt_ros.types import Frame

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160), np.uint8), (0, 0), 2.0)
PICTURE = cv2.normalize(PICTURE, None, 20, 200, cv2.NORM_MINMAX)
PLACES = RNG.uniform(30, 90, (40, 2))


def warped(A, shift, gain=1.0, bias=0.0):
    """PICTURE with x -> A (x - middle) + middle + shift."""
    middle = np.array([80.0, 60.0])
    matrix = np.column_stack([A, middle + shift - A @ middle])
    return np.clip(cv2.warpAffine(PICTURE, matrix, (160, 120), flags=cv2.INTER_CUBIC) * gain + bias, 0, 255).astype(
        np.uint8
    ), PLACES @ A.T + matrix[:, 2]


@pytest.mark.parametrize('A', [np.eye(2), 1.3 * np.eye(2), np.array([[0.9, -0.25], [0.3, 0.95]])])
def test_a_patch_is_found_where_it_went(A):
    image, truth = warped(A, (3.3, -1.7), gain=0.8, bias=12)
    tiles = patches.cut(PICTURE, PLACES)
    start = truth + np.random.default_rng(1).uniform(-1.5, 1.5, truth.shape)
    found, alike = patches.align(image, tiles, np.tile(A, (len(tiles), 1, 1)), start)
    error = np.linalg.norm(found - truth, axis=1)
    assert np.median(error) < 0.1
    assert (error[alike > 0.95] < 0.3).all()
    assert (alike > 0.95).mean() > 0.9


def test_a_patch_is_not_found_elsewhere_nor_on_nothing():
    tiles = patches.cut(PICTURE, PLACES)
    same = np.tile(np.eye(2), (len(tiles), 1, 1))
    _, elsewhere = patches.align(PICTURE[::-1, ::-1].copy(), tiles, same, PLACES)
    assert np.median(elsewhere) < 0.7
    for A, image in ((same, np.full_like(PICTURE, 99)), (same * np.nan, PICTURE), (same * 0.1, PICTURE)):
        _, alike = patches.align(image, tiles, A, PLACES)
        assert (np.abs(alike) < 0.5).all()
    found, alike = patches.align(PICTURE, tiles[:0], same[:0], PLACES[:0])
    assert found.shape == (0, 2)
    assert alike.shape == (0,)


def test_more_patches_than_fit_below_one_another():
    many = np.tile(PLACES, (60, 1))
    found, alike = patches.align(PICTURE, patches.cut(PICTURE, many), np.tile(np.eye(2), (len(many), 1, 1)), many)
    assert np.abs(found - many).max() < 0.05
    assert alike.min() > 0.99


def test_a_line_is_not_round_and_a_corner_is():
    line, corner = np.zeros((2, 60, 60), np.uint8)
    line[:, 30:] = 200
    corner[30:, 30:] = 200
    middle = np.array([[30.0, 30.0]])
    assert patches.roundness(patches.cut(line, middle))[0] == pytest.approx(0, abs=1e-9)
    assert patches.roundness(patches.cut(corner, middle))[0] > 0.2


@lru_cache(maxsize=1)
def walk():
    """70 images past pillars."""
    scenario = walks.pillars(3)
    return select(scenario, np.arange(0, 70))


def network(scenario, seed=1):
    return SimulatedNetwork(scenario.truths, NOISE, seed, runs.LONGEST)


class Spoiled(SimulatedNetwork):
    """From its fifth window on it has no idea where tracks are."""

    count = 0

    def predict(self, frames, depth=None, queries=None):
        prediction = super().predict(frames, depth, queries)
        self.count += prediction.tracks is not None
        if self.count < 3 or prediction.tracks is None:
            return prediction
        return replace(prediction, tracks=replace(prediction.tracks, uv=prediction.tracks.uv * np.nan))


def drive(scenario, predictor=None, **config):
    """Tracks of every image, and all that was said."""
    predictor = predictor or network(scenario)
    odometry = OdometryConfig(window=12, anchor_depths=12, accuracy=predictor.accuracy)
    pipeline = Pipeline(predictor, odometry, TrackerConfig(**config))
    tracks, solved = [], []
    for sight, answer in live.drive(pipeline, scenario.frames, 6, 2, track=True):
        tracks.append(sight.tracks)
        solved += [] if answer is None else [answer.result]
    return tracks, solved


@lru_cache(maxsize=1)
def followed():
    return drive(walk())


def test_identity_holds_across_windows_with_deaths_and_top_up():
    tracks, solved = followed()
    judged = tracking.judge(tracks, tracking.exactly(select_scene(walk())))
    assert sum(bool(one.estimates) for one in solved) >= 5
    assert tracking.identity(judged) > 0.97
    assert tracking.coverage(judged.pairs) > 0.8
    first, last = set(tracks[12].id.tolist()), set(tracks[-1].id.tolist())
    assert len(first & last) > 10  # some live
    assert len(first - last) > 10  # some die
    assert min(last - first) > max(first)  # whoever comes is new
    assert len(last - first) > 10
    born = judged.pairs.image[judged.pairs.first]
    assert (np.diff(born[np.argsort(np.unique(np.concatenate([one.id for one in tracks])))]) >= 0).all()


def select_scene(scenario):
    """The same with what is known about its points: the images are still in the order of the world's time."""
    return replace(scenario, scene=walks.pillars(3).scene)


def test_tracks_live_longer_than_their_corners_and_stay_nearer():
    scenario = select_scene(walk())
    judged = tracking.judge(followed()[0], tracking.exactly(scenario))
    alone = klt(scenario).judged
    assert tracking.lives(judged).mean() > tracking.lives(alone).mean()
    assert 1 - tracking.identity(judged) < 0.5 * (1 - tracking.identity(alone))


def test_fields_are_what_they_say():
    tracks, _ = followed()
    scenario = walk()
    for index, one in enumerate(tracks):
        assert one.frame is scenario.frames[index]
        assert one.epoch == 0
        assert len(one.id) == len(np.unique(one.id)) <= 256
        assert ((one.uv > -0.5) & (one.uv < np.array(one.frame.size) - 0.5)).all()
        assert ((one.confidence >= 0) & (one.confidence <= 1)).all()
        assert ((one.visibility >= 0) & (one.visibility <= 1)).all()
    ages = [dict(zip(one.id.tolist(), one.age.tolist(), strict=True)) for one in tracks]
    for before, now in pairwise(ages):
        assert all(now[i] == before[i] + 1 for i in now.keys() & before.keys())
    last = tracks[-1]
    known = np.isfinite(last.xyz[:, 2])
    assert known.mean() > 0.5
    u, v = np.rint(last.uv[known]).astype(int).T
    true = scenario.truths[-1].depth[v, u]
    ratio = last.xyz[known, 2] / true
    # One unit for all; a few are on edges, where the pixel beside has another depth.
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.02


def test_two_tracks_never_share_a_place():
    for one in followed()[0]:
        distance = np.linalg.norm(one.uv[:, None] - one.uv, axis=2) + 1e9 * np.eye(len(one.id))
        assert not len(one.id) or distance.min() * 518 / 224 >= TrackerConfig().apart * 0.999


@pytest.mark.parametrize('most', [0, 20])
def test_never_more_than_asked(most):
    tracks, _ = drive(select(walk(), np.arange(30)), max_tracks=most)
    assert max(len(one.id) for one in tracks) == most


def test_new_tracks_are_spread():
    tracks, _ = drive(select(walk(), np.arange(30)), max_tracks=48)
    cell = (tracks[-1].uv / np.array(tracks[-1].frame.size) * GRID).astype(int)
    assert len(np.unique(cell, axis=0)) > 0.7 * len(cell)


def test_blank_images_have_messages_without_tracks_and_ids_go_on():
    scenario = walk()
    blank = np.full_like(scenario.frames[0].image, 117)
    frames = [replace(f, image=blank) if 30 <= f.index < 36 else f for f in scenario.frames]
    tracks, _ = drive(replace(scenario, frames=frames))
    counts = [len(one.id) for one in tracks]
    assert counts[31:36] == [0] * 5
    assert min(counts[20:30]) > 50
    assert min(counts[45:]) > 50
    assert {one.epoch for one in tracks} == {0}
    seen = np.concatenate([one.id for one in tracks[:30]])
    later = np.concatenate([one.id for one in tracks[36:]])
    assert later.max() > seen.max()  # new ids
    judged = tracking.judge(tracks, tracking.exactly(select_scene(scenario)))
    assert tracking.identity(judged) > 0.95  # and those that come back are still their own points


def test_all_tracks_lost_at_once_get_new_ids_in_the_same_epoch():
    scenario = walks.pillars(3)
    tracks, _ = drive(select(scenario, np.r_[0:30, 98:128]))
    before, after = set(np.concatenate([one.id for one in tracks[:30]])), set(tracks[36].id)
    assert len(after) > 30
    assert not after & before
    assert min(after) > max(before)
    assert {one.epoch for one in tracks} == {0}


def test_what_is_not_finite_is_said_and_left_out():
    scenario = walk()
    tracks, solved = drive(scenario, Spoiled(scenario.truths, NOISE, 1, runs.LONGEST))
    said = [text for one in solved for text in one.warnings]
    assert said
    assert set(said) == {'some tracks of the network are not finite: they are left out'}
    assert all(np.isfinite(one.uv).all() and np.isfinite(one.visibility).all() for one in tracks)
    assert min(len(one.id) for one in tracks[10:]) > 50


class Twice(Pipeline):
    """Gives every window to the tracker once more."""

    said = ()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        solved = self.tracker.solved

        def again(*window):
            first = solved(*window)
            self.said += (solved(*window),)
            return first

        self.tracker.solved = again


def test_a_window_that_comes_twice_is_heeded_once():
    scenario = select(walk(), np.arange(40))
    predictor = network(scenario)
    pipeline = Twice(predictor, OdometryConfig(window=12, anchor_depths=12, accuracy=predictor.accuracy))
    tracks = [one.tracks for one, _ in live.drive(pipeline, scenario.frames, 6, 2, track=True)]
    assert set(pipeline.said) == {'a window came late or twice: the tracks heed only the newest'}
    for once, twice in zip(drive(scenario)[0], tracks, strict=True):
        np.testing.assert_array_equal(once.id, twice.id)
        np.testing.assert_array_equal(once.xyz, twice.xyz)


def corners_of(frame, uv):
    return Corners(frame.index, frame.stamp, frame.size, np.arange(len(uv)), uv, 100.0, 0.0)


def looked(tracker, count=6):
    """Of images that stand still."""
    picture = np.repeat(PICTURE[..., None], 3, axis=2)
    for index in range(count):
        frame = Frame(index, index, picture)
        tracks = tracker.look(frame, corners_of(frame, PLACES), None, None)
    return tracks


def test_ids_begin_at_0_in_every_epoch_unless_they_are_unique():
    tracker = KeypointTracker()
    first = looked(tracker)
    tracker.reset()
    second = looked(tracker)
    assert first.id.min() == second.id.min() == 0
    assert (first.epoch, second.epoch) == (0, 1)
    unique = KeypointTracker(TrackerConfig(unique=True))
    first = looked(unique)
    unique.reset()
    second = looked(unique)
    assert second.id.min() > first.id.max() > first.id.min() > 2**60
    assert looked(KeypointTracker(TrackerConfig(unique=True))).id.dtype == np.uint64


def test_without_a_map_corners_are_followed_and_places_are_unknown():
    tracks = looked(KeypointTracker())
    assert len(tracks.id) > 10
    assert np.isnan(tracks.xyz).all()
    assert np.isnan(tracks.xyz_map).all()
    np.testing.assert_allclose(np.sort(tracks.uv[:, 0]), np.sort(tracks.uv[:, 0].round(9)))


def test_a_corner_that_slides_off_its_point_takes_no_track_along():
    tracker, picture = KeypointTracker(), np.repeat(PICTURE[..., None], 3, axis=2)
    for index in range(12):
        frame, uv = Frame(index, index, picture), PLACES.copy()
        uv[0] += (0.9 * index, 0)  # the image stands still
        tracks = tracker.look(frame, corners_of(frame, uv), None, None)
    assert np.linalg.norm(tracks.uv - uv[0], axis=1).min() > 3
    assert np.linalg.norm(tracks.uv - PLACES[:, None], axis=2).min(0).max() < 1.0


@pytest.mark.parametrize('share', [0.35])
def test_what_moves_is_not_published_as_if_it_stood_still(share):
    scenario = passing_object(share)
    judged = tracking.judge(drive(scenario)[0], tracking.exactly(scenario))
    assert tracking.moved(judged) < 0.05
    assert tracking.coverage(judged.pairs) > 0.6
