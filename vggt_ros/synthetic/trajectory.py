"""Time-stamped smooth camera paths through worlds.

A pose is T_world_camera with OpenCV's optical axes (x right, y down, z forward) in a world with z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros.synthetic.world import World

CLEARANCE = 0.35
"""Metres a camera keeps from every surface."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """times: (F,) seconds, increasing. T_world_camera: (F, 4, 4) float64."""

    times: np.ndarray
    T_world_camera: np.ndarray

    @property
    def stamps(self) -> np.ndarray:
        """(F,) int64 nanoseconds."""
        return np.round(self.times * 1e9).astype(np.int64)


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


def _wander(rng: np.random.Generator, times: np.ndarray, amplitude: np.ndarray, slowest: float) -> np.ndarray:
    """Smooth random motion (F, D): sines with periods from ``slowest`` seconds down, weaker with frequency."""
    total = np.zeros((len(times), len(amplitude)))
    for harmonic in range(1, 6):
        phase, weight = rng.uniform(0, 2 * np.pi, len(amplitude)), rng.normal(0, 1, len(amplitude)) / harmonic**1.5
        total += weight * np.sin(2 * np.pi * harmonic * times[:, None] / slowest + phase)
    return amplitude * total


def _free_points(world: World, rng: np.random.Generator, count: int, time: float) -> np.ndarray:
    """(count, 3) the roomiest of many random points of the free box, roomiest first."""
    points = rng.uniform(*world.free, (64, 3))
    return points[np.argsort(-world.distance(points, time))][:count]


def is_clear(world: World, trajectory: Trajectory, clearance: float = CLEARANCE) -> bool:
    """Whether every camera is at least ``clearance`` from all surfaces and in the free box."""
    positions = trajectory.T_world_camera[:, :3, 3]
    if world.moving.any():
        distances = [world.distance(p[None], t)[0] for p, t in zip(positions, trajectory.times, strict=True)]
    else:
        distances = world.distance(positions)
    return bool((np.array(distances) >= clearance).all())


def _handheld(world: World, rng: np.random.Generator, times: np.ndarray, extent: float) -> np.ndarray:
    start = _free_points(world, rng, 8, times[0])[rng.integers(8)]
    start[2] = np.clip(rng.normal(1.3, 0.25), *world.free[:, 2])
    distances = np.linalg.norm(world.focus - start, axis=1)
    far_enough = world.focus[distances > 1.0]
    target = far_enough[rng.integers(len(far_enough))] if len(far_enough) else world.focus[distances.argmax()]
    position = start + extent * _wander(rng, times, np.array([0.45, 0.45, 0.12]), 9.0)
    gaze = target + extent * _wander(rng, times, np.array([0.8, 0.8, 0.4]), 7.0)
    return look_at(position, gaze, _wander(rng, times, np.array([0.05]), 3.0)[:, 0])


KINDS = {'handheld': _handheld}


def make_trajectory(world: World, kind: str, seed: int, frames: int, rate: float = 10.0) -> Trajectory:
    """A path of ``frames`` poses at ``rate`` Hz; the same world, kind and seed give the same path.

    kind: one of KINDS. Paths that come too near to something are drawn anew and made smaller;
    RuntimeError when none fits, ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f'unknown kind of trajectory {kind!r}; there are {", ".join(KINDS)}')
    rng = np.random.default_rng((seed, world.seed, 7))
    times = (np.arange(frames) + 1) / rate  # a stamp of 0 would mean "no time" to ROS
    for attempt in range(60):
        trajectory = Trajectory(times, KINDS[kind](world, rng, times, 0.96**attempt))
        if is_clear(world, trajectory):
            return trajectory
    raise RuntimeError(f'no {kind} path fits into {world.kind} {world.seed}; try another seed')
