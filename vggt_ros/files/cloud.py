"""Coloured clouds: one that grows with the frames and stays bounded, and files (PLY, PCD) that other programs open."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggt_ros.depth import edge_mask

PLY_POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'), ('blue', 'u1')])
PCD_POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])


class CloudBuilder:
    """Points of many frames in one world, one per voxel: the mean of those that fall into it.

    limit: most points kept; when more come, the voxels grow. voxel: edge length in map units, 0 = 1 % of the first
    frame's median depth.
    """

    def __init__(self, limit: int = 2_000_000, voxel: float = 0.0) -> None:
        self._limit = limit
        self.voxel = voxel
        self._parts: list[np.ndarray] = []  # (N, 6) float64: x y z in the map, r g b in 0 to 255
        self._waiting = 0

    def add(self, xyz: np.ndarray, rgb: np.ndarray, T_map_camera: np.ndarray) -> None:
        """Add an organized frame: (h, w, 3) optical frame, NaN unknown; (h, w, 3) uint8; its pose (4, 4)."""
        good = np.isfinite(xyz).all(-1) & ~edge_mask(xyz[..., 2])
        if not good.any():
            return
        if not self.voxel:
            self.voxel = 0.01 * float(np.median(xyz[good][:, 2]))
        points = xyz[good].astype(np.float64) @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
        self._parts.append(one_per_voxel(np.hstack([points, rgb[good]]), self.voxel))
        self._waiting += len(self._parts[-1])
        if self._waiting > self._limit:
            self._merge()

    def _merge(self) -> None:
        """Everything into one part of at most half the limit, so that there is room for more."""
        merged = one_per_voxel(np.concatenate(self._parts), self.voxel)
        while len(merged) > self._limit // 2:
            self.voxel *= 1.5
            merged = one_per_voxel(merged, self.voxel)
        self._parts = [merged]
        self._waiting = len(merged)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float64 positions in the map and (N, 3) uint8 colours."""
        if not self._parts:
            return np.empty((0, 3)), np.empty((0, 3), np.uint8)
        self._merge()
        return self._parts[0][:, :3].copy(), self._parts[0][:, 3:].round().astype(np.uint8)


def one_per_voxel(points: np.ndarray, edge: float) -> np.ndarray:
    """The means (M, C) of N > 0 points (N, C), whose first three columns are a position, in each voxel."""
    cell = voxels(points[:, :3], edge)
    count = np.bincount(cell)
    return np.stack([np.bincount(cell, column) / count for column in points.T], axis=1)


def voxels(xyz: np.ndarray, edge: float) -> np.ndarray:
    """The voxel of each of N > 0 points (N, 3): (N,) numbers from 0 without gaps."""
    cell = np.floor(xyz / edge).astype(np.int64)
    cell -= cell.min(0)
    size = cell.max(0) + 1
    if float(size[0]) * float(size[1]) * float(size[2]) > 2**62:
        raise ValueError(f'voxels of {edge:g} are too small for a map {np.ptp(xyz, axis=0)} wide')
    key = (cell[:, 0] * size[1] + cell[:, 1]) * size[2] + cell[:, 2]
    return np.unique(key, return_inverse=True)[1]


def write_ply(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """(N, 3) positions and (N, 3) uint8 colours as a binary PLY file. Raises OSError; no broken file stays behind."""
    points = np.empty(len(xyz), PLY_POINT)
    for axis, name in enumerate('xyz'):
        points[name] = xyz[:, axis]
    for channel, name in enumerate(('red', 'green', 'blue')):
        points[name] = rgb[:, channel]
    fields = ''.join(f'property {"float" if name in "xyz" else "uchar"} {name}\n' for name in PLY_POINT.names or ())
    header = f'ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{fields}end_header\n'
    write_whole(path, header.encode() + points.tobytes())


def write_pcd(path: Path, xyz: np.ndarray, rgb: np.ndarray) -> None:
    """(N, 3) positions and (N, 3) uint8 colours as a binary PCD file (v0.7). Raises OSError; no broken file stays."""
    points = np.empty(len(xyz), PCD_POINT)
    points['x'], points['y'], points['z'] = xyz.T
    points['rgb'] = pack_rgb(rgb)
    header = (
        '# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\n'
        f'COUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(points)}\nDATA binary\n'
    )
    write_whole(path, header.encode() + points.tobytes())


def pack_rgb(rgb: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) uint32 0x00RRGGBB: PCL's colour of a point."""
    wide = rgb.astype(np.uint32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The points of a file that :func:`write_ply` wrote: (N, 3) float32, (N, 3) uint8. ValueError for another one."""
    header, found, body = path.read_bytes().partition(b'end_header\n')
    names = [line.split()[-1] for line in header.decode('ascii', 'replace').splitlines() if line.startswith('property')]
    if not found or tuple(names) != PLY_POINT.names or len(body) % PLY_POINT.itemsize:
        raise ValueError(f'{path} is not a coloured cloud of this package')
    points = np.frombuffer(body, PLY_POINT)
    xyz = np.stack([points[name] for name in 'xyz'], -1)
    return xyz, np.stack([points[name] for name in ('red', 'green', 'blue')], -1)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; when that fails, remove what there is of it and raise the OSError."""
    try:
        path.write_bytes(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
