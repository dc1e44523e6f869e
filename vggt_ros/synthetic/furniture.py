"""Things to put into worlds, built from a few primitives each.

Every function adds one object standing at ``position`` (x, y, z of the middle of its foot, metres) turned by ``yaw``
about the vertical, and returns its object id. Local axes: x to the front.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.world import BOX, CYLINDER, ELLIPSOID, Builder


def rotation_z(yaw: float) -> np.ndarray:
    """(3, 3) rotation about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


class ObjectBuilder:
    """Adds primitives of one object in its own frame."""

    def __init__(self, builder: Builder, name: str, position, yaw: float):
        self.builder, self.identity = builder, builder.object(name)
        self.origin, self.R = np.asarray(position, np.float64), rotation_z(yaw)

    def __call__(self, shape: int, centre, half, material, R: np.ndarray | None = None) -> None:
        R = self.R if R is None else self.R @ R
        self.builder.add(shape, self.identity, self.origin + self.R @ np.asarray(centre, np.float64), half, material, R)


def picture(builder: Builder, palette: Palette, kind: str, size: tuple[float, ...], colours=None, **options):
    """A material that shows one picture once on a face of ``size`` (width, height) metres."""
    colours = palette.object() if colours is None else colours
    return builder.material(palette.texture(kind), colours, size, (0.0, 0.0), **options)


def table(b: Builder, p: Palette, position, yaw: float) -> int:
    """A table with four legs and a few things on it."""
    rng, put = b.rng, ObjectBuilder(b, 'table', position, yaw)
    wide, deep, high = rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.5), rng.uniform(0.6, 0.78)
    wood = b.material(p.texture('wood', 'planks', 'marble'), p.wood(), 0.9, gloss=0.1)
    put(BOX, (0, 0, high - 0.02), (deep, wide, 0.02), wood)
    for x in (-1, 1):
        for y in (-1, 1):
            put(BOX, (x * (deep - 0.05), y * (wide - 0.05), high / 2 - 0.02), (0.025, 0.025, high / 2 - 0.02), wood)
    for _ in range(int(rng.integers(1, 5))):
        place = np.array([rng.uniform(-0.7, 0.7) * deep, rng.uniform(-0.7, 0.7) * wide, high])
        small(b, p, put.origin + put.R @ place, rng.uniform(0, 6.3))
    return put.identity


def chair(b: Builder, p: Palette, position, yaw: float) -> int:
    """A chair."""
    rng, put = b.rng, ObjectBuilder(b, 'chair', position, yaw)
    frame = b.material(p.texture('wood', 'plain'), p.wood() if rng.random() < 0.6 else p.metal(), 0.6)
    cloth = b.material(p.texture('fabric', 'stripes', 'wood'), p.object(), 0.4)
    seat, half = rng.uniform(0.42, 0.48), rng.uniform(0.19, 0.24)
    put(BOX, (0, 0, seat), (half, half, 0.025), cloth)
    put(BOX, (-half, 0, seat + 0.28), (0.02, half, rng.uniform(0.12, 0.25)), cloth)
    for x in (-1, 1):
        for y in (-1, 1):
            put(BOX, (x * (half - 0.02), y * (half - 0.02), seat / 2), (0.018, 0.018, seat / 2), frame)
    return put.identity


def shelf(b: Builder, p: Palette, position, yaw: float) -> int:
    """A book shelf with rows of books; its back is at x = -depth."""
    rng, put = b.rng, ObjectBuilder(b, 'shelf', position, yaw)
    wide, deep, rows = rng.uniform(0.35, 0.7), rng.uniform(0.13, 0.18), int(rng.integers(3, 6))
    pitch = rng.uniform(0.3, 0.38)
    high = rows * pitch
    wood = b.material(p.texture('wood', 'plain'), p.wood(), 0.8)
    for y in (-1, 1):
        put(BOX, (0, y * wide, high / 2), (deep, 0.015, high / 2 + 0.015), wood)
    put(BOX, (-deep, 0, high / 2), (0.01, wide, high / 2), wood)
    for row in range(rows + 1):
        put(BOX, (0, 0, row * pitch), (deep, wide, 0.012), wood)
    for row in range(rows):
        tall, broad = pitch * rng.uniform(0.35, 0.44), wide * rng.uniform(0.5, 0.95)
        books = picture(b, p, 'books', (2 * broad, 2 * tall))
        side = rng.choice([-1, 1]) * (wide - broad - 0.016)
        put(BOX, (-0.02, side, row * pitch + tall + 0.012), (deep - 0.04, broad, tall), books)
    return put.identity


