"""A window's poses refined by corners, against a room whose every corner is known exactly."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.ndimage import zoom
from scipy.spatial.transform import Rotation

from exact import ROOM, SIZE, K, depth_of, look
from vggt_ros import camera
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.refine import RefineConfig, Refined, Slot, refine

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
        return Slot(given, corners, depth, K, MAP, 5.0 if fixed else 1.0, fixed)

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
        assert refined.log_depth[number] == 0.0
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
    assert refined.log_depth[5] == 0.0
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
    assert refined.log_depth[4] == 0.0


def test_a_frames_own_depth_factor_is_found():
    draw = Draw(own=0.05)
    refined = draw.refine()
    # Three anchors of weight 5 and three new frames against one: nearly all of the difference is the frame's own.
    found, true = refined.log_depth[3:], -np.log(draw.own_factors[3:])
    assert np.abs(true).max() > 0.04
    np.testing.assert_allclose(found, true, atol=0.2 * 0.05)
    np.testing.assert_array_equal(refined.log_depth[:3], 0.0)


def test_one_neighbour_is_believed_by_about_half():
    draw = Draw(anchors=1, new=1, disturb=0.0)
    slots = [replace(draw.slots[0], weight=1.0), draw.slots[1]]
    slots[1] = replace(slots[1], depth=slots[1].depth * 1.02)
    refined = refine(slots, 1e-4, 1e-4)
    assert 0.3 < -refined.log_depth[1] / np.log(1.02) < 0.7


def test_the_own_depth_does_not_decide_the_own_place():
    """With corners that only the frame itself knows the depth of, there is nothing to hold on to."""
    draw = Draw(anchors=1, new=1)
    slots = [replace(draw.slots[0], depth=None), draw.slots[1]]
    np.testing.assert_array_equal(refine(slots, ROTATION, TRANSLATION).T_map_camera[1], slots[1].T_map_camera)


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
