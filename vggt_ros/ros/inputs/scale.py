"""Sources of metric scale with what they live on: depth images, wheels, a height, a promise."""

from __future__ import annotations

import numpy as np
from rclpy.callback_groups import CallbackGroup
from sensor_msgs.msg import Image

from vggt_ros.odometry.scale.sources import DepthSource, FixedSource, HeightSource, NoInput, OdometrySource
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement, Sensor, SolvedWindow
from vggt_ros.ros.inputs.images import ImageError, to_depth
from vggt_ros.ros.inputs.sensor import Robot, RosSensor
from vggt_ros.ros.inputs.serialized import IMAGE, header_of, read

SILENT = 5_000_000_000  # ns of images after which a source whose input has never come is complained about


class ScaleSensor(RosSensor):
    """A source of the odometry on the robot; says once that its input has never come, while images do.

    source: answers. hint: what to check then.
    """

    def __init__(self, robot: Robot, source: Sensor, hint: str = '') -> None:
        super().__init__(robot)
        self.source, self.hint = source, hint
        self.name = source.name
        self._problems = robot.problems
        self._since: int | None = None
        self._told = False

    def clear(self) -> None:
        self._since = None
        self.source.clear()

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement | None:
        answer = self.source.answer(solved)
        if isinstance(answer, NoInput) and not self._told:
            stamp = solved.estimates[-1].frame.stamp
            self._since = stamp if self._since is None else self._since
            if stamp - self._since >= SILENT:
                self._told = True
                text = f'scale source {self.name} gives no metres: {answer.reason}; {self.hint}'
                self._problems.report(f'scale source {self.name}', text)
        return answer


class DepthCamera(ScaleSensor):
    """Depth images on ``depth_registered``."""

    def __init__(self, robot: Robot) -> None:
        settings = self._settings = robot.settings
        self._depth: DepthSource[bytes] = DepthSource(
            round(settings['sync_tolerance'] * 1e9),
            settings['depth_near'],
            settings['depth_far'],
            robot.memory,
            self._read,
        )
        super().__init__(robot, self._depth, f'check the topic {robot.node.resolve_topic_name("depth_registered")}')

    def open(self, group: CallbackGroup | None = None) -> None:
        self.subscriptions.add_images(Image, 'depth_registered', self._on_depth, 5, group)

    def answer(self, solved: SolvedWindow) -> ScaleMeasurement | NoMeasurement | None:
        near, far = self._settings['depth_near'], self._settings['depth_far']
        if near < far:  # else they are just being changed
            self._depth.believe(near, far)
        return super().answer(solved)

    def _on_depth(self, data: bytes) -> None:
        try:
            self._depth.add(header_of(data).stamp, data, len(data))
        except ImageError as error:
            self._refused(error)

    def _read(self, data: bytes) -> np.ndarray | str:
        """On the network's thread, the one image that is needed."""
        try:
            return to_depth(read(data, IMAGE))
        except ImageError as error:
            return self._refused(error)

    def _refused(self, error: ImageError) -> str:
        words = f'depth image refused: {error}'
        self._problems.report('depth image', words)
        return words


def wheels(robot: Robot) -> ScaleSensor:
    """The odometry of others, over TF."""
    odom, base = robot.settings['odom_frame'], robot.settings['base_frame']
    source = OdometrySource(robot.lookup, odom, base)
    return ScaleSensor(robot, source, f'check TF from {odom} over {base} to the camera')


def height(robot: Robot) -> ScaleSensor:
    """The camera's height above the ground."""
    return ScaleSensor(robot, HeightSource(robot.settings['camera_height']))


def promise(robot: Robot) -> ScaleSensor:
    """Metres per unit of the network, as the user says."""
    return ScaleSensor(robot, FixedSource(robot.settings['metric_factor']))
