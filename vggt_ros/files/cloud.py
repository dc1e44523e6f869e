"""A coloured cloud that grows with the frames and stays bounded, and PLY files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vggt_ros.depth import edge_mask

PLY_POINT = np.dtype([('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('red', 'u1'), ('green', 'u1'), ('blue', 'u1')])


class MissingOpen3DError(RuntimeError):
    """open3d is not installed, or cannot be loaded."""


def import_open3d() -> Any:
    """The module; raises MissingOpen3DError saying what to install."""
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise MissingOpen3DError(
            f'open3d cannot be imported ({error}): pip install open3d; it also needs libusb-1.0'
            ' (Debian and Ubuntu: apt install libusb-1.0-0)'
        ) from error
    return open3d


class CloudBuilder:
    """Points of many frames in one world, one per voxel.

    limit: most points kept; when more come, the voxels grow. voxel: edge length in map units, 0 = 1 % of the first
    frame's median depth. Raises MissingOpen3DError.
    """

    def __init__(self, limit: int = 2_000_000, voxel: float = 0.0) -> None:
        self._open3d = import_open3d()
        self._limit = limit
        self.voxel = voxel
        self._parts: list[Any] = []
        self._waiting = 0

    def add(self, xyz: np.ndarray, rgb: np.ndarray, T_map_camera: np.ndarray) -> None:
        """Add an organized frame: (h, w, 3) optical frame, NaN unknown; (h, w, 3) uint8; its pose (4, 4)."""
        good = np.isfinite(xyz).all(-1) & ~edge_mask(xyz[..., 2])
        if not good.any():
            return
        if not self.voxel:
            self.voxel = 0.01 * float(np.median(xyz[good][:, 2]))
        points = xyz[good].astype(np.float64) @ T_map_camera[:3, :3].T + T_map_camera[:3, 3]
        cloud = self._open3d.geometry.PointCloud(self._open3d.utility.Vector3dVector(points))
        cloud.colors = self._open3d.utility.Vector3dVector(rgb[good].astype(np.float64) / 255)
        self._parts.append(cloud.voxel_down_sample(self.voxel))
        self._waiting += len(self._parts[-1].points)
        if self._waiting > self._limit:
            self._merge()

    def _merge(self) -> None:
        """Everything into one part of at most half the limit, so that there is room for more."""
        merged = self._open3d.geometry.PointCloud()
        for part in self._parts:
            merged += part
        merged = merged.voxel_down_sample(self.voxel)
        while len(merged.points) > self._limit // 2:
            self.voxel *= 1.5
            merged = merged.voxel_down_sample(self.voxel)
        self._parts = [merged]
        self._waiting = len(merged.points)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float64 positions in the map and (N, 3) uint8 colours."""
        if not self._parts:
            return np.empty((0, 3)), np.empty((0, 3), np.uint8)
        self._merge()
        colours = np.asarray(self._parts[0].colors)
        return np.asarray(self._parts[0].points).copy(), (colours * 255).round().astype(np.uint8)


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
