"""Declared errors: whatever a message of somebody else does to decoders, OpenCV and NumPy becomes one of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

# What they raise on fields that are wrong in a way nobody looked for, or too large.
FAILURES = (
    ArithmeticError,
    AttributeError,
    BufferError,
    LookupError,
    MemoryError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    cv2.error,
    struct.error,
)


@contextmanager
def declared(error: type[ValueError], what: str) -> Iterator[None]:
    """Whatever fails inside is an ``error``, in one line. what: cannot be done, for people."""
    try:
        yield
    except error:
        raise
    except FAILURES as failure:
        words = ' '.join(str(failure).split())[:200]
        raise error(f'{what}: {type(failure).__name__} {words}'.rstrip()) from failure
