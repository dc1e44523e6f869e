"""The lifecycle node: images in; poses, depth, clouds and tracks out.

Callbacks enqueue, one worker thread runs the network, results are published on the executor.
"""

from __future__ import annotations

import queue
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from vggt_ros.msg import Status
from vggt_ros.odometry.odometry import OdometryConfig
from vggt_ros.pipeline import Pipeline
from vggt_ros.ros import compat, parameters
from vggt_ros.ros.diagnostics import Diagnostics
from vggt_ros.ros.intake import FrameMaker, Incoming, Intake
from vggt_ros.ros.loading import LoadError, load_predictor
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.messages import ns_to_time
from vggt_ros.ros.outputs import Outputs
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.transforms import CameraTransform
from vggt_ros.ros.worker import Statistics, Worker
from vggt_ros.tracks import TrackerConfig
from vggt_ros.types import Estimate, Predictor, State

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


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
        self._worker: Worker | None = None
        self._paused = False
        self._tracks_wanted = False
        self._epoch_published = 0
        self._latest: Estimate | None = None
        self._last_status: tuple = ()
        self._input_group = MutuallyExclusiveCallbackGroup()
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
            if settings['stride'] > settings['window'] - 2:
                raise LoadError('stride must leave room for two frames of the window before: they join the windows')
            predictor = self._load(settings)
        except LoadError as error:
            self.get_logger().error(f'cannot configure: {error}')
            return FAILURE
        self._pipeline = Pipeline(
            predictor,
            OdometryConfig(
                window=settings['window'],
                keyframe_distance=settings['keyframe_distance'],
                refine=settings['refine'],
                min_confidence=settings['min_confidence'],
            ),
            TrackerConfig(settings['max_tracks'], settings['min_track_score']),
        )
        self.get_logger().info(compat.describe())
        self.get_logger().info(', '.join(f'{key}: {value}' for key, value in predictor.describe().items()))
        self._outputs = Outputs(self, settings['map_frame'], settings['depth_size'] == 'source')
        self._diagnostics = Diagnostics(self, self._problems)
        self._statistics = Statistics()
        self._topics: list[str] = []
        self._timer = self.create_timer(1.0, self._report)
        self._vggt_services = [
            self.create_service(Trigger, f'~/{name}', handler, callback_group=self._service_group)
            for name, handler in (('reset', self._on_reset), ('pause', self._on_pause), ('resume', self._on_resume))
        ]
        self._configured = True
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the worker."""
        settings = self._settings()
        self._statistics = Statistics()
        every_frame = settings['mode'] == 'every_frame'
        self._mailbox: Mailbox[Incoming] = Mailbox(settings['stride'], settings['queue_size'] if every_frame else None)
        self._intake = Intake(
            self._problems,
            settings['calibration'],
            settings['calibration_timeout'],
            int(settings['max_time_jump'] * 1e9),
        )
        self._transform = None
        if settings['tf_mode'] == 'camera':
            self._transform = CameraTransform(self, settings['map_frame'])
        make_frame = FrameMaker(
            self._problems,
            settings['camera_frame'],
            settings['calibration'] == 'required',
            settings['image_bits'],
            settings['rectified'],
        )
        self._paused = False
        self._worker = Worker(
            self._pipeline,
            self._mailbox,
            make_frame,
            self._problems,
            self._statistics,
            self._guard.trigger,
            lambda: self._tracks_wanted,
        )
        self._worker.start()
        self._subscribe(settings['image_transport'], every_frame, settings['queue_size'])
        self._publish_status()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker; map and tracks stay for the next activation."""
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

    def _subscribe(self, transport: str, every_frame: bool, queue_size: int) -> None:
        # Best effort meets every camera driver; a bag that must be seen whole is asked for reliably.
        reliability = ReliabilityPolicy.RELIABLE if every_frame else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=queue_size if every_frame else 1, reliability=reliability)
        overrides = QoSOverridingOptions.with_default_policies()
        kind, topic = (Image, 'image') if transport == 'raw' else (CompressedImage, 'image/compressed')
        self._inputs = [
            self.create_subscription(
                kind, topic, self._on_image, qos, callback_group=self._input_group, qos_overriding_options=overrides
            ),
            self.create_subscription(
                CameraInfo,
                'camera_info',
                lambda message: self._intake.on_camera_info(message),
                QoSProfile(depth=10, reliability=reliability),
                callback_group=self._input_group,
                qos_overriding_options=overrides,
            ),
        ]
        self._topics = [self._inputs[0].topic_name]

    def _stop(self) -> None:
        if self._worker is None:
            return
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._topics = []
        self._worker.stop()
        if self.context.ok():  # not after Ctrl-C: nothing can be published any more
            self._publish_results()
        self._worker = None
        if self._transform is not None:
            self._transform.close()

    def _release(self) -> None:
        if not self._configured:
            return
        self._configured = False
        self.destroy_timer(self._timer)
        for service in self._vggt_services:
            self.destroy_service(service)
        self._outputs.close()
        self._diagnostics.close()
        self._latest = None
        del self._pipeline

    # Input

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.count('received')
        if self._paused:
            self._statistics.count('dropped')
            return
        incoming = self._intake.accept(message)
        if incoming is None:
            self._statistics.count('refused')
            return
        if self._intake.restarted:
            self._intake.restarted = False
            self._begin_epoch()
        # Asked here, not on the worker: Ctrl-C takes the context away, and only the executor expects that.
        self._tracks_wanted = self._outputs.tracks_wanted()
        self._statistics.count('dropped', self._mailbox.put(incoming))

    def _begin_epoch(self) -> None:
        self._statistics.count('dropped', self._mailbox.clear())
        if self._worker is not None:
            self._worker.request_reset()

    # Output

    def _publish_results(self) -> None:
        """On the executor: publish what the worker has finished, and the status in any case."""
        while self._worker is not None:
            try:
                results = self._worker.results.get_nowait()
            except queue.Empty:
                break
            path_length = self.get_parameter('path_length').value
            for result in results:
                estimate = result.estimate
                if estimate.epoch != self._epoch_published:
                    self._epoch_published = estimate.epoch
                    self._outputs.reset()
                    if self._transform is not None:
                        self._transform.reset()
                self._outputs.publish(result, path_length)
                if self._transform is not None:
                    problem = self._transform.send(estimate, estimate.frame.frame_id)
                    if problem:
                        self._problems.report('tf', problem)
                self._latest = estimate
        self._publish_status()

    def _report(self) -> None:
        """Once a second: diagnostics, and the status when it changed."""
        failure = ''
        if self._worker is not None and not self._worker.is_alive():
            failure = 'the worker thread died: see the log, restart the node'
        details = {'epoch': str(self._pipeline.odometry.epoch), 'window': str(self._pipeline.odometry.config.window)}
        details |= self._pipeline.predictor.describe()
        odometry = self._pipeline.odometry
        self._diagnostics.publish(self._statistics, self._topics, self._state(), odometry.scale, failure, details)
        self._publish_status()

    def _state(self) -> State:
        return State.PAUSED if self._paused else self._pipeline.odometry.state

    def _publish_status(self) -> None:
        """The latched status, whenever state, scale, epoch or message changed, and with every window's counters."""
        odometry, statistics = self._pipeline.odometry, self._statistics
        text = self._worker.state_text if self._worker is not None else ''
        counters = (statistics.received, statistics.processed, statistics.dropped, statistics.refused)
        key = (self._state(), odometry.scale, odometry.epoch, text, counters)
        if key == self._last_status:
            return
        self._last_status = key
        message = Status(epoch=odometry.epoch, state=int(self._state()), scale=int(odometry.scale), message=text)
        if self._latest is not None:
            message.header.stamp = ns_to_time(self._latest.frame.stamp)
            message.header.frame_id = self._latest.frame.frame_id
        message.images_received = statistics.received
        message.images_processed = statistics.processed
        message.images_dropped = statistics.dropped
        message.images_refused = statistics.refused
        message.window_latency, message.rate = float(statistics.latency), float(statistics.rate)
        self._outputs.status.publish(message)

    # Services

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            response.message = 'the node is not active'
            return response
        self._begin_epoch()
        response.success, response.message = True, 'the map begins anew with the next image'
        return response

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(True, response)

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._set_paused(False, response)

    def _set_paused(self, paused: bool, response: Trigger.Response) -> Trigger.Response:
        if self._worker is None:
            response.message = 'the node is not active'
            return response
        response.message = 'paused' if paused else 'running'
        if paused == self._paused:
            response.message += ' already'
        self._paused = paused
        if paused:
            self._statistics.count('dropped', self._mailbox.clear())
        self._publish_status()
        response.success = True
        return response


def main(args: list[str] | None = None) -> int:
    """Run the node; with ``autostart`` it configures and activates itself."""
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
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        # Ctrl-C takes the context away under whatever publishes at that moment: rclpy's RCLError is a RuntimeError.
        if node.context.ok():
            raise
    finally:
        # ros2 launch and the terminal may both send the interrupt; the second must not tear the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
