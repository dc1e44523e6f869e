"""The odometry against exact truth, on simulated predictions and on the embedded network: a table and its pictures.

python -m vggt_ros.tools.evaluate                          # every row, 20 seeds
python -m vggt_ros.tools.evaluate --rows loop --seeds 5
python -m vggt_ros.tools.evaluate --output docs            # the table into docs/odometry.md, pictures beside it
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

from tqdm import tqdm

from vggt_ros.evaluation.report import Row, Settings, put
from vggt_ros.evaluation.rows import ROWS

TABLE = 'odometry.md'
_DATA = 'VGGT_ROS_TEST_DATA'


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write when asked to."""
    parser = argparse.ArgumentParser(
        prog='python -m vggt_ros.tools.evaluate', description='The odometry against exact truth, as a table.'
    )
    add = parser.add_argument
    add('--rows', nargs='+', choices=list(ROWS), default=list(ROWS), help='what to measure (all)')
    add('--seeds', type=int, default=20, help='seeds per row (20)')
    add('--frames', type=int, default=10_000, help='images of the long run (10000)')
    add(
        '--data',
        type=Path,
        metavar='DIR',
        help=f'pictures with intrinsics.yaml, poses.txt and depth/ for the recorded walk (default: hololens/ in the '
        f'folder that {_DATA} names)',
    )
    add('--output', type=Path, metavar='DIR', help=f'put the table into DIR/{TABLE} and the pictures beside it')
    given = parser.parse_args(arguments)
    if given.seeds < 1 or given.frames < 1:
        parser.error('--seeds and --frames must be at least 1')
    data = given.data
    if data is None and os.environ.get(_DATA):
        data = Path(os.environ[_DATA]) / 'hololens'
    if data is not None and not data.is_dir():
        parser.error(f'{data} is no folder')
    try:
        import evo  # noqa: F401
    except ImportError:
        print('error: the figures are computed by evo: pip install "vggt_ros[eval]"', file=sys.stderr)
        return 1
    rows: list[Row] = []
    for name in given.rows:
        progress = partial(tqdm, desc=name, leave=False, disable=not sys.stderr.isatty())
        started = time.monotonic()
        findings = ROWS[name](Settings(given.seeds, frames=given.frames, data=data, progress=progress))
        rows += findings.rows
        for row in findings.rows:
            print(f'{row.test}: {row.figure}{f" (goal {row.goal})" if row.goal else ""}', flush=True)
        print(f'[{name}: {time.monotonic() - started:.0f} s]', file=sys.stderr, flush=True)
        if given.output is not None:
            given.output.mkdir(parents=True, exist_ok=True)
            for file, draw in findings.pictures.items():
                draw(given.output / file)
    if given.output is not None:
        put(rows, given.output / TABLE)
    return 0


if __name__ == '__main__':
    sys.exit(main())
