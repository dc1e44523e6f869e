"""Walks with pictures and exact truth where nothing goes wrong on purpose: worlds never trained on, and pillars.

What is rendered is kept, as far as a few hundred MB hold it: many measurements look at the same pictures.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vggt_ros.evaluation.hazards import film
from vggt_ros.evaluation.scenarios import ROOM, Scenario, box_world
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.places import random_world
from vggt_ros.synthetic.trajectory import look_at, make_trajectory
from vggt_ros.synthetic.world import BOX, CYLINDER, Builder, SyntheticWorld

UNSEEN = 200_000  # worlds from this seed on are not trained on, see training/clips.py
PATHS = ('handheld', 'corridor', 'orbit', 'loop')


@lru_cache(maxsize=2)
def unseen(seed: int, images: int = 100) -> Scenario:
    """A random world that no training saw, and one of PATHS through it, 10 images a second."""
    world = random_world(UNSEEN + seed)
    return film(world, _path(world, UNSEEN + seed, seed % len(PATHS), images))


def _path(world: SyntheticWorld, seed: int, number: int, images: int) -> np.ndarray:
    """(images, 4, 4) of the first kind of path, in turn, that fits into the world."""
    for kind in (*PATHS[number:], *PATHS):
        try:
            return make_trajectory(world, kind, seed, images).T_world_camera
        except RuntimeError:
            continue
    raise RuntimeError(f'no path fits into {world.kind} {world.seed}')


@lru_cache(maxsize=4)
def pillars(seed: int, images: int = 200) -> Scenario:
    """Sideways through a textured room and back, 4 m wide, looking at its far side past pillars and crates.

    What lies behind a pillar is hidden for some images and comes out again; the ends of the way see the room from
    directions that differ by up to 60 degrees.
    """
    rng = np.random.default_rng((seed, 11))

    def furnish(builder: Builder, palette: Palette) -> None:
        other = Palette(rng)
        kinds = rng.permutation(('brick', 'cobbles', 'tiles', 'marble', 'planks', 'glyphs'))
        for number, x in enumerate(np.linspace(-2.7, 2.7, len(kinds)) + rng.uniform(-0.25, 0.25, len(kinds))):
            material = builder.material(other.texture(str(kinds[number])), other.object(), 0.9, variation=0.4)
            y, thick = rng.uniform(0.2, 1.6), rng.uniform(0.12, 0.28)
            if number % 2:
                builder.add(BOX, builder.object('crate'), (x, y, 0.7), (1.3 * thick, thick, 0.7), material)
            else:
                builder.add(CYLINDER, builder.object('pillar'), (x, y, 1.5), (thick, thick, 1.5), material)

    phase = 2 * np.pi * np.arange(images) / 200
    position = np.stack([-2 * np.cos(phase), -2.2 + 0.4 * np.sin(phase), 1.5 + 0.2 * np.sin(2 * phase)], axis=1)
    target = np.stack([0.4 * np.cos(phase), np.full(images, 1.6), np.full(images, 1.4)], axis=1)
    return film(box_world(*ROOM, seed=seed, furnish=furnish), look_at(position, target))
