"""How many frames the network sees at once: as configured, fewer while the device has no memory for so many."""

from __future__ import annotations

LEAST = 3  # frames: two anchors and a new one
PATIENCE = 50  # windows that must go well before more is tried
MOST_PATIENCE = 1600  # likewise, however often it failed


class WindowSize:
    """Halved when a window does not fit; doubled, up to what is configured, when ``PATIENCE`` windows have gone well.

    A window that does not fit before so many have gone well since the last change has met the same limit again: the
    patience doubles, up to ``MOST_PATIENCE``. After a longer quiet it is ``PATIENCE`` again.
    """

    def __init__(self, configured: int) -> None:
        self.frames = configured
        self._configured = configured
        self._patience = self._well = PATIENCE

    def fitted(self) -> None:
        """A window went well."""
        self._well += 1
        if self._well >= self._patience and self.frames < self._configured:
            self.frames = min(2 * self.frames, self._configured)
            self._well = 0

    def too_large(self, frames: int) -> None:
        """A window of so many frames did not fit."""
        again = self._well < self._patience
        self._patience = min(2 * self._patience, MOST_PATIENCE) if again else PATIENCE
        self.frames = max(LEAST, min(frames, self.frames) // 2)
        self._well = 0
