"""How keypoint tracks are chosen, looked for and given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrackerConfig:
    """How keypoints are chosen, looked for and given up. Lengths in px at 518."""

    max_tracks: int = 256  # most tracks in an image, 0 = none
    min_score: float = 0.2  # visibility x confidence by the network below which, window after window, a track ends
    unique: bool = False  # ids begin where no earlier run and no earlier epoch can have had any
    # windows in a row below min_score; also images for which a corner without its picture is believed
    patience: int = 2
    probation: int = 2  # images that a corner must hold before it is a track
    spread: float = 0.5  # least distance of a new track from others, of what an even spread would have
    roundness: float = 0.1  # least, of its picture, see patches.py
    alike: float = 0.7  # least normalised correlation with the picture
    again: float = 0.93  # the same for one that was not found in the image before
    turned: float = 0.2  # how much a picture is warped before a new one is taken
    trusted: float = 0.7  # least confidence of one whose picture is taken anew
    slide: float = 5.0  # how far a point may be from its corner
    fit: float = 3.0  # how far it may be from where the map has it
    usual: float = 7.0  # or so many times as far as most others are
    apart: float = 8.0  # two tracks that come closer than this are one
