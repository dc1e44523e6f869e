"""What goes wrong on the way, with exact truth: standstill, blank walls, moving things, cuts, look-alikes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from vggt_ros.evaluation.scenarios import PERIOD, ROOM, SIZE, TOY, K, Scenario, box_world, room_loop
from vggt_ros.synthetic import effects
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import frame_truths, render_frames
from vggt_ros.synthetic.trajectory import CameraPath, look_along, look_at
from vggt_ros.synthetic.world import BOX, Builder, SyntheticWorld
from vggt_ros.types import Frame

MOVING = 36  # frames before a standstill
WALL, BACKGROUND = 1.2, 3.0  # m from the camera to what it sees
BLANK_CONTRAST = 1.6
"""Grey levels between neighbouring pixels below which a picture is blank: noise alone makes 1.2, brick in a tenth of it
1.7, and every other picture here more than that."""

ROUGH = replace(
    TOY,
    overlap=0.1,
    lost_confident=0.3,
    alias=0.7,
    pull=0.5,
    blank=BLANK_CONTRAST,
    blank_confident=0.5,
    descriptor_noise=0.05,
)
"""The usual errors, and the network's weaknesses where it sees nothing, something else, or something that moves."""


def film(world: SyntheticWorld, T_world_camera: np.ndarray) -> Scenario:
    """Pictures and truth along a path (N, 4, 4) through a world, at the usual rate."""
    path = CameraPath(np.arange(len(T_world_camera)) * PERIOD * 1e-9, T_world_camera)
    shots = list(render_frames(world, path, K, SIZE))
    depth, owner = np.stack([one.depth for one in shots]), np.stack([one.object_id for one in shots])
    frames = [Frame(i, (i + 1) * PERIOD, one.image, K, 'camera') for i, one in enumerate(shots)]
    truths = frame_truths(world, path, K, depth, owner)
    return Scenario(frames, path.T_world_camera, truths, Scene.pack(world, path.times))


def noisy(scenario: Scenario, seed: int, read: float = 1.5, shot: float = 0.3) -> Scenario:
    """With a sensor's noise, see :func:`vggt_ros.synthetic.effects.noise`."""
    rng = np.random.default_rng((seed, 7))
    frames = [replace(frame, image=effects.noise(frame.image, rng, read, shot)) for frame in scenario.frames]
    return replace(scenario, frames=frames)


def select(scenario: Scenario, order: np.ndarray) -> Scenario:
    """These frames (M,) of a scenario, one after another at the usual rate, whatever their place was."""
    frames = [replace(scenario.frames[old], index=i, stamp=(i + 1) * PERIOD) for i, old in enumerate(order)]
    return Scenario(frames, scenario.T_world_camera[order], [scenario.truths[old] for old in order])


def standstill(moving: int = MOVING, standing: int = 500) -> Scenario:
    """A part of the ellipse in the room, and then the last pose for ever. No noise yet."""
    begin = room_loop(240, pictures=True, stop=moving)
    return select(begin, np.minimum(np.arange(moving + standing), moving - 1))


def blank_wall() -> Scenario:
    """Sideways along a wall 1.2 m away, past a part that is plain: nothing else for 2 s; 1 s further, and back."""
    low, high = np.array([-3.0, -6.0, 0.0]), np.array([3.0, 6.0, 3.0])

    def furnish(builder: Builder, palette: Palette) -> None:
        plain = builder.material(palette.texture('plain'), palette.wall() * 0.6, 4.0)
        builder.add(BOX, builder.object('plain wall'), (-3.0, 0.0, 1.5), (0.02, 1.34, 1.5), plain)

    there = np.linspace(3.0, -1.9, 99)
    y = np.concatenate([there, there[-2::-1]])
    position = np.stack([-1.78 + 0.1 * np.sin(y), y, 1.5 + 0.05 * np.cos(2 * y)], axis=1)
    T = look_at(position, position - np.array([1.0, 0.0, 0.0]))
    return noisy(film(box_world(low, high, furnish=furnish), T), 0, read=1.0, shot=0.01)


