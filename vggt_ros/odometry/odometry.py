"""One consistent estimate out of a stream of windows.

``plan`` chooses the frames that the network looks at; ``update`` places its answer in the map. The map of this module
is a bounded list of keyframes; every window shares frames with it (anchors), is aligned to it through them, and refines
them in turn. Two poses come out: in ``map``, corrected whenever the map is, and in ``odom``, which is composed of steps
inside one window each and therefore has no seams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vggt_ros import camera
from vggt_ros.odometry.alignment import Alignment, AlignmentError, Similarity
from vggt_ros.odometry.anchors import Keyframe, choose, pose_distance, typical_depth
from vggt_ros.odometry.covariance import PoseNoise, velocity
from vggt_ros.odometry.placing import CornersOf, align_anchors, slots_of
from vggt_ros.odometry.quality import Gates, Quality, assess, linked
from vggt_ros.odometry.refine import Refined, refine
from vggt_ros.odometry.scale import NoMeasurement, ScaleFilter, ScaleMeasurement
from vggt_ros.odometry.window import PredictionError, Window, at_network_pixels, check
from vggt_ros.types import Estimate, Frame, Scale, State, WindowPrediction

FLOOR = 0.003  # standard deviation of any step, share of the median depth
LOST_AFTER = 2  # rejected windows in a row
FRAME_SCALE = 0.015  # standard deviation of the log scale of one frame's depth within its window


@dataclass(frozen=True)
class OdometryConfig:
    """How windows are made and keyframes are kept.

    window: most frames the network sees at once. anchor_depths: how many anchors have their depth predicted anew.
    keyframe_distance: a frame becomes a keyframe when its pose distance (see anchors.py) from every keyframe that it
    could be confused with exceeds this. keyframes: how many are kept. initial_frames: frames needed to begin.
    min_confidence: depth below this weight is not published and not used. refine: whether tracked corners refine the
    network's poses. gates: when a window is not believed.
    """

    window: int = 8
    anchor_depths: int = 3
    keyframe_distance: float = 0.15
    keyframes: int = 200
    initial_frames: int = 2
    min_confidence: float = 0.02
    refine: bool = True
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        if self.window < 3:
            raise ValueError(f'window must hold at least 3 frames (two anchors and a new one), not {self.window}')


@dataclass(frozen=True, eq=False)
class _Placed:
    """A window in the map. T: (S, 4, 4) every slot; steps in odom count from the first."""

    window: Window
    prediction: WindowPrediction
    alignment: Alignment
    quality: Quality
    refined: Refined

    @property
    def T(self) -> np.ndarray:
        return self.refined.T_map_camera


class Odometry:
    """Causal, bounded: keyframes in, windows out, estimates in map units.

    Frames must come in the order of their stamps. Not thread-safe: one worker owns it. ``reasons`` says what was wrong
    with the last window, if anything.
    """

    def __init__(self, config: OdometryConfig | None = None) -> None:
        self.config = config or OdometryConfig()
        self.epoch = 0
        self._clear()

    def _clear(self) -> None:
        self.state = State.INITIALIZING
        self.scale = Scale.UNKNOWN
        self.reasons: tuple[str, ...] = ()
        self.keyframes: deque[Keyframe] = deque(maxlen=self.config.keyframes)
        self.latest: Keyframe | None = None
        self._T_odom_latest = np.eye(4)
        self._noise = PoseNoise()
        self.metres = ScaleFilter()
        self._log_scale = 0.0
        self._focal: np.ndarray | None = None
        self._rejected = 0

    def reset(self) -> None:
        """Forget everything and begin a new epoch."""
        self.epoch += 1
        self._clear()

    def shrink(self, window: int) -> None:
        """See at most this many frames at once from now on."""
        self.config = replace(self.config, window=window)

    def plan(self, new: Sequence[Frame]) -> Window | None:
        """The window for these new frames, oldest first; None while there are too few frames to begin."""
        if not new:
            raise ValueError('a window needs at least one new frame')
        new = tuple(new)[-self.config.window :]
        if self.latest is None:
            if len(new) < min(self.config.initial_frames, self.config.window):
                return None
            return Window(new, tuple(range(len(new))), len(new))
        # The oldest stay out where there would be nothing left to compare with.
        new = new[-max(1, self.config.window - self.config.gates.anchors) :]
        room = self.config.window - len(new)
        anchors = [self.latest, *choose(self.keyframes, self.latest, room - 1)]
        frames = tuple(anchor.frame for anchor in anchors) + new
        # Keyframes hold the scale better than the frame published last, which hangs on them.
        first = 1 if len(anchors) > 1 else 0
        wanted = range(first, min(len(anchors), first + self.config.anchor_depths))
        return Window(frames, (*wanted, *range(len(anchors), len(frames))), len(new))

    def update(
        self, window: Window, prediction: WindowPrediction, corners: CornersOf = lambda index: None
    ) -> list[Estimate]:
        """Place the window in the map: one estimate for each new frame, in the order of time.

        corners: what was tracked in the frames, to refine their poses; without, the network's poses stand.
        Raises PredictionError or AlignmentError when the window is unusable; nothing of it is then kept, and the state
        says DEGRADED, or LOST when it is not the first in a row.
        """
        try:
            check(window, prediction)
            placed = self._place(window, prediction, corners)
            estimates = self._estimates(placed)
        except (PredictionError, AlignmentError) as error:
            self.reasons = (str(error),)
            if self.latest is not None:
                self._rejected += 1
                self.state = State.LOST if self._rejected >= LOST_AFTER else State.DEGRADED
            raise
        self._rejected = 0
        for estimate in estimates:
            self._remember(estimate, prediction.descriptor[prediction.slot(estimate.frame.index)], corners)
        return estimates

    def measure(self, answers: Iterable[ScaleMeasurement | NoMeasurement]) -> None:
        """What metric sources say about the frames of the last window.

        When they agree that lengths are known, the whole map is made metric at once, before the next estimate, which
        says METRIC; odom goes on from where it is, in metres.
        """
        for answer in answers:
            if isinstance(answer, ScaleMeasurement):
                answer = replace(answer, variance=answer.variance + FRAME_SCALE**2)
            self.metres.update(answer)
        if self.metres.scale is Scale.METRIC and self.scale is not Scale.METRIC:
            self._rescale(self.metres.factor)
        self.scale = self.metres.scale

    def _rescale(self, ratio: float) -> None:
        """Multiply every length of the map by ``ratio``."""
        self.metres.rescale(ratio)
        self._log_scale += float(np.log(ratio))
        for keyframe in {id(one): one for one in (*self.keyframes, self.latest) if one is not None}.values():
            keyframe.rescale(ratio)

    # Where the window lies ---------------------------------------------------------------------------------------

    def _anchors(self, window: Window) -> list[Keyframe]:
        """The anchors of a window, in slot order."""
        if self.latest is None:
            return []
        known = {keyframe.frame.index: keyframe for keyframe in (*self.keyframes, self.latest)}
        return [known[frame.index] for frame in window.frames[: -window.new]]

    def _place(self, window: Window, prediction: WindowPrediction, corners: CornersOf) -> _Placed:
        anchors = self._anchors(window)
        alignment = align_anchors(anchors, prediction, self._log_scale)
        quality = Quality.GOOD
        if anchors:
            depth = anchors[0].median_depth
            quality, self.reasons = assess(alignment, len(anchors), depth, self.config.gates)
            if quality is Quality.REJECT:
                raise AlignmentError('; '.join(self.reasons))
            self._noise.learn(alignment, depth)
        if self.metres.locked:
            # The anchors' unit, corrected to the metre; slot 0 is the window's origin and stays where it is.
            similarity = alignment.similarity
            metric = Similarity(similarity.scale * self.metres.factor, similarity.R, similarity.t)
            alignment = replace(alignment, similarity=metric)
        similarity = alignment.similarity
        T = np.stack([similarity.pose(one) for one in prediction.T_window_camera])
        refined = Refined(T, [None] * len(T), np.zeros(len(T)))
        slots = slots_of(window, prediction, similarity, anchors, T, corners, self.config.min_confidence)
        if sum(slot.corners is not None for slot in slots) > 1:
            depth = anchors[0].median_depth if anchors else typical_depth(slots[0].depth)
            sigma = np.sqrt(np.diag(self._noise.covariance(depth)))
            refined = refine(slots, sigma[3], sigma[0])
        return _Placed(window, prediction, alignment, quality, refined)

    # What comes of it --------------------------------------------------------------------------------------------

    def _estimates(self, placed: _Placed) -> list[Estimate]:
        """The new frames in the map. Raises AlignmentError when the newest hangs on nothing that is known."""
        window, prediction, similarity = placed.window, placed.prediction, placed.alignment.similarity
        anchors = self._anchors(window)
        new = range(len(window.frames) - window.new, len(window.frames))
        views = [self._view(placed, slot) for slot in new]
        tied = linked(anchors or views[:1], views, self.config.gates.linked)
        if not any(tied):
            raise AlignmentError('the new frames share no surface with the map')
        degraded = placed.quality is Quality.DEGRADED or not all(tied)
        if not all(tied):
            self.reasons += (f'{len(tied) - sum(tied)} of {len(tied)} new frames share no surface with the others',)
        self._log_scale = float(np.log(similarity.scale))
        if self.metres.locked:
            self.metres.rescale(self.metres.factor)
        self.metres.predict(max(self.metres.config.walk, placed.alignment.scale_sigma) ** 2)
        for slot, keyframe in enumerate(anchors):
            keyframe.fuse(
                similarity.pose(prediction.T_window_camera[slot]),
                self._believed(placed, slot, similarity.scale) if slot in prediction.depth else None,
                prediction.confidence.get(slot),
            )
        self.state = State.DEGRADED if degraded else State.TRACKING
        self.scale = self.metres.scale
        start = placed.T[0]
        if self.latest is None:
            self._T_odom_latest, start = np.eye(4), np.eye(4)
        estimates = []
        before, stamp = placed.T[0], window.frames[0].stamp
        for slot, view, good in zip(new, views, tied, strict=True):
            if good:
                T_odom = self._T_odom_latest @ camera.invert(start) @ placed.T[slot]
                estimates.append(self._estimate(placed, slot, view, T_odom, before, stamp))
                before, stamp = placed.T[slot], window.frames[slot].stamp
        self._T_odom_latest = estimates[-1].T_odom_camera
        return estimates

    def _view(self, placed: _Placed, slot: int) -> Keyframe:
        """A new frame as a keyframe would be: depth in map units where it is to be believed."""
        frame, prediction = placed.window.frames[slot], placed.prediction
        scale = placed.alignment.similarity.scale * float(np.exp(placed.refined.log_depth[slot]))
        depth, confidence = self._believed(placed, slot, scale), prediction.confidence[slot]
        K = self._intrinsics(frame, prediction.maps[slot], prediction.K[slot])
        return Keyframe(frame, placed.T[slot], depth, confidence, K, prediction.descriptor[slot])

    def _believed(self, placed: _Placed, slot: int, scale: float) -> np.ndarray:
        """(h, w) float32 the depth of a frame in map units, NaN where it is not to be believed."""
        frame, confidence = placed.window.frames[slot], placed.prediction.confidence[slot]
        depth = (placed.prediction.depth[slot] * scale).astype(np.float32)
        with np.errstate(invalid='ignore'):
            known = (depth > 0) & (confidence >= self.config.min_confidence)
        if frame.valid is not None:
            known &= at_network_pixels(frame.valid, placed.prediction.maps[slot])
        depth[~known] = np.nan
        return depth

    def _estimate(
        self, placed: _Placed, slot: int, view: Keyframe, T_odom: np.ndarray, before: np.ndarray, stamp: int
    ) -> Estimate:
        step = self._step_covariance(placed, slot, view.median_depth)
        rate, rate_covariance = velocity(before, placed.T[slot], view.frame.stamp - stamp, step)
        return Estimate(
            frame=view.frame,
            T_map_camera=placed.T[slot],
            T_odom_camera=T_odom,
            step_covariance=step,
            covariance=self._pose_covariance(placed, slot, step, view.median_depth),
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

    def _intrinsics(self, frame: Frame, pixel_map: camera.PixelMap, predicted: np.ndarray) -> np.ndarray:
        """The known K, else the predicted one with its focal lengths smoothed over frames (log domain)."""
        if frame.K is not None:
            return pixel_map.K_to_network(frame.K)
        focal = np.log([predicted[0, 0], predicted[1, 1]])
        self._focal = focal if self._focal is None else self._focal + 0.1 * (focal - self._focal)
        K = predicted.copy()
        K[0, 0], K[1, 1] = np.exp(self._focal)
        return K

    def _step_covariance(self, placed: _Placed, slot: int, depth: float) -> np.ndarray:
        """(6, 6) of the step from slot 0 to this one; map axes, times 4 when the window is DEGRADED."""
        moved, start = placed.refined.covariances[slot], placed.refined.covariances[0]
        covariance = self._noise.covariance(depth) if moved is None else moved.copy()
        if start is not None:  # seen by corners like the others
            covariance += start
        way = placed.T[slot][:3, 3] - placed.T[0][:3, 3]
        covariance[:3, :3] += placed.alignment.scale_sigma**2 * np.outer(way, way) + np.eye(3) * (FLOOR * depth) ** 2
        return covariance * (4.0 if placed.quality is Quality.DEGRADED else 1.0)

    def _pose_covariance(self, placed: _Placed, slot: int, step: np.ndarray, depth: float) -> np.ndarray:
        """The step, the window's place among its anchors, and a floor of 0.1 deg."""
        covariance = step + placed.alignment.covariance
        covariance[3:, 3:] += np.eye(3) * np.radians(0.1) ** 2
        return covariance

    def _remember(self, estimate: Estimate, descriptor: np.ndarray, corners: CornersOf) -> None:
        keyframe = Keyframe(
            estimate.frame,
            estimate.T_map_camera,
            estimate.depth,
            estimate.confidence,
            estimate.K,
            descriptor,
            corners(estimate.frame.index),
        )
        self.latest = keyframe
        if not self.keyframes or pose_distance(self.keyframes[-1], keyframe) > self.config.keyframe_distance:
            self.keyframes.append(keyframe)
