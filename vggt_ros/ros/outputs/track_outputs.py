"""The topics of the keypoint tracks, each filled only where somebody listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image, PointCloud, PointCloud2
from std_msgs.msg import Header

from vggt_ros.msg import TrackArray
from vggt_ros.ros import compat, messages
from vggt_ros.ros.messages import fill_image
from vggt_ros.ros.outputs.publishers import Publishers, image_queue, wanted
from vggt_ros.ros.outputs.track_messages import Annotations, to_track_points, to_tracks, to_vins, to_vins_fusion
from vggt_ros.ros.parameters import chosen
from vggt_ros.tracks.picture import TrackedPoints, draw_tracks
from vggt_ros.types import Tracks

MOST_TAILS = 100  # images
ADAPTERS = ('vins', 'vins_fusion', 'foxglove')


class TrackOutputs:
    """``publish`` every image's tracks; what is drawn or derived from several images begins anew with an epoch.

    settings: the node's parameters by name. Raises LoadError for an adapter that is none, MissingPackage for one whose
    package is not installed.
    """

    def __init__(self, node: Node, settings: dict[str, Any]) -> None:
        adapters = chosen(settings, 'track_adapters', ADAPTERS)
        foxglove = compat.foxglove_messages() if 'foxglove' in adapters else None
        self._node = node
        self._settings = settings
        self._recent: deque[TrackedPoints] = deque(maxlen=MOST_TAILS + 1)
        self._kind: tuple | None = None  # epoch and image size of what is remembered
        self._publishers = Publishers(node)
        add = self._publishers.add
        # What fills the message of each topic, from the tracks and the message's header.
        self._topics: list[tuple[Publisher, Callable[[Tracks, Header], Any]]] = [
            (add(TrackArray, '~/tracks'), to_tracks),
            (add(PointCloud2, '~/tracks/points'), to_track_points),
            (add(Image, '~/tracks/image', image_queue(settings)), self._to_image),
        ]
        if foxglove is not None:
            self._topics.append((add(foxglove.ImageAnnotations, '~/tracks/annotations'), Annotations(foxglove)))
        # These need intrinsics, too, and the image before.
        self._features = [
            (add(PointCloud, f'~/tracks/{name}'), fill)
            for name, fill in (('vins', to_vins), ('vins_fusion', to_vins_fusion))
            if name in adapters
        ]

    def wanted(self) -> bool:
        """Whether anybody listens to any of the topics."""
        return any(wanted(publisher) for publisher, _ in (*self._topics, *self._features))

    def close(self) -> None:
        """Destroy all publishers."""
        self._publishers.close()

    def reset(self) -> None:
        """Forget where tracks were before; :meth:`publish` does so for a new epoch or image size."""
        self._recent.clear()

    def publish(self, tracks: Tracks) -> None:
        """One image's tracks, in the order of the images, also when there are none."""
        kind = (tracks.epoch, tracks.frame.size)
        if kind != self._kind:
            self._kind = kind
            self.reset()
        before = self._recent[-1] if self._recent else None
        self._recent.append(TrackedPoints(tracks.frame.stamp, tracks.id, tracks.uv, tracks.age))
        head = messages.header(tracks, tracks.frame.frame_id)
        for publisher, fill in self._topics:
            if wanted(publisher):
                publisher.publish(fill(tracks, head))
        for publisher, fill_features in self._features:
            if not wanted(publisher):
                continue
            if tracks.K is None:
                self._node.get_logger().warning(
                    f'{publisher.topic_name} waits for intrinsics: the camera is not calibrated', once=True
                )
                continue
            publisher.publish(fill_features(tracks, head, tracks.K, before))

    def _to_image(self, tracks: Tracks, head: Header) -> Image:
        caption = f'{len(tracks.id)} tracks, epoch {tracks.epoch}'
        message, frame = Image(header=head), tracks.frame
        tails = self._settings['track_tails']
        drawn = draw_tracks(frame.image, list(self._recent)[-tails - 1 :], tails, caption, frame.size)
        fill_image(message, drawn, 'rgb8')
        return message
