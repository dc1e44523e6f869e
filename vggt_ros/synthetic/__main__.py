"""``python -m vggt_ros.synthetic``: render a world along a camera path into a folder or a bag, with exact truth."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from vggt_ros.synthetic import places, sheet, trajectory
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.writers import write_bag, write_folder


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(word) for word in text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size like 320x240') from None
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is an empty image')
    return width, height


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m vggt_ros.synthetic', description=__doc__)
    add = parser.add_argument
    add('--kind', choices=list(places.KINDS), default='room', help='what kind of world (room)')
    add('--seed', type=int, default=0, help='the world and the path; the same seed gives the same pictures (0)')
    add('--trajectory', choices=list(trajectory.KINDS), default='handheld', help='how the camera moves (handheld)')
    add('--frames', type=int, default=60, help='number of pictures (60)')
    add('--rate', type=float, default=10.0, help='pictures per second (10)')
    add('--size', type=_size, default=(320, 240), metavar='WxH', help='size in pixels (320x240)')
    add('--fov', type=float, default=70.0, help='horizontal field of view in degrees (70)')
    add('--output', type=Path, metavar='DIR', help='where to write; must not exist or be empty')
    add('--format', choices=('folder', 'mcap'), default='folder', help='folder of pictures, or ROS 2 bag (folder)')
    add('--image-format', choices=('png', 'jpg'), default='png', help='of the pictures in a folder (png)')
    add('--depth-scale', type=float, default=0.001, help='metres per unit of the 16-bit depth pictures (0.001)')
    add('--exact-depth', action='store_true', help='write depth as float32 .npy too')
    add('--samples', type=int, default=1, help='colour samples per pixel and axis; 2 or 3 smooth the edges (1)')
    add('--shadows', action='store_true', help='cast shadows')
    add('--occlusion', action='store_true', help='darken corners and contacts')
    add('--bare', action='store_true', help='walls without texture')
    add('--mirrors', action='store_true', help='mirrors and glass')
    add('--moving', action='store_true', help='moving objects')
    add('--clutter', type=float, default=1.0, help='how many things stand around (1)')
    add('--device', default='cpu', help='torch device (cpu)')
    add('--contact-sheet', type=Path, metavar='FILE', help='instead: draw 24 worlds into one JPEG')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        if args.contact_sheet:
            sheet.write_contact_sheet(args.contact_sheet, args.seed, lambda items: tqdm(items, unit='world'))
            return 0
        if args.output is None:
            parser.error('--output or --contact-sheet is needed')
        world = places.make_world(
            args.kind, args.seed, bare=args.bare, mirrors=args.mirrors, moving=args.moving, clutter=args.clutter
        )
        path = trajectory.make_trajectory(world, args.trajectory, args.seed, args.frames, args.rate)
        K = default_intrinsics(args.size, args.fov)
        options = {'samples': args.samples, 'shadows': args.shadows, 'occlusion': args.occlusion}
        frames = render_frames(world, path, K, args.size, args.device, **options)
        frames = tqdm(frames, total=args.frames, unit='frame')
        if args.format == 'mcap':
            write_bag(args.output, frames, K, args.size)
        else:
            write_folder(
                args.output,
                frames,
                K,
                args.size,
                suffix=args.image_format,
                depth_scale=args.depth_scale,
                exact_depth=args.exact_depth,
            )
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
