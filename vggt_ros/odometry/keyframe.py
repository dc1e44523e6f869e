"""The map's keyframes: how they are kept, chosen as anchors of a window, and refined by every window they anchor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from vggt_ros import camera
from vggt_ros.lasting import Lasting, lasting
from vggt_ros.odometry.klt import Corners
from vggt_ros.similarity import Similarity
from vggt_ros.types import Frame

MAX_FUSED = 10
"""Windows whose word about a keyframe is averaged; later ones count like the tenth, so that the mean can still move."""
DISAGREEMENT = 0.2  # |d log z| beyond which old and new depth are two surfaces: the mean would be neither
_SAMPLES = (8, 6)  # points per keyframe, across and down, by which common surface is judged
_SAME_SURFACE = 0.1  # relative depth difference


@dataclass(eq=False)
class Keyframe(Lasting):
    """A frame of the map.

    T_map_camera: (4, 4). depth: (h, w) float32 z-depth in map units, NaN unknown; confidence: (h, w) float32 in
    [0, 1). K: (3, 3) in network pixels. descriptor: (C,). corners: that were tracked in it, if any. fused: number of
    windows its depth has been averaged over; pose_weight: how many poses by the network alone its pose is worth. drift:
    (3,) variance that the windows up to this one have added to the map's rotation (rad^2), position (in the unit of
    then) and log scale.
    """

    frame: Frame
    T_map_camera: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    K: np.ndarray
    descriptor: np.ndarray
    corners: Corners | None = None
    fused: int = 1
    pose_weight: float = 1.0
    drift: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        self.frame = replace(self.frame, image=lasting(self.frame.image))

    @cached_property
    def median_depth(self) -> float:
        """Map units; 1 when no depth is known."""
        return typical_depth(self.depth)

    @cached_property
    def _sample(self) -> np.ndarray:
        """(N, 3) a coarse sample of the surface that it sees, in its own frame."""
        height, width = self.depth.shape
        u, v = (
            np.linspace(0, length - 1, 2 * count + 1)[1::2].round().astype(int)
            for length, count in zip((width, height), _SAMPLES, strict=True)
        )
        uv = np.stack(np.meshgrid(u, v), -1).reshape(-1, 2)
        z = self.depth[uv[:, 1], uv[:, 0]]
        known = np.isfinite(z)
        return camera.rays(uv[known], self.K) * z[known, None]

    def points(self) -> np.ndarray:
        """(N, 3) a coarse sample of the surface that it sees, in the map."""
        return camera.transform(self.T_map_camera, self._sample)

    def with_window(self, T_map_camera: np.ndarray) -> np.ndarray:
        """(4, 4) the mean of its pose and of what one more window says, each by its weight."""
        return interpolate(self.T_map_camera, T_map_camera, 1 / (self.pose_weight + 1))

    def fuse(self, T_map_camera: np.ndarray, depth: np.ndarray | None, confidence: np.ndarray | None) -> None:
        """Take in one more window: where it puts the frame, all in all, and its depth into the mean by confidence.

        T_map_camera: (4, 4), its own where corners tell of it, or :meth:`with_window`. depth: (h, w) in map units,
        NaN unknown; None: the window was not asked. AMB3R-VO fuses its keyframes so.
        """
        self.T_map_camera = T_map_camera
        self.pose_weight = max(self.pose_weight, min(self.pose_weight + 1, MAX_FUSED))
        if depth is not None and confidence is not None:
            self._fuse_depth(depth, confidence, self.fused)
            self._forget()
            self.fused = min(self.fused + 1, MAX_FUSED)

    def move(self, moved: Similarity) -> None:
        """What it says of the map, x, becomes ``moved`` x: a correction, or another unit."""
        T = moved.pose(self.T_map_camera)
        # Corrections are made with transposes for inverses: without this every one of them doubles the error of R.
        T[:3, :3] = Rotation.from_matrix(T[:3, :3]).as_matrix()
        self.T_map_camera = T
        self.depth = self.depth * np.float32(moved.scale)
        self._forget()

    def _forget(self) -> None:
        for name in ('median_depth', '_sample'):
            self.__dict__.pop(name, None)

    def _fuse_depth(self, depth: np.ndarray, confidence: np.ndarray, count: int) -> None:
        with np.errstate(invalid='ignore', divide='ignore'):
            old, new = self.depth > 0, depth > 0
            step = np.log(depth / self.depth)
            # Where nobody is sure of anything, what is there stays.
            share = np.nan_to_num(confidence / (confidence + count * self.confidence))
            mean = self.depth * np.exp(share * step)
            one_surface = np.abs(step) < DISAGREEMENT
        both = old & new
        self.depth = np.where(both & one_surface, mean, np.where(old, self.depth, np.where(new, depth, np.nan))).astype(
            np.float32
        )
        known = np.where(old, self.confidence, 0.0)
        # Where the windows disagree, nobody is believed much.
        agreed = np.where(both & one_surface, (count * known + confidence) / (count + 1), known)
        agreed = np.where(both & ~one_surface, count * known / (count + 1), agreed)
        self.confidence = np.where(~old & new, confidence, agreed).astype(np.float32)


def typical_depth(depth: np.ndarray | None) -> float:
    """Median of what is known of a depth map, 1 where nothing is."""
    sample = np.full((1, 1), np.nan) if depth is None else depth[::4, ::4]
    return float(np.nanmedian(sample)) if np.isfinite(sample).any() else 1.0


def interpolate(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The pose (4, 4) that lies ``share`` of the way from a to b: slerp and lerp."""
    T = np.eye(4)
    turns = Rotation.from_matrix(np.stack([a[:3, :3], b[:3, :3]]))
    T[:3, :3] = Slerp([0.0, 1.0], turns)(share).as_matrix()
    T[:3, 3] = (1 - share) * a[:3, 3] + share * b[:3, 3]
    return T


def pose_distance(a: Keyframe, b: Keyframe) -> float:
    """Rotation (rad) + translation over a's median depth: how far apart two views are (AMB3R-VO's distance)."""
    step = camera.invert(a.T_map_camera) @ b.T_map_camera
    return float(Rotation.from_matrix(step[:3, :3]).magnitude() + np.linalg.norm(step[:3, 3]) / a.median_depth)


def covisibility(keyframes: Sequence[Keyframe], view: Keyframe) -> np.ndarray:
    """(N,) share of each keyframe's surface that the view sees too."""
    shares = np.zeros(len(keyframes))
    height, width = view.depth.shape
    T_view_map = camera.invert(view.T_map_camera)
    clouds = [keyframe.points() for keyframe in keyframes]
    counts = np.array([len(cloud) for cloud in clouds])
    if not counts.sum():
        return shares
    local = camera.transform(T_view_map, np.concatenate(clouds))
    uv = np.nan_to_num(camera.project(local, view.K), nan=-1e9, posinf=-1e9, neginf=-1e9)
    column, row = np.clip(np.rint(uv), -1, [width, height]).astype(int).T
    inside = (local[:, 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = np.full(len(local), np.nan)
    seen[inside] = view.depth[row[inside], column[inside]]
    with np.errstate(invalid='ignore'):
        common = np.abs(seen - local[:, 2]) < _SAME_SURFACE * local[:, 2]
    owner = np.repeat(np.arange(len(keyframes)), counts)
    return np.bincount(owner, common, len(keyframes)) / np.maximum(counts, 1)
