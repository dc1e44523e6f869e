"""A coloured cloud and the camera's way as a GLB file (glTF 2.0, binary), for browsers and viewers of models."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from vggt_ros.files.cloud import write_whole

MAGIC, VERSION, JSON, BIN = b'glTF', 2, b'JSON', b'BIN\0'
ARRAY_BUFFER, FLOAT, UNSIGNED_BYTE = 34962, 5126, 5121  # of OpenGL, as glTF names things
POINTS, LINE_STRIP = 0, 3
# glTF has y up and z towards the viewer; maps have z up (REP 103): a quarter turn about x, as a quaternion x y z w.
Z_UP = [-(0.5**0.5), 0.0, 0.0, 0.5**0.5]
WAY = (255, 64, 32, 255)  # RGBA


def write_glb(path: Path, xyz: np.ndarray, rgb: np.ndarray, way: np.ndarray) -> None:
    """Write a cloud, (N, 3) positions with z up and (N, 3) uint8 colours, and a way through it, (M, 3) positions.

    What is empty is left out, as is a way of one place. Raises OSError; no broken file stays behind.
    """
    scene = _Scene()
    if len(xyz):
        scene.add('cloud', POINTS, xyz, np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], axis=1))
    if len(way) > 1:
        scene.add('camera', LINE_STRIP, way, np.tile(np.array(WAY, np.uint8), (len(way), 1)))
    write_whole(path, scene.pack())


class _Scene:
    """Meshes of one primitive each, on one buffer (glTF 2.0, sections 3.5 to 3.7)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._nodes: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []

    def add(self, name: str, mode: int, xyz: np.ndarray, rgba: np.ndarray) -> None:
        """Positions (N, 3) and colours (N, 4) uint8, as points or as one line."""
        xyz = np.ascontiguousarray(xyz, '<f4')
        position = self._accessor(xyz, FLOAT, 'VEC3', min=xyz.min(0).tolist(), max=xyz.max(0).tolist())
        colour = self._accessor(np.ascontiguousarray(rgba, np.uint8), UNSIGNED_BYTE, 'VEC4', normalized=True)
        attributes = {'POSITION': position, 'COLOR_0': colour}
        self._nodes.append({'name': name, 'mesh': len(self._meshes), 'rotation': Z_UP})
        self._meshes.append({'name': name, 'primitives': [{'attributes': attributes, 'mode': mode}]})

    def _accessor(self, values: np.ndarray, kind: int, shape: str, **more: Any) -> int:
        view = {'buffer': 0, 'byteOffset': len(self._buffer), 'byteLength': values.nbytes, 'target': ARRAY_BUFFER}
        self._buffer += values.tobytes()  # rows of whole words: all offsets are multiples of four
        self._views.append(view)
        entry = {'bufferView': len(self._views) - 1, 'componentType': kind, 'count': len(values), 'type': shape}
        self._accessors.append(entry | more)
        return len(self._accessors) - 1

    def pack(self) -> bytes:
        """The file."""
        fields: dict[str, Any] = {'asset': {'version': '2.0', 'generator': 'vggt_ros'}}
        if self._nodes:  # lists may not be empty
            fields |= {
                'scene': 0,
                'scenes': [{'nodes': list(range(len(self._nodes)))}],
                'nodes': self._nodes,
                'meshes': self._meshes,
                'accessors': self._accessors,
                'bufferViews': self._views,
                'buffers': [{'byteLength': len(self._buffer)}],
            }
        text = json.dumps(fields, separators=(',', ':')).encode()
        chunks = _chunk(JSON, text + b' ' * (-len(text) % 4))
        if self._buffer:
            chunks += _chunk(BIN, bytes(self._buffer))
        return struct.pack('<4sII', MAGIC, VERSION, 12 + len(chunks)) + chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('<I4s', len(data), kind) + data
