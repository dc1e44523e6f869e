"""Time-stamped smooth camera paths through worlds.

A pose is T_world_camera with OpenCV's optical axes (x right, y down, z forward) in a world with z up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vggt_ros.synthetic.world import SyntheticWorld

CLEARANCE = 0.35
"""Metres a camera keeps from every surface."""
_BLOCKED = 0.8  # once attempts have shrunk to this share, the walkway is given up


@dataclass(frozen=True, eq=False)
class CameraPath:
    """times: (F,) seconds, increasing. T_world_camera: (F, 4, 4) float64."""

    times: np.ndarray
    T_world_camera: np.ndarray

    @property
    def stamps(self) -> np.ndarray:
        """(F,) int64 nanoseconds. Time 0 has stamp 1 s: a stamp of 0 means "no time" to ROS."""
        return np.round((self.times + 1) * 1e9).astype(np.int64)


def look_at(position: np.ndarray, target: np.ndarray, roll: np.ndarray | float = 0.0) -> np.ndarray:
    """(..., 4, 4) poses at ``position`` (..., 3) that look at ``target`` (..., 3), rolled clockwise by ``roll`` rad."""
    position, target = np.broadcast_arrays(np.asarray(position, np.float64), np.asarray(target, np.float64))
    forward = target - position
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, np.array([0.0, 0.0, 1.0]))
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    roll = np.asarray(roll, np.float64)[..., None]
    T = np.zeros((*position.shape[:-1], 4, 4))
    T[..., :3, 0] = np.cos(roll) * right + np.sin(roll) * down
    T[..., :3, 1] = np.cos(roll) * down - np.sin(roll) * right
    T[..., :3, 2], T[..., :3, 3], T[..., 3, 3] = forward, position, 1.0
    return T


def look_along(position: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray | float = 0.0) -> np.ndarray:
    """(F, 4, 4) poses at ``position`` (F, 3) that look along yaw and pitch (F,) in radians, up is positive."""
    level = np.stack([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)], axis=-1)
    return look_at(position, position + level, roll)


def _gaze(start: np.ndarray, target: np.ndarray, wander: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Yaw and pitch (F,) from ``start`` towards ``target``, (3,) each, disturbed by ``wander`` (F, 2) radians."""
    x, y, z = target - start
    pitch = np.clip(np.arctan2(z, np.hypot(x, y)) + wander[:, 1], -1.4, 1.4)
    return np.arctan2(y, x) + wander[:, 0], pitch


def _wander(rng: np.random.Generator, times: np.ndarray, amplitude: tuple[float, ...], slowest: float) -> np.ndarray:
    """Smooth random motion (F, D): sines with periods from ``slowest`` seconds down, weaker with frequency."""
    total = np.zeros((len(times), len(amplitude)))
    for harmonic in range(1, 6):
        phase, weight = rng.uniform(0, 2 * np.pi, len(amplitude)), rng.normal(0, 1, len(amplitude)) / harmonic**1.5
        total += weight * np.sin(2 * np.pi * harmonic * times[:, None] / slowest + phase)
    return np.array(amplitude) * total


def _free_point(
    world: SyntheticWorld, rng: np.random.Generator, time: float, height: float | None = None
) -> np.ndarray:
    """(3,) a random point with some room around it, if there is one."""
    points = rng.uniform(world.free[0], world.free[1], (48, 3))
    if height is not None:
        points[:, 2] = np.clip(height, *world.free[:, 2])
    distance = world.distance(points, time)
    roomy = np.flatnonzero(distance > 2 * CLEARANCE)
    return points[rng.choice(roomy) if len(roomy) else distance.argmax()]


def _distant_focus(world: SyntheticWorld, rng: np.random.Generator, position: np.ndarray, nearest: float) -> np.ndarray:
    """(3,) a point worth looking at, at least ``nearest`` metres away if there is one."""
    distances = np.linalg.norm(world.focus - position, axis=1)
    far = np.flatnonzero(distances > nearest)
    return world.focus[rng.choice(far) if len(far) else distances.argmax()]


def _nodes(world: SyntheticWorld) -> np.ndarray:
    return np.concatenate([world.walkway, world.walkway[:1]]) if world.closed else world.walkway


def _length(world: SyntheticWorld) -> float:
    """Length of the walkway in metres."""
    return float(np.linalg.norm(np.diff(_nodes(world), axis=0), axis=1).sum())


