"""A window that the network cannot place, placed by its corners.

Its new frames stand where points of the map say that they do, whatever the network thinks of their poses; the depth
that it predicts for them is fitted to those points, each frame by a factor of its own, and weighs in the adjustment as
much as it agrees with them. So scale and place live on in corners and keyframes while the network fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import PixelMap, invert, transform
from vggt_ros.depth import depth_at
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe, typical_depth
from vggt_ros.odometry.klt import Corners, common
from vggt_ros.odometry.windows.alignment import Alignment
from vggt_ros.odometry.windows.covariance import PoseNoise
from vggt_ros.odometry.windows.landmarks import (
    FEWEST,
    NO_LANDMARKS,
    Landmarks,
    View,
    bridged,
    by_depth,
    locate,
    locate_turned,
    triangulate,
    two_views,
)
from vggt_ros.odometry.windows.observations import MIN_POINTS, Slot
from vggt_ros.odometry.windows.placing import HELD_ROTATION, HELD_TRANSLATION, TURN, CornersOf, PlacedWindow
from vggt_ros.odometry.windows.quality import Quality
from vggt_ros.odometry.windows.refine import Refined, refine
from vggt_ros.odometry.windows.weighing import RefineConfig
from vggt_ros.odometry.windows.window import Window, intrinsics
from vggt_ros.similarity import Similarity
from vggt_ros.types import WindowPrediction

BESIDE = 8  # latest keyframes that are adjusted together with those that the network sees
DOUBT = 0.1, 0.05  # standard deviation of a pose by points before the adjustment: share of the depth, rad
FRAME = 0.3  # log, of a frame's depth fitted to its points
WILD = 0.3  # log, spread of depth about the points where these are too few to tell
UNIT = 0.1  # log, the same from one window to the next at best
SURE = 25  # corners that tie a frame to the map; where fewer do, its pose is in doubt
ELSEWHERE = np.radians(2.0)  # turned against what the corners of two images say, beyond which points are not believed
MOST = 0.5  # of a frame's corners must agree in the end
TURNED = 25  # corners shared with the image before by which a frame may hang on it alone
SCALE = 0.01  # log, of the unit of such a window against that of its anchors


def place_by_corners(
    window: Window,
    prediction: WindowPrediction,
    anchors: Sequence[Keyframe],
    keyframes: Sequence[Keyframe],
    corners: CornersOf,
    noise: PoseNoise,
    config: OdometryConfig,
    why: str,
    unit: float = 1.0,
) -> PlacedWindow | None:
    """The window in the map; None where the corners do not tell where all of its new frames are.

    keyframes: of the map, in the order of time. noise: of the anchors' poses. why: the network did not place it.
    unit: by which lengths from slot 0 on are to be longer than the anchors have them.
    """
    beside = [one for one in keyframes if not any(one is anchor for anchor in anchors)][-BESIDE:]
    pixel_map = prediction.maps[0]
    views = [view_of(one, pixel_map) for one in (*anchors, *beside) if one.corners is not None]
    guessed = _guessed(anchors, pixel_map)
    new = _locate(_Asked(window, prediction, corners, config), window.new_slots, views, guessed)
    if new is None:
        return None
    landmarks = triangulate([*views, *(one.view for one in new)])
    if min(len(landmarks.seen_in(one.view.corners)[0]) for one in new) < FEWEST:
        landmarks = landmarks.and_others(guessed)
    depth = anchors[0].median_depth
    told = _unit(anchors, prediction)
    fits = _fits(new, landmarks, told)
    if fits is None:
        return None
    slots, weights = [_slot(one, pixel_map) for one in anchors], fits.weights(config)
    slots += [_fresh(one, factor, depth) for one, factor in zip(new, fits.factors, strict=True)]
    slots += [_slot(one, pixel_map) for one in beside]
    sigma = np.sqrt(np.diag(noise.covariance(depth)))
    refined = refine(slots, sigma[3], sigma[0], weights, focal_sigma=window.focal_sigma).first(len(anchors) + len(new))
    paired = not _holds(refined, window.new_slots)
    if paired:
        if min(one.shared for one in new) < TURNED:
            return None
        refined, why = _as_turned(anchors, new), f'only pairs of images tell; {why}'
    T = refined.T_map_camera.copy()
    T[window.anchors :, :3, 3] = T[0, :3, 3] + unit * (T[window.anchors :, :3, 3] - T[0, :3, 3])
    covariance = np.diag([(HELD_TRANSLATION * depth) ** 2] * 3 + [HELD_ROTATION**2] * 3) / len(anchors)
    placed = _placed(window, prediction, anchors, replace(refined, T_map_camera=T), fits, unit, covariance, config, why)
    if paired:
        return replace(placed, quality=Quality.DEGRADED, paired=True)
    # Where few points hold a frame it hangs on the image before, by corners that moved as a rigid scene would.
    return replace(placed, refined=placed.refined.tied(window.new_slots, [one.shared for one in new]))


def begin_by_corners(
    window: Window,
    prediction: WindowPrediction,
    R_map_camera: np.ndarray,
    corners: CornersOf,
    config: OdometryConfig,
    why: str,
) -> PlacedWindow | None:
    """The first window, which is the map; its unit is that of the network's depth in slot 0.

    Two frames are placed by their essential matrix (Nister 2004), the others by the points that those two see. None
    where they see none from different enough places. R_map_camera: (3, 3) of slot 0, which is the map's origin.
    """
    asked, T = _Asked(window, prediction, corners, config), np.eye(4)
    T[:3, :3] = R_map_camera
    first = asked.located(0, T)
    if first is None:
        return None
    second = _second(asked, first)
    rest = None if second is None else _locate(asked, window.new_slots[1:], [first.view, second], NO_LANDMARKS)
    if rest is None:
        return None
    new = [first, *rest]
    fits = _fits(new, triangulate([one.view for one in new]))
    if fits is None:
        return None
    depth = typical_depth(first.depth)
    slots = [_fresh(one, factor, depth) for one, factor in zip(new, fits.factors, strict=True)]
    slots[0] = replace(slots[0], known=True, fixed=True)
    refined = refine(slots, DOUBT[1], DOUBT[0] * depth, fits.weights(config), focal_sigma=window.focal_sigma)
    if not _holds(refined, window.new_slots[1:]) or refined.agreed[0] < MOST:  # the first one is where it is
        return None
    return _placed(window, prediction, (), refined, fits, 1.0, np.zeros((6, 6)), config, why)


def _second(asked: _Asked, first: _Located) -> View | None:
    """The last of the frames that sees points together with the first; lengths in the unit of the first's depth."""
    for slot in reversed(asked.window.new_slots[1:]):
        seen = asked.corners_of(slot)
        step = None if seen is None else two_views(first.view.corners, seen, first.view.K)
        if seen is None or step is None:
            continue
        second = View(first.view.T @ step, first.view.K, seen)
        if (known := _fits([first], triangulate([first.view, second]))) is not None:
            step[:3, 3] /= known.factors[0]
            return second._replace(T=first.view.T @ step)
    return None


