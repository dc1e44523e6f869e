"""Tracks -> ROS messages: our own TrackArray, and what others read today. Filled in bulk, like all messages."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud, PointCloud2
from std_msgs.msg import Header

from vggt_ros import camera
from vggt_ros.msg import TrackArray
from vggt_ros.ros.compat import point_cloud, to_array
from vggt_ros.ros.messages import pack_rgb
from vggt_ros.tracks.picture import PALETTE, TrackedPoints, palette_index, track_colours
from vggt_ros.types import Tracks

POINT = np.dtype(
    [(name, '<f4') for name in 'xyz'] + [('id', '<u4'), ('age', '<u4'), ('confidence', '<f4'), ('rgb', '<f4')]
)
# float32 counts exactly up to here; ids beyond it begin again at 0, so that neighbours stay different.
FLOAT_IDS = 1 << 24
MARKER = 6.0  # px, size of Foxglove's points


def to_tracks(tracks: Tracks, head: Header) -> TrackArray:
    """One message for one image, struct of arrays."""
    message = TrackArray(header=head, epoch=tracks.epoch, scale=int(tracks.scale))
    message.width, message.height = tracks.frame.size
    message.id = to_array('Q', tracks.id.astype(np.uint64))
    message.age = to_array('I', tracks.age.astype(np.uint32))
    message.visibility, message.confidence = _floats(tracks.visibility), _floats(tracks.confidence)
    message.u, message.v = (_floats(column) for column in tracks.uv.T)
    message.x, message.y, message.z = (_floats(column) for column in tracks.xyz.T)
    return message


def to_track_points(tracks: Tracks, head: Header) -> PointCloud2:
    """The tracks whose 3-D point is known, unorganized: x y z id (the lower 32 bits) age confidence rgb (by id)."""
    known = np.isfinite(tracks.xyz).all(-1)
    cloud = np.empty(int(known.sum()), POINT)
    cloud['x'], cloud['y'], cloud['z'] = tracks.xyz[known].T
    cloud['id'] = tracks.id[known] & 0xFFFFFFFF
    cloud['age'], cloud['confidence'] = tracks.age[known], tracks.confidence[known]
    cloud['rgb'] = pack_rgb(track_colours(tracks.id[known]))
    return point_cloud(head, cloud, dense=True)


def to_vins(tracks: Tracks, head: Header, K: np.ndarray, before: TrackedPoints | None) -> bytes:
    """What VINS-Mono's estimator takes from its feature tracker: points (x, y, 1), channels id u v vx vy; serialised.

    x, y are normalised image coordinates and vx, vy their change per second, 0 for a track that was not in ``before``,
    the image before this one. K: (3, 3) in source pixels.
    """
    return _features(tracks, head, K, {'id_of_point': _float_ids(tracks), **_motion(tracks, K, before)})


def to_vins_fusion(tracks: Tracks, head: Header, K: np.ndarray, before: TrackedPoints | None) -> bytes:
    """What VINS-Fusion's estimator takes: as :func:`to_vins`, with the camera's number (0) after the id.

    It reads channels 6 to 8 whenever there are more than five, for debugging: the points in the map, NaN unknown.
    """
    first = {'id_of_point': _float_ids(tracks), 'camera_of_point': np.zeros(len(tracks.id))}
    last = dict(zip(('x_of_point', 'y_of_point', 'z_of_point'), tracks.xyz_map.T, strict=True))
    return _features(tracks, head, K, {**first, **_motion(tracks, K, before), **last})


def _features(tracks: Tracks, head: Header, K: np.ndarray, channels: dict[str, np.ndarray]) -> bytes:
    """A sensor_msgs/PointCloud in CDR, as it travels; as a message it wants a Python object for every point.

    CDR counts the elements of a sequence and the bytes of a string, its NUL included, in a uint32 before them; here all
    of it is aligned to 4 bytes, in the machine's byte order as rclpy writes it.
    """

    def counted(count: int, content: bytes) -> bytes:
        return np.uint32(count).tobytes() + content + b'\0' * (-len(content) % 4)

    count = len(tracks.id)
    parts = [
        serialize_message(PointCloud(header=head))[:-8],  # without the counts of the two empty sequences
        counted(count, camera.rays(tracks.uv, K).astype(np.float32).tobytes()),
        counted(len(channels), b''),
    ]
    for name, values in channels.items():
        text = name.encode() + b'\0'
        parts += [counted(len(text), text), counted(count, values.astype(np.float32).tobytes())]
    return b''.join(parts)


def _motion(tracks: Tracks, K: np.ndarray, before: TrackedPoints | None) -> dict[str, np.ndarray]:
    """Source pixels and the velocity of the normalised coordinates, by the names of their channels."""
    velocity = np.zeros((len(tracks.id), 2))
    if before is not None and tracks.frame.stamp > before.stamp:
        seconds = (tracks.frame.stamp - before.stamp) * 1e-9
        _, now, then = np.intersect1d(tracks.id, before.id, assume_unique=True, return_indices=True)
        velocity[now] = (tracks.uv[now] - before.uv[then]) / K.diagonal()[:2] / seconds
    (u, v), (vx, vy) = tracks.uv.T, velocity.T
    return {'u_of_point': u, 'v_of_point': v, 'velocity_x_of_point': vx, 'velocity_y_of_point': vy}


def _float_ids(tracks: Tracks) -> np.ndarray:
    return tracks.id % np.uint64(FLOAT_IDS)


def _floats(values: np.ndarray) -> array.array:
    return to_array('f', values.astype(np.float32))


class Annotations:
    """Tracks -> foxglove_msgs/ImageAnnotations. messages: the module foxglove_msgs.msg."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self._palette = [messages.Color(r=r, g=g, b=b, a=1.0) for r, g, b in (PALETTE / 255).tolist()]

    def __call__(self, tracks: Tracks, head: Header) -> Any:
        """One annotation of points, coloured by id. Foxglove's (0, 0) is the corner of the upper left pixel."""
        points = self._messages.PointsAnnotation(timestamp=head.stamp, type=self._messages.PointsAnnotation.POINTS)
        points.points = [self._messages.Point2(x=x, y=y) for x, y in (tracks.uv + 0.5).tolist()]
        points.outline_colors = [self._palette[i] for i in palette_index(tracks.id).tolist()]
        points.thickness = MARKER
        message = self._messages.ImageAnnotations(points=[points])
        if hasattr(message, 'timestamp'):  # newer releases of foxglove_msgs; it counts in place of the points' own
            message.timestamp = head.stamp
        return message
