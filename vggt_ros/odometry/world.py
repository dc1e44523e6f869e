"""One world: the odometry with a memory. Loops are closed; a camera that is lost finds back, or begins a new map.

Keyframes that look like the newest one join the next windows as guests. Where the guests alone would put a window is
compared with where the odometry puts it, and when everything agrees (see verification.py) the map is bent, or the lost
camera is put back. While the camera is lost a map of its own goes on, for two reasons: windows have something to hang
on, so that several can be compared; and when nothing is recognised in time, that map is the world from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vggt_ros.odometry.config import NO_HINTS, Hints, OdometryConfig
from vggt_ros.odometry.gravity import Gravity
from vggt_ros.odometry.keyframe import Keyframe, covisibility
from vggt_ros.odometry.loops.closing import Loops
from vggt_ros.odometry.loops.recognition import Recognition
from vggt_ros.odometry.loops.verification import Decision, Evidence, Verdict
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.scale.filter import NoMeasurement, ScaleFilter, ScaleMeasurement
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.covariance import UNKNOWN
from vggt_ros.odometry.windows.placing import CornersOf, Placed
from vggt_ros.odometry.windows.window import PredictionError, Window
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate, Frame, Scale, State, WindowPrediction

GAIN = 2.0
"""Least variance of the drift since a place, in variances of a loop that is closed there. Right after closing it is 1;
on known ground loops would be closed without end, and would tell little."""


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

    estimates: of the last update, as they are after corrections; added: those that became keyframes. corrections: how
    the keyframes of before moved since the last update, by frame index: all of them or, as a rule, none.
    """

    def __init__(self, config: OdometryConfig | None = None, world: WorldConfig | None = None) -> None:
        self._odometry = Odometry(config)
        self._config = world or WorldConfig()
        self._clear()

    def _clear(self) -> None:
        self._recognition = Recognition(2 * self.config.keyframes)
        self._loops = Loops()
        self._lost: _Lost | None = None
        self.reasons: tuple[str, ...] = ()
        self.corrections: dict[int, Similarity] = {}
        self.estimates: list[Estimate] = []
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
        self._odometry.shrink(window)
        if self._lost is not None:
            self._lost.own.shrink(window)

    def plan(self, new: Sequence[Frame], companions: Sequence[Frame] = ()) -> Window | None:
        """The window for these new frames, oldest first; None while there are too few frames to begin."""
        lost, guests = self._lost, []
        if self._config.loops:
            guests = self._recognition.guests(self.keyframes, None if lost is None else lost.query)
        return (self._odometry if lost is None else lost.own).plan(new, guests, companions)

    def update(
        self,
        window: Window,
        prediction: WindowPrediction,
        corners: CornersOf = lambda index: None,
        hints: Hints = NO_HINTS,
    ) -> list[Estimate]:
        """Place the window: see :meth:`Odometry.update`. Raises LostError while nobody knows where the camera is."""
        self.corrections, self.estimates, self.added = {}, [], []
        if self._lost is not None:
            self.estimates = self._while_lost(self._lost, window, prediction, corners, hints)
            return self.estimates
        if hints.broken and self._elsewhere(prediction.descriptor[window.new_slots[-1]]):
            self._lose(window, prediction)
            self.reasons = ('nothing connects the images, and places far from here look like them',)
            raise LostError(self.reasons[0])
        try:
            self.estimates = self._odometry.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError):
            self.reasons = self._odometry.reasons
            if self._odometry.state is State.LOST:
                self._lose(window, prediction)
            raise
        self.reasons, self.added = self._odometry.reasons, self._odometry.added
        if self._config.loops and not hints.held:
            self._loops.forget(self.keyframes)
            if window.guests:
                self._recognise(window, prediction)
            self._index()
        return self.estimates

    def measure(self, answers: Iterable[ScaleMeasurement | NoMeasurement]) -> None:
        """What metric sources say about the last window: see :meth:`Odometry.measure`."""
        moved = self._odometry.measure(answers)
        if moved is not None:
            self._all_moved(moved)
            self.estimates = [replace(one, scale=self.scale) for one in self.estimates]
            self.added = [replace(one, scale=self.scale) for one in self.added]

    def level(self, gravity: Gravity, estimate: Estimate | None = None) -> None:
        """Which way is down: see :meth:`Odometry.level`."""
        if self._lost is not None:
            self._lost.own.level(gravity)
        elif (turned := self._odometry.level(gravity, estimate)) is not None:
            self._all_moved(turned)

    def _all_moved(self, moved: Similarity) -> None:
        self._move({keyframe.frame.index: moved for keyframe in self.keyframes}, moved)

    def _move(self, moved: Mapping[int, Similarity], newest: Similarity) -> None:
        """Keyframes have moved, and with them what the last window found."""
        before = self.corrections
        self.corrections = {index: one @ before[index] if index in before else one for index, one in moved.items()}
        self.estimates = [_moved(one, newest) for one in self.estimates]
        self.added = [_moved(one, newest) for one in self.added]

    # Loops -------------------------------------------------------------------------------------------------------

    def _index(self) -> None:
        assert self.latest is not None
        latest, anchors = self.latest, () if self.placed is None else self.placed.anchors
        known = {anchor.frame.index for anchor in anchors}

        def worthwhile(index: int) -> bool:
            if index in known:
                return False  # it anchors the windows anyway
            return self._loops.gain(self.keyframes, index, latest.T_map_camera, self._odometry.drift) > GAIN

        self._recognition.index(self.keyframes, worthwhile, latest)

    def _recognise(self, window: Window, prediction: WindowPrediction) -> None:
        """Judge the guests; when they are the same place the map is bent."""
        odometry, latest, placed = self._odometry, self.latest, self.placed
        assert latest is not None
        assert placed is not None

        def drift(start: int) -> np.ndarray:
            return self._loops.drift(self.keyframes, start, latest.T_map_camera, odometry.drift)

        try:
            decision, evidence = self._recognition.judge(
                window, prediction, self.keyframes, self.keyframes, latest, placed.alignment, drift
            )
        except AlignmentError:
            self._recognition.candidate = None
            return
        first, second = evidence.candidate, self.keyframes[-1].frame.index
        if decision.verdict is not Verdict.WAIT:
            self._recognition.candidate = None
        if decision.verdict is not Verdict.ACCEPT or first == second:
            return
        corrections = self._loops.close(self.keyframes, first, second, decision.correction, self.metres.locked)
        self._move(corrections, odometry.bend(corrections))
        self.estimates = [replace(one, state=State.RELOCALIZED) for one in self.estimates]
        self.reasons = (f'a loop was closed with keyframe {first}',)

    # Lost --------------------------------------------------------------------------------------------------------

    def _elsewhere(self, descriptor: np.ndarray) -> bool:
        """Whether a camera that sees this may be at a place that has nothing in common with the last one.

        The window's anchors would place it near them all the same, where places look alike.
        """
        if self.latest is None or not self._config.loops:
            return False
        alike = self._recognition.alike(self.keyframes, descriptor)
        return bool((covisibility(alike, self.latest) < self.config.gates.linked).any())

    def _lose(self, window: Window, prediction: WindowPrediction) -> None:
        newest = window.new_slots[-1]
        self._lost = _Lost(Odometry(self.config), window.frames[newest].stamp, prediction.descriptor[newest])
        self._recognition.doubt()

    def _while_lost(
        self, lost: _Lost, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: Hints
    ) -> list[Estimate]:
        newest = window.frames[window.new_slots[-1]]
        lost.query = prediction.descriptor[window.new_slots[-1]]
        try:
            estimates = lost.own.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError) as error:
            self._recognition.doubt()
            if lost.own.latest is None or lost.own.state is State.LOST:
                lost.own, lost.added = Odometry(self.config), []
            self.reasons = (f'lost: {error}',)
            raise LostError(self.reasons[0]) from error
        lost.added += lost.own.added
        reason, waiting = 'no place in the map looks like it', False
        if window.guests:
            try:
                decision, evidence = self._look_around(lost.own, window, prediction)
            except AlignmentError as error:
                self._recognition.doubt()
                reason = str(error)
            else:
                if decision.verdict is Verdict.ACCEPT:
                    return [self._found(lost.own, estimates[-1], decision.correction, evidence)]
                reason, waiting = '; '.join(decision.reasons), decision.verdict is Verdict.WAIT
        if not waiting and self._config.lost_timeout and newest.stamp - lost.since > self._config.lost_timeout * 1e9:
            return self._begin_anew(lost, estimates)
        self.reasons = (f'lost: {reason}',)
        raise LostError(self.reasons[0])

    def _look_around(self, own: Odometry, window: Window, prediction: WindowPrediction) -> tuple[Decision, Evidence]:
        """Whether the guests show where the camera is. Raises AlignmentError."""
        assert own.latest is not None
        assert own.placed is not None
        return self._recognition.judge(
            window, prediction, self.keyframes, own.keyframes, own.latest, own.placed.alignment, None
        )

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
        self._odometry.resume(latest, own.log_scale + float(np.log(correction.scale)))
        self._lost, self._recognition.candidate = None, None
        self.reasons = (f'found back: keyframe {evidence.candidate} shows the same place',)
        return found

    def _begin_anew(self, lost: _Lost, estimates: list[Estimate]) -> list[Estimate]:
        """Nothing was recognised in time: what was seen since is the map of a new epoch."""
        epoch = self.epoch + 1
        self._odometry = lost.own
        self._odometry.epoch = epoch
        self._clear()
        if self._config.loops:
            self._index()
        self.reasons = ('nothing was recognised: a new map begins',)
        self.added = [replace(one, epoch=epoch) for one in lost.added]
        return [replace(one, epoch=epoch) for one in estimates]


def _moved(estimate: Estimate, correction: Similarity) -> Estimate:
    """The estimate where a correction puts it, in its unit."""
    unit = np.diag([correction.scale] * 3 + [1.0] * 3)
    turn = np.kron(np.eye(2), correction.R) @ unit
    return replace(
        estimate,
        T_map_camera=correction.pose(estimate.T_map_camera),
        covariance=turn @ estimate.covariance @ turn.T,
        step_covariance=turn @ estimate.step_covariance @ turn.T,
        velocity=None if estimate.velocity is None else unit @ estimate.velocity,
        velocity_covariance=unit @ estimate.velocity_covariance @ unit,
        depth=estimate.depth * np.float32(correction.scale),
    )
