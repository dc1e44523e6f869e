"""Keyframes of the exact room, small."""

import numpy as np

from exact import depth_of
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.types import Frame

SIZE = (84, 63)
K = np.array([[60.0, 0, 41.5], [0, 60.0, 31.0], [0, 0, 1]])


def keyframe(T, index=0, depth=None, confidence=0.9):
    """Seen from T with the room's own depth, or the given one."""
    depth = depth_of(T, K, SIZE) if depth is None else np.asarray(depth)
    frame = Frame(index, index + 1, np.zeros((1, 1, 3), np.uint8), K)
    confidence = np.broadcast_to(np.float32(confidence), depth.shape)
    return Keyframe(frame, T, depth.astype(np.float32), confidence, K, np.zeros(4))
