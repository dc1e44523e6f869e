"""Where worlds come from: :func:`make_world` turns a kind, a seed and options into a :class:`World`."""

from __future__ import annotations

import numpy as np

from vggt_ros.synthetic import furniture
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.world import BOX, Builder, Lights, World


def make_world(kind: str, seed: int) -> World:
    """A world; the same seed gives the same world. kind: one of KINDS; ValueError for another."""
    if kind not in KINDS:
        raise ValueError(f'unknown kind of world {kind!r}; there are {", ".join(KINDS)}')
    rng = np.random.default_rng((seed, list(KINDS).index(kind)))
    builder = Builder(kind, seed, rng)
    return KINDS[kind](builder, Palette(rng))


def _wall_material(b: Builder, p: Palette) -> int:
    kind = str(b.rng.choice(['plain', 'plaster', 'stripes', 'brick', 'tiles', 'fabric', 'marble']))
    colours = p.brick() if kind == 'brick' and b.rng.random() < 0.7 else p.wall()
    return b.material(p.texture(kind), colours, b.rng.uniform(0.8, 2.0), variation=b.rng.uniform(0.1, 0.35))


def _floor_material(b: Builder, p: Palette) -> int:
    kind = str(b.rng.choice(['planks', 'tiles', 'checks', 'fabric', 'cobbles', 'marble', 'planks']))
    colours = p.wood() if kind == 'planks' else p.stone() if kind in ('cobbles', 'marble') else p.object() * 0.8
    return b.material(p.texture(kind), colours, b.rng.uniform(1.0, 2.2), variation=0.25, gloss=0.05)


def _on_wall(b: Builder, p: Palette, wall: int, half: np.ndarray, along: float, low: float, size, kind: str, **options):
    """Hang a thin box of size (width, height) on wall 0..3 (-x, +x, -y, +y) with its lower edge at ``low``."""
    width, height = size
    axis, sign = wall // 2, 1 if wall % 2 else -1
    centre, extent = np.zeros(3), np.zeros(3)
    centre[axis], centre[1 - axis], centre[2] = sign * (half[axis] - 0.012), along, low + height / 2
    extent[axis], extent[1 - axis], extent[2] = 0.012, width / 2, height / 2
    colours = p.window() if kind == 'window' else p.wood() if kind == 'door' else None
    face = furniture.poster_faces(b, p, kind, width, height, colours, **options)
    b.add(BOX, b.object(kind), centre, extent, face)


def _decorate_walls(b: Builder, p: Palette, half: np.ndarray, height: float) -> None:
    rng = b.rng
    for wall in range(4):
        reach = half[1 - wall // 2] - 0.3
        position = -reach
        while position < reach - 0.4:
            kind = str(rng.choice(['poster', 'picture', 'poster', 'window', 'door', 'glyphs', 'screen']))
            width = {'door': 0.9, 'window': rng.uniform(0.8, 1.5)}.get(kind, rng.uniform(0.4, 1.1))
            if position + width > reach:
                break
            low, tall = {
                'door': (0.0, min(2.05, height - 0.2)),
                'window': (rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.3)),
            }.get(kind, (rng.uniform(0.9, 1.4), width * rng.uniform(0.7, 1.3)))
            tall = min(tall, height - low - 0.1)
            glow = 0.7 if kind == 'window' else 0.0
            _on_wall(b, p, wall, half, position + width / 2, low, (width, tall), kind, emission=glow)
            position += width + rng.uniform(0.2, 1.2)


def _furnish(b: Builder, p: Palette, half: np.ndarray, standing: int, along: int) -> list[np.ndarray]:
    """Put things along the walls and into the room without overlap; their positions."""
    rng, taken = b.rng, []

    def is_free(xy: np.ndarray, radius: float) -> bool:
        return all(np.hypot(*(xy - other)) > radius + r for other, r in taken)

    for group, count in ((furniture.ALONG_WALLS, along), (furniture.STANDING, standing)):
        for _ in range(count):
            for _attempt in range(8):
                if group is furniture.ALONG_WALLS:
                    wall = int(rng.integers(4))
                    axis, sign = wall // 2, 1 if wall % 2 else -1
                    xy = np.zeros(2)
                    xy[axis] = sign * (half[axis] - 0.42)
                    xy[1 - axis] = rng.uniform(-1, 1) * (half[1 - axis] - 0.9)
                    yaw, radius = float(np.arctan2(*(-sign * np.eye(2)[axis])[::-1])), 0.7
                else:
                    xy, yaw, radius = rng.uniform(-1, 1, 2) * (half[:2] - 0.6), rng.uniform(0, 2 * np.pi), 0.45
                if is_free(xy, radius):
                    taken.append((xy, radius))
                    make = group[int(rng.integers(len(group)))]
                    make(b, p, np.array([*xy, 0.0]), yaw)
                    break
    return [np.array([*xy, 0.6]) for xy, _ in taken]


def _lamps(b: Builder, half: np.ndarray, height: float) -> Lights:
    rng = b.rng
    count = int(rng.integers(1, 3))
    position = np.stack(
        [np.array([*(rng.uniform(-0.6, 0.6, 2) * half[:2]), height - rng.uniform(0.2, 0.5)]) for _ in range(count)]
    )
    warmth = rng.uniform(-0.15, 0.15)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    power = rng.uniform(1.2, 2.2) * half[:2].prod() / count * 0.35
    ambient = np.stack([0.3 * tint, rng.uniform(0.35, 0.55) * tint])
    return Lights(position, np.tile(power * tint, (count, 1)), np.array([0.0, 0.0, 1.0]), np.zeros(3), ambient)


def _room(b: Builder, p: Palette) -> World:
    rng = b.rng
    half = np.array([rng.uniform(2.0, 4.2), rng.uniform(1.8, 3.4), rng.uniform(1.2, 1.6)])
    height = 2 * half[2]
    walls = [_wall_material(b, p) for _ in range(2)]
    accent = rng.choice(4)
    faces = [walls[1 if wall == accent else 0] for wall in range(4)]
    ceiling = b.material(p.texture('plain', 'plaster', 'tiles'), p.wall(), 1.2, variation=0.15)
    b.add(BOX, b.object('shell'), (0, 0, half[2]), half, [*faces, _floor_material(b, p), ceiling])
    rug = half[:2] * rng.uniform(0.25, 0.5)
    carpet = furniture.poster_faces(b, p, 'carpet', 2 * rug[0], 2 * rug[1])
    b.add(BOX, b.object('rug'), (*rng.uniform(-0.3, 0.3, 2), 0.005), (*rug, 0.005), carpet)
    _decorate_walls(b, p, half, height)
    focus = _furnish(b, p, half, standing=int(rng.integers(3, 7)), along=int(rng.integers(3, 6)))
    free = np.array([[-half[0] + 0.4, -half[1] + 0.4, 0.5], [half[0] - 0.4, half[1] - 0.4, height - 0.4]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half[:2] - 0.9)
    walkway = np.concatenate([corners, np.zeros((4, 1))], axis=1)
    return b.build(_lamps(b, half, height), free, walkway, focus or [[0.0, 0.0, 0.8]], closed=True)


KINDS = {'room': _room}
