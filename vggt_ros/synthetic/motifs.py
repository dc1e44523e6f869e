"""Patterns that are seen once: writing, posters, doors, windows, books, screens; made as those of patterns.py are."""

from __future__ import annotations

import numpy as np

from vggt_ros.synthetic.patterns import brick, grid, plaster, step, value_noise


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
    x, y = grid()
    return raster[(y * raster.shape[0]).astype(int), (x * raster.shape[1]).astype(int)].astype(float)


def glyphs(rng):
    text = _glyph_image(rng, int(rng.integers(4, 12)), int(rng.integers(5, 14)), 0.7)
    paper = value_noise(rng, (6, 6), 4)
    return 0.3 * paper, text, 0.9 + 0.1 * paper


def poster(rng):
    """Flat shapes, a block of text and a border on a gradient."""
    x, y = grid()
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


def picture(rng):
    """A painted landscape or abstraction in a frame."""
    x, y = grid()
    horizon = rng.uniform(0.35, 0.65) + 0.25 * (value_noise(rng, (4, 1), 4) - 0.5)
    hills = rng.uniform(0.55, 0.8) + 0.3 * (value_noise(rng, (5, 1), 5) - 0.5)
    strokes = value_noise(rng, (12, 12), 4, 0.7)
    m = np.where(y > horizon, 0.9 - 0.5 * strokes, 0.25 * strokes)
    n = np.where(y > hills, 0.5 + 0.5 * strokes, 0.2 * step(strokes, 0.7, 0.2))
    sun = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.1, 0.4)) < 0.07
    m, n = np.where(sun, 1.0, m), np.where(sun, 0.5, n)
    frame = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) < 0.05
    return np.where(frame, 1.0, m), np.where(frame, 0.0, n), np.where(frame, 0.3, 0.6 + 0.4 * strokes)


def door(rng):
    x, y = grid()
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


def window(rng):
    """Panes in a frame: m = glass with a bit of sky, n = frame."""
    x, y = grid()
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    fx, fy = (x * columns) % 1, (y * rows) % 1
    edge = np.minimum(np.minimum(fx, 1 - fx) / columns, np.minimum(fy, 1 - fy) / rows)
    frame = 1 - step(edge, 0.035, 0.01)
    sky = value_noise(rng, (3, 2), 5)
    return np.clip(1 - y + 0.4 * (sky - 0.5), 0, 1), frame, np.ones_like(x) - 0.15 * frame


def facade(rng):
    """A storey of windows in a wall, repeated over a building."""
    x, y = grid()
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    wide, tall = rng.uniform(0.25, 0.42), rng.uniform(0.25, 0.4)
    fx, fy = np.abs((x * columns) % 1 - 0.5), np.abs((y * rows) % 1 - 0.5)
    pane = (fx < wide) & (fy < tall)
    frame = (fx < wide + 0.05) & (fy < tall + 0.05) & ~pane
    cross = pane & ((fx < 0.02) | (fy < 0.02))
    wall = brick(rng) if rng.random() < 0.5 else plaster(rng)
    room = (x * columns).astype(int) + (y * rows).astype(int) * columns
    lit = rng.random(columns * rows)[room]
    m = np.where(pane, 0.3 * lit, 0.35 * wall[0])
    n = np.where(pane, 0.8 + 0.2 * lit, np.where(frame | cross, 0.0, 0.15 * wall[1]))
    return np.where(cross, 0.0, m), np.where(cross, 0.0, n), np.where(pane, 0.3 + 0.4 * lit + 0.2 * (1 - y), wall[2])


def books(rng):
    """Book spines on a shelf, side by side."""
    x, y = grid()
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


def screen(rng):
    """Something technical: panels, graphs, lines of text."""
    x, y = grid()
    m, n, d = np.zeros_like(x), np.zeros_like(x), np.full_like(x, 0.35)
    for _ in range(int(rng.integers(4, 8))):
        left, top = rng.uniform(0.03, 0.7), rng.uniform(0.03, 0.7)
        right, bottom = left + rng.uniform(0.15, 0.35), top + rng.uniform(0.12, 0.3)
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        m, n = np.where(inside, rng.random(), m), np.where(inside, rng.integers(0, 2), n)
        d = np.where(inside, rng.uniform(0.6, 1.0), d)
    text = _glyph_image(rng, 18, 22, 0.3)
    return np.where(text > 0, 1 - m, m), n, np.where(text > 0, 1.0, d)
