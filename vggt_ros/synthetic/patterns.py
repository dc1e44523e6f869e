"""The patterns of the texture bank: each a function of chance that returns (m, n, d), (SIZE, SIZE) arrays in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

SIZE = 256


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of the texel centres in [0, 1), each (SIZE, SIZE); y grows downwards with the rows."""
    axis = (np.arange(SIZE) + 0.5) / SIZE
    return np.meshgrid(axis, axis)


def _interpolation(cells: int) -> np.ndarray:
    """(SIZE, cells) periodic smoothstep interpolation from ``cells`` lattice points."""
    position = (np.arange(SIZE) + 0.5) / SIZE * cells
    low = position.astype(int)
    weight = position - low
    weight = weight * weight * (3 - 2 * weight)
    matrix = np.zeros((SIZE, cells))
    rows = np.arange(SIZE)
    matrix[rows, low % cells] += 1 - weight
    matrix[rows, (low + 1) % cells] += weight
    return matrix


def value_noise(rng: np.random.Generator, cells: tuple[int, int] = (4, 4), octaves: int = 5, gain: float = 0.55):
    """Periodic multi-octave value noise (SIZE, SIZE), stretched to [0, 1]. cells: lattice points in x, y."""
    total = np.zeros((SIZE, SIZE))
    amplitude = 1.0
    for octave in range(octaves):
        nx, ny = (min(count << octave, SIZE) for count in cells)
        total += amplitude * (_interpolation(ny) @ rng.random((ny, nx)) @ _interpolation(nx).T)
        amplitude *= gain
    return (total - total.min()) / np.ptp(total)


def _step(value: np.ndarray, edge: float | np.ndarray, width: float) -> np.ndarray:
    """0 below ``edge``, 1 above, a ramp of ``width`` between."""
    return np.clip((value - edge) / width + 0.5, 0.0, 1.0)


