"""Which way is down in the first camera's frame, so that a pitched camera does not tilt the map.

A direction comes from an accelerometer, from the transform of a base that is level, or from nothing: then the first
camera is taken to be level, and ``Gravity.source`` says so. Directions are unit vectors of the optical frame
(x right, y down, z forward); a level camera has down = (0, 1, 0).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.special import chdtri

STANDARD = 9.80665  # m/s^2, standard gravity (CGPM 1901); on Earth from 9.78 to 9.83
VERTICAL = math.sin(math.radians(10.0))  # horizontal part of the optical axis below which it tells no heading


class GravitySource(IntEnum):
    """What the attitude of the map hangs on."""

    ASSUMED_LEVEL = 0
    BASE = 1
    IMU = 2


@dataclass(frozen=True, eq=False)
class Gravity:
    """down: (3,) unit vector in a camera's optical frame. sigma: rad, standard deviation about each axis across it."""

    down: np.ndarray
    sigma: float
    source: GravitySource

    def seen_from(self, R_other_camera: np.ndarray) -> Gravity:
        """The same direction in another frame; R (3, 3) turns vectors of this camera into it."""
        return Gravity(R_other_camera @ self.down, self.sigma, self.source)


@dataclass(frozen=True)
class NoGravity:
    """Nobody can say which way is down just now; reason: why, in words for a person."""

    reason: str


def assumed_level() -> Gravity:
    """Roll and pitch are taken to be zero; 10 degrees stand for cameras mounted or held about level."""
    return Gravity(np.array([0.0, 1.0, 0.0]), math.radians(10.0), GravitySource.ASSUMED_LEVEL)


def from_base(R_base_camera: np.ndarray, sigma: float = math.radians(2.0)) -> Gravity:
    """From the camera's rotation (3, 3) in a frame whose z axis is up: base_link on level ground, or odom itself.

    sigma: rad, how level that frame is. ValueError when it is no rotation.
    """
    R = _rotation('R_base_camera', R_base_camera)
    return Gravity(-R[2], sigma, GravitySource.BASE)


def map_from_camera(down: np.ndarray) -> np.ndarray:
    """R_map_camera0 (3, 3): map z up, map x along the horizontal part of the first camera's optical axis (REP 103).

    An optical axis within 10 degrees of the vertical has no heading: then x is the direction that the camera would
    see ahead if it were pitched back to level, the image's up when it looks down, the image's down when it looks up.
    down: (3,), any length; ValueError when it is zero or not finite.
    """
    up = -_unit('down', down)
    # e_z minus its vertical part; likewise for the image's up, -e_y, which is ahead when the camera looks down.
    ahead = np.array([0.0, 0.0, 1.0])
    if np.linalg.norm(ahead - up[2] * up) < VERTICAL:
        ahead = np.array([0.0, np.sign(up[2]), 0.0])
    x = ahead - (ahead @ up) * up
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(up, x), up])


@dataclass(frozen=True)
class ImuConfig:
    """When an accelerometer may be taken for a plumb line."""

    span: float = 0.5  # s before (and up to) the stamp that are averaged
    # m/s^2 by which the specific force may differ from standard gravity (biases of small sensors: 0.2)
    force: float = 0.6
    rate: float = 0.6  # rad/s, most
    scatter: float = 0.6  # m/s^2, largest standard deviation of the low-passed force
    share: float = 0.7  # of the samples must pass
    floor: float = math.radians(0.6)  # rad, standard deviation left by the accelerometer's bias


