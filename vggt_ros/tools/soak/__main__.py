"""The node left running among faults: what it says of each, when it is back at work, and whether it grows.

python -m vggt_ros.tools.soak                                     # defaults, a synthetic room, 30 minutes, no fault
python -m vggt_ros.tools.soak --minutes 60 --faults all --output docs/reports
python -m vggt_ros.tools.soak --minutes 5 --faults unplugged hang -p weights:=facebook/VGGT-1B -p device:=cuda

Node, camera and listeners are processes on a ROS graph of their own. The camera goes forth and back through its
pictures with stamps of now. Faults come one after the other, spread over the run; between them the node must be at
work.
Exit status: 0 when nothing is wrong; 1 when something is, or when it was interrupted, and the table is of what was done
by then; 2 when the input or an argument is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vggt_ros.evaluation.report import put
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.tools import demo
from vggt_ros.tools.processes import free_domain, private_environment

FRAMES = 60  # pictures of the synthetic input
TABLE, PICTURE = 'soak.md', 'soak.png'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge; the exit status."""
    from vggt_ros.tools.soak.catalogue import FAULTS  # needs a built workspace, as all that follows

    parser = argparse.ArgumentParser(
        prog='python -m vggt_ros.tools.soak',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--minutes', type=float, default=30.0, help='how long at least (30)')
    add('--faults', nargs='+', default=[], metavar='NAME', choices=['all', *FAULTS], help='all, or names of --list')
    add('--list', action='store_true', help='say what faults there are')
    add('--input', type=Path, help='a folder of pictures or a video; a synthetic room without')
    add('--rate', type=float, default=10.0, help='pictures per second (10)')
    add('--alone', action='store_true', help='nobody listens to depth, points, path, map and tracks')
    add('--patience', type=float, default=1.0, help='times that a slow machine needs in place of one second (1)')
    add('--allowance', type=float, default=150.0, help='MiB per hour of growth that must be excluded (150)')
    add('--output', type=Path, metavar='DIR', help=f'put the table into DIR/{TABLE} and the picture beside it')
    add(
        '--logs',
        type=Path,
        metavar='DIR',
        help='where the output of the processes and the samples go; thrown away without',
    )
    add('-p', dest='parameters', action='append', default=[], metavar='NAME:=VALUE', help='of the node')
    given = parser.parse_args(arguments)
    if given.list:
        for fault in FAULTS.values():
            print(f'{fault.name:18} {fault.story}. Must say: {fault.says}.')
        return 0
    names = list(FAULTS) if 'all' in given.faults else list(dict.fromkeys(given.faults))
    with tempfile.TemporaryDirectory(prefix='vggt_soak_') as folder:
        return _run(given, names, Path(folder))


def _run(given: argparse.Namespace, names: Sequence[str], folder: Path) -> int:
    logs = folder if given.logs is None else given.logs
    logs.mkdir(parents=True, exist_ok=True)
    path = given.input
    if path is None:
        path = folder / 'input'
        demo.render(path, 0, FRAMES)
    try:
        next(iter(open_sequence(path, limit=1)))
    except (SequenceError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    environment = private_environment(free_domain())
    os.environ.update(environment)  # before rclpy begins: we are on the node's graph
    from vggt_ros.ros.soak.watcher import INTERRUPTS, on_the_graph
    from vggt_ros.tools.soak import report
    from vggt_ros.tools.soak.catalogue import FAULTS
    from vggt_ros.tools.soak.run import run, tell
    from vggt_ros.tools.soak.stage import FaultError, Stage

    faults = [FAULTS[name] for name in names]
    verdicts, stopped = [], False
    with on_the_graph():
        stage = Stage(logs, environment, path, given.rate, given.parameters, bool(faults), not given.alone)
        try:
            for verdict in run(stage, faults, 60 * given.minutes, given.patience):
                verdicts.append(verdict)
                tell(verdict)
        except FaultError as error:
            print(error, file=sys.stderr)
            return 1
        except INTERRUPTS:
            stopped = True
            print(f'stopped after {stage.time / 60:.0f} minutes; this is what was found by then', file=sys.stderr)
        finally:
            stage.close()
    if given.logs is not None:
        put(report.comma_separated(stage.samples), given.logs / 'samples.csv')
    lines = report.rows(verdicts, stage.samples, given.allowance)
    table = report.table(lines)
    print(table)
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        put(table, given.output / TABLE)
        report.draw(stage.samples, verdicts, given.output / PICTURE)
    wrong = [line for line in lines if line.passed is False]
    print(f'{len(wrong)} of {len(lines)} rows are red' if wrong else 'no row is red')
    return 1 if wrong or stopped else 0


if __name__ == '__main__':
    sys.exit(main())
