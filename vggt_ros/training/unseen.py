"""Windows of worlds that no training sees, always the same ones, with everything that is true of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vggt_ros import camera
from vggt_ros.synthetic.places import random_world
from vggt_ros.synthetic.render import cast
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics, render_sequence
from vggt_ros.synthetic.tracks import follow
from vggt_ros.synthetic.trajectory import CameraPath, make_trajectory
from vggt_ros.synthetic.world import SyntheticWorld
from vggt_ros.types import Frame

FIRST_SEED = 100_000
"""Evaluation worlds have this seed and the following ones: reserved, see clips.RESERVED_SEEDS."""
SIZE = (224, 168)
FRAMES = 8
QUERIES = 64
PATHS = ('handheld', 'orbit', 'drone', 'corridor', 'car', 'loop')
RATE = (2.0, 10.0)  # pictures per second, log-uniform
FOV = (50.0, 90.0)  # degrees, uniform


@dataclass(frozen=True, eq=False)
class UnseenWindow:
    """S frames and what is true of them.

    queries: (Q, 2) source pixels of frame 0. uv: (S, Q, 2) and visible: (S, Q), where they are in all frames.
    """

    world: SyntheticWorld
    trajectory: CameraPath
    frames: list[Frame]
    K: np.ndarray
    queries: np.ndarray
    uv: np.ndarray
    visible: np.ndarray
    _depth: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    @property
    def T_camera_world(self) -> np.ndarray:
        """The true poses (S, 4, 4)."""
        return camera.invert(self.trajectory.T_world_camera)

    def depth(self, pixel_map: camera.PixelMap) -> np.ndarray:
        """Exact z-depth (S, h, w) in the pixels of a network, NaN in the sky."""
        size = pixel_map.size
        if size not in self._depth:
            scene, K = Scene.pack(self.world, self.trajectory.times), pixel_map.K_to_network(self.K)
            hits = cast(scene, self.trajectory.T_world_camera, K, camera.pixel_grid(size).reshape(-1, 2))
            self._depth[size] = hits.depth.reshape(len(self.frames), size[1], size[0]).numpy()
        return self._depth[size]


def windows(count: int, first_seed: int = FIRST_SEED) -> Iterator[UnseenWindow]:
    """Render ``count`` windows, each of a world of its own; always the same ones."""
    for number in range(count):
        seed = first_seed + number
        rng = np.random.default_rng(seed)
        world = random_world(seed)
        rate, fov = float(np.exp(rng.uniform(*np.log(RATE)))), float(rng.uniform(*FOV))
        path = _path(world, seed, rate, number)
        K = default_intrinsics(SIZE, fov)
        sequence = render_sequence(world, path, K, SIZE)
        queries = rng.uniform(0, np.array(SIZE) - 1, (QUERIES, 2))
        tracks = follow(Scene.pack(world, path.times), path.T_world_camera, K, SIZE, queries)
        met = (tracks.object_id[0] > 0).numpy()
        uv, visible = tracks.uv[0].numpy()[:, met], tracks.visible[0].numpy()[:, met]
        yield UnseenWindow(world, path, sequence.frames, K, queries[met], uv, visible)


def _path(world: SyntheticWorld, seed: int, rate: float, number: int) -> CameraPath:
    """The kinds of path in turn; another one where one does not fit into the world."""
    for kind in (*PATHS[number % len(PATHS) :], *PATHS):
        try:
            return make_trajectory(world, kind, seed, FRAMES, rate)
        except RuntimeError:
            continue
    raise RuntimeError(f'no path fits into {world.kind} {world.seed}')
