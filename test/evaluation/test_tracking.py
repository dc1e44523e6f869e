"""What is said of tracks is true: planted errors come out exactly as they were put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vggt_ros.camera import invert, project, rays, transform
from vggt_ros.evaluation import downstream, plots, rows_tracks, runs, tracking, walks
from vggt_ros.evaluation.report import EvaluationSettings
from vggt_ros.evaluation.scenarios import PERIOD, ROOM, SIZE, K, Scenario, box_world, inside_box
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.trajectory import look_along, look_at
from vggt_ros.synthetic.truth import FrameTruth
from vggt_ros.synthetic.world import BOX, Builder, SyntheticWorld
from vggt_ros.types import Frame, Scale, Tracks

IMAGES = 20
MIDDLE = np.array([0.0, 0.0, 1.0])


def message(index: int, ids, uv, epoch: int = 0) -> Tracks:
    frame = Frame(index, (index + 1) * PERIOD, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K)
    count = len(ids)
    nothing, one = np.full((count, 3), np.nan), np.ones(count)
    ids, age = np.asarray(ids, np.uint64), np.zeros(count, np.uint32)
    return Tracks(frame, epoch, Scale.RELATIVE, ids, np.asarray(uv, float), one, one, age, nothing, nothing)


class Plane:
    """Points 40 px apart that all go on by a pixel an image; those of the last column also move by themselves."""

    speed = np.array([1.0, 0.0])
    own = np.array([0.0, 1.0])
    points = np.stack(np.meshgrid([10.0, 50.0, 90.0, 130.0], [20.0, 60.0, 100.0]), -1).reshape(-1, 2)
    mover = points[:, 0] == 130

    def at(self, index: int) -> np.ndarray:
        return self.points + index * self.speed + index * self.own * self.mover[:, None]

    def truth(self, image: int, uv: np.ndarray):
        later = np.arange(IMAGES - image)[:, None, None]
        distance = np.linalg.norm(uv[:, None] - self.at(image), axis=-1)
        moves = self.mover[distance.argmin(1)][:, None]
        still = uv + later * self.speed
        return still + later * self.own * moves, still, np.ones(still.shape[:2], bool)

    def tracks(self) -> list[Tracks]:
        return [message(index, np.arange(len(self.points)), self.at(index)) for index in range(IMAGES)]


PLANE = Plane()


def changed(tracks: list[Tracks], one: int, places: dict[int, np.ndarray | None]) -> list[Tracks]:
    """Another place of one id in some images; None: absent."""
    result = list(tracks)
    for index, place in places.items():
        kept = tracks[index].id != one
        uv = tracks[index].uv[kept]
        ids = tracks[index].id[kept]
        result[index] = message(index, ids, uv) if place is None else message(index, [*ids, one], [*uv, place])
    return result


def test_exact_tracks_are_right():
    judged = tracking.judge(PLANE.tracks(), PLANE.truth)
    assert tracking.identity(judged) == tracking.identity(judged, later_only=True) == 1.0
    assert tracking.switches(judged) == []
    assert tracking.returns(judged) == 0
    assert (tracking.lives(judged) == IMAGES).all()
    share, count = tracking.by_age(judged)
    assert (share == 1).all()
    assert (count == len(PLANE.points)).all()


def test_ids_of_another_epoch_are_other_tracks():
    tracks = [replace(one, epoch=index // 10) for index, one in enumerate(PLANE.tracks())]
    turned = [replace(one, id=one.id[::-1].copy()) if one.epoch else one for one in tracks]
    judged = tracking.judge(turned, PLANE.truth)
    assert tracking.identity(judged) == 1.0
    assert tracking.lives(judged).tolist() == [10] * 2 * len(PLANE.points)


def test_a_drift_is_wrong_from_where_it_exceeds_the_tolerance():
    drifted = {index: PLANE.at(index)[0] + [0.0, 0.5 * index] for index in range(IMAGES)}
    judged = tracking.judge(changed(PLANE.tracks(), 0, drifted), PLANE.truth)
    wrong = IMAGES - 7  # 3 px are reached in image 6
    pairs = IMAGES * len(PLANE.points)
    assert tracking.identity(judged) == pytest.approx(1 - wrong / pairs, abs=1e-12)
    assert tracking.identity(judged, later_only=True) == pytest.approx(
        1 - wrong / (pairs - len(PLANE.points)), abs=1e-12
    )
    assert sorted(tracking.lives(judged)) == [7] + [IMAGES] * (len(PLANE.points) - 1)
    assert tracking.switches(judged) == []
    share, _ = tracking.by_age(judged)
    assert share.tolist() == [1.0] * 7 + [1 - 1 / len(PLANE.points)] * wrong


def test_a_switch_is_found_when_it_lasts():
    def onto(images) -> list[Tracks]:
        return changed(PLANE.tracks(), 0, {index: PLANE.at(index)[5] + [1.0, 1.0] for index in images})

    judged = tracking.judge(onto(range(8, 20)), PLANE.truth)
    assert tracking.switches(judged) == tracking.switches(judged, living_only=True) == [(0, 5, 10)]
    assert tracking.identity(judged) == pytest.approx(1 - 12 / (IMAGES * len(PLANE.points)), abs=1e-12)
    assert tracking.switches(tracking.judge(onto(range(8, 11)), PLANE.truth)) == [(0, 5, 10)]
    assert tracking.switches(tracking.judge(onto(range(8, 10)), PLANE.truth)) == []
    # Two images there, one back, two there: it did not stay.
    assert tracking.switches(tracking.judge(onto((8, 9, 11, 12)), PLANE.truth)) == []


def test_a_switch_to_a_point_whose_track_has_ended_is_found():
    tracks = changed(PLANE.tracks(), 5, dict.fromkeys(range(6, IMAGES)))
    tracks = changed(tracks, 0, {index: PLANE.at(index)[5] for index in range(8, 20)})
    judged = tracking.judge(tracks, PLANE.truth)
    assert tracking.switches(judged) == [(0, 5, 10)]
    assert tracking.switches(judged, living_only=True) == []


def test_a_point_that_is_hidden_is_nobody_s_place():
    def hidden(image: int, uv: np.ndarray):
        exact, still, seen = PLANE.truth(image, uv)
        return exact, still, seen & (np.linalg.norm(uv - PLANE.at(image)[5], axis=1) > 1)

    tracks = changed(PLANE.tracks(), 0, {index: PLANE.at(index)[5] for index in range(8, 20)})
    assert tracking.switches(tracking.judge(tracks, hidden)) == []


def test_an_id_that_is_used_again_is_wrong_and_counted():
    again = dict.fromkeys(range(6, 9)) | {index: PLANE.at(index)[0] + [20.0, 20.0] for index in range(9, 14)}
    again |= dict.fromkeys(range(14, IMAGES))
    judged = tracking.judge(changed(PLANE.tracks(), 0, again), PLANE.truth)
    pairs = IMAGES * len(PLANE.points) - 9
    assert tracking.identity(judged) == pytest.approx(1 - 5 / pairs, abs=1e-12)
    assert tracking.returns(judged) == 1
    assert tracking.switches(judged) == []
    assert min(tracking.lives(judged)) == 6


def test_a_gap_is_neither_wrong_nor_life():
    judged = tracking.judge(changed(PLANE.tracks(), 0, dict.fromkeys(range(6, 9))), PLANE.truth)
    assert tracking.identity(judged) == 1.0
    assert tracking.returns(judged) == 0
    assert min(tracking.lives(judged)) == IMAGES - 3


def test_tracks_on_a_moving_object_count_once_it_has_moved():
    judged = tracking.judge(PLANE.tracks(), PLANE.truth)
    # A quarter of the points moves by a pixel an image: by more than 3 px from image 4 on.
    assert tracking.moved(judged) == pytest.approx(0.25 * (IMAGES - 4) / IMAGES, abs=1e-12)
    still = [message(one.frame.index, one.id[~PLANE.mover], one.uv[~PLANE.mover]) for one in PLANE.tracks()]
    assert tracking.moved(tracking.judge(still, PLANE.truth)) == 0.0


def test_coverage_counts_cells_and_starts_with_the_first_tracks():
    width, height = SIZE[0] / 8, SIZE[1] / 6
    uv = [[-0.4, -0.4], [0.5 * width, 0.5 * height], [7.5 * width, 5.5 * height]]
    tracks = [message(0, [], np.zeros((0, 2))), message(1, [0, 1, 2], uv), message(2, [], np.zeros((0, 2)))]
    pairs = tracking.published(tracks)
    assert tracking.coverage(pairs) == pytest.approx(2 / 48 / 2, abs=1e-12)
    held = tracking.occupancy(pairs)
    assert held.shape == (6, 8)
    assert held[0, 0] == held[5, 7] == 0.5
    assert held.sum() == 1.0


def test_nothing_published_is_no_identity_and_no_coverage():
    for tracks in ([], [message(0, [], np.zeros((0, 2)))]):
        judged = tracking.judge(tracks, PLANE.truth)
        assert tracking.identity(judged) == tracking.coverage(judged.pairs) == tracking.moved(judged) == 0.0
        assert tracking.switches(judged) == []
        assert len(tracking.lives(judged)) == 0


@pytest.mark.parametrize(
    ('tracks', 'what'),
    [
        ([message(1, [0], [[5, 5]]), message(1, [0], [[6, 5]])], 'order'),
        ([message(0, [4, 4], [[5, 5], [9, 9]])], 'twice'),
        ([message(0, [4], [[5, np.nan]])], 'without a pixel'),
    ],
)
def test_what_must_never_be_published_is_refused(tracks, what):
    with pytest.raises(ValueError, match=what):
        tracking.published(tracks)


def test_ids_of_64_bits_are_told_apart():
    tracks = [message(0, np.array([2**63, 2**63 + 1], np.uint64), [[5, 5], [9, 9]])]
    assert len(tracking.published(tracks).first) == 2


def unfilmed(world: SyntheticWorld, T: np.ndarray) -> Scenario:
    """A scenario whose pictures are black, its truth that of the world at 10 images a second."""
    frames = [message(index, [], np.zeros((0, 2))).frame for index in range(len(T))]
    truths = [FrameTruth(one, K, inside_box(one, *ROOM)) for one in T]
    return Scenario(frames, T, truths, Scene.pack(world, np.arange(len(T)) * PERIOD * 1e-9))


def test_the_truth_of_a_world_follows_surfaces_and_things_that_move():
    speed = 0.05  # m an image, to the right of the camera at the beginning

    def furnish(builder: Builder, palette: Palette) -> None:
        plain = builder.material(palette.texture('plain'), palette.wall(), 1.0)
        thing = builder.object('thing')
        # So slow a swing is a straight line within a micrometre.
        builder.add(BOX, thing, (0.0, 1.0, 1.5), (0.3, 0.1, 0.3), plain)
        builder.move(thing, (0.0, 0.0, 0.0), (1000.0, 0.0, 0.0), 0.0, speed * 10 / 1000 / (2 * np.pi))

    x = np.linspace(0, 0.5, 6)
    position = np.stack([x, -x, np.full(6, 1.5)], axis=1)
    T = look_at(position, position + np.array([0.0, 1.0, 0.0]))
    scenario = unfilmed(box_world(*ROOM, furnish=furnish), T)
    wall, thing = np.array([30.0, 40.0]), project(transform(invert(T[2]), np.array([0.1, 0.9, 1.4])), K)
    own, still, seen = tracking.exactly(scenario)(2, np.stack([wall, thing]))
    on_wall = transform(T[2], rays(wall, K) * 3.2)
    assert on_wall[1] == pytest.approx(3.0)
    for row, index in enumerate(range(2, 6)):
        for found in (own, still):
            assert found[row, 0] == pytest.approx(project(transform(invert(T[index]), on_wall), K), abs=1e-3)
        point = np.array([0.1, 0.9, 1.4])
        assert still[row, 1] == pytest.approx(project(transform(invert(T[index]), point), K), abs=1e-3)
        point[0] += speed * row
        assert own[row, 1] == pytest.approx(project(transform(invert(T[index]), point), K), abs=1e-3)
    assert seen.all()


def test_a_place_in_the_sky_is_a_direction():
    world = make_world('street', 3)
    T = look_along(np.arange(3)[:, None] * np.ones(3) + [0, 0, 50.0], np.array([0.0, 0.1, 0.2]), np.full(3, 0.5))
    own, still, _ = tracking.exactly(unfilmed(world, T))(1, np.array([[100.0, 20.0]]))
    direction = T[1, :3, :3] @ rays(np.array([100.0, 20.0]), K)
    assert own[:, 0] == pytest.approx(np.stack([project(direction @ one[:3, :3], K) for one in T[1:]]), abs=1e-9)
    assert (own == still).all()


def test_without_a_rendered_world_there_is_no_truth():
    scenario = replace(unfilmed(box_world(*ROOM), arc(2)), scene=None)
    with pytest.raises(ValueError, match='not rendered'):
        tracking.exactly(scenario)


def test_a_clip_has_every_image_and_stays_small(tmp_path, monkeypatch):
    cv2 = pytest.importorskip('cv2', minversion='4.11')
    rng = np.random.default_rng(0)
    noisy = [
        replace(one, frame=replace(one.frame, image=rng.integers(0, 255, one.frame.image.shape, np.uint8)))
        for one in PLANE.tracks()
    ]
    lengths = []
    for limit in (plots.CLIP_BYTES, 800_000):
        monkeypatch.setattr(plots, 'CLIP_BYTES', limit)
        plots.write_clip(noisy, tmp_path / 'clip.gif')
        assert (tmp_path / 'clip.gif').stat().st_size <= limit
        lengths.append(len(cv2.imreadanimation(str(tmp_path / 'clip.gif'))[1].frames))
    assert lengths[0] > lengths[1] > 0


def arc(count: int) -> np.ndarray:
    angle = np.linspace(-0.5, 0.5, count)
    position = np.stack([4 * np.sin(angle), -4 * np.cos(angle), 1 + 0.3 * np.sin(5 * angle)], axis=1)
    return look_at(position, MIDDLE)


def filmed(T: np.ndarray, points: np.ndarray) -> list[Tracks]:
    """Exact tracks of points (N, 3), in the images in which they are."""
    tracks = []
    for index, one in enumerate(T):
        uv = project(transform(invert(one), points), K)
        inside = ((uv >= 0) & (uv <= np.array(SIZE) - 1)).all(1)
        tracks.append(message(index, np.flatnonzero(inside), uv[inside]))
    return tracks


def test_exact_tracks_give_exact_poses():
    pytest.importorskip('pycolmap')
    T, points = arc(24), np.random.default_rng(0).uniform(-1.5, 1.5, (120, 3)) + MIDDLE
    found = downstream.poses_from_tracks(filmed(T, points), K)
    assert np.isfinite(found).all()
    assert runs.ate(found, T)[0] < 1e-3


def test_wrong_tracks_do_not_spoil_the_poses_of_the_others():
    pytest.importorskip('pycolmap')
    rng = np.random.default_rng(1)
    T, points = arc(24), rng.uniform(-1.5, 1.5, (120, 3)) + MIDDLE
    tracks = filmed(T, points)
    late = [
        replace(one, uv=np.where((one.id < 20)[:, None] & (one.frame.index > 10), one.uv[::-1], one.uv))
        for one in tracks
    ]
    found = downstream.poses_from_tracks(late, K)
    assert np.isfinite(found).all()
    assert runs.ate(found, T)[0] < 1e-3


def test_tracks_that_are_not_there_give_no_poses():
    tracks = [message(index, [], np.zeros((0, 2))) for index in range(12)]
    assert np.isnan(downstream.poses_from_tracks(tracks, K)).all()


def test_exact_tracks_reach_every_goal_and_are_drawn(monkeypatch, tmp_path):
    pytest.importorskip('pycolmap')
    T, points = arc(24), np.random.default_rng(2).uniform(-1.5, 1.5, (300, 3)) + MIDDLE
    tracks, scenario = filmed(T, points), unfilmed(box_world(*ROOM), T)

    def truth(image: int, uv: np.ndarray):
        nearest = np.linalg.norm(uv[:, None] - project(transform(invert(T[image]), points), K), axis=-1).argmin(1)
        later = np.stack([project(transform(invert(one), points[nearest]), K) for one in T[image:]])
        return later, later, np.ones(later.shape[:2], bool)

    def tracked(network, *_) -> rows_tracks.Tracked:
        if isinstance(network, rows_tracks.Network):
            return rows_tracks.Tracked(scenario, tracks, 5, tracking.judge(tracks, truth))
        # KLT alone ends every track after 8 images, and is a pixel off.
        rng = np.random.default_rng(3)
        short = [
            replace(
                one, id=one.id + np.uint64(1000 * (one.frame.index // 8)), uv=one.uv + rng.normal(size=one.uv.shape)
            )
            for one in tracks
        ]
        return rows_tracks.Tracked(scenario, short, 0, tracking.judge(short, truth))

    monkeypatch.setattr(rows_tracks, 'STRETCH', len(T))
    monkeypatch.setattr(rows_tracks, 'follow', lambda scenario, network, seed: tracked(network))
    monkeypatch.setattr(rows_tracks, 'klt', lambda scenario: tracked(None))
    monkeypatch.setattr(rows_tracks, '_among_pillars', tracked)
    monkeypatch.setattr(walks, 'unseen', lambda seed: scenario)
    monkeypatch.setattr(rows_tracks.hazards, 'passing_object', lambda share: scenario)
    figures = {}
    for measure in rows_tracks.ROWS.values():
        findings = measure(EvaluationSettings(1))
        figures |= {row.test.partition(':')[0]: row.figure for row in findings.rows}
        assert [row.test for row in findings.rows if row.reached is False] == []
        assert any(row.reached for row in findings.rows)
        for name, draw in findings.pictures.items():
            draw(tmp_path / name)
    names = {'tracks_identity.png', 'tracks_coverage.png', 'tracks.jpg', 'tracks.gif'}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert figures['vggt-tiny, 1 unseen worlds'].startswith('1.000 (1.000); ')
    assert figures['vggt-tiny, the same'].startswith('0 (0); 0; ')
