"""How corners and network are weighed against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vggt_ros.types import Accuracy

PATCHES = 0.1  # log, spread of depth about the points above which its errors are large patches, and few pixels count
LEAST_INDEPENDENT = 5.0  # of them, see RefineConfig


@dataclass(frozen=True)
class RefineConfig:
    """How corners and network are weighed against each other; standard deviations."""

    pixel: float = 0.6  # a point seen in a frame, px at 518
    rotation: float = float(np.radians(0.1))  # rad, least of the network's pose
    translation: float = 0.003  # share of the median depth, least of the network's pose
    frame: float = Accuracy.depth  # log of one frame's depth
    surface: float = Accuracy.surface  # log of a pixel's depth against its frame's
    independent: float = 60.0  # pixels of a frame that err independently: depth errs smoothly, more count no more
    step: float = 5.0  # frames are moved by at most so many standard deviations of the network's pose

    @classmethod
    def of(cls, accuracy: Accuracy) -> RefineConfig:
        """For a network of this accuracy; none is perfect."""
        return cls(frame=max(accuracy.depth, 0.005), surface=max(accuracy.surface, 0.01))

    def seen(self, spread: float) -> RefineConfig:
        """Depth counts as much as it has shown to be worth. spread: of its log about points by corners alone."""
        share = min(1.0, (PATCHES / max(spread, 1e-9)) ** 2)
        independent = max(LEAST_INDEPENDENT, self.independent * share)
        return replace(self, surface=max(self.surface, spread), independent=independent)
