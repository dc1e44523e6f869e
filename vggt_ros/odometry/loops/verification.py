"""Is a loop true? A window that lies in the map twice, by its recent anchors and by its loop anchors, is judged here.

A false loop costs more than a missed one, so everything has to agree: the anchors' own gates, the drift that the loop
implies with the drift that is likely, the map around both places, and the next window too.

What tells a look-alike place from the same place, in the order of strength:

1. The drift that it implies against the accumulated uncertainty (Mahalanobis distance). Look-alikes lie a period
   apart; while the odometry is surer than that, they are refused.
2. Rivals: when the map itself holds several places that look alike and more than one is within the uncertainty, none
   is taken.
3. The map's surroundings: surfaces seen near the one place that hang in what was seen through near the other.

What tells nothing: the depth of the candidate in the window (the same pixels, the same surface), the spread of the loop
anchors and the agreement of windows in a row. All are as good for an exact look-alike as for the place itself; they
find only loops that the network placed at random. So a look-alike of a place that is met for the first time, whose
surroundings look alike as far as they were seen, and which lies within the uncertainty of the odometry, is taken for
the place: nothing seen could tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from vggt_ros import camera
from vggt_ros.odometry.windows.alignment import Alignment
from vggt_ros.similarity import Similarity

LIKELY = 0.999  # share of true drifts within the gate
RIVAL = 12.0  # difference of squared Mahalanobis distances from which a rival is out: 400 times less likely
ROTATION_FLOOR, TRANSLATION_FLOOR, SCALE_FLOOR = np.radians(0.5), 0.02, 0.02  # of one anchor: rad, of the depth, log


@dataclass(frozen=True, eq=False)
class DepthView:
    """A keyframe as a measuring device. T_map_camera: (4, 4). K: (3, 3) and depth: (h, w), map units, of one size."""

    T_map_camera: np.ndarray
    K: np.ndarray
    depth: np.ndarray


def moved(view: DepthView, correction: Similarity) -> DepthView:
    """The view where a correction of the map puts it."""
    return DepthView(correction.pose(view.T_map_camera), view.K, view.depth * correction.scale)


def conflict(
    first: Sequence[DepthView], second: Sequence[DepthView], tolerance: float = 0.1, stride: int = 8
) -> tuple[float, int]:
    """How much two sets of views of one map contradict each other.

    A contradiction is a surface of the one that hangs in what the other saw through.
    Returns the share of such samples among those that either agree within ``tolerance`` (of depth) or contradict, and
    their number. Surfaces hidden behind others contradict nothing. This is what finds a look-alike place out whose
    surroundings differ: views beyond it take part, and the network need not have seen them together.
    """
    agree = against = 0
    for ones, others in ((first, second), (second, first)):
        for one in ones:
            points = _surface(one, stride)
            for other in others:
                local = camera.transform(camera.invert(other.T_map_camera), points)
                local = local[local[:, 2] > 1e-6]
                uv = np.rint(camera.project(local, other.K)).astype(int)
                inside = np.all((uv >= 0) & (uv < other.depth.shape[::-1]), axis=1)
                with np.errstate(invalid='ignore', divide='ignore'):
                    ratio = local[inside, 2] / other.depth[uv[inside, 1], uv[inside, 0]]
                agree += int(np.sum(np.abs(ratio - 1) <= tolerance))
                against += int(np.sum(ratio < 1 - tolerance))
    return against / max(agree + against, 1), agree + against


def _surface(view: DepthView, stride: int) -> np.ndarray:
    """(N, 3) every ``stride``-th pixel's point in the map."""
    uv = camera.pixel_grid(camera.image_size(view.depth))[stride // 2 :: stride, stride // 2 :: stride]
    depth = view.depth[stride // 2 :: stride, stride // 2 :: stride]
    points = (camera.rays(uv, view.K) * depth[..., None])[depth > 0]
    return camera.transform(view.T_map_camera, points)


def drift_covariance(
    T_map_camera: np.ndarray, rotation_sigma: np.ndarray, translation_sigma: np.ndarray, scale_sigma: np.ndarray
) -> np.ndarray:
    """(7, 7) how far the last of a chain of cameras may be off, seen from the first: rotation vector, translation, log
    scale, in the map's axes.

    T_map_camera: (N, 4, 4), loop keyframe first, query last. Sigmas: per axis of each of the N - 1 steps, (N - 1,) or
    a number: radians, map units, log scale (0 with a metric source). Steps are taken as independent; a turn or a
    stretch on the way moves everything after it. After a loop was closed, lead the chain through it: it is shorter.
    """
    T = np.asarray(T_map_camera, np.float64)
    sigmas = np.broadcast_to(
        np.stack(np.broadcast_arrays(rotation_sigma, translation_sigma, scale_sigma), -1), (len(T) - 1, 3)
    )
    covariance = np.zeros((7, 7))
    for start, sigma in zip(T[:-1, :3, 3], sigmas, strict=True):
        lever = T[-1, :3, 3] - start
        J = np.eye(7)
        J[3:6, :3] = np.cross(np.eye(3), lever).T  # rotation vector x lever
        J[3:6, 6] = lever
        covariance += J @ np.diag(np.repeat(sigma, (3, 3, 1)) ** 2) @ J.T
    return covariance


class LoopVerdict(Enum):
    """What to do about a loop."""

    ACCEPT = 'accept'
    REJECT = 'reject'
    WAIT = 'wait'  # for the next window with the same candidate


@dataclass(frozen=True)
class LoopGates:
    """What a loop has to pass.

    Spreads and sigma hold for either alignment; twice each is how far two windows' corrections may lie apart.
    """

    inliers: float = 0.5  # least share of pixels of the loop anchors whose depth agrees with the map's within 5 %
    rotation_spread: float = float(np.radians(1.5))  # rad, most
    translation_spread: float = 0.03  # share of the depth, most
    scale_sigma: float = 0.03  # log, most
    conflict: float = 0.1  # most, see :func:`conflict`
    samples: int = 200  # fewest that it is based on
    windows: int = 2  # in a row that have to agree
    doubtful_windows: int = 3  # when the drift may exceed the depth of the view, or is unknown


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one window says about one loop.

    candidate: index of the loop keyframe, T_map_candidate: its pose (4, 4). T_map_query: (4, 4) the newest camera as
    the odometry has it. recent, loop: where the window lies, by its recent and by its loop anchors alone.
    depth: median depth of the view, map units. drift: :func:`drift_covariance` from the candidate to the query; None
    when it is unknown: the camera is lost, ``recent`` then places the window in a frame that began when it was.
    conflict: of the views around the query, moved by the :attr:`correction`, with the views around the candidate.
    rivals: (4, 4) poses in the map of other keyframes that look as much like the query.
    """

    candidate: int
    T_map_candidate: np.ndarray
    T_map_query: np.ndarray
    recent: Alignment
    loop: Alignment
    depth: float
    drift: np.ndarray | None
    conflict: tuple[float, int]
    rivals: Sequence[np.ndarray] = ()

    @property
    def correction(self) -> Similarity:
        """Takes the map around the query to where the loop says that it belongs."""
        return self.loop.similarity @ self.recent.similarity.inverse()


@dataclass(frozen=True, eq=False)
class Decision:
    """verdict, and what speaks against the loop, for people. correction: see :attr:`Evidence.correction`."""

    verdict: LoopVerdict
    reasons: tuple[str, ...]
    correction: Similarity = field(repr=False)


class LoopVerifier:
    """Judges window after window; remembers only the correction that the last ones agreed on."""

    def __init__(self, gates: LoopGates | None = None) -> None:
        self.gates = gates or LoopGates()
        self.clear()

    def clear(self) -> None:
        """Forget the windows so far: after an accepted loop, or when the camera is lost."""
        self._correction: Similarity | None = None
        self._windows = 0

    def judge(self, evidence: Evidence) -> Decision:
        """Accept, reject, or wait for another window. Candidates may change: what must agree is the correction."""
        correction, reasons = evidence.correction, objections(evidence, self.gates)
        if reasons:
            self.clear()
            return Decision(LoopVerdict.REJECT, reasons, correction)
        agrees = self._correction is not None and _agree(self._correction, correction, evidence, self.gates)
        self._windows = self._windows + 1 if agrees else 1
        self._correction = correction
        wide = evidence.drift is None or np.linalg.eigvalsh(evidence.drift[3:6, 3:6])[-1] > evidence.depth**2
        needed = self.gates.doubtful_windows if wide else self.gates.windows
        if self._windows < needed:
            return Decision(LoopVerdict.WAIT, (f'{self._windows} of {needed} windows agree',), correction)
        self.clear()
        return Decision(LoopVerdict.ACCEPT, (), correction)


def objections(evidence: Evidence, gates: LoopGates) -> tuple[str, ...]:
    """Everything that speaks against the loop in this one window; empty when nothing does."""
    found = []
    if evidence.loop.inliers < gates.inliers:
        found.append(f'only {evidence.loop.inliers:.0%} of the depth agrees')
    for name, alignment in (('recent', evidence.recent), ('loop', evidence.loop)):
        spread = alignment.translation_spread / evidence.depth
        if alignment.rotation_spread > gates.rotation_spread:
            found.append(f'{name} anchors differ by {np.degrees(alignment.rotation_spread):.1f} deg')
        if spread > gates.translation_spread:
            found.append(f'{name} anchors differ by {spread:.1%} of the depth')
        if alignment.scale_sigma > gates.scale_sigma:
            found.append(f'the scale by the {name} anchors is known to {alignment.scale_sigma:.1%} only')
    share, samples = evidence.conflict
    if samples < gates.samples:
        found.append('too little surface in common with the map')
    elif share > gates.conflict:
        found.append(f'{share:.0%} of the surface contradicts the map')
    distance = 0.0
    if evidence.drift is not None:
        distance = _distance(evidence, evidence.correction)
        if distance > chi2.ppf(LIKELY, 7):
            found.append(f'a drift {np.sqrt(distance):.1f} times as large as is likely')
    for T_map_rival in evidence.rivals:
        if _ambiguous(evidence, T_map_rival, distance):
            found.append('another place looks alike and is as likely')
            break
    return tuple(found)


def _covariance(evidence: Evidence) -> np.ndarray:
    """(7, 7) of the difference between the recent and the loop anchors' opinion: drift and both alignments."""
    assert evidence.drift is not None
    floor = [ROTATION_FLOOR] * 3 + [TRANSLATION_FLOOR * evidence.depth] * 3 + [SCALE_FLOOR]
    covariance = evidence.drift + 2 * np.diag(np.square(floor))
    order = np.r_[3:6, 0:3]
    covariance[:6, :6] += (evidence.recent.covariance + evidence.loop.covariance)[np.ix_(order, order)]
    covariance[6, 6] += evidence.recent.scale_sigma**2 + evidence.loop.scale_sigma**2
    return covariance


def _distance(evidence: Evidence, correction: Similarity) -> float:
    """Squared Mahalanobis distance of a correction, as it moves the query."""
    at = evidence.T_map_query[:3, 3]
    step = correction.transform(at) - at
    residual = np.concatenate([Rotation.from_matrix(correction.R).as_rotvec(), step, [np.log(correction.scale)]])
    return float(residual @ np.linalg.solve(_covariance(evidence), residual))


def _ambiguous(evidence: Evidence, T_map_rival: np.ndarray, distance: float) -> bool:
    """Whether the query may as well be at the rival: seen from there as it is from the candidate."""
    to_rival = T_map_rival @ camera.invert(evidence.T_map_candidate)
    T = to_rival @ evidence.correction.pose(evidence.T_map_query)
    if np.linalg.norm(T_map_rival[:3, 3] - evidence.T_map_candidate[:3, 3]) < 0.5 * evidence.depth:
        return False  # the same place, seen on another visit
    if evidence.drift is None:
        return True
    step = T @ camera.invert(evidence.T_map_query)
    return _distance(evidence, replace(Similarity.rigid(step), scale=evidence.correction.scale)) < distance + RIVAL


def _agree(a: Similarity, b: Similarity, evidence: Evidence, gates: LoopGates) -> bool:
    """Whether two corrections put the query at one place."""
    between = a @ b.inverse()
    at = evidence.loop.similarity.pose(np.eye(4))[:3, 3]
    step = between.transform(at) - at
    return bool(
        Rotation.from_matrix(between.R).magnitude() < 2 * gates.rotation_spread
        and np.linalg.norm(step) < 2 * gates.translation_spread * evidence.depth
        and abs(np.log(between.scale)) < 2 * gates.scale_sigma
    )
