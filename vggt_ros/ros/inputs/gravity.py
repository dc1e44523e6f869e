"""Which way is down, from the robot's IMU or TF."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Vector3
from rclpy.callback_groups import CallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Imu

from vggt_ros.odometry.gravity import Gravity, ImuGravity, NoGravity, assumed_level, from_base
from vggt_ros.odometry.sensors import Reading
from vggt_ros.ros.inputs.sensor import Robot, RosSensor
from vggt_ros.ros.messages import frame_name, time_to_ns
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.polled import Polled, read
from vggt_ros.types import Frame


class GravitySensor(RosSensor):
    """Gravity as the parameter ``gravity`` says: imu, base (``base_frame`` is level), level, or auto: the first there.

    ``reason``: in words why the camera had to be assumed level at the last call of ``at``; empty when it had not.
    Raises LoadError.
    """

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot)
        self._mode, self._base = robot.settings['gravity'], robot.settings['base_frame']
        if self._mode == 'base' and not self._base:
            raise LoadError('gravity: base needs the name of the level frame in base_frame')
        self._problems, self._lookup, self._log = robot.problems, robot.lookup, robot.node.get_logger()
        self._imu = ImuGravity(np.eye(3))  # down in the IMU's own frame
        self._imu_frame = ''
        self._node, self._topic = robot.node, robot.node.resolve_topic_name('imu')
        self._heard: Polled | None = None
        self._told = False
        self.reason = ''

    def open(self, group: CallbackGroup | None = None) -> None:
        """Subscribe to the IMU where it is wanted. What it says waits in the middleware until somebody asks."""
        if self._mode in ('auto', 'imu'):
            qos = QoSProfile(depth=ImuGravity.MOST, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._heard = Polled(self._node, Imu, 'imu', qos, overridable=True)

    def close(self) -> None:
        if self._heard is not None:
            self._heard.close()
        super().close()

    def read(self, frames: Sequence[Frame]) -> Reading:
        """Down in the newest frame."""
        return Reading(gravity=self.at(frames[-1].stamp, frames[-1].frame_id))

    def _listen(self) -> None:
        """Take in what the IMU has said by now. sensor_msgs/Imu: -1 in a covariance marks what is not measured."""
        for raw in self._heard.take() if self._heard is not None else ():
            message = read(raw, Imu)
            if message.linear_acceleration_covariance[0] == -1:
                self._problems.report('imu', f'{self._topic} has no accelerometer (covariance -1): it tells no gravity')
                continue
            turning = message.angular_velocity_covariance[0] != -1
            rate = _array(message.angular_velocity) if turning else None
            self._imu_frame = frame_name(message.header.frame_id)
            self._imu.add(time_to_ns(message.header.stamp), _array(message.linear_acceleration), rate)

    def at(self, stamp: int, camera_frame: str) -> Gravity:
        """Down in the camera's optical frame at the stamp (ns).

        Where it cannot be told the camera is assumed level: ``source`` of the answer says so, the reason is reported
        once.
        """
        self.reason = ''
        if self._mode == 'level':
            return assumed_level()
        reasons = []
        if self._mode in ('auto', 'imu'):
            gravity = self._from_imu(stamp, camera_frame)
            if isinstance(gravity, Gravity):
                return gravity
            reasons.append(gravity)
        if self._mode in ('auto', 'base') and self._base:
            T_base_camera = self._lookup(self._base, camera_frame, None)
            if not isinstance(T_base_camera, str):
                return from_base(T_base_camera[:3, :3])
            reasons.append(T_base_camera)
        self.reason = '; '.join(reasons)
        if not self._told:
            self._told = True
            text = f'the first camera is assumed level: {self.reason}'
            if self._mode == 'auto' and not self._base:
                self._log.info(text)  # nobody promised anything else
            else:
                self._problems.report('gravity', text)
        return assumed_level()

    def _from_imu(self, stamp: int, camera_frame: str) -> Gravity | str:
        self._listen()
        gravity, frame = self._imu.at(stamp), self._imu_frame
        if isinstance(gravity, NoGravity):
            return gravity.reason if frame else f'nothing on {self._topic}'
        T_camera_imu = self._lookup(camera_frame, frame, None)
        return T_camera_imu if isinstance(T_camera_imu, str) else gravity.seen_from(T_camera_imu[:3, :3])


def _array(vector: Vector3) -> np.ndarray:
    return np.array([vector.x, vector.y, vector.z])
