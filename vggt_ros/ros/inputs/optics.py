"""What the pixels of a camera mean: as long as that stays, images belong to one map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vggt_ros.rectify import Rectifier

FOLLOWED = 0.0025
"""Share of the image's longest side by which pixels may move with their calibration while the map goes on: as for a
focal length that differs by 0.5 %, which a lens that focuses has. Each image still has its own calibration; the depth
that the map holds stays as right as it was."""


@dataclass(frozen=True, eq=False)
class Optics:
    """size: (width, height) of the images. frame_id: of the camera. rectifier: how they are undistorted, None: not."""

    size: tuple[int, int]
    frame_id: str
    rectifier: Rectifier | None

    def change_since(self, before: Optics) -> str:
        """In words what is different, from what to what; empty where the map of ``before`` can go on."""
        changes = []
        if self.frame_id != before.frame_id:
            changes.append(f'frame_id {before.frame_id!r} -> {self.frame_id!r}')
        if self.size != before.size:
            changes.append(f'image size {_size(before.size)} -> {_size(self.size)}')
        elif (self.rectifier is None) != (before.rectifier is None):
            changes.append(f'intrinsics {_source(before.rectifier)} -> {_source(self.rectifier)}')
        elif self.rectifier is not None and before.rectifier is not None:
            moved = self.rectifier.moved(before.rectifier)
            if moved > FOLLOWED * max(self.size):
                changes.append(_calibrations(before.rectifier, self.rectifier) or f'distortion, by {moved:.1f} px')
        return ', '.join(changes)


def _size(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'


def _source(rectifier: Rectifier | None) -> str:
    return 'predicted' if rectifier is None else f'of camera_info, fx {rectifier.K[0, 0]:.1f}'


def _calibrations(before: Rectifier, now: Rectifier) -> str:
    """What of the pinhole cameras differs visibly."""
    names = {'fx': (0, 0), 'fy': (1, 1), 'cx': (0, 2), 'cy': (1, 2)}
    pairs = {name: (before.K[place], now.K[place]) for name, place in names.items()}
    visible = {name: pair for name, pair in pairs.items() if not np.isclose(*pair, rtol=0, atol=0.05)}
    return ', '.join(f'{name} {old:.1f} -> {new:.1f}' for name, (old, new) in visible.items())
