"""The lifecycle node: images in; poses, depth, clouds, tracks and the map out.

Callbacks enqueue, two threads look and solve (worker.py), the executor publishes what they find (outputs/publication).
Here are the lifecycle, the services and the parameters. Whatever happens is said on ``~/status`` and /diagnostics,
which the node has from its construction to its end.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from vggt_ros.ros import compat, process
from vggt_ros.ros.activation import Activation
from vggt_ros.ros.heaps import HEAPS
from vggt_ros.ros.inputs.sensor import Robot
from vggt_ros.ros.inputs.sensors import make_sensors
from vggt_ros.ros.lifecycle import RefusingLifecycleNode
from vggt_ros.ros.loading import check, load_predictor, make_intake, make_pipeline, map_config, tune
from vggt_ros.ros.outputs.publication import Publication
from vggt_ros.ros.outputs.standing import Standing
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.reporter import Reporter
from vggt_ros.ros.services import Services
from vggt_ros.ros.settings import change, check_overrides, declare, doubt_overrides
from vggt_ros.ros.steady import steady_timer
from vggt_ros.ros.supervisor import Refusal, Supervisor, is_misconfigured
from vggt_ros.ros.tf.heard import Heard
from vggt_ros.ros.tf.lookup import open_lookup
from vggt_ros.ros.thread_pool import TORCH
from vggt_ros.ros.worker import ReportedWindow
from vggt_ros.types import Predictor, State

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
RETRY = 0.05  # s between looks whether a transform of somebody else has come
WATCH = 0.25  # s between looks at the age of everything
PATIENCE = 30.0  # s for the threads to end in a transition; a window of a large network on a CPU takes long

# What a user must change: parameters that do not fit, a package or a network that is not there.
REFUSED = (LoadError, compat.MissingPackage, ValueError)


def _transition(
    callback: Callable[[VGGTNode, LifecycleState], TransitionCallbackReturn],
) -> Callable[[VGGTNode, LifecycleState], TransitionCallbackReturn]:
    """rclpy turns whatever a transition raises into ERROR without a word: here it is said, with its traceback."""

    @functools.wraps(callback)
    def said(node: VGGTNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(node, state)
        except Exception as error:  # noqa: BLE001 - said, and the error transition gives everything back
            if not node.context.ok():
                return ERROR  # an interrupt took the context away: everything ends
            node.fail(f'{callback.__name__} failed: {type(error).__name__}: {error}', error)
            return ERROR

    return said


class VGGTNode(RefusingLifecycleNode):
    """See README for topics, parameters and services.

    load: makes the predictor from the node's parameters, a dict by name; raises LoadError with the reason.
    exit_status: of the process, once the node has ended its context itself.
    """

    def __init__(self, load: Callable[[dict[str, Any]], Predictor] = load_predictor, **options: Any) -> None:
        super().__init__('vggt', **options)
        self._settings = declare(self, sys.argv)
        self._load = load
        self.exit_status = 0
        self._problems = Problems(self.get_logger())
        self._active: Activation | None = None
        self._publication: Publication | None = None
        self._inactive = Standing(State.INACTIVE, ('not configured',))
        self._refusal = Refusal('not configured', passing=True)
        self._broken: str | None = None  # why everything must be given back
        self._abandoned = False  # whether a thread would not end
        self._supervisor: Supervisor | None = None
        self._guard = self.create_guard_condition(self._publish_findings)
        self._reporter = Reporter(self, self._settings, self._problems)
        # While the network is loaded, or a thread waited for, the node still says so.
        watching = MutuallyExclusiveCallbackGroup()
        steady_timer(self, WATCH, self._stand, watching)
        steady_timer(self, 1.0, self._diagnose, watching)
        steady_timer(self, WATCH, self._look_after)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        problem = change(self._settings, changes, self._publication is not None)
        if problem is None and self._publication is not None:
            tune(self._pipeline, self._settings)
            self._publication.tune()
        return SetParametersResult(successful=problem is None, reason=problem or '')

    # Lifecycle

    @_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and offer the topics; FAILURE with the reason in the log when it cannot be loaded."""
        self._inactive = Standing(State.INACTIVE, ('the network is being loaded',))
        settings = self._settings
        try:
            check(settings)
            check_overrides(self)
            with ExitStack() as parts:  # a later one that fails closes the earlier ones
                self._configure(settings, parts)
                self._parts = parts.pop_all()
        except Exception as error:
            if not (isinstance(error, REFUSED) or is_misconfigured(error)):
                raise
            return self._refuse('not configured', 'cannot configure', error)
        self._inactive = Standing(State.INACTIVE, ('configured, not activated',))
        return SUCCESS

    def _configure(self, settings: dict[str, Any], parts: ExitStack) -> None:
        predictor = TORCH.submit(self._load, settings).result()
        parts.callback(HEAPS.collect)  # after all others
        parts.callback(predictor.close)
        heard = Heard(self)
        lookup = open_lookup(self, heard, settings)
        parts.callback(lookup.close)
        self._sensors = make_sensors(Robot(self, settings, self._problems, lookup))
        parts.callback(delattr, self, '_sensors')
        self._pipeline = make_pipeline(predictor, settings, self._sensors, self._problems)
        parts.callback(delattr, self, '_pipeline')
        self._clear_lookup = lookup.clear
        publication = Publication(
            self, settings, heard, lookup, map_config(settings), self._problems, self._pipeline.report()
        )
        parts.callback(publication.close)
        self._intake = make_intake(settings, self._problems, self.resolve_topic_name)
        parts.callback(delattr, self, '_intake')
        if publication.transforms.frames.looks_up:
            parts.callback(self.destroy_timer, steady_timer(self, RETRY, publication.retry_transforms))
        parts.callback(Services(self, lambda: self._active, self._guard.trigger).close)
        self._publication = publication
        parts.callback(setattr, self, '_publication', None)
        self.get_logger().info(compat.describe())
        self.get_logger().info(', '.join(f'{key}: {value}' for key, value in predictor.describe().items()))

    @_transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start the threads."""
        assert self._publication is not None
        try:
            self._active = Activation(
                self,
                self._settings,
                self._pipeline,
                *self._intake,
                self._sensors,
                self._problems,
                self._guard.trigger,
                self._publication.tracks.wanted,
                self._clear_lookup,
                self._pause_after,
            )
        except Exception as error:
            if not (isinstance(error, REFUSED) or is_misconfigured(error)):
                raise
            return self._refuse('configured, not activated', 'cannot activate', error)
        doubt_overrides(self)
        self.get_logger().info(f'active: images are awaited on {" and ".join(self._active.topics)}')
        self._stand()
        return super().on_activate(state)

    @_transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the threads; map and tracks stay for the next activation."""
        self._inactive = Standing(State.INACTIVE, ('configured, not activated',))
        self._stop(PATIENCE)
        if self._broken is not None:
            self.fail(self._broken)
            return ERROR
        return super().on_deactivate(state)

    @_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the network and its memory back."""
        self._inactive = Standing(State.INACTIVE, ('not configured',))
        self._release()
        return SUCCESS

    @_transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop whatever runs."""
        self._inactive = Standing(State.INACTIVE, ('shut down',))
        self.close(PATIENCE)
        return SUCCESS

    @_transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that failed: nothing of it is left, and the node can be configured again."""
        self.close(PATIENCE)
        return SUCCESS

    def close(self, patience: float = PATIENCE) -> None:
        """Stop and give everything back, in any state. patience: seconds for the threads to end."""
        try:
            self._stop(patience)
        finally:
            self._release()

    def _stop(self, patience: float) -> None:
        active = self._active
        if active is None:
            return
        try:
            if not active.stop(patience):
                self._abandoned = True
                self._broken = self._broken or f'a thread has not ended within {patience:.0f} s'
        finally:
            if self.context.ok():  # not after Ctrl-C: nothing can be published any more
                self._publish_findings()
            self._active = None

    def _release(self) -> None:
        publication = self._publication
        if publication is None:
            return
        try:
            if folder := self._settings['save_map']:
                said = publication.save_map(folder, self._settings['save_timeout'])
                # After an interrupt a logger complains that it cannot publish.
                (self.get_logger().info if self.context.ok() else print)(said)
        finally:
            self._parts.close()

    def _refuse(self, standing: str, what: str, error: Exception) -> TransitionCallbackReturn:
        """A transition that cannot be, for a reason that is understood."""
        self.get_logger().error(f'{what}: {error}')
        self._refusal = Refusal(str(error), passing=isinstance(error, LoadError) and error.passing)
        self._inactive = Standing(State.INACTIVE, (f'{standing}: {error}',), failed=True)
        return FAILURE

    def fail(self, reason: str, error: Exception | None = None) -> None:
        """Something failed that nobody understands: it is said until the node is at work again."""
        if error is not None:
            self._problems.failed(reason, error)
        self._refusal = Refusal(reason, passing=True, understood=False)
        self._inactive = Standing(State.INACTIVE, (f'failed: {reason}',), failed=True)

    # At work by itself

    @property
    def closing_time(self) -> float:
        """Seconds that ``close`` may take for what the user asked for."""
        asked = self._settings['save_map'] and self._publication is not None
        return self._settings['save_timeout'] if asked else 0.0

    def supervise(self) -> None:
        """Configure and activate as soon as the executor spins, and again after a failure."""
        self._supervisor = Supervisor(self, self, self.end)
        self._supervisor.start()

    def bring_up(self) -> None:
        """Configure and activate, unless somebody else has. Raises Refusal."""
        state = self._state_machine.current_state[1]
        if state == 'finalized':
            raise Refusal('what failed could not be given back', passing=False, understood=False)
        if state != 'unconfigured':
            return
        for trigger in (self.trigger_configure, self.trigger_activate):
            try:
                done = trigger() == SUCCESS
            except RuntimeError:  # RCLError: an interrupt took the context away under the transition
                if self.context.ok():
                    raise
                return
            if not done:
                raise self._refusal

    def end(self, status: int) -> None:
        """End the context, and with it the executor that spins the node. status: of the process."""
        self.exit_status = status
        self.context.try_shutdown()

    def _look_after(self) -> None:
        """Whether the node is able to work at all; if not, it goes through its lifecycle's error transition."""
        active, publication = self._active, self._publication
        if active is None or publication is None:
            return
        counts, reason = active.counters.snapshot(), active.cause
        if not publication.is_alive:
            reason = "the map's thread has ended: see the log"
        for name, failures in counts.failures.items():
            if failures.in_row >= self._settings['failures_in_row']:
                reason = f'the {name} failed {failures.in_row} times in a row: {failures.reason}'
        if reason is None:
            return
        self.get_logger().error(f'{reason}; everything is given back')
        self._broken = reason
        self.trigger_deactivate()
        self._broken = None
        if self._abandoned:
            self.get_logger().fatal('a thread does not end: only a new process gets rid of it')
            self.end(1)
        elif self._supervisor is not None:
            self._supervisor.recover(counts.windows)

    # Output

    def _publish_findings(self) -> None:
        """On the executor: publish what the threads have found, each with the state that belongs to it."""
        active, publication = self._active, self._publication
        while active is not None and publication is not None and (found := active.take()) is not None:
            if isinstance(found, ReportedWindow):
                publication.window(found.result, found.report)
            else:
                publication.frame(found)
            self._stand()
        self._stand()

    def _stand(self) -> None:
        """Say how things stand, when it is something new."""
        self._reporter.stand(self._active, self._publication, self._inactive)

    def _diagnose(self) -> None:
        """Once a second."""
        self._reporter.diagnose(self._active, self._publication, self._inactive)

    def _pause_after(self, took: float) -> float:
        """Seconds that the network rests after a window that took so many."""
        rate, share = self._settings['max_window_rate'], self._settings['network_share']
        return max(took / share - took, 1 / rate - took if rate else 0.0)


def main(args: list[str] | None = None) -> int:
    """Run the node as this process; returns only the exit status of one that cannot be made."""
    return process.run(VGGTNode, args)


if __name__ == '__main__':
    sys.exit(main())
