"""Whether the stamps of pictures can be times of a camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHORTEST, LONGEST = 1e-3, 30.0  # seconds between two pictures of a robot's camera


def note_of_pace(stamps: Sequence[int]) -> tuple[str, ...]:
    """A note where pictures with these stamps (nanoseconds, in order) come at no camera's pace; else empty."""
    if len(stamps) < 2:
        return ()
    step = float(np.median(np.diff(np.asarray(stamps, np.float64)))) / 1e9
    return () if SHORTEST <= step <= LONGEST else (f'pictures are {step:g} s apart: are their stamps right?',)
