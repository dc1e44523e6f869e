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

from vggt_ros.camera import PixelMap, invert, transform
from vggt_ros.depth import depth_at
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.windows.adjustment import MIN_POINTS, RefineConfig, Slot
from vggt_ros.odometry.windows.alignment import Alignment
from vggt_ros.odometry.windows.covariance import PoseNoise
from vggt_ros.odometry.windows.landmarks import FEWEST, NO_LANDMARKS, Landmarks, View, by_depth, locate, triangulate
from vggt_ros.odometry.windows.placing import HELD_ROTATION, HELD_TRANSLATION, CornersOf, PlacedWindow
from vggt_ros.odometry.windows.quality import Quality
from vggt_ros.odometry.windows.refine import Refined, refine
from vggt_ros.odometry.windows.window import Window
from vggt_ros.similarity import Similarity
from vggt_ros.types import WindowPrediction

BESIDE = 8  # latest keyframes that are adjusted together with those that the network sees
DOUBT = 0.1, 0.05  # standard deviation of a pose by points before the adjustment: share of the depth, rad
FRAME = 0.3  # log, of a frame's depth fitted to its points
SURFACE = 0.1  # log, spread of depth about the points above which its errors are large patches, and few pixels count
LEAST_INDEPENDENT = 5.0  # of them, see RefineConfig
MOST = 0.5  # of a frame's corners must agree in the end
SCALE = 0.01  # log, of the unit of such a window against that of its anchors


class _Located(NamedTuple):
    """A new frame. view: where it is. pixel_map, depth: the network's (h, w), NaN where it is not to be believed."""

    view: View
    pixel_map: PixelMap
    depth: np.ndarray


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
    views = [_view(one, pixel_map) for one in (*anchors, *beside) if one.corners is not None]
    new = _locate(window, prediction, views, _guessed(anchors, pixel_map), corners, config.min_confidence)
    if new is None:
        return None
    landmarks = triangulate([*views, *(one.view for one in new)])
    if min(np.isin(one.view.corners.id, landmarks.id).sum() for one in new) < FEWEST:
        landmarks = landmarks.and_others(_guessed(anchors, pixel_map))
    fits = [_fit(one, landmarks) for one in new]
    factors, spreads = np.array(fits).T
    if not np.isfinite(factors).all():
        return None
    depth = anchors[0].median_depth
    doubt = DOUBT[0] * depth, DOUBT[1]
    slots = [_slot(one, pixel_map) for one in anchors]
    slots += [
        Slot(one.view.T, one.view.corners, one.depth * factor, one.view.K, one.pixel_map, doubt=doubt)
        for one, factor in zip(new, factors, strict=True)
    ]
    slots += [_slot(one, pixel_map) for one in beside]
    sigma = np.sqrt(np.diag(noise.covariance(depth)))
    refined = _first(
        refine(slots, sigma[3], sigma[0], _weights(config, float(np.median(spreads)))), len(anchors) + len(new)
    )
    fresh = window.new_slots
    if refined.agreed[list(fresh)].min() < MOST or any(refined.covariances[slot] is None for slot in fresh):
        return None
    T = refined.T_map_camera.copy()
    T[fresh.start :, :3, 3] = T[0, :3, 3] + unit * (T[fresh.start :, :3, 3] - T[0, :3, 3])
    refined = replace(refined, T_map_camera=T)
    similarity = Similarity(unit * float(np.median(factors)), T[0, :3, :3], T[0, :3, 3])
    covariance = np.diag([(HELD_TRANSLATION * depth) ** 2] * 3 + [HELD_ROTATION**2] * 3) / len(anchors)
    alignment = Alignment(similarity, SCALE, 0.0, 0.0, 1.0, covariance)
    own = dict(zip(fresh, factors / np.median(factors), strict=True))
    fitted = {slot: (one * own.get(slot, 1.0)).astype(np.float32) for slot, one in prediction.depth.items()}
    return PlacedWindow(
        window,
        replace(prediction, depth=fitted),
        anchors,
        alignment,
        Quality.GOOD,
        (f'placed by corners: {why}',),
        refined,
        config.min_confidence,
        by_corners=True,
    )


def _view(keyframe: Keyframe, pixel_map: PixelMap) -> View:
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
            landmarks = landmarks.and_others(by_depth(_view(anchor, pixel_map), anchor.depth, pixel_map))
    return landmarks


def _locate(
    window: Window,
    prediction: WindowPrediction,
    views: Sequence[View],
    guessed: Landmarks,
    corners: CornersOf,
    min_confidence: float,
) -> list[_Located] | None:
    """The new frames one after the other, each by what all before it see; None where one of them cannot be located."""
    found: list[_Located] = []
    for slot in window.new_slots:
        seen, pixel_map, K = corners(window.frames[slot].index), prediction.maps[slot], window.frames[slot].K
        known = [*views, *(one.view for one in found)]
        if seen is None or not known:
            return None
        K = pixel_map.K_to_source(prediction.K[slot]) if K is None else K
        T = locate(triangulate(known).and_others(guessed), seen, K)
        if T is None:
            return None
        depth = np.where(prediction.confidence[slot] >= min_confidence, prediction.depth[slot], np.nan)
        found.append(_Located(View(T, K, seen), pixel_map, depth))
    return found


def _fit(one: _Located, landmarks: Landmarks) -> tuple[float, float]:
    """(factor that fits a frame's depth to the points that it sees, log spread about them); NaN where nothing tells."""
    _, held, now = np.intersect1d(landmarks.id, one.view.corners.id, assume_unique=True, return_indices=True)
    z = transform(invert(one.view.T), landmarks.xyz[held])[:, 2]
    with np.errstate(invalid='ignore', divide='ignore'):
        ratio = np.log(z / depth_at(one.depth, one.pixel_map.to_network(one.view.corners.uv[now])))
    ratio = ratio[np.isfinite(ratio)]
    if len(ratio) < MIN_POINTS:
        return float('nan'), float('nan')
    middle = float(np.median(ratio))
    return float(np.exp(middle)), 1.48 * float(np.median(np.abs(ratio - middle)))


def _weights(config: OdometryConfig, spread: float) -> RefineConfig:
    """Depth counts as much as it has shown to be worth."""
    usual = RefineConfig.of(config.accuracy)
    independent = max(LEAST_INDEPENDENT, usual.independent * min(1.0, (SURFACE / max(spread, 1e-9)) ** 2))
    return replace(usual, surface=max(usual.surface, spread), frame=FRAME, independent=independent)


def _first(refined: Refined, count: int) -> Refined:
    """Of the window's own frames."""
    return replace(
        refined,
        T_map_camera=refined.T_map_camera[:count],
        covariances=refined.covariances[:count],
        log_depth=refined.log_depth[:count],
        ties=refined.ties[:count],
        agreed=refined.agreed[:count],
    )
