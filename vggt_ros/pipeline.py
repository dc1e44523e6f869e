"""Frames in, results out: front end, network, odometry and tracker in their order. No ROS here.

``look`` and ``process`` may run on two threads: every image is looked at, at camera rate; some are processed, as fast
as the network is. What the two share, the front end and the tracker, locks itself; the rest belongs to ``process``, and
whoever else wants to know of it reads the frozen :class:`PipelineReport`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vggt_ros.odometry.config import MotionHints, OdometryConfig
from vggt_ros.odometry.front.frontend import FrameResult, FrontEnd
from vggt_ros.odometry.gravity import GravitySource
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.outcome import WindowOutcome
from vggt_ros.odometry.sensors import Sensor, SolvedWindow, read_all
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.focal import FocalCheck, OneLens
from vggt_ros.odometry.windows.lenses import through_true_lenses
from vggt_ros.odometry.windows.observations import NO_POINTS
from vggt_ros.odometry.windows.size import WindowSize
from vggt_ros.odometry.windows.window import PredictionError, Window
from vggt_ros.odometry.world import World, WorldConfig
from vggt_ros.similarity import Similarity
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.tracker import KeypointTracker
from vggt_ros.types import Estimate, Frame, PosedFrame, Predictor, Scale, State, WindowPrediction, WindowTooLargeError


@dataclass(frozen=True, eq=False)
class WindowResult:
    """What a window brought.

    estimates: one for each new frame that was placed, in the order of time. refused: frames that were not. located:
    those of the placed that the front end could not locate before, as it goes on from them. keyframes: estimates that
    became keyframes of the map. corrections: frame index -> how a keyframe's coordinates in the map moved,
    x -> s R x + t, for all that were known before; estimates and keyframes are as they are after that. reasons: why the
    window was refused or the state is not TRACKING. warnings: what else a person should know.
    """

    estimates: Sequence[Estimate] = ()
    refused: int = 0
    located: Sequence[PosedFrame] = ()
    keyframes: Sequence[Estimate] = ()
    corrections: Mapping[int, Similarity] = field(default_factory=dict)
    state: State = State.INITIALIZING
    scale: Scale = Scale.UNKNOWN
    epoch: int = 0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, outcome: WindowOutcome, refused: int = 0, reasons: tuple[str, ...] | None = None) -> WindowResult:
        """From what the world made of a window. reasons: in place of its own."""
        return cls(
            estimates=outcome.estimates,
            refused=refused,
            keyframes=outcome.keyframes,
            corrections=outcome.corrections,
            state=outcome.state,
            scale=outcome.scale,
            epoch=outcome.epoch,
            reasons=outcome.reasons if reasons is None else reasons,
        )


@dataclass(frozen=True)
class PipelineReport:
    """What others may know of the pipeline, as it was when this was made.

    epoch: of the map. window: most frames that the network sees at once. gravity: on whose word the map is level.
    sources: what became of each metric source, in words. nbytes: of the keyframes. predictor: what runs where, with
    what memory, in words.
    """

    epoch: int
    window: int
    gravity: GravitySource
    sources: Mapping[str, str]
    nbytes: int
    predictor: Mapping[str, str]


class Pipeline:
    """Feed frames in the order of their stamps; each that is processed comes back once, when its window is solved.

    sensors: what else knows something about the scene or the robot, see :mod:`vggt_ros.odometry.sensors`.
    warnings: what a person should know before it begins, by kind: what is missing here, and what that means.
    """

    def __init__(
        self,
        predictor: Predictor,
        odometry: OdometryConfig | None = None,
        tracker: TrackerConfig | None = None,
        world: WorldConfig | None = None,
        sensors: Sequence[Sensor] = (),
    ) -> None:
        self.predictor = predictor
        self.world = World(odometry or OdometryConfig(accuracy=predictor.accuracy), world)
        self.front = FrontEnd(predictor.accuracy)
        self.tracker = KeypointTracker(tracker, predictor.accuracy.track)
        self.sensors = sensors
        self.warnings = {**predictor.warnings, **self.world.warnings}
        self._size = WindowSize(self.world.config.window)
        self._focal = FocalCheck(predictor.accuracy.focal)
        self._lens = OneLens(predictor.accuracy.focal)
        self._waiting: list[Frame] = []
        self._tuning: tuple[float, float, float] | None = None

    def tune(self, min_confidence: float, min_score: float, lost_timeout: float) -> None:
        """Other bounds from the next window on, see OdometryConfig, TrackerConfig and WorldConfig; from any thread."""
        self._tuning = min_confidence, min_score, lost_timeout

    def reset(self) -> None:
        """Forget the map and the tracks: a new epoch."""
        self.reset_looking()
        self.begin_epoch()

    def reset_looking(self) -> None:
        """The part of ``reset`` that belongs to the thread that looks."""
        self.front.reset()
        self.tracker.reset()

    def begin_epoch(self) -> None:
        """The part of ``reset`` that belongs to the thread that processes."""
        self.world.reset()
        self._focal.reset()
        self._lens.reset()
        self._forget()

    def abandon(self) -> None:
        """After an exception that nobody understands: whatever it left half done is forgotten, the map begins anew.

        For the thread that processes.
        """
        self.begin_epoch()
        self.tracker.reset()
        self.front.lose()

    def _forget(self) -> None:
        self._waiting.clear()
        for sensor in self.sensors:
            sensor.clear()

    def report(self) -> PipelineReport:
        """How things stand; belongs to the thread that processes."""
        world = self.world
        return PipelineReport(
            epoch=world.epoch,
            window=world.config.window,
            gravity=world.gravity.source,
            sources={name: status.describe() for name, status in world.metres.sources.items()},
            nbytes=world.nbytes,
            predictor=self.predictor.describe(),
        )

    # At camera rate ----------------------------------------------------------------------------------------------

    def look(self, frame: Frame, track: bool = True) -> FrameResult:
        """Track and locate an image, at camera rate; to be called before ``process``. Raises ValueError.

        track: whether anybody wants keypoint tracks.
        """
        result = self.front.look(frame)
        corners = self.front.corners(frame.index) if track else None
        if corners is None:
            return result
        K = self.front.intrinsics(frame)
        return replace(result, tracks=self.tracker.look(frame, corners, result.located, K))

    def due(self, result: FrameResult) -> bool:
        """Whether the network should look at this image: while the camera stands still, only now and then."""
        return self.front.due(result)

    # For every window --------------------------------------------------------------------------------------------

    def process(self, frames: Sequence[Frame], track: bool = True) -> WindowResult:
        """Solve a window with these new frames, oldest first; nothing comes back while too few have come to begin.

        track: whether anybody wants tracks; without, the network's tracker rests.
        A window that is no use is dropped with its frames, the map stays; the reasons say why.
        Raises WindowTooLargeError when even half of the window does not fit into the device's memory, and DeviceError.
        """
        world = self.world
        self._apply_tuning()
        self._waiting += frames
        self.front.processing(self._waiting[-1])
        reading = read_all(self.sensors, frames)
        beside = [reading.companions[frame.index] for frame in frames if frame.index in reading.companions]
        gravity = reading.gravity
        if gravity is not None and world.latest is None:
            # The first frame's is meant, but the camera hardly turns before the first window.
            world.level_first(gravity)
        window = world.plan(self._waiting, beside)
        if window is None:
            return self.standing()
        waiting, self._waiting, epoch = len(self._waiting), [], world.epoch
        window, prediction, asked = self._look_at(window, track, beside)
        try:
            outcome = world.update(window, prediction, self._corners, self._hints(window))
        except (AlignmentError, PredictionError):
            if world.state is State.LOST:
                self.front.lose()
            return self.standing(refused=waiting)
        if world.epoch != epoch:
            self._forget()
            self.tracker.reset()
        outcome = self._measure(window, outcome)
        if gravity is not None and gravity.source is not GravitySource.ASSUMED_LEVEL:
            outcome = world.level(outcome, gravity)
        estimates, points = outcome.estimates, NO_POINTS
        if outcome.placed is not None:
            points = outcome.placed.refined.points
            if window.anchors:  # what the first window says is known already
                self._lens.learn(window, outcome.placed.refined.focal)
        said = self.tracker.solved(estimates, points, prediction, asked, outcome.corrections)
        located = [one for estimate in estimates if (one := self._follow(estimate)) is not None]
        self.front.solved(estimates[-1])
        warnings = tuple(filter(None, [self._focal.update(window, prediction), said, world.metres.complaint]))
        return replace(WindowResult.of(outcome, waiting - len(estimates)), located=located, warnings=warnings)

    def _apply_tuning(self) -> None:
        """Here, between windows, one thread alone has the configuration in hand."""
        tuning, self._tuning = self._tuning, None
        if tuning is not None:
            min_confidence, min_score, lost_timeout = tuning
            self.world.tune(min_confidence, lost_timeout)
            self.tracker.tune(min_score)

    def standing(self, refused: int = 0, reasons: tuple[str, ...] | None = None) -> WindowResult:
        """A result with nothing new, that says how things stand. reasons: in place of the world's own."""
        return WindowResult.of(self.world.standing(), refused, reasons)

    def _measure(self, window: Window, outcome: WindowOutcome) -> WindowOutcome:
        """Ask those who know metric lengths; a map that becomes metric voids what they have kept in its old unit."""
        placed, before = outcome.placed, self.world.scale
        if placed is None or not self.sensors:
            return outcome
        partner = placed.raw(window.new_slots[-1])
        pairs = [(partner, placed.raw(slot)) for slot in window.companion_slots]
        solved = SolvedWindow(outcome.estimates, placed.similarity.scale, pairs)
        answers = [sensor.answer(solved) for sensor in self.sensors]
        outcome = self.world.measure(outcome, [answer for answer in answers if answer is not None])
        if outcome.scale is Scale.METRIC and before is not Scale.METRIC:
            for sensor in self.sensors:
                sensor.clear()
        return outcome

    def _corners(self, index: int) -> Corners | None:
        return self.front.corners(index) if self.world.config.refine else None

    def _follow(self, estimate: Estimate) -> PosedFrame | None:
        """The estimate as the front end has it, when it could not locate that image itself."""
        past = self.front.past(estimate.frame.index)
        return None if past is not None and past.T_odom_camera is not None else self.front.follow(estimate)

    def _hints(self, window: Window) -> MotionHints:
        new = [window.frames[slot].index for slot in window.new_slots]
        past = {index: one for index in new if (one := self.front.past(index)) is not None}
        blurred = frozenset(index for index, one in past.items() if one.motion.blurred)
        latest = self.world.latest
        if latest is None or self.world.state is State.LOST or new[-1] not in past:
            return MotionHints(blurred=blurred)
        motion = past[new[-1]].motion
        held = len(past) == len(new) and motion.stationary and latest.frame.stamp >= motion.still_since
        ends = window.frames[0].index, new[-1]
        return MotionHints(self.front.turn(*ends), blurred, held, self.front.broken(*ends))

    def _look_at(
        self, window: Window, track: bool, beside: Sequence[Frame]
    ) -> tuple[Window, WindowPrediction, np.ndarray | None]:
        """Also the ids of the tracks that were asked about, in the order of the queries."""
        answer = None
        try:
            answer = self._predict(window, track)
        except WindowTooLargeError:
            self._size.too_large(len(window.frames))
        if answer is None:
            # Once more, with a smaller window, and past the except block, where the error holds what had been computed
            # of the larger one. A second failure is the caller's to report.
            self.world.resize(self._size.frames)
            smaller = self.world.plan([window.frames[slot] for slot in window.new_slots], beside)
            assert smaller is not None
            answer = self._predict(smaller, track)
        self._size.fitted()
        self.world.resize(self._size.frames)
        return answer

    def _predict(self, window: Window, track: bool) -> tuple[Window, WindowPrediction, np.ndarray | None]:
        reference = window.frames[0]
        wanted = track and self.world.state is not State.LOST
        self.predictor.keep(self.world.indices.union(frame.index for frame in window.frames))
        asked, uv = None, None
        if wanted:
            queries = self.tracker.queries(reference.index, self.predictor.pixel_map(reference.size))
            asked, uv = (None, None) if queries is None else queries
        said = self.predictor.predict(window.frames, window.depth, uv)
        self._lens.hear(window, said)
        given, prediction = self._through_lens(window, said)
        if given.focal_sigma and not window.anchors:
            # A map that begins with a wrong lens would stay bent.
            self._lens.learn(given, self.world.focal_of_first(given, prediction, self._corners))
            given, prediction = self._through_lens(window, said)
        return given, prediction, asked

    def _through_lens(self, window: Window, prediction: WindowPrediction) -> tuple[Window, WindowPrediction]:
        window = self._lens.given(window, prediction)
        return window, through_true_lenses(window.frames, prediction)


def current_state(window: State, located: PosedFrame | None, paused: bool = False) -> State:
    """Which state is true. window: what the last window says. located: the image located last, if any.

    What the camera's thread says is newer, unless the network has lost the place altogether.
    """
    if paused:
        return State.PAUSED
    if located is not None and located.state in (State.STATIONARY, State.DEGRADED):
        return located.state if window in (State.TRACKING, State.DEGRADED) else window
    return window
