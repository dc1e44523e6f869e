"""Worlds under the sky."""

from __future__ import annotations

import numpy as np

from vggt_ros.synthetic import furniture
from vggt_ros.synthetic.palette import Palette, colour
from vggt_ros.synthetic.world import BOX, CYLINDER, ELLIPSOID, Builder, Lights, SyntheticWorld


def _daylight(b: Builder) -> Lights:
    """Sun, sky and clouds: from noon to evening, clear to overcast."""
    rng = b.rng
    height, around, haze = rng.uniform(0.25, 1.3), rng.uniform(0, 2 * np.pi), rng.random()
    sun = np.array([np.cos(around) * np.cos(height), np.sin(around) * np.cos(height), np.sin(height)])
    warm = np.clip(1.2 - height, 0, 0.8)
    power = rng.uniform(1.2, 1.9) * (1 - 0.6 * haze)
    colour_sun = power * np.array([1.0, 1 - 0.25 * warm, 1 - 0.55 * warm])
    zenith = colour(0.58 + 0.04 * rng.random(), 0.75 * (1 - 0.7 * haze), rng.uniform(0.6, 0.9))
    horizon = colour(0.56 - 0.48 * (warm > 0.55), 0.15 + 0.3 * warm, 0.9)
    clouds = colour(0.08, 0.12 * warm, rng.uniform(0.85, 1.0))
    ambient = np.stack([0.3 * np.ones(3), (0.55 + 0.3 * haze) * (0.6 + 0.4 * zenith / zenith.max())])
    nothing = np.zeros((0, 3))
    return Lights(nothing, nothing, sun, colour_sun, ambient, np.stack([horizon, zenith, clouds]))


def _ground(b: Builder, p: Palette, kind: str, colours: np.ndarray, size: float) -> int:
    if b.options.bare:
        return b.material(p.texture('plain'), p.stone(), 8.0)
    return b.material(p.texture(kind), colours, size, variation=0.35)


def tree(b: Builder, p: Palette, position, yaw: float) -> int:
    """A tree with a crown of two or three balls."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'tree', position, yaw)
    trunk, radius = rng.uniform(1.5, 3.0), rng.uniform(0.12, 0.25)
    bark = b.material(p.texture('wood', 'plaster'), p.wood(), 0.8)
    leaves = b.material(p.texture('cobbles', 'ground'), p.plant(), rng.uniform(0.8, 1.4), variation=0.4)
    put(CYLINDER, (0, 0, trunk / 2 + 0.3), (radius, radius, trunk / 2 + 0.3), bark)
    for _ in range(int(rng.integers(2, 4))):
        half = rng.uniform(0.8, 1.6, 3)
        put(ELLIPSOID, (*rng.uniform(-0.6, 0.6, 2), trunk + 0.3 + half[2]), half, leaves)
    return put.identity


def car(b: Builder, p: Palette, position, yaw: float) -> int:
    """A car: body, cabin, four wheels."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'car', position, yaw)
    paint = b.material(p.texture('plain'), p.object(), 1.0, gloss=0.5, mirror=0.12 if b.options.mirrors else 0.0)
    windows = b.material(p.texture('window'), p.metal() * 0.25, (1.0, 0.7), gloss=0.5)
    front = b.material(p.texture('screen', 'glyphs'), p.metal(), (1.7, 0.9), (0.0, 0.0))
    rubber = b.material(p.texture('stripes'), p.metal() * 0.15, 0.4)
    put(BOX, (0, 0, 0.62), (2.1, 0.85, 0.33), [front, front, paint, paint, paint, paint])
    put(BOX, (-0.25 + rng.uniform(-0.2, 0.2), 0, 1.2), (1.15, 0.75, 0.28), [windows] * 4 + [paint, paint])
    sideways = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    for x in (-1.3, 1.3):
        for y in (-0.8, 0.8):
            put(CYLINDER, (x, y, 0.33), (0.33, 0.33, 0.1), rubber, sideways)
    return put.identity


def bench(b: Builder, p: Palette, position, yaw: float) -> int:
    """A bench."""
    put = furniture.ObjectBuilder(b, 'bench', position, yaw)
    boards = b.material(p.texture('planks'), p.wood(), 0.8)
    iron = b.material(p.texture('plain'), p.metal(), 1.0)
    put(BOX, (0, 0, 0.45), (0.22, 0.8, 0.03), boards)
    put(BOX, (-0.22, 0, 0.72), (0.03, 0.8, 0.18), boards)
    for y in (-0.65, 0.65):
        put(BOX, (0, y, 0.21), (0.2, 0.04, 0.21), iron)
    return put.identity


