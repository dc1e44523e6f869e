"""Windows of the walk as the odometry hands them to metric sources, without error, in units of their own."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from exact import SIZE, K, depth_of, look, walk
from vggt_ros import camera
from vggt_ros.camera import PixelMap
from vggt_ros.odometry.sensors import SolvedWindow
from vggt_ros.types import Estimate, Frame, Scale, State

UNIT = 0.4  # metres per map unit
LAMBDA = math.log(UNIT)
PERIOD = 100_000_001
START = 1_700_000_000_123_456_789
STEPS = 120
WALK = walk(STEPS)
PIXELS = camera.fit(SIZE, 126)
RIG = np.eye(4)
RIG[:3, 3] = 0.3, 0.01, -0.02
RIG[:3, :3] = Rotation.from_rotvec([0.01, -0.02, 0.005]).as_matrix()


def stamp_of(index):
    return START + index * PERIOD


def in_units(T, unit):
    """A metric pose in map units."""
    T = np.array(T)
    T[..., :3, 3] /= unit
    return T


def estimate(index, T=None, unit=UNIT, state=State.TRACKING):
    """The frame of the walk at ``index``, without error; the odom frame is not the map."""
    T = WALK[index] if T is None else T
    K_network = PIXELS.K_to_network(K)
    depth = (depth_of(T, K_network, PIXELS.size) / unit).astype(np.float32)
    T_odom_map = look([1.0, 2.0, 0.5], 0.7)
    return Estimate(
        frame=Frame(index, stamp_of(index), np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K, 'eye'),
        T_map_camera=in_units(T, unit),
        T_odom_camera=in_units(T_odom_map @ T, unit),
        covariance=np.eye(6),
        velocity=None,
        velocity_covariance=np.eye(6),
        state=state,
        scale=Scale.RELATIVE,
        epoch=0,
        step_covariance=np.eye(6),
        depth=depth,
        confidence=np.full(depth.shape, 0.8, np.float32),
        K=K_network,
        map=PIXELS,
    )


def solved(*indices, companions=(), window_scale=1.0, **options):
    return SolvedWindow([estimate(index, **options) for index in indices], window_scale, companions)


def sensor(index, size=SIZE):
    """Depth image in metres."""
    return depth_of(WALK[index], PixelMap(SIZE, size, (0, 0), size).K_to_network(K), size).astype(np.float32)


def pair(index):
    return in_units(WALK[index], UNIT), in_units(WALK[index] @ RIG, UNIT)
