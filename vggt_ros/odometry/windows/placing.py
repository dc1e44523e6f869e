"""From a window and its anchors to where everything in it lies in the map, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe, typical_depth
from vggt_ros.odometry.klt import Corners
from vggt_ros.odometry.windows.alignment import Alignment, Anchor, align
from vggt_ros.odometry.windows.covariance import PoseNoise
from vggt_ros.odometry.windows.landmarks import two_views
from vggt_ros.odometry.windows.lenses import misjudged
from vggt_ros.odometry.windows.observations import Slot
from vggt_ros.odometry.windows.quality import Quality
from vggt_ros.odometry.windows.refine import Refined, refine
from vggt_ros.odometry.windows.weighing import RefineConfig
from vggt_ros.odometry.windows.window import Window, at_network_pixels, intrinsics
from vggt_ros.similarity import Similarity
from vggt_ros.types import WindowPrediction

CornersOf = Callable[[int], Corners | None]
"""Frame index -> the corners tracked in it, None where unknown."""

FLOOR = 0.0003  # standard deviation of any step, share of the median depth: 0.15 px of a corner
AGREED = 0.75  # share of the corners below which something else moves, and nobody knows which of the two stands still
HELD_TRANSLATION, HELD_ROTATION = 0.006, np.radians(0.25)
"""How sure the place of a refined frame in the map is at best, share of the depth and rad: beyond its own window the
errors of corners and depth add up to more than the window's covariance says."""
TURN = np.radians(1.0)  # by which the rotation between two images errs that their corners tell
ROTATION_FLOOR = np.radians(0.1)  # of any pose in the map


@dataclass(frozen=True, eq=False)
class PlacedWindow:
    """A window in the map.

    anchors: the keyframes in its first slots. reasons: why the quality is not GOOD, or the network did not carry the
    poses, but corners alone (by_corners), or no more than those that neighbouring images share (paired). T: (A + N, 4,
    4) anchors and new frames, refined by corners, whose covariances and changes of depth are in ``refined``.
    """

    window: Window
    prediction: WindowPrediction
    anchors: Sequence[Keyframe]
    alignment: Alignment
    quality: Quality
    reasons: tuple[str, ...]
    refined: Refined
    min_confidence: float
    by_corners: bool = False
    paired: bool = False

    @property
    def T(self) -> np.ndarray:
        """(A + N, 4, 4) poses in the map."""
        return self.refined.T_map_camera

    @property
    def agreed(self) -> float:
        """Least share of the corners of a new frame that agree with the others and the network."""
        return float(self.refined.agreed[self.window.anchors :].min())

    @property
    def degraded(self) -> bool:
        """Whether the window is not quite to be believed, by its anchors or by its corners."""
        return self.quality is Quality.DEGRADED or self.agreed < AGREED

    @property
    def similarity(self) -> Similarity:
        """From window to map."""
        return self.alignment.similarity

    def raw(self, slot: int) -> np.ndarray:
        """(4, 4) the pose of any slot in the map as the network has it."""
        return self.similarity.pose(self.prediction.T_window_camera[slot])

    def depth(self, slot: int) -> np.ndarray:
        """(h, w) float32 map units as this window has it, refined by corners; NaN where it is not to be believed."""
        frame, confidence = self.window.frames[slot], self.prediction.confidence[slot]
        depth = self.prediction.depth[slot] * self.similarity.scale
        if slot < len(self.T):
            depth = depth * self.refined.depth_factor(slot, depth.shape)
        depth = depth.astype(np.float32)
        with np.errstate(invalid='ignore'):
            known = (depth > 0) & (confidence >= self.min_confidence)
        if frame.valid is not None:
            known &= at_network_pixels(frame.valid, self.prediction.maps[slot])
        depth[~known] = np.nan
        return depth

    def worth(self, slot: int, noise: PoseNoise) -> float:
        """How many poses by the network alone the pose of this slot is worth, at least 1."""
        if self.refined.covariances[slot] is None:
            return 1.0
        return max(1.0, min(noise.translation / HELD_TRANSLATION**2, noise.rotation / HELD_ROTATION**2))

    def step_covariance(self, slot: int, depth: float, noise: PoseNoise) -> np.ndarray:
        """(6, 6) of the step from slot 0 to this one; map axes, times 4 when the window is DEGRADED."""
        refined = self.refined.covariances[slot]
        covariance = noise.covariance(depth) if refined is None else refined.copy()
        way = self.T[slot][:3, 3] - self.T[0][:3, 3]
        if refined is None:  # the adjustment knows of it
            covariance[:3, :3] += self.alignment.scale_sigma**2 * np.outer(way, way)
        covariance[:3, :3] += np.eye(3) * (FLOOR * depth) ** 2
        return covariance * (4.0 if self.degraded else 1.0)

    def pose_covariance(self, step: np.ndarray) -> np.ndarray:
        """(6, 6) in the map: the step, the window's place among its anchors, and a floor."""
        covariance = step + self.alignment.covariance
        covariance[3:, 3:] += np.eye(3) * ROTATION_FLOOR**2
        return covariance


def first_alignment(R_map_camera: np.ndarray) -> Alignment:
    """The first window is the map; its slot 0 stands at the origin, turned by ``R_map_camera`` (3, 3)."""
    return Alignment(Similarity(1.0, R_map_camera, np.zeros(3)), 0.0, 0.0, 0.0, 1.0, np.zeros((6, 6)))


