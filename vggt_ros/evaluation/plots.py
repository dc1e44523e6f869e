"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vggt_ros.similarity import umeyama
from vggt_ros.tracks.picture import TrackedPoints, draw_tracks
from vggt_ros.types import Tracks

CLIP_BYTES = 2_000_000  # a clip is no larger
_FEWEST = 20  # pairs that make a share
_COLOURS = ('#d62728', '#ff9896', '#7f7f7f', '#1f77b4', '#2ca02c', '#9467bd')


@contextmanager
def _drawing(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of this size in hundreds of pixels, saved at the end."""
    with mpl.rc_context({'font.size': 8, 'axes.grid': True, 'axes.axisbelow': True, 'grid.color': '#dddddd'}):
        figure = Figure(figsize=size, dpi=100, layout='constrained')
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path)


def draw_loop(
    T_true: np.ndarray, paths: Mapping[str, np.ndarray], errors: Mapping[str, Sequence[float]], path: Path
) -> None:
    """From above: true path (N, 4, 4) and one path of each way to join windows, aligned; beside it the error (ATE,
    metres) of each way over all seeds, median and extremes."""
    with _drawing(path, (10, 4.2)) as figure:
        above, bars = figure.subplots(1, 2, width_ratios=(1.25, 1))
        true = T_true[:, :3, 3]
        above.plot(*true[:, :2].T, color='black', linewidth=4, alpha=0.25, label='truth')
        for T, colour in reversed(list(zip(paths.values(), _COLOURS, strict=False))):
            aligned = umeyama(T[:, :3, 3], true).transform(T[:, :3, 3])
            above.plot(*aligned[:, :2].T, color=colour, linewidth=1)
        above.set(xlabel='x [m]', ylabel='y [m]', aspect='equal', title='one run from above, best similarity')
        above.legend(frameon=False, loc='center')
        middle = np.array([np.median(values) for values in errors.values()])
        low = middle - [min(values) for values in errors.values()]
        high = [max(values) for values in errors.values()] - middle
        rows = np.arange(len(errors))[::-1]
        bars.barh(rows, middle, xerr=(low, high), color=_COLOURS[: len(errors)], capsize=3)
        count = len(next(iter(errors.values())))
        bars.set(xscale='log', xlim=(0.01, None), xlabel='ATE [m]', title=f'{count} runs: median and extremes')
        bars.set_yticks(rows, list(errors))


def draw_walk(T_true: np.ndarray, positions: np.ndarray, path: Path) -> None:
    """The true path (N, 4, 4) and published positions (N, 3), NaN where there were none, aligned; in the plane in which
    the way is longest."""
    with _drawing(path, (6, 4)) as figure:
        axes = figure.subplots()
        true, known = T_true[:, :3, 3], np.isfinite(positions[:, 0])
        aligned = umeyama(positions[known], true[known]).transform(positions)
        first, second = np.sort(np.argsort(np.ptp(true, axis=0))[1:])
        for points, colour, width, name in (
            (true, 'black', 4, 'truth'),
            (aligned, _COLOURS[0], 1, 'published'),
        ):
            alpha = 0.25 if name == 'truth' else 1.0
            axes.plot(points[:, first], points[:, second], color=colour, linewidth=width, alpha=alpha, label=name)
        axes.set(xlabel=f'{"xyz"[first]} [m]', ylabel=f'{"xyz"[second]} [m]', aspect='equal')
        axes.legend(frameon=False)


def draw_scale(curves: Sequence[tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Metres per map unit along the corridor, of each run without (relative to the beginning) and with a sensor."""
    with _drawing(path, (8, 3)) as figure:
        axes = figure.subplots()
        for number, (relative, metric) in enumerate(curves):
            length = len(relative)
            for scales, colour, name in (
                (relative, '#1f77b4', 'no metric source, relative to the beginning'),
                (metric, '#d62728', 'with a depth camera'),
            ):
                place = np.arange(length - len(scales), length)[11:]
                smooth = np.convolve(scales, np.full(12, 1 / 12), 'valid')
                axes.plot(place, smooth, color=colour, linewidth=1, alpha=0.7, label=name if number == 0 else None)
        axes.set(xlabel='way [m]', ylabel='metres per unit', title='scale along a corridor, means of 12 frames')
        axes.legend(frameon=False)


def draw_costs(seconds: np.ndarray, memory: np.ndarray, path: Path) -> None:
    """CPU seconds of each image, means of 100, and memory in MiB over a long run."""
    with _drawing(path, (8, 3)) as figure:
        times, sizes = figure.subplots(1, 2)
        count = len(seconds) // 100
        times.plot(100 * np.arange(count), 1e3 * seconds[: 100 * count].reshape(count, 100).mean(1), color=_COLOURS[0])
        times.set(xlabel='images', ylabel='ms per image', ylim=(0, None), title='CPU time without the network')
        sizes.plot(memory, color=_COLOURS[3])
        sizes.set(xlabel='images', ylabel='MiB', ylim=(0, None), title='memory of the process')


def draw_identity(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """By age in images: share of the pairs that are right, and share of all tracks that live longer.

    curves: of each of three trackers, right shares (A,) and numbers of pairs (A,) by age, and the tracks' lives (M,).
    """
    with _drawing(path, (9, 3)) as figure:
        right, living = figure.subplots(1, 2)
        for (name, (share, count, lives)), colour in zip(
            curves.items(), (_COLOURS[0], _COLOURS[3], _COLOURS[2]), strict=True
        ):
            known = count >= _FEWEST
            right.plot(np.flatnonzero(known), share[known], color=colour, label=name)
            ages = np.arange(len(share) + 1)
            living.plot(ages, (lives[:, None] > ages).mean(0), color=colour, label=name)
        right.set(xlabel='age [images]', ylim=(0, 1.02), title='share of published tracks on their own point')
        living.set(xlabel='age [images]', ylim=(0, 1.02), title='share of all tracks that live longer')
        right.legend(frameon=False)


def draw_coverage(maps: Mapping[str, np.ndarray], path: Path) -> None:
    """Share of the images in which each cell (rows, columns) holds a track, of each tracker."""
    with _drawing(path, (9, 3)) as figure:
        for axes, (name, held) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
            picture = axes.imshow(held, vmin=0, vmax=1, cmap='viridis')
            for (row, column), value in np.ndenumerate(held):
                colour = 'black' if value > 0.6 else 'white'
                axes.text(column, row, f'{value:.0%}', ha='center', va='center', fontsize=6, color=colour)
            axes.set(xticks=[], yticks=[], title=f'{name}: {held.mean():.0%}')
            axes.grid(visible=False)
        figure.colorbar(picture, ax=figure.axes, label='share of images with a track')


def write_clip(tracks: Sequence[Tracks], path: Path, period: float = 0.1) -> None:
    """The images with their tracks and tails as an animated GIF; as many images as CLIP_BYTES hold.

    tracks: one for each image, ``period`` seconds apart. Raises RuntimeError where OpenCV cannot write a GIF.
    """
    if not hasattr(cv2, 'Animation'):
        raise RuntimeError(f'OpenCV {cv2.__version__} cannot write {path}: 4.11 can')
    points = [TrackedPoints(one.frame.stamp, one.id, one.uv, one.age) for one in tracks]
    for step in (1, 2, 3, 4, 6, 8):
        clip = cv2.Animation()
        chosen = range(0, len(tracks), step)
        clip.frames = [_enlarged(draw_tracks(tracks[last].frame.image, points[: last + 1])) for last in chosen]
        clip.durations = [round(1000 * period * step)] * len(chosen)
        if not cv2.imwriteanimation(str(path), clip):
            raise RuntimeError(f'OpenCV {cv2.__version__} could not write {path}')
        if path.stat().st_size <= CLIP_BYTES:
            return


def write_overlay(tracks: Sequence[Tracks], path: Path, scale: int = 4) -> None:
    """The last image, ``scale`` times as large, with its tracks and where they were in those before."""
    # Pixel i covers [i - 0.5, i + 0.5): edges scale, centres follow.
    points = [TrackedPoints(one.frame.stamp, one.id, (one.uv + 0.5) * scale - 0.5, one.age) for one in tracks]
    image = cv2.resize(tracks[-1].frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), draw_tracks(image, points, caption=f'{len(tracks[-1].id)} tracks')[..., ::-1])


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """Drawn for people: at least 320 pixels wide, blue first as OpenCV writes it."""
    scale = max(1.0, 320 / picture.shape[1])
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[..., ::-1].copy()
