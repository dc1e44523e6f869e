"""Every topic that the node publishes, filled only where somebody listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from vggt_ros.history import for_all
from vggt_ros.msg import Status, TrackArray
from vggt_ros.odometry.alignment import Similarity
from vggt_ros.resample import confidence_to_source, depth_to_source
from vggt_ros.ros import messages
from vggt_ros.ros.frames import Placement
from vggt_ros.ros.images import fill_image
from vggt_ros.types import Estimate, Located, Tracks


@dataclass(eq=False)
class _Step:
    """One pose of the path: index of the image, stamp in ns, T_map_camera (4, 4)."""

    index: int
    stamp: int
    T: np.ndarray


class Outputs:
    """Publishers of results, reliable, overridable by QoS parameters.

    map_frame: frame of poses. full_size: depth and confidence at the camera's size instead of the network's.
    """

    def __init__(self, node: LifecycleNode, map_frame: str, full_size: bool) -> None:
        self._node = node
        self._map_frame = map_frame
        self._full_size = full_size
        self._path: deque[_Step] = deque()
        self._publishers: list[Publisher] = []
        self.odometry = self._publisher(Odometry, '~/odometry')
        self.pose = self._publisher(PoseWithCovarianceStamped, '~/pose')
        self.path = self._publisher(Path, '~/path')
        self.depth = self._publisher(Image, '~/depth/image_rect')
        self.camera_info = self._publisher(CameraInfo, '~/depth/camera_info')
        self.confidence = self._publisher(Image, '~/depth/confidence')
        self.points = self._publisher(PointCloud2, '~/points')
        self.tracks = self._publisher(TrackArray, '~/tracks')
        self.status = self._publisher(Status, '~/status', latched=True)

    def _publisher(self, kind: type, topic: str, latched: bool = False) -> Publisher:
        qos = QoSProfile(depth=1 if latched else 10)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        publisher = self._node.create_publisher(
            kind, topic, qos, qos_overriding_options=QoSOverridingOptions.with_default_policies()
        )
        self._publishers.append(publisher)
        return publisher

    def tracks_wanted(self) -> bool:
        """Whether anybody listens to tracks: the tracker is the most expensive of the heads."""
        return _wanted(self.tracks)

    def close(self) -> None:
        """Destroy all publishers."""
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def reset(self) -> None:
        """Forget the path."""
        self._path.clear()

    def publish_odometry(self, placement: Placement) -> None:
        """Where a frame of the robot is, and how it moves."""
        if _wanted(self.odometry):
            self.odometry.publish(messages.from_placement(placement))

    def publish_pose(self, located: Located) -> None:
        """Where the camera is in the map."""
        if _wanted(self.pose):
            message = PoseWithCovarianceStamped(header=messages.header(located, self._map_frame))
            message.pose.pose = messages.to_pose(located.T_map_camera)
            message.pose.covariance = located.covariance.ravel()
            self.pose.publish(message)

    def publish_tracks(self, tracks: Tracks) -> None:
        """The keypoints of one image, with its stamp."""
        if self.tracks_wanted():
            self.tracks.publish(messages.to_tracks(tracks))

    def publish_view(self, estimate: Estimate) -> None:
        """What the network saw in one image, each message with the image's stamp."""
        in_camera = messages.header(estimate, estimate.frame.frame_id)
        self._publish_depth(estimate, in_camera)
        if _wanted(self.points):
            self.points.publish(messages.to_points(estimate, in_camera))

    def correct_path(self, corrections: Mapping[int, Similarity]) -> None:
        """Move the poses of the path with their keyframes."""
        moved = for_all(corrections, [step.index for step in self._path])
        for step in self._path:
            if step.index in moved:
                step.T = moved[step.index].pose(step.T)

    def publish_path(self, estimate: Estimate, length: int) -> None:
        """The images that the network has seen, at most ``length`` of them; this one is the newest."""
        self._path.append(_Step(estimate.frame.index, estimate.frame.stamp, estimate.T_map_camera))
        while len(self._path) > length:
            self._path.popleft()
        if _wanted(self.path):
            head = messages.header(estimate, self._map_frame)
            poses = [PoseStamped(header=self._header(step.stamp), pose=messages.to_pose(step.T)) for step in self._path]
            self.path.publish(Path(header=head, poses=poses))

    def _header(self, stamp: int) -> Header:
        return Header(stamp=messages.ns_to_time(stamp), frame_id=self._map_frame)

    def _publish_depth(self, estimate: Estimate, head: Header) -> None:
        """Depth, its confidence and a CameraInfo of exactly their size."""
        if _wanted(self.depth):
            depth = depth_to_source(estimate.depth, estimate.map) if self._full_size else estimate.depth
            self.depth.publish(_image(depth, head))
        if _wanted(self.confidence):
            confidence = estimate.confidence
            if self._full_size:
                confidence = confidence_to_source(confidence, estimate.map)
            self.confidence.publish(_image(confidence, head))
        if _wanted(self.camera_info):
            if self._full_size:
                K, size = estimate.map.K_to_source(estimate.K), estimate.map.source
            else:
                K, size = estimate.K, estimate.map.size
            self.camera_info.publish(messages.to_camera_info(K, size, head))


def _image(values: np.ndarray, head: Header) -> Image:
    message = Image(header=head)
    fill_image(message, values, '32FC1')
    return message


def _wanted(publisher: Publisher) -> bool:
    """Whether anybody listens: nothing is computed for nobody."""
    return publisher.get_subscription_count() > 0
