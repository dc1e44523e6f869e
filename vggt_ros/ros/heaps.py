"""The heaps of the node's process: what is free in them goes back to the system, where glibc alone would keep it."""

from __future__ import annotations

import ctypes
import gc

_LIBC = ctypes.CDLL(None)  # glibc has the two functions below, other C libraries have not
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LEAST, _MOST = 1 << 20, 32 << 20  # of M_MMAP_THRESHOLD; the upper one is glibc's own


class Heaps:
    """The two heaps that all threads use, and what else is asked of glibc. Nothing is done before ``share``."""

    def __init__(self) -> None:
        self._shared = False

    def share(self) -> None:
        """Let all threads use the same two heaps, before there are threads.

        glibc gives many threads heaps of their own, eight for each core. What one frees is no use to the others, and
        each comes to be as large as the largest thread ever was: a node that runs for hours or is configured again and
        again would hold some hundred MiB of nothing.
        """
        self._shared = True
        self._set(_M_ARENA_MAX, 2)
        self._set(_M_TRIM_THRESHOLD, 128 << 20)
        self.fit(0)

    def fit(self, image: int) -> None:
        """Blocks larger than an image of so many bytes are the system's: they come from it and go back to it at once.

        In a heap the gap that such a block leaves is never filled again when small things that live long lie on both
        sides and the next one is a little larger, as those of a growing map are. Images stay in the heaps, for the
        system clears what it gives: at 4K that takes as long as all else that is done to them.
        """
        if self._shared:
            self._set(_M_MMAP_THRESHOLD, min(max(_LEAST, image + image // 8), _MOST))

    def trim(self) -> None:
        """Give what is free in the heaps back to the system: tens of milliseconds, other threads run on.

        glibc itself gives back the end of a heap alone: a map that began anew, or a minute of larger images, would
        never be seen to have gone.
        """
        if malloc_trim := getattr(_LIBC, 'malloc_trim', None):
            malloc_trim(0)

    def collect(self) -> None:
        """Collect what only cycles hold, a network among it, and give what is free back to the system."""
        gc.collect()
        self.trim()

    @staticmethod
    def _set(name: int, value: int) -> None:
        if mallopt := getattr(_LIBC, 'mallopt', None):
            mallopt(name, value)


HEAPS = Heaps()  # of this process
