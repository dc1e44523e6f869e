"""What every sensor of the robot has in common: what it needs to be made, and the subscriptions that it lives on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from vggt_ros.odometry.scale.sources import Lookup
from vggt_ros.odometry.sensors import Sensor
from vggt_ros.ros.inputs.subscriptions import Subscriptions
from vggt_ros.ros.problems import Problems

LIVE = 256 << 20  # bytes of images that wait for their partners in mode live


@dataclass(frozen=True, eq=False)
class Robot:
    """What a sensor is made from. settings: the node's parameters by name. lookup: transforms of others."""

    node: Node
    settings: dict[str, Any]
    problems: Problems
    lookup: Lookup

    @property
    def memory(self) -> int:
        """Bytes of images of one sensor that wait for their partners: in mode every_frame these wait, too."""
        return self.settings['queue_memory'] << 20 if self.settings['mode'] == 'every_frame' else LIVE


class RosSensor(Sensor):
    """A sensor from configure to cleanup; it hears something from ``open`` to ``close``."""

    def __init__(self, robot: Robot) -> None:
        self.subscriptions = Subscriptions(robot.node, robot.settings, robot.problems)

    def open(self, group: CallbackGroup | None = None) -> None:
        """Subscribe. group: the images' callback group."""

    def close(self) -> None:
        """Unsubscribe."""
        self.subscriptions.close()
