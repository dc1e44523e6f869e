"""Metric sources while the map runs: each is asked once for every window that was placed in the map.

The measurements themselves are in measurements.py; here is what has to be kept between windows and brought together in
time. An answer takes less than 5 ms and never waits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from vggt_ros import camera
from vggt_ros.odometry.scale.filter import FIXED
from vggt_ros.odometry.scale.measurements import OdometryScale, baseline_scale, depth_scale, fixed_scale, height_scale
from vggt_ros.odometry.scale.recent import Recent
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement, Sensor, SolvedWindow
from vggt_ros.types import Estimate, State

T = TypeVar('T')

# lookup(target, source, stamp in ns or None = latest) -> T_target_source (4, 4), or in words why it is not available.
Lookup = Callable[[str, str, int | None], np.ndarray | str]

DEPTH_MEMORY = 128 << 20  # bytes of depth images that wait for their window
WIDEST = 640  # pixels: a wider depth image is thinned out, which a grid of 8 network pixels does not notice
PATIENCE = 1_000_000_000  # ns of stamps, and
TRIES = 3  # windows: for how long a transform that is not there yet is asked for again


@dataclass(frozen=True)
class NoInput(NoMeasurement):
    """No measurement because what the source lives on has never come."""


def _as_is(depth: Any) -> Any:
    return depth


class DepthSource(Sensor, Generic[T]):
    """Depth images registered to the camera. ``add`` may be called from any thread.

    tolerance: ns between an image and its depth image; near, far: metres between which the sensor is believed.
    memory: bytes of depth images that are kept; those that are no longer needed go at once. read: makes (H, W) float
    metres of z-depth, NaN or 0 = unknown, of what was added, or says in words why not; only of what is needed.
    """

    name = 'depth'

    def __init__(
        self,
        tolerance: int = 20_000_000,
        near: float = 0.3,
        far: float = 8.0,
        memory: int = DEPTH_MEMORY,
        read: Callable[[T], np.ndarray | str] = _as_is,
    ) -> None:
        self._tolerance = tolerance
        self.believe(near, far)
        self._images: Recent[T] = Recent(memory)
        self._read = read

    def believe(self, near: float, far: float) -> None:
        """From now on between these, in metres. Raises ValueError."""
        if not 0 < near < far:
            raise ValueError(f'the depth sensor is believed between near and far: 0 < {near} < {far} does not hold')
        self._near, self._far = near, far

    def add(self, stamp: int, image: T, size: int) -> None:
        """A depth image as ``read`` takes it; its stamp in ns, its bytes."""
        self._images.add(stamp, image, size)

    def clear(self) -> None:
        """Depth images are in metres whatever the map is in: they stay."""

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement:
        """From the image and the depth image nearest to each other, the newest of equals."""
        best: tuple[int, Estimate, int, T] | None = None
        for estimate in reversed(solved.estimates):
            found = self._images.nearest(estimate.frame.stamp)
            if found is not None:
                apart = abs(found[0] - estimate.frame.stamp)
                if best is None or apart < best[0]:
                    best = (apart, estimate, *found)
        if best is None:
            if self._images.newest is None:
                return NoInput(self.name, 'no depth image has come')
            return NoMeasurement(self.name, 'no depth image has come since the last window')
        self._images.forget(solved.estimates[-1].frame.stamp - self._tolerance)
        _, estimate, stamp, image = best
        sensor = self._read(image)
        if isinstance(sensor, str):
            return NoMeasurement(self.name, sensor)
        step = max(1, math.ceil(sensor.shape[1] / WIDEST))
        sensor = sensor[step // 2 :: step, step // 2 :: step]
        return depth_scale(
            estimate.depth,
            estimate.confidence,
            estimate.map,
            estimate.frame.stamp,
            sensor,
            stamp,
            tolerance=self._tolerance,
            near=self._near,
            far=self._far,
        )


class OdometrySource(Sensor):
    """Wheels, or any other metric odometry: the transform of ``base_frame`` in ``odom_frame`` at the images' stamps.

    The transform of an image may come after its window: it is asked for again with the next windows, until it is more
    than ``PATIENCE`` older than the newest image and was asked for ``TRIES`` times. An image without a transform is
    left out, since steps compose: the next step is longer.
    """

    name = OdometryScale.SOURCE

    def __init__(self, lookup: Lookup, odom_frame: str, base_frame: str) -> None:
        if not odom_frame or not base_frame:
            raise ValueError('odometry needs the names of odom_frame and base_frame')
        self._lookup, self._odom, self._base = lookup, odom_frame, base_frame
        self._scale: OdometryScale | None = None
        self._known = False
        self.clear()

    def clear(self) -> None:
        """Forget the way so far: its camera steps are in other units."""
        self._waiting: deque[_Waiting] = deque(maxlen=128)
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        if self._scale is not None:
            self._scale.clear()

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement:
        """From the stretches driven since the last measurement, see :class:`OdometryScale`."""
        if self._scale is None:
            T_base_camera = self._lookup(self._base, solved.estimates[-1].frame.frame_id, None)
            if isinstance(T_base_camera, str):
                return NoInput(self.name, T_base_camera)
            self._scale = OdometryScale(T_base_camera)
        for estimate in solved.estimates:
            if estimate.state in (State.LOST, State.RELOCALIZED):
                self.clear()  # the way from the frame before is a guess
            self._waiting.append(_Waiting(estimate.frame.stamp, estimate.T_odom_camera))
        missing = self._drive(self._scale)
        if not self._known:
            return NoInput(self.name, missing)
        measured = self._scale.measure()
        if isinstance(measured, NoMeasurement) and missing:
            return NoMeasurement(self.name, f'{measured.reason}; {missing}')
        return measured

    def _drive(self, scale: OdometryScale) -> str:
        """Hand on the steps whose transforms are there; in words which are missed, empty when there is hope."""
        words = ''
        resolved = 0
        for count, image in enumerate(self._waiting, start=1):
            image.tries += 1
            T_odom_base = self._lookup(self._odom, self._base, image.stamp)
            if isinstance(T_odom_base, str):
                words = T_odom_base
                continue
            self._known = True
            if self._last is not None:
                T_odom_camera, before = self._last
                scale.add(camera.invert(T_odom_camera) @ image.T_odom_camera, camera.invert(before) @ T_odom_base)
            self._last = image.T_odom_camera, T_odom_base
            resolved = count
        newest = self._waiting[-1].stamp
        for _ in range(resolved):
            self._waiting.popleft()  # what is older than a known transform will not become known either
        late = 0
        while self._waiting and self._waiting[0].tries >= TRIES and newest - self._waiting[0].stamp > PATIENCE:
            self._waiting.popleft()
            late += 1
        if not self._known:
            return words
        return f'no transform for {late} images in {PATIENCE / 1e9:.0f} s: {words}' if late else ''


@dataclass(eq=False)
class _Waiting:
    """An image whose base is not placed yet."""

    stamp: int
    T_odom_camera: np.ndarray
    tries: int = 0


class BaselineSource(Sensor):
    """A second camera at a known place beside the first.

    calibration: gives T_first_second (4, 4) in metres, or in words why the second camera is no use now.
    """

    name = 'baseline'

    def __init__(self, calibration: Callable[[], np.ndarray | str]) -> None:
        self._calibration = calibration
        self._seen = False

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement:
        """From the simultaneous images in the window."""
        self._seen |= len(solved.companions) > 0
        silent = NoMeasurement if self._seen else NoInput
        T_first_second = self._calibration()
        if isinstance(T_first_second, str):
            return silent(self.name, T_first_second)
        if not solved.companions:
            return silent(self.name, 'no simultaneous image of the second camera in the window')
        first, second = (np.stack(poses) for poses in zip(*solved.companions, strict=True))
        depth = solved.estimates[-1].depth[::4, ::4]
        known = depth[np.isfinite(depth)]
        return baseline_scale(first, second, T_first_second, float(np.median(known)) if known.size else math.nan)


class HeightSource(Sensor):
    """The height of the camera above the ground, in metres."""

    name = 'height'

    def __init__(self, height: float) -> None:
        if not (math.isfinite(height) and height > 0):
            raise ValueError(f'the height of the camera must be positive, not {height} m')
        self._height = height

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement:
        """From the ground in the newest image; the map's z is up."""
        newest = solved.estimates[-1]
        down = -newest.T_map_camera[2, :3]
        return height_scale(newest.depth, newest.confidence, newest.K, down, self._height)


class FixedSource(Sensor):
    """The user's promise that one unit of the network is ``factor`` metres."""

    name = FIXED

    def __init__(self, factor: float) -> None:
        fixed_scale(factor)  # refuses an impossible factor now, not with the first window
        self._factor = factor

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement:
        """The promise, in the map's present units."""
        return fixed_scale(self._factor, solved.window_scale)
