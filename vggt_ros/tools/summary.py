"""One picture of a recording: ``python -m vggt_ros.tools.summary FOLDER --input WHAT_WAS_PLAYED``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from vggt_ros import sequence as sequences
from vggt_ros.pictures import UNITS, UNKNOWN, DepthRange, colour
from vggt_ros.recording import SUMMARY
from vggt_ros.tools.recorded import Accuracy, Recorded, RecordedError, measure, pictures, seen
from vggt_ros.tools.views import draw_cloud, draw_tracks, look_at
from vggt_ros.types import Scale

COLUMNS = 5
OURS, TRUE, WARNING = '#d62728', '#1f77b4', '#b00020'
GREY = '#555555'


def draw(recorded: Recorded, sequence: sequences.Sequence | None, accuracy: Accuracy, name: str, path: Path) -> None:
    """Write the picture. name: of the input. sequence: what was played, None when it is not there any more.

    Raises OSError when it cannot be written.
    """
    with mpl.rc_context({'font.size': 10, 'axes.titlesize': 11, 'axes.edgecolor': '#999999'}):
        figure = Figure(figsize=(17, 12.2), dpi=100, facecolor='white')
        FigureCanvasAgg(figure)
        rows = figure.add_gridspec(
            2, 1, height_ratios=[1.0, 0.95], left=0.045, right=0.945, top=0.885, bottom=0.045, hspace=0.12
        )
        _title(figure, recorded, accuracy, name)
        stamps = recorded.choose(COLUMNS)
        tracks = recorded.tracks()
        wanted = [*stamps, tracks[-1].stamp] if tracks else stamps
        images = {item.stamp: seen(item) for item in pictures(sequence, wanted)} if sequence is not None else {}
        _draw_frames(figure, rows[0], recorded, stamps, images)
        lower = rows[1].subgridspec(2, 3, width_ratios=[1.0, 1.25, 1.25], hspace=0.3, wspace=0.12)
        _draw_trajectory(figure.add_subplot(lower[0, 0]), figure.add_subplot(lower[1, 0]), recorded, accuracy)
        _draw_clouds([figure.add_subplot(lower[:, 1]), figure.add_subplot(lower[0, 2])], recorded)
        last = images.get(tracks[-1].stamp) if tracks else None
        _draw_tracks(figure.add_subplot(lower[1, 2]), tracks, last)
        figure.savefig(path)


def _title(figure: Figure, recorded: Recorded, accuracy: Accuracy, name: str) -> None:
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
    figure.text(0.045, 0.965, name, fontsize=20, fontweight='bold', va='center')
    figure.text(0.045, 0.935, '   ·   '.join(x for x in parts if x), fontsize=12, color=GREY, va='center')
    if recorded.is_untrained:
        figure.text(
            0.945,
            0.965,
            'UNTRAINED NETWORK: noise, not a result',
            fontsize=17,
            fontweight='bold',
            color='white',
            ha='right',
            va='center',
            bbox={'boxstyle': 'round,pad=0.4', 'facecolor': WARNING, 'edgecolor': 'none'},
        )
    figure.text(0.945, 0.935, '   ·   '.join(figures(accuracy)), fontsize=12, color=GREY, ha='right', va='center')


def figures(accuracy: Accuracy) -> list[str]:
    """The accuracy in words, nothing where there is no truth."""
    words = []
    if accuracy.trajectory is not None:
        error = accuracy.trajectory
        words.append(f'ATE {error.rmse:.3f} m RMSE over {error.path:.1f} m (after Sim(3) alignment)')
    if accuracy.depth is not None:
        words.append(f'depth AbsRel {accuracy.depth:.3f} (after one scale)')
    return words


def _draw_frames(figure: Figure, place, recorded: Recorded, stamps: list[int], images: dict[int, np.ndarray]) -> None:
    depths = recorded.images('/depth/image_rect', stamps)
    confidences = recorded.images('/depth/confidence', stamps)
    together = np.concatenate([depth.ravel() for depth in depths.values()]) if depths else np.empty(0)
    scale = DepthRange.of(together, margin=1.0)
    grid = place.subgridspec(3, COLUMNS, hspace=0.05, wspace=0.03)
    start = stamps[0]
    for column in range(COLUMNS):
        axes = [figure.add_subplot(grid[row, column]) for row in range(3)]
        for ax in axes:
            _frame_only(ax)
        if column >= len(stamps):
            for ax in axes:
                ax.set_visible(False)
            continue
        stamp = stamps[column]
        axes[0].set_title(f't = {(stamp - start) * 1e-9:.2f} s', color=GREY, pad=4)
        if stamp in images:
            axes[0].imshow(images[stamp])
        else:
            _say(axes[0], 'input not at hand')
        if stamp in depths and scale is not None:
            axes[1].imshow(scale.colour(depths[stamp]))
        else:
            _say(axes[1], 'no depth')
        if stamp in confidences:
            axes[2].imshow(colour(confidences[stamp], cv2.COLORMAP_VIRIDIS))
        else:
            _say(axes[2], 'no confidence')
        if column == 0:
            for ax, text in zip(axes, ('input', 'depth', 'confidence'), strict=True):
                ax.set_ylabel(text, fontsize=12)
        if column == min(COLUMNS, len(stamps)) - 1:
            if scale is not None and scale.far > scale.near:
                turbo = mpl.colormaps['turbo_r']
                shown = mpl.cm.ScalarMappable(LogNorm(scale.near, scale.far), turbo)
                bar = _bar(figure, axes[1], shown, f'depth, {UNITS[recorded.scale]}')
                ticks = [scale.at(x) for x in (0, 0.25, 0.5, 0.75, 1)]
                bar.set_ticks(ticks, labels=[f'{x:.3g}' for x in ticks])
                bar.minorticks_off()
            _bar(figure, axes[2], mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 1), 'viridis'), 'confidence')
    figure.text(
        0.945, 0.905, 'grey: unknown', fontsize=9, ha='right', va='center', color='white',
        bbox={'boxstyle': 'square,pad=0.3', 'facecolor': np.array(UNKNOWN) / 255, 'edgecolor': 'none'},
    )  # fmt: skip


def _bar(figure: Figure, beside: Axes, shown, label: str):
    inset = beside.inset_axes((1.02, 0.0, 0.03, 1.0))
    return figure.colorbar(shown, cax=inset, label=label)


def _frame_only(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])


def _say(ax: Axes, text: str) -> None:
    ax.set_facecolor('#f2f2f2')
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha='center', va='center', color=GREY)


def _draw_trajectory(top: Axes, side: Axes, recorded: Recorded, accuracy: Accuracy) -> None:
    """Both in the map's axes (x forward, y left, z up), in the truth's metres where there is truth."""
    ours = recorded.trajectory.T_world_camera[:, :3, 3]
    error = accuracy.trajectory
    true = None
    unit = 'm' if recorded.scale is Scale.METRIC else 'relative units'
    if error is not None:
        ours, true, unit = error.scale * ours, (error.truth - error.t) @ error.R, 'm'
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


def _draw_clouds(axes: list[Axes], recorded: Recorded) -> None:
    xyz, rgb = recorded.cloud
    poses = recorded.trajectory.T_world_camera
    for ax in axes:
        _frame_only(ax)
        if not len(xyz):
            ax.set_title('cloud')
            _say(ax, 'no cloud was recorded')
    if not len(xyz):
        return
    path = poses[:, :3, 3]
    low, high = np.percentile(xyz, (2, 98), axis=0)
    extent = float(np.linalg.norm(high - low))
    # Voxels are about as dense as the points: the mean distance of neighbours on surfaces, from the number of points.
    spacing = 0.9 * extent / np.sqrt(len(xyz))
    middle = (low + high) / 2
    kept = ((xyz >= low - 0.2 * extent) & (xyz <= high + 0.2 * extent)).all(1)
    heading = poses[0, :3, 2] * (1, 1, 0)
    heading /= max(float(np.linalg.norm(heading)), 1e-9)
    below = kept & (xyz[:, 2] <= path[:, 2].max() + 0.03 * extent)
    above = look_at(middle - 0.55 * extent * heading + np.array([0, 0, 0.75 * extent]), middle)
    axes[0].imshow(draw_cloud(xyz[below], rgb[below], above, (900, 760), spacing=spacing, path=path))
    axes[0].set_title('cloud from above, cut at camera height; path red')
    pose = poses[len(poses) // 2]
    distance = float(np.median((xyz - pose[:3, 3]) @ pose[:3, 2]))
    behind = pose.copy()
    behind[:3, 3] += -0.35 * max(distance, 0.1 * extent) * pose[:3, 2]
    axes[1].imshow(draw_cloud(xyz[kept], rgb[kept], behind, (900, 400), spacing=spacing, field_of_view=75))
    axes[1].set_title('cloud from behind the camera, half way')


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
        sequence = sequences.open_sequence(args.input, topic=args.topic, fps=args.fps) if args.input else None
        accuracy = measure(recorded, sequence) if sequence is not None else Accuracy()
        draw(recorded, sequence, accuracy, args.input.name if args.input else args.folder.name, path)
    except (RecordedError, sequences.SequenceError, OSError) as error:
        print(f'summary: {error}', file=sys.stderr)
        return 1
    print('\n'.join([str(path), *figures(accuracy)]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
