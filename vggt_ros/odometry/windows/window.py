"""What the network is asked, and the refusal of answers that no later step could use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros import camera
from vggt_ros.types import Frame, WindowPrediction


class PredictionError(ValueError):
    """The network's answer cannot be used: not finite, no valid depth, no valid focal length."""


@dataclass(frozen=True, eq=False)
class Window:
    """What the network is asked: frames in slot order, and the slots whose depth is wanted.

    Slots: anchors (frames of the map, slot 0 the frame published last, so that tracks go on from there and its pose in
    the window gives a motion without a seam), then ``new`` frames in the order of time, then ``guests`` (keyframes that
    may be the same place: they have no say in where the window lies), then ``companions`` (a second camera's frames).
    focal_sigma: standard deviation of the log of the focal length in the frames' K, 0 where it is known.
    """

    frames: tuple[Frame, ...]
    depth: tuple[int, ...]
    new: int
    guests: int = 0
    companions: int = 0
    focal_sigma: float = 0.0

    @property
    def anchors(self) -> int:
        """How many anchors there are; none in the first window."""
        return len(self.frames) - self.new - self.guests - self.companions

    @property
    def new_slots(self) -> range:
        """Slots of the new frames."""
        return range(self.anchors, self.anchors + self.new)

    @property
    def guest_slots(self) -> range:
        """Slots of the guests."""
        return range(self.anchors + self.new, self.anchors + self.new + self.guests)

    @property
    def companion_slots(self) -> range:
        """Slots of the second camera's frames."""
        return range(len(self.frames) - self.companions, len(self.frames))


def at_network_pixels(mask: np.ndarray, pixel_map: camera.PixelMap) -> np.ndarray:
    """(H, W) beside a picture of the source -> (h, w): the value under each network pixel."""
    at = camera.shown_by(pixel_map.source, mask).to_network(pixel_map.to_source(camera.pixel_grid(pixel_map.size)))
    column, row = np.moveaxis(np.clip(np.rint(at).astype(int), 0, np.array(camera.image_size(mask)) - 1), -1, 0)
    return mask[row, column]


def intrinsics(frame: Frame, pixel_map: camera.PixelMap, predicted: np.ndarray) -> np.ndarray:
    """(3, 3) in source pixels: what is known, else what the network predicts (3, 3), which is in its own."""
    return pixel_map.K_to_source(predicted) if frame.K is None else frame.K


def check(window: Window, prediction: WindowPrediction) -> None:
    """Refuse what no later step could use, and say what it was."""
    if prediction.indices != tuple(frame.index for frame in window.frames):
        raise PredictionError('the prediction is about other frames than the window')
    if not np.isfinite(prediction.T_window_camera).all():
        raise PredictionError('the network predicted a pose that is not finite')
    if not np.isfinite(prediction.descriptor).all():
        raise PredictionError("the network's features are not finite")
    for slot in window.depth:
        frame = window.frames[slot]
        if frame.K is None and not np.isfinite(prediction.K[slot]).all():
            raise PredictionError('the network predicted an impossible field of view and no camera_info is known')
        depth = prediction.depth[slot]
        if not (np.isfinite(depth) & (depth > 0)).any():
            raise PredictionError('the network predicted no valid depth')
