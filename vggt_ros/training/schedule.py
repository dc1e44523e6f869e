"""Which set of clips each step shows, and when each set is made: a function of the configuration alone.

There are ``slots`` sets of clips, step t shows slot t % slots, and a slot's set is replaced after ``uses`` visits, a
different slot every time.
"""

from __future__ import annotations

from collections.abc import Iterator

from vggt_ros.training.config import DataConfig


def born(step: int, data: DataConfig) -> int:
    """The step at which the clips that step ``step`` shows were made."""
    slot, visit = step % data.slots, step // data.slots
    # Slot s is renewed at visits v with (v + s) % uses == 0, and of course at its first.
    renewed = max(0, visit - (visit + slot) % data.uses)
    return slot + data.slots * renewed


def births(first: int, data: DataConfig) -> Iterator[int]:
    """The numbers of the sets of clips that steps from ``first`` on want to be made, in order."""
    shown: dict[int, int] = {}
    step = first
    while True:
        number = born(step, data)
        if shown.get(step % data.slots) != number:
            shown[step % data.slots] = number
            yield number
        step += 1
