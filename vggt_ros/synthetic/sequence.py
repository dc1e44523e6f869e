"""A rendered camera path: images and truth, one frame after another or all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.render import render
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.tracks import PointTracks, follow
from vggt_ros.synthetic.trajectory import CameraPath, make_trajectory
from vggt_ros.synthetic.truth import FrameTruth
from vggt_ros.synthetic.world import SyntheticWorld
from vggt_ros.types import Frame

FRAME_ID = 'camera_optical_frame'


@dataclass(frozen=True, eq=False)
class RenderedFrame:
    """One frame. stamp: ns. image: (H, W, 3) uint8 RGB. depth: (H, W) float32 metres, NaN = sky.

    object_id: (H, W) int32, 0 = sky. T_world_camera: (4, 4).
    """

    index: int
    stamp: int
    image: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray
    T_world_camera: np.ndarray


@dataclass(frozen=True, eq=False)
class RenderedSequence:
    """F frames of one world.

    world, trajectory: where they come from. K: (3, 3). images: (F, H, W, 3) uint8.
    depth: (F, H, W) float32 metres, NaN = sky. object_id: (F, H, W) int32.
    """

    world: SyntheticWorld
    trajectory: CameraPath
    K: np.ndarray
    images: np.ndarray
    depth: np.ndarray
    object_id: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.images.shape[2], self.images.shape[1]

    @property
    def frames(self) -> list[Frame]:
        """The images as frames; index = position."""
        stamps = self.trajectory.stamps
        return [Frame(i, int(stamps[i]), image, self.K, FRAME_ID) for i, image in enumerate(self.images)]

    @property
    def truths(self) -> list[FrameTruth]:
        """What a simulated network needs, from the images' own depth."""
        return frame_truths(self.world, self.trajectory, self.K, self.depth, self.object_id)

    def tracks(self, queries: np.ndarray, frame: int = 0) -> PointTracks:
        """Where the points seen at ``queries`` (Q, 2), pixels of ``frame``, are in all frames; B = 1."""
        scene = Scene.pack(self.world, self.trajectory.times)
        return follow(scene, self.trajectory.T_world_camera, self.K, self.size, queries, frame)


def frame_truths(
    world: SyntheticWorld,
    trajectory: CameraPath,
    K: np.ndarray,
    depth: np.ndarray | None = None,
    object_id: np.ndarray | None = None,
) -> list[FrameTruth]:
    """The truth of every pose. depth, object_id: (F, H, W) in source pixels; without depth it is rendered when it is
    asked for, exactly for the intrinsics that are asked for."""
    owner = world.object_id
    movers = {int(one): int(np.argmax(owner == one)) for one in np.unique(owner[world.moving])}
    truths = []
    for i, (T, time) in enumerate(zip(trajectory.T_world_camera, trajectory.times, strict=True)):
        poses = world.poses(time)
        truths.append(
            FrameTruth(
                T_world_camera=T,
                K=np.asarray(K, np.float64),
                depth=depth_renderer(world, T, time) if depth is None else depth[i],
                moving={one: poses[row] for one, row in movers.items()},
                object_id=None if object_id is None else object_id[i],
                T_alias_world=alias(world, T),
            )
        )
    return truths


def depth_renderer(world: SyntheticWorld, T_world_camera: np.ndarray, time: float) -> Callable:
    """A function (K (3, 3), size (w, h)) -> (h, w) float32 exact z-depth from this pose."""

    def depth(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return render(Scene.pack(world, [time]), T_world_camera[None], K, size).depth[0, 0].numpy()

    return depth


def alias(world: SyntheticWorld, T_world_camera: np.ndarray) -> np.ndarray | None:
    """T_alias_world (4, 4): moves a camera by whole periods of the world into its first copy; None without a period."""
    if world.period is None:
        return None
    length = np.linalg.norm(world.period)
    along = world.period / length
    copies = np.floor((T_world_camera[:3, 3] - world.free[0]) @ along / length)
    T = np.eye(4)
    T[:3, 3] = -copies * world.period
    return T


def default_intrinsics(size: tuple[int, int], field_of_view: float = 70.0) -> np.ndarray:
    """(3, 3) for an image of ``size`` (w, h), horizontal field of view in degrees, principal point in the middle."""
    if not 1 <= field_of_view < 179:
        raise ValueError(f'the field of view must be from 1 to 179 degrees, not {field_of_view}')
    width, height = size
    focal = width / 2 / np.tan(np.radians(field_of_view) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def render_frames(
    world: SyntheticWorld, trajectory: CameraPath, K: np.ndarray, size: tuple[int, int], device: str = 'cpu', **options
) -> Iterator[RenderedFrame]:
    """Render one pose after another. options: as for :func:`vggt_ros.synthetic.render.render`."""
    for i, stamp in enumerate(trajectory.stamps):
        pose = trajectory.T_world_camera[i]
        rendering = render(Scene.pack(world, trajectory.times[i : i + 1], device), pose[None], K, size, **options)
        image = (rendering.rgb[0, 0] * 255).round().byte().cpu().numpy()
        depth, object_id = rendering.depth[0, 0].cpu().numpy(), rendering.object_id[0, 0].cpu().numpy()
        yield RenderedFrame(i, int(stamp), image, depth, object_id, pose)


def render_sequence(
    world: SyntheticWorld,
    trajectory: CameraPath,
    K: np.ndarray,
    size: tuple[int, int],
    progress: Callable[[Iterable], Iterable] = lambda items: items,
    device: str = 'cpu',
    **options,
) -> RenderedSequence:
    """Render every pose and keep all in memory; ``progress`` wraps the iteration over frames (tqdm)."""
    frames = list(progress(render_frames(world, trajectory, K, size, device, **options)))
    stacks = (np.stack([getattr(frame, name) for frame in frames]) for name in ('image', 'depth', 'object_id'))
    return RenderedSequence(world, trajectory, np.asarray(K, np.float64), *stacks)


def make_sequence(
    kind: str = 'room',
    seed: int = 0,
    trajectory: str = 'handheld',
    frames: int = 60,
    size: tuple[int, int] = (320, 240),
    rate: float = 10.0,
    field_of_view: float = 70.0,
    world_options: dict | None = None,
    **options,
) -> RenderedSequence:
    """World, path and pictures in one call, for tests and demos; ``options`` as for :func:`render_sequence`."""
    world = make_world(kind, seed, **(world_options or {}))
    path = make_trajectory(world, trajectory, seed, frames, rate)
    return render_sequence(world, path, default_intrinsics(size, field_of_view), size, **options)