def post(b: Builder, p: Palette, position, yaw: float) -> int:
    """A street lamp, or a sign on a post."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'post', position, yaw)
    high, iron = rng.uniform(2.4, 4.0), b.material(p.texture('stripes', 'plain'), p.metal(), 0.5)
    put(CYLINDER, (0, 0, high / 2), (0.05, 0.05, high / 2), iron)
    if rng.random() < 0.5:
        put(ELLIPSOID, (0, 0, high), (0.2, 0.2, 0.2), b.material(p.texture('plain'), p.wall(), 1.0, emission=0.3))
    else:
        sign = furniture.picture(b, p, 'poster', (0.9, 0.7))
        put(BOX, (0, 0, high), (0.02, 0.45, 0.35), sign)
    return put.identity


def kiosk(b: Builder, p: Palette, position, yaw: float) -> int:
    """An advertising column or a booth."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'kiosk', position, yaw)
    if rng.random() < 0.5:
        skin = b.material(p.texture('poster', 'glyphs'), p.object(), (1.3, 1.6), variation=0.1)
        put(CYLINDER, (0, 0, 1.4), (0.6, 0.6, 1.4), skin)
        put(CYLINDER, (0, 0, 2.9), (0.7, 0.7, 0.12), b.material(p.texture('plain'), p.object(), 1.0))
    else:
        skin = b.material(p.texture('poster', 'window', 'screen'), p.object(), (1.4, 1.25))
        put(BOX, (0, 0, 1.25), (0.7, 0.9, 1.25), skin)
        put(BOX, (0, 0, 2.6), (0.9, 1.1, 0.1), b.material(p.texture('stripes'), p.object(), 0.5))
    return put.identity


