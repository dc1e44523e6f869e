"""A predictor that knows the truth: a camera inside a box-shaped room whose surfaces are known in closed form."""

from __future__ import annotations

import numpy as np

from vggt_ros import camera
from vggt_ros.types import Accuracy, Frame, Predictor, TrackPrediction, WindowPrediction

ROOM = np.array([[-4.0, -3.0, 0.0], [4.0, 3.0, 3.0]])  # metres, z up
K = np.array([[110.0, 0, 79.5], [0, 110.0, 59.5], [0, 0, 1]])
SIZE = (160, 120)


def look(position, yaw, pitch=0.0):
    """T_world_camera (optical axes) of a camera that looks along yaw (0 = x) and down by pitch, radians."""
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    forward = np.array([c * cp, s * cp, -sp])
    right = np.array([s, -c, 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    T[:3, 3] = position
    return T


def walk(count):
    """A gentle arc through the room, (count, 4, 4)."""
    s = np.linspace(0, 1, count)
    return np.stack([look([-1 + 2 * t, -1 + 1.2 * t * t, 1.4 + 0.1 * np.sin(5 * t)], 0.5 * t) for t in s])


def depth_of(T, K, size):
    """Exact z-depth (h, w) of the room's walls."""
    directions = camera.rays(camera.pixel_grid(size), K) @ T[:3, :3].T
    with np.errstate(divide='ignore'):
        exits = np.where(directions > 0, ROOM[1] - T[:3, 3], ROOM[0] - T[:3, 3]) / directions
    return np.min(np.where(np.isfinite(exits), exits, np.inf), axis=-1)


def picture(seed, size=SIZE):
    """A picture of its own, (H, W, 3) uint8, without any corner that could be followed into the next."""
    across, down = (np.linspace(0, 1, length) for length in size)
    start, slope = np.random.default_rng(seed).uniform((40, -40), (200, 40), (3, 2)).T
    return (start + slope * (across + down[:, None])[..., None] / 2).astype(np.uint8)


def view(T, K=K, size=SIZE):
    """The room as a camera sees it, (H, W, 3) uint8: walls of coloured bricks, corners everywhere."""
    points = camera.transform(
        T, (camera.rays(camera.pixel_grid(size), K) * depth_of(T, K, size)[..., None]).reshape(-1, 3)
    )
    bricks = np.floor(points / 0.23).astype(int) @ [1, 37, 1409] % 4096
    return np.random.default_rng(0).integers(0, 256, (4096, 3), np.uint8)[bricks].reshape(size[1], size[0], 3)


def descriptor(T):
    """What a place looks like, (32,) float32 of length 1: near views are alike."""
    frequencies = np.random.default_rng(0).normal(size=(16, 6))
    phase = frequencies @ np.concatenate([T[:3, 3], 2 * T[:3, 2]])
    return (np.concatenate([np.cos(phase), np.sin(phase)]) / 4).astype(np.float32)


class ExactPredictor(Predictor):
    """The predictor's interface over known poses, found by stamp. Each window has a random unit, as VGGT's have.

    poses: stamp -> T_world_camera. spoil: called with every prediction's fields, to break them.
    """

    accuracy = Accuracy()

    def __init__(self, poses, longest=126, spoil=None, K=K):
        self.poses, self.longest, self.spoil, self.K = poses, longest, spoil, K
        self.rng = np.random.default_rng(0)
        self.windows = []

    def pixel_map(self, size):
        return camera.fit(size, self.longest)

    def describe(self):
        return {'network': 'exact truth'}

    def predict(self, frames: list[Frame], depth=None, queries=None) -> WindowPrediction:
        self.windows.append(tuple(frame.stamp for frame in frames))
        pixel_map = self.pixel_map(frames[0].size)
        K = pixel_map.K_to_network(self.K)
        unit = self.rng.uniform(0.3, 3.0)
        world = np.stack([self.poses[frame.stamp] for frame in frames])
        local = camera.invert(world[0]) @ world
        slots = range(len(frames)) if depth is None else depth
        depths = {slot: depth_of(world[slot], K, pixel_map.size) for slot in slots}
        tracks = None
        if queries is not None:
            column, row = np.rint(queries).astype(int).T
            z = depth_of(world[0], K, pixel_map.size)[row, column]
            points = camera.transform(world[0], camera.rays(queries, K) * z[:, None])
            uv = np.stack([camera.project(camera.transform(camera.invert(T), points), K) for T in world])
            seen = np.isfinite(uv).all(-1).astype(np.float32)
            tracks = TrackPrediction(uv.astype(np.float32), seen, seen)
        local[:, :3, 3] *= unit
        fields = {
            'indices': tuple(frame.index for frame in frames),
            'T_window_camera': local,
            'K': np.tile(K, (len(frames), 1, 1)),
            'maps': (pixel_map,) * len(frames),
            'depth': {slot: (z * unit).astype(np.float32) for slot, z in depths.items()},
            'confidence': {slot: np.full(z.shape, 0.9, np.float32) for slot, z in depths.items()},
            'descriptor': np.stack([descriptor(T) for T in world]),
            'tracks': tracks,
        }
        if self.spoil:
            self.spoil(fields)
        return WindowPrediction(**fields)
