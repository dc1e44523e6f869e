"""One consistent estimate out of a stream of windows.

``plan`` chooses the frames that the network looks at; ``update`` places its answer in the map. The map of this module
is a bounded list of keyframes; every window shares frames with it (anchors), is aligned to it through them, and refines
them in turn. Two poses come out: in ``map``, corrected whenever the map is, and in ``odom``, which is composed of steps
inside one window each and therefore has no seams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vggt_ros import camera
from vggt_ros.odometry.config import NO_HINTS, MotionHints, OdometryConfig
from vggt_ros.odometry.gravity import Gravity, GravityEstimate, assumed_level
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.keyframe_map import KeyframeMap
from vggt_ros.odometry.local_adjustment import adjust_locally
from vggt_ros.odometry.outcome import WindowOutcome
from vggt_ros.odometry.scale.filter import ScaleFilter
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.carrier import Aligned, Known, by_network, place_window
from vggt_ros.odometry.windows.covariance import PoseNoise, SurfaceNoise, velocity
from vggt_ros.odometry.windows.focal import FocalEstimate
from vggt_ros.odometry.windows.placing import (
    AGREED,
    CornersOf,
    PlacedWindow,
    first_alignment,
)
from vggt_ros.odometry.windows.planning import plan
from vggt_ros.odometry.windows.quality import Quality, linked
from vggt_ros.odometry.windows.window import PredictionError, Window, check
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate, Frame, Scale, State, WindowPrediction

LOST_AFTER = 2  # rejected windows in a row
FRAME_SCALE = 0.015  # standard deviation of the log scale of one frame's depth within its window
TIED = 25  # corners that two frames must both see to hang together, whatever their depth says


class Odometry:
    """Causal, bounded: keyframes in, windows out, estimates in map units.

    Frames must come in the order of their stamps. Not thread-safe: one worker owns it.
    """

    def __init__(self, config: OdometryConfig | None = None) -> None:
        self.config = config or OdometryConfig()
        self.epoch = 0
        self._clear()

    def _clear(self) -> None:
        self.state = State.INITIALIZING
        self.scale = Scale.UNKNOWN
        self._map = KeyframeMap(self.config.keyframe_distance, self.config.keyframes)
        self.gravity = GravityEstimate(assumed_level())
        self.T_odom_latest = np.eye(4)
        self.drift = np.zeros(3)
        self.metres = ScaleFilter()
        self.log_scale = 0.0
        self._noise = PoseNoise.of(self.config.accuracy)
        self._surface = SurfaceNoise()
        self._rejected = 0

    @property
    def keyframes(self) -> Sequence[Keyframe]:
        """The map, in the order of time."""
        return self._map.keyframes

    @property
    def nbytes(self) -> int:
        """What the map holds in memory."""
        return self._map.nbytes

    @property
    def latest(self) -> Keyframe | None:
        """The frame published last, None before the first."""
        return self._map.latest

    def reset(self) -> None:
        """Forget everything and begin a new epoch."""
        self.epoch += 1
        self._clear()

    def resize(self, window: int) -> None:
        """See at most this many frames at once from now on."""
        self.config = replace(self.config, window=window)

    def plan(
        self, new: Sequence[Frame], guests: Sequence[Keyframe] = (), companions: Sequence[Frame] = ()
    ) -> Window | None:
        """The window for these new frames, see :func:`planning.plan`; None while there are too few to begin."""
        return plan(new, self.keyframes, self.latest, self.config, guests, companions)

    def update(
        self,
        window: Window,
        prediction: WindowPrediction,
        corners: CornersOf = lambda index: None,
        hints: MotionHints = NO_HINTS,
    ) -> WindowOutcome:
        """Place the window in the map.

        corners: what was tracked in the frames, to refine their poses; without, the network's poses stand.
        Raises PredictionError or AlignmentError when the window is unusable; nothing of it is then kept, and the state
        says DEGRADED, or LOST when it is not the first in a row; a camera that stands still is not lost.
        """
        held = hints.held and self.latest is not None
        try:
            check(window, prediction)
            placed = self._place(window, prediction, corners, hints)
            estimates, reasons = self._held(placed) if held else self._estimates(placed)
        except (PredictionError, AlignmentError):
            if self.latest is not None and not hints.held:
                self._rejected += hints.turn is None  # while corners tell where the images are, it is not lost
                self.state = State.LOST if self._rejected >= LOST_AFTER else State.DEGRADED
            raise
        self._rejected = 0
        keyframes = []
        for estimate in estimates:
            slot = prediction.slot(estimate.frame.index)
            worth = 1.0 if held else placed.worth(slot, self._noise)
            worthy = not held and estimate.frame.index not in hints.blurred
            if self._remember(estimate, prediction.descriptor[slot], corners, worth, worthy):
                keyframes.append(estimate)
        outcome = WindowOutcome(self.state, self.scale, self.epoch, reasons, estimates, keyframes, {}, placed)
        return outcome if held else self._adjusted(outcome, placed)

    def focal_of_first(self, window: Window, prediction: WindowPrediction, corners: CornersOf) -> FocalEstimate | None:
        """What the corners of a first window say about its focal length; None where they do not tell."""
        try:
            check(window, prediction)
            return self._place(window, prediction, corners, NO_HINTS).refined.focal
        except (PredictionError, AlignmentError):
            return None

    def measure(self, answers: Iterable[ScaleMeasurement | NoMeasurement]) -> Similarity | None:
        """What metric sources say about the frames of the last window.

        When they agree that lengths are known, the whole map is made metric at once, before the next estimate, which
        says METRIC; odom goes on from where it is, in metres. Returns how the map was moved then.
        """
        moved = None
        for answer in answers:
            if isinstance(answer, ScaleMeasurement):
                answer = replace(answer, variance=answer.variance + FRAME_SCALE**2)
            self.metres.update(answer)
        if self.metres.scale is Scale.METRIC and self.scale is not Scale.METRIC:
            moved = Similarity(self.metres.factor, np.eye(3), np.zeros(3))
            self.metres.rescale(moved.scale)
            self.move(moved)
        self.scale = self.metres.scale
        return moved

    def move(self, moved: Similarity) -> None:
        """Every x in the map becomes ``moved`` x; odom stays."""
        self.log_scale += float(np.log(moved.scale))
        self._map.move(moved)

    def level_first(self, measured: Gravity) -> None:
        """Which way is down in the first camera, before the first window; later it says nothing."""
        if self.latest is None:
            self.gravity = GravityEstimate(measured)

    def level(self, measured: Gravity, estimate: Estimate) -> Similarity | None:
        """Which way is down in an estimate's camera. A map that is not level is turned, a little at a time; how."""
        R_camera0_camera = self.gravity.R_map_camera0.T @ estimate.T_map_camera[:3, :3]
        self.gravity.refine(measured.seen_from(R_camera0_camera), float(np.sqrt(self.drift[0])))
        if self.gravity.tilt <= self.gravity.gravity.sigma:
            return None
        turned = Similarity(1.0, self.gravity.advance(), np.zeros(3))
        self.move(turned)
        return turned

    def bend(self, corrections: Mapping[int, Similarity]) -> Similarity:
        """A loop was closed: each keyframe's x becomes its ``corrections`` x, by frame index; the state says so.

        Returns the correction of the newest, with which everything goes on.
        """
        newest = self._map.bend(corrections)
        self.log_scale += float(np.log(newest.scale))
        self.state = State.RELOCALIZED
        return newest

    def resume(self, latest: Keyframe, log_scale: float) -> None:
        """Go on from a frame whose place in the map is known again; odom goes on from where it was.

        log_scale: of map units per window unit in the window that it came from.
        """
        self._map.latest, self.log_scale = latest, log_scale
        self._rejected = 0
        self.state = State.RELOCALIZED

    # Where the window lies ---------------------------------------------------------------------------------------

    def _place(
        self, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: MotionHints
    ) -> PlacedWindow:
        anchors = self._map.anchors(window)
        aligned = Aligned(first_alignment(self.gravity.R_map_camera0), Quality.GOOD)
        if anchors:
            scale = float(np.exp(self.log_scale))
            aligned = by_network(window, prediction, anchors, hints, scale, self._noise, self.config)
        unit = self.metres.factor if self.metres.locked else None
        R = self.gravity.R_map_camera0
        known = Known(anchors, self.keyframes, R, corners, self._noise, self._surface.spread, unit, not hints.broken)
        return place_window(window, prediction, aligned, known, self.config)

    def _adjusted(self, outcome: WindowOutcome, placed: PlacedWindow) -> WindowOutcome:
        """The newest keyframes as their corners have them, if those tell."""
        if not self.config.refine or self.latest is None:
            return outcome
        prediction = placed.prediction
        said = prediction.depth[placed.window.new_slots[-1]]
        held = self.metres.locked
        corrections, spread = adjust_locally(self.keyframes, self.latest, said, prediction.maps[0], held)
        self._surface.learn(spread)
        if not corrections:
            return outcome
        newest = self._map.bend(corrections)
        self.log_scale += float(np.log(newest.scale))
        return outcome.moved(corrections, newest)

    # What comes of it --------------------------------------------------------------------------------------------

    def _estimates(self, placed: PlacedWindow) -> tuple[list[Estimate], tuple[str, ...]]:
        """The new frames in the map, and what is wrong with them.

        Raises AlignmentError when none of them hangs on anything that is known.
        """
        new = placed.window.new_slots
        views = [self._view(placed, slot) for slot in new]
        seen = placed.refined.ties[list(new)] >= TIED
        tied = linked(placed.anchors or views[:1], views, self.config.gates.linked, seen)
        if not any(tied):
            raise AlignmentError('the new frames share no surface with the map')
        reasons = placed.reasons
        if placed.agreed < AGREED:
            reasons += (f'only {placed.agreed:.0%} of the corners agree with the others and the network',)
        if not all(tied):
            reasons += (f'{len(tied) - sum(tied)} of {len(tied)} new frames share no surface with the others',)
        self._learn(placed)
        self.state = State.DEGRADED if placed.degraded or not all(tied) else State.TRACKING
        self.scale = self.metres.scale
        start = placed.T[0]
        if self.latest is None:
            self.T_odom_latest, start = np.eye(4), np.eye(4)
        estimates = []
        before, stamp = placed.T[0], placed.window.frames[0].stamp
        for slot, view, good in zip(new, views, tied, strict=True):
            if good:
                T_odom = self.T_odom_latest @ camera.invert(start) @ placed.T[slot]
                estimates.append(self._estimate(placed, slot, view, T_odom, before, stamp))
                before, stamp = placed.T[slot], placed.window.frames[slot].stamp
        self.T_odom_latest = estimates[-1].T_odom_camera
        return estimates, reasons

    def _learn(self, placed: PlacedWindow) -> None:
        """What the window says about the map's unit and its anchors."""
        alignment = placed.alignment
        self.log_scale = float(np.log(alignment.similarity.scale))
        if self.metres.locked:
            self.metres.rescale(self.metres.factor)
        self.metres.predict(max(self.metres.config.walk, alignment.scale_sigma) ** 2)
        scale = 0.0 if self.metres.locked else alignment.scale_sigma**2
        self.drift = self.drift + np.array([alignment.covariance[3, 3], alignment.covariance[0, 0], scale])
        for slot, keyframe in enumerate(placed.anchors):
            known = slot in placed.prediction.depth and not placed.by_corners
            depth = placed.depth(slot) if known else None
            refined = placed.refined.covariances[slot] is not None
            T = keyframe.T_map_camera if refined else keyframe.with_window(placed.raw(slot))
            keyframe.fuse(T, depth, placed.prediction.confidence.get(slot))

    def _held(self, placed: PlacedWindow) -> tuple[list[Estimate], tuple[str, ...]]:
        """The camera stands where it stood: fresh depth, the old pose, nothing learnt."""
        assert self.latest is not None
        self.state = State.STATIONARY
        T, stamp = self.latest.T_map_camera, self.latest.frame.stamp
        estimates = []
        for slot in placed.window.new_slots:
            estimate = self._estimate(placed, slot, self._view(placed, slot), self.T_odom_latest, T, stamp)
            estimates.append(replace(estimate, T_map_camera=T, velocity=np.zeros(6)))
        return estimates, ()

    def _view(self, placed: PlacedWindow, slot: int) -> Keyframe:
        """A new frame as a keyframe would be: depth in map units where it is to be believed."""
        frame, prediction = placed.window.frames[slot], placed.prediction
        frame = frame.kept(prediction.maps[slot].resized)
        K = prediction.K[slot] if frame.K is None else prediction.maps[slot].K_to_network(frame.K)
        depth = placed.depth(slot)
        return Keyframe(frame, placed.T[slot], depth, prediction.confidence[slot], K, prediction.descriptor[slot])

    def _estimate(
        self, placed: PlacedWindow, slot: int, view: Keyframe, T_odom: np.ndarray, before: np.ndarray, stamp: int
    ) -> Estimate:
        step = placed.step_covariance(slot, view.median_depth, self._noise)
        rate, rate_covariance = velocity(before, placed.T[slot], view.frame.stamp - stamp, step)
        return Estimate(
            frame=view.frame,
            T_map_camera=placed.T[slot],
            T_odom_camera=T_odom,
            step_covariance=step,
            covariance=placed.pose_covariance(step),
            velocity=rate,
            velocity_covariance=rate_covariance,
            depth=view.depth,
            confidence=view.confidence,
            K=view.K,
            map=placed.prediction.maps[slot],
            state=self.state,
            scale=self.scale,
            epoch=self.epoch,
        )

    def _remember(
        self, estimate: Estimate, descriptor: np.ndarray, corners: CornersOf, worth: float, worthy: bool
    ) -> bool:
        """The frame published last; whether it became a keyframe."""
        keyframe = Keyframe(
            estimate.frame,
            estimate.T_map_camera,
            estimate.depth,
            estimate.confidence,
            estimate.K,
            descriptor,
            corners(estimate.frame.index),
            pose_weight=worth,
            drift=self.drift,
        )
        return self._map.remember(keyframe, worthy)
