"""What the network saw as the cameras that are known: it guesses every lens, and its answer is that of its guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import pixel_grid, rays
from vggt_ros.types import Frame, WindowPrediction

SAME = 1e-3  # of the log of a factor of focal lengths: less is nothing
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


def misjudged(frames: Sequence[Frame], prediction: WindowPrediction) -> float:
    """Log of the focal length that the network sees over the true one, typical of the frames whose K is known."""
    found = [
        np.log(seen[axis, axis] / pixel_map.K_to_network(frame.K)[axis, axis])
        for frame, pixel_map, seen in zip(frames, prediction.maps, prediction.K, strict=True)
        if frame.K is not None and np.isfinite(seen).all()
        for axis in (0, 1)
    ]
    return float(np.median(found)) if found else 0.0


def through_true_lenses(frames: Sequence[Frame], prediction: WindowPrediction) -> WindowPrediction:
    """Poses and depths of a window as those of the cameras that the frames' K describe; those without K stay.

    The network places what it sees in a pixel on that pixel's ray as it has it, K_pred^-1 u; so what it predicts
    becomes right by K_true^-1 K_pred (VGGT-SLAM 2.0), up to the unit of the window, which is free.
    """
    return _along_axes(frames, _focused(frames, prediction))


def _focused(frames: Sequence[Frame], prediction: WindowPrediction) -> WindowPrediction:
    """Where the lens is longer than the network supposes, depth is longer by as much, z -> z f_true / f_pred, as is the
    way along the axis of slot 0, and the same motion of a pixel is less of a turn across it. One factor for the window:
    its frames are of one camera.
    """
    factor = np.exp(-misjudged(frames, prediction))
    if abs(np.log(factor)) < SAME:
        return prediction
    T = prediction.T_window_camera.copy()
    turns = Rotation.from_matrix(T[:, :3, :3]).as_rotvec() / np.array([factor, factor, 1.0])
    T[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
    T[:, 2, 3] *= factor
    depth = {slot: (one * factor).astype(np.float32) for slot, one in prediction.depth.items()}
    return replace(prediction, T_window_camera=T, depth=depth)


def _along_axes(frames: Sequence[Frame], prediction: WindowPrediction) -> WindowPrediction:
    """The network sees a camera whose axis goes through the principal point of its own K, VGGT's through the middle of
    the image: its poses are turned by the rotation M between the two axes, T -> M_0 T M^-1, for slot 0 is turned as
    well, and its depth lies along the wrong axis: z -> z / (M e_z . ray).
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
