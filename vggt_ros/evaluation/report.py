"""What a measurement says: rows of a table, and pictures to go with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FIRST_SEED = 1000
"""The seeds that are reported; smaller ones are for trying things out."""
Progress = Callable[[Iterable], Iterable]
_TABLE = re.compile(r'^\|.*\n(?:\|.*\n?)+', re.MULTILINE)


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is measured."""

    seeds: int = 20  # runs of a row
    first_seed: int = FIRST_SEED  # of them
    frames: int = 10_000  # images of the long run
    data: Path | None = None  # a folder of real pictures with true poses and depth (files/folder.py), or None
    folders: tuple[Path, ...] = ()  # of real pictures with true poses
    progress: Progress = iter  # wraps what is iterated over (tqdm)

    def runs(self, count: int | None = None) -> Iterable[int]:
        """The seeds of ``count`` runs (default: ``seeds``)."""
        return self.progress(range(self.first_seed, self.first_seed + (self.seeds if count is None else count)))


@dataclass(frozen=True)
class Row:
    """One line: what was measured, the figure as text, the goal as text, and whether it was reached (None: no goal)."""

    test: str
    figure: str
    goal: str = ''
    reached: bool | None = None


@dataclass(frozen=True)
class Findings:
    """Rows, and pictures by their file name: functions that draw into a path."""

    rows: list[Row]
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def at_most(test: str, found: float, goal: float, form: str) -> Row:
    """A figure that should not exceed its goal; form: how both are written."""
    return Row(test, form.format(found), f'<= {form.format(goal)}', bool(found <= goal))


def median(values: Sequence[float] | np.ndarray) -> float:
    """Median as a plain number."""
    return float(np.median(values))


def median_and_worst(values: Sequence[float], form: str = '{:.3f}') -> str:
    """Both in words, the worst being the largest."""
    return f'{form.format(median(values))}, {form.format(max(values))}'


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ['| test | measured | goal | reached |', f'|{"---|" * 4}']
    for row in rows:
        reached = {True: 'yes', False: 'no', None: ''}[row.reached]
        lines.append(f'| {row.test} | {row.figure} | {row.goal} | {reached} |')
    return '\n'.join(lines) + '\n'


def put(new: str, path: Path) -> None:
    """Write a table into a Markdown file in place of its first table; what people wrote around it stays."""
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    written, found = _TABLE.subn(lambda _: new, text, count=1)
    path.write_text(written if found else text + new, encoding='utf-8')
