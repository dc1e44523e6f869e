"""What a process needs, once a second, and whether it grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

BLOCKS = 12  # of which each is one observation of a trend


@dataclass(frozen=True)
class Sample:
    """time: seconds since the run began. pid: of the process. memory: resident MiB. own: what of it the system could
    not take back without losing it, MiB: anonymous and shared memory, swapped or not, by the process's share; NaN where
    the system does not tell. cpu: seconds of CPU so far. latency: seconds from image to window. located, processed:
    images so far. maps: how often the map has begun anew so far. held: MiB of the map, as the node says itself.
    """

    time: float
    pid: int
    memory: float
    own: float
    threads: int
    files: int
    cpu: float
    latency: float
    located: int
    processed: int
    maps: int
    held: float


def look_at(pid: int) -> tuple[float, float, int, int, float]:
    """Resident and own memory (MiB), threads, open files, CPU seconds of a process. Raises OSError."""
    folder = Path(f'/proc/{pid}')
    fields = (folder / 'stat').read_text().rpartition(')')[2].split()
    if fields[0] == 'Z':
        raise ProcessLookupError(f'process {pid} has ended')
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    memory = int(fields[21]) * os.sysconf('SC_PAGE_SIZE') / 2**20
    return memory, _own(folder), int(fields[17]), len(os.listdir(folder / 'fd')), cpu


def _own(folder: Path) -> float:
    """Without pages of files, libraries mostly: the system drops those when it likes and reads them again."""
    try:
        lines = (folder / 'smaps_rollup').read_text().splitlines()[1:]
        sizes = {name: int(size.split()[0]) for name, _, size in (line.partition(':') for line in lines)}
        return sum(sizes[name] for name in ('Pss_Anon', 'Pss_Shmem', 'SwapPss')) / 1024
    except (OSError, KeyError):  # Linux before 5.6
        return float('nan')


def longest_life(samples: Sequence[Sample]) -> list[Sample]:
    """Those of the process that lived longest."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.pid, []).append(sample)
    return max(lives.values(), key=len, default=[])


@dataclass(frozen=True)
class Slope:
    """Change per hour with its 95 % confidence interval; NaN where there are too few observations."""

    value: float
    low: float
    high: float


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """Least squares over the means of ``BLOCKS`` blocks, times in seconds.

    Neighbouring samples say nearly the same, block means hardly know of each other; what correlation of neighbours
    their residuals still have widens the interval (Student's t, standard error times sqrt((1 + r) / (1 - r))).
    """
    t, v = np.asarray(times, float) / 3600, np.asarray(values, float)
    t, v = t[np.isfinite(v)], v[np.isfinite(v)]
    if len(v) < 2 * BLOCKS:
        return Slope(np.nan, np.nan, np.nan)
    parts = np.array_split(np.arange(len(v)), BLOCKS)
    x, y = np.array([t[part].mean() for part in parts]), np.array([v[part].mean() for part in parts])
    x, y = x - x.mean(), y - y.mean()
    value = float(x @ y / (x @ x))
    rest = y - value * x
    power = float(rest @ rest)
    r = min(max(float(rest[1:] @ rest[:-1]) / power, 0.0), 0.9) if power > 0 else 0.0
    error = np.sqrt(power / (BLOCKS - 2) / (x @ x) * (1 + r) / (1 - r))
    half = float(stats.t.ppf(0.975, BLOCKS - 2) * error)
    return Slope(value, value - half, value + half)