class ImuGravity:
    """Down from sensor_msgs/Imu (REP 145: linear_acceleration contains gravity; at rest it points up, +9.8).

    R_camera_imu: (3, 3), from the transform of the IMU's frame to the camera's optical frame.
    Samples of the last ``span`` seconds are turned by the gyroscope into the IMU's attitude at the stamp and averaged:
    a low-pass in a frame that does not turn (as in complementary filters: Mahony, Hamel and Pflimlin 2008). Without a
    gyroscope the IMU must rest. A bounded buffer of 2 s at up to 1 kHz; samples that go back in time empty it.
    """

    MOST = 2000  # samples

    def __init__(self, R_camera_imu: np.ndarray, config: ImuConfig | None = None) -> None:
        self.R_camera_imu = _rotation('R_camera_imu', R_camera_imu)
        self.config = config or ImuConfig()
        self._samples: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=self.MOST)

    def add(self, stamp: int, acceleration: np.ndarray, rate: np.ndarray | None = None) -> None:
        """One sample: nanoseconds, (3,) m/s^2, (3,) rad/s or None without a gyroscope. NaN fails the gate later."""
        if self._samples and stamp <= self._samples[-1][0]:
            if stamp == self._samples[-1][0]:
                return
            self._samples.clear()
        rate = np.full(3, np.nan) if rate is None else np.asarray(rate, np.float64)
        self._samples.append((int(stamp), np.asarray(acceleration, np.float64), rate))

    def at(self, stamp: int) -> Gravity | NoGravity:
        """Down in the camera's frame at ``stamp`` (ns), or why it cannot be told."""
        config = self.config
        span = round(config.span * 1e9)
        samples = [sample for sample in self._samples if stamp - span <= sample[0] <= stamp]
        if len(samples) < 5 or samples[-1][0] - samples[0][0] < 0.8 * span or stamp - samples[-1][0] > 0.2 * span:
            return NoGravity(f'{len(samples)} IMU samples in the {config.span} s before the image')
        seconds = np.array([sample[0] - stamp for sample in samples]) * 1e-9
        force = np.stack([sample[1] for sample in samples])
        rate = np.stack([sample[2] for sample in samples])
        size = np.linalg.norm(force, axis=1)
        typical = float(np.median(size[np.isfinite(size)])) if np.isfinite(size).mean() > 0.5 else math.nan
        if reason := _wrong_unit(typical):
            return NoGravity(reason)
        gyroscope = bool(np.isfinite(rate).any())
        turning = np.linalg.norm(rate, axis=1)
        with np.errstate(invalid='ignore'):
            good = np.abs(size - STANDARD) < config.force
            if gyroscope:
                good &= turning < config.rate
        if good.mean() < config.share:
            fastest = f', turns by up to {np.nanmax(turning):.2f} rad/s' if gyroscope else ''
            return NoGravity(f'the IMU moves: {1 - good.mean():.0%} of the samples are out of bounds{fastest}')
        if gyroscope:
            force = _turned_to_stamp(force, rate, seconds)
        force = force[good]
        mean = force.mean(0)
        # Shaking cancels out in the mean, a change of attitude or of speed does not: compare parts of the span.
        parts = np.stack([part.mean(0) for part in np.array_split(force, min(5, len(force)))])
        scatter = float(np.sqrt(((parts - mean) ** 2).sum(1).mean()))
        allowed = config.scatter if gyroscope else config.scatter / 4
        if scatter > allowed:
            return NoGravity(f'the IMU moves: the force changes by {scatter:.2f} m/s^2 within {config.span} s')
        sigma = math.hypot(config.floor, scatter / STANDARD / math.sqrt(len(parts)))
        down = -self.R_camera_imu @ mean
        return Gravity(down / np.linalg.norm(down), sigma, GravitySource.IMU)


