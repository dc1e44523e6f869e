"""The one door for everything beside the camera that knows something about the scene or the robot.

A sensor is asked twice for every window, on the thread that solves it, and never waits long: before the network looks,
what goes into the window or is known of its newest frame (:class:`Reading`); after the window is placed, which metric
length it knows. Whoever adds a sensor writes one class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vggt_ros.odometry.gravity import Gravity
from vggt_ros.types import Estimate, Frame


@dataclass(frozen=True, eq=False)
class Reading:
    """What sensors know of a window's new frames before the network looks at them.

    companions: frame index -> the simultaneous image of a second camera, which joins the window. gravity: which way is
    down in the newest frame, None where nobody knows.
    """

    companions: Mapping[int, Frame] = field(default_factory=dict)
    gravity: Gravity | None = None


@dataclass(frozen=True, eq=False)
class SolvedWindow:
    """One window in the map, as metric sources see it.

    estimates: the new frames, oldest first, at least one. window_scale: map units per unit of the window.
    companions: (T_map_camera, T_map_companion), (4, 4) each, of simultaneous frames of a second camera.
    """

    estimates: Sequence[Estimate]
    window_scale: float
    companions: Sequence[tuple[np.ndarray, np.ndarray]] = ()


@dataclass(frozen=True)
class ScaleMeasurement:
    """One statement of a metric source.

    log_scale: log(metres per map unit). variance: of log_scale, the part that is independent from one measurement of
    this source to the next; what repeats is the source's bias, see :class:`ScaleConfig`.
    """

    source: str
    log_scale: float
    variance: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.log_scale):
            raise ValueError(f'the log-scale of {self.source} must be finite, not {self.log_scale}')
        if not (math.isfinite(self.variance) and self.variance > 0):
            raise ValueError(f'the variance of {self.source} must be positive and finite, not {self.variance}')


@dataclass(frozen=True)
class NoMeasurement:
    """A metric source has nothing to say this time; reason: why, in words for a person."""

    source: str
    reason: str


class Sensor:
    """Knows nothing; a sensor overrides what it has to say. name: as in ``ScaleConfig.bias``, of a metric source."""

    name = ''

    def read(self, frames: Sequence[Frame]) -> Reading:
        """What is known of these new frames, oldest first, at least one."""
        return Reading()

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement | None:
        """The metric length that it knows in this window, or why it has none; None when it never has any."""
        return None

    def clear(self) -> None:
        """A new epoch has begun, or the map was rescaled in one step: lengths in map units from before are void."""


def read_all(sensors: Iterable[Sensor], frames: Sequence[Frame]) -> Reading:
    """What all of them know; the first that knows a thing is believed."""
    companions: dict[int, Frame] = {}
    gravity = None
    for sensor in sensors:
        reading = sensor.read(frames)
        companions = {**reading.companions, **companions}
        gravity = reading.gravity if gravity is None else gravity
    return Reading(companions, gravity)
