"""Small pictures of points, and where they are found again: Lucas-Kanade under a known warp.

What follows a corner from image to image slides off by a little each time; a comparison with the first picture does
not. The picture is warped as the motion of the camera says, so only a shift is left to be found (Baker and Matthews,
Lucas-Kanade 20 Years On, IJCV 56(3), 2004: inverse compositional; with gain and bias, as exposure changes).
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import cKDTree

SIDE = 7  # of what is compared, px: larger ones see both sides of the edges at which corners are
TILE = 23  # of what is kept, px: a patch may shrink to a third, or turn
STEPS = 8
NEIGHBOURS = 10  # by which the change of the picture around a point is told
MOST_CHANGE = 1.5  # of the size of the picture around a point from one image to the next
CHUNK = 1024  # patches at a time: cv2.remap takes no picture with 32768 rows


def cut(grey: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, TILE, TILE) uint8 of ``grey`` (h, w) around pixels ``uv`` (N, 2)."""
    return np.rint(_sample(grey.astype(np.float32), *_around(uv, TILE))).astype(np.uint8)


def roundness(tiles: np.ndarray) -> np.ndarray:
    """(N,) ratio of the eigenvalues of the structure tensor in the middle of tiles: 0 for a line, where it slides.

    tiles: (N, TILE, TILE).
    """
    first = TILE // 2 - SIDE // 2 - 1
    inner = tiles[:, first:-first, first:-first].astype(np.float64)
    dx, dy = inner[:, 1:-1, 2:] - inner[:, 1:-1, :-2], inner[:, 2:, 1:-1] - inner[:, :-2, 1:-1]
    xx, yy, xy = ((a * b).sum((1, 2)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    return (mean - spread) / np.maximum(mean + spread, 1e-9)


def contrast(tiles: np.ndarray) -> np.ndarray:
    """(N,) variance of the middle of tiles (N, TILE, TILE), grey levels squared."""
    first = TILE // 2 - SIDE // 2
    return tiles[:, first:-first, first:-first].var((1, 2))


def warps(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(N, 2, 2) how the picture around each point was turned and scaled, as its neighbours moved.

    before, after: (N, 2) pixels. The least squares of a similarity (Umeyama 1991), in which neighbours that move in
    another way, past the edge of something nearer, count little; the identity where it is no small change.
    """
    if len(before) < 3:
        return np.tile(np.eye(2), (len(before), 1, 1))
    near = cKDTree(before).query(before, k=min(NEIGHBOURS + 1, len(before)))[1][:, 1:]
    from_, to = (
        complex_[near] - complex_[:, None]
        for complex_ in (one[:, 0] + 1j * one[:, 1] for one in (before.astype(np.float64), after.astype(np.float64)))
    )
    share = np.ones(from_.shape)
    for _ in range(3):
        factor = (share * np.conj(from_) * to).sum(1) / np.maximum((share * np.abs(from_) ** 2).sum(1), 1e-9)
        share = 1 / (1 + np.abs(to - factor[:, None] * from_) ** 2)
    size = np.abs(factor)
    factor = np.where((size > 1 / MOST_CHANGE) & (size < MOST_CHANGE), factor, 1.0)
    return np.stack([factor.real, -factor.imag, factor.imag, factor.real], -1).reshape(-1, 2, 2)


def align(grey: np.ndarray, tiles: np.ndarray, A: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Look for tiles in an image: pixels (N, 2), and normalised correlation (N,) there, 0 where that is out of reach.

    grey: (h, w) uint8. tiles: (N, TILE, TILE) of another image. A: (N, 2, 2) from offsets in that one to offsets in
    this one, NaN unknown. uv: (N, 2) where to begin; what is further than ``SIDE`` away is not found.
    """
    floating = grey.astype(np.float32)
    parts = [
        _align(floating, *(one[start : start + CHUNK] for one in (tiles, A, uv))) for start in range(0, len(uv), CHUNK)
    ]
    if not parts:
        return uv, np.zeros(0)
    found, alike = zip(*parts, strict=True)
    return np.concatenate(found), np.concatenate(alike)


def _align(grey: np.ndarray, tiles: np.ndarray, A: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    template, usable = _warped(tiles, A)
    dx, dy = template[:, 1:-1, 2:] - template[:, 1:-1, :-2], template[:, 2:, 1:-1] - template[:, :-2, 1:-1]
    flat = _centred(template[:, 1:-1, 1:-1])
    J = np.stack([dx.reshape(flat.shape) / 2, dy.reshape(flat.shape) / 2, flat, np.ones_like(flat)], -1)
    J_t = np.swapaxes(J.astype(np.float64), 1, 2)
    solver = np.linalg.solve(J_t @ J + 1e-3 * np.eye(4), J_t)  # (N, 4, SIDE^2)
    found = np.where(usable[:, None], uv, 0.0)
    for _ in range(STEPS):
        here = _sample(grey, *_around(found, SIDE)).reshape(flat.shape)
        step = (solver @ (here - flat)[..., None])[..., 0]
        shift = step[:, :2] / np.maximum(1 + step[:, 2:3], 0.2)
        found -= np.clip(shift, -2, 2)
        if np.abs(shift[usable]).max(initial=0.0) < 0.02:
            break
    here = _centred(_sample(grey, *_around(found, SIDE)))
    norm = np.linalg.norm(here, axis=1) * np.linalg.norm(flat, axis=1)
    alike = (here * flat).sum(1) / np.maximum(norm, 1e-6)
    usable &= np.abs(found - uv).max(1) <= SIDE
    usable &= ((found >= 0) & (found <= np.array([grey.shape[1], grey.shape[0]]) - 1)).all(1)
    return found, np.where(usable, alike, 0.0)


def _warped(tiles: np.ndarray, A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, SIDE + 2, SIDE + 2) float32 as the tiles look in the image now, and whether (N,) they reach that far."""
    side = np.arange(SIDE + 2) - SIDE // 2 - 1
    offsets = np.stack(np.meshgrid(side, side), -1)
    A = np.where(np.isfinite(A).all((1, 2), keepdims=True), A, 0)
    usable = np.abs(np.linalg.det(A)) > 1e-3
    inverse = np.linalg.inv(np.where(usable[:, None, None], A, np.eye(2)))
    at = np.einsum('nij,vuj->nvui', inverse, offsets) + TILE // 2
    usable &= ((at >= 0) & (at <= TILE - 1)).all((1, 2, 3))
    at = np.clip(at, 0, TILE - 1)
    at[..., 1] += TILE * np.arange(len(tiles))[:, None, None]  # the tiles lie one below the other
    return _sample(tiles.reshape(-1, TILE).astype(np.float32), at[..., 0], at[..., 1]), usable


def _centred(patch: np.ndarray) -> np.ndarray:
    """(N, side, side) -> (N, side^2) with mean 0."""
    flat = patch.reshape(len(patch), -1)
    return flat - flat.mean(1, keepdims=True)


def _around(uv: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (N, width, width) of the pixels around ``uv`` (N, 2)."""
    side = np.arange(width) - width // 2
    u, v = np.broadcast_arrays(uv[:, 0, None, None] + side, uv[:, 1, None, None] + side[:, None])
    return u, v


def _sample(picture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """float32 of the shape (N, h, w) of u and v, between pixels of a float32 picture; the rim goes on outside."""
    if not u.size:
        return np.zeros(u.shape, np.float32)
    maps = [np.ascontiguousarray(one.reshape(len(u), -1), np.float32) for one in (u, v)]
    rim = cv2.BORDER_REPLICATE
    return cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=rim).reshape(u.shape)