def passing_object(share: float) -> Scenario:
    """Sideways along a wall 3 m away, while a box that fills this share of the image passes in front of the camera."""
    width, height = np.array(SIZE) / K[0, 0] * 1.2 * np.sqrt(share)
    reach, period = 3.2, 24.0

    def furnish(builder: Builder, palette: Palette) -> None:
        other = Palette(np.random.default_rng(5))
        sides = builder.material(other.texture('cobbles'), other.object(), 0.8, variation=0.4)
        thing = builder.object('thing')
        builder.add(BOX, thing, (0.0, 1.3, 1.5), (width / 2, 0.1, height / 2), sides)
        # In the middle after 6 s, from left to right like the camera, but faster.
        builder.move(thing, (0.0, 1.3, 1.5), (reach, 0.0, 0.0), 0.0, 1 / period, -2 * np.pi * 6.0 / period)

    x = np.linspace(-1.2, 1.2, 120)
    position = np.stack([x, np.zeros(len(x)), np.full(len(x), 1.5)], axis=1)
    return film(box_world(*ROOM, furnish=furnish), look_at(position, position + np.array([0.0, 1.0, 0.0])))


def teleport(before: int = 60, away: int = 36, after: int = 60) -> Scenario:
    """Along the ellipse; for ``away`` frames in another room; and on along the ellipse as if nothing had been."""
    here, there = _two_rooms(before + after, away)
    T = np.concatenate([here.T_world_camera, there.T_world_camera])
    both = Scenario(here.frames + there.frames, T, here.truths + there.truths)
    numbers = np.arange(len(both.frames))
    return select(both, np.concatenate([numbers[:before], numbers[before + after :], numbers[before : before + after]]))


@lru_cache(maxsize=6)
def _two_rooms(here: int, there: int) -> tuple[Scenario, Scenario]:
    low, high = np.array([97.0, -2.5, 0.0]), np.array([103.0, 2.5, 2.6])
    angle = np.linspace(0, 1.0, there)
    position = np.stack([100 + 1.2 * np.cos(angle), 1.2 * np.sin(angle), np.full(there, 1.3)], axis=1)
    outward = position + np.stack([np.cos(2 * angle), np.sin(2 * angle), np.zeros(there)], axis=1)
    other = film(box_world(low, high, seed=1), look_at(position, outward))
    return room_loop(240, pictures=True, stop=here), other


@lru_cache(maxsize=4)
def look_alike(seed: int, frames: int = 36) -> tuple[Scenario, float, int]:
    """Along one wall of a corridor of equal bays, to its end and back, and then a cut to where a bay looks alike.

    Also the length of a bay in metres, and the frame of the cut. It goes half a bay too far, so that the picture
    changes.
    """
    world = make_world('twins', seed)
    assert world.period is not None
    low, high = world.free
    x = np.arange(low[0] + 0.6, high[0] - 0.6, 0.1)
    bay = float(np.linalg.norm(world.period))
    cut = low[0] + 0.6 + 1.5 * bay + 0.05 * np.arange(frames)
    x = np.concatenate([x, x[::-1], cut])
    position = np.stack([x, np.full(len(x), -0.2), np.full(len(x), 1.3)], axis=1)
    yaw = np.pi / 2 + 0.05 * np.sin(0.2 * np.arange(len(x)))
    return film(world, look_along(position, yaw, np.full(len(x), -0.05))), bay, len(x) - frames


def wrong_focal(scenario: Scenario, factor: float) -> Scenario:
    """The frames' K says a focal length ``factor`` times as long; pictures and truth stay."""
    wrong = K * np.array([[factor, 1, 1], [1, factor, 1], [1, 1, 1]])
    return replace(scenario, frames=[replace(frame, K=wrong) for frame in scenario.frames])


def missing(scenario: Scenario, share: float, seed: int) -> Scenario:
    """A share of the frames never comes; the first two always do."""
    rng = np.random.default_rng((seed, 8))
    kept = [frame for frame in scenario.frames if frame.index < 2 or rng.random() >= share]
    return replace(scenario, frames=kept)