class GravityEstimate:
    """The map's attitude, made better while it runs.

    Later directions, turned into the first camera's frame by the odometry, are fused into ``gravity``, the best belief.
    ``R_map_camera0`` is what the map uses; it follows only by :meth:`advance`, a little at a time.
    The belief's sigma never falls below ``floor`` rad: the accelerometer's bias repeats.
    gate: probability that a good direction passes the chi-square gate (two degrees of freedom).
    """

    def __init__(self, gravity: Gravity, floor: float = math.radians(0.5), gate: float = 0.99) -> None:
        self.gravity = gravity
        self.floor = floor
        self.R_map_camera0 = map_from_camera(gravity.down)
        self._gate = chdtri(2, 1 - gate)
        self._disputed: list[np.ndarray] = []

    @property
    def tilt(self) -> float:
        """rad: how far the map still is from the belief; more than ``gravity.sigma`` means that it is not level yet."""
        return _angle(-self.R_map_camera0[2], self.gravity.down)

    def refine(self, measured: Gravity, drift: float = 0.0) -> bool:
        """Fuse another direction, in the first camera's frame; drift: rad, uncertainty of the odometry's rotation.

        False when it contradicts the belief. An assumption gives way to the first measurement; a measured belief to
        five contradictions in a row that agree with each other within two standard deviations.
        """
        variance = measured.sigma**2 + drift**2
        angle = _angle(self.gravity.down, measured.down)
        total = self.gravity.sigma**2 + variance
        if self.gravity.source is GravitySource.ASSUMED_LEVEL and measured.source is not GravitySource.ASSUMED_LEVEL:
            self._believe(measured.down, variance, measured.source)
        elif angle**2 <= self._gate * total:
            gain = self.gravity.sigma**2 / total
            down = _rotation_between(self.gravity.down, measured.down, gain * angle) @ self.gravity.down
            self._believe(down, self.gravity.sigma**2 * (1 - gain), max(self.gravity.source, measured.source))
        else:
            self._disputed = [*self._disputed[-4:], measured.down]
            mean = np.mean(self._disputed, axis=0)
            apart = max(_angle(mean, down) for down in self._disputed)
            if len(self._disputed) < 5 or apart > 2 * math.sqrt(variance):
                return False
            self._believe(mean, variance, measured.source)
        return True

    def _believe(self, down: np.ndarray, variance: float, source: GravitySource) -> None:
        self.gravity = Gravity(_unit('down', down), max(math.sqrt(variance), self.floor), source)
        self._disputed = []

    def advance(self, step: float = math.radians(0.5)) -> np.ndarray:
        """Turn the map towards the belief by at most ``step`` rad; gives R_new_old (3, 3), identity when it is level.

        The caller turns everything in the map by it, about the map's origin, and publishes the difference in
        map -> odom, as corrections of loops. The shortest way leaves the heading alone.
        """
        down = self.R_map_camera0 @ self.gravity.down
        R = _rotation_between(down, np.array([0.0, 0.0, -1.0]), min(self.tilt, step))
        self.R_map_camera0 = R @ self.R_map_camera0
        return R


def _turned_to_stamp(force: np.ndarray, rate: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """(N, 3) forces in the IMU's attitudes at ``seconds`` (N,) <= 0, all in its attitude at 0, by rates (N, 3)."""
    step = np.diff(seconds, append=0.0)
    turns = Rotation.from_rotvec(-np.nan_to_num(rate) * step[:, None]).as_matrix()  # of vectors, i -> i + 1
    turned = np.empty_like(force)
    R = np.eye(3)
    for i in range(len(force) - 1, -1, -1):
        R = R @ turns[i]
        turned[i] = R @ force[i]
    return turned


def _wrong_unit(typical: float) -> str:
    """What is wrong with an accelerometer that shows ``typical`` m/s^2 at the median; empty when nothing is."""
    if not math.isfinite(typical):
        return 'most accelerations are not finite'
    if typical < 0.5:
        return f'the acceleration is {typical:.2f} m/s^2: gravity was removed from it, which REP 145 forbids'
    if abs(typical - 1) < 0.1:
        return f'the acceleration is {typical:.2f} at rest: it seems to be in g, m/s^2 are needed'
    return ''


def _unit(name: str, vector: np.ndarray) -> np.ndarray:
    vector = np.asarray(vector, np.float64)
    length = np.linalg.norm(vector)
    if vector.shape != (3,) or not (np.isfinite(length) and length > 0):
        raise ValueError(f'{name} must be a finite vector of three numbers, not zero: {vector}')
    return vector / length


def _rotation(name: str, R: np.ndarray) -> np.ndarray:
    R = np.asarray(R, np.float64)
    if R.shape != (3, 3) or not np.allclose(R @ R.T, np.eye(3), atol=1e-4) or np.linalg.det(R) < 0:
        raise ValueError(f'{name} must be a rotation matrix (3, 3)')
    return R


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two vectors, rad, exact for small ones too."""
    return math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))


def _rotation_between(a: np.ndarray, b: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3): turns a towards b on the shortest way by ``angle`` rad."""
    axis = np.cross(a, b)
    length = np.linalg.norm(axis)
    if length < 1e-12:
        # Parallel: nothing to turn. Opposite: any axis across will do.
        axis = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
        length = np.linalg.norm(axis)
    return Rotation.from_rotvec(angle * axis / length).as_matrix()
