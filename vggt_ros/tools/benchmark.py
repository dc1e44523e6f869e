"""How much a sliding window saves: one step of the streaming engine against a plain forward pass of the same network.

    python -m vggt_ros.tools.benchmark                        # VGGT-1B with random weights, 294x518
    python -m vggt_ros.tools.benchmark --network vggt-tiny --frames 2 4 8 16
    python -m vggt_ros.tools.benchmark --renderer             # the synthetic worlds instead: frames/s, price of effects
    python -m vggt_ros.tools.benchmark --tracker              # 256 points in 8 frames against whole correlation volumes
    python -m vggt_ros.tools.benchmark --messages             # the messages of 2000 tracks instead (needs ROS)

The plain pass does what the published network does for a window: camera, depth and point heads for every frame. A step
of the engine has seen all but the new frames before and gives every camera and the new frames' depth. Runs of both are
interleaved, so that whatever else the machine does disturbs both alike; the ratio of medians is the figure to quote.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from vggt_ros.device import choose_device, set_threads
from vggt_ros.inference import NetworkPredictor
from vggt_ros.network import VGGT
from vggt_ros.tools import renderer_benchmark, tracker_benchmark
from vggt_ros.types import Frame
from vggt_ros.weights.registry import make_predictor

PARTS = ('backbone', 'first block', 'attention', 'camera', 'depth', 'points', 'tracks')


@dataclass
class Measured:
    """Seconds of each run in total and by part, and the peak of memory over the weights in MiB."""

    total: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: list[float] = field(default_factory=list)

    def part(self, name: str) -> float:
        """Median seconds of a part; 0 where it did not run."""
        return statistics.median(self.parts[name]) if self.parts[name] else 0.0


class Stopwatch:
    """Times the parts of a network by wrapping their entry points on this one object."""

    def __init__(self, network: VGGT, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)
        for owner, method, part in (
            (network.aggregator, 'embed', 'backbone'),
            (network.aggregator, 'enter', 'first block'),
            (network.aggregator, 'decode', 'attention'),
            (network.camera_head, 'forward', 'camera'),
            (network.depth_head, 'predict', 'depth'),
            (network.point_head, 'predict', 'points'),
            (network.track_head, 'forward', 'tracks'),
        ):
            if owner is not None:
                setattr(owner, method, self._timed(getattr(owner, method), part))

    def _timed(self, function, part: str):
        def timed(*args, **kwargs):
            synchronize(self._device)
            started = time.perf_counter()
            result = function(*args, **kwargs)
            synchronize(self._device)
            self.seconds[part] += time.perf_counter() - started
            return result

        return timed

    @contextmanager
    def measure(self, into: Measured) -> Iterator[None]:
        """Time what happens inside, in total and by part, with its peak of memory."""
        self.seconds.clear()
        before = reset_peak(self._device)
        synchronize(self._device)
        started = time.perf_counter()
        yield
        synchronize(self._device)
        into.total.append(time.perf_counter() - started)
        into.memory.append(peak(self._device) - before)
        for part, seconds in self.seconds.items():
            into.parts[part].append(seconds)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; a CPU has nothing to wait for."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> float:
    """Forget the peak of memory so far; what is in use now, MiB."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 2**20
    with open('/proc/self/clear_refs', 'w') as file:
        file.write('5')
    return _status('VmRSS')


