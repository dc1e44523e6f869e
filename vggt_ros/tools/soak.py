"""The node left running: pictures in a loop for half an hour, and whether it lives, works, and needs no more memory.

python -m vggt_ros.tools.soak                             # defaults, a synthetic room, 30 minutes at 10 Hz
python -m vggt_ros.tools.soak --minutes 5 --input FOLDER -p weights:=facebook/VGGT-1B -p device:=cuda

The node is a process of its own with its defaults and what ``-p`` says. The camera goes forth and back through the
pictures with stamps of now, and somebody listens to what RViz would show (--alone: nobody). A line a minute; exit
status 1 when the node ends, reports an ERROR, stops solving, or its memory grows.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vggt_ros.files.opening import open_sequence
from vggt_ros.files.sequence import RawImage
from vggt_ros.tools import demo
from vggt_ros.tools.processes import Child, free_domain, private_environment
from vggt_ros.types import State

FLAT = 1.05  # most that the last third of the run may need, relative to the second
FRAMES = 60  # pictures of the synthetic input


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=30.0, help='how long (30)')
    parser.add_argument('--input', type=Path, help='a folder of pictures or a video; a synthetic room without')
    parser.add_argument('--limit', type=int, default=300, help='most pictures of the input that are played (300)')
    parser.add_argument('--rate', type=float, default=10.0, help='pictures per second (10)')
    parser.add_argument('--alone', action='store_true', help='nobody listens to depth, points, map and tracks')
    parser.add_argument('-p', dest='parameters', action='append', default=[], metavar='NAME:=VALUE')
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix='vggt_soak_') as folder:
        return _run(given, Path(folder))


def _run(given: argparse.Namespace, folder: Path) -> int:
    path = given.input
    if path is None:
        path = folder / 'input'
        demo.render(path, 0, FRAMES)
    items = list(open_sequence(path, limit=given.limit))
    pictures = [
        item.image.to_rgb() for item in items if isinstance(item.image, RawImage) and item.image.encoding == 'rgb8'
    ]
    if not pictures:
        print(f'{path} has no pictures that can be played', file=sys.stderr)
        return 2
    environment = private_environment(free_domain())
    os.environ.update(environment)  # before rclpy begins: we are on the node's graph
    from vggt_ros.ros.feeder import feeding

    command = [sys.executable, '-m', 'vggt_ros.ros.node', '--ros-args']
    for parameter in given.parameters:
        command += ['-p', parameter]
    node = Child('vggt', command, folder / 'vggt.log', environment)
    memory: list[float] = []
    solved: list[int] = []
    try:
        with feeding(pictures, items[0].calibration, given.rate, not given.alone) as feeder:
            print(f'{"minute":>8}{"memory [MiB]":>14}{"sent":>8}{"located":>9}{"solved":>8}{"epoch":>7}  state')
            while len(memory) < max(round(given.minutes * 6), 6) and node.code is None:
                feeder.feed(10.0)
                status = feeder.status
                memory.append(_resident(node.pid))
                solved.append(0 if status is None else status.images_processed)
                if len(memory) % 6 == 0 and status is not None:
                    print(
                        f'{len(memory) / 6:>8.0f}{memory[-1]:>14.0f}{feeder.sent:>8}{status.images_located:>9}'
                        f'{status.images_processed:>8}{status.epoch:>7}  {State(status.state).name}',
                        flush=True,
                    )
            problems = _judge(node, feeder.errors, memory, solved)
            states = ', '.join(f'{State(state).name} {count}' for state, count in sorted(feeder.states.items()))
            print(f'statuses by state: {states}; {feeder.heard} messages of depth, points, map and tracks')
    finally:
        ended = node.stop()
    if ended != 0:
        problems.append(f'the node ended with {ended}')
    print('\n'.join(problems) if problems else 'alive, at work, memory flat')
    return 1 if problems else 0


def _judge(node: Child, errors: Sequence[str], memory: Sequence[float], solved: Sequence[int]) -> list[str]:
    """What is wrong."""
    problems = [f'diagnostics: {error}' for error in errors]
    if node.code is not None:
        return [*problems, node.epitaph()]
    third = len(memory) // 3
    before, after = float(np.max(memory[third : 2 * third])), float(np.max(memory[2 * third :]))
    print(f'memory: {before:.0f} MiB in the second third, {after:.0f} MiB in the last: x{after / before:.3f}')
    if after > FLAT * before:
        problems.append(f'memory grows: x{after / before:.3f} is more than x{FLAT}')
    if not solved[-1] > solved[2 * third]:
        problems.append('no image was solved in the last third')
    return problems


def _resident(pid: int) -> float:
    """MiB of memory that a process occupies, NaN when it is gone."""
    try:
        return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20
    except (OSError, IndexError):
        return float('nan')


if __name__ == '__main__':
    sys.exit(main())
