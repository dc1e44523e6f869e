"""What can be wrong with an input."""

from __future__ import annotations

import re


def in_a_line(error: BaseException) -> str:
    """What an error of a library says, the first line of it; its name where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


class SequenceError(ValueError):
    """An input that cannot be read; the message names the file, the place in it, and what was wanted, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r'\s*\n\s*', ' ', message).strip())  # of parsers that draw what they mean


class DamagedError(SequenceError):
    """Some pictures of an input cannot be used, while those before and after them can.

    count: how many.
    """

    def __init__(self, message: str, count: int = 1) -> None:
        super().__init__(message)
        self.count = count
