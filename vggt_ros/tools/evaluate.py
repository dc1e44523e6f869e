"""The odometry against exact truth, on simulated predictions and on the embedded network: a table and its pictures.

python -m vggt_ros.tools.evaluate                          # every row, 20 seeds
python -m vggt_ros.tools.evaluate --rows loop --seeds 5
python -m vggt_ros.tools.evaluate --real FOLDER ...         # real pictures with true poses alone, COLMAP beside
python -m vggt_ros.tools.evaluate --output docs/reports    # the table into odometry.md there, pictures beside it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, put
from vggt_ros.evaluation.report import table as as_table
from vggt_ros.evaluation.rows import ROWS
from vggt_ros.files.errors import SequenceError

TABLE, REAL = 'odometry.md', 'real.md'
_DATA = 'VGGT_ROS_TEST_DATA'


def command(tool: str, description: str, rows: Iterable[str], table: str, seeds: int) -> argparse.ArgumentParser:
    """The options that every table has. seeds: per row, unless said."""
    parser = argparse.ArgumentParser(prog=f'python -m vggt_ros.tools.{tool}', description=description)
    add = parser.add_argument
    add('--rows', nargs='+', choices=list(rows), default=list(rows), help='what to measure (all)')
    add('--seeds', type=int, default=seeds, help=f'seeds per row ({seeds})')
    add('--output', type=Path, metavar='DIR', help=f'put the table into DIR/{table} and the pictures beside it')
    return parser


def measure(
    measurements: Mapping[str, Callable[[EvaluationSettings], Findings]],
    names: Iterable[str],
    settings: EvaluationSettings,
    output: Path | None,
    table: str,
) -> int:
    """Measure what is named, print it, and write the table and the pictures into a folder; the exit status."""
    try:
        import evo  # noqa: F401
    except ImportError:
        print('error: the figures are computed by evo: pip install evo', file=sys.stderr)
        return 1
    rows: list[Row] = []
    for name in names:
        progress = partial(tqdm, desc=name, leave=False, disable=not sys.stderr.isatty())
        started = time.monotonic()
        findings = measurements[name](replace(settings, progress=progress))
        rows += findings.rows
        for row in findings.rows:
            print(f'{row.test}: {row.figure}{f" (goal {row.goal})" if row.goal else ""}', flush=True)
        print(f'[{name}: {time.monotonic() - started:.0f} s]', file=sys.stderr, flush=True)
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            for file, draw in findings.pictures.items():
                draw(output / file)
    if output is not None:
        put(as_table(rows), output / table)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write when asked to."""
    parser = command('evaluate', 'The odometry against exact truth, as a table.', ROWS, TABLE, 20)
    add = parser.add_argument
    add('--frames', type=int, default=10_000, help='images of the long run (10000)')
    add(
        '--data',
        type=Path,
        metavar='DIR',
        help=f'a folder or dataset with calibration, poses and depth for the recorded walk (default: hololens/ in the '
        f'folder that {_DATA} names)',
    )
    add(
        '--real',
        nargs='+',
        type=Path,
        default=[],
        metavar='FOLDER',
        help='folders or datasets with calibration and poses',
    )
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.frames < 1:
        parser.error('--seeds and --frames must be at least 1')
    data = given.data
    if data is None and os.environ.get(_DATA):
        data = Path(os.environ[_DATA]) / 'hololens'
    if data is not None and not data.is_dir():
        parser.error(f'{data} is no folder')
    settings = EvaluationSettings(given.seeds, frames=given.frames, data=data, folders=tuple(given.real))
    try:
        if given.real:
            return measure(ROWS, ['folders'], settings, given.output, REAL)
        return measure(ROWS, given.rows, settings, given.output, TABLE)
    except (SequenceError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
