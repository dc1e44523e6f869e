"""One picture of a recording: ``python -m vggt_ros.tools.summary FOLDER --input WHAT_WAS_PLAYED``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.pictures import UNITS, DepthRange, colour
from vggt_ros.files.recording import SUMMARY
from vggt_ros.files.sequence import ImageSequence
from vggt_ros.tools.recorded import Recorded, RecordedError, RunAccuracy, measure, pictures, seen, true_depths
from vggt_ros.tools.views import draw_cloud, look_at
from vggt_ros.tracks.picture import draw_tracks
from vggt_ros.types import Scale

COLUMNS = 5
OURS, TRUE, WARNING = '#d62728', '#1f77b4', '#b00020'
GREY = '#555555'
NOTES = 240  # characters that fit into the line about the input


def draw(
    recorded: Recorded,
    sequence: ImageSequence | None,
    accuracy: RunAccuracy,
    name: str,
    path: Path,
    notes: Sequence[str] = (),
) -> None:
    """Write the picture. name: of the input. sequence: what was played, None when it is not there any more.

    notes: how it was read.

    Raises OSError when it cannot be written.
    """
    stamps = recorded.choose(COLUMNS)
    tracks = recorded.tracks()
    wanted = [*stamps, tracks[-1].stamp] if tracks else stamps
    images, truths = {}, {}
    if sequence is not None:
        items = pictures(sequence, wanted)
        images, truths = {item.stamp: seen(item) for item in items}, true_depths(sequence, items)
    depths = recorded.images('/depth/image_rect', stamps)
    rows = {'input': images, 'depth': depths, 'confidence': recorded.images('/depth/confidence', stamps)}
    units = {'depth': f'{UNITS[recorded.scale]} (grey: unknown)', 'true depth': 'm (grey: unknown)'}
    if truths and accuracy.depth_scale is not None:
        # As the trajectory is: in the truth's metres.
        rows['depth'] = {stamp: accuracy.depth_scale * depth for stamp, depth in depths.items()}
        rows['true depth'] = {stamp: truth.depth for stamp, truth in truths.items()}
        units['depth'] = 'm, after one scale'
    with mpl.rc_context({'font.size': 10, 'axes.titlesize': 11, 'axes.edgecolor': '#999999'}):
        sheet = Sheet([*images.values(), *depths.values()], len(rows))
        _title(sheet, recorded, accuracy, name, notes)
        _draw_frames(sheet, stamps, rows, units)
        _draw_trajectory(sheet.axes(0.85, 3.5, 3.8, 2.6), sheet.axes(0.85, 0.0, 3.8, 2.6), recorded, accuracy)
        above, behind = (5.0, 0.0, 6.6, 6.1), (11.85, 3.3, 5.3, 2.8)
        _draw_clouds([(sheet.axes(*box), box[2:]) for box in (above, behind)], recorded)
        last = images.get(tracks[-1].stamp) if tracks else None
        _draw_tracks(sheet.axes(11.85, 0.0, 5.3, 2.8), tracks, last)
        sheet.figure.savefig(path)


class Sheet:
    """The page: a header, rows of frames as high as the images want, and room for plots below. In inches."""

    WIDTH, HEADER, LOWER, BOTTOM, LEFT, RIGHT, GAP = 18.0, 1.75, 6.75, 0.55, 0.5, 0.95, 0.05

    def __init__(self, images: list[np.ndarray], rows: int = 3) -> None:
        self.rows = rows
        aspect = images[0].shape[0] / images[0].shape[1] if images else 0.75
        self.cell_width = (self.WIDTH - self.LEFT - self.RIGHT) / COLUMNS - self.GAP
        self.cell_height = min(3.2, self.cell_width * aspect)
        self.height = self.HEADER + rows * (self.cell_height + self.GAP) + self.LOWER + self.BOTTOM
        self.figure = Figure(figsize=(self.WIDTH, self.height), dpi=100, facecolor='white')
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """An axes in the lower part; ``bottom`` is above the sheet's margin."""
        bottom += self.BOTTOM
        return self.figure.add_axes((left / self.WIDTH, bottom / self.height, width / self.WIDTH, height / self.height))

    def cell(self, row: int, column: int) -> Axes:
        """The axes of a frame; row 0 is the uppermost."""
        bottom = self.LOWER + (self.rows - 1 - row) * (self.cell_height + self.GAP)
        left = self.LEFT + column * (self.cell_width + self.GAP)
        return self.axes(left, bottom, self.cell_width, self.cell_height)

    def write(self, left: float, down: float, text: str, **options: Any) -> None:
        """Text in the header: inches from the left and from the top."""
        self.figure.text(left / self.WIDTH, 1 - down / self.height, text, va='center', **options)


