"""Where metres come from: each source compares a metric length with the same length in map units.

Every source gives a :class:`ScaleMeasurement` of log(metres per map unit), or a :class:`NoMeasurement` that says why
not. "Map units" are whatever the given depths and poses are in: window units give log(metres per window unit).
Values that cannot be used (NaN, zero, negative, no confidence) lead to a reason; arrays of the wrong shape or kind are
mistakes of the program and raise ValueError. All variances include a floor: neighbouring pixels err together.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros import camera
from vggt_ros.camera import PixelMap
from vggt_ros.depth import edges_at
from vggt_ros.odometry.scale.filter import FIXED
from vggt_ros.odometry.scale.ground import fit_ground
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.odometry.windows.alignment import CONFIDENT, STRIDE
from vggt_ros.odometry.windows.robust import weighted_median

ENOUGH = 50  # sampled pixels below which an image says nothing
DEPTH_FLOOR = 0.015  # standard deviation of log-depth common to a window: no number of pixels averages it away
INDEPENDENT = 30  # patches of an image that err independently, at most


def depth_scale(
    depth: np.ndarray,
    confidence: np.ndarray,
    pixel_map: PixelMap,
    stamp: int,
    sensor: np.ndarray,
    sensor_stamp: int,
    *,
    tolerance: int = 20_000_000,
    near: float = 0.3,
    far: float = 8.0,
) -> ScaleMeasurement | NoMeasurement:
    """Compare the map's depth of one image with a depth image registered to the same camera.

    depth, confidence: (h, w) z-depth in map units and weight in [0, 1), network pixels; pixel_map: source <-> network.
    sensor: (H, W) float metres of z-depth, NaN or 0 = unknown, any size, but the same view as the (rectified) source
    image. stamp, sensor_stamp: nanoseconds; further apart than ``tolerance`` the two are not the same view.
    near, far: metres between which the sensor is believed.
    Weighted median of log(z_sensor / z_map) over confident pixels away from depth edges, as in alignment.
    """
    name = 'depth'
    if depth.ndim != 2 or depth.shape != confidence.shape or depth.shape[::-1] != pixel_map.size:
        raise ValueError(
            f'depth {depth.shape}, confidence {confidence.shape}, network image {pixel_map.size} must match'
        )
    if sensor.ndim != 2 or not np.issubdtype(sensor.dtype, np.floating):
        raise ValueError(
            'the depth image must be (H, W) float metres; 16UC1 holds millimetres: divide by 1000 (REP 118)'
        )
    apart = abs(int(stamp) - int(sensor_stamp))
    if apart > tolerance:
        return NoMeasurement(name, f'not synchronised: {apart / 1e6:.1f} ms apart, {tolerance / 1e6:.1f} ms allowed')
    if sensor.size == 0:
        return NoMeasurement(name, 'the depth image is empty')
    size = camera.image_size(sensor)
    stretch = size[0] * pixel_map.source[1] / (size[1] * pixel_map.source[0])
    if abs(math.log(stretch)) > 0.02:
        return NoMeasurement(name, f'not registered: {size} has another shape than the image, {pixel_map.source}')

    grid = camera.pixel_grid(pixel_map.size)[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE].reshape(-1, 2)
    column, row = grid.astype(int).T
    to_sensor = PixelMap(pixel_map.source, size, (0, 0), size)
    uv = np.rint(to_sensor.to_network(pixel_map.to_source(grid))).astype(int)
    u, v = np.clip(uv, 0, np.array(size) - 1).T
    ours, theirs, weight = depth[row, column], sensor[v, u], confidence[row, column]
    with np.errstate(invalid='ignore'):
        believed = (theirs >= near) & (theirs <= far) & ~edges_at(sensor, v, u)
        usable = believed & np.isfinite(ours) & (ours > 0) & (weight > 0) & ~edges_at(depth, row, column)
    if believed.sum() < ENOUGH:
        return NoMeasurement(name, f'the depth image has {believed.sum()} usable samples from {near} to {far} m')
    if usable.sum() < ENOUGH:
        return NoMeasurement(name, f'only {usable.sum()} samples have depth and confidence in the map')
    usable &= weight >= np.quantile(weight[usable], CONFIDENT)
    ratio = np.log(theirs[usable].astype(np.float64)) - np.log(ours[usable].astype(np.float64))
    median = weighted_median(ratio, weight[usable])
    scatter = 1.48 * float(np.median(np.abs(ratio - median)))
    if scatter > 0.25:
        return NoMeasurement(name, f'the depth image has another shape than the map: ratios scatter by {scatter:.0%}')
    count = min(usable.sum(), INDEPENDENT)
    return ScaleMeasurement(name, median, DEPTH_FLOOR**2 + np.pi / 2 * scatter**2 / count)


class OdometryScale:
    """Wheels (or any other metric odometry) against the camera's path, in stretches of at least ``stretch`` metres.

    T_base_camera: (4, 4), the camera on the robot. Steps of the base are carried to the camera,
    T_camera^-1 T_step T_camera, so that the lever arm's motion while turning is on both sides (the hand-eye relation,
    Tsai and Lenz 1989). A stretch counts when both sides turn and head the same way, else the wheels slip (or the
    camera does not stand where it is said to). Slip that keeps the direction shows only against other sources.
    """

    SOURCE = 'odometry'
    FLOOR = 0.01
    TURN = np.radians(3.0)
    HEADING = np.radians(15.0)
    LONGEST = 200  # steps after which a stretch without enough motion is given up: its noise would add up

    def __init__(self, T_base_camera: np.ndarray, stretch: float = 0.3, count: int = 3) -> None:
        if np.shape(T_base_camera) != (4, 4) or not np.isfinite(T_base_camera).all():
            raise ValueError('T_base_camera must be a finite (4, 4) transform')
        if stretch <= 0 or count < 1:
            raise ValueError(f'stretch ({stretch} m) must be positive and count ({count}) at least 1')
        self.T_base_camera = np.asarray(T_base_camera, np.float64)
        self.stretch, self.count = stretch, count
        self.clear()

    def clear(self) -> None:
        """Forget what was driven: after a reset, and whenever the map was rescaled in one step."""
        self._ratios: list[float] = []
        self._slips = 0
        self._reason = ''
        self._begin()

    def _begin(self) -> None:
        self._camera, self._base, self._steps = np.eye(4), np.eye(4), 0

    def add(self, camera_step: np.ndarray, base_step: np.ndarray | None) -> None:
        """One step of both: (4, 4) poses of the later camera and base in the earlier ones, map units and metres.

        Take the camera's step inside one window. base_step None (no transform at the stamp) ends the stretch.
        """
        if base_step is None or not (np.isfinite(camera_step).all() and np.isfinite(base_step).all()):
            self._reason = 'no transform of the base' if base_step is None else 'a step is not finite'
            self._begin()
            return
        self._camera, self._base, self._steps = self._camera @ camera_step, self._base @ base_step, self._steps + 1
        metric = camera.invert(self.T_base_camera) @ self._base @ self.T_base_camera
        length = float(np.linalg.norm(metric[:3, 3]))
        if length >= self.stretch:
            self._close(metric, length)
            self._begin()
        elif self._steps >= self.LONGEST:
            self._begin()

    def _close(self, metric: np.ndarray, length: float) -> None:
        turn = Rotation.from_matrix(self._camera[:3, :3].T @ metric[:3, :3]).magnitude()
        # Along the known direction: noise across it would lengthen the camera's path.
        along = float(self._camera[:3, 3] @ metric[:3, 3]) / length
        if turn > self.TURN or along < math.cos(self.HEADING) * np.linalg.norm(self._camera[:3, 3]) or along <= 0:
            self._slips += 1
        else:
            self._ratios.append(math.log(length / along))

    def measure(self) -> ScaleMeasurement | NoMeasurement:
        """Median over the stretches since the last measurement, each used once; needs ``count`` of them."""
        ratios, slips, reason = np.array(self._ratios), self._slips, self._reason
        self._reason = ''
        if len(ratios) + slips < self.count:
            few = f'{len(ratios) + slips} of {self.count} stretches of {self.stretch} m driven'
            return NoMeasurement(self.SOURCE, f'{few}; {reason}' if reason else few)
        if 2 * slips > len(ratios):
            self._ratios, self._slips = [], 0
            return NoMeasurement(self.SOURCE, f'slip: {slips} of {len(ratios) + slips} stretches go another way')
        if len(ratios) < self.count:
            return NoMeasurement(self.SOURCE, f'{len(ratios)} of {self.count} stretches usable, {slips} slipped')
        self._ratios, self._slips = [], 0
        median = float(np.median(ratios))
        scatter = max(1.48 * float(np.median(np.abs(ratios - median))), self.FLOOR)
        if scatter > 0.15:
            return NoMeasurement(self.SOURCE, f'slip: the ratios of {len(ratios)} stretches scatter by {scatter:.0%}')
        return ScaleMeasurement(self.SOURCE, median, self.FLOOR**2 + np.pi / 2 * scatter**2 / len(ratios))


def baseline_scale(
    T_map_left: np.ndarray, T_map_right: np.ndarray, T_left_right: np.ndarray, depth: float
) -> ScaleMeasurement | NoMeasurement:
    """Compare the distance of two cameras of a rig with its calibration.

    T_map_left, T_map_right: (N, 4, 4) poses of N simultaneous pairs of one window, map units.
    T_left_right: (4, 4) calibrated, metres. depth: median scene depth in map units.
    The network places cameras to about 0.6 % of the depth (simulation's error model), so a baseline of less than 2 % of
    the depth drowns. Measured along the calibrated direction: noise across it would lengthen a short baseline.
    """
    name = 'baseline'
    if T_map_left.ndim != 3 or T_map_left.shape != T_map_right.shape or T_map_left.shape[1:] != (4, 4):
        raise ValueError(f'expected two arrays (N, 4, 4), got {T_map_left.shape} and {T_map_right.shape}')
    length = float(np.linalg.norm(T_left_right[:3, 3]))
    if not (math.isfinite(length) and length > 0):
        raise ValueError(f'the calibrated baseline must be positive, not {length} m')
    if not (math.isfinite(depth) and depth > 0):
        return NoMeasurement(name, f'the median depth is {depth}')
    finite = np.isfinite(T_map_left).all((1, 2)) & np.isfinite(T_map_right).all((1, 2))
    pairs = camera.invert(T_map_left[finite]) @ T_map_right[finite]
    if not len(pairs):
        return NoMeasurement(name, 'no pair of both cameras in the window')
    turns = Rotation.from_matrix(pairs[:, :3, :3] @ T_left_right[:3, :3].T).magnitude()
    pairs = pairs[turns < np.radians(2.0)]
    if not len(pairs):
        return NoMeasurement(name, f'rotation differs from the calibration by {np.degrees(turns.min()):.1f} deg')
    along = pairs[:, :3, 3] @ (T_left_right[:3, 3] / length)
    middle = float(np.median(along))
    if middle < 0.02 * depth:
        return NoMeasurement(name, f'the baseline is {middle / depth:.1%} of the depth, 2 % are needed')
    noise = max(0.006 * depth, 1.48 * float(np.median(np.abs(along - middle)))) / middle
    return ScaleMeasurement(name, math.log(length / middle), 0.01**2 + np.pi / 2 * noise**2 / len(pairs))


def height_scale(
    depth: np.ndarray, confidence: np.ndarray, K: np.ndarray, down: np.ndarray, height: float, height_sigma: float = 0.0
) -> ScaleMeasurement | NoMeasurement:
    """Compare the camera's known height with its distance from the ground plane, see :func:`ground.fit_ground`.

    depth, confidence: (h, w), map units; K: (3, 3) in the same pixels. down: (3,) unit vector of gravity in the optical
    frame. height, height_sigma: metres of the optical centre above the ground the robot stands on.
    A lone table top that hides the floor is a plane too: the filter's gate has to refuse it.
    """
    name = 'height'
    if depth.ndim != 2 or depth.shape != confidence.shape:
        raise ValueError(f'depth {depth.shape} and confidence {confidence.shape} must be (h, w) of the same size')
    if not height > 0 or not height_sigma >= 0:
        raise ValueError(f'the height must be positive, not {height} +- {height_sigma} m')
    ground = fit_ground(depth, confidence, K, down)
    if isinstance(ground, str):
        return NoMeasurement(name, ground)
    plane, sigma = ground
    variance = DEPTH_FLOOR**2 + sigma**2 + (height_sigma / height) ** 2
    return ScaleMeasurement(name, math.log(height * float(np.linalg.norm(plane))), variance)


def fixed_scale(factor: float, map_units: float = 1.0) -> ScaleMeasurement:
    """The user's promise that one unit is ``factor`` metres; its doubt is the filter's bias of this source.

    map_units: present map units in that unit. When the promise is about the network's unit (a network trained in
    metres): the window's ``Similarity.scale``, so that drift of the map is seen. When it is about the first map's
    unit: the product of all ratios given to ``ScaleFilter.rescale``.
    """
    if not (math.isfinite(factor) and factor > 0 and math.isfinite(map_units) and map_units > 0):
        raise ValueError(f'a fixed factor must be positive and finite, not {factor} (map units: {map_units})')
    return ScaleMeasurement(FIXED, math.log(factor / map_units), 0.005**2)