def peak(device: torch.device) -> float:
    """Peak of memory since ``reset_peak``, MiB."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == 'cuda' else _status('VmHWM')


def _status(name: str) -> float:
    """A line of /proc/self/status, kB -> MiB."""
    with open('/proc/self/status') as file:
        return next(float(line.split()[1]) for line in file if line.startswith(name)) / 1024


class Benchmark:
    """A predictor and an endless supply of frames of one size (height, width)."""

    def __init__(self, predictor: NetworkPredictor, size: tuple[int, int]) -> None:
        self.predictor, self.size = predictor, size
        self.network, self.device = predictor.network, predictor.device
        self.stopwatch = Stopwatch(self.network, self.device)
        self._random = np.random.default_rng(0)
        self._indices = itertools.count()

    def _frames(self, count: int) -> list[Frame]:
        shape = (*self.size, 3)
        return [Frame(next(self._indices), 0, self._random.integers(0, 256, shape, np.uint8)) for _ in range(count)]

    def row(self, frames: int, new: int, queries: int, runs: int, bar: tqdm) -> tuple[Measured, Measured]:
        """(streaming step, plain pass) of a window with ``new`` of its ``frames`` not seen before."""
        stream, plain = Measured(), Measured()
        points = self._random.uniform(10, min(self.size) - 10, (queries, 2)).astype(np.float32) if queries else None
        self.predictor.clear()
        window = self._frames(frames)
        if new < frames:
            self.predictor.predict(window, depth=[])  # what earlier steps have left in the cache
        for _ in range(runs):
            window = [*window[new:], *self._frames(new)]
            with self.stopwatch.measure(stream):
                self.predictor.predict(window, depth=range(frames - new, frames), queries=points)
            bar.update()
            with self.stopwatch.measure(plain):
                self._plain(window, points)
            bar.update()
        return stream, plain

    @torch.inference_mode()
    def _plain(self, window: Sequence[Frame], points: np.ndarray | None) -> None:
        pixel_map = self.predictor.pixel_map(window[0].size)
        images = torch.cat([self.predictor._to_tensor(frame, pixel_map) for frame in window])
        queries = None if points is None else torch.from_numpy(points).to(self.device)
        self.network(images, queries)


def heading(parts: Sequence[str]) -> str:
    """The names of the columns; the ratio of the totals comes last."""
    names = ''.join(f'{part:>13}' for part in parts)
    return f'{"window":<30}{"":<10}{names}{"total [s]":>13}{"peak [MiB]":>13}{"ratio":>9}'


def rows(name: str, stream: Measured, plain: Measured, parts: Sequence[str]) -> str:
    """Plain pass and engine, one above the other."""
    ratio = statistics.median(stream.total) / statistics.median(plain.total)
    lines = []
    for label, measured in (('plain', plain), ('streaming', stream)):
        line = f'{name if measured is plain else "":<30}{label:<10}'
        line += ''.join(f'{measured.part(part):>13.3f}' for part in parts)
        line += f'{statistics.median(measured.total):>13.3f}{statistics.median(measured.memory):>13.0f}'
        lines.append(line + (f'{ratio:>9.3f}' if measured is stream else ''))
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--network',
        default='random',
        help='random (VGGT-1B of random weights), vggt-tiny, a checkpoint file or a hub id',
    )
    parser.add_argument('--frames', type=int, nargs='+', default=[1, 4, 8], help='frames in the window')
    parser.add_argument('--new', type=int, nargs='+', default=[1], help='new frames in each step; also all of them')
    parser.add_argument('--size', default='294x518', help="height x width of the network's images, multiples of 14")
    parser.add_argument('--queries', type=int, default=0, help='tracked points, 0 = no tracker')
    parser.add_argument('--runs', type=int, default=3, help='interleaved runs of each row')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--precision', default='auto', choices=('auto', 'float32', 'bfloat16'))
    parser.add_argument('--threads', type=int, default=0, help='CPU threads, 0 = all')
    parser.add_argument('--renderer', type=int, nargs='?', const=20, metavar='N', help='time N rendered pictures (20)')
    parser.add_argument(
        '--messages', type=int, nargs='?', const=2000, metavar='N', help='time messages of N tracks (2000)'
    )
    parser.add_argument(
        '--tracker', type=int, nargs='?', const=256, metavar='N', help="time the network's tracker with N points (256)"
    )
    options = parser.parse_args(arguments)

    set_threads(options.threads)
    device = choose_device(options.device).device
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else f'{os.cpu_count()} CPU cores'
    versions = f'torch {torch.__version__}, {torch.get_num_threads()} threads, Python {platform.python_version()}'
    if options.renderer:
        _print_renderer(options.renderer, device, f'{where}, {versions}')
        return 0
    if options.messages:
        _print_messages(options.messages, 20 * options.runs, f'{os.cpu_count()} CPU cores, {versions}')
        return 0
    height, width = (int(side) for side in options.size.split('x'))
    if options.tracker:
        frames = max(options.frames)
        print(f'{options.tracker} points, {frames} frames, {options.size}, float32, {where}, {versions}')
        print(f'medians of {options.runs} interleaved runs')
        print(
            '\n'.join(
                tracker_benchmark.table(
                    *tracker_benchmark.measure(frames, options.tracker, (height, width), device, options.runs)
                )
            )
        )
        return 0
    heads = ('camera', 'depth', 'point', 'track') if options.queries else ('camera', 'depth', 'point')
    predictor = make_predictor(
        options.network, device=options.device, precision=options.precision, image_size=max(height, width), heads=heads
    )
    benchmark = Benchmark(predictor, (height, width))
    steps = [(frames, new) for frames in options.frames for new in sorted({*options.new, frames}) if new <= frames]
    parts = [part for part in PARTS if part != 'tracks' or options.queries]
    print(f'{predictor.name}, {predictor.precision}, {where}, {versions}; medians of {options.runs} interleaved runs')
    print(heading(parts), flush=True)
    for frames, new in steps:
        # On stderr and gone when the row is there: the table stays clean.
        with tqdm(total=2 * options.runs, unit='pass', leave=False, disable=not sys.stderr.isatty()) as bar:
            measured = benchmark.row(frames, new, options.queries, options.runs, bar)
        print(rows(f'{frames} frames, {new} new, {options.size}', *measured, parts), flush=True)
    return 0


def _print_renderer(frames: int, device: torch.device, where: str) -> None:
    bar = partial(tqdm, unit='frame', leave=False, disable=not sys.stderr.isatty())
    primitives, seconds = renderer_benchmark.measure(frames, device=device, progress=bar)
    width, height = renderer_benchmark.SIZE
    print(f'{renderer_benchmark.KIND} of {primitives} primitives at {width}x{height}, {where};')
    print(f'medians of {frames} frames, options and effects in turns')
    print('\n'.join(renderer_benchmark.table(seconds)))


def _print_messages(tracks: int, runs: int, where: str) -> None:
    # Not part of an installation without ROS.
    from vggt_ros.ros import track_benchmark

    print(f'messages of {tracks} tracks, {where}; medians of {runs} interleaved runs')
    print('\n'.join(track_benchmark.table(track_benchmark.measure(tracks, runs))))


if __name__ == '__main__':
    sys.exit(main())
