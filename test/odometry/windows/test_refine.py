"""A window's poses refined by corners, against a room whose every corner is known exactly."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from exact import ROOM, SIZE, K, depth_of, look
from vggt_ros import camera
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.windows.observations import Slot
from vggt_ros.odometry.windows.refine import Refined, refine
from vggt_ros.odometry.windows.weighing import RefineConfig
from vggt_ros.types import Accuracy

MAP = camera.fit(SIZE, 126)
UNIT = max(SIZE) / 518  # source pixels per px at 518
DEPTH = 3.5  # about the median of what the cameras see
ROTATION, TRANSLATION = np.radians(0.5), 0.01 * DEPTH


def poses_of(count):
    """Sideways past a corner of the room, turning slowly."""
    s = np.linspace(0, 1, count)
    return np.stack([look([-1 + 0.9 * t, -1 + 0.5 * t, 1.4 + 0.1 * t], 0.3 + 0.25 * t) for t in s])


@dataclass
class Draw:
    """Three anchors that stay and four new frames; what is wrong with them.

    pixel: px at 518, per corner. depth: log depth of anchors (smooth over the image). own: log of each new frame's own
    depth factor. wrong: share of corners that are on something else. disturb: in units of ROTATION and TRANSLATION.
    """

    seed: int = 0
    anchors: int = 3
    new: int = 4
    corners: int = 250
    pixel: float = 0.0
    depth: float = 0.0
    own: float = 0.0
    wrong: float = 0.0
    disturb: float = 1.0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        count = self.anchors + self.new
        self.truth = poses_of(count)
        directions = rng.normal(size=(self.corners, 3))
        centre = self.truth[count // 2][:3, 3]
        # Corners on the walls, where the middle frame looks.
        directions = camera.rays(rng.uniform((-20, -15), (SIZE[0] + 20, SIZE[1] + 15), (self.corners, 2)), K)
        directions = directions @ self.truth[count // 2][:3, :3].T
        exits = np.where(directions > 0, ROOM[1] - centre, ROOM[0] - centre) / directions
        self.points = centre + directions * exits.min(1, keepdims=True)
        self.own_factors = np.exp(rng.normal(0, self.own, count))
        self.own_factors[: self.anchors] = 1.0
        self.slots = [self._slot(rng, number) for number in range(count)]

    def _slot(self, rng, number):
        T = self.truth[number]
        uv = camera.project(camera.transform(camera.invert(T), self.points), K)
        uv = uv + rng.normal(0, self.pixel * UNIT, uv.shape) if self.pixel else uv
        wrong = rng.random(len(uv)) < self.wrong
        uv[wrong] += rng.uniform(10, 30, (wrong.sum(), 1)) * UNIT * self._direction(rng, wrong.sum())
        with np.errstate(invalid='ignore'):
            seen = ((uv > 1) & (uv < np.array(SIZE) - 2)).all(1)
        corners = Corners(number, number + 1, SIZE, np.flatnonzero(seen), uv[seen], 100.0, 0.0)
        depth = depth_of(T, MAP.K_to_network(K), MAP.size) * self.own_factors[number]
        fixed = number < self.anchors
        if self.depth:
            coarse = rng.normal(0, self.depth, (5, 6))
            depth = depth * np.exp(zoom(coarse, np.array(depth.shape) / coarse.shape, order=1))
        given = T.copy()
        if not fixed:
            given[:3, 3] += self.disturb * rng.normal(0, TRANSLATION, 3)
            turn = Rotation.from_rotvec(self.disturb * rng.normal(0, ROTATION, 3))
            given[:3, :3] = turn.as_matrix() @ T[:3, :3]
        return Slot(given, corners, depth, K, MAP, weight=5.0 if fixed else 1.0, known=fixed, fixed=fixed)

    @staticmethod
    def _direction(rng, count):
        angle = rng.uniform(0, 2 * np.pi, count)
        return np.stack([np.cos(angle), np.sin(angle)], 1)

    def refine(self, config=None) -> Refined:
        return refine(self.slots, ROTATION, TRANSLATION, config)

    def errors(self, poses):
        """(new, 6) truth minus poses: translation, rotation, map axes."""
        rows = []
        for T, estimate in zip(self.truth[self.anchors :], poses[self.anchors :], strict=True):
            turn = Rotation.from_matrix(T[:3, :3] @ estimate[:3, :3].T).as_rotvec()
            rows.append([*(T[:3, 3] - estimate[:3, 3]), *turn])
        return np.array(rows)

    @property
    def before(self):
        return self.errors(np.stack([slot.T_map_camera for slot in self.slots]))


def rms(errors):
    """Root mean square of (translation, rotation) over all rows."""
    return np.sqrt((errors[..., :3] ** 2).mean()), np.sqrt((errors[..., 3:] ** 2).mean())


def gain(**options):
    """By what factor translation and rotation errors shrink, pooled over draws."""
    draws = [Draw(seed, **options) for seed in range(8)]
    before = np.concatenate([draw.before for draw in draws])
    after = np.concatenate([draw.errors(draw.refine().T_map_camera) for draw in draws])
    return np.array(rms(before)) / rms(after)


def test_exact_corners_pull_back_to_the_truth():
    # The prior leaves the rest, and the other new frames' depth, which hangs on poses that are wrong as well.
    translation, rotation = gain()
    assert translation > 2.5
    assert rotation > 2.5


@pytest.mark.parametrize('factor', [1.04, 0.96])
def test_corners_tell_the_focal_length(factor):
    """All frames are taken for those of another lens, and their depth is that of a network that knows better."""
    wrong, found = K @ np.diag([factor, factor, 1]), []
    for seed in range(8):
        slots = [replace(slot, K=wrong) for slot in Draw(seed, pixel=0.6).slots]
        found.append(refine(slots, ROTATION, TRANSLATION, focal_sigma=0.05).focal)
    logs, informations = np.array(found).T
    assert np.median(logs) == pytest.approx(-np.log(factor), rel=0.2)
    assert (informations > 0.025**-2).all()
    assert ((logs + np.log(factor)) ** 2 * informations).mean() < 1, 'as sure as it is right'
    assert Draw().refine().focal is None, 'nobody asked'


def test_corners_of_one_place_tell_no_focal_length():
    """The camera neither turns nor moves: every length fits."""
    draw = Draw(pixel=0.3, disturb=0.0)
    slots = [replace(draw.slots[0], known=number < 3, fixed=number < 3) for number in range(6)]
    found = refine(slots, ROTATION, TRANSLATION, focal_sigma=0.05).focal
    assert 0 <= found.information < 0.5**-2


def test_noisy_corners_pull_back():
    """One px at 518 of noise and 2 % of smooth error in every depth map."""
    translation, rotation = gain(pixel=1.0, depth=0.02)
    assert translation > 2
    assert rotation > 2


def test_an_undisturbed_window_stays():
    draw = Draw(disturb=0.0)
    np.testing.assert_allclose(draw.refine().T_map_camera, draw.truth, atol=2e-4)


def test_fixed_slots_never_move():
    draw = Draw(pixel=2.0, depth=0.03, wrong=0.2)
    # An anchor that is wrong stays as well: the map is not changed here.
    T = draw.slots[1].T_map_camera.copy()
    T[:3, 3] += 0.05
    draw.slots[1] = replace(draw.slots[1], T_map_camera=T)
    given = [slot.T_map_camera.copy() for slot in draw.slots]
    refined = draw.refine()
    for number in range(3):
        np.testing.assert_array_equal(refined.T_map_camera[number], given[number])
        assert refined.covariances[number] is None
    for slot, T in zip(draw.slots, given, strict=True):
        np.testing.assert_array_equal(slot.T_map_camera, T)  # nor is the input touched


@pytest.mark.parametrize('missing', ['none', 'empty', 'few', 'strangers'])
def test_a_frame_without_corners_stays_bit_exact(missing):
    draw = Draw()
    corners = draw.slots[5].corners
    rows = {'none': 0, 'empty': 0, 'few': 11, 'strangers': len(corners)}[missing]
    ids = corners.id[:rows] + (10_000 if missing == 'strangers' else 0)
    given = None if missing == 'none' else replace(corners, id=ids, uv=corners.uv[:rows])
    draw.slots[5] = replace(draw.slots[5], corners=given)
    refined = draw.refine()
    np.testing.assert_array_equal(refined.T_map_camera[5], draw.slots[5].T_map_camera)
    assert refined.covariances[5] is None
    assert refined.log_depth[5] is None
    assert refined.ties[5] == 0
    assert refined.ties[4] > 100
    others = [row for row in range(4) if row != 5 - draw.anchors]
    assert rms(draw.errors(refined.T_map_camera)[others])[0] < rms(draw.before[others])[0] / 2


def test_without_any_corners_or_depth_nothing_happens():
    draw = Draw()
    for change in ({'corners': None}, {'depth': None}):
        slots = [replace(slot, **change) for slot in draw.slots]
        refined = refine(slots, ROTATION, TRANSLATION)
        np.testing.assert_array_equal(refined.T_map_camera, [slot.T_map_camera for slot in slots])
        assert refined.covariances == [None] * 7


def test_wrong_corners_do_not_break_it():
    """30 % of the corners are 10 to 30 px at 518 off."""
    draws = [Draw(seed, pixel=0.5, wrong=0.3) for seed in range(8)]
    before = np.concatenate([draw.before for draw in draws])
    after = np.concatenate([draw.errors(draw.refine().T_map_camera) for draw in draws])
    assert rms(after)[0] < rms(before)[0] / 2
    assert rms(after)[1] < rms(before)[1] / 2
    assert np.abs(after[:, :3]).max() < 2.5 * TRANSLATION
    assert np.abs(after[:, 3:]).max() < 2.5 * ROTATION


def test_corners_that_all_moved_together_cannot_carry_a_frame_away():
    """Everything the camera sees moved by more than five standard deviations: the frame stays where it was."""
    draw = Draw(disturb=0.0)
    corners = draw.slots[4].corners
    draw.slots[4] = replace(draw.slots[4], corners=replace(corners, uv=corners.uv + np.array([60 * UNIT, 0])))
    refined = draw.refine()
    np.testing.assert_array_equal(refined.T_map_camera[4], draw.slots[4].T_map_camera)
    assert refined.covariances[4] is None
    assert refined.log_depth[4] is None
    assert refined.ties[4] == 0


def corrected(draw, refined, number):
    """Log of a slot's corrected depth over the truth, on every pixel."""
    factor = refined.depth_factor(number, draw.slots[number].depth.shape)
    return np.log(draw.slots[number].depth * factor / depth_of(draw.truth[number], MAP.K_to_network(K), MAP.size))


