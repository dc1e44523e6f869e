"""The chosen sources of metric scale, with their subscriptions and transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import Image

from vggt_ros.odometry.scale import sources as metric
from vggt_ros.odometry.scale.filter import NoMeasurement, ScaleMeasurement
from vggt_ros.odometry.scale.sources import Lookup, MetricSource, NoInput, Solved
from vggt_ros.ros.inputs.images import ImageError, to_depth
from vggt_ros.ros.inputs.second_camera import SecondCamera
from vggt_ros.ros.inputs.subscriptions import Inputs
from vggt_ros.ros.messages import time_to_ns
from vggt_ros.ros.parameters import (
    LoadError,
    chosen,
)
from vggt_ros.ros.problems import Problems
from vggt_ros.types import Frame

SOURCES = ('depth', 'odometry', 'baseline', 'height', 'fixed')
SILENT = 5_000_000_000  # ns of images after which a source whose input has never come is complained about


class MetricInputs:
    """Makes the sources that the parameter ``scale_sources`` names; ``sources`` is theirs, in that order.

    settings: the node's parameters by name. Raises LoadError for an unknown name or a source that lacks a parameter.
    """

    def __init__(self, node: Node, settings: dict[str, Any], problems: Problems, lookup: Lookup) -> None:
        self._node, self._settings, self._problems, self._lookup = node, settings, problems, lookup
        self._inputs = Inputs(node, settings)
        self._depth: metric.DepthSource | None = None
        self._second: SecondCamera | None = None
        names = chosen(settings, 'scale_sources', SOURCES)
        if 'baseline' in names:
            self._second = SecondCamera(node, settings, problems, lookup)
        try:
            self.sources: tuple[MetricSource, ...] = tuple(self._make(name) for name in names)
        except ValueError as error:
            raise LoadError(f'scale_sources: {error}') from error

    def _make(self, name: str) -> MetricSource:
        settings = self._settings
        if name == 'depth':
            tolerance = round(settings['sync_tolerance'] * 1e9)
            self._depth = metric.DepthSource(tolerance, settings['depth_near'], settings['depth_far'])
            topic = self._node.resolve_topic_name('depth_registered')
            return _Watched(self._depth, self._problems, f'check the topic {topic}')
        if name == 'odometry':
            odom, base = settings['odom_frame'], settings['base_frame']
            hint = f'check TF from {odom} over {base} to the camera'
            return _Watched(metric.OdometrySource(self._lookup, odom, base), self._problems, hint)
        if name == 'baseline':
            assert self._second is not None
            source = metric.BaselineSource(self._second.calibration)
            return _Watched(source, self._problems, f'check the topic {self._second.topic} and its camera_info')
        if name == 'height':
            return metric.HeightSource(settings['camera_height'])
        return metric.FixedSource(settings['metric_factor'])

    def open(self, group: CallbackGroup | None = None) -> None:
        """Subscribe. group: the images' callback group, so that a full queue of images holds these topics back, too."""
        if self._depth is not None:
            self._inputs.subscribe(Image, 'depth_registered', self._on_depth, 5, group)
        if self._second is not None:
            self._second.open(group)

    def close(self) -> None:
        """Unsubscribe."""
        self._inputs.close()
        if self._second is not None:
            self._second.close()

    def companions(self, frames: Sequence[Frame]) -> dict[int, Frame]:
        """Index of the newest frame -> the second camera's simultaneous frame, if any. On the worker's thread."""
        return self._second.companions(frames) if self._second is not None else {}

    def _on_depth(self, message: Image) -> None:
        assert self._depth is not None
        try:
            depth = to_depth(message)
        except ImageError as error:
            self._problems.report('depth image', f'depth image refused: {error}')
            return
        self._depth.add(time_to_ns(message.header.stamp), depth)


class _Watched:
    """A source that says once that its input has never come, while images do."""

    def __init__(self, source: MetricSource, problems: Problems, hint: str) -> None:
        self._source, self._problems, self._hint = source, problems, hint
        self.name = source.name
        self._since: int | None = None
        self._told = False

    def clear(self) -> None:
        self._since = None
        self._source.clear()

    def answer(self, solved: Solved) -> ScaleMeasurement | NoMeasurement:
        answer = self._source.answer(solved)
        if isinstance(answer, NoInput) and not self._told:
            stamp = solved.estimates[-1].frame.stamp
            self._since = stamp if self._since is None else self._since
            if stamp - self._since >= SILENT:
                self._told = True
                text = f'scale source {self.name} gives no metres: {answer.reason}; {self._hint}'
                self._problems.report(f'scale source {self.name}', text)
        return answer
