"""What the network looks at next: the new frames, and the keyframes that hold the window in the map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe, covisibility, pose_distance
from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import Frame

COVISIBLE = 0.3  # share of common surface that makes an anchor useful


def plan(
    new: Sequence[Frame],
    keyframes: Sequence[Keyframe],
    latest: Keyframe | None,
    config: OdometryConfig,
    guests: Sequence[Keyframe] = (),
    companions: Sequence[Frame] = (),
) -> Window | None:
    """The window for these new frames, oldest first; None while there are too few frames to begin.

    keyframes: the map, in the order of time; latest: the frame published last. guests, companions: see :class:`Window`;
    they come along where there is room beside two anchors and a new frame, or the new frames that a map begins with.
    Raises ValueError without a new frame.
    """
    if not new:
        raise ValueError('a window needs at least one new frame')
    least, needed = config.gates.anchors, 1
    if latest is None:
        least, needed = 0, min(config.initial_frames, config.window)
    spare = config.window - least - needed
    companions = tuple(companions)[: max(0, spare)]
    guests = tuple(guests)[: max(0, spare - len(companions))]
    beside = len(guests) + len(companions)
    # The oldest stay out where there would be nothing left to compare with.
    new = tuple(new)[-(config.window - least - beside) :]
    extra = (*(guest.frame for guest in guests), *companions)
    anchors: list[Keyframe] = []
    if latest is None:
        if len(new) < needed:
            return None
    else:
        room = config.window - len(new) - beside
        known = [one for one in keyframes if not any(one is guest for guest in guests)]
        anchors = [latest, *choose(known, latest, room - 1)]
    frames = (*(anchor.frame for anchor in anchors), *new, *extra)
    # Keyframes hold the scale better than the frame published last, which hangs on them.
    first = 1 if len(anchors) > 1 else 0
    wanted = range(first, min(len(anchors), first + config.anchor_depths))
    rest = range(len(anchors), len(frames) - len(companions))
    return Window(frames, (*wanted, *rest), len(new), len(guests), len(companions))


def choose(
    keyframes: Sequence[Keyframe], view: Keyframe, room: int, recent: int = 3, spacing: float = 0.15
) -> list[Keyframe]:
    """The anchors of the next window: the ``recent`` latest keyframes, then covisible ones far apart from each other.

    keyframes: in the order of time. view: the frame published last. room: how many at most. Far apart, because the
    spread of the anchors is what holds rotation and scale; at least ``spacing`` (pose distance), because two
    neighbours err alike. Where too few are far apart the latest fill up.
    """
    others = [keyframe for keyframe in keyframes if keyframe is not view]
    if room <= 0 or not others:
        return []
    chosen = others[-min(recent, room) :][::-1]
    rest = others[: len(others) - len(chosen)]
    shares = covisibility(rest, view)
    useful = [keyframe for keyframe, share in zip(rest, shares, strict=True) if share >= COVISIBLE]
    while useful and len(chosen) < room:
        distances = np.array([min(pose_distance(one, other) for other in chosen) for one in useful])
        best = int(distances.argmax())
        if distances[best] < spacing:
            break
        chosen.append(useful.pop(best))
    for keyframe in reversed(rest):
        if len(chosen) >= room:
            break
        if not any(keyframe is one for one in chosen):
            chosen.append(keyframe)
    return chosen
