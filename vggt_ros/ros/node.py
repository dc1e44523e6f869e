"""The lifecycle node: images in; poses, depth, clouds, tracks and the map out.

Callbacks enqueue, two threads look and solve (see worker.py), results are published on the executor.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from vggt_ros.msg import Status
from vggt_ros.odometry.front.frontend import Sight
from vggt_ros.pipeline import Solution
from vggt_ros.ros import compat, parameters
from vggt_ros.ros.activation import Activation
from vggt_ros.ros.inputs.gravity import GravityInput
from vggt_ros.ros.inputs.scale import MetricInputs
from vggt_ros.ros.loading import (
    check,
    load_predictor,
    make_intake,
    make_pipeline,
    map_config,
)
from vggt_ros.ros.messages import ns_to_time
from vggt_ros.ros.outputs.diagnostics import Diagnostics
from vggt_ros.ros.outputs.live_map import LiveMap
from vggt_ros.ros.outputs.outputs import Outputs
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.tf.lookup import open_lookup
from vggt_ros.ros.tf.transforms import Transforms
from vggt_ros.ros.worker import Statistics
from vggt_ros.types import Frame, Located, Predictor, State

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
RETRY = 0.05  # s between looks whether a transform of somebody else has come


class VGGTNode(LifecycleNode):
    """See README for topics, parameters and services.

    load: makes the predictor from the node's parameters, a dict by name; raises LoadError with the reason.
    """

    def __init__(self, load: Callable[[dict[str, Any]], Predictor] = load_predictor, **options: Any) -> None:
        super().__init__('vggt', **options)
        parameters.declare(self)
        self._load = load
        self._configured = False
        self._problems = Problems(self.get_logger())
        self._active: Activation | None = None
        self._solution = Solution()
        self._located: Located | None = None
        self._latest: Frame | None = None
        self._last_status: tuple = ()
        self._service_group = MutuallyExclusiveCallbackGroup()
        self._guard = self.create_guard_condition(self._publish_results)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        problem = parameters.first_problem(changes, self._configured)
        return SetParametersResult(successful=problem is None, reason=problem or '')

    def _settings(self) -> dict[str, Any]:
        return {declared.name: self.get_parameter(declared.name).value for declared in parameters.PARAMETERS}

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and offer the topics; FAILURE with the reason in the log when it cannot be loaded."""
        settings = self._settings()
        try:
            check(settings)
            predictor = self._load(settings)
            with ExitStack() as parts:  # a later one that fails closes the earlier ones
                self._lookup = open_lookup(self, settings)
                parts.callback(self._lookup.close)
                self._outputs = Outputs(self, settings)
                parts.callback(self._outputs.close)
                self._metric = MetricInputs(self, settings, self._problems, self._lookup)
                self._gravity = GravityInput(self, settings, self._problems, self._lookup)
                self._transforms = Transforms(self, settings, self._lookup, self._outputs.publish_odometry)
                parts.callback(self._transforms.close)
                self._pipeline = make_pipeline(predictor, settings, self._metric.sources, self._problems)
                self._intake = make_intake(settings, self._problems)
                self._parts = parts.pop_all()
        except (LoadError, compat.MissingPackage, ValueError) as error:
            self.get_logger().error(f'cannot configure: {error}')
            return FAILURE
        map_frame, period = settings['map_frame'], settings['map_period']
        self._map = LiveMap(self, self._problems, map_config(settings), map_frame, period)
        self._parts.callback(self._map.close)
        self.get_logger().info(compat.describe())
        self.get_logger().info(', '.join(f'{key}: {value}' for key, value in predictor.describe().items()))
        self._diagnostics = Diagnostics(self, self._problems)
        self._parts.callback(self._diagnostics.close)
        self._statistics = Statistics()
        self._epoch_published = 0
        self._every(1.0, self._report)
        if self._transforms.frames.looks_up:
            self._every(RETRY, lambda: self._say_tf(self._transforms.retry()))
        for name, handler in (('reset', self._on_reset), ('pause', self._on_pause), ('resume', self._on_resume)):
            service = self.create_service(Trigger, f'~/{name}', handler, callback_group=self._service_group)
            self._parts.callback(self.destroy_service, service)
        self._configured = True
        return SUCCESS

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        self._parts.callback(self.destroy_timer, self.create_timer(seconds, call))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the threads."""
        settings = self._settings()
        self._every_frame = settings['mode'] == 'every_frame'
        self._active = Activation(
            self,
            settings,
            self._pipeline,
            *self._intake,
            self._metric,
            self._gravity,
            self._problems,
            self._guard.trigger,
            self._outputs.tracks.wanted,
            self._lookup.clear,
        )
        self._statistics = self._active.statistics
        self._publish_status()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the threads; map and tracks stay for the next activation."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the network and its memory back."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self.close()
        return SUCCESS

    def close(self) -> None:
        """Stop and give everything back, in any state."""
        self._stop()
        self._release()

    def _stop(self) -> None:
        if self._active is None:
            return
        self._active.stop()
        if self.context.ok():  # not after Ctrl-C: nothing can be published any more
            self._publish_results()
        self._active = None

    def _release(self) -> None:
        if not self._configured:
            return
        self._configured = False
        self._parts.close()
        self._latest = self._located = None
        self._solution = Solution()
        del self._pipeline

    # Output

    def _publish_results(self) -> None:
        """On the executor: publish what the threads have found, each with the state that belongs to it."""
        while self._active is not None and (result := self._active.take()) is not None:
            if isinstance(result, Sight):
                self._publish_sight(result)
            else:
                self._publish_solution(result)
            self._publish_status()
        self._publish_status()

    def _publish_sight(self, sight: Sight) -> None:
        """The camera's pose at camera rate; where every image is solved, the solutions have the better one."""
        self._latest = sight.frame
        if sight.tracks is not None:
            self._outputs.tracks.publish(sight.tracks)
        if self._every_frame:
            return
        if sight.located is None:
            self._say_tf(self._transforms.hold(sight.frame.stamp))
        else:
            self._publish_pose(sight.located)

    def _publish_solution(self, solution: Solution) -> None:
        self._solution = solution
        if solution.epoch != self._epoch_published:
            self._epoch_published = solution.epoch
            self._outputs.reset()
            self._transforms.reset()
        self._map.add(solution)
        self._outputs.correct_path(solution.corrections)
        path_length = self.get_parameter('path_length').value
        for estimate in solution.estimates:
            if self._every_frame:
                self._publish_pose(estimate)
            self._outputs.publish_path(estimate, path_length)
            self._outputs.publish_view(estimate)
        if not self._every_frame:
            for located in solution.located:
                self._publish_pose(located)

    def _publish_pose(self, located: Located) -> None:
        if located.epoch != self._epoch_published:
            return  # of a map that is no more, or not yet known here
        self._located = located
        self._outputs.publish_pose(located)
        self._say_tf(self._transforms.send(located))

    def _say_tf(self, problem: str | None) -> None:
        if problem:
            self._problems.report('tf', problem)

    def _report(self) -> None:
        """Once a second: diagnostics, and the status when it changed."""
        failure = ''
        if (self._active is not None and not self._active.is_alive) or not self._map.is_alive:
            failure = 'a thread died: see the log, restart the node'
        world = self._pipeline.odometry
        details = {'epoch': str(world.epoch), 'window': str(world.config.window), 'gravity': world.gravity.source.name}
        details |= {f'scale source {name}': status.describe() for name, status in world.metres.sources.items()}
        details |= self._pipeline.predictor.describe()
        topics = [] if self._active is None else self._active.topics
        self._diagnostics.publish(self._statistics, topics, self._state(), self._solution.scale, failure, details)
        self._publish_status()

    def _state(self) -> State:
        if self._active is not None and self._active.paused:
            return State.PAUSED
        state, located = self._solution.state, self._located
        # What the camera's thread says is newer, unless the network has lost the place altogether.
        if located is not None and located.state in (State.STATIONARY, State.DEGRADED):
            return located.state if state in (State.TRACKING, State.DEGRADED) else state
        return state

    def _publish_status(self) -> None:
        """The latched status, whenever state, scale, epoch, reason or counters changed."""
        solution, statistics = self._solution, self._statistics
        text = '; '.join(solution.reasons)
        counters = (
            statistics.received,
            statistics.located,
            statistics.processed,
            statistics.dropped,
            statistics.refused,
        )
        key = (self._state(), solution.scale, solution.epoch, text, counters)
        if key == self._last_status:
            return
        self._last_status = key
        message = Status(epoch=solution.epoch, state=int(key[0]), scale=int(solution.scale), message=text)
        if self._latest is not None:
            message.header.stamp = ns_to_time(self._latest.stamp)
            message.header.frame_id = self._latest.frame_id
        (
            message.images_received,
            message.images_located,
            message.images_processed,
            message.images_dropped,
            message.images_refused,
        ) = counters
        message.window_latency, message.rate = float(statistics.latency), float(statistics.rate)
        self._outputs.status.publish(message)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._active is None:
            response.message = 'the node is not active'
            return response
        self._active.begin_epoch()
        response.success, response.message = True, 'the map begins anew with the next image'
        return response

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(True, response)

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(False, response)

    def _set_paused(self, paused: bool, response: Trigger.Response) -> Trigger.Response:
        if self._active is None:
            response.message = 'the node is not active'
            return response
        response.message = 'paused' if paused else 'running'
        if paused == self._active.paused:
            response.message += ' already'
        self._active.pause(paused)
        self._publish_status()
        response.success = True
        return response