def align_keyframes(
    keyframes: Sequence[Keyframe],
    slots: Sequence[int],
    prediction: WindowPrediction,
    scale_prior: float | None = None,
    position_sigma: float | None = None,
) -> Alignment:
    """Where the window lies by these keyframes, each in its slot; the rest is as for :func:`alignment.align`."""
    return align(
        [
            Anchor(
                keyframe.T_map_camera,
                prediction.T_window_camera[slot],
                keyframe.depth,
                prediction.depth.get(slot),
                keyframe.confidence,
                prediction.confidence.get(slot),
                keyframe.fused,
                keyframe.pose_weight,
            )
            for slot, keyframe in zip(slots, keyframes, strict=True)
        ],
        scale_prior=scale_prior,
        position_sigma=position_sigma,
    )


def in_metres(alignment: Alignment, factor: float) -> Alignment:
    """The anchors' unit corrected to the metre; slot 0 is the window's origin and stays where it is."""
    similarity = alignment.similarity
    return replace(alignment, similarity=replace(similarity, scale=similarity.scale * factor))


def place(
    window: Window,
    prediction: WindowPrediction,
    anchors: Sequence[Keyframe],
    alignment: Alignment,
    quality: Quality,
    reasons: tuple[str, ...],
    corners: CornersOf,
    noise: PoseNoise,
    surface: float,
    config: OdometryConfig,
) -> PlacedWindow:
    """Everything where the alignment puts it, then refined by what was tracked, if anything was."""
    known = window.anchors + window.new
    T = np.stack([alignment.similarity.pose(one) for one in prediction.T_window_camera[:known]])
    placed = PlacedWindow(
        window, prediction, anchors, alignment, quality, reasons, Refined.unchanged(T), config.min_confidence
    )
    depth = anchors[0].median_depth if anchors else typical_depth(placed.depth(0))
    sigma = np.sqrt(np.diag(noise.covariance(depth)))
    T, turned = _turned(T, window, prediction, anchors, corners, sigma[3])
    placed = replace(placed, refined=Refined.unchanged(T))
    slots = _slots(window, prediction, alignment.similarity, anchors, T, corners, config.min_confidence)
    slots = [replace(one, turned=turn) for one, turn in zip(slots, turned, strict=True)]
    if sum(slot.corners is not None for slot in slots) > 1:
        weights, sigmas = RefineConfig.of(config.accuracy).seen(surface), (alignment.scale_sigma, window.focal_sigma)
        refined = refine(slots, sigma[3], sigma[0], weights, *sigmas)
        return replace(placed, refined=refined)
    return placed


def _turned(
    T: np.ndarray,
    window: Window,
    prediction: WindowPrediction,
    anchors: Sequence[Keyframe],
    corners: CornersOf,
    sigma: float,
) -> tuple[np.ndarray, list[float | None]]:
    """Poses (A + N, 4, 4) of which each new one is turned against the one before as the corners of the two say where
    the network says something else by more than corners err, and how sure the turns of all are where corners tell, rad.

    From a start that is turned far off, the adjustment would take the rest of the turn for a motion. sigma: rad, of a
    turn by the network.
    """
    turned = T.copy()
    sigmas: list[float | None] = [None] * len(T)
    start = anchors[0].T_map_camera if anchors else T[0]  # where the map has it, not this window
    for slot in window.new_slots:
        before = slot - 1 if slot > window.anchors else 0
        a = anchors[0].corners if before == 0 and anchors else corners(window.frames[before].index)
        b = corners(window.frames[slot].index)
        if not slot or a is None or b is None:
            continue
        seen = two_views(a, b, intrinsics(window.frames[slot], prediction.maps[slot], prediction.K[slot]))
        if seen is None:
            continue
        T_before = turned[before] if before else start
        off = Rotation.from_matrix(seen[:3, :3].T @ T_before[:3, :3].T @ T[slot][:3, :3]).magnitude()
        if off < TURN:
            sigmas[slot] = min(sigma, TURN)
        else:
            step = invert(T[before]) @ T[slot]
            step[:3, :3] = seen[:3, :3]
            turned[slot], sigmas[slot] = T_before @ step, TURN
    return turned, sigmas


def _doubts(T_start: np.ndarray, T: np.ndarray, share: float) -> tuple[float, float]:
    """How wrong a pose may be by a share of the step to it: (translation, rotation in rad)."""
    step = invert(T_start) @ T
    turn = Rotation.from_matrix(step[:3, :3]).magnitude()
    return share * float(np.linalg.norm(step[:3, 3])), share * float(turn)


def _slots(
    window: Window,
    prediction: WindowPrediction,
    similarity: Similarity,
    anchors: Sequence[Keyframe],
    T: np.ndarray,
    corners: CornersOf,
    min_confidence: float,
) -> list[Slot]:
    """What the refinement is told of anchors and new frames: anchors stand where the map has them, with its depth."""

    def known(number: int) -> np.ndarray:
        depth = prediction.depth[number] * similarity.scale
        return np.where(prediction.confidence[number] >= min_confidence, depth, np.nan)

    slots, lens = [], abs(misjudged(window.frames, prediction))
    for number, frame in enumerate(window.frames[: len(T)]):
        pixel_map = prediction.maps[number]
        K = intrinsics(frame, pixel_map, prediction.K[number])
        if number < len(anchors):
            anchor = anchors[number]
            fresh = known(number) if number in prediction.depth else None
            given = anchor.with_window(T[number]), anchor.corners, anchor.depth
            weights = anchor.fused, anchor.pose_weight + 1
            slots.append(Slot(*given, K, pixel_map, *weights, known=True, fresh=fresh))
            continue
        depth = known(number)
        first = not anchors and number == 0
        of = corners(frame.index)
        doubt = _doubts(T[0], T[number], lens)
        slots.append(Slot(T[number], of, depth, K, pixel_map, known=first, fixed=first, doubt=doubt))
    return slots
