"""How the odometry works, and what it is told beside the network's answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from vggt_ros.types import Accuracy


@dataclass(frozen=True)
class WindowGates:
    """Bounds of a good window.

    One failed: DEGRADED; ``rejected`` or more, or translation and rotation by ``GROSS`` (windows/quality.py): REJECT.
    """

    translation: float = 0.03  # scatter of the anchors' translations as a share of the median depth
    rotation: float = float(np.radians(1.5))  # scatter of their rotations, rad
    scale: float = 0.03  # standard deviation of the log of the scale
    inliers: float = 0.5  # least share of pixels whose depth agrees within 5 %
    turn: float = float(np.radians(2.0))  # rad between the newest rotation and the one that tracked corners tell
    rejected: int = 3  # gates failed from which a window is refused
    anchors: int = 2  # fewer that can be compared: REJECT
    linked: float = 0.15  # least share of common surface that ties a new frame to one that is placed already

    @classmethod
    def of(cls, accuracy: Accuracy) -> WindowGates:
        """The bounds above, as they stand to the accuracy of VGGT-1B, for a network of another accuracy."""
        usual, gates = Accuracy(), cls()
        rotation = max(1.0, accuracy.rotation / usual.rotation)
        depth = max(1.0, accuracy.depth / usual.depth)
        return replace(
            gates,
            translation=gates.translation * max(1.0, accuracy.translation / usual.translation),
            rotation=gates.rotation * rotation,
            scale=gates.scale * depth,
            inliers=gates.inliers / depth,
            linked=gates.linked / depth,
            turn=gates.turn * rotation,
        )


@dataclass(frozen=True)
class OdometryConfig:
    """How windows are made and keyframes are kept."""

    window: int = 8  # most frames the network sees at once
    anchor_depths: int = 3  # how many anchors have their depth predicted anew
    # pose distance (keyframe.py) from the last keyframe beyond which a frame becomes one
    keyframe_distance: float = 0.15
    keyframes: int = 200  # how many are kept
    initial_frames: int = 2  # frames needed to begin
    min_confidence: float = 0.02  # depth below this weight is not published and not used
    refine: bool = True  # whether tracked corners refine the network's poses
    accuracy: Accuracy = field(default_factory=Accuracy)  # of the network, to which everything else stands

    def __post_init__(self) -> None:
        if self.window < 3:
            raise ValueError(f'window must hold at least 3 frames (two anchors and a new one), not {self.window}')
        if self.initial_frames < 2:
            raise ValueError(f'initial_frames must be at least 2, not {self.initial_frames}: one view has no scale')

    @cached_property
    def gates(self) -> WindowGates:
        """When a window is not believed."""
        return WindowGates.of(self.accuracy)


@dataclass(frozen=True, eq=False)
class MotionHints:
    """What the camera-rate front end knows about a window."""

    turn: np.ndarray | None = None  # (3, 3) rotation R_first_newest of the newest frame seen from slot 0's, or None
    blurred: frozenset[int] = frozenset()  # indices of frames that make no keyframe
    held: bool = False  # the camera has not moved since slot 0's frame
    broken: bool = False  # nothing that was tracked connects the newest frame with slot 0's


NO_HINTS = MotionHints()