def _title(sheet: Sheet, recorded: Recorded, accuracy: RunAccuracy, name: str, notes: Sequence[str]) -> None:
    status, node = recorded.status, recorded.status['node']
    parts = [
        recorded.network or 'network unknown',
        f'window {node.get("window", "?")}',
        f'{len(recorded.trajectory)} frames',
        f'{status["frames_per_second"]:.2g} frames/s' if status.get('frames_per_second') else '',
        node.get('device', ''),
        {Scale.METRIC: 'scale: metres', Scale.RELATIVE: 'scale: relative'}.get(recorded.scale, 'scale: unknown'),
        f'{recorded.epochs} epochs, the longest is shown' if recorded.epochs > 1 else '',
    ]
    sheet.write(sheet.LEFT, 0.4, name, fontsize=22, fontweight='bold')
    sheet.write(sheet.LEFT, 0.78, '   ·   '.join(x for x in parts if x), fontsize=13, color=GREY)
    sheet.write(sheet.LEFT, 1.08, '   ·   '.join(figures(accuracy)), fontsize=13, color='black')
    sheet.write(sheet.LEFT, 1.33, shorten('   ·   '.join(notes), NOTES), fontsize=10, color=GREY)


def figures(accuracy: RunAccuracy) -> list[str]:
    """The accuracy in words, nothing where there is no truth."""
    words = []
    if accuracy.trajectory is not None:
        error = accuracy.trajectory
        words.append(f'ATE {error.rmse:.3f} m RMSE over {error.path:.1f} m (after Sim(3) alignment)')
    if accuracy.depth is not None:
        words.append(f'depth AbsRel {accuracy.depth:.3f} (after one scale)')
    return words


def _draw_frames(
    sheet: Sheet, stamps: list[int], rows: dict[str, dict[int, np.ndarray]], units: dict[str, str]
) -> None:
    """rows: 'input', 'depth', perhaps 'true depth', 'confidence' -> images by stamp. units: of the depths."""
    order = [name for name in ('input', 'depth', 'true depth', 'confidence') if name in rows]
    reference = rows.get('true depth', rows['depth']).values()
    scale = DepthRange.of(np.concatenate([depth.ravel() for depth in reference]), margin=1.0) if reference else None
    for row, name in enumerate(order):
        for column, stamp in enumerate(stamps):
            ax = sheet.cell(row, column)
            _frame_only(ax)
            if row == 0:
                ax.set_title(f't = {(stamp - stamps[0]) * 1e-9:.2f} s', color=GREY, pad=4)
            if column == 0:
                ax.set_ylabel(name, fontsize=12)
            image = rows[name].get(stamp)
            if image is not None and name != 'input':
                if name == 'confidence':
                    image = colour(image, cv2.COLORMAP_VIRIDIS)
                else:
                    image = scale.colour(image) if scale is not None else None
            _show(ax, image, 'input not at hand' if name == 'input' else f'no {name}')
        if name == 'confidence':
            _bar(sheet.figure, ax, mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), 'viridis'), 'weight')
        elif name != 'input' and scale is not None:
            shown = mpl.cm.ScalarMappable(LogNorm(scale.near, scale.far), mpl.colormaps['turbo_r'])
            bar = _bar(sheet.figure, ax, shown, units[name])
            ticks = [scale.at(x) for x in (0, 0.25, 0.5, 0.75, 1)]
            bar.set_ticks(ticks, labels=[f'{x:.3g}' for x in ticks])
            bar.minorticks_off()


def _show(ax: Axes, image: np.ndarray | None, instead: str) -> None:
    if image is None:
        _say(ax, instead)
    else:
        ax.imshow(image)


def _bar(figure: Figure, beside: Axes, shown: mpl.cm.ScalarMappable, label: str) -> Colorbar:
    inset = beside.inset_axes((1.02, 0.02, 0.03, 0.96))
    return figure.colorbar(shown, cax=inset, label=label)


def _frame_only(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def _say(ax: Axes, text: str) -> None:
    ax.set_facecolor('#f2f2f2')
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha='center', va='center', color=GREY)


