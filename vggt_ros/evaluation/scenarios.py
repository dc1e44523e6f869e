"""Camera paths inside a box, with exact truth in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from vggt_ros.camera import pixel_grid, rays
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.interiors import lamps
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.trajectory import CameraPath, look_at
from vggt_ros.synthetic.truth import FrameTruth
from vggt_ros.synthetic.world import BOX, Builder, Options, SyntheticWorld
from vggt_ros.types import Frame

SIZE = (224, 168)
K = default_intrinsics(SIZE, 70.0)
PERIOD = 100_000_000  # nanoseconds between frames

TOY = ErrorModel(
    normalised=True,
    window_scale=0.1,
    depth_window=0.015,
    depth_frame=0.015,
    depth_pixel=0.01,
    outliers=0.04,
    rotation=0.25,
    translation=0.006,
    confidence_correlation=0.5,
)
"""Window-common depth 1.5 %, frame 1.5 %, pixel 1 %, 4 % outliers, rotation 0.25 deg, translation 0.6 % of depth."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """Frames and what is true of them.

    frames: N frames, black where nothing was rendered. T_world_camera: (N, 4, 4). truths: what SimulatedNetwork asks.
    scene: the rendered world at the moments of the poses, None where nothing was rendered or the order was changed.
    """

    frames: list[Frame]
    T_world_camera: np.ndarray
    truths: list[FrameTruth]
    scene: Scene | None = None


def inside_box(T_world_camera: np.ndarray, low: np.ndarray, high: np.ndarray) -> Callable:
    """The depth function (K, size) -> (h, w) of a camera inside an empty box."""

    def depth(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        directions = rays(pixel_grid(size), K) @ T_world_camera[:3, :3].T
        with np.errstate(divide='ignore'):
            exits = np.where(directions > 0, high - T_world_camera[:3, 3], low - T_world_camera[:3, 3]) / directions
        return np.min(np.where(np.isfinite(exits), exits, np.inf), axis=-1)

    return depth


def box_world(
    low: np.ndarray, high: np.ndarray, seed: int = 0, furnish: Callable[[Builder, Palette], None] | None = None
) -> SyntheticWorld:
    """A box seen from inside, with a pattern full of corners on every face. furnish: puts things into it."""
    rng = np.random.default_rng(seed)
    builder, palette = Builder('box', seed, rng, Options()), Palette(rng)
    kinds = ('brick', 'cobbles', 'tiles', 'marble', 'planks', 'glyphs')
    faces = [builder.material(palette.texture(kind), palette.object(), 1.7, variation=0.4) for kind in kinds]
    half, centre = (high - low) / 2, (low + high) / 2
    builder.add(BOX, builder.object('shell'), centre, half, faces)
    if furnish is not None:
        furnish(builder, palette)
    middle = np.array([[*centre[:2], high[2] - 0.3]])
    lights = lamps(builder, middle, 4 * half[:2].prod())
    walkway = np.array([low, high]) * np.array([0.5, 0.5, 0.0])
    return builder.build(lights, np.array([low + 0.3, high - 0.3]), walkway, [centre], closed=False)


def _scenario(T: np.ndarray, low: np.ndarray, high: np.ndarray, pictures: bool, K: np.ndarray = K) -> Scenario:
    stamps = [(i + 1) * PERIOD for i in range(len(T))]
    images: Iterable[np.ndarray]
    scene = None
    if pictures:
        world, path = box_world(low, high), CameraPath(np.arange(len(T)) * PERIOD * 1e-9, T)
        images, scene = (one.image for one in render_frames(world, path, K, SIZE)), Scene.pack(world, path.times)
    else:
        images = [np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (SIZE[1], SIZE[0], 3))] * len(T)
    frames = [Frame(i, stamp, image, K, 'camera') for i, (stamp, image) in enumerate(zip(stamps, images, strict=True))]
    return Scenario(frames, T, [FrameTruth(one, K, inside_box(one, low, high)) for one in T], scene)


ROOM = np.array([-4.0, -3.0, 0.0]), np.array([4.0, 3.0, 3.0])


def off_centre(share: float) -> np.ndarray:
    """K of a camera whose principal point is off by a share of the width, to the right, and half of that down."""
    moved = K.copy()
    moved[:2, 2] += share * SIZE[0] * np.array([1.0, 0.5])
    return moved


def room_loop(count: int = 240, pictures: bool = False, stop: int | None = None, K: np.ndarray = K) -> Scenario:
    """One turn on an ellipse of radii 2 and 1.5 m in a room of 8 x 6 x 3 m, looking ahead, until frame ``stop``."""
    angle = np.linspace(0, 2 * np.pi, count)[:stop]
    position = np.stack([2 * np.cos(angle), 1.5 * np.sin(angle), np.full(len(angle), 1.5)], axis=1)
    ahead = np.stack([-2 * np.sin(angle), 1.5 * np.cos(angle), np.zeros(len(angle))], axis=1)
    return _scenario(look_at(position, position + ahead), *ROOM, pictures, K)


def room_turn(count: int = 240, pictures: bool = False) -> Scenario:
    """A full turn on the spot in the same room."""
    angle = np.linspace(0, 2 * np.pi, count)
    ahead = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], axis=1)
    position = np.array([0.3, -0.2, 1.5])
    return _scenario(look_at(position, position + ahead), *ROOM, pictures)


def corridor(length: float = 1000.0, step: float = 0.25, pictures: bool = False) -> Scenario:
    """Straight through a corridor 3 m wide and 2.6 m high that ends 10 m behind both ends of the path."""
    x = np.linspace(0, length, round(length / step) + 1)
    position = np.stack([x, 0.2 * np.sin(x / 7), np.full(len(x), 1.4)], axis=1)
    ahead = np.stack([np.ones(len(x)), 0.2 / 7 * np.cos(x / 7), np.zeros(len(x))], axis=1)
    walls = np.array([-10.0, -1.5, 0.0]), np.array([length + 10, 1.5, 2.6])
    return _scenario(look_at(position, position + ahead), *walls, pictures)