class _Located(NamedTuple):
    """A new frame. view: where it is. pixel_map, depth: the network's (h, w), NaN where it is not to be believed.

    shared: with how many corners the image before tells how it is turned, 0 where it does not.
    """

    view: View
    pixel_map: PixelMap
    depth: np.ndarray
    shared: int = 0


class _Asked(NamedTuple):
    """What is known of the new frames before they are placed."""

    window: Window
    prediction: WindowPrediction
    corners: CornersOf
    config: OdometryConfig

    def corners_of(self, slot: int) -> Corners | None:
        return self.corners(self.window.frames[slot].index)

    def K(self, slot: int) -> np.ndarray:
        """(3, 3) in source pixels."""
        return intrinsics(self.window.frames[slot], self.prediction.maps[slot], self.prediction.K[slot])

    def located(self, slot: int, T: np.ndarray) -> _Located | None:
        """The frame at a pose (4, 4); None where nothing was tracked in it."""
        seen = self.corners_of(slot)
        if seen is None:
            return None
        confident = self.prediction.confidence[slot] >= self.config.min_confidence
        depth = np.where(confident, self.prediction.depth[slot], np.nan)
        return _Located(View(T, self.K(slot), seen), self.prediction.maps[slot], depth)


class _Fits(NamedTuple):
    """How the depth of new frames fits to points. factors: (N,) of each. spread: about the points then, log. sigma: of
    the log of the factors.
    """

    factors: np.ndarray
    spread: float
    sigma: float

    def weights(self, config: OdometryConfig) -> RefineConfig:
        """Depth counts as much as it has shown to be worth."""
        return replace(RefineConfig.of(config.accuracy).seen(self.spread), frame=self.sigma)


def _fits(frames: Sequence[_Located], landmarks: Landmarks, told: tuple[float, float] | None = None) -> _Fits | None:
    """None where neither points nor anchors tell. told: the factor by the anchors, if they do, and how sure it is."""
    factors, spreads = np.array([fit(one.view, one.pixel_map, one.depth, landmarks) for one in frames]).T
    spread = float(np.nanmedian(spreads)) if np.isfinite(spreads).any() else WILD
    if told is not None:
        return _Fits(np.full(len(frames), told[0]), spread, told[1])
    return _Fits(factors, spread, FRAME) if np.isfinite(factors).all() else None


def _holds(refined: Refined, new: Sequence[int]) -> bool:
    """Whether most corners of all of these slots agree in the end."""
    return all(refined.agreed[slot] >= MOST and refined.covariances[slot] is not None for slot in new)


def _as_turned(anchors: Sequence[Keyframe], new: Sequence[_Located]) -> Refined:
    """The new frames as they were located, tied by what each shares with the one before."""
    T = np.stack([*(one.T_map_camera for one in anchors), *(one.view.T for one in new)])
    ties = np.zeros(len(T), int)
    ties[len(anchors) :] = [one.shared for one in new]
    return replace(Refined.unchanged(T), ties=ties)


