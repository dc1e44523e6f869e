"""The lifecycle node: images in; poses, depth, clouds, tracks and the map out.

Callbacks enqueue, two threads look and solve (worker.py), the executor publishes what they find (outputs/publication).
Here are the lifecycle, the services and the parameters.
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

from vggt_ros.ros import compat, parameters
from vggt_ros.ros.activation import Activation
from vggt_ros.ros.counters import Counts
from vggt_ros.ros.inputs.sensor import Robot
from vggt_ros.ros.inputs.sensors import make_sensors
from vggt_ros.ros.loading import check, load_predictor, make_intake, make_pipeline, map_config
from vggt_ros.ros.outputs.publication import Publication
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.tf.lookup import open_lookup
from vggt_ros.ros.worker import ReportedWindow
from vggt_ros.types import Predictor

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
        self._counts = Counts()
        self._service_group = MutuallyExclusiveCallbackGroup()
        self._guard = self.create_guard_condition(self._publish_findings)
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
                self._sensors = make_sensors(Robot(self, settings, self._problems, self._lookup))
                self._pipeline = make_pipeline(predictor, settings, self._sensors, self._problems)
                self._publication = Publication(
                    self, settings, self._lookup, map_config(settings), self._problems, self._pipeline.report()
                )
                parts.callback(self._publication.close)
                self._intake = make_intake(settings, self._problems)
                self._parts = parts.pop_all()
        except (LoadError, compat.MissingPackage, ValueError) as error:
            self.get_logger().error(f'cannot configure: {error}')
            return FAILURE
        self.get_logger().info(compat.describe())
        self.get_logger().info(', '.join(f'{key}: {value}' for key, value in predictor.describe().items()))
        self._every(1.0, self._diagnose)
        if self._publication.transforms.frames.looks_up:
            self._every(RETRY, self._publication.retry_transforms)
        for name, handler in (('reset', self._on_reset), ('pause', self._on_pause), ('resume', self._on_resume)):
            service = self.create_service(Trigger, f'~/{name}', handler, callback_group=self._service_group)
            self._parts.callback(self.destroy_service, service)
        self._configured = True
        return SUCCESS

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        self._parts.callback(self.destroy_timer, self.create_timer(seconds, call))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the threads."""
        self._active = Activation(
            self,
            self._settings(),
            self._pipeline,
            *self._intake,
            self._sensors,
            self._problems,
            self._guard.trigger,
            self._publication.tracks.wanted,
            self._lookup.clear,
        )
        self._stand()
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
            self._publish_findings()
        self._active = None

    def _release(self) -> None:
        if not self._configured:
            return
        self._configured = False
        self._parts.close()
        self._counts = Counts()
        del self._pipeline, self._publication, self._sensors

    # Output

    def _publish_findings(self) -> None:
        """On the executor: publish what the threads have found, each with the state that belongs to it."""
        while self._active is not None and (found := self._active.take()) is not None:
            if isinstance(found, ReportedWindow):
                self._publication.window(found.result, found.report)
            else:
                self._publication.frame(found)
            self._stand()
        self._stand()

    def _stand(self) -> None:
        """Say how things stand, when it is something new."""
        if not self._configured:
            return
        if self._active is not None:
            self._counts = self._active.counters.snapshot()
        self._publication.stand(self._counts, self._active is not None and self._active.paused)

    def _diagnose(self) -> None:
        """Once a second."""
        self._stand()
        failure = ''
        if self._active is not None and not self._active.is_alive:
            failure = 'a thread died: see the log, restart the node'
        self._publication.diagnose([] if self._active is None else self._active.topics, failure)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        active = self._active
        if active is None:
            response.message = 'the node is not active'
            return response
        active.begin_epoch()
        response.success, response.message = True, 'the map begins anew with the next image'
        return response

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(True, response)

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(False, response)

    def _set_paused(self, paused: bool, response: Trigger.Response) -> Trigger.Response:
        active = self._active
        if active is None:
            response.message = 'the node is not active'
            return response
        response.message = 'paused' if paused else 'running'
        if paused == active.paused:
            response.message += ' already'
        active.pause(paused)
        self._guard.trigger()  # the status is said where everything else is published
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
