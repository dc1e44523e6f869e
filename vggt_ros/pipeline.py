"""Frames in, estimates and tracks out: odometry, network and tracker in their order. No ROS here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from vggt_ros.odometry.klt import KltTracker
from vggt_ros.odometry.odometry import Odometry, OdometryConfig, Window
from vggt_ros.tracks import Tracker, TrackerConfig
from vggt_ros.types import Estimate, Frame, Predictor, Tracks, WindowPrediction, WindowTooLargeError


@dataclass(frozen=True, eq=False)
class Result:
    """One new frame: where it is and what is tracked in it."""

    estimate: Estimate
    tracks: Tracks


class Pipeline:
    """Feed new frames in the order of their stamps; each comes back once, as soon as a window has been solved with it.

    window_seconds: how long the network took for the last window.
    """

    def __init__(
        self,
        predictor: Predictor,
        odometry: OdometryConfig | None = None,
        tracker: TrackerConfig | None = None,
    ) -> None:
        self.predictor = predictor
        self.odometry = Odometry(odometry)
        self.corners = KltTracker()
        self.tracker = Tracker(tracker)
        self.window_seconds = 0.0
        self._waiting: list[Frame] = []

    def reset(self) -> None:
        """Forget the map and the tracks: a new epoch."""
        self.odometry.reset()
        self.corners.reset()
        self.tracker.reset()
        self._waiting.clear()

    def process(self, frames: Sequence[Frame], track: bool = True) -> list[Result]:
        """Solve a window with these new frames, oldest first; empty while too few frames have come to begin.

        track: whether anybody wants tracks; without, the tracker rests and its tracks end.
        Raises AlignmentError or PredictionError when the window was no use (its frames are dropped, the map stays) and
        WindowTooLargeError when even half of the window does not fit into the device's memory.
        """
        self._waiting += frames
        if self.odometry.config.refine:
            for frame in frames:
                self.corners.update(frame)
        window = self.odometry.plan(self._waiting)
        if window is None:
            return []
        self._waiting = []
        started = time.perf_counter()
        try:
            prediction = self._predict(window, track)
        except WindowTooLargeError:
            # Once: half the window from now on. A second failure is the caller's to report.
            self.odometry.shrink(max(3, len(window.frames) // 2))
            window = self.odometry.plan(window.frames[-window.new :])
            assert window is not None
            prediction = self._predict(window, track)
        self.window_seconds = time.perf_counter() - started
        estimates = self.odometry.update(window, prediction, self.corners.at)
        slots = [prediction.slot(estimate.frame.index) for estimate in estimates]
        tracks = self.tracker.update(prediction, slots, estimates)
        return [Result(*pair) for pair in zip(estimates, tracks, strict=True)]

    def _predict(self, window: Window, track: bool) -> WindowPrediction:
        if not track:
            self.tracker.end_all()
            return self.predictor.predict(window.frames, window.depth)
        reference = window.frames[0]
        queries = self.tracker.queries(reference, self.predictor.pixel_map(reference.size))
        return self.predictor.predict(window.frames, window.depth, queries)