def _draw_trajectory(top: Axes, side: Axes, recorded: Recorded, accuracy: RunAccuracy) -> None:
    """Both in the map's axes (x forward, y left, z up), in the truth's metres where there is truth."""
    ours = recorded.trajectory.T_world_camera[:, :3, 3]
    error = accuracy.trajectory
    true = None
    unit = 'm' if recorded.scale is Scale.METRIC else 'relative units'
    if error is not None:
        ours, true, unit = error.similarity.scale * ours, (error.truth - error.similarity.t) @ error.similarity.R, 'm'
    for ax, axes, title in ((top, (0, 1), 'trajectory from above'), (side, (0, 2), 'from the side')):
        if true is not None:
            ax.plot(*true[:, axes].T, color=TRUE, lw=2.5, alpha=0.8, label='truth')
        label = 'estimate, Sim(3)-aligned' if error is not None else 'estimate'
        ax.plot(*ours[:, axes].T, color=OURS, lw=1.5, label=label)
        ax.plot(*ours[0, axes], 'o', color=OURS, ms=6)
        ax.set_title(title)
        ax.set_xlabel(f'x, forward at the start [{unit}]', labelpad=1)
        ax.set_ylabel(f'{"xyz"[axes[1]]}, {"left" if axes[1] == 1 else "up"} [{unit}]')
        ax.set_aspect('equal', adjustable='datalim')
        ax.grid(color='#e6e6e6')
        ax.set_axisbelow(True)
    top.legend(loc='best', fontsize=9, framealpha=0.85)
    if accuracy.why:
        top.text(0.02, 0.02, accuracy.why, transform=top.transAxes, fontsize=9, color=WARNING)


def _draw_clouds(places: list[tuple[Axes, tuple[float, float]]], recorded: Recorded) -> None:
    """places: two axes with their sizes in inches."""
    xyz, rgb = recorded.cloud
    for ax, _ in places:
        _frame_only(ax)
        if not len(xyz):
            _say(ax, 'no cloud was recorded')
    if not len(xyz):
        return
    poses = recorded.trajectory.T_world_camera
    path = poses[:, :3, 3]
    low, high = np.percentile(xyz, (2, 98), axis=0)
    low, high = np.minimum(low, path.min(0)), np.maximum(high, path.max(0))
    extent = float(np.linalg.norm(high - low))
    # Points lie on surfaces: their mean distance follows from how many there are.
    spacing = 0.9 * extent / np.sqrt(len(xyz))
    kept = ((xyz >= low - 0.2 * extent) & (xyz <= high + 0.2 * extent)).all(1)
    (above, above_size), (behind, behind_size) = places

    middle = (low + high) / 2
    heading = poses[0, :3, 2] * (1, 1, 0)
    heading /= max(float(np.linalg.norm(heading)), 1e-9)
    below = kept & (xyz[:, 2] <= path[:, 2].max() + 0.03 * extent)
    eye = look_at(middle - 0.45 * extent * heading + np.array([0, 0, 0.7 * extent]), middle)
    size = (round(above_size[0] * 140), round(above_size[1] * 140))
    above.imshow(draw_cloud(xyz[below], rgb[below], eye, size, spacing=spacing, path=path))
    above.set_title('cloud from above, cut at camera height; path red')

    eye = poses[len(poses) // 2].copy()
    distance = float(np.median((xyz - eye[:3, 3]) @ eye[:3, 2]))
    eye[:3, 3] -= 0.35 * max(distance, 0.1 * extent) * eye[:3, 2]
    size = (round(behind_size[0] * 140), round(behind_size[1] * 140))
    behind.imshow(draw_cloud(xyz[kept], rgb[kept], eye, size, spacing=spacing, field_of_view=80))
    behind.set_title('cloud from behind the camera, half way')


def _draw_tracks(ax: Axes, tracks: list, image: np.ndarray | None) -> None:
    _frame_only(ax)
    if not tracks or not len(tracks[-1].id) or image is None:
        ax.set_title('tracks')
        why = 'no keypoint was tracked to the last image' if image is not None else 'no tracks'
        if image is not None:
            ax.imshow((image * 0.65).astype(np.uint8))
            ax.set_title(why)
        else:
            _say(ax, why)
        return
    ax.imshow(draw_tracks(image, tracks))
    ax.set_title(f'{len(tracks[-1].id)} keypoint tracks in the last image')


def main(arguments: list[str] | None = None) -> int:
    """Draw again what the demo drew; the exit status."""
    parser = argparse.ArgumentParser(prog='python -m vggt_ros.tools.summary', description=__doc__)
    parser.add_argument('folder', type=Path, help='a folder that vggt_recorder wrote')
    parser.add_argument('--input', type=Path, help='what was played: pictures and truth come from there')
    parser.add_argument('--topic', help='image topic of a bag')
    parser.add_argument('--fps', type=float, help='as given to the player')
    parser.add_argument('--output', type=Path, help=f'picture to write (FOLDER/{SUMMARY})')
    args = parser.parse_args(arguments)
    path = args.output or args.folder / SUMMARY
    try:
        recorded = Recorded(args.folder)
        sequence = open_sequence(args.input, topic=args.topic, fps=args.fps) if args.input else None
        accuracy = measure(recorded, sequence) if sequence is not None else RunAccuracy()
        draw(recorded, sequence, accuracy, args.input.name if args.input else args.folder.name, path)
    except (RecordedError, SequenceError, OSError) as error:
        print(f'summary: {error}', file=sys.stderr)
        return 1
    print('\n'.join([str(path), *figures(accuracy)]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
