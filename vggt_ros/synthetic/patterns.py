"""Patterns that repeat seamlessly: each a function of chance that returns (m, n, d), (SIZE, SIZE) arrays in [0, 1]."""

from __future__ import annotations

import numpy as np

SIZE = 256


def grid() -> tuple[np.ndarray, np.ndarray]:
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


def step(value: np.ndarray, edge: float | np.ndarray, width: float) -> np.ndarray:
    """0 below ``edge``, 1 above, a ramp of ``width`` between."""
    return np.clip((value - edge) / width + 0.5, 0.0, 1.0)


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Nearest periodic lookup of a (SIZE, SIZE) image at x, y in units of the tile."""
    return image[(y * SIZE).astype(int) % SIZE, (x * SIZE).astype(int) % SIZE]


def plain(rng):
    """Painted plaster: almost nothing to see."""
    grain = value_noise(rng, (24, 24), 3)
    return 0.12 * value_noise(rng, (3, 3), 3), 0 * grain, 0.93 + 0.07 * grain


def plaster(rng):
    rough = value_noise(rng, (int(rng.integers(3, 9)),) * 2, 6, 0.65)
    return rough, step(value_noise(rng, (5, 5), 4), 0.72, 0.1) * 0.7, 0.6 + 0.4 * value_noise(rng, (32, 32), 3)


def clouds(rng):
    noise = value_noise(rng, (3, 3), 6, 0.5)
    return step(noise, 0.52, 0.35), step(noise, 0.75, 0.3), np.ones_like(noise)


def wood(rng):
    x, _ = grid()
    rings = int(rng.integers(3, 9))
    bend = value_noise(rng, (2, 2), 3, 0.4) * rng.uniform(0.8, 2.5)
    rings_value = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * x + bend))
    fibre = value_noise(rng, (48, 3), 3)
    return 0.75 * rings_value**2 + 0.25 * fibre, step(value_noise(rng, (6, 3), 3), 0.8, 0.1), 0.75 + 0.25 * fibre


def planks(rng):
    """Floorboards: each plank takes its own cut of one wood pattern and its own tone."""
    x, y = grid()
    rows, per_row = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    row = (y * rows).astype(int)
    offset = rng.random(rows)[row]
    along = x * per_row + offset
    plank = (along.astype(int) % per_row) + row * per_row
    tone = rng.random(rows * per_row)[plank]
    cut = wood(rng)[0].T
    grain = sample(cut, along + tone * 7, y * rows * 0.35 + tone * 3)
    edge_y = np.abs((y * rows) % 1 - 0.5) * 2
    edge_x = np.abs(along % 1 - 0.5) * 2
    gap = np.maximum(step(edge_y, 0.96, 0.04), step(edge_x, 1 - 0.012 * per_row, 0.01))
    return 0.5 * tone + 0.5 * grain, 0.25 * tone, (0.7 + 0.3 * grain) * (1 - 0.85 * gap)


def brick(rng):
    x, y = grid()
    rows, columns = 2 * int(rng.integers(3, 8)), int(rng.integers(2, 6))
    row = (y * rows).astype(int)
    along = x * columns + 0.5 * (row % 2)
    number = (along.astype(int) % columns) + row * columns
    tone = rng.random(rows * columns)[number]
    noise = value_noise(rng, (16, 16), 4)
    edge_y = np.minimum((y * rows) % 1, 1 - (y * rows) % 1) / rows
    edge_x = np.minimum(along % 1, 1 - along % 1) / columns
    mortar = 1 - step(np.minimum(edge_x, edge_y) + 0.004 * (noise - 0.5), 0.008, 0.006)
    return 0.7 * tone + 0.3 * noise, mortar, 0.65 + 0.35 * noise - 0.1 * mortar


def tiles(rng):
    x, y = grid()
    count = int(rng.integers(2, 9))
    tile = (x * count).astype(int) + (y * count).astype(int) * count
    tone = rng.random(count * count)[tile]
    fx, fy = (x * count) % 1, (y * count) % 1
    edge = np.minimum(np.minimum(fx, 1 - fx), np.minimum(fy, 1 - fy)) / count
    grout = 1 - step(edge, 0.006, 0.005)
    marble = value_noise(rng, (8, 8), 5)
    ornament = rng.random() < 0.5
    radius = np.hypot(fx - 0.5, fy - 0.5)
    motif = step(np.cos(radius * rng.uniform(12, 30)) * (1 if ornament else 0), 0.3, 0.2)
    return 0.5 * tone + 0.5 * marble, np.maximum(grout, 0.8 * motif), 0.85 + 0.15 * marble - 0.3 * grout


def checks(rng):
    x, y = grid()
    count = 2 * int(rng.integers(1, 6))
    parity = ((x * count).astype(int) + (y * count).astype(int)) % 2
    noise = value_noise(rng, (12, 12), 4)
    return np.clip(parity + 0.25 * (noise - 0.5), 0, 1), 0 * noise, 0.75 + 0.25 * noise


def stripes(rng):
    x, y = grid()
    turns = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1)][int(rng.integers(5))]
    count = int(rng.integers(2, 9))
    phase = (x * turns[0] + y * turns[1]) * count
    band = 2 * np.abs(phase % 1 - 0.5)
    fine = 2 * np.abs((phase * 3) % 1 - 0.5)
    weave = value_noise(rng, (64, 64), 2)
    return step(band, 0.5, 0.05), step(fine, 0.85, 0.1) * rng.random(), 0.8 + 0.2 * weave


def fabric(rng):
    x, y = grid()
    threads = int(rng.integers(24, 48))
    weave = 0.5 + 0.25 * (np.sin(2 * np.pi * threads * x) + np.sin(2 * np.pi * threads * y))
    blots = value_noise(rng, (6, 6), 3)
    plaid = sum(step(np.cos(2 * np.pi * (axis * int(rng.integers(1, 4)) + rng.random())), 0.6, 0.1) for axis in (x, y))
    return 0.5 * blots + 0.5 * step(blots, 0.5, 0.1), 0.5 * plaid, 0.7 + 0.3 * weave


def carpet(rng):
    """An oriental-ish rug: frames around a mirrored ornament; meant to be seen once."""
    x, y = grid()
    fx, fy = np.abs(x - 0.5) * 2, np.abs(y - 0.5) * 2
    edge = 1 - np.maximum(fx, fy)
    motif = value_noise(rng, (6, 6), 3)
    ornament = sample(motif, fx, fy) + sample(motif, fy * 0.7 + 0.2, fx * 0.7)
    frame = np.cos(edge * rng.uniform(60, 110)) * (edge < 0.28)
    pile = value_noise(rng, (64, 64), 2)
    return step(ornament, 1.0, 0.05), np.maximum(step(ornament, 1.3, 0.05), step(frame, 0.3, 0.2)), 0.7 + 0.3 * pile


def ground(rng):
    """Gravel, asphalt, grass: speckle on blots."""
    speckle = rng.random((SIZE, SIZE))
    fine = value_noise(rng, (64, 64), 2)
    blots = value_noise(rng, (4, 4), 6, 0.6)
    return 0.5 * blots + 0.5 * fine, step(speckle, 0.96, 0.05) * 0.8, 0.55 + 0.3 * fine + 0.15 * speckle


def marble(rng):
    x, y = grid()
    warp = value_noise(rng, (3, 3), 5)
    turns = int(rng.integers(1, 4))
    vein = 1 - np.abs(np.sin(np.pi * (turns * x + turns * y + 3 * warp)))
    return value_noise(rng, (4, 4), 5), vein**6, 0.85 + 0.15 * warp


def cobbles(rng):
    """Voronoi cells: paving stones, leaves, giraffe."""
    count = int(rng.integers(5, 12))
    centres, tones = rng.random((count, count, 2)), rng.random((count, count))
    x, y = grid()
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
    joint = 1 - step(second - first, 0.012, 0.012)
    return nearest, joint, 0.7 + 0.3 * value_noise(rng, (16, 16), 4)
