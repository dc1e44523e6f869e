"""Where the tracks are in a new image: their pictures looked for, and held against where the map has their points."""

from __future__ import annotations

import numpy as np

from vggt_ros.odometry import patches
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.tracks.table import MOST, Table, TrackedView, settled

NOISE = 4.0  # px at 518 of a track in one image, which are mostly the pose's and the same in the next ones
DOUBT = 0.7  # factor of the confidence in every image in which only the corner speaks for a track


def find(table: Table, view: TrackedView, before: np.ndarray, sure: bool, config: TrackerConfig) -> None:
    """Look for the tracks' pictures in an image, and write into the table which are here, and where.

    view: the image. before: (N,) bool, those that the image before had. sure: the camera is where it is said to be.
    """
    followed, T = table['corner'] >= 0, view.T
    expected, A = table.expected(T, view.K)
    start = np.where(followed[:, None], table['uv'], expected)
    rows, found, alike = _aligned(table, view, A, start, followed)
    if T is not None:
        fine = alike > config.alike
        T = settled(T, table.points()[rows[fine]], found[fine], view.K)
        expected, A = table.expected(T, view.K)
        start[~followed] = expected[~followed]
        alone = _aligned(table, view, A, start, table.placed & ~followed)
        rows, found, alike = (np.concatenate(both) for both in zip((rows, found, alike), alone, strict=True))
    led = followed[rows]
    error, fit = _compare(table, view, config, T, rows, found, led & (alike > config.alike))
    shift = np.linalg.norm(found - start[rows], axis=1) / view.unit
    # Where the map has a say, a corner that slid is known as such; a track without one is where it is expected.
    reach = np.where(led & np.isfinite(table['z'][rows]), config.slide, config.fit)
    good = (alike > np.where(before[rows], config.alike, config.again)) & (shift < reach)
    if sure:
        good &= error < fit
    table['here'][:] = False
    table['here'][rows[good]] = True
    table['uv'][rows[good]] = found[good]
    table['confidence'][rows[good]] = (alike / (1 + (error / fit) ** 2))[good]
    table['off'][:] = np.where(table['here'], 0, table['off'] + 1)
    # A picture that is blurred for a moment: the corner will do, where the map does not object.
    close = np.ones(len(table), bool)
    close[rows] = _compare(table, view, config, T, rows, start[rows], led)[0] < fit
    hold = ~table['here'] & before & followed & close & table['public'] & (table['off'] <= config.patience)
    table['here'][hold] = True
    table['confidence'][hold] *= DOUBT
    if T is not None:
        _learn(table, view, T, rows[good])
    slid = np.zeros(len(table), bool)
    slid[rows[good & led & (shift > config.fit)]] = True
    table.release(slid | (table['off'] > config.patience))


def _compare(
    table: Table,
    view: TrackedView,
    config: TrackerConfig,
    T: np.ndarray | None,
    rows: np.ndarray,
    uv: np.ndarray,
    usual: np.ndarray,
) -> tuple[np.ndarray, float]:
    """How far pixels (M, 2) of these rows (M,) are from where the map has them, and how far they may be.

    In px at 518; 0 where nobody knows. usual: (M,) the ones by which the others are judged.
    """
    if T is None:
        return np.zeros(len(rows)), config.fit
    residual = table.residual(view, T, rows, uv)
    error = residual.error(table['information'][rows], config.fit)
    usual = error[usual & np.isfinite(residual.length)]
    return error, max(config.fit, config.usual * float(np.median(usual))) if len(usual) else config.fit


def _learn(table: Table, view: TrackedView, T: np.ndarray, rows: np.ndarray) -> None:
    """How far along their rays the points of these rows (M,) are, from where they are now."""
    residual = table.residual(view, T, rows, table['uv'][rows])
    told = np.isfinite(residual.along)
    step = residual.along[told] / np.maximum(residual.length[told], 1e-9)
    table.learn(rows[told], step, (residual.length[told] / NOISE) ** 2, MOST)


def _aligned(
    table: Table, view: TrackedView, A: np.ndarray, start: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (M,) of the tracks ``wanted`` (N,) bool that may be in the image, pixels there, and likeness."""
    rows = np.flatnonzero(wanted & view.inside(start) & np.isfinite(A).all((1, 2)))
    return rows, *patches.align(view.grey, table['tile'][rows], A[rows], start[rows])