def _sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nearest periodic lookup of a (SIZE, SIZE) image at x, y in units of the tile."""
    return image[(y * SIZE).astype(int) % SIZE, (x * SIZE).astype(int) % SIZE]


def _plain(rng):
    """Painted plaster: almost nothing to see."""
    grain = value_noise(rng, (24, 24), 3)
    return 0.12 * value_noise(rng, (3, 3), 3), 0 * grain, 0.93 + 0.07 * grain


def _plaster(rng):
    rough = value_noise(rng, (int(rng.integers(3, 9)),) * 2, 6, 0.65)
    return rough, _step(value_noise(rng, (5, 5), 4), 0.72, 0.1) * 0.7, 0.6 + 0.4 * value_noise(rng, (32, 32), 3)


def _clouds(rng):
    noise = value_noise(rng, (3, 3), 6, 0.5)
    return _step(noise, 0.52, 0.35), _step(noise, 0.75, 0.3), np.ones_like(noise)


def _wood(rng):
    x, _ = _grid()
    rings = int(rng.integers(3, 9))
    bend = value_noise(rng, (2, 2), 3, 0.4) * rng.uniform(0.8, 2.5)
    rings_value = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * x + bend))
    fibre = value_noise(rng, (48, 3), 3)
    return 0.75 * rings_value**2 + 0.25 * fibre, _step(value_noise(rng, (6, 3), 3), 0.8, 0.1), 0.75 + 0.25 * fibre


def _planks(rng):
    """Floorboards: each plank takes its own cut of one wood pattern and its own tone."""
    x, y = _grid()
    rows, per_row = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    row = (y * rows).astype(int)
    offset = rng.random(rows)[row]
    along = x * per_row + offset
    plank = (along.astype(int) % per_row) + row * per_row
    tone = rng.random(rows * per_row)[plank]
    wood = _wood(rng)[0].T
    grain = _sample(wood, along + tone * 7, y * rows * 0.35 + tone * 3)
    edge_y = np.abs((y * rows) % 1 - 0.5) * 2
    edge_x = np.abs(along % 1 - 0.5) * 2
    gap = np.maximum(_step(edge_y, 0.96, 0.04), _step(edge_x, 1 - 0.012 * per_row, 0.01))
    return 0.5 * tone + 0.5 * grain, 0.25 * tone, (0.7 + 0.3 * grain) * (1 - 0.85 * gap)


def _brick(rng):
    x, y = _grid()
    rows, columns = 2 * int(rng.integers(3, 8)), int(rng.integers(2, 6))
    row = (y * rows).astype(int)
    along = x * columns + 0.5 * (row % 2)
    brick = (along.astype(int) % columns) + row * columns
    tone = rng.random(rows * columns)[brick]
    noise = value_noise(rng, (16, 16), 4)
    edge_y = np.minimum((y * rows) % 1, 1 - (y * rows) % 1) / rows
    edge_x = np.minimum(along % 1, 1 - along % 1) / columns
    mortar = 1 - _step(np.minimum(edge_x, edge_y) + 0.004 * (noise - 0.5), 0.008, 0.006)
    return 0.7 * tone + 0.3 * noise, mortar, 0.65 + 0.35 * noise - 0.1 * mortar


def _tiles(rng):
    x, y = _grid()
    count = int(rng.integers(2, 9))
    tile = (x * count).astype(int) + (y * count).astype(int) * count
    tone = rng.random(count * count)[tile]
    fx, fy = (x * count) % 1, (y * count) % 1
    edge = np.minimum(np.minimum(fx, 1 - fx), np.minimum(fy, 1 - fy)) / count
    grout = 1 - _step(edge, 0.006, 0.005)
    marble = value_noise(rng, (8, 8), 5)
    ornament = rng.random() < 0.5
    radius = np.hypot(fx - 0.5, fy - 0.5)
    motif = _step(np.cos(radius * rng.uniform(12, 30)) * (1 if ornament else 0), 0.3, 0.2)
    return 0.5 * tone + 0.5 * marble, np.maximum(grout, 0.8 * motif), 0.85 + 0.15 * marble - 0.3 * grout


def _checks(rng):
    x, y = _grid()
    count = 2 * int(rng.integers(1, 6))
    parity = ((x * count).astype(int) + (y * count).astype(int)) % 2
    noise = value_noise(rng, (12, 12), 4)
    return np.clip(parity + 0.25 * (noise - 0.5), 0, 1), 0 * noise, 0.75 + 0.25 * noise


def _stripes(rng):
    x, y = _grid()
    turns = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)][int(rng.integers(5))]
    count = int(rng.integers(2, 9))
    phase = (x * turns[0] + y * turns[1]) * count
    band = 2 * np.abs(phase % 1 - 0.5)
    fine = 2 * np.abs((phase * 3) % 1 - 0.5)
    weave = value_noise(rng, (64, 64), 2)
    return _step(band, 0.5, 0.05), _step(fine, 0.85, 0.1) * rng.random(), 0.8 + 0.2 * weave


def _fabric(rng):
    x, y = _grid()
    threads = int(rng.integers(24, 48))
    weave = 0.5 + 0.25 * (np.sin(2 * np.pi * threads * x) + np.sin(2 * np.pi * threads * y))
    blots = value_noise(rng, (6, 6), 3)
    plaid = sum(_step(np.cos(2 * np.pi * (axis * int(rng.integers(1, 4)) + rng.random())), 0.6, 0.1) for axis in (x, y))
    return 0.5 * blots + 0.5 * _step(blots, 0.5, 0.1), 0.5 * plaid, 0.7 + 0.3 * weave


def _carpet(rng):
    """An oriental-ish rug: frames around a mirrored ornament; meant to be seen once."""
    x, y = _grid()
    fx, fy = np.abs(x - 0.5) * 2, np.abs(y - 0.5) * 2
    edge = 1 - np.maximum(fx, fy)
    motif = value_noise(rng, (6, 6), 3)
    ornament = _sample(motif, fx, fy) + _sample(motif, fy * 0.7 + 0.2, fx * 0.7)
    frame = np.cos(edge * rng.uniform(60, 110)) * (edge < 0.28)
    pile = value_noise(rng, (64, 64), 2)
    return _step(ornament, 1.0, 0.05), np.maximum(_step(ornament, 1.3, 0.05), _step(frame, 0.3, 0.2)), 0.7 + 0.3 * pile


def _ground(rng):
    """Gravel, asphalt, grass: speckle on blots."""
    speckle = rng.random((SIZE, SIZE))
    fine = value_noise(rng, (64, 64), 2)
    blots = value_noise(rng, (4, 4), 6, 0.6)
    return 0.5 * blots + 0.5 * fine, _step(speckle, 0.96, 0.05) * 0.8, 0.55 + 0.3 * fine + 0.15 * speckle


def _marble(rng):
    x, y = _grid()
    warp = value_noise(rng, (3, 3), 5)
    turns = int(rng.integers(1, 4))
    vein = 1 - np.abs(np.sin(np.pi * (turns * x + turns * y + 3 * warp)))
    return value_noise(rng, (4, 4), 5), vein**6, 0.85 + 0.15 * warp


def _cobbles(rng):
    """Voronoi cells: paving stones, leaves, giraffe."""
    count = int(rng.integers(5, 12))
    centres, tones = rng.random((count, count, 2)), rng.random((count, count))
    x, y = _grid()
    column, row = (x * count).astype(int), (y * count).astype(int)
    first, second, nearest = (np.full((SIZE, SIZE), 9.0) for _ in range(3))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):  # the nearest centre lies in one of the nine cells around
            cell = (row + dy) % count, (column + dx) % count
            cx, cy = (column + dx + centres[cell][..., 0]) / count, (row + dy + centres[cell][..., 1]) / count
            distance = np.hypot(x - cx, y - cy)
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            nearest = np.where(closer, tones[cell], nearest)
            first = np.minimum(first, distance)
    joint = 1 - _step(second - first, 0.012, 0.012)
    return nearest, joint, 0.7 + 0.3 * value_noise(rng, (16, 16), 4)


def _glyph_image(rng, rows: int, columns: int, fill: float) -> np.ndarray:
    """(SIZE, SIZE) in {0, 1}: lines of invented letters, each a stroke pattern on a 5 x 7 raster."""
    alphabet = rng.random((40, 7, 5)) < 0.28
    alphabet[:, :, 0] |= rng.random((40, 1)) < 0.6  # stems and bars make them look like letters
    alphabet[:, 0] |= rng.random((40, 1)) < 0.5
    alphabet[:, 3] |= rng.random((40, 1)) < 0.5
    alphabet[:, 6] |= rng.random((40, 1)) < 0.5
    raster = np.zeros((rows * 10, columns * 6), bool)
    for row in range(rows):
        length = columns if rng.random() < fill else int(rng.integers(1, columns + 1))
        for column in range(length):
            if rng.random() > 0.14:
                top, left = row * 10 + 1, column * 6
                raster[top : top + 7, left : left + 5] = alphabet[rng.integers(40)]
    x, y = _grid()
    return raster[(y * raster.shape[0]).astype(int), (x * raster.shape[1]).astype(int)].astype(float)


def _glyphs(rng):
    text = _glyph_image(rng, int(rng.integers(4, 12)), int(rng.integers(5, 14)), 0.7)
    paper = value_noise(rng, (6, 6), 4)
    return 0.3 * paper, text, 0.9 + 0.1 * paper


def _poster(rng):
    """Flat shapes, a block of text and a border on a gradient."""
    x, y = _grid()
    m = np.clip(x * rng.uniform(-0.6, 0.6) + y * rng.uniform(-0.6, 0.6) + 0.3, 0, 1)
    n = np.zeros_like(x)
    for _ in range(int(rng.integers(3, 9))):
        cx, cy, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.06, 0.3)
        angle = rng.uniform(0, np.pi)
        dx, dy = x - cx, y - cy
        rx, ry = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        shape = [
            np.hypot(dx, dy) < radius,
            np.abs(np.hypot(dx, dy) - radius) < 0.025,
            (np.abs(rx) < radius) & (np.abs(ry) < radius * 0.4),
            (np.abs(rx) + ry < radius) & (ry > -radius * 0.5),
        ][int(rng.integers(4))]
        m = np.where(shape, rng.random(), m)
        n = np.where(shape, rng.choice([0.0, 0.0, 0.6, 1.0]), n)
    top = rng.uniform(0.05, 0.7)
    text = _glyph_image(rng, int(rng.integers(6, 14)), int(rng.integers(8, 16)), 0.4)
    n = np.where((y > top) & (y < top + 0.25) & (text > 0), 1.0, n)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    m, n = (np.where(edge < 0.03, value, channel) for value, channel in ((1.0, m), (rng.integers(2), n)))
    return m, n, 0.92 + 0.08 * value_noise(rng, (16, 16), 3)


def _picture(rng):
    """A painted landscape or abstraction in a frame."""
    x, y = _grid()
    horizon = rng.uniform(0.35, 0.65) + 0.25 * (value_noise(rng, (4, 1), 4) - 0.5)
    hills = rng.uniform(0.55, 0.8) + 0.3 * (value_noise(rng, (5, 1), 5) - 0.5)
    strokes = value_noise(rng, (12, 12), 4, 0.7)
    m = np.where(y > horizon, 0.9 - 0.5 * strokes, 0.25 * strokes)
    n = np.where(y > hills, 0.5 + 0.5 * strokes, 0.2 * _step(strokes, 0.7, 0.2))
    sun = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.1, 0.4)) < 0.07
    m, n = np.where(sun, 1.0, m), np.where(sun, 0.5, n)
    frame = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) < 0.05
    return np.where(frame, 1.0, m), np.where(frame, 0.0, n), np.where(frame, 0.3, 0.6 + 0.4 * strokes)


def _door(rng):
    x, y = _grid()
    m = 0.3 * value_noise(rng, (32, 3), 3)
    d = 0.9 + 0 * x
    split = rng.uniform(0.35, 0.6)
    for low, high in ((0.07, split - 0.04), (split + 0.04, 0.94)):
        inside = (np.abs(x - 0.5) < 0.36) & (y > low) & (y < high)
        ring = inside & ~((np.abs(x - 0.5) < 0.33) & (y > low + 0.02) & (y < high - 0.02))
        m = np.where(inside, m + 0.25, m)
        d = np.where(ring, 0.35, d)
    n = (np.hypot((x - 0.91) * 0.45, y - 0.52) < 0.018).astype(float)
    return m, n, np.where(np.abs(x - 0.5) > 0.475, 0.4, d)


def _window(rng):
    """Panes in a frame: m = glass with a bit of sky, n = frame."""
    x, y = _grid()
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    fx, fy = (x * columns) % 1, (y * rows) % 1
    edge = np.minimum(np.minimum(fx, 1 - fx) / columns, np.minimum(fy, 1 - fy) / rows)
    frame = 1 - _step(edge, 0.035, 0.01)
    sky = value_noise(rng, (3, 2), 5)
    return np.clip(1 - y + 0.4 * (sky - 0.5), 0, 1), frame, np.ones_like(x) - 0.15 * frame


def _facade(rng):
    """A storey of windows in a wall, repeated over a building."""
    x, y = _grid()
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    wide, tall = rng.uniform(0.25, 0.42), rng.uniform(0.25, 0.4)
    fx, fy = np.abs((x * columns) % 1 - 0.5), np.abs((y * rows) % 1 - 0.5)
    pane = (fx < wide) & (fy < tall)
    frame = (fx < wide + 0.05) & (fy < tall + 0.05) & ~pane
    cross = pane & ((fx < 0.02) | (fy < 0.02))
    wall = _brick(rng) if rng.random() < 0.5 else _plaster(rng)
    room = (x * columns).astype(int) + (y * rows).astype(int) * columns
    lit = rng.random(columns * rows)[room]
    m = np.where(pane, 0.3 * lit, 0.35 * wall[0])
    n = np.where(pane, 0.8 + 0.2 * lit, np.where(frame | cross, 0.0, 0.15 * wall[1]))
    return np.where(cross, 0.0, m), np.where(cross, 0.0, n), np.where(pane, 0.3 + 0.4 * lit + 0.2 * (1 - y), wall[2])


def _books(rng):
    """Book spines on a shelf, side by side."""
    x, y = _grid()
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.4, 1.4, int(rng.integers(10, 22))))])
    edges /= edges[-1]
    book = np.searchsorted(edges, x, side='right') - 1
    count = len(edges) - 1
    across = (x - edges[book]) / (edges[book + 1] - edges[book])
    height = rng.uniform(0.65, 0.97, count)[book]
    title = np.abs(y - rng.uniform(0.35, 0.7, count)[book]) < rng.uniform(0.02, 0.12, count)[book]
    label = title & (np.abs(across - 0.5) < 0.3)
    visible = (1 - y) < height
    m = np.where(label, 1 - rng.random(count)[book], rng.random(count)[book])
    n = np.where(label, rng.random(count)[book], rng.integers(0, 2, count)[book] * 0.7)
    rounding = 0.5 + 0.5 * np.sqrt(np.clip(1 - (2 * across - 1) ** 2, 0, 1))
    return m, n, np.where(visible, rounding, 0.08)


def _screen(rng):
    """Something technical: panels, graphs, lines of text."""
    x, y = _grid()
    m, n, d = np.zeros_like(x), np.zeros_like(x), np.full_like(x, 0.35)
    for _ in range(int(rng.integers(4, 8))):
        left, top = rng.uniform(0.03, 0.7), rng.uniform(0.03, 0.7)
        right, bottom = left + rng.uniform(0.15, 0.35), top + rng.uniform(0.12, 0.3)
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        m, n = np.where(inside, rng.random(), m), np.where(inside, rng.integers(0, 2), n)
        d = np.where(inside, rng.uniform(0.6, 1.0), d)
    text = _glyph_image(rng, 18, 22, 0.3)
    return np.where(text > 0, 1 - m, m), n, np.where(text > 0, 1.0, d)


PATTERNS: dict[str, Callable] = {
    'plain': _plain,
    'plaster': _plaster,
    'clouds': _clouds,
    'wood': _wood,
    'planks': _planks,
    'brick': _brick,
    'tiles': _tiles,
    'checks': _checks,
    'stripes': _stripes,
    'fabric': _fabric,
    'carpet': _carpet,
    'ground': _ground,
    'marble': _marble,
    'cobbles': _cobbles,
    'glyphs': _glyphs,
    'poster': _poster,
    'picture': _picture,
    'door': _door,
    'window': _window,
    'facade': _facade,
    'books': _books,
    'screen': _screen,
}