def cabinet(b: Builder, p: Palette, position, yaw: float) -> int:
    """A chest with two doors."""
    rng, put = b.rng, ObjectBuilder(b, 'cabinet', position, yaw)
    deep, wide, high = rng.uniform(0.18, 0.3), rng.uniform(0.3, 0.7), rng.uniform(0.35, 1.0)
    colours = p.wood() if rng.random() < 0.5 else p.object()
    body = b.material(p.texture('wood', 'plain', 'plaster'), colours, 0.8)
    doors = b.material(p.texture('door', 'checks', 'stripes'), colours, (wide, 2 * high), (0.0, 0.0))
    put(BOX, (0, 0, high), (deep, wide, high), [body, doors, body, body, body, body])
    if rng.random() < 0.7:
        small(b, p, put.origin + put.R @ np.array([0.0, rng.uniform(-0.7, 0.7) * wide, 2 * high]), rng.uniform(0, 6.3))
    return put.identity


def sofa(b: Builder, p: Palette, position, yaw: float) -> int:
    """A sofa with cushions."""
    rng, put = b.rng, ObjectBuilder(b, 'sofa', position, yaw)
    wide, cloth = rng.uniform(0.7, 1.0), b.material(p.texture('fabric', 'stripes', 'plaster'), p.object(), 0.5)
    put(BOX, (0, 0, 0.2), (0.4, wide, 0.2), cloth)
    put(BOX, (-0.32, 0, 0.58), (0.1, wide, 0.2), cloth)
    for y in (-1, 1):
        put(BOX, (0, y * (wide - 0.08), 0.32), (0.4, 0.09, 0.3), cloth)
    tilt = np.array([[np.cos(0.35), 0, -np.sin(0.35)], [0, 1, 0], [np.sin(0.35), 0, np.cos(0.35)]])
    for share in (-0.5, 0.5):
        cushion = b.material(p.texture('fabric', 'checks', 'poster'), p.object(), 0.3)
        put(BOX, (-0.12, share * wide, 0.56), (0.06, 0.2, 0.17), cushion, tilt)
    return put.identity


def crate(b: Builder, p: Palette, position, yaw: float) -> int:
    """A cardboard box or crate, sometimes a second on top."""
    rng, put = b.rng, ObjectBuilder(b, 'crate', position, yaw)
    base = 0.0
    for level in range(1 + (rng.random() < 0.4)):
        half = rng.uniform(0.12, 0.3, 3) * (1.0 if level == 0 else 0.7)
        kind = str(rng.choice(['glyphs', 'poster', 'wood', 'planks', 'checks']))
        faces = b.material(p.texture(kind), p.wood() if kind in ('wood', 'planks') else p.object(), tuple(2 * half[:2]))
        put(BOX, (0, 0, base + half[2]), half, faces, rotation_z(rng.uniform(-0.4, 0.4) * level))
        base += 2 * half[2]
    return put.identity


def column(b: Builder, p: Palette, position, yaw: float) -> int:
    """A barrel, stool, bin or drum."""
    rng, put = b.rng, ObjectBuilder(b, 'drum', position, yaw)
    radius, high = rng.uniform(0.15, 0.3), rng.uniform(0.15, 0.5)
    skin = b.material(
        p.texture('stripes', 'wood', 'glyphs', 'checks', 'tiles'), p.object(), rng.uniform(0.3, 0.7), gloss=0.2
    )
    put(CYLINDER, (0, 0, high), (radius, radius, high), skin)
    return put.identity


def ball(b: Builder, p: Palette, position, yaw: float) -> int:
    """A ball."""
    rng, put = b.rng, ObjectBuilder(b, 'ball', position, yaw)
    radius = rng.uniform(0.1, 0.3)
    skin = b.material(
        p.texture('stripes', 'checks', 'cobbles', 'marble', 'glyphs'), p.object(), radius * 1.6, gloss=0.3
    )
    put(ELLIPSOID, (0, 0, radius), (radius,) * 3, skin)
    return put.identity


def plant(b: Builder, p: Palette, position, yaw: float) -> int:
    """A plant in a pot."""
    rng, put = b.rng, ObjectBuilder(b, 'plant', position, yaw)
    pot = b.material(p.texture('stripes', 'plain', 'tiles'), p.object(), 0.3)
    leaves = b.material(p.texture('cobbles', 'ground'), p.plant(), 0.35)
    radius, stem = rng.uniform(0.12, 0.2), rng.uniform(0.4, 0.8)
    put(CYLINDER, (0, 0, 0.15), (radius, radius, 0.15), pot)
    put(CYLINDER, (0, 0, 0.3 + stem / 2), (0.02, 0.02, stem / 2), b.material(p.texture('wood'), p.wood(), 0.2))
    for _ in range(int(rng.integers(2, 5))):
        put(
            ELLIPSOID,
            (*rng.uniform(-0.12, 0.12, 2), 0.3 + stem * rng.uniform(0.6, 1.1)),
            rng.uniform(0.1, 0.28, 3),
            leaves,
        )
    return put.identity


