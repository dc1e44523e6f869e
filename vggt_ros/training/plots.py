"""Plots of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vggt_ros.camera import PixelMap
from vggt_ros.training import metrics

if TYPE_CHECKING:
    from vggt_ros.training.evaluate import Result, Window

_COLOURS = ('#d62728', '#7f7f7f', '#1f77b4')


def draw_figures(results: Sequence[Result], path: Path) -> None:
    """Pose accuracy over the error allowed, depth error by kind of world, accuracy of the tracks over windows."""
    with mpl.rc_context({'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True}):
        figure = Figure(figsize=(13, 4), dpi=110, layout='constrained')
        FigureCanvasAgg(figure)
        pose, depth, tracks = figure.subplots(1, 3)
        thresholds = np.arange(0, metrics.LARGEST_ANGLE + 1)
        for result, colour in zip(results, _COLOURS, strict=False):
            scores = result.scores
            errors = np.maximum(np.concatenate(scores.rotation), np.concatenate(scores.direction))
            share = [(errors < threshold).mean() for threshold in thresholds]
            pose.plot(thresholds, share, color=colour, label=f'{result.name}: AUC {metrics.auc(errors):.2f}')
            if scores.tracked:
                order = np.sort(scores.tracked)
                tracks.plot(order, np.arange(1, len(order) + 1) / len(order), color=colour, label=result.name)
        pose.set(xlabel='larger of rotation and direction error [deg]', ylabel='share of pairs', ylim=(0, 1))
        pose.set_title('relative poses')
        tracks.set(xlabel='share of visible points within 3 px', ylabel='share of windows', xlim=(0, 1), ylim=(0, 1))
        tracks.set_title('tracks')
        kinds = sorted(set(results[0].kinds))
        for result, colour, shift in zip(results, _COLOURS, (-0.2, 0.2), strict=False):
            values = np.array(result.scores.absrel)
            if len(values):
                means = [values[[one == kind for one in result.kinds]].mean() for kind in kinds]
                depth.bar(np.arange(len(kinds)) + shift, means, 0.38, color=colour, label=result.name)
        depth.set_xticks(np.arange(len(kinds)), kinds)
        depth.set(ylabel='AbsRel', title='depth, by kind of world')
        for axes in (pose, depth, tracks):
            axes.legend(frameon=False)
        figure.savefig(path)


def draw_windows(shown: Sequence[tuple[Window, np.ndarray]], pixel_map: PixelMap, path: Path, slot: int = 4) -> None:
    """For a few windows: a frame, its true depth and the predicted one, in the same logarithmic colours."""
    figure = Figure(figsize=(2.3 * len(shown), 5.4), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    rows = figure.subplots(3, len(shown), squeeze=False)
    for column, (window, depth) in enumerate(shown):
        truth = window.depth(pixel_map)
        _, scale = metrics.depth_errors(depth, truth)
        near, far = np.nanpercentile(truth[slot], (2, 98))
        for row, picture in enumerate((window.frames[slot].image, truth[slot], scale * depth[slot])):
            axes = rows[row, column]
            axes.set_axis_off()
            if row == 0:
                axes.imshow(picture)
                axes.set_title(window.world.kind, fontsize=9)
            else:
                norm = mpl.colors.LogNorm(near, far)
                axes.imshow(np.where(picture > 0, picture, np.nan), cmap='turbo_r', norm=norm)
    for row, text in enumerate(('image', 'true depth', 'predicted')):
        rows[row, 0].text(-0.06, 0.5, text, transform=rows[row, 0].transAxes, rotation=90, va='center', ha='right')
    figure.savefig(path)
