"""Frames in, estimates and tracks out: front end, network, odometry and tracker in their order. No ROS here.

``look`` and ``process`` may run on two threads: every image is looked at, at camera rate; some are processed, as fast
as the network is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vggt_ros.odometry.config import Hints, OdometryConfig
from vggt_ros.odometry.front.frontend import FrontEnd, Sight
from vggt_ros.odometry.gravity import Gravity, GravitySource
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.scale.sources import MetricSource, Solved
from vggt_ros.odometry.windows.adjustment import NO_POINTS
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.focal import FocalCheck
from vggt_ros.odometry.windows.window import PredictionError, Window
from vggt_ros.odometry.world import World, WorldConfig
from vggt_ros.similarity import Similarity
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.tracker import Tracker
from vggt_ros.types import (
    Estimate,
    Frame,
    Located,
    Predictor,
    Scale,
    State,
    WindowPrediction,
    WindowTooLargeError,
)

STILL_PERIOD = 1.0  # s between two windows while the camera stands still: what it sees may change


@dataclass(frozen=True, eq=False)
class Solution:
    """What a window brought.

    estimates: one for each new frame that was placed, in the order of time. refused: frames that were not. located:
    those of the placed that the front end could not locate before, as it goes on from them. keyframes: estimates that
    became keyframes of the map. corrections: frame index -> how a keyframe's coordinates in the map moved,
    x -> s R x + t, for all that were known before; estimates and keyframes are as they are after that. reasons: why the
    window was refused or the state is not TRACKING. warnings: what else a person should know.
    """

    estimates: Sequence[Estimate] = ()
    refused: int = 0
    located: Sequence[Located] = ()
    keyframes: Sequence[Estimate] = ()
    corrections: Mapping[int, Similarity] = field(default_factory=dict)
    state: State = State.INITIALIZING
    scale: Scale = Scale.UNKNOWN
    epoch: int = 0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Pipeline:
    """Feed frames in the order of their stamps; each that is processed comes back once, when its window is solved.

    window_seconds: how long the network took for the last window.
    """

    def __init__(
        self,
        predictor: Predictor,
        odometry: OdometryConfig | None = None,
        tracker: TrackerConfig | None = None,
        world: WorldConfig | None = None,
        sources: Sequence[MetricSource] = (),
    ) -> None:
        self.predictor = predictor
        self.odometry = World(odometry or OdometryConfig(accuracy=predictor.accuracy), world)
        self.front = FrontEnd(predictor.accuracy)
        self.tracker = Tracker(tracker, predictor.accuracy.track)
        self.sources = sources
        self.window_seconds = 0.0
        self._focal = FocalCheck(predictor.accuracy.focal)
        self._waiting: list[Frame] = []
        self._processed = 0  # stamp of the newest frame that was given to ``process``

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
        self.odometry.reset()
        self._focal.reset()
        self._forget()

    def _forget(self) -> None:
        self._waiting.clear()
        for source in self.sources:
            source.clear()

    def look(self, frame: Frame, track: bool = True) -> Sight:
        """Track and locate an image, at camera rate; to be called before ``process``. Raises ValueError.

        track: whether anybody wants keypoint tracks.
        """
        sight = self.front.look(frame)
        corners = self.front.corners(frame.index) if track else None
        if corners is None:
            return sight
        K = self.front.intrinsics(frame)
        return replace(sight, tracks=self.tracker.look(frame, corners, sight.located, K))

    def due(self, sight: Sight) -> bool:
        """Whether the network should look at this image: while the camera stands still, only now and then."""
        return not sight.motion.stationary or sight.frame.stamp - self._processed >= STILL_PERIOD * 1e9

    def process(
        self,
        frames: Sequence[Frame],
        track: bool = True,
        companions: Mapping[int, Frame] | None = None,
        gravity: Gravity | None = None,
    ) -> Solution:
        """Solve a window with these new frames, oldest first; nothing comes back while too few have come to begin.

        track: whether anybody wants tracks; without, the network's tracker rests. companions: frame index ->
        the simultaneous image of a second camera. gravity: which way is down in the newest frame.
        A window that is no use is dropped with its frames, the map stays; the reasons say why.
        Raises WindowTooLargeError when even half of the window does not fit into the device's memory, and DeviceError.
        """
        world = self.odometry
        self._waiting += frames
        self._processed = self._waiting[-1].stamp
        companions = companions or {}
        beside = [companions[frame.index] for frame in frames if frame.index in companions]
        if gravity is not None and world.latest is None:
            # The first frame's is meant, but the camera hardly turns before the first window.
            world.level(gravity)
        window = world.plan(self._waiting, beside)
        if window is None:
            return self.solution()
        waiting, self._waiting, epoch = len(self._waiting), [], world.epoch
        window, prediction, asked = self._look_at(window, track, beside)
        try:
            world.update(window, prediction, self._corners, self._hints(window))
        except (AlignmentError, PredictionError):
            if world.state is State.LOST:
                self.front.lose()
            return self.solution(refused=waiting)
        if world.epoch != epoch:
            self._forget()
            self.tracker.reset()
        self._measure(window)
        if gravity is not None and gravity.source is not GravitySource.ASSUMED_LEVEL:
            world.level(gravity, world.estimates[-1])
        estimates = world.estimates
        placed = world.placed
        points = NO_POINTS if placed is None else placed.refined.points
        said = self.tracker.solved(estimates, points, prediction, asked, world.corrections)
        located = [one for estimate in estimates if (one := self._follow(estimate)) is not None]
        self.front.solved(estimates[-1])
        return self.solution(
            estimates=estimates,
            refused=waiting - len(estimates),
            located=located,
            keyframes=world.added,
            corrections=world.corrections,
            warnings=tuple(filter(None, [self._focal.update(window, prediction), said])),
        )

    def _measure(self, window: Window) -> None:
        """Ask those who know metric lengths; a map that becomes metric voids what they have kept in its old unit."""
        world, placed = self.odometry, self.odometry.placed
        if placed is None or not self.sources:
            return
        partner = placed.raw(window.new_slots[-1])
        pairs = [(partner, placed.raw(slot)) for slot in window.companion_slots]
        solved = Solved(world.estimates, placed.similarity.scale, pairs)
        before = world.scale
        world.measure([source.answer(solved) for source in self.sources])
        if world.scale is Scale.METRIC and before is not Scale.METRIC:
            for source in self.sources:
                source.clear()

    def solution(self, **fields: Any) -> Solution:
        """A solution that says how things stand."""
        world = self.odometry
        return replace(Solution((), 0, (), (), {}, world.state, world.scale, world.epoch, world.reasons), **fields)

    def _corners(self, index: int) -> Corners | None:
        return self.front.corners(index) if self.odometry.config.refine else None

    def _follow(self, estimate: Estimate) -> Located | None:
        """The estimate as the front end has it, when it could not locate that image itself."""
        seen = self.front.seen(estimate.frame.index)
        return None if seen is not None and seen.T_odom_camera is not None else self.front.follow(estimate)

    def _hints(self, window: Window) -> Hints:
        new = [window.frames[slot].index for slot in window.new_slots]
        seen = {index: one for index in new if (one := self.front.seen(index)) is not None}
        blurred = frozenset(index for index, one in seen.items() if one.motion.blurred)
        latest = self.odometry.latest
        if latest is None or self.odometry.state is State.LOST or new[-1] not in seen:
            return Hints(blurred=blurred)
        motion = seen[new[-1]].motion
        held = len(seen) == len(new) and motion.stationary and latest.frame.stamp >= motion.still_since
        ends = window.frames[0].index, new[-1]
        return Hints(self.front.turn(*ends), blurred, held, self.front.broken(*ends))

    def _look_at(
        self, window: Window, track: bool, beside: Sequence[Frame]
    ) -> tuple[Window, WindowPrediction, np.ndarray | None]:
        """Also the ids of the tracks that were asked about, in the order of the queries."""
        started = time.perf_counter()
        try:
            prediction, asked = self._predict(window, track)
        except WindowTooLargeError:
            # Once: half the window from now on. A second failure is the caller's to report.
            self.odometry.shrink(max(3, len(window.frames) // 2))
            smaller = self.odometry.plan([window.frames[slot] for slot in window.new_slots], beside)
            assert smaller is not None
            window = smaller
            prediction, asked = self._predict(smaller, track)
        self.window_seconds = time.perf_counter() - started
        return window, prediction, asked

    def _predict(self, window: Window, track: bool) -> tuple[WindowPrediction, np.ndarray | None]:
        reference = window.frames[0]
        wanted = track and self.odometry.state is not State.LOST
        queries = None
        if wanted:
            pixel_map = self.predictor.pixel_map(reference.size)
            queries = self.tracker.queries(reference.index, pixel_map)
        if queries is None:
            return self.predictor.predict(window.frames, window.depth), None
        asked, uv = queries
        return self.predictor.predict(window.frames, window.depth, uv), asked