def lamp(b: Builder, p: Palette, position, yaw: float) -> int:
    """A standing lamp."""
    rng, put = b.rng, ObjectBuilder(b, 'lamp', position, yaw)
    high = rng.uniform(1.2, 1.7)
    metal = b.material(p.texture('plain'), p.metal(), 0.5, gloss=0.3)
    shade = b.material(p.texture('fabric', 'stripes', 'plain'), p.wall(), 0.4, emission=0.6)
    put(CYLINDER, (0, 0, 0.015), (0.15, 0.15, 0.015), metal)
    put(CYLINDER, (0, 0, high / 2), (0.015, 0.015, high / 2), metal)
    put(CYLINDER, (0, 0, high), (0.18, 0.18, 0.13), shade)
    return put.identity


def small(b: Builder, p: Palette, position, yaw: float) -> int:
    """Something for a table top: cup, ball, book, screen."""
    rng, put = b.rng, ObjectBuilder(b, 'small', position, yaw)
    kind = int(rng.integers(4))
    skin = b.material(p.texture('stripes', 'checks', 'glyphs', 'poster', 'plain'), p.object(), 0.2, gloss=0.2)
    if kind == 0:
        high, radius = rng.uniform(0.04, 0.13), rng.uniform(0.03, 0.06)
        put(CYLINDER, (0, 0, high), (radius, radius, high), skin)
    elif kind == 1:
        radius = rng.uniform(0.05, 0.1)
        put(ELLIPSOID, (0, 0, radius), (radius,) * 3, skin)
    elif kind == 2:
        half = rng.uniform((0.08, 0.06, 0.015), (0.14, 0.1, 0.08))
        put(BOX, (0, 0, half[2]), half, skin)
    else:
        wide, tall = rng.uniform(0.18, 0.3), rng.uniform(0.12, 0.18)
        display = picture(b, p, 'screen', (2 * wide, 2 * tall), emission=0.5)
        dark = b.material(p.texture('plain'), p.metal() * 0.3, 0.5)
        put(BOX, (0, 0, tall + 0.06), (0.015, wide, tall), [dark, display, dark, dark, dark, dark])
        put(CYLINDER, (0, 0, 0.03), (0.06, 0.06, 0.03), dark)
    return put.identity


def person(b: Builder, p: Palette, position, yaw: float) -> int:
    """Somebody standing."""
    rng, put = b.rng, ObjectBuilder(b, 'person', position, yaw)
    trousers = b.material(p.texture('fabric', 'plain'), p.object() * 0.5, 0.3)
    shirt = b.material(p.texture('stripes', 'checks', 'fabric', 'glyphs'), p.object(), 0.35)
    skin = b.material(p.texture('plain'), np.tile(rng.uniform(0.1, 0.7) * np.array([1.0, 0.75, 0.6]), (3, 1)), 1.0)
    high = rng.uniform(0.92, 1.08)
    for y in (-0.1, 0.1):
        put(CYLINDER, (0, y, 0.42 * high), (0.08, 0.08, 0.42 * high), trousers)
    put(ELLIPSOID, (0, 0, 1.12 * high), (0.15, 0.24, 0.36 * high), shirt)
    put(ELLIPSOID, (0, 0, 1.6 * high), (0.11, 0.1, 0.13), skin)
    return put.identity


def rack(b: Builder, p: Palette, position, yaw: float) -> int:
    """A tall rack with crates."""
    rng, put = b.rng, ObjectBuilder(b, 'rack', position, yaw)
    wide, deep, high = rng.uniform(0.8, 1.3), 0.4, rng.uniform(1.0, 1.5)
    steel = b.material(p.texture('plain', 'stripes'), p.object(), 0.6)
    for y in (-1, 1):
        put(BOX, (0, y * wide, high), (deep, 0.03, high), steel)
    for z in (0.15, high, 2 * high - 0.05):
        put(BOX, (0, 0, z), (deep, wide, 0.03), steel)
    for z in (0.18, high + 0.03):
        for share in (-0.55, 0.0, 0.55):
            if rng.random() < 0.7:
                half = rng.uniform((0.2, 0.12 * wide, 0.1), (0.35, 0.25 * wide, 0.35 * high))
                skin = b.material(
                    p.texture('glyphs', 'poster', 'planks', 'plain', 'checks'), p.object(), tuple(2 * half[1:])
                )
                put(BOX, (0, share * wide, z + half[2]), half, skin)
    return put.identity


def pane(b: Builder, p: Palette, position, yaw: float) -> int:
    """A standing pane of glass in a frame."""
    put = ObjectBuilder(b, 'glass', position, yaw)
    glass = b.material(p.texture('plain'), p.metal(), 1.0, glass=0.88, mirror=0.08)
    frame = b.material(p.texture('wood', 'plain'), p.metal(), 0.4)
    put(BOX, (0, 0, 1.0), (0.005, 0.7, 0.95), [glass, glass, frame, frame, frame, frame])
    for y in (-0.72, 0.72):
        put(BOX, (0, y, 1.0), (0.03, 0.02, 1.0), frame)
    return put.identity


ALONG_WALLS: tuple[Callable, ...] = (shelf, cabinet, sofa, shelf, cabinet, plant, lamp)
STANDING: tuple[Callable, ...] = (table, chair, crate, column, ball, plant, chair, crate)
