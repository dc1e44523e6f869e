"""From results to topics: what a frame and a window brought goes to every publisher here."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode

from vggt_ros.mapping.voxel_map import MapConfig
from vggt_ros.odometry.front.frontend import FrameResult
from vggt_ros.odometry.scale.sources import Lookup
from vggt_ros.pipeline import PipelineReport, WindowResult
from vggt_ros.ros import messages
from vggt_ros.ros.outputs.live_map import LiveMap
from vggt_ros.ros.outputs.outputs import Outputs
from vggt_ros.ros.outputs.publishers import Publishers, wanted
from vggt_ros.ros.outputs.track_outputs import TrackOutputs
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.tf.heard import Heard
from vggt_ros.ros.tf.transforms import Transforms
from vggt_ros.types import Frame, PosedFrame

MAP_MEMORY = 'map memory [MiB]'  # in /diagnostics: keyframes, points, and pictures for the saved map


class _Closable(Protocol):
    def close(self) -> None: ...


Part = TypeVar('Part', bound=_Closable)


class Publication:
    """Everything that the node publishes, from configure to cleanup.

    All methods belong to one callback group of the executor: results arrive in the order of time. settings: the node's
    parameters by name. report: of the pipeline as it begins. What came last stays for whoever asks how things stand:
    ``result`` and ``report`` of the newest window, ``located`` and ``latest``, the images located and looked at last.
    Raises LoadError, MissingPackage or ValueError; what was made by then is closed.
    """

    def __init__(
        self,
        node: LifecycleNode,
        settings: dict[str, Any],
        heard: Heard,
        lookup: Lookup,
        map_config: MapConfig,
        problems: Problems,
        report: PipelineReport,
    ) -> None:
        self._problems = problems
        self._map_frame, self._every_frame = settings['map_frame'], settings['mode'] == 'every_frame'
        self._settings = settings
        with ExitStack() as parts:  # a later one that fails closes the earlier ones

            def part(made: Part) -> Part:
                parts.callback(made.close)
                return made

            publishers = part(Publishers(node))
            self._pose = publishers.add(PoseWithCovarianceStamped, '~/pose')
            self.tracks = part(TrackOutputs(node, settings))
            self._outputs = part(Outputs(node, settings))
            self.transforms = part(Transforms(node, settings, heard, lookup, self._outputs.publish_odometry))
            self._map = part(LiveMap(node, problems, map_config, self._map_frame, settings['map_period']))
            self._parts = parts.pop_all()
        self.result, self.report = WindowResult(), report
        self.located: PosedFrame | None = None
        self.latest: Frame | None = None

    def close(self) -> None:
        """Take everything back."""
        self._parts.close()

    def tune(self) -> None:
        """Settings have changed: everything that reads them at its use has them already."""
        self._map.tune(self._settings['map_period'], self._settings['map_min_confidence'])

    # Results -----------------------------------------------------------------------------------------------------

    def frame(self, result: FrameResult) -> None:
        """What an image brought at camera rate; where every image is solved, the windows have the better pose."""
        self.latest = result.frame
        if result.tracks is not None:
            self.tracks.publish(result.tracks)
        if result.located is not None:
            self._map.add_located(result.located)
        if self._every_frame:
            return
        if result.located is None:
            self._say_tf(self.transforms.hold(result.frame.stamp))
        else:
            self._publish_pose(result.located)

    def window(self, result: WindowResult, report: PipelineReport) -> None:
        """What a window brought, and what the pipeline said of itself."""
        if result.epoch != self.result.epoch:
            self._outputs.reset()
            self.transforms.reset()
        self.result, self.report = result, report
        self._map.add(result)
        self._outputs.path.correct(result.corrections)
        for estimate in result.estimates:
            if self._every_frame:
                self._publish_pose(estimate)
            self._outputs.path.go_on(estimate, self._settings['path_length'])
            self._outputs.publish_view(estimate)
        if not self._every_frame:
            for located in result.located:
                self._publish_pose(located)

    def _publish_pose(self, located: PosedFrame) -> None:
        if located.epoch != self.result.epoch:
            return  # of a map that is no more, or not yet known here
        self.located = located
        if wanted(self._pose):
            message = PoseWithCovarianceStamped(header=messages.header(located, self._map_frame))
            message.pose.pose = messages.to_pose(located.T_map_camera)
            message.pose.covariance = located.covariance.ravel()
            self._pose.publish(message)
        self._say_tf(self.transforms.send(located))

    def retry_transforms(self) -> None:
        """Send what waits for a transform of somebody else."""
        self._say_tf(self.transforms.retry())

    def _say_tf(self, problem: str | None) -> None:
        if problem:
            self._problems.report('tf', problem)

    def save_map(self, folder: str, timeout: float) -> str:
        """At the end of the node, before ``close``: see :meth:`LiveMap.save_at_end`."""
        return self._map.save_at_end(folder, timeout)

    @property
    def is_alive(self) -> bool:
        """False when the map's thread has died of an error: see the log."""
        return self._map.is_alive

    def details(self) -> dict[str, str]:
        """What else /diagnostics says, in words."""
        report = self.report
        details = {'epoch': str(report.epoch), 'window': str(report.window), 'gravity': report.gravity.name}
        details[MAP_MEMORY] = f'{(report.nbytes + self._map.nbytes) / 2**20:.0f}'
        details |= {f'scale source {name}': text for name, text in report.sources.items()}
        return details | dict(report.predictor)