def test_a_frames_own_depth_factor_is_found():
    draw = Draw(own=0.05)
    refined = draw.refine()
    assert np.abs(np.log(draw.own_factors[3:])).max() > 0.04
    for number in range(3, 7):
        assert np.abs(corrected(draw, refined, number)).max() < 0.2 * 0.05


def test_parallax_tells_the_depth_that_all_frames_have_wrong():
    """Two anchors at known places and exact pixels; every depth map, the anchors' too, is a tenth too large."""
    draw = Draw(anchors=2)
    draw.slots = [replace(slot, depth=1.1 * slot.depth, weight=1.0) for slot in draw.slots]
    refined = draw.refine(RefineConfig(frame=0.2))
    for number in range(6):
        assert abs(np.median(corrected(draw, refined, number))) < 0.02
    assert rms(draw.errors(refined.T_map_camera))[0] < rms(draw.before)[0] / 2


def test_smooth_errors_of_depth_are_bent_away():
    """A network whose depth is 15 % off, smoothly, on all frames; hardly any pose is known."""
    draws = [Draw(seed, depth=0.15, own=0.05) for seed in range(4)]
    config = RefineConfig.of(Accuracy(depth=0.05, surface=0.15))
    before, after = [], []
    for draw in draws:
        refined = draw.refine(config)
        before += [
            np.log(draw.slots[number].depth / depth_of(draw.truth[number], MAP.K_to_network(K), MAP.size))
            for number in range(3, 7)
        ]
        after += [corrected(draw, refined, number) for number in range(3, 7)]
    assert np.mean(np.abs(after)) < 0.6 * np.mean(np.abs(before))


