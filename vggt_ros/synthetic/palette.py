"""Colours that go together: linear RGB palettes drawn from a generator."""

from __future__ import annotations

import colorsys

import numpy as np

from vggt_ros.synthetic.textures import texture_id


def colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Linear RGB (3,) of display HSV in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 2.2


class Palette:
    """A world's taste: one base hue, a contrasting one, and how loud it is."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.base = rng.random()
        self.contrast = self.base + rng.choice([0.5, 0.35, 0.62, 0.12])
        self.loud = rng.uniform(0.35, 1.0)

    def wall(self) -> np.ndarray:
        """(3, 3) bright and quiet."""
        rng = self.rng
        saturation, value = rng.uniform(0.03, 0.4) * self.loud, rng.uniform(0.68, 0.93)
        hue = self.base + rng.normal(0, 0.03)
        return np.stack(
            [
                colour(hue, saturation, value),
                colour(hue + 0.03, saturation * 1.3, value * 0.8),
                colour(hue - 0.05, saturation * 0.6, min(value * 1.15, 0.97)),
            ]
        )

    def object(self) -> np.ndarray:
        """(3, 3) vivid."""
        rng = self.rng
        hue = rng.choice([self.base, self.contrast, rng.random()]) + rng.normal(0, 0.04)
        saturation, value = rng.uniform(0.3, 0.95) * (0.4 + 0.6 * self.loud), rng.uniform(0.3, 0.95)
        return np.stack(
            [
                colour(hue, saturation, value),
                colour(hue + rng.choice([0.0, 0.05, 0.5]), saturation * rng.uniform(0.3, 1), rng.uniform(0.2, 0.95)),
                colour(self.contrast + rng.normal(0, 0.1), rng.uniform(0, 0.9), rng.choice([0.12, 0.95])),
            ]
        )

    def wood(self) -> np.ndarray:
        """(3, 3) browns, from ebony to birch."""
        rng = self.rng
        hue, saturation, value = rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.75), rng.uniform(0.3, 0.85)
        return np.stack(
            [
                colour(hue, saturation, value),
                colour(hue - 0.01, min(saturation * 1.15, 1), value * 0.68),
                colour(hue, saturation, value * 0.45),
            ]
        )

    def stone(self) -> np.ndarray:
        """(3, 3) greys and sands."""
        rng = self.rng
        hue, saturation, value = rng.uniform(0.05, 0.65), rng.uniform(0.0, 0.2), rng.uniform(0.4, 0.85)
        return np.stack([colour(hue, saturation, value * factor) for factor in (1.0, rng.uniform(0.6, 0.85), 0.55)])

    def brick(self) -> np.ndarray:
        """(3, 3) fired clay, light mortar."""
        rng = self.rng
        hue, value = rng.uniform(0.0, 0.1), rng.uniform(0.4, 0.75)
        return np.stack(
            [colour(hue, 0.6, value), colour(hue + 0.02, 0.5, value * 0.7), colour(0.1, 0.1, rng.uniform(0.5, 0.8))]
        )

    def plant(self) -> np.ndarray:
        """(3, 3) leaves."""
        rng = self.rng
        hue, value = rng.uniform(0.2, 0.38), rng.uniform(0.3, 0.6)
        return np.stack([colour(hue, 0.7, value), colour(hue + 0.04, 0.6, value * 0.5), colour(hue - 0.06, 0.6, 0.7)])

    def lawn(self) -> np.ndarray:
        """(3, 3) grass, fresh to dry."""
        rng = self.rng
        hue, value = rng.uniform(0.15, 0.3), rng.uniform(0.5, 0.75)
        return np.stack([colour(hue, 0.6, value), colour(hue + 0.03, 0.6, value * 0.65), colour(hue - 0.05, 0.5, 0.85)])

    def metal(self) -> np.ndarray:
        """(3, 3) greys."""
        value = self.rng.uniform(0.25, 0.8)
        return np.stack([colour(0.6, 0.05, value * factor) for factor in (1.0, 0.85, 0.6)])

    def window(self) -> np.ndarray:
        """(3, 3) daylight behind panes."""
        return np.stack([colour(0.55, 0.3, 0.95), colour(0.58, 0.55, 0.85), colour(0.1, 0.05, 0.9)])

    def texture(self, *kinds: str) -> int:
        """A random variant of one of ``kinds``."""
        return texture_id(str(self.rng.choice(kinds)), int(self.rng.integers(1 << 16)))
