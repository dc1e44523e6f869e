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
    """What the network is asked: frames in slot order, the slots whose depth is wanted, how many of the frames are new.

    The new frames stand at the end, in the order of time. Slot 0 is the frame published last, so that tracks go on from
    there and its pose in the window gives a motion without a seam.
    """

    frames: tuple[Frame, ...]
    depth: tuple[int, ...]
    new: int


def at_network_pixels(mask: np.ndarray, pixel_map: camera.PixelMap) -> np.ndarray:
    """(H, W) in source pixels -> (h, w): the value under each network pixel."""
    uv = np.rint(pixel_map.to_source(camera.pixel_grid(pixel_map.size))).astype(int)
    column, row = np.moveaxis(np.clip(uv, 0, np.array(pixel_map.source) - 1), -1, 0)
    return mask[row, column]


def check(window: Window, prediction: WindowPrediction) -> None:
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
