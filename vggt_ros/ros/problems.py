"""What went wrong, said once in the log and kept for the diagnostics."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar('T')

LOG_PERIODS = (5.0, 60.0)  # seconds between log lines about one kind of problem; doubled while it goes on, up to
FRESH = 10.0  # seconds for which a problem shows in the diagnostics as present


@dataclass
class _Problem:
    count: int = 0
    text: str = ''
    seen: float = -1e9
    logged: float = -1e9
    period: float = LOG_PERIODS[0]


class Problems:
    """Counts problems by kind, from any thread. Each kind is logged now and then, see ``LOG_PERIODS``."""

    def __init__(self, logger) -> None:
        self._logger = logger
        self._problems: dict[str, _Problem] = {}
        self._lock = threading.Lock()

    def report(self, kind: str, text: str) -> None:
        """Something of this kind happened; the text says what and what to do."""
        if count := self._due(kind, text):
            self._logger.warning(text + _times(count))

    def failed(self, text: str, error: BaseException) -> None:
        """Something that nobody understands: an error in the log, with its traceback."""
        if count := self._due('failure', text):
            where = ''.join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
            self._logger.error(f'{text}{_times(count)}\n{where}')

    def shield(self, what: str, callback: Callable[[T], None], is_over: Callable[[], bool]) -> Callable[[T], None]:
        """A callback that costs no more than its own message when that has something in it that nobody understands.

        is_over: whether the context has ended, under whatever the callback was about to do.
        """

        def shielded(message: T) -> None:
            try:
                callback(message)
            except Exception as error:  # noqa: BLE001 - any that a message from anywhere can make
                if is_over():
                    return
                self.failed(f'a message of {what} was passed over: {type(error).__name__}: {error}', error)

        return shielded

    def _due(self, kind: str, text: str) -> int:
        """Count it; how often it has happened when the log should say so, else 0."""
        now = time.monotonic()
        with self._lock:
            problem = self._problems.setdefault(kind, _Problem())
            if now - problem.seen > FRESH:
                problem.period = LOG_PERIODS[0]
            problem.count += 1
            problem.text, problem.seen = text, now
            if now - problem.logged < problem.period:
                return 0
            if problem.count > 1:
                problem.period = min(2 * problem.period, LOG_PERIODS[1])
            problem.logged = now
            return problem.count

    def present(self, but: str = '') -> list[str]:
        """The texts of what happened recently. but: a kind to leave out."""
        now = time.monotonic()
        with self._lock:
            return [
                problem.text for kind, problem in self._problems.items() if kind != but and now - problem.seen < FRESH
            ]

    def counts(self) -> dict[str, int]:
        """How often each kind has happened since the start."""
        with self._lock:
            return {kind: problem.count for kind, problem in self._problems.items()}


def _times(count: int) -> str:
    return '' if count == 1 else f' ({count} times so far, this or the like)'
