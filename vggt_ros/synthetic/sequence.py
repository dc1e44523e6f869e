"""A rendered camera path: images and truth in memory, as frames for the odometry and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.simulated import FrameTruth
from vggt_ros.synthetic.trajectory import Trajectory
from vggt_ros.synthetic.world import World
from vggt_ros.types import Frame


@dataclass(frozen=True, eq=False)
class RenderedSequence:
    """F frames of one world.

    world, trajectory: where they come from. K: (3, 3). images: (F, H, W, 3) uint8.
    depth: (F, H, W) float32 metres, NaN = sky. object_id: (F, H, W) int32.
    """

    world: World
    trajectory: Trajectory
    K: np.ndarray
    images: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray

    @property
    def frames(self) -> list[Frame]:
        """The images as frames; index = position."""
        stamps = self.trajectory.stamps
        return [Frame(i, int(stamps[i]), image, self.K, 'camera') for i, image in enumerate(self.images)]

    @property
    def truths(self) -> list[FrameTruth]:
        """What a simulated network needs."""
        moving = self.world.moving
        identities = {
            int(one): int(np.argmax(self.world.object_id == one)) for one in set(self.world.object_id[moving])
        }
        result = []
        for i, (T, time) in enumerate(zip(self.trajectory.T_world_camera, self.trajectory.times, strict=True)):
            poses = self.world.poses(time) if identities else None
            result.append(
                FrameTruth(
                    T_world_camera=T,
                    K=self.K,
                    depth=self.depth[i],
                    moving={one: poses[row] for one, row in identities.items()},
                    object_id=self.object_id[i],
                )
            )
        return result


def default_intrinsics(size: tuple[int, int], field_of_view: float = 70.0) -> np.ndarray:
    """(3, 3) for an image of ``size`` (w, h), horizontal field of view in degrees, principal point in the middle."""
    width, height = size
    focal = width / 2 / np.tan(np.radians(field_of_view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def render_sequence(
    world: World,
    trajectory: Trajectory,
    K: np.ndarray,
    size: tuple[int, int],
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    device: str = 'cpu',
    **options,
) -> RenderedSequence:
    """Render every pose. options: as for :func:`render`; ``progress`` wraps the loop over frames (tqdm)."""
    images, depth, object_id = [], [], []
    for i in progress(range(len(trajectory.times))):
        scene = Scene.pack(world, trajectory.times[i : i + 1], device)
        rendering = render(scene, trajectory.T_world_camera[i : i + 1], K, size, **options)
        images.append((rendering.rgb[0, 0] * 255).round().byte().cpu().numpy())
        depth.append(rendering.depth[0, 0].cpu().numpy())
        object_id.append(rendering.object_id[0, 0].cpu().numpy())
    return RenderedSequence(
        world, trajectory, np.asarray(K, np.float64), np.stack(images), np.stack(depth), np.stack(object_id)
    )
