"""Plots of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from vggt_ros.camera import PixelMap
from vggt_ros.training import metrics
from vggt_ros.training.report import Evaluation, Result

if TYPE_CHECKING:
    from vggt_ros.training.unseen import UnseenWindow

_COLOURS = ('#d62728', '#7f7f7f', '#1f77b4', '#2ca02c', '#9467bd')
_BASELINES = np.geomspace(metrics.SMALLEST_BASELINE, 1.6, 8)
_FEWEST_PAIRS = 5  # that make a median
_LARGEST_ERROR = 0.5  # of the depth, in the colours


def draw_figures(evaluation: Evaluation, path: Path) -> None:
    """Poses: accuracy over the error allowed, errors over the baseline. Depth and tracks: distributions, kinds."""
    with mpl.rc_context({'font.size': 9, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': '#dddddd'}):
        figure = Figure(figsize=(14, 8), dpi=100, layout='constrained')
        FigureCanvasAgg(figure)
        (accuracy, rotation, direction), (kinds, depth, tracks) = figure.subplots(2, 3)
        for result, colour in zip(evaluation.results, _COLOURS, strict=False):
            if result.scores.pairs:
                _draw_accuracy(accuracy, result, colour)
                pairs = result.scores.pooled
                _draw_over_baseline(rotation, pairs.baseline, pairs.rotation, result.name, colour)
                _draw_over_baseline(direction, pairs.baseline, pairs.direction, result.name, colour)
            if result.scores.absrel:
                _draw_distribution(depth, result.scores.absrel, result.name, colour)
            if result.scores.tracked:
                _draw_distribution(tracks, result.scores.tracked, result.name, colour)
        _draw_kinds(kinds, evaluation)
        accuracy.set(xlabel='larger of rotation and direction error [deg]', ylabel='share of pairs', ylim=(0, 1))
        accuracy.set_title('relative poses: pairs within an error')
        for axes, name in ((rotation, 'rotation'), (direction, 'translation-direction')):
            axes.set(xlabel='baseline [median depths]', ylabel=f'median {name} error [deg]', yscale='log')
            axes.set_title(f'{name} error over the baseline of the pair')
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        depth.set(xlabel='AbsRel of a window', ylabel='share of windows below', xlim=(0, 1), ylim=(0, 1))
        depth.set_title('depth (left is better)')
        tracks.set(xlabel='share of visible points within 3 px', ylabel='share of windows below')
        tracks.set(title='tracks (right is better)', xlim=(0, 1), ylim=(0, 1))
        for axes in figure.axes:
            axes.spines[['top', 'right']].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        figure.savefig(path)


def _draw_accuracy(axes: Axes, result: Result, colour: str) -> None:
    thresholds = np.arange(0, metrics.LARGEST_ANGLE + 1)
    pairs = result.scores.pooled
    errors = np.maximum(pairs.rotation, pairs.direction)
    share = [(errors < threshold).mean() if len(errors) else np.nan for threshold in thresholds]
    axes.plot(thresholds, share, color=colour, label=f'{result.name}: AUC@30 {metrics.auc(errors):.2f}')


def _draw_over_baseline(axes: Axes, baseline: np.ndarray, error: np.ndarray, name: str, colour: str) -> None:
    """Medians in logarithmic bins, where there are enough pairs; beyond the last edge they belong to the last bin."""
    bins = np.digitize(baseline, _BASELINES[1:-1])
    medians = [
        np.median(error[bins == bin_]) if (bins == bin_).sum() >= _FEWEST_PAIRS else np.nan
        for bin_ in range(len(_BASELINES) - 1)
    ]
    axes.semilogx(np.sqrt(_BASELINES[:-1] * _BASELINES[1:]), medians, '.-', color=colour, label=name)
    ticks = (0.05, 0.1, 0.2, 0.5, 1)
    axes.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_distribution(axes: Axes, values: Sequence[float], name: str, colour: str) -> None:
    order = np.sort(np.array(values)[~np.isnan(values)])
    share = np.arange(1, len(order) + 1) / max(len(order), 1)
    axes.step(np.r_[0, order], np.r_[0, share], where='post', color=colour, label=f'{name}: mean {np.mean(order):.2f}')


def _draw_kinds(axes: Axes, evaluation: Evaluation) -> None:
    with_depth = [
        (result, colour) for result, colour in zip(evaluation.results, _COLOURS, strict=False) if result.scores.absrel
    ]
    width = 0.8 / max(len(with_depth), 1)
    for number, (result, colour) in enumerate(with_depth):
        parts = evaluation.by_kind(result)
        means = [scores.figures()['absrel'] for scores in parts.values()]
        places = np.arange(len(parts)) + (number - (len(with_depth) - 1) / 2) * width
        axes.bar(places, means, width, color=colour, label=result.name)
        labels = [f'{kind}\n{evaluation.kinds.count(kind)}' for kind in parts]
        axes.set_xticks(np.arange(len(parts)), labels)
    axes.set(ylabel='mean AbsRel', title='depth by kind of world (and number of windows)')
    axes.set_ylim(top=1.25 * axes.get_ylim()[1])  # room for the legend


def draw_windows(
    shown: Sequence[tuple[UnseenWindow, np.ndarray]], pixel_map: PixelMap, path: Path, slot: int = 4
) -> None:
    """A row for each window: an image, its true and its predicted depth in the same colours, and the relative error."""
    figure = Figure(figsize=(12.4, 2.25 * len(shown) + 0.3), dpi=90, layout='constrained')
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(shown), 4, squeeze=False)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    for row, (window, depth) in zip(rows, shown, strict=True):
        truth = window.depth(pixel_map)
        errors, scale = metrics.depth_errors(depth, truth)
        ours, true = scale * depth[slot], truth[slot]
        near, far = (float(one) for one in np.nanpercentile(true, (1, 99)))
        cmap, norm = mpl.colormaps['turbo_r'].with_extremes(bad='0.8'), LogNorm(near, max(far, 1.2 * near))
        row[0].imshow(window.frames[slot].image)
        row[0].set_ylabel(window.world.kind, fontsize=11)
        shades = row[1].imshow(true, cmap=cmap, norm=norm)
        row[2].imshow(np.where(ours > 0, ours, np.nan), cmap=cmap, norm=norm)
        bar = figure.colorbar(shades, ax=row[2], pad=0.02)
        ticks = [near * (far / near) ** (place / 3) for place in range(4)]
        bar.set_ticks(ticks, labels=[f'{tick:.2g} m' for tick in ticks])
        bar.minorticks_off()
        shades = row[3].imshow(
            np.abs(ours - true) / true,
            cmap=mpl.colormaps['inferno'].with_extremes(bad='0.8'),
            norm=Normalize(0, _LARGEST_ERROR),
        )
        figure.colorbar(shades, ax=row[3], pad=0.02, extend='max', format=PercentFormatter(1, decimals=0))
        row[3].set_xlabel(f'AbsRel of the window: {errors.mean():.3f}')
    titles = ('image', 'true depth', 'predicted depth', 'relative error (grey: sky)')
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize=11)
    figure.savefig(path)
