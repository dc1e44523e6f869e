"""Arrays that live as long as a map, apart from those of a moment."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

LEAST = 16 << 10  # bytes: less is not worth pages
MOST = 1 << 20  # bytes: glibc gives more pages of its own already


def lasting(array: np.ndarray) -> np.ndarray:
    """A copy in pages of its own, which go back to the system with the array; the array itself where that is so anyway.

    In a heap, what lives for minutes keeps what lay around it for a moment from ever being one piece again: each window
    then takes new memory for what it computes, and a map that has gone is still seen in the process's size.
    """
    if not LEAST <= array.nbytes < MOST or array.dtype.hasobject or isinstance(array.base, mmap.mmap):
        return array
    pages: np.ndarray = np.ndarray(array.shape, array.dtype, mmap.mmap(-1, array.nbytes))
    pages[...] = array
    return pages


class Lasting:
    """Arrays that become attributes of such an object are lasting ones. nbytes: of all of them together."""

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, lasting(value) if isinstance(value, np.ndarray) else value)
