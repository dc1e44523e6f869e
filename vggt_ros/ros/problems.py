"""What went wrong, said once in the log and kept for the diagnostics."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

LOG_PERIOD = 5.0  # seconds between log lines about one kind of problem
FRESH = 10.0  # seconds for which a problem shows in the diagnostics as present


@dataclass
class _Problem:
    count: int = 0
    text: str = ''
    seen: float = -1e9
    logged: float = -1e9


class Problems:
    """Counts problems by kind, from any thread. Each kind is logged at most every ``LOG_PERIOD`` seconds."""

    def __init__(self, logger) -> None:
        self._logger = logger
        self._problems: dict[str, _Problem] = {}
        self._lock = threading.Lock()

    def report(self, kind: str, text: str) -> None:
        """Something of this kind happened; the text says what and what to do."""
        now = time.monotonic()
        with self._lock:
            problem = self._problems.setdefault(kind, _Problem())
            problem.count += 1
            problem.text, problem.seen = text, now
            due = now - problem.logged >= LOG_PERIOD
            if due:
                problem.logged = now
            count = problem.count
        if due:
            self._logger.warning(text if count == 1 else f'{text} ({count} times so far)')

    def present(self) -> list[str]:
        """The texts of what happened recently."""
        now = time.monotonic()
        with self._lock:
            return [problem.text for problem in self._problems.values() if now - problem.seen < FRESH]

    def counts(self) -> dict[str, int]:
        """How often each kind has happened since the start."""
        with self._lock:
            return {kind: problem.count for kind, problem in self._problems.items()}
