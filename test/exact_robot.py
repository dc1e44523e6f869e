"""A robot whose motion is known exactly: base and camera in odom and in the map, and wheel odometry that drifts."""

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.types import Frame, PosedFrame, Scale, State


def pose(position, rotvec):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    T[:3, 3] = position
    return T


T_BASE_CAMERA = pose([0.4, -0.1, 0.9], [0.2, -1.3, 0.7])
T_MAP_ODOM = pose([2.0, -1.0, 0.3], [0.02, -0.05, 1.1])


def base_at(t):
    """T_odom_base of a robot that drives, climbs and turns; t in seconds."""
    return pose([0.5 * t, np.sin(t), 0.1 * t * t], [0.1 * np.cos(t), 0.2 * t, 0.7 * np.sin(0.5 * t)])


def wheels(index):
    """T_odom_base of wheel odometry: it drifts away from the truth."""
    return pose([0.02 * index, -0.01 * index, 0], [0, 0, 0.01 * index]) @ base_at(0.1 * index)


def twist(at, t, h=1e-6):
    """Velocity of the frame's origin and rate of its rotation, both in its own axes, by central differences."""
    T, before, after = at(t), at(t - h), at(t + h)
    linear = T[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / (2 * h)
    angular = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec() / (2 * h)
    return np.concatenate([linear, angular])


def spread(seed):
    """A covariance with everything correlated."""
    A = np.random.default_rng(seed).normal(size=(6, 6))
    return A @ A.T * 1e-4


def located(t=0.8, **changes):
    T_odom_camera = base_at(t) @ T_BASE_CAMERA
    fields = {
        'frame': Frame(3, 17, np.zeros((2, 2, 3), np.uint8), frame_id='eye'),
        'T_map_camera': T_MAP_ODOM @ T_odom_camera,
        'T_odom_camera': T_odom_camera,
        'covariance': spread(0),
        'velocity': twist(lambda t: base_at(t) @ T_BASE_CAMERA, t),
        'velocity_covariance': spread(1),
        'state': State.TRACKING,
        'scale': Scale.METRIC,
        'epoch': 0,
    }
    return PosedFrame(**fields | changes)
