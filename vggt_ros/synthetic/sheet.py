"""A contact sheet: many worlds in one picture, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics
from vggt_ros.synthetic.trajectory import make_trajectory
from vggt_ros.synthetic.world import SyntheticWorld

COLUMNS, TILE = 6, (320, 240)
WORLDS: tuple[tuple[str, dict], ...] = (
    *(('room', {}),) * 6,
    *(('corridor', {}),) * 3,
    *(('hall', {}),) * 3,
    *(('street', {}),) * 3,
    *(('park', {}),) * 3,
    ('room', {'mirrors': True}),
    ('hall', {'moving': True}),
    ('street', {'mirrors': True}),
    ('twins', {}),
    ('planar', {}),
    ('room', {'bare': True}),
)
"""The 24 worlds: every kind and every hard case."""


def _best_view(world: SyntheticWorld, seed: int, candidates: int = 12) -> np.ndarray:
    """(4, 4) the hand-held pose that sees most: many objects, colours and distances."""
    size = (48, 36)
    poses = np.stack([make_trajectory(world, 'handheld', seed + i, 1).T_world_camera[0] for i in range(candidates)])
    small = render(Scene.pack(world), poses, default_intrinsics(size, 75), size)
    scores = []
    for rgb, depth, identity in zip(
        small.rgb[0].numpy(), small.depth[0].numpy(), small.object_id[0].numpy(), strict=True
    ):
        _, counts = np.unique(identity, return_counts=True)
        share = counts / counts.sum()
        near = np.nanpercentile(np.nan_to_num(depth, nan=100.0), 5)
        scores.append(-(share * np.log(share)).sum() + 2 * rgb.std() + 0.5 * min(near, 1.5))
    return poses[int(np.argmax(scores))]


def write_contact_sheet(
    path: Path | str, seed: int = 0, progress: Callable[[Iterable], Iterable] = lambda items: items
) -> None:
    """Draw WORLDS, numbered from ``seed``, into one JPEG file with shadows and occlusion."""
    tiles = []
    for number, (kind, options) in progress(list(enumerate(WORLDS))):
        world = make_world(kind, seed + number, **options)
        pose = _best_view(world, seed + number)
        scene, K = Scene.pack(world), default_intrinsics(TILE, 75)
        rgb = render(scene, pose[None], K, TILE, samples=2, shadows=True, occlusion=True).rgb[0, 0].numpy()
        tile = np.ascontiguousarray((255 * rgb).round().astype(np.uint8))
        tiles.append(cv2.copyMakeBorder(tile, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    sheet = cv2.cvtColor(np.concatenate(rows, axis=0), cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f'{path} cannot be written')
