"""The ground under a camera, in one depth image."""

from __future__ import annotations

import math

import numpy as np

from vggt_ros import camera
from vggt_ros.odometry.windows.alignment import STRIDE

HORIZON = math.sin(math.radians(5.0))  # rays less below the horizon meet the ground too far away to tell its height
LEVEL = math.cos(math.radians(35.0))  # of a patch's normal: depth is noisy, and walls are far from it
TOLERANCE = 0.03  # relative depth error of a point on the plane
SLOPE = math.radians(1.0)  # standard deviation of a floor's slope and of gravity together
PATCHES = 30  # of an image that err independently, at most


def fit_ground(
    depth: np.ndarray,
    weight: np.ndarray,
    K: np.ndarray,
    down: np.ndarray,
    max_tilt: float = math.radians(10.0),
    seed: int = 0,
) -> tuple[np.ndarray, float] | str:
    """The level plane with nothing beneath it, or in words why there is none.

    depth, weight: (h, w) z-depth and confidence; K: (3, 3) in the same pixels. down: (3,) unit vector of gravity in the
    optical frame. max_tilt: rad between gravity and the plane's normal.
    Gives q (3,) with q . p = 1 for points p of the plane (1 / |q| is its distance, in the unit of depth) and the
    standard deviation of log |q|. A relative error of depth is the same residual q . p - 1 at every range.

    RANSAC with MSAC's score (Torr and Zisserman 2000) less the points beneath (a table's top is not the ground), over
    patches that look level themselves; then Tukey's biweight, which redescends: the foot of a wall lies near the plane
    on one side only. Where the view hardly tells the tilt (a corridor's narrow strip of floor), gravity does.
    """
    points, level = _below_horizon(depth, weight, K, down)
    if len(points) < 50:
        return f'only {len(points)} samples with depth and confidence below the horizon'
    floor = points[level]
    if len(floor) < 20:
        return f'no level surface: {len(floor)} of {len(points)} samples below the horizon look level'

    triples = floor[np.random.default_rng(seed).integers(0, len(floor), (300, 3))]
    triples = triples[np.abs(np.linalg.det(triples)) > 1e-6 * np.linalg.norm(triples, axis=-1).prod(-1)]
    q = np.linalg.solve(triples, np.ones((len(triples), 3, 1)))[..., 0]
    q = q[q @ down > math.cos(max_tilt) * np.linalg.norm(q, axis=1)]
    if not len(q):
        return f'no level surface within {math.degrees(max_tilt):.0f} deg of gravity'
    on = np.maximum(0.0, 1 - ((floor @ q.T - 1) / TOLERANCE) ** 2).sum(0)
    plane = q[np.argmax(on - (points @ q.T - 1 > 2 * TOLERANCE).sum(0))]
    across = (np.eye(3) - np.outer(down, down)) / SLOPE**2
    for _ in range(10):
        residual = np.abs(floor @ plane - 1)
        near = residual[residual < TOLERANCE]
        noise = max(1.48 * float(np.median(near)), 0.002) if len(near) else TOLERANCE
        share = np.maximum(0.0, 1 - (residual / (4.685 * noise)) ** 2) ** 2
        share *= min(1.0, PATCHES / max(share.sum(), 1.0)) / noise**2
        information = (floor.T * share) @ floor + across / (plane @ plane)
        plane = np.linalg.solve(information, floor.T @ share)

    on_plane = np.mean(np.abs(floor @ plane - 1) < TOLERANCE)
    beneath = np.mean(points @ plane - 1 > 2 * TOLERANCE)
    if on_plane < 0.3 or beneath > 0.05:
        return f'no ground: {on_plane:.0%} of what is level lies in one plane, {beneath:.0%} of the points beneath it'
    size = float(np.linalg.norm(plane))
    tilt = math.acos(min(1.0, float(plane @ down) / size))
    if tilt > max_tilt:
        return f'the plane is tilted by {math.degrees(tilt):.0f} deg from gravity'
    return plane, math.sqrt(plane @ np.linalg.solve(information, plane)) / size**2


def _below_horizon(
    depth: np.ndarray, weight: np.ndarray, K: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) on a grid but the least confident quarter, and which of them (N,) have a vertical normal."""
    grid = slice(STRIDE // 2, None, STRIDE)
    pixels = camera.pixel_grid(camera.image_size(depth))[grid, grid]
    points, weight = camera.rays(pixels, K) * depth[grid, grid, None], weight[grid, grid]
    with np.errstate(invalid='ignore'):
        usable = (points[..., 2] > 0) & np.isfinite(points).all(-1) & (weight > 0)
        usable &= points @ down > HORIZON * np.linalg.norm(points, axis=-1)
    if usable.any():
        usable &= weight >= np.quantile(weight[usable], 0.25)
    level = np.zeros(usable.shape, bool)
    if min(usable.shape) > 2:
        with np.errstate(invalid='ignore'):
            right = points[1:-1, 2:] - points[1:-1, :-2]
            below = points[2:, 1:-1] - points[:-2, 1:-1]
            normal = np.cross(right, below)
            level[1:-1, 1:-1] = np.abs(normal @ down) > LEVEL * np.linalg.norm(normal, axis=-1)
    return points[usable], level[usable]
