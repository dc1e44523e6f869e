"""One consistent estimate out of a stream of windows.

``plan`` chooses the frames that the network looks at; ``update`` places its answer in the map. The map of this module
is a bounded list of keyframes; every window shares frames with it (anchors) and is aligned to it through them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.odometry.alignment import Alignment, AlignmentError, Anchor, Similarity, align
from vggt_ros.types import Estimate, Frame, Scale, State, WindowPrediction

# Rotation of a level camera looking along the map's x axis: columns are the optical axes in REP-103 (x forward, z up).
R_MAP_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class PredictionError(ValueError):
    """The network's answer cannot be used: not finite, no valid depth, no valid focal length."""


@dataclass(frozen=True)
class OdometryConfig:
    """How windows are made and keyframes are kept.

    window: most frames the network sees at once.
    anchor_depths: how many anchors have their depth predicted anew, for the scale.
    keyframe_distance: a frame becomes a keyframe when rotation (rad) + translation / median depth from the latest
    keyframe exceeds this (AMB3R-VO's distance). keyframes: how many are kept. initial_frames: frames needed to begin.
    min_confidence: depth below this weight is not published and not used.
    """

    window: int = 8
    anchor_depths: int = 2
    keyframe_distance: float = 0.15
    keyframes: int = 32
    initial_frames: int = 2
    min_confidence: float = 0.1

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f'window must hold at least 2 frames, not {self.window}')


@dataclass(frozen=True, eq=False)
class Window:
    """What the network is asked: frames in slot order, the slots whose depth is wanted, how many of the frames are new.

    The new frames stand at the end, in the order of time. Slot 0 is the frame published last, so that tracks go on from
    there and its pose in the window gives a motion without a seam.
    """

    frames: tuple[Frame, ...]
    depth: tuple[int, ...]
    new: int


