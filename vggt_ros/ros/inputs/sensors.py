"""The sensors that the node's parameters ask for. Whoever adds one writes a class and names it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vggt_ros.ros.inputs.gravity import GravitySensor
from vggt_ros.ros.inputs.scale import DepthCamera, height, promise, wheels
from vggt_ros.ros.inputs.second_camera import SecondCamera
from vggt_ros.ros.inputs.sensor import Robot, RosSensor
from vggt_ros.ros.parameters import LoadError, chosen

SCALE_SENSORS: Mapping[str, Callable[[Robot], RosSensor]] = {
    'depth': DepthCamera,
    'odometry': wheels,
    'baseline': SecondCamera,
    'height': height,
    'fixed': promise,
}


def make_sensors(robot: Robot) -> tuple[RosSensor, ...]:
    """Who knows metres, in the order of the parameter ``scale_sources``, and who knows down.

    Raises LoadError for an unknown name or a sensor that lacks a parameter.
    """
    names = chosen(robot.settings, 'scale_sources', tuple(SCALE_SENSORS))
    try:
        return (*(SCALE_SENSORS[name](robot) for name in names), GravitySensor(robot))
    except ValueError as error:
        raise LoadError(f'scale_sources: {error}') from error