def test_without_parallax_the_weight_of_the_depth_decides():
    """Two frames at one place: the new one takes over what the one of the map says, nearly all of it."""
    draw = Draw(anchors=1, new=1, disturb=0.0)
    here, there = draw.slots
    there = replace(
        there, T_map_camera=here.T_map_camera, corners=replace(here.corners, index=1), depth=1.02 * here.depth
    )
    refined = refine([replace(here, weight=1.0), there], 1e-4, 1e-4)
    assert 0.85 < -refined.log_depth[1].mean() / np.log(1.02) < 1.0


def test_the_depth_that_a_window_gave_a_known_frame_is_bent_to_its_points():
    draw = Draw(disturb=0.3)
    draw.slots[1] = replace(draw.slots[1], fresh=draw.slots[1].depth * 1.07)
    refined = draw.refine()
    np.testing.assert_allclose(refined.log_depth[1], -np.log(1.07), atol=0.01)
    np.testing.assert_allclose(refined.log_depth[0], 0, atol=0.01)


def test_free_frames_of_the_map_move_less_than_new_ones():
    """Nothing is fixed but the first: a pose that is worth a hundred windows gives way a hundred times as hard."""
    draw = Draw(depth=0.01, pixel=0.5)
    slots = [
        draw.slots[0],
        *(replace(slot, fixed=False, pose_weight=100.0) for slot in draw.slots[1:3]),
        *draw.slots[3:],
    ]
    T = refine(slots, ROTATION, TRANSLATION).T_map_camera
    moved = [np.linalg.norm(T[n, :3, 3] - slots[n].T_map_camera[:3, 3]) for n in range(7)]
    assert moved[0] == 0
    assert 0 < max(moved[1:3]) < 0.3 * TRANSLATION
    assert rms(draw.errors(T))[0] < rms(draw.before)[0] / 2


def nees(new, **options):
    """Normalised error squared per degree of freedom of the new frames, over draws."""
    values = []
    for seed in range(25):
        draw = Draw(seed, new=new, corners=120, **options)
        refined = draw.refine()
        for error, covariance in zip(draw.errors(refined.T_map_camera), refined.covariances[3:], strict=True):
            assert covariance is not None
            np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
            values.append(error @ np.linalg.solve(covariance, error) / 6)
    return float(np.mean(values))


def test_covariance_holds_for_noise_as_large_as_is_believed():
    """Independent from corner to corner, where less is believed: smaller than claimed rather than larger."""
    assert 0.4 < nees(1, pixel=RefineConfig().pixel) < 1.4


def test_covariance_is_on_the_safe_side_for_noise_as_it_is():
    """Half a px, smooth errors of depth: 1.5 to 2 standard deviations are claimed for one."""
    assert 0.15 < nees(4, pixel=0.5, depth=0.02) < 1.0
    assert 0.15 < nees(4, pixel=0.5, depth=0.015, own=0.015) < 1.0