@dataclass(eq=False)
class Keyframe:
    """A frame of the map: pose, depth and confidence at the network's size, in map units."""

    frame: Frame
    T_map_camera: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray


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
        self.keyframes: deque[Keyframe] = deque(maxlen=self.config.keyframes)
        self.latest: Keyframe | None = None
        self._log_scale = 0.0
        self._focal: np.ndarray | None = None

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
        anchors = self._anchors(self.config.window - len(new))
        frames = tuple(anchor.frame for anchor in anchors) + new
        # Keyframes hold the scale better than the frame published last, which hangs on them.
        first = 1 if len(anchors) > 1 else 0
        wanted = range(first, min(len(anchors), first + self.config.anchor_depths))
        return Window(frames, (*wanted, *range(len(anchors), len(frames))), len(new))

    def _anchors(self, room: int) -> list[Keyframe]:
        """The frame published last, then keyframes, latest first: at least one, at most ``room``."""
        assert self.latest is not None
        others = [keyframe for keyframe in reversed(self.keyframes) if keyframe is not self.latest]
        return [self.latest, *others][: max(1, room)]

    def update(self, window: Window, prediction: WindowPrediction) -> list[Estimate]:
        """Place the window in the map: one estimate for each new frame, in the order of time.

        Raises PredictionError or AlignmentError when the window is unusable; nothing of it is then kept, and the state
        says DEGRADED (LOST is for a later window to find out).
        """
        try:
            _check(window, prediction)
            alignment = self._align(window, prediction)
        except (PredictionError, AlignmentError):
            if self.latest is not None:
                self.state = State.DEGRADED
            raise
        self._log_scale = float(np.log(alignment.similarity.scale))
        self.state = State.TRACKING
        self.scale = Scale.RELATIVE
        estimates = []
        for slot in range(len(window.frames) - window.new, len(window.frames)):
            estimate = self._estimate(window, prediction, alignment, slot)
            self._remember(estimate)
            estimates.append(estimate)
        return estimates

    def _align(self, window: Window, prediction: WindowPrediction) -> Alignment:
        if self.latest is None:
            origin = Similarity(1.0, R_MAP_OPTICAL, np.zeros(3))
            return Alignment(origin, 0.0, 0.0, 0.0, 1.0, np.zeros((6, 6)))
        known = {keyframe.frame.index: keyframe for keyframe in (*self.keyframes, self.latest)}
        anchors = []
        for slot, frame in enumerate(window.frames[: -window.new]):
            keyframe = known[frame.index]
            anchors.append(
                Anchor(
                    keyframe.T_map_camera,
                    prediction.T_window_camera[slot],
                    keyframe.depth,
                    prediction.depth.get(slot),
                    keyframe.confidence,
                    prediction.confidence.get(slot),
                )
            )
        return align(anchors, scale_prior=float(np.exp(self._log_scale)))

    def _estimate(self, window: Window, prediction: WindowPrediction, alignment: Alignment, slot: int) -> Estimate:
        frame, pixel_map = window.frames[slot], prediction.maps[slot]
        T = alignment.similarity.pose(prediction.T_window_camera[slot])
        confidence = prediction.confidence[slot]
        depth = (prediction.depth[slot] * alignment.similarity.scale).astype(np.float32)
        known = (depth > 0) & (confidence >= self.config.min_confidence)
        if frame.valid is not None:
            known &= _at_network_pixels(frame.valid, pixel_map)
        depth[~known] = np.nan
        covariance = self._pose_covariance(T, alignment, depth)
        velocity, velocity_covariance = self._velocity(window, prediction, alignment, slot, covariance)
        return Estimate(
            frame=frame,
            T_map_camera=T,
            covariance=covariance,
            velocity=velocity,
            velocity_covariance=velocity_covariance,
            depth=depth,
            confidence=confidence,
            K=self._intrinsics(frame, pixel_map, prediction.K[slot]),
            map=pixel_map,
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

    def _pose_covariance(self, T: np.ndarray, alignment: Alignment, depth: np.ndarray) -> np.ndarray:
        """Scatter of the anchors + scale along the way since the latest frame + floors (0.2 % of depth, 0.1 deg)."""
        typical = float(np.nanmedian(depth)) if np.isfinite(depth).any() else 1.0
        covariance = alignment.covariance.copy()
        covariance[:3, :3] += np.eye(3) * (0.002 * typical) ** 2
        covariance[3:, 3:] += np.eye(3) * np.radians(0.1) ** 2
        if self.latest is not None:
            step = T[:3, 3] - self.latest.T_map_camera[:3, 3]
            covariance[:3, :3] += alignment.scale_sigma**2 * np.outer(step, step)
        return covariance

    def _velocity(
        self,
        window: Window,
        prediction: WindowPrediction,
        alignment: Alignment,
        slot: int,
        covariance: np.ndarray,
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Velocity in the camera's axes from the step since the frame before, both taken in this one window."""
        before = slot - 1 if slot > len(window.frames) - window.new else 0
        seconds = (window.frames[slot].stamp - window.frames[before].stamp) * 1e-9
        if seconds <= 0:
            return None, np.diag([1e6] * 6)
        T = prediction.T_window_camera
        step = camera.invert(T[slot]) @ T[before]
        linear = -alignment.similarity.scale * step[:3, 3] / seconds
        angular = Rotation.from_matrix(step[:3, :3]).inv().as_rotvec() / seconds
        turn = np.kron(np.eye(2), (alignment.similarity.R @ T[slot][:3, :3]).T)
        return np.concatenate([linear, angular]), turn @ covariance @ turn.T / seconds**2

    def _remember(self, estimate: Estimate) -> None:
        keyframe = Keyframe(estimate.frame, estimate.T_map_camera, estimate.depth, estimate.confidence)
        self.latest = keyframe
        if not self.keyframes or pose_distance(self.keyframes[-1], keyframe) > self.config.keyframe_distance:
            self.keyframes.append(keyframe)


def pose_distance(a: Keyframe, b: Keyframe) -> float:
    """Rotation (rad) + translation over a's median depth: how far apart two views are."""
    step = camera.invert(a.T_map_camera) @ b.T_map_camera
    depth = np.nanmedian(a.depth) if np.isfinite(a.depth).any() else 1.0
    return float(Rotation.from_matrix(step[:3, :3]).magnitude() + np.linalg.norm(step[:3, 3]) / depth)


def _at_network_pixels(mask: np.ndarray, pixel_map: camera.PixelMap) -> np.ndarray:
    """(H, W) in source pixels -> (h, w): the value under each network pixel."""
    uv = np.rint(pixel_map.to_source(camera.pixel_grid(pixel_map.size))).astype(int)
    column, row = np.moveaxis(np.clip(uv, 0, np.array(pixel_map.source) - 1), -1, 0)
    return mask[row, column]


def _check(window: Window, prediction: WindowPrediction) -> None:
    """Refuse what no later step could use, and say what it was."""
    if prediction.indices != tuple(frame.index for frame in window.frames):
        raise PredictionError('the prediction is about other frames than the window')
    if not np.isfinite(prediction.T_window_camera).all():
        raise PredictionError('the network predicted a pose that is not finite')
    for slot in window.depth:
        frame = window.frames[slot]
        if frame.K is None and not np.isfinite(prediction.K[slot]).all():
            raise PredictionError('the network predicted an impossible field of view and no camera_info is known')
        depth = prediction.depth[slot]
        if not (np.isfinite(depth) & (depth > 0)).any():
            raise PredictionError('the network predicted no valid depth')
