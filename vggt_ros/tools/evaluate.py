"""The odometry against exact truth, on simulated predictions: a table.

python -m vggt_ros.tools.evaluate                          # every row, 20 seeds
python -m vggt_ros.tools.evaluate --rows loop --seeds 5
python -m vggt_ros.tools.evaluate --output DIR             # the table as DIR/odometry.md, too
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vggt_ros.evaluation.rows import ROWS, Row

_HEAD = ('test', 'measured', 'goal', 'reached')


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [f'| {" | ".join(_HEAD)} |', f'|{"---|" * len(_HEAD)}']
    for row in rows:
        reached = {True: 'yes', False: 'no', None: ''}[row.reached]
        lines.append(f'| {row.test} | {row.figure} | {row.goal} | {reached} |')
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write when asked to."""
    parser = argparse.ArgumentParser(
        prog='python -m vggt_ros.tools.evaluate', description='The odometry against exact truth, as a table.'
    )
    parser.add_argument('--rows', nargs='+', choices=list(ROWS), default=list(ROWS), help='what to measure (all)')
    parser.add_argument('--seeds', type=int, default=20, help='seeds per row (20)')
    parser.add_argument('--output', type=Path, metavar='DIR', help='write the table to DIR/odometry.md')
    settings = parser.parse_args(arguments)
    if settings.seeds < 1:
        parser.error('--seeds must be at least 1')
    try:
        import evo  # noqa: F401
    except ImportError:
        print('error: the figures are computed by evo: pip install "vggt_ros[eval]"', file=sys.stderr)
        return 1
    rows: list[Row] = []
    for name in settings.rows:
        found = ROWS[name](settings.seeds, partial(tqdm, desc=name, leave=False, disable=not sys.stderr.isatty()))
        rows += found
        for row in found:
            print(f'{row.test}: {row.figure} (goal {row.goal})', flush=True)
    if settings.output is not None:
        settings.output.mkdir(parents=True, exist_ok=True)
        (settings.output / 'odometry.md').write_text(table(rows) + '\n', encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
