"""What the messages of the tracks cost: filling and serialising, against the same message filled element by element."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from vggt_ros.msg import TrackArray
from vggt_ros.ros.messages import header
from vggt_ros.ros.outputs.track_messages import to_track_points, to_tracks, to_vins, to_vins_fusion
from vggt_ros.tracks.picture import TrackedPoints
from vggt_ros.types import Frame, Scale, Tracks

SIZE = (640, 480)
PLAIN = 'TrackArray from lists'


def some_tracks(count: int) -> Tracks:
    """``count`` tracks of no camera in particular."""
    rng = np.random.default_rng(0)
    K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
    frame = Frame(1, 40_000_000, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K, 'camera')
    uv, xyz = rng.uniform(0, SIZE, (count, 2)), rng.uniform(-5, 5, (count, 3))
    score, age = rng.uniform(0, 1, count), rng.integers(1, 100, count).astype(np.uint32)
    return Tracks(frame, 0, Scale.METRIC, np.arange(count, dtype=np.uint64), uv, score, score, age, xyz, xyz, frame.K)


def from_lists(tracks: Tracks, head: Header) -> TrackArray:
    """``to_tracks`` in the way that comes to mind first."""
    message = TrackArray(header=head, epoch=tracks.epoch, scale=int(tracks.scale))
    message.width, message.height = tracks.frame.size
    message.id, message.age = [int(x) for x in tracks.id], [int(x) for x in tracks.age]
    message.visibility, message.confidence = (
        [float(x) for x in tracks.visibility],
        [float(x) for x in tracks.confidence],
    )
    message.u, message.v = [float(x) for x in tracks.uv[:, 0]], [float(x) for x in tracks.uv[:, 1]]
    message.x, message.y, message.z = ([float(x) for x in column] for column in tracks.xyz.T)
    return message


def measure(count: int, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds to fill and to serialise each message of ``count`` tracks, the messages in turns."""
    tracks = some_tracks(count)
    K, before = tracks.K, TrackedPoints(0, tracks.id, tracks.uv + 1, tracks.age)
    assert K is not None
    head = header(tracks, tracks.frame.frame_id)
    ways: dict[str, Callable[[], Any]] = {
        PLAIN: lambda: from_lists(tracks, head),
        'TrackArray': lambda: to_tracks(tracks, head),
        'PointCloud2': lambda: to_track_points(tracks, head),
        'PointCloud, VINS-Mono': lambda: to_vins(tracks, head, K, before),
        'PointCloud, VINS-Fusion': lambda: to_vins_fusion(tracks, head, K, before),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(runs + 1):
        for name, fill in ways.items():
            started = perf_counter()
            message = fill()
            filled = perf_counter()
            if not isinstance(message, bytes):
                serialize_message(message)
            if turn:  # the first one warms up
                seconds[name].append((filled - started, perf_counter() - filled))
    return seconds


def table(seconds: dict[str, list[tuple[float, float]]]) -> Iterable[str]:
    """Lines with median milliseconds, and the ratio to the message filled element by element."""
    yield f'{"":<26}{"fill [ms]":>12}{"serialise [ms]":>16}{"total [ms]":>12}{"ratio":>8}'
    plain = statistics.median(map(sum, seconds[PLAIN]))
    for name, values in seconds.items():
        fill, serialise = (statistics.median(part) for part in zip(*values, strict=True))
        total = statistics.median(map(sum, values))
        yield f'{name:<26}{1e3 * fill:>12.3f}{1e3 * serialise:>16.3f}{1e3 * total:>12.3f}{total / plain:>8.3f}'
