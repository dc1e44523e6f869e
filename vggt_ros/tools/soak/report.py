"""What a soak has found: a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vggt_ros.tools.soak.run import Verdict
from vggt_ros.tools.soak.samples import Sample, Slope, longest_life, slope

WARM_UP = 1 / 3  # share of the longest life of a process that is left out of trends
TELLING = 10.0  # minutes after which a trend is one: a young map grows
MAP_MOST = 450.0  # MiB: 200 keyframes, 272 submaps, 64 MiB of pictures, with the settings that ship and 480x360 pixels
SPARE = 3  # threads and open files that may be more at the end of it than at its beginning


@dataclass(frozen=True)
class Row:
    """A line of the table. passed: None where nothing is asked."""

    what: str
    must: str
    said: str
    back: str
    passed: bool | None
    found: str = ''


def rows(verdicts: Sequence[Verdict], samples: Sequence[Sample], allowance: float) -> list[Row]:
    """One for each fault, then what the process needed. allowance: MiB per hour of growth that must be excluded."""
    return (
        [_fault_row(verdict) for verdict in verdicts] + [_rest_row(verdicts, samples)] + _need_rows(samples, allowance)
    )


def _fault_row(verdict: Verdict) -> Row:
    fault = verdict.fault

    def seconds(value: float | None, asked: bool, limit: float) -> str:
        if not asked:
            return ''
        return f'{"never" if value is None else f"{value:.1f}"} (<= {limit:.0f})'

    return Row(
        f'`{fault.name}`: {fault.story}',
        fault.says,
        seconds(verdict.said, bool(fault.must), fault.within),
        seconds(verdict.back, True, fault.back),
        verdict.passed,
        '; '.join(verdict.found),
    )


def _rest_row(verdicts: Sequence[Verdict], samples: Sequence[Sample]) -> Row:
    """How often the map began anew while nothing happened: what the network costs by itself."""
    time, maps = np.array([[sample.time, sample.maps] for sample in samples]).reshape(-1, 2).T
    rest = np.ones(len(time), bool)
    for verdict in verdicts:
        rest &= (time < verdict.time) | (time > verdict.end)
    both = rest[1:] & rest[:-1]
    times, minutes = np.diff(maps)[both].sum(), np.diff(time)[both].sum() / 60
    return Row('no fault', '', '', '', None, f'the map began anew {times:.0f} times in {minutes:.0f} minutes')


def _need_rows(samples: Sequence[Sample], allowance: float) -> list[Row]:
    life = longest_life(samples)
    life = life[int(len(life) * WARM_UP) :]
    if not life:
        return [Row('the process', 'samples', '', '', False, 'nobody saw it')]
    minutes = (life[-1].time - life[0].time) / 60
    must = f'95 % interval holds 0 or less, and nothing above {allowance:.0f} MiB/h; of {TELLING:.0f} minutes at least'
    memory, own = (
        slope([one.time for one in life], [getattr(one, name) - one.held for one in life]) for name in ('memory', 'own')
    )
    judged = memory if np.isnan(own.value) else own
    text = f'{_slope(own)} without pages of files, {_slope(memory)} resident'
    telling = minutes >= TELLING
    flat = bool(judged.low <= 0 and judged.high <= allowance) if telling else None
    result = [
        Row(
            f'memory beside the map, over the last two thirds of the longest life of a process, {minutes:.0f} minutes',
            must,
            '',
            '',
            flat,
            text,
        )
    ]
    most = max(one.held for one in samples)
    result.append(
        Row(
            'memory of the map, by its own account',
            f'never above {MAP_MOST:.0f} MiB',
            '',
            '',
            most <= MAP_MOST,
            f'{most:.0f} MiB',
        )
    )
    tenth = max(1, len(life) // 10)
    for what, name in (('threads', 'threads'), ('open files', 'files')):
        first, last = (
            float(np.median([getattr(sample, name) for sample in part])) for part in (life[:tenth], life[-tenth:])
        )
        result.append(
            Row(
                f'{what} likewise',
                f'at most {SPARE} more',
                '',
                '',
                last - first <= SPARE if telling else None,
                f'{first:.0f}, {last:.0f}',
            )
        )
    share = (life[-1].cpu - life[0].cpu) / max(life[-1].time - life[0].time, 1e-9)
    latency = np.array([sample.latency for sample in life])
    latency = latency[np.isfinite(latency)]
    middle = f'{np.median(latency):.2f} s, 95 % below {np.quantile(latency, 0.95):.2f} s' if len(latency) else 'none'
    return [*result, Row('CPU; time from image to window, likewise', '', '', '', None, f'{share:.2f} cores; {middle}')]


def _slope(found: Slope) -> str:
    if np.isnan(found.value):
        return 'too few samples'
    return f'{found.value:+.1f} MiB/h ({found.low:+.1f} to {found.high:+.1f})'


def table(lines: Sequence[Row]) -> str:
    """As Markdown."""
    head = ['fault', 'what must be said', 'said after [s]', 'at work again after [s]', 'passed', 'found']
    cells = [head] + [
        [line.what, line.must, line.said, line.back, {True: 'yes', False: '**no**', None: ''}[line.passed], line.found]
        for line in lines
    ]
    text = [f'| {" | ".join(cell.replace("|", "/") for cell in row)} |' for row in cells]
    return '\n'.join([text[0], f'|{"---|" * len(head)}', *text[1:]]) + '\n'


def comma_separated(samples: Sequence[Sample]) -> str:
    """The samples as a table for other programs, with a heading."""
    lines = [[field.name for field in fields(Sample)], *map(astuple, samples)]
    return ''.join(','.join(map(str, line)) + '\n' for line in lines)


def draw(samples: Sequence[Sample], verdicts: Sequence[Verdict], path: Path) -> None:
    """Memory, threads, CPU and latency over time, the faults marked."""
    time = np.array([sample.time for sample in samples]) / 60
    breaks = np.flatnonzero(np.diff([sample.pid for sample in samples])) + 1  # no line from one process to the next
    rate = np.gradient([sample.located for sample in samples], 60 * time) if len(time) > 1 else np.zeros(len(time))
    cpu = np.gradient([sample.cpu for sample in samples], 60 * time) if len(time) > 1 else np.zeros(len(time))
    cpu[breaks] = cpu[breaks - 1] = np.nan
    panels = (
        ('resident memory [MiB]', np.array([sample.memory for sample in samples])),
        ('threads', np.array([sample.threads for sample in samples], float)),
        ('CPU [cores]', cpu),
        ('image to window [s]', np.array([sample.latency for sample in samples])),
        ('located [Hz]', rate),
    )
    with mpl.rc_context({'font.size': 8, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': '#dddddd'}):
        figure = Figure(figsize=(11, 9), dpi=100, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharex=True)
        for axis, (label, values) in zip(axes, panels, strict=True):
            axis.plot(np.insert(time, breaks, time[breaks]), np.insert(values.astype(float), breaks, np.nan), lw=0.8)
            axis.set_ylabel(label)
            for verdict in verdicts:
                axis.axvline(verdict.time / 60, color='#2ca02c' if verdict.passed else '#d62728', lw=0.6)
        axes[0].plot(time, [sample.own for sample in samples], lw=0.8, color='#ff7f0e', label='without pages of files')
        axes[0].plot(time, [sample.held for sample in samples], lw=0.8, color='#7f7f7f', label='of the map')
        axes[0].legend(loc='upper left', ncols=2)
        for verdict in verdicts:
            axes[0].text(
                verdict.time / 60,
                1.02,
                verdict.fault.name,
                rotation=90,
                fontsize=6,
                transform=axes[0].get_xaxis_transform(),
                ha='center',
                va='bottom',
            )
        if len(rate) and (usual := np.percentile(rate, 99)) > 0:
            axes[-1].set_ylim(0, 1.5 * usual)  # a count that begins anew would leave nothing to see of the rest
        axes[-1].set_xlabel('minutes')
        figure.savefig(path)
