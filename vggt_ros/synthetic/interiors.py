"""Worlds with walls around them."""

from __future__ import annotations

import copy

import numpy as np

from vggt_ros.synthetic import furniture
from vggt_ros.synthetic.palette import Palette
from vggt_ros.synthetic.world import BOX, CYLINDER, Builder, Lights, SyntheticWorld

_PICTURES = ('poster', 'picture', 'poster', 'window', 'door', 'glyphs', 'screen')


def wall_material(b: Builder, p: Palette) -> int:
    """Paint, plaster, brick, paper; plain with the option ``bare``."""
    if b.options.bare:
        return b.material(p.texture('plain'), p.wall(), 4.0)
    kind = str(b.rng.choice(['plain', 'plaster', 'stripes', 'brick', 'tiles', 'fabric', 'marble']))
    colours = p.brick() if kind == 'brick' and b.rng.random() < 0.7 else p.wall()
    return b.material(p.texture(kind), colours, b.rng.uniform(0.8, 2.0), variation=b.rng.uniform(0.1, 0.35))


def floor_material(b: Builder, p: Palette, scale: float = 1.0) -> int:
    """Boards, tiles, stone, carpet; plain with the option ``bare``."""
    if b.options.bare:
        return b.material(p.texture('plain'), p.stone(), 4.0)
    kind = str(b.rng.choice(['planks', 'tiles', 'checks', 'fabric', 'cobbles', 'marble', 'planks']))
    colours = p.wood() if kind == 'planks' else p.stone() if kind in ('cobbles', 'marble') else p.object() * 0.8
    return b.material(p.texture(kind), colours, scale * b.rng.uniform(1.0, 2.2), variation=0.25, gloss=0.05)


