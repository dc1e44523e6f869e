"""The training record: a CSV file with one row for every few steps, readable by any table program at any time."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    return [*run, *parts, *(f'val_{name}' for name in FIGURES)]


class Log:
    """Rows are appended as they come; a resume cuts off those after its state."""

    def __init__(self, path: Path, heads: Sequence[str]) -> None:
        self.path, self.columns = path, columns(heads)

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns that it lacks stay empty."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        with self.path.open('a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, self.columns)
            if new:
                writer.writeheader()
            writer.writerow({name: f'{value:.6g}' for name, value in row.items()})

    def read(self) -> list[dict[str, str]]:
        """All rows; empty without a file."""
        if not self.path.exists():
            return []
        with self.path.open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))

    def cut(self, step: int) -> None:
        """Forget the rows of later steps."""
        rows = [row for row in self.read() if int(float(row['step'])) <= step]
        self.path.unlink(missing_ok=True)
        for row in rows:
            self.add({name: float(value) for name, value in row.items() if name in self.columns and value})
