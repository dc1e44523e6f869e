"""What the node says of itself on ``~/status`` and /diagnostics, from its construction to its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rclpy.node import Node

from vggt_ros.pipeline import WindowResult
from vggt_ros.ros.activation import Activation
from vggt_ros.ros.clock_watch import ClockWatch
from vggt_ros.ros.counters import Counts
from vggt_ros.ros.outputs.diagnostics import Diagnostics
from vggt_ros.ros.outputs.publication import Publication
from vggt_ros.ros.outputs.standing import Activity, Standing, judge
from vggt_ros.ros.outputs.status import StatusOutput
from vggt_ros.ros.problems import Problems

NOTHING = WindowResult()  # as before the first window


class Reporter:
    """Any thread of the executor may ask it to speak.

    settings: the node's parameters by name. active, publication: what there is now, None without. inactive: how a node
    stands that is not active.
    """

    def __init__(self, node: Node, settings: Mapping[str, Any], problems: Problems) -> None:
        self._settings, self._problems = settings, problems
        self._clock = ClockWatch(node)
        self._counts = Counts()  # of the newest activation, until the map is given back
        self._status, self._diagnostics = StatusOutput(node), Diagnostics(node, problems)

    def stand(self, active: Activation | None, publication: Publication | None, inactive: Standing) -> None:
        """The status, when it says something new."""
        standing, counts = self._standing(active, publication, inactive)
        result, latest = (NOTHING, None) if publication is None else (publication.result, publication.latest)
        self._status.say(standing, result.scale, result.epoch, latest, counts)

    def diagnose(self, active: Activation | None, publication: Publication | None, inactive: Standing) -> None:
        """Once a second."""
        standing, counts = self._standing(active, publication, inactive)
        scale, details = NOTHING.scale, {}
        if publication is not None:
            scale, details = publication.result.scale, publication.details()
        self._diagnostics.publish(standing, counts, scale, details)

    def _standing(
        self, active: Activation | None, publication: Publication | None, inactive: Standing
    ) -> tuple[Standing, Counts]:
        if publication is None:
            self._counts = Counts()  # what is configured next counts from zero
        standing, counts = inactive, self._counts
        if active is not None and publication is not None:
            counts = self._counts = active.counters.snapshot()
            activity = self._activity(active, counts)
            standing = judge(publication.result, publication.located, activity, time.monotonic())
        return standing.with_reason(self._clock.problem()), counts

    def _activity(self, active: Activation, counts: Counts) -> Activity:
        return Activity(
            counts,
            active.began,
            active.topics,
            self._settings['image_timeout'],
            self._settings['mode'] == 'every_frame',
            active.paused,
            tuple(self._problems.present(but='silence')),
            self._settings['calibration_timeout'] if self._settings['calibration'] == 'auto' else 0.0,
        )