def bed(b: Builder, p: Palette, position, yaw: float) -> int:
    """A flower bed or a clipped hedge."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'bed', position, yaw)
    if rng.random() < 0.5:
        radius = rng.uniform(0.6, 1.1)
        put(CYLINDER, (0, 0, 0.1), (radius, radius, 0.1), b.material(p.texture('brick', 'cobbles'), p.stone(), 0.5))
        flowers = np.stack([p.plant()[0], p.object()[0], p.object()[0]])
        soil = b.material(p.texture('ground', 'cobbles', 'plaster'), flowers, 0.5)
        put(ELLIPSOID, (0, 0, 0.2), (radius * 0.9, radius * 0.9, rng.uniform(0.1, 0.35)), soil)
    else:
        leaves = b.material(p.texture('ground', 'cobbles'), p.plant(), 0.7, variation=0.3)
        put(BOX, (0, 0, 0.4), (0.3, rng.uniform(0.8, 1.8), rng.uniform(0.3, 0.5)), leaves)
    return put.identity


def building(b: Builder, p: Palette, centre: np.ndarray, half: np.ndarray, height: float) -> int:
    """A building on the ground: facades, and a flat or gabled roof."""
    rng, put = b.rng, furniture.ObjectBuilder(b, 'building', (*centre, 0.0), 0.0)
    tile = rng.uniform(5, 9)
    if b.options.bare:
        facade = b.material(p.texture('plain'), p.wall(), 8.0)
    else:
        glassy = 0.55 if b.options.mirrors and rng.random() < 0.6 else 0.0
        colours = p.brick() if rng.random() < 0.4 else p.wall()
        colours[2] = colour(rng.uniform(0.5, 0.65), 0.4, rng.uniform(0.15, 0.6))
        facade = b.material(p.texture('facade'), colours, (tile, tile), variation=0.15, mirror=glassy)
    roof = b.material(p.texture('tiles', 'stripes', 'planks'), p.brick() * 0.7, 2.0)
    put(BOX, (0, 0, height / 2), (*half, height / 2), [facade] * 4 + [roof, roof])
    if rng.random() < 0.6 and not b.options.bare:  # shops on the ground floor
        colours = p.metal() if rng.random() < 0.5 else p.object()
        shops = b.material(p.texture('window', 'window', 'door', 'tiles'), colours, (rng.uniform(1.8, 3.5), 2.7))
        put(BOX, (0, 0, 1.35), (half[0] + 0.03, half[1] + 0.03, 1.35), [shops] * 4 + [roof, roof])
    if rng.random() < 0.5 and height < 12:
        # A cube on its edge, half sunk: a gable of 90 degrees over the shorter side.
        axis = int(half[1] < half[0])
        edge = half[axis] / np.sqrt(2)
        tilt = np.sqrt(0.5)
        R = np.array([[1, 0, 0], [0, tilt, -tilt], [0, tilt, tilt]])
        if axis == 0:
            R = np.array([[tilt, 0, tilt], [0, 1, 0], [-tilt, 0, tilt]])
        size = np.full(3, edge)
        size[1 - axis] = half[1 - axis] * 0.999
        put(BOX, (0, 0, height), size, roof, R)
    return put.identity


def _row(b: Builder, p: Palette, axis: int, at: float, side: int, span: tuple[float, float]) -> None:
    """Buildings side by side along a line; ``at``: where their fronts stand, ``side``: to which side they extend."""
    position = span[0]
    while position < span[1] - 2:
        width = min(b.rng.uniform(7, 14), span[1] - position)
        depth, height = b.rng.uniform(4, 7), b.rng.uniform(5, 15)
        centre, half = np.zeros(2), np.zeros(2)
        centre[axis], centre[1 - axis] = at + side * depth, position + width / 2
        half[axis], half[1 - axis] = depth, width / 2
        building(b, p, centre, half, height)
        position += width + (b.rng.uniform(1, 3) if b.rng.random() < 0.3 else 0)


def street(b: Builder, p: Palette) -> SyntheticWorld:
    """A road around a block of houses, houses on the far side, trees, cars, signs."""
    rng = b.rng
    block, road, pavement = np.array([rng.uniform(8, 14), rng.uniform(6, 10)]), rng.uniform(5.5, 7.5), 2.2
    asphalt = _ground(b, p, 'ground', p.stone() * 0.5, 3.0)
    b.add(BOX, b.object('ground'), (0, 0, -0.5), (250, 250, 0.5), asphalt)
    slabs = _ground(b, p, str(rng.choice(['tiles', 'cobbles'])), p.stone(), 1.6)
    inner = block + pavement
    b.add(BOX, b.object('pavement'), (0, 0, 0.05), (*inner, 0.05), slabs)
    lane, outer = inner + road / 2, inner + road
    for axis in (0, 1):
        for side in (-1, 1):
            centre, half = np.zeros(2), np.zeros(2)
            centre[axis], half[axis] = side * (outer[axis] + pavement / 2), pavement / 2
            half[1 - axis] = outer[1 - axis]
            b.add(BOX, b.object('pavement'), (*centre, 0.05), (*half, 0.05), slabs)
            reach = outer[1 - axis] + pavement
            _row(b, p, axis, side * (outer[axis] + pavement), side, (-reach, reach))
    for x in (-1, 1):
        building(b, p, np.array([x * block[0] / 2, 0.0]), np.array([block[0] / 2, block[1]]), rng.uniform(5, 13))
    stripe = b.material(p.texture('plain'), np.full((3, 3), 0.8), 1.0)
    for axis in (0, 1):
        for side in (-1, 1):
            for step in (-0.66, 0.0, 0.66):
                centre, half = np.zeros(2), np.array([0.08, 0.08])
                centre[axis], centre[1 - axis], half[1 - axis] = side * lane[axis], step * inner[1 - axis], 1.0
                b.add(BOX, b.object('marking'), (*centre, 0.004), (*half, 0.004), stripe)
    focus = [np.array([x * lane[0], y * lane[1], 2.0]) for x in (-1, 1) for y in (-1, 1)]
    makes = (tree, tree, post, post, bench, kiosk, furniture.plant, furniture.person, bed)
    for _ in range(round(16 * b.options.clutter)):
        axis, side, far = int(rng.integers(2)), int(rng.choice([-1, 1])), rng.random() < 0.5
        place = np.zeros(3)
        place[axis] = side * (outer[axis] + 0.7 if far else inner[axis] - 0.7)
        place[1 - axis], place[2] = rng.uniform(-1, 1) * inner[1 - axis], 0.1
        makes[int(rng.integers(len(makes)))](b, p, place, float(rng.choice([0, np.pi / 2])))
        focus.append(place + np.array([0, 0, 1.2]))
    for count in range(round(4 * b.options.clutter)):
        axis, side = count % 2, int(rng.choice([-1, 1]))
        place = np.zeros(3)
        place[axis], place[1 - axis] = side * (outer[axis] - 1.0), rng.uniform(-0.8, 0.8) * inner[1 - axis]
        car(b, p, place, 0.0 if axis == 1 else np.pi / 2)
    if b.options.moving:
        for side in (-1, 1):
            place = np.array([0.0, side * (lane[1] - 1.9), 0.0])
            b.move(car(b, p, place, 0.0), place, (inner[0] * 0.8, 0, 0), 0.0, 0.05, rng.uniform(0, 6.3))
    walkway = np.array([[-lane[0], -lane[1], 0], [lane[0], -lane[1], 0], [lane[0], lane[1], 0], [-lane[0], lane[1], 0]])
    free = np.array([[*(-outer), 1.0], [*outer, 4.0]])
    return b.build(_daylight(b), free, walkway, focus, closed=True)


def park(b: Builder, p: Palette) -> SyntheticWorld:
    """Lawn and paths, trees, a fountain, benches; houses in the distance."""
    rng = b.rng
    size = rng.uniform(10, 16)
    b.add(BOX, b.object('ground'), (0, 0, -0.5), (300, 300, 0.5), _ground(b, p, 'ground', p.lawn(), 2.5))
    gravel = _ground(b, p, str(rng.choice(['cobbles', 'ground', 'tiles'])), p.stone(), 1.8)
    ring = size * 0.5
    b.add(CYLINDER, b.object('path'), (0, 0, 0.005), (ring + 1.2, ring + 1.2, 0.01), gravel)
    lawn = _ground(b, p, 'ground', p.lawn(), 2.0)
    b.add(CYLINDER, b.object('lawn'), (0, 0, 0.02), (ring - 1.2, ring - 1.2, 0.02), lawn)
    basin = furniture.ObjectBuilder(b, 'fountain', (*rng.uniform(-1, 1, 2), 0.0), 0.0)
    stone = b.material(p.texture('marble', 'tiles', 'brick'), p.stone(), 0.9)
    radius = rng.uniform(0.9, 1.5)
    basin(CYLINDER, (0, 0, 0.25), (radius, radius, 0.25), stone)
    basin(CYLINDER, (0, 0, 0.26), (radius * 0.9, radius * 0.9, 0.25), b.material(p.texture('clouds'), p.window(), 0.8))
    basin(CYLINDER, (0, 0, 0.9), (0.15, 0.15, 0.9), stone)
    basin(ELLIPSOID, (0, 0, 1.9), (0.4, 0.4, 0.3), stone)
    focus, taken = [basin.origin + np.array([0, 0, 1.2])], [basin.origin[:2]]
    makes = (tree, tree, tree, bench, post, kiosk, bed, bed, furniture.ball, furniture.person)
    for _ in range(round(rng.integers(22, 32) * b.options.clutter)):
        xy = rng.uniform(-size, size, 2)
        if abs(np.hypot(*xy) - ring) < 1.6 or any(np.hypot(*(xy - other)) < 1.6 for other in taken):
            continue
        taken.append(xy)
        makes[int(rng.integers(len(makes)))](b, p, np.array([*xy, 0.0]), rng.uniform(0, 6.3))
        focus.append(np.array([*xy, 1.2]))
    for side in rng.permutation(4)[: int(rng.integers(2, 5))]:
        reach = rng.uniform(0.5, 1.0) * size
        _row(b, p, int(side) // 2, (1 if side % 2 else -1) * (size + 5), 1 if side % 2 else -1, (-reach, reach))
    if b.options.moving:
        for _ in range(3):
            angle = rng.uniform(0, 6.3)
            place = ring * 0.7 * np.array([np.cos(angle), np.sin(angle), 0.0])
            b.move(
                furniture.person(b, p, place, angle), (0.0, 0.0, 0.0), spin=rng.choice([-1, 1]) * rng.uniform(0.1, 0.25)
            )
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    walkway = np.stack([ring * np.cos(angles), ring * np.sin(angles), 0 * angles], axis=1)
    free = np.array([[-size, -size, 0.8], [size, size, 4.0]])
    return b.build(_daylight(b), free, walkway, focus, closed=True)