def _follow(world: SyntheticWorld, corner: float, distance: np.ndarray, ahead: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions (F, 3) at walked distances (F,) along the walkway and points ``ahead`` metres further on.

    Corners are rounded over ``corner`` metres. An open walkway is walked to its end and back, looking its way.
    """
    step, nodes = 0.05, _nodes(world)
    knots = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
    places = np.arange(0, knots[-1], step)
    points = np.stack([np.interp(places, knots, nodes[:, axis]) for axis in range(3)], axis=1)
    width = max(1, int(corner / step)) | 1
    kernel = np.hanning(width + 2)[1:-1]
    padded = np.pad(points, ((width // 2, width // 2), (0, 0)), mode='wrap' if world.closed else 'edge')
    points = np.stack([np.convolve(padded[:, axis], kernel / kernel.sum(), 'valid') for axis in range(3)], axis=1)
    length = len(points) * step
    if not world.closed:
        distance = length - np.abs(distance % (2 * length) - length)

    def at(where: np.ndarray) -> np.ndarray:
        period = length if world.closed else None
        return np.stack([np.interp(where, places, points[:, axis], period=period) for axis in range(3)], axis=1)

    here = at(distance)
    forth = points[-1] - points[0]
    return here, at(distance + ahead) if world.closed else here + ahead * forth / np.linalg.norm(forth)


def _raised(points: np.ndarray, height: np.ndarray | float) -> np.ndarray:
    return points + np.stack([np.zeros(len(points))] * 2 + [np.broadcast_to(height, len(points))], axis=1)


def _outdoors(world: SyntheticWorld) -> bool:
    return world.lights.sky is not None


def _ring(
    world: SyntheticWorld, rng: np.random.Generator, share: np.ndarray, height: float, longest: float, extent: float
):
    """An ellipse in the free space, at most ``longest`` metres around, ``share`` (F,) of it travelled so far."""
    half = 0.75 * np.ptp(world.free, axis=0)[:2] / 2
    radius = extent * np.minimum(half, longest / (2 * np.pi) * rng.uniform(0.7, 1.0, 2))
    room = world.free[:, :2] + np.array([[1.0], [-1.0]]) * radius
    centre = rng.uniform(np.minimum(*room), np.maximum(*room))
    way = rng.choice([-1, 1])
    angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * share * way
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    tangent = way * np.stack([-np.sin(angle), np.cos(angle)], axis=1) * radius
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    gaze = tangent + rng.uniform(-0.5, 1.0) * ring
    position = np.hstack([centre + ring * radius, np.full((len(share), 1), np.clip(height, *world.free[:, 2]))])
    return look_along(position, np.arctan2(gaze[:, 1], gaze[:, 0]), np.full(len(share), -0.08))


def _handheld(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    start = _free_point(world, rng, times[0], rng.normal(1.3, 0.25))
    target = _distant_focus(world, rng, start, 1.2)
    reach = 0.9 if _outdoors(world) else 0.45
    position = start + extent * _wander(rng, times, (reach, reach, 0.12), 9.0)
    yaw, pitch = _gaze(start, target, _wander(rng, times, (0.25, 0.1), 7.0))
    return look_along(position, yaw, pitch, _wander(rng, times, (0.025,), 3.0)[:, 0])


def _orbit(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    target = world.focus[rng.integers(len(world.focus))]
    radius = rng.uniform(2.0, 6.0) if _outdoors(world) else rng.uniform(1.0, 2.6)
    sweep = extent * rng.choice([-1, 1]) * rng.uniform(1.0, 3.5)
    angle = rng.uniform(0, 2 * np.pi) + sweep * (times - times[0]) / max(np.ptp(times), 1e-9)
    height = rng.uniform(0.9, 1.8) - target[2]
    offset = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(len(times), height)], axis=1)
    position = target + offset + _wander(rng, times, (0.02, 0.02, 0.05), 4.0)
    gaze = target + _wander(rng, times, (0.05, 0.05, 0.05), 5.0)
    return look_at(position, gaze, _wander(rng, times, (0.01,), 3.0)[:, 0])


def _corridor(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """Walking along the walkway, or in a ring where it is blocked: steps bob and sway."""
    speed, step, height = rng.uniform(0.7, 1.2), rng.uniform(1.6, 2.0), rng.uniform(1.2, 1.55)
    distance = speed * (times - times[0])
    if extent < _BLOCKED:
        T = _ring(world, rng, distance / 6.0, height, 6.0, extent)
    else:
        here, ahead = _follow(world, 1.8, rng.random() * _length(world) + distance, 1.2)
        gaze = ahead - here + extent * _wander(rng, times, (0.1, 0.1, 0.08), 5.0)
        sway = 0.006 * np.sin(np.pi * step * times)
        T = look_at(_raised(here, height), _raised(here + gaze, height - 0.05), sway)
    T[:, 2, 3] += 0.012 * np.sin(2 * np.pi * step * times)
    return T


def _car(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """Driving along the walkway, or in a ring where it is blocked: level, no roll, looking ahead."""
    outdoors = _outdoors(world)
    corner, speed = (9.0, rng.uniform(2.5, 5)) if outdoors else (1.8, rng.uniform(0.5, 1.0))
    height = rng.uniform(1.2, 1.6) if outdoors else rng.uniform(0.5, 0.9)
    distance = speed * (times - times[0]) + _wander(rng, times, (0.15 * speed,), 12.0)[:, 0]
    if extent < _BLOCKED:
        return _ring(world, rng, distance / (6 * speed), height, 6 * speed, extent)
    here, ahead = _follow(world, corner, rng.random() * _length(world) + distance, 0.6 * corner)
    return look_at(_raised(here, height), _raised(ahead, height - 0.05))


def _drone(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """Flying freely: wide sweeps in all directions, looking down at something."""
    outdoors = _outdoors(world)
    start = _free_point(world, rng, times[0], world.free[1, 2] - rng.exponential(1.5 if outdoors else 0.4))
    reach = 2.5 if outdoors else 0.9
    position = start + extent * _wander(rng, times, (reach, reach, reach * 0.3), 12.0)
    target = _distant_focus(world, rng, start, 1.0) - (0, 0, 0.5)
    yaw, pitch = _gaze(start, target, _wander(rng, times, (0.35, 0.1), 8.0))
    return look_along(position, yaw, pitch, _wander(rng, times, (0.04,), 4.0)[:, 0])


def _loop(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """One and a quarter rounds, so that the last fifth sees the first fifth again; as wide as the time allows."""
    share = 1.25 * (times - times[0]) / max(times[-1] - times[0], 1e-9)
    speed, corner = (5.0, 9.0) if _outdoors(world) else (1.2, 1.8)
    longest, height = max(speed * (times[-1] - times[0]) / 1.25, 2.5), rng.uniform(1.2, 1.6)
    if world.closed and _length(world) < longest and extent >= _BLOCKED:
        here, ahead = _follow(world, corner, (rng.random() + share) * _length(world), 0.6 * corner)
        return look_at(_raised(here, height), _raised(ahead, height - 0.1))
    return _ring(world, rng, share, height, longest, extent)


def _rotation(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """Turning on the spot; the camera's centre does not move at all."""
    position = _free_point(world, rng, times[0], rng.normal(1.3, 0.2))
    speed = rng.choice([-1, 1]) * np.radians(rng.uniform(15, 40))
    yaw = rng.uniform(0, 2 * np.pi) + speed * (times - times[0])
    pitch = _wander(rng, times, (0.12,), 6.0)[:, 0] - 0.05
    return look_along(np.tile(position, (len(times), 1)), yaw, pitch)


def _standstill(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """One pose, for ever."""
    return np.tile(_handheld(world, rng, times[:1], extent)[0], (len(times), 1, 1))


def _teleport(world: SyntheticWorld, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    """Hand-held; for the time between 45 and 75 % of the frames somewhere else entirely, then back."""
    here, there = _handheld(world, rng, times, extent), _handheld(world, rng, times, extent)
    away = (np.arange(len(times)) >= 0.45 * len(times)) & (np.arange(len(times)) < 0.75 * len(times))
    return np.where(away[:, None, None], there, here)


KINDS: dict[str, Callable[[SyntheticWorld, np.random.Generator, np.ndarray, float], np.ndarray]] = {
    'handheld': _handheld,
    'orbit': _orbit,
    'corridor': _corridor,
    'drone': _drone,
    'car': _car,
    'loop': _loop,
    'rotation': _rotation,
    'standstill': _standstill,
    'teleport': _teleport,
}


def is_clear(world: SyntheticWorld, trajectory: CameraPath, clearance: float = CLEARANCE) -> bool:
    """Whether every camera keeps ``clearance`` from all surfaces and sees further than its nose."""
    T = trajectory.T_world_camera
    # The camera, and two points ahead of it that must not lie behind a surface.
    ahead = T[:, None, :3, 3] + np.array([0.0, 0.4, 0.8])[:, None] * T[:, None, :3, 2]
    if world.moving.any():
        distance = np.stack([world.distance(p, t) for p, t in zip(ahead, trajectory.times, strict=True)])
    else:
        distance = world.distance(ahead.reshape(-1, 3)).reshape(-1, 3)
    return bool((distance[:, 0] >= clearance).all() and (distance[:, 1:] > 0.05).all())


def make_trajectory(world: SyntheticWorld, kind: str, seed: int, frames: int, rate: float = 10.0) -> CameraPath:
    """A path of ``frames`` poses at ``rate`` Hz; the same world, kind and seed give the same path.

    kind: one of KINDS. Paths that come too near to something are drawn anew, smaller each time;
    RuntimeError when none fits, ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f'unknown kind of trajectory {kind!r}; there are {", ".join(KINDS)}')
    if frames < 1 or rate <= 0:
        raise ValueError(f'a trajectory needs at least one frame and a positive rate, not {frames} at {rate} Hz')
    rng = np.random.default_rng((seed, world.seed, list(KINDS).index(kind)))
    times = (np.arange(frames) + 1) / rate  # a stamp of 0 would mean "no time" to ROS
    for attempt in range(80):
        trajectory = CameraPath(times, KINDS[kind](world, rng, times, 0.97**attempt))
        if is_clear(world, trajectory):
            return trajectory
    raise RuntimeError(f'no {kind} path of {frames} frames fits into {world.kind} {world.seed}; try another seed')
