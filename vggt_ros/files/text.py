"""Lists, tables and names, whatever program wrote them: byte order marks, line ends, commas or blanks, numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vggt_ros.files.errors import SequenceError


def read_text(path: Path) -> str:
    """UTF-8 with or without a byte order mark, or UTF-16 with one. Raises SequenceError naming the file."""
    try:
        data = path.read_bytes()
        return data.decode('utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise SequenceError(
            f'{path}: not a text file in UTF-8 (byte {error.start} is {data[error.start]:#04x})'
        ) from None
    except OSError as error:
        raise SequenceError(f'{path}: {error.strerror or error}') from error


def is_there(named: Path) -> bool:
    """Whether a file that a text names is there; a name may be longer than the system has any."""
    try:
        return named.is_file()
    except OSError:
        return False


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without blanks around it) of a list; empty lines and comments (#) are left out."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if line and not line.startswith('#'):
            yield number, line


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number from 1, words) of a table whose columns are parted by blanks or commas."""
    for number, line in lines(path):
        yield number, line.replace(',', ' ').split()


def first_numbers(path: Path, count: int) -> list[float]:
    """The first row of a table that has so many numbers, or more. Raises SequenceError."""
    for _, _, values in numbers(path, count):
        return values
    raise SequenceError(f'{path}: there are no numbers in it')


def numbers(path: Path, count: int) -> Iterator[tuple[int, list[str], list[float]]]:
    """(line number, words, the same as numbers) of a table with so many columns, or more. Raises SequenceError."""
    for number, words in rows(path):
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise SequenceError(f'{path}:{number}: {error}') from None
        if len(values) < count:
            raise SequenceError(f'{path}:{number}: {len(values)} numbers instead of {count}')
        yield number, words, values


def natural(stem: str) -> list[tuple[float, str]]:
    """Sort key of a name without its suffix: numbers count by their value, each piece is (number, '') or (-1, text)."""
    return [(float(x), '') if x.isdecimal() else (-1.0, x) for x in re.split(r'(\d+)', stem) if x]
