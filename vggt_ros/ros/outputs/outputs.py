"""Odometry, path, depth and points of solved frames, filled only where somebody listens."""

from __future__ import annotations

from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from vggt_ros.camera import PixelMap
from vggt_ros.depth import confidence_to_source, depth_to_source
from vggt_ros.ros import messages
from vggt_ros.ros.outputs.path import PathOutput
from vggt_ros.ros.outputs.publishers import Publishers, image_queue, wanted
from vggt_ros.ros.tf.frames import Placement
from vggt_ros.types import Estimate

LARGE = 2_500_000  # pixels of a depth image beyond which it is said what it costs


class Outputs:
    """Publishers of what a frame of the robot or the network's view of an image is. settings: the node's parameters."""

    def __init__(self, node: LifecycleNode, settings: dict[str, Any]) -> None:
        self._node, self._map_frame = node, settings['map_frame']
        self._settings = settings
        self._publishers = Publishers(node)
        self.odometry = self._publishers.add(Odometry, '~/odometry')
        self.path = PathOutput(node, self._publishers, self._map_frame)
        queue = image_queue(settings)
        self.depth = self._publishers.add(Image, '~/depth/image_rect', queue)
        self.camera_info = self._publishers.add(CameraInfo, '~/depth/camera_info')
        self.confidence = self._publishers.add(Image, '~/depth/confidence', queue)
        self.points = self._publishers.add(PointCloud2, '~/points')

    def close(self) -> None:
        """Destroy all publishers."""
        self.path.close()
        self._publishers.close()

    def reset(self) -> None:
        """Forget the path."""
        self.path.clear()

    def publish_odometry(self, placement: Placement) -> None:
        """Where a frame of the robot is, and how it moves."""
        if wanted(self.odometry):
            self.odometry.publish(from_placement(placement))

    def publish_view(self, estimate: Estimate) -> None:
        """What the network saw in one image, each message with the image's stamp."""
        in_camera = messages.header(estimate, estimate.frame.frame_id)
        self._publish_depth(estimate, in_camera)
        if wanted(self.points):
            self.points.publish(messages.to_points(estimate, in_camera))

    def _publish_depth(self, estimate: Estimate, head: Header) -> None:
        """Depth, its confidence and a CameraInfo of exactly their size."""
        full_size = self._settings['depth_size'] == 'source'
        if full_size and (wanted(self.depth) or wanted(self.confidence)):
            self._say_size(estimate.map)
        if wanted(self.depth):
            depth = depth_to_source(estimate.depth, estimate.map) if full_size else estimate.depth
            self.depth.publish(_image(depth, head))
        if wanted(self.confidence):
            confidence = estimate.confidence
            if full_size:
                confidence = confidence_to_source(confidence, estimate.map)
            self.confidence.publish(_image(confidence, head))
        if wanted(self.camera_info):
            if full_size:
                K, size = estimate.map.K_to_source(estimate.K), estimate.map.source
            else:
                K, size = estimate.K, estimate.map.size
            self.camera_info.publish(messages.to_camera_info(K, size, head))

    def _say_size(self, pixel_map: PixelMap) -> None:
        (width, height), small = pixel_map.source, pixel_map.size
        if width * height > LARGE:
            self._node.get_logger().info(
                f'depth and confidence of {width}x{height} are {4e-6 * width * height:.0f} MB each; '
                f'depth_size:=network makes them {small[0]}x{small[1]}, all that the network has seen',
                once=True,
            )


def _image(values: np.ndarray, head: Header) -> Image:
    message = Image(header=head)
    messages.fill_image(message, values, '32FC1')
    return message


def from_placement(placement: Placement) -> Odometry:
    """The pose of a frame and its twist; an unknown twist is zero with its covariance of 1e6."""
    head = Header(stamp=messages.ns_to_time(placement.stamp), frame_id=placement.frame_id)
    message = Odometry(header=head, child_frame_id=placement.child_frame_id)
    message.pose.pose = messages.to_pose(placement.T)
    message.pose.covariance = placement.covariance.ravel()
    if placement.velocity is not None:
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = placement.velocity.tolist()
    message.twist.covariance = placement.velocity_covariance.ravel()
    return message
