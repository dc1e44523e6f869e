"""Where cameras really look: VGGT supposes every principal point in the middle of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import pixel_grid, rays
from vggt_ros.types import Frame, WindowPrediction

STRAIGHT = 1e-3  # radians between the two axes below which nothing is turned


def turn_to_axis(K: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """(3, 3) rotation from a camera that looks through a pixel (2,) to the one that K describes.

    The smallest that takes the optical axis to the pixel's ray.
    """
    ray = rays(pixel, K)
    ray /= np.linalg.norm(ray)
    axis = np.array([-ray[1], ray[0], 0.0])  # z x ray
    sine = np.linalg.norm(axis)
    if not sine >= STRAIGHT:
        return np.eye(3)
    return Rotation.from_rotvec(np.arctan2(sine, ray[2]) * axis / sine).as_matrix()


def along_true_axes(frames: Sequence[Frame], prediction: WindowPrediction) -> WindowPrediction:
    """Poses and depths of a window as those of the cameras that the frames' K describe; those without K stay.

    The network sees a camera whose axis goes through the principal point of its own K, VGGT's through the middle of the
    image: its poses are turned by the rotation M between the two axes, T -> M_0 T M^-1, for slot 0 is turned as well,
    and its depth lies along the wrong axis: z -> z / (M e_z . ray).
    """
    turns = [
        np.eye(3) if frame.K is None else turn_to_axis(pixel_map.K_to_network(frame.K), seen[:2, 2])
        for frame, pixel_map, seen in zip(frames, prediction.maps, prediction.K, strict=True)
    ]
    if all((np.eye(3) == M).all() for M in turns):
        return prediction
    T = prediction.T_window_camera.copy()
    T[:, :3, :3] = turns[0] @ T[:, :3, :3] @ np.stack(turns).transpose(0, 2, 1)
    T[:, :3, 3] = T[:, :3, 3] @ turns[0].T
    depth = dict(prediction.depth)
    for slot in depth:
        K = frames[slot].K
        if K is not None and not (turns[slot] == np.eye(3)).all():
            pixel_map = prediction.maps[slot]
            along = rays(pixel_grid(pixel_map.size), pixel_map.K_to_network(K)) @ turns[slot][:, 2]
            depth[slot] = (depth[slot] / along).astype(np.float32)
    return replace(prediction, T_window_camera=T, depth=depth)
