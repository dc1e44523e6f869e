"""Procedural textures: a bank of small tiling patterns, the same on every machine.

A texture is no picture but a *pattern* of three channels in [0, 1]: ``m`` and ``n`` mix the three colours of a
material's palette, ``d`` shades the result:

    colour = lerp(lerp(palette[0], palette[1], m), palette[2], n) * (0.4 + 0.6 d)

so a bank of a few hundred patterns gives endless surfaces. Patterns repeat seamlessly, except those meant to be
seen once (posters, doors, windows).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from vggt_ros.synthetic import motifs, patterns
from vggt_ros.synthetic.patterns import SIZE

PATTERNS: dict[str, Callable] = {
    'plain': patterns.plain,
    'plaster': patterns.plaster,
    'clouds': patterns.clouds,
    'wood': patterns.wood,
    'planks': patterns.planks,
    'brick': patterns.brick,
    'tiles': patterns.tiles,
    'checks': patterns.checks,
    'stripes': patterns.stripes,
    'fabric': patterns.fabric,
    'carpet': patterns.carpet,
    'ground': patterns.ground,
    'marble': patterns.marble,
    'cobbles': patterns.cobbles,
    'glyphs': motifs.glyphs,
    'poster': motifs.poster,
    'picture': motifs.picture,
    'door': motifs.door,
    'window': motifs.window,
    'facade': motifs.facade,
    'books': motifs.books,
    'screen': motifs.screen,
}

VARIANTS = 12
_SEED = 20250311
KINDS = tuple(PATTERNS)
COUNT = len(KINDS) * VARIANTS
LEVELS = 7
"""Mip levels: 256, 128, ..., 4 texels."""
TEXELS = sum((SIZE >> level) ** 2 for level in range(LEVELS))
"""Texels of one texture with all its levels."""


def texture_id(kind: str, variant: int) -> int:
    """The bank index of a kind's variant (any non-negative integer, taken modulo VARIANTS)."""
    return KINDS.index(kind) * VARIANTS + variant % VARIANTS


@lru_cache(maxsize=COUNT)
def texture(index: int) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 pattern (m, n, d) of a bank index; row 0 is the top."""
    channels = PATTERNS[KINDS[index // VARIANTS]](np.random.default_rng((_SEED, index)))
    stacked = np.stack([np.broadcast_to(channel, (SIZE, SIZE)) for channel in channels], axis=-1)
    return np.round(np.clip(stacked, 0, 1) * 255).astype(np.uint8)


@lru_cache(maxsize=1)
def bank() -> np.ndarray:
    """(COUNT, texels, 3) uint8: all textures, each with its mip levels one after another, rows from the top."""
    levels = [np.stack([texture(index) for index in range(COUNT)])]
    while len(levels) < LEVELS:
        image = levels[-1].astype(np.uint16)
        total = image[:, ::2, ::2] + image[:, 1::2, ::2] + image[:, ::2, 1::2] + image[:, 1::2, 1::2]
        levels.append(((total + 2) // 4).astype(np.uint8))
    return np.concatenate([level.reshape(COUNT, -1, 3) for level in levels], axis=1)