def _placed(
    window: Window,
    prediction: WindowPrediction,
    anchors: Sequence[Keyframe],
    refined: Refined,
    fits: _Fits,
    unit: float,
    covariance: np.ndarray,
    config: OdometryConfig,
    why: str,
) -> PlacedWindow:
    new, T = window.new_slots, refined.T_map_camera[0]
    middle = float(np.median(fits.factors))
    alignment = Alignment(Similarity(unit * middle, T[:3, :3], T[:3, 3]), SCALE, 0.0, 0.0, 1.0, covariance)
    # The depth of each frame has a unit of its own.
    own = dict(zip(new, fits.factors / middle, strict=True))
    depth = {slot: (one * own.get(slot, 1.0)).astype(np.float32) for slot, one in prediction.depth.items()}
    return PlacedWindow(
        window,
        replace(prediction, depth=depth),
        anchors,
        alignment,
        Quality.GOOD if not anchors or refined.ties[list(new)].min() >= SURE else Quality.DEGRADED,
        (f'placed by corners: {why}',),
        refined,
        config.min_confidence,
        by_corners=True,
    )


def view_of(keyframe: Keyframe, pixel_map: PixelMap) -> View:
    """A keyframe in which corners were tracked. pixel_map: of its image."""
    assert keyframe.corners is not None
    return View(keyframe.T_map_camera, pixel_map.K_to_source(keyframe.K), keyframe.corners)


def _slot(keyframe: Keyframe, pixel_map: PixelMap) -> Slot:
    """A frame of the map, with its own depth and none by this window."""
    K = pixel_map.K_to_source(keyframe.K)
    weights = keyframe.fused, keyframe.pose_weight + 1
    return Slot(keyframe.T_map_camera, keyframe.corners, keyframe.depth, K, pixel_map, *weights, known=True)


def _guessed(anchors: Sequence[Keyframe], pixel_map: PixelMap) -> Landmarks:
    """The corners of the anchors where their own depth puts them, the first that has any."""
    landmarks = NO_LANDMARKS
    for anchor in anchors:
        if anchor.corners is not None:
            landmarks = landmarks.and_others(by_depth(view_of(anchor, pixel_map), anchor.depth, pixel_map))
    return landmarks


def _fresh(one: _Located, factor: float, depth: float) -> Slot:
    """A new frame, of which corners alone have said where it is. depth: typical one, map units."""
    doubt = DOUBT[0] * depth, DOUBT[1]
    turned = TURN if one.shared else None
    return Slot(one.view.T, one.view.corners, one.depth * factor, one.view.K, one.pixel_map, doubt=doubt, turned=turned)


def _locate(asked: _Asked, slots: Sequence[int], views: Sequence[View], guessed: Landmarks) -> list[_Located] | None:
    """The new frames one after the other, each by what all before it see; None where one of them cannot be located."""
    found: list[_Located] = []
    for slot in slots:
        seen, known = asked.corners_of(slot), [*views, *(one.view for one in found)]
        if seen is None or not known:
            return None
        landmarks, before = triangulate(known).and_others(guessed), found[-1].view if found else known[0]
        T, step = locate(landmarks, seen, asked.K(slot)), two_views(before.corners, seen, before.K)
        if step is not None:
            R = before.T[:3, :3] @ step[:3, :3]
            if T is None or Rotation.from_matrix(R.T @ T[:3, :3]).magnitude() > ELSEWHERE:
                T = locate_turned(landmarks, seen, asked.K(slot), R)
        if T is None:
            T = bridged(before, seen, landmarks)
        one = None if T is None else asked.located(slot, T)
        if one is None:
            return None
        shared = 0 if step is None else len(common(before.corners, seen)[0])
        found.append(one._replace(shared=shared))
    return found


def _unit(anchors: Sequence[Keyframe], prediction: WindowPrediction) -> tuple[float, float] | None:
    """Map units per unit of the window's depth by its anchors, and the standard deviation of its log; None untold."""
    ratios = []
    for slot, anchor in enumerate(anchors):
        if slot in prediction.depth:
            with np.errstate(invalid='ignore', divide='ignore'):
                ratio = np.log(anchor.depth / prediction.depth[slot])
            if np.isfinite(ratio).any():
                ratios.append(float(np.median(ratio[np.isfinite(ratio)])))
    if len(ratios) < 2:
        return None
    return float(np.exp(np.mean(ratios))), float(np.hypot(UNIT, np.std(ratios)))


def fit(view: View, pixel_map: PixelMap, depth: np.ndarray, landmarks: Landmarks) -> tuple[float, float]:
    """(factor that fits depth (h, w) to the points that a view sees, log spread about them); NaN where untold."""
    held, now = landmarks.seen_in(view.corners)
    z = transform(invert(view.T), landmarks.xyz[held])[:, 2]
    with np.errstate(invalid='ignore', divide='ignore'):
        ratio = np.log(z / depth_at(depth, pixel_map.to_network(view.corners.uv[now])))
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < MIN_POINTS:
        return float('nan'), float('nan')
    middle = float(np.median(ratio))
    return float(np.exp(middle)), 1.48 * float(np.median(np.abs(ratio - middle)))