class _Interrupts:
    """Ctrl-C while the node loads ends it there and then; later it only ends the context, which ends the executor.

    Python would raise KeyboardInterrupt wherever the main thread is: between the start of a thread of the executor's
    pool and its registration, for one, after which the process waits for that thread for ever. To be made before
    rclpy.init, whose own handler calls this one.
    """

    def __init__(self) -> None:
        self.quiet = False
        signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, *_: Any) -> None:
        if not self.quiet:
            raise KeyboardInterrupt


def main(args: list[str] | None = None) -> int:
    """Run the node; with ``autostart`` it configures and activates itself."""
    interrupts = _Interrupts()
    rclpy.init(args=args)
    try:
        node = VGGTNode()
    except (ValueError, rclpy.exceptions.ParameterException) as error:
        print(f'vggt: {error}', file=sys.stderr)
        rclpy.shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    try:
        if node.get_parameter('autostart').value and node.trigger_configure() == SUCCESS:
            node.trigger_activate()
        interrupts.quiet = True
        compat.spin(executor)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # Ctrl-C takes the context away under whatever publishes at that moment: rclpy's RCLError is a RuntimeError.
        if node.context.ok():
            raise
    finally:
        # ros2 launch and the terminal may both send the interrupt; the second must not tear the clean-up.
        interrupts.quiet = True
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
