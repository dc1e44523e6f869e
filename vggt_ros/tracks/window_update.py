"""What a window says of the tracks: where their points are, how the map moved, whether the network sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from vggt_ros import camera
from vggt_ros.depth import depth_at
from vggt_ros.odometry.klt import REFERENCE
from vggt_ros.odometry.windows.observations import Points
from vggt_ros.similarity import Similarity, for_all
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.table import MOST, TOLD, Table
from vggt_ros.types import Estimate, WindowPrediction


def place(table: Table, points: Points) -> None:
    """Only how far a point is: the ray is what the track is. Where a corner disagrees with itself, it moves."""
    _, rows, at = np.intersect1d(table['corner'], points.id, return_indices=True)
    wrong = np.zeros(len(table), bool)
    wrong[rows[~points.agreed[at]]] = True
    z = table.distance(rows, points.xyz[at])
    told = points.agreed[at] & (z > 0)
    rows, z = rows[told], z[told]
    fresh = rows[np.isnan(table['z'][rows])]
    table['z'][rows] = np.where(np.isnan(table['z'][rows]), z, table['z'][rows])
    table['information'][fresh] = 0
    table.learn(rows, np.log(z / table['z'][rows]), np.full(len(rows), TOLD), MOST)
    table.banned = np.union1d(table.banned, points.id[~points.agreed])
    table.end(wrong)


def place_by_depth(table: Table, estimate: Estimate, ids: np.ndarray, uv: np.ndarray) -> None:
    """Points of which no window's corners tell get the depth under their pixel.

    estimate: of the newest image. ids, uv: (N,), (N, 2) source pixels of the tracks that were shown in it.
    """
    new = np.flatnonzero(table['public'] & table.anchored & ~table.placed)
    _, rows, at = np.intersect1d(table['id'][new], ids, return_indices=True)
    rows, uv = new[rows], estimate.map.to_network(uv[at])
    depth = depth_at(estimate.depth, uv)
    points = camera.transform(estimate.T_map_camera, camera.rays(uv, estimate.K) * depth[:, None])
    z = table.distance(rows, points)
    told = z > 0
    table['z'][rows[told]] = z[told]
    table['information'][rows[told]] = TOLD


def correct(table: Table, corrections: Mapping[int, Similarity]) -> None:
    """Anchors move as the map does, by frame index; images that the map has forgotten follow their neighbours."""
    for index, moved in for_all(corrections, set(table['anchor'].tolist())).items():
        for row in np.flatnonzero((table['anchor'] == index) & table.anchored):
            table['T'][row] = moved.pose(table['T'][row])
            table['z'][row] *= moved.scale


def refine_anchors(table: Table, estimates: Sequence[Estimate]) -> None:
    """The poses that a window gives the images, which are better than what was known of them at camera rate."""
    for estimate in estimates:
        rows = (table['anchor'] == estimate.frame.index) & table.anchored
        table['T'][rows] = estimate.T_map_camera


def heed(
    table: Table,
    estimates: Sequence[Estimate],
    prediction: WindowPrediction,
    asked: np.ndarray,
    shown: Sequence[tuple[np.ndarray, np.ndarray]],
    config: TrackerConfig,
    reach: float,
) -> str:
    """Tracks end that the network does not see in the newest frame, or elsewhere, window after window.

    asked: (Q,) ids of the queries. shown: ids and source pixels of the tracks in the image of each estimate. reach: px
    at 518 by which the network's tracks are off. Returns what a person should know, '' as a rule.
    """
    tracks = prediction.tracks
    assert tracks is not None
    newest = prediction.slot(estimates[-1].frame.index)
    visibility, confidence = tracks.visibility[newest], tracks.confidence[newest]
    finite = np.isfinite(visibility) & np.isfinite(confidence) & np.isfinite(tracks.uv).all((0, 2))
    away = np.full((len(estimates), len(asked)), np.nan)
    for row, (estimate, (ids, uv)) in enumerate(zip(estimates, shown, strict=True)):
        _, at, then = np.intersect1d(asked, ids, return_indices=True)
        theirs = estimate.map.to_source(tracks.uv[prediction.slot(estimate.frame.index), at])
        away[row, at] = np.linalg.norm(theirs - uv[then], axis=1) * REFERENCE / max(estimate.frame.size)
    compared = np.isfinite(away).any(axis=0)
    far = np.zeros(len(asked), bool)
    far[compared] = np.nanmedian(away[:, compared], axis=0) > config.fit + 2 * reach
    _, rows, at = np.intersect1d(table['id'], asked, return_indices=True)
    chosen = finite[at] & table['public'][rows]
    rows, at = rows[chosen], at[chosen]
    table['visibility'][rows] = visibility[at]
    poor = (visibility[at] * confidence[at] < config.min_score) | far[at]
    table['poor'][rows] = np.where(poor, table['poor'][rows] + 1, 0)
    table.end((table['poor'] >= config.patience) & table['here'])
    return '' if finite.all() else 'some tracks of the network are not finite: they are left out'
