"""The training record: a CSV file with one row for every few steps, readable by any table program at any time."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from vggt_ros.training import state
from vggt_ros.training.hints import HINTS
from vggt_ros.training.metrics import FIGURES

_PARTS = {
    'camera': ('translation', 'rotation', 'fov'),
    'depth': ('error', 'gradient', 'confidence'),
    'point': ('error', 'gradient', 'confidence'),
    'track': ('position', 'visibility', 'confidence', 'matching'),
}


def columns(heads: Sequence[str]) -> list[str]:
    """Names of all columns: the run, the weighted parts of the loss, the figures of the validation."""
    parts = [f'{head}_{part}' for head, names in _PARTS.items() if head in heads for part in names]
    run = ['step', 'minutes', 'frames_per_second', 'learning_rate', 'gradient', 'loss']
    return [*run, *parts, *(f'hint_{name}' for name in HINTS), *(f'val_{name}' for name in FIGURES)]


class Log:
    """Rows are appended as they come; a resume cuts off those after its state. Raises StateError on a full disk."""

    def __init__(self, path: Path, heads: Sequence[str]) -> None:
        self.path, self.columns = path, columns(heads)

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns that it lacks stay empty."""
        text = self._text([{name: f'{value:.6g}' for name, value in row.items()}], header=not self.path.exists())
        with self._explaining():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open('a', newline='', encoding='utf-8') as file:
                file.write(text)

    def read(self) -> list[dict[str, str]]:
        """All rows; empty without a file."""
        if not self.path.exists():
            return []
        with self.path.open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))

    def cut(self, step: int) -> None:
        """Forget the rows of later steps, and one that a full disk cut short."""
        rows = [
            {name: row.get(name, '') for name in self.columns}
            for row in self.read()
            if None not in row.values() and float(row['step']) <= step
        ]
        with self._explaining():
            state.write(self.path, self._text(rows, header=True).encode())

    def _text(self, rows: Sequence[Mapping[str, str]], header: bool) -> str:
        text = io.StringIO(newline='')
        writer = csv.DictWriter(text, self.columns)
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise state.StateError(
                f'cannot write {self.path}: {error.strerror or error}; the last state is untouched. Make room and run '
                'again with --resume'
            ) from error
