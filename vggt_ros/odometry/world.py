"""One world: the odometry with a memory. Loops are closed; a camera that is lost finds back, or begins a new map.

Keyframes that look like the newest one join the next windows as guests. Where the guests alone would put a window is
compared with where the odometry puts it, and when everything agrees (see loops/verification.py) the map is bent, or the
lost camera is put back (see lost.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vggt_ros.odometry.config import NO_HINTS, MotionHints, OdometryConfig
from vggt_ros.odometry.gravity import Gravity
from vggt_ros.odometry.keyframe import Keyframe, covisibility
from vggt_ros.odometry.loops.closing import Loops
from vggt_ros.odometry.loops.posegraph import GtsamMissingError, require_gtsam
from vggt_ros.odometry.loops.recognition import Recognition
from vggt_ros.odometry.loops.verification import Evidence, LoopVerdict
from vggt_ros.odometry.lost import LostCamera, LostError, found_again
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.outcome import WindowOutcome
from vggt_ros.odometry.scale.filter import ScaleFilter
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.focal import FocalEstimate
from vggt_ros.odometry.windows.placing import CornersOf, PlacedWindow
from vggt_ros.odometry.windows.window import PredictionError, Window
from vggt_ros.similarity import Similarity
from vggt_ros.types import Frame, Scale, State, WindowPrediction

GAIN = 2.0
"""Least variance of the drift since a place, in variances of a loop that is closed there. Right after closing it is 1;
on known ground loops would be closed without end, and would tell little."""


@dataclass(frozen=True)
class WorldConfig:
    """What is done about places met before, and about a camera that is lost."""

    loops: bool = True  # whether places are recognised, which needs gtsam
    lost_timeout: float = 10.0  # s after which a lost camera begins a new map, 0 = never


class World:
    """Windows in, outcomes in one map out; see :class:`Odometry`, whose methods it has. Not thread-safe.

    Without gtsam it works without loops. warnings: what a person should know of that, by kind.
    """

    def __init__(self, config: OdometryConfig | None = None, world: WorldConfig | None = None) -> None:
        self._odometry = Odometry(config)
        self._config = world or WorldConfig()
        self.warnings: dict[str, str] = {}
        if self._config.loops:
            try:
                require_gtsam()
            except GtsamMissingError as error:
                self.warnings['loops'] = f'loops are not closed, and a lost camera does not find back: {error}'
                self._config = replace(self._config, loops=False)
        self._clear()

    def _clear(self) -> None:
        self._recognition = Recognition(2 * self.config.keyframes)
        self._loops = Loops()
        self._lost: LostCamera | None = None
        self._reasons: tuple[str, ...] = ()

    def tune(self, min_confidence: float, lost_timeout: float) -> None:
        """Other bounds from the next window on, see the configurations."""
        self._config = replace(self._config, lost_timeout=lost_timeout)
        for odometry in (self._odometry, *([] if self._lost is None else [self._lost.own])):
            odometry.config = replace(odometry.config, min_confidence=min_confidence)

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
    def indices(self) -> set[int]:
        """Of all frames that a later window can hold beside its new ones."""
        maps = [self._odometry] if self._lost is None else [self._odometry, self._lost.own]
        views = [view for one in maps for view in (*one.keyframes, one.latest) if view is not None]
        return {view.frame.index for view in views}

    @property
    def latest(self) -> Keyframe | None:
        """The frame published last."""
        return self._odometry.latest

    @property
    def nbytes(self) -> int:
        """What the map holds in memory, and that of a camera that is lost."""
        return self._odometry.nbytes + (0 if self._lost is None else self._lost.own.nbytes)

    @property
    def metres(self) -> ScaleFilter:
        """Metres per map unit, and who says so."""
        return self._odometry.metres

    @property
    def gravity(self) -> Gravity:
        """Down in the first camera's frame, and on whose word."""
        return self._odometry.gravity.gravity

    def standing(self) -> WindowOutcome:
        """How things stand, with nothing new."""
        return WindowOutcome(self.state, self.scale, self.epoch, self._reasons)

    def reset(self) -> None:
        """Forget everything and begin a new epoch."""
        self._odometry.reset()
        self._clear()

    def resize(self, window: int) -> None:
        """See at most this many frames at once from now on."""
        for one in (self._odometry, None if self._lost is None else self._lost.own):
            if one is not None and one.config.window != window:
                one.resize(window)

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
        hints: MotionHints = NO_HINTS,
    ) -> WindowOutcome:
        """Place the window: see :meth:`Odometry.update`. Raises LostError while nobody knows where the camera is."""
        try:
            outcome = self._update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError) as error:
            self._reasons = (str(error),)
            raise
        self._reasons = outcome.reasons
        return outcome

    def _update(
        self, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: MotionHints
    ) -> WindowOutcome:
        if self._lost is not None:
            return self._while_lost(self._lost, window, prediction, corners, hints)
        if hints.broken and self._elsewhere(prediction.descriptor[window.new_slots[-1]]):
            self._lose(window, prediction)
            raise LostError('nothing connects the images, and places far from here look like them')
        try:
            outcome = self._odometry.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError):
            if self._odometry.state is State.LOST:
                self._lose(window, prediction)
            raise
        if self._config.loops and not hints.held:
            self._loops.forget(self.keyframes)
            placed = outcome.placed
            assert placed is not None
            if window.guests:
                outcome = self._recognise(window, prediction, outcome)
            self._index(placed)
        return outcome

    def focal_of_first(self, window: Window, prediction: WindowPrediction, corners: CornersOf) -> FocalEstimate | None:
        """What the corners of a first window say about its focal length, before a map begins with it."""
        return self._odometry.focal_of_first(window, prediction, corners)

    def measure(self, outcome: WindowOutcome, answers: Iterable[ScaleMeasurement | NoMeasurement]) -> WindowOutcome:
        """What metric sources say about the last window; see :meth:`Odometry.measure`. Returns its outcome, amended."""
        moved = self._odometry.measure(answers)
        outcome = replace(outcome, scale=self.scale)
        return outcome if moved is None else self._all_moved(outcome, moved).with_estimates(scale=self.scale)

    def level_first(self, gravity: Gravity) -> None:
        """Which way is down in the first camera; to be told before the first window."""
        self._odometry.level_first(gravity)

    def level(self, outcome: WindowOutcome, gravity: Gravity) -> WindowOutcome:
        """Which way is down in the newest camera of the last window, whose outcome is returned, amended."""
        turned = self._odometry.level(gravity, outcome.estimates[-1])
        return outcome if turned is None else self._all_moved(outcome, turned)

    def _all_moved(self, outcome: WindowOutcome, moved: Similarity) -> WindowOutcome:
        return outcome.moved({keyframe.frame.index: moved for keyframe in self.keyframes}, moved)

    # Loops -------------------------------------------------------------------------------------------------------

    def _index(self, placed: PlacedWindow) -> None:
        """Remember new places, and see whether the newest was met before. placed: the last window."""
        assert self.latest is not None
        latest = self.latest
        known = {anchor.frame.index for anchor in placed.anchors}

        def worthwhile(index: int) -> bool:
            if index in known:
                return False  # it anchors the windows anyway
            return self._loops.gain(self.keyframes, index, latest.T_map_camera, self._odometry.drift) > GAIN

        self._recognition.index(self.keyframes, worthwhile, latest)

    def _recognise(self, window: Window, prediction: WindowPrediction, outcome: WindowOutcome) -> WindowOutcome:
        """Judge the guests; when they are the same place the map is bent."""
        odometry, latest, placed = self._odometry, self.latest, outcome.placed
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
            return outcome
        first, second = evidence.candidate, self.keyframes[-1].frame.index
        if decision.verdict is not LoopVerdict.WAIT:
            self._recognition.candidate = None
        if decision.verdict is not LoopVerdict.ACCEPT or first == second:
            return outcome
        corrections = self._loops.close(self.keyframes, first, second, decision.correction, self.metres.locked)
        outcome = outcome.moved(corrections, odometry.bend(corrections)).with_estimates(state=State.RELOCALIZED)
        return replace(outcome, state=self.state, reasons=(f'a loop was closed with keyframe {first}',))

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
        self._lost = LostCamera(self.config, window.frames[newest].stamp, prediction.descriptor[newest])
        self._recognition.doubt()

    def _while_lost(
        self, lost: LostCamera, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: MotionHints
    ) -> WindowOutcome:
        try:
            outcome = lost.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError) as error:
            self._recognition.doubt()
            raise LostError(f'lost: {error}') from error
        reason, waiting = 'no place in the map looks like it', False
        if window.guests:
            try:
                decision, evidence = lost.look_around(self._recognition, self.keyframes, window, prediction, outcome)
            except AlignmentError as error:
                self._recognition.doubt()
                reason = str(error)
            else:
                if decision.verdict is LoopVerdict.ACCEPT:
                    return self._found(lost, outcome, decision.correction, evidence)
                reason, waiting = '; '.join(decision.reasons), decision.verdict is LoopVerdict.WAIT
        if not waiting and lost.expired(window.frames[window.new_slots[-1]].stamp, self._config.lost_timeout):
            return self._begin_anew(lost, outcome)
        raise LostError(f'lost: {reason}')

    def _found(
        self, lost: LostCamera, outcome: WindowOutcome, correction: Similarity, evidence: Evidence
    ) -> WindowOutcome:
        """Back in the map."""
        latest = lost.own.latest
        assert latest is not None
        latest.move(correction)
        latest.drift = self._odometry.drift
        estimate = found_again(outcome.estimates[-1], self._odometry, correction, evidence)
        self._odometry.resume(latest, lost.own.log_scale + float(np.log(correction.scale)))
        self._lost, self._recognition.candidate = None, None
        reasons = (f'found back: keyframe {evidence.candidate} shows the same place',)
        return WindowOutcome(self.state, self.scale, self.epoch, reasons, [estimate])

    def _begin_anew(self, lost: LostCamera, outcome: WindowOutcome) -> WindowOutcome:
        """Nothing was recognised in time: what was seen since is the map of a new epoch."""
        epoch = self.epoch + 1
        self._odometry = lost.own
        self._odometry.epoch = epoch
        self._clear()
        if self._config.loops:
            assert outcome.placed is not None
            self._index(outcome.placed)
        outcome = replace(outcome, keyframes=lost.keyframes, epoch=epoch).with_estimates(epoch=epoch)
        return replace(outcome, reasons=('nothing was recognised: a new map begins',))
