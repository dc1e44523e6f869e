"""One world: the odometry with a memory. Loops are closed; a camera that is lost finds back, or begins a new map.

Keyframes that look like the newest one join the next windows as guests. Where the guests alone would put a window is
compared with where the odometry puts it, and when everything agrees (see verification.py) the map is bent, or the lost
camera is put back. While the camera is lost a map of its own goes on, for two reasons: windows have something to hang
on, so that several can be compared; and when nothing is recognised in time, that map is the world from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vggt_ros.odometry.alignment import Alignment, AlignmentError, Similarity
from vggt_ros.odometry.anchors import Keyframe
from vggt_ros.odometry.closing import Loops
from vggt_ros.odometry.config import NO_HINTS, Hints, OdometryConfig
from vggt_ros.odometry.covariance import UNKNOWN
from vggt_ros.odometry.gravity import Gravity
from vggt_ros.odometry.loops import Candidate, LoopConfig, PlaceIndex
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.placing import CornersOf, Placed, align_keyframes
from vggt_ros.odometry.posegraph import compose
from vggt_ros.odometry.scale import NoMeasurement, ScaleFilter, ScaleMeasurement
from vggt_ros.odometry.verification import Decision, Evidence, LoopVerifier, Verdict, View, conflict, moved
from vggt_ros.odometry.window import PredictionError, Window
from vggt_ros.types import Estimate, Frame, Scale, State, WindowPrediction

GUESTS = 3  # places that a lost camera is compared with at once
AROUND = 5  # keyframes around a place that tell what it looks like


class LostError(AlignmentError):
    """The window was placed, but nobody knows where in the map."""


@dataclass
class _Lost:
    """The camera is lost. own: a map that began since then, and the estimates that became its keyframes; since: stamp;
    query: what the newest frame looks like.
    """

    own: Odometry
    since: int
    query: np.ndarray
    added: list[Estimate] = field(default_factory=list)


@dataclass(frozen=True)
class WorldConfig:
    """loops: whether places are recognised. lost_timeout: s after which a lost camera begins a new map, 0 = never."""

    loops: bool = True
    lost_timeout: float = 10.0


class World:
    """Windows in, estimates in one map out; see :class:`Odometry`, whose methods it has. Not thread-safe.

    corrections: how keyframes moved in the last update or measurement, by frame index; empty as a rule. added: the
    estimates of the last update that became keyframes.
    """

    def __init__(self, config: OdometryConfig | None = None, world: WorldConfig | None = None) -> None:
        self._odometry = Odometry(config)
        self._config = world or WorldConfig()
        self._clear()

    def _clear(self) -> None:
        self._places = PlaceIndex(LoopConfig(capacity=2 * self.config.keyframes))
        self._verifier = LoopVerifier()
        self._loops = Loops()
        self._candidate: Candidate | None = None
        self._lost: _Lost | None = None
        self.reasons: tuple[str, ...] = ()
        self.corrections: dict[int, Similarity] = {}
        self.added: list[Estimate] = []

    @property
    def config(self) -> OdometryConfig:
        """Of the odometry."""
        return self._odometry.config

    @property
    def state(self) -> State:
        """What the world believes about itself."""
        return State.LOST if self._lost is not None else self._odometry.state

    @property
    def scale(self) -> Scale:
        """What a length means."""
        return self._odometry.scale

    @property
    def epoch(self) -> int:
        """Maps begun before this one."""
        return self._odometry.epoch

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        """The map."""
        return self._odometry.keyframes

    @property
    def latest(self) -> Keyframe | None:
        """The frame published last."""
        return self._odometry.latest

    @property
    def metres(self) -> ScaleFilter:
        """Metres per map unit, and who says so."""
        return self._odometry.metres

    @property
    def gravity(self) -> Gravity:
        """Down in the first camera's frame, and on whose word."""
        return self._odometry.gravity.gravity

    @property
    def placed(self) -> Placed | None:
        """The last window that was believed; None while lost."""
        return None if self._lost is not None else self._odometry.placed

    def reset(self) -> None:
        """Forget everything and begin a new epoch."""
        self._odometry.reset()
        self._clear()

    def shrink(self, window: int) -> None:
        """See at most this many frames at once from now on."""
        for odometry in self._chains():
            odometry.shrink(window)

    def _chains(self) -> list[Odometry]:
        return [self._odometry] if self._lost is None else [self._odometry, self._lost.own]

    def plan(self, new: Sequence[Frame], companions: Sequence[Frame] = ()) -> Window | None:
        """The window for these new frames, oldest first; None while there are too few frames to begin."""
        if self._lost is not None:
            return self._lost.own.plan(new, self._guests(), companions)
        return self._odometry.plan(new, self._guests(), companions)

    def update(
        self,
        window: Window,
        prediction: WindowPrediction,
        corners: CornersOf = lambda index: None,
        hints: Hints = NO_HINTS,
    ) -> list[Estimate]:
        """Place the window: see :meth:`Odometry.update`. Raises LostError while nobody knows where the camera is."""
        self.corrections, self.added = {}, []
        newest = window.new_slots[-1]
        if self._lost is not None:
            return self._while_lost(self._lost, window, prediction, corners, hints)
        try:
            estimates = self._odometry.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError):
            self.reasons = self._odometry.reasons
            if self._odometry.state is State.LOST:
                query = prediction.descriptor[newest]
                self._lost = _Lost(Odometry(self.config), window.frames[newest].stamp, query)
                self._verifier.clear()
            raise
        self.reasons, self.added = self._odometry.reasons, self._odometry.added
        if hints.held or not self._config.loops:
            return estimates
        if window.guests:
            estimates = self._recognise(window, prediction, estimates)
        self._index()
        return estimates

    def measure(self, answers: Iterable[ScaleMeasurement | NoMeasurement]) -> None:
        """What metric sources say about the last window: see :meth:`Odometry.measure`."""
        moved = self._odometry.measure(answers)
        if moved is not None:
            self._all_moved(moved)

    def level(self, gravity: Gravity, estimate: Estimate | None = None) -> None:
        """Which way is down: see :meth:`Odometry.level`."""
        if self._lost is not None:
            self._lost.own.level(gravity)
        elif (turned := self._odometry.level(gravity, estimate)) is not None:
            self._all_moved(turned)

    def _all_moved(self, moved: Similarity) -> None:
        for keyframe in self.keyframes:
            index = keyframe.frame.index
            before = self.corrections.get(index)
            self.corrections[index] = moved if before is None else compose(moved, before)

    # Loops -------------------------------------------------------------------------------------------------------

    def _guests(self) -> list[Keyframe]:
        """Keyframes that may show the same place as the new frames."""
        if not self._config.loops:
            return []
        at = {keyframe.frame.index: number for number, keyframe in enumerate(self.keyframes)}
        if self._lost is not None:
            found = self._places.relocalise(self._lost.query, GUESTS) if len(self._places) else ()
            self._candidate = found[0] if found else None
            return [] if self._candidate is None else self._with_neighbour(at, self._candidate.index, GUESTS)
        if self._candidate is None or self._candidate.index not in at:
            return []
        return self._with_neighbour(at, self._candidate.index, 2)

    def _with_neighbour(self, at: dict[int, int], index: int, count: int) -> list[Keyframe]:
        """The keyframe, and its nearest neighbours in time: one alone does not show whether they agree."""
        number = at[index]
        near = sorted(range(len(self.keyframes)), key=lambda other: (abs(other - number), other))
        return [self.keyframes[one] for one in near[:count]]

    def _index(self) -> None:
        """Remember new keyframes, forget those that the odometry has forgotten, and see whether one was met before."""
        at = {keyframe.frame.index: keyframe for keyframe in self.keyframes}
        for index in set(self._places.indices) - set(at):
            self._places.remove(index)
        self._loops.forget(self.keyframes)
        # What anchors the windows anyway is one with the map already.
        known = set() if self.placed is None else {anchor.frame.index for anchor in self.placed.anchors}
        for index in sorted(set(at) - set(self._places.indices)):
            candidates = self._places.add(index, at[index].descriptor)
            found = [one for one in candidates if one.index not in known]
            if found:
                self._candidate = min(found, key=self._distance)

    def _distance(self, candidate: Candidate) -> float:
        """How far the candidate is from the camera, as the odometry has it: the nearest is the likeliest."""
        assert self.latest is not None
        T = next(one.T_map_camera for one in self.keyframes if one.frame.index == candidate.index)
        return float(np.linalg.norm(T[:3, 3] - self.latest.T_map_camera[:3, 3]))

    def _evidence(self, window: Window, prediction: WindowPrediction, query: Keyframe, recent: Alignment) -> Evidence:
        """What this window says about the place that its guests show. Raises AlignmentError."""
        assert self._candidate is not None
        at = {keyframe.frame.index: keyframe for keyframe in self.keyframes}
        guests = [at[window.frames[slot].index] for slot in window.guest_slots]
        loop = align_keyframes(guests, window.guest_slots, prediction)
        candidate = at[self._candidate.index]
        drift = None
        if self._lost is None:
            drift = self._loops.drift(self.keyframes, candidate.frame.index, query.T_map_camera, self._odometry.drift)
        evidence = Evidence(
            candidate=candidate.frame.index,
            T_map_candidate=candidate.T_map_camera,
            T_map_query=query.T_map_camera,
            recent=recent,
            loop=loop,
            depth=candidate.median_depth,
            drift=drift,
            conflict=(0.0, 0),
            rivals=[at[index].T_map_camera for index in self._candidate.rivals if index in at],
        )
        own = self._odometry if self._lost is None else self._lost.own
        here = [_view(one) for one in (*own.keyframes[-AROUND + 1 :], query)]
        there = [_view(one) for one in sorted(self.keyframes, key=lambda one: _apart(one, candidate))[:AROUND]]
        return replace(evidence, conflict=conflict([moved(one, evidence.correction) for one in here], there))

    def _recognise(self, window: Window, prediction: WindowPrediction, estimates: list[Estimate]) -> list[Estimate]:
        """Judge the guests; when they are the same place the map is bent. The estimates as they are then."""
        candidate, latest, placed = self._candidate, self.latest, self._odometry.placed
        assert candidate is not None
        assert latest is not None
        assert placed is not None
        try:
            evidence = self._evidence(window, prediction, latest, placed.alignment)
        except AlignmentError:
            self._candidate = None
            return estimates
        decision = self._verifier.judge(evidence)
        if decision.verdict is Verdict.WAIT:
            return estimates
        self._candidate = None
        second = self.keyframes[-1].frame.index
        if decision.verdict is Verdict.REJECT or second == candidate.index:
            return estimates
        fixed = self.metres.locked
        self.corrections = dict(self._loops.close(self.keyframes, candidate.index, second, decision.correction, fixed))
        at = {keyframe.frame.index: keyframe for keyframe in self.keyframes}
        for index, correction in self.corrections.items():
            at[index].move(correction)
        newest = self.corrections[second]
        if latest.frame.index not in at:
            latest.move(newest)
        self._odometry.log_scale += float(np.log(newest.scale))
        self._odometry.state = State.RELOCALIZED
        self.reasons = (f'a loop was closed: the map moved by {_step(newest, latest):.3g} here',)
        return [replace(_moved(one, newest), state=State.RELOCALIZED) for one in estimates]

    # Lost --------------------------------------------------------------------------------------------------------

    def _while_lost(
        self, lost: _Lost, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: Hints
    ) -> list[Estimate]:
        newest = window.frames[window.new_slots[-1]]
        lost.query = prediction.descriptor[window.new_slots[-1]]
        try:
            estimates = lost.own.update(window, prediction, corners, hints)
            lost.added += lost.own.added
            decision, evidence = self._look_around(lost.own, window, prediction)
        except (AlignmentError, PredictionError) as error:
            self._verifier.clear()
            if lost.own.latest is None or lost.own.state is State.LOST:
                lost.own, lost.added = Odometry(self.config), []
            self.reasons = (f'lost: {error}',)
            raise LostError(self.reasons[0]) from error
        if decision.verdict is Verdict.ACCEPT:
            return [self._found(lost.own, estimates[-1], decision.correction, evidence)]
        if self._config.lost_timeout and newest.stamp - lost.since > self._config.lost_timeout * 1e9:
            return self._begin_anew(lost, estimates)
        self.reasons = (f'lost: {"; ".join(decision.reasons)}',)
        raise LostError(self.reasons[0])

    def _look_around(self, own: Odometry, window: Window, prediction: WindowPrediction) -> tuple[Decision, Evidence]:
        """Whether the guests show where the camera is. Raises AlignmentError."""
        assert own.latest is not None
        assert own.placed is not None
        if not window.guests:
            raise AlignmentError('no place in the map looks like it')
        evidence = self._evidence(window, prediction, own.latest, own.placed.alignment)
        return self._verifier.judge(evidence), evidence

    def _found(self, own: Odometry, estimate: Estimate, correction: Similarity, evidence: Evidence) -> Estimate:
        """Back in the map. odom goes on from where it was: nobody knows how the camera came here."""
        latest = own.latest
        assert latest is not None
        latest.move(correction)
        latest.drift = self._odometry.drift
        covariance = evidence.loop.covariance + np.diag([(0.02 * evidence.depth) ** 2] * 3 + [1e-4] * 3)
        found = replace(
            _moved(estimate, correction),
            T_odom_camera=self._odometry.T_odom_latest,
            covariance=covariance,
            velocity=None,
            velocity_covariance=np.diag([UNKNOWN] * 6),
            state=State.RELOCALIZED,
            scale=self.scale,
            epoch=self.epoch,
        )
        self._odometry.resume(latest)
        self._odometry.state = State.RELOCALIZED
        self._odometry.log_scale = own.log_scale + float(np.log(correction.scale))
        self._lost, self._candidate = None, None
        self.reasons = (f'found back: keyframe {evidence.candidate} shows the same place',)
        return found

    def _begin_anew(self, lost: _Lost, estimates: list[Estimate]) -> list[Estimate]:
        """Nothing was recognised in time: what was seen since is the map of a new epoch."""
        epoch = self.epoch + 1
        self._odometry = lost.own
        self._odometry.epoch = epoch
        self._clear()
        self._index()
        self.reasons = ('nothing was recognised: a new map begins',)
        self.added = [replace(one, epoch=epoch) for one in lost.added]
        return [replace(one, epoch=epoch) for one in estimates]


def _view(keyframe: Keyframe) -> View:
    return View(keyframe.T_map_camera, keyframe.K, keyframe.depth)


def _apart(a: Keyframe, b: Keyframe) -> float:
    return float(np.linalg.norm(a.T_map_camera[:3, 3] - b.T_map_camera[:3, 3]))


def _step(moved: Similarity, keyframe: Keyframe) -> float:
    """How far a correction moved a keyframe that it was applied to, map units."""
    T = keyframe.T_map_camera
    before = moved.R.T @ (T[:3, 3] - moved.t) / moved.scale
    return float(np.linalg.norm(T[:3, 3] - before))


def _moved(estimate: Estimate, correction: Similarity) -> Estimate:
    """The estimate where a correction puts it, in its unit."""
    return replace(
        estimate,
        T_map_camera=correction.pose(estimate.T_map_camera),
        depth=estimate.depth * np.float32(correction.scale),
    )