def hang(
    b: Builder, p: Palette, kind: str, wall: tuple[int, float, int], along: float, low: float, size: tuple[float, float]
) -> None:
    """Hang something flat on a wall.

    kind: a texture kind, or 'mirror'. wall: (axis of its normal: 0 = x or 1 = y; coordinate; sign of the side that
    looks into the room). along: middle, on the other axis. low: height of the lower edge. size: (width, height).
    """
    axis, at, side = wall
    centre, half = np.zeros(3), np.zeros(3)
    centre[axis], centre[1 - axis], centre[2] = at + side * 0.012, along, low + size[1] / 2
    half[axis], half[1 - axis], half[2] = 0.012, size[0] / 2, size[1] / 2
    identity = b.object(kind)
    if kind == 'mirror':
        face = b.material(p.texture('plain'), p.metal(), 1.0, mirror=0.9)
        frame = b.material(p.texture('wood'), p.wood(), 0.3)
        b.add(BOX, identity, centre, half, [face if one // 2 == axis else frame for one in range(6)])
        return
    colours = {'window': p.window, 'door': p.wood}.get(kind, p.object)()
    face = furniture.picture(b, p, kind, size, colours, emission=0.7 if kind == 'window' else 0.0)
    b.add(BOX, identity, centre, half, face)


def decorate(b: Builder, p: Palette, wall: tuple[int, float, int], span: tuple[float, float], height: float) -> None:
    """Fill a wall between ``span`` with pictures, windows and doors."""
    rng = b.rng
    if b.options.bare:
        return
    position = span[0] + rng.uniform(0.1, 0.6)
    while position < span[1] - 0.5:
        kind = 'mirror' if b.options.mirrors and rng.random() < 0.25 else str(rng.choice(_PICTURES))
        width = {'door': 0.9, 'window': rng.uniform(0.8, 1.5), 'mirror': 0.8}.get(kind, rng.uniform(0.4, 1.1))
        if position + width > span[1] - 0.1:
            break
        low, tall = {
            'door': (0.0, 2.05),
            'window': (rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.3)),
            'mirror': (0.3, 1.7),
        }.get(kind, (rng.uniform(0.9, 1.4), width * rng.uniform(0.7, 1.3)))
        hang(b, p, kind, wall, position + width / 2, low, (width, min(tall, height - low - 0.1)))
        position += width + rng.uniform(0.2, 1.2) / max(b.options.clutter, 0.2)


def furnish(b: Builder, p: Palette, half: np.ndarray, standing: int, along: int) -> list[np.ndarray]:
    """Put things along the walls and into a room around the origin, without overlap; points worth a look."""
    rng = b.rng
    taken: list[tuple[np.ndarray, float]] = []
    for group, count in ((furniture.ALONG_WALLS, along), (furniture.STANDING, standing)):
        for _ in range(round(count * b.options.clutter)):
            for _attempt in range(8):
                if group is furniture.ALONG_WALLS:
                    axis, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
                    xy = np.zeros(2)
                    xy[axis], xy[1 - axis] = -side * (half[axis] - 0.42), rng.uniform(-1, 1) * (half[1 - axis] - 0.9)
                    yaw, radius = float(np.arctan2(side * (axis == 1), side * (axis == 0))), 0.7
                else:
                    xy, yaw, radius = rng.uniform(-1, 1, 2) * (half[:2] - 0.6), rng.uniform(0, 2 * np.pi), 0.45
                if all(np.hypot(*(xy - other)) > radius + r for other, r in taken):
                    taken.append((xy, radius))
                    group[int(rng.integers(len(group)))](b, p, np.array([*xy, 0.0]), yaw)
                    break
    return [np.array([*xy, 0.7]) for xy, _ in taken]


def lamps(b: Builder, positions: np.ndarray, area: float) -> Lights:
    """Lamps (L, 3) that light ``area`` square metres, and the light they scatter."""
    rng = b.rng
    tint = 1 + rng.uniform(-0.18, 0.18) * np.array([1.0, 0.0, -1.0])
    power = rng.uniform(0.35, 0.6) * area / len(positions)
    ambient = np.stack([rng.uniform(0.12, 0.25) * tint, rng.uniform(0.2, 0.4) * tint])
    return Lights(positions, np.tile(power * tint, (len(positions), 1)), np.array([0, 0, 1.0]), np.zeros(3), ambient)


def _movers(b: Builder, p: Palette, half: np.ndarray, count: int) -> None:
    """People walking to and fro and balls rolling, with the option ``moving``."""
    for _ in range(count if b.options.moving else 0):
        xy = b.rng.uniform(-0.5, 0.5, 2) * half[:2]
        make = furniture.person if b.rng.random() < 0.6 else furniture.ball
        identity = make(b, p, np.array([*xy, 0.0]), b.rng.uniform(0, 6.3))
        direction = b.rng.uniform(0, 2 * np.pi)
        reach = b.rng.uniform(0.3, 0.8) * min(1.5, half[:2].min() * 0.4)
        swing = reach * np.array([np.cos(direction), np.sin(direction), 0.0])
        b.move(identity, (*xy, 0.0), swing, b.rng.normal(0, 0.3), b.rng.uniform(0.1, 0.25), b.rng.uniform(0, 6.3))


def room(b: Builder, p: Palette) -> SyntheticWorld:
    """One furnished room."""
    rng = b.rng
    half = np.array([rng.uniform(2.0, 4.2), rng.uniform(1.8, 3.4), rng.uniform(1.2, 1.6)])
    height = 2 * half[2]
    walls = [wall_material(b, p) for _ in range(2)]
    accent = rng.choice(4)
    faces = [walls[1 if wall == accent else 0] for wall in range(4)]
    ceiling = b.material(p.texture('plain', 'plaster', 'tiles'), p.wall(), 1.2, variation=0.15)
    b.add(BOX, b.object('shell'), (0, 0, half[2]), half, [*faces, floor_material(b, p), ceiling])
    if not b.options.bare and rng.random() < 0.7:
        rug = half[:2] * rng.uniform(0.25, 0.5)
        carpet = furniture.picture(b, p, 'carpet', tuple(2 * rug))
        b.add(BOX, b.object('rug'), (*rng.uniform(-0.3, 0.3, 2), 0.005), (*rug, 0.005), carpet)
    for axis in (0, 1):
        for side in (-1, 1):
            reach = half[1 - axis] - 0.2
            decorate(b, p, (axis, -side * half[axis], side), (-reach, reach), height)
    if b.options.mirrors:
        furniture.pane(b, p, np.array([*rng.uniform(-0.4, 0.4, 2) * half[:2], 0.0]), rng.uniform(0, 3.1))
    focus = furnish(b, p, half, int(rng.integers(4, 8)), int(rng.integers(3, 6)))
    _movers(b, p, half, int(rng.integers(1, 4)))
    free = np.array([[-half[0] + 0.4, -half[1] + 0.4, 0.5], [half[0] - 0.4, half[1] - 0.4, height - 0.4]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (half[:2] - 0.9)
    count = int(rng.integers(1, 3))
    overhead = np.concatenate(
        [rng.uniform(-0.6, 0.6, (count, 2)) * half[:2], height - rng.uniform(0.2, 0.6, (count, 1))], 1
    )
    lights = lamps(b, overhead, 4 * half[:2].prod())
    walkway = np.concatenate([corners, np.zeros((4, 1))], axis=1)
    return b.build(lights, free, walkway, [*focus, np.array([half[0], 0.0, 1.2])], closed=True)


def corridor(b: Builder, p: Palette) -> SyntheticWorld:
    """A ring of corridors around a solid core: long, narrow, doors on both sides, and it comes back to its start."""
    rng = b.rng
    core = np.array([rng.uniform(2.5, 6.0), rng.uniform(1.5, 4.0)])
    width, height = rng.uniform(1.7, 2.6), rng.uniform(2.4, 3.0)
    outer = core + width
    walls, floor = [wall_material(b, p) for _ in range(3)], floor_material(b, p)
    ceiling = b.material(p.texture('tiles', 'plain', 'planks'), p.wall(), 1.2, variation=0.1)
    half = np.array([*outer, height / 2])
    faces = [walls[rng.integers(3)] for _ in range(4)]
    b.add(BOX, b.object('shell'), (0, 0, height / 2), half, [*faces, floor, ceiling])
    inner = [walls[rng.integers(3)] for _ in range(4)]
    b.add(BOX, b.object('core'), (0, 0, height / 2), (*core, height / 2), [*inner, floor, floor])
    for axis in (0, 1):
        for side in (-1, 1):
            decorate(b, p, (axis, -side * outer[axis], side), (-outer[1 - axis], outer[1 - axis]), height)
            decorate(b, p, (axis, side * core[axis], side), (-core[1 - axis], core[1 - axis]), height)
    focus = []
    for _ in range(round(rng.integers(4, 9) * b.options.clutter)):
        axis, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
        place = np.array([0.0, 0.0, 0.0])
        place[axis], place[1 - axis] = side * (outer[axis] - 0.33), rng.uniform(-1, 1) * (core[1 - axis] - 0.4)
        yaw = float(np.arctan2(-side * (axis == 1), -side * (axis == 0)))
        make = (furniture.column, furniture.plant, furniture.crate, furniture.chair)[int(rng.integers(4))]
        make(b, p, place, yaw)
        focus.append(place + np.array([0, 0, 0.7]))
    # Closer to the core than to the outer walls, where things stand.
    middle = core + 0.42 * width
    if b.options.moving:
        identity = furniture.person(b, p, (0.0, middle[1] + 0.2, 0.0), 0.0)
        b.move(identity, (0, 0, 0), (core[0] * 0.7, 0, 0), 0.0, 0.05, rng.uniform(0, 6.3))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * middle
    free = np.array([[*(0.35 - outer), 0.5], [*(outer - 0.35), height - 0.35]])
    below = np.concatenate([corners, [[0, middle[1]], [0, -middle[1]]]])
    overhead = np.concatenate([below, np.full((6, 1), height - 0.15)], axis=1)
    lights = lamps(b, overhead, 4 * outer.prod() * 0.55)
    walkway = np.concatenate([corners, np.zeros((4, 1))], axis=1)
    return b.build(lights, free, walkway, [*focus, *(walkway + np.array([0, 0, 1.2]))], closed=True)


def hall(b: Builder, p: Palette) -> SyntheticWorld:
    """A large hall with pillars, racks and piles: a warehouse, a workshop, a gallery."""
    rng = b.rng
    half = np.array([rng.uniform(6, 11), rng.uniform(4.5, 8), rng.uniform(1.8, 3.2)])
    height = 2 * half[2]
    walls = [wall_material(b, p) for _ in range(2)]
    ceiling = b.material(p.texture('planks', 'plain', 'stripes'), p.metal(), 2.5, variation=0.2)
    faces = [walls[0], walls[0], walls[1], walls[1], floor_material(b, p, 1.8), ceiling]
    b.add(BOX, b.object('shell'), (0, 0, half[2]), half, faces)
    for axis in (0, 1):
        for side in (-1, 1):
            reach = half[1 - axis]
            decorate(b, p, (axis, -side * half[axis], side), (-reach, -0.2), height)
            decorate(b, p, (axis, -side * half[axis], side), (0.2, reach), height)
    pillar = b.material(p.texture('brick', 'stripes', 'plain', 'tiles'), p.object(), 1.2, variation=0.2)
    round_pillars, spacing = rng.random() < 0.5, half[0] * rng.uniform(0.9, 1.1)
    for x in (-0.5, 0.5):
        for y in (-0.5, 0.5):
            place = (x * spacing, y * half[1], half[2])
            b.add(CYLINDER if round_pillars else BOX, b.object('pillar'), place, (0.22, 0.22, half[2]), pillar)
    focus = []
    for _ in range(round(rng.integers(5, 10) * b.options.clutter)):
        xy = rng.uniform(-1, 1, 2) * (half[:2] - 1.2)
        if abs(abs(xy[1]) - half[1] * 0.72) < 0.9:
            continue  # the walkway
        makes = (furniture.rack, furniture.table, furniture.crate, furniture.sofa, furniture.ball, furniture.column)
        makes[int(rng.integers(6))](b, p, np.array([*xy, 0.0]), float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.1))
        focus.append(np.array([*xy, 0.8]))
    if b.options.mirrors:
        furniture.pane(b, p, np.array([0.0, 0.0, 0.0]), rng.uniform(0, 3.1))
    _movers(b, p, half, int(rng.integers(2, 5)))
    lane = np.array([half[0] - 1.0, half[1] * 0.72])
    walkway = np.array([[-lane[0], -lane[1], 0], [lane[0], -lane[1], 0], [lane[0], lane[1], 0], [-lane[0], lane[1], 0]])
    free = np.array([[-half[0] + 0.5, -half[1] + 0.5, 0.6], [half[0] - 0.5, half[1] - 0.5, height - 0.5]])
    overhead = np.array([[x * half[0], y * half[1], height - 0.3] for x in (-0.55, 0.0, 0.55) for y in (-0.3, 0.3)])
    lights = lamps(b, overhead[:: int(rng.integers(1, 3))], 3 * half[:2].prod())
    return b.build(lights, free, walkway, [*focus, np.array([0.0, 0.0, 1.0])], closed=True)


def twins(b: Builder, p: Palette) -> SyntheticWorld:
    """A long corridor of bays that are exact copies of one another; only its two ends differ."""
    rng = b.rng
    bays, length, width, height = int(rng.integers(4, 7)), 4.0, rng.uniform(1.8, 2.4), 2.7
    half = np.array([bays * length / 2, width, height / 2])
    tile = length / int(rng.integers(2, 4))  # the pattern's period divides the bay's
    kinds = ('plain',) if b.options.bare else ('brick', 'plaster', 'tiles', 'stripes')
    wall = b.material(p.texture(*kinds), p.wall(), tile)
    floor = b.material(p.texture('planks', 'tiles', 'checks'), p.wood(), tile)
    ceiling = b.material(p.texture('plain', 'tiles'), p.wall(), tile)
    ends = [wall_material(b, p) for _ in range(2)]
    b.add(BOX, b.object('shell'), (0, 0, height / 2), half, [*ends, wall, wall, floor, ceiling])
    decorate(b, p, (0, -half[0], 1), (-width + 0.2, width - 0.2), height)
    decorate(b, p, (0, half[0], -1), (-width + 0.2, width - 0.2), height)
    before, seed, focus = b.rng, int(rng.integers(1 << 30)), []
    looks = copy.deepcopy(p)
    for bay in range(bays):
        # Every bay is drawn by the same chance.
        b.rng = np.random.default_rng(seed)
        twin = copy.deepcopy(looks)
        twin.rng = b.rng
        x = -half[0] + bay * length
        for side in (-1, 1):
            middle = x + length * b.rng.uniform(0.3, 0.7)
            hang(
                b,
                twin,
                str(b.rng.choice(['door', 'poster', 'window'])),
                (1, -side * width, side),
                middle,
                0.9,
                (0.9, 1.1),
            )
            make = (furniture.shelf, furniture.plant, furniture.cabinet)[int(b.rng.integers(3))]
            place = np.array([x + length * b.rng.uniform(0.15, 0.85), -side * (width - 0.35), 0.0])
            make(b, twin, place, side * np.pi / 2)
            focus.append(place + np.array([0, 0, 0.8]))
    b.rng = before
    overhead = np.array([[-half[0] + (bay + 0.5) * length, 0.0, height - 0.1] for bay in range(bays)])
    power = np.full((bays, 3), 2.2)
    # Lamps light only their own bay and the next ones; equal ambient light keeps the bays alike.
    lights = Lights(overhead, power, np.array([0, 0, 1.0]), np.zeros(3), np.array([[0.25] * 3, [0.4] * 3]))
    walkway = np.array([[-half[0] + 1.0, 0, 0], [half[0] - 1.0, 0, 0]])
    free = np.array([[-half[0] + 0.5, -width + 0.8, 0.6], [half[0] - 0.5, width - 0.8, height - 0.4]])
    return b.build(lights, free, walkway, focus, period=(length, 0.0, 0.0))


def planar(b: Builder, p: Palette) -> SyntheticWorld:
    """A flat floor under a low camera: nearly all that is seen lies in one plane."""
    rng = b.rng
    ground = floor_material(b, p)
    b.add(BOX, b.object('ground'), (0, 0, -0.5), (40, 40, 0.5), ground)
    focus = []
    for _ in range(round(rng.integers(12, 25) * b.options.clutter)):
        half = rng.uniform(0.15, 0.7, 2)
        flat = furniture.picture(
            b, p, str(rng.choice(['poster', 'carpet', 'glyphs', 'picture', 'screen'])), tuple(2 * half)
        )
        place = np.array([*rng.uniform(-3.5, 3.5, 2), 0.003])
        b.add(
            BOX,
            b.object('sheet'),
            place,
            (*half, 0.002 + 1e-3 * rng.random()),
            flat,
            furniture.rotation_z(rng.uniform(0, 6.3)),
        )
        focus.append(place)
    sun = np.array([rng.normal(), rng.normal(), 2.0])
    lights = Lights(
        np.zeros((0, 3)),
        np.zeros((0, 3)),
        sun / np.linalg.norm(sun),
        np.full(3, 0.7),
        np.array([[0.3] * 3, [0.5] * 3]),
        np.array([[0.5, 0.6, 0.7], [0.2, 0.35, 0.7], [0.9, 0.9, 0.9]]),
    )
    walkway = np.array([[-3.0, -3, 0], [3, -3, 0], [3, 3, 0], [-3, 3, 0]])
    return b.build(lights, [[-3.5, -3.5, 0.8], [3.5, 3.5, 2.5]], walkway, [*focus, np.zeros(3)], closed=True)
