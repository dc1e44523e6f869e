"""How keypoint tracks are chosen, looked for and given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackerConfig:
    """max_tracks: most tracks in an image, 0 = none. min_score: visibility x confidence by the network below which, for
    ``patience`` windows in a row, a track ends; also the images for which a corner without its picture is believed.

    unique: ids begin where no earlier run and no earlier epoch can have had any.

    probation: images that a corner must hold before it is a track. spread: least distance of a new one from others, of
    what an even spread would have. roundness: of its picture, see patches.py. alike: least normalised correlation with
    the picture; again: the same for one that was not found in the image before. turned: how much a picture is warped
    before a new one is taken, of one with at least this confidence: trusted.

    Lengths in px at 518: slide: how far a point may be from its corner, fit: and from where the map has it, or
    ``usual`` times as far as most others are; apart: two tracks that come closer than this are one.
    """

    max_tracks: int = 256
    min_score: float = 0.2
    unique: bool = False
    patience: int = 2
    probation: int = 2
    spread: float = 0.5
    roundness: float = 0.1
    alike: float = 0.7
    again: float = 0.93
    turned: float = 0.2
    trusted: float = 0.7
    slide: float = 5.0
    fit: float = 3.0
    usual: float = 7.0
    apart: float = 8.0
