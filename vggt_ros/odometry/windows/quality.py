"""Is a window to be believed? WindowGates on how well its anchors agree, and whether its new frames hang on to them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from vggt_ros.odometry.config import WindowGates
from vggt_ros.odometry.keyframe import Keyframe, covisibility
from vggt_ros.odometry.windows.alignment import Alignment

GROSS = 4.0  # how far beyond its bounds the scatter of the anchors shows that the window has nothing to do with them


class Quality(IntEnum):
    """What is done with a window."""

    GOOD = 0
    DEGRADED = 1  # used, said, and its covariance grows
    REJECT = 2


def assess(
    alignment: Alignment, anchors: int, depth: float, gates: WindowGates, turn: float | None = None
) -> tuple[Quality, tuple[str, ...]]:
    """The quality of an aligned window, and what is wrong with it.

    anchors: how many were compared. depth: median depth of the map there, map units. turn: disagreement with the
    tracked corners about the newest rotation, rad, where it is known.
    """
    reasons = []
    if alignment.translation_spread > gates.translation * depth:
        reasons.append(f'the anchors scatter by {alignment.translation_spread / depth:.1%} of the depth')
    if alignment.rotation_spread > gates.rotation:
        reasons.append(f'the anchors are turned against each other by {np.degrees(alignment.rotation_spread):.1f} deg')
    if alignment.scale_sigma > gates.scale:
        reasons.append(f'the scale is uncertain by {alignment.scale_sigma:.1%}')
    if alignment.inliers < gates.inliers:
        reasons.append(f'only {alignment.inliers:.0%} of the depth agrees with the map')
    if turn is not None and turn > gates.turn:
        reasons.append(f'the tracked corners say that the camera turned {np.degrees(turn):.1f} deg elsewhere')
    if anchors < gates.anchors:
        reasons.append(f'only {anchors} anchor can be compared with the map')
        return Quality.REJECT, tuple(reasons)
    far = alignment.translation_spread > GROSS * gates.translation * depth
    if len(reasons) >= gates.rejected or (far and alignment.rotation_spread > GROSS * gates.rotation):
        return Quality.REJECT, tuple(reasons)
    return (Quality.DEGRADED if reasons else Quality.GOOD), tuple(reasons)


def linked(
    placed: Sequence[Keyframe], new: Sequence[Keyframe], least: float, seen: np.ndarray | None = None
) -> list[bool]:
    """For each new frame whether it shares surface with a placed frame, or with a new one that does.

    The network places frames that have nothing in common with the others somewhere, often with confidence. What it
    says of them is consistent in itself only: their surfaces are not where the others see theirs. seen: (N,) bool, new
    frames that are tied by what was tracked.
    """
    tied = np.zeros(len(new), bool) if seen is None else seen.copy()
    reached = [*placed, *(one for one, known in zip(new, tied, strict=True) if known)]
    while reached and not tied.all():
        loose = [number for number, one in enumerate(tied) if not one]
        frames = [new[number] for number in loose]
        share = np.zeros(len(frames))
        for view in reached:
            share = np.maximum(share, covisibility(frames, view))
        for row, frame in enumerate(frames):
            if share[row] < least:
                share[row] = covisibility(reached, frame).max()
        found = [number for number, one in zip(loose, share, strict=True) if one >= least]
        tied[found] = True
        reached = [new[number] for number in found]
    return tied.tolist()
