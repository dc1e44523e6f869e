"""Where the camera's pose goes on /tf, and the watch that it never gets a second parent."""

from __future__ import annotations

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from vggt_ros.ros import messages
from vggt_ros.ros.compat import transform_broadcaster
from vggt_ros.types import Estimate


class CameraTransform:
    """Broadcasts map -> camera, unless /tf_static says that the camera already hangs on another frame.

    A frame has one parent (REP-105): on a robot whose description places the camera, a second one would tear the tree.
    """

    def __init__(self, node: Node, map_frame: str) -> None:
        self._map_frame = map_frame
        self._parents: dict[str, str] = {}
        self._broadcaster = transform_broadcaster(node)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscription = node.create_subscription(TFMessage, '/tf_static', self._on_static, latched)
        self._node = node
        self._last_stamp = -1

    def close(self) -> None:
        """Stop listening to /tf_static."""
        self._node.destroy_subscription(self._subscription)

    def _on_static(self, message: TFMessage) -> None:
        self._parents.update({t.child_frame_id: t.header.frame_id for t in message.transforms})

    def send(self, estimate: Estimate, camera_frame: str) -> str | None:
        """Broadcast the pose at the image's stamp; why not, when it was not sent. Time on /tf never goes back."""
        parent = self._parents.get(camera_frame, self._map_frame)
        if parent != self._map_frame:
            return (
                f'{camera_frame} already has the parent {parent} on /tf_static; {self._map_frame} -> {camera_frame} is '
                f'not broadcast. Set tf_mode to none, or camera_frame to a name of its own'
            )
        if camera_frame == self._map_frame:
            return f'the camera and the map have the same frame id {camera_frame}: set camera_frame or map_frame'
        if estimate.frame.stamp > self._last_stamp:
            self._last_stamp = estimate.frame.stamp
            transform = TransformStamped(header=messages.header(estimate, self._map_frame), child_frame_id=camera_frame)
            transform.transform = messages.to_transform(estimate.T_map_camera)
            self._broadcaster.sendTransform(transform)
        return None

    def reset(self) -> None:
        """Accept earlier stamps again (a simulation started anew)."""
        self._last_stamp = -1
