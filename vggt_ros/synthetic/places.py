"""Where worlds come from: :func:`make_world` turns a kind, a seed and options into a :class:`SyntheticWorld`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vggt_ros.synthetic import exteriors, interiors
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.world import Builder, Options, SyntheticWorld

KINDS: dict[str, Callable[[Builder, Palette], SyntheticWorld]] = {
    'room': interiors.room,
    'corridor': interiors.corridor,
    'hall': interiors.hall,
    'twins': interiors.twins,
    'planar': interiors.planar,
    'street': exteriors.street,
    'park': exteriors.park,
}
"""room, hall: furnished. corridor: a ring with doors. twins: a row of alcoves that look exactly alike. planar: one flat
floor, nearly nothing on it. street: a road around a block. park: paths, trees and a fountain."""


def make_world(
    kind: str, seed: int, *, bare: bool = False, mirrors: bool = False, moving: bool = False, clutter: float = 1.0
) -> SyntheticWorld:
    """A world; the same arguments give the same world. ValueError for an unknown kind.

    kind: one of KINDS. bare: walls, floors and facades without texture. mirrors: mirrors and panes of glass.
    moving: some objects move. clutter: how many things stand around, 1 = the usual number, 0 = almost none.
    """
    if kind not in KINDS:
        raise ValueError(f'unknown kind of world {kind!r}; there are {", ".join(KINDS)}')
    if clutter < 0:
        raise ValueError(f'clutter must not be negative, but is {clutter}')
    rng = np.random.default_rng((seed, list(KINDS).index(kind)))
    builder = Builder(kind, seed, rng, Options(bare, mirrors, moving, clutter))
    return KINDS[kind](builder, Palette(rng))


def random_world(seed: int, clutter: float = 1.0) -> SyntheticWorld:
    """A world of a random kind with random options: what a network is trained on."""
    rng = np.random.default_rng((seed, 999))
    kinds = ('room', 'corridor', 'hall', 'street', 'park', 'planar')
    kind = str(rng.choice(kinds, p=(0.38, 0.14, 0.18, 0.14, 0.12, 0.04)))
    bare, mirrors = rng.random(2) < (0.08, 0.06)
    return make_world(kind, seed, bare=bool(bare), mirrors=bool(mirrors), clutter=clutter)
