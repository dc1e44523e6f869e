"""A camera that is lost: a map of its own goes on until a place of the known one is recognised, or takes its place.

It goes on for two reasons: windows have something to hang on, so that several can be compared; and when nothing is
recognised in time, that map is the world from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vggt_ros.odometry.config import MotionHints, OdometryConfig
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.loops.recognition import Recognition
from vggt_ros.odometry.loops.verification import Decision, Evidence
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.outcome import WindowOutcome, moved
from vggt_ros.odometry.windows.alignment import AlignmentError
from vggt_ros.odometry.windows.covariance import UNKNOWN
from vggt_ros.odometry.windows.placing import CornersOf
from vggt_ros.odometry.windows.window import PredictionError, Window
from vggt_ros.similarity import Similarity
from vggt_ros.types import Estimate, State, WindowPrediction


class LostError(AlignmentError):
    """The window was placed, but nobody knows where in the map."""


class LostCamera:
    """What goes on while the camera is lost.

    own: the map that began since then; keyframes: the estimates that became keyframes of it and still are, as many as
    it holds, however long the camera is lost. query: (C,) descriptor, what the newest frame looks like.
    """

    def __init__(self, config: OdometryConfig, since: int, query: np.ndarray) -> None:
        self.own = Odometry(config)
        self.keyframes: list[Estimate] = []
        self.query = query
        self._since = since  # stamp, ns

    def update(
        self, window: Window, prediction: WindowPrediction, corners: CornersOf, hints: MotionHints
    ) -> WindowOutcome:
        """Place the window in the map of its own, which begins anew where it is lost itself. Raises as Odometry."""
        self.query = prediction.descriptor[window.new_slots[-1]]
        try:
            outcome = self.own.update(window, prediction, corners, hints)
        except (AlignmentError, PredictionError):
            if self.own.latest is None or self.own.state is State.LOST:
                self.own, self.keyframes = Odometry(self.own.config), []
            raise
        # However long it takes: no more than a map holds.
        kept = {keyframe.frame.index for keyframe in self.own.keyframes}
        self.keyframes = [one for one in (*self.keyframes, *outcome.keyframes) if one.frame.index in kept]
        return outcome

    def look_around(
        self,
        recognition: Recognition,
        keyframes: Sequence[Keyframe],
        window: Window,
        prediction: WindowPrediction,
        outcome: WindowOutcome,
    ) -> tuple[Decision, Evidence]:
        """Whether the guests of a window show where in the known map (keyframes) the camera is.

        outcome: of this window in the map of its own. Raises AlignmentError.
        """
        own = self.own
        assert own.latest is not None
        assert outcome.placed is not None
        return recognition.judge(
            window, prediction, keyframes, own.keyframes, own.latest, outcome.placed.alignment, None
        )

    def expired(self, stamp: int, timeout: float) -> bool:
        """Whether it has been lost for longer than ``timeout`` seconds at this stamp (ns); 0 = never."""
        return bool(timeout) and stamp - self._since > timeout * 1e9


def found_again(estimate: Estimate, known: Odometry, correction: Similarity, evidence: Evidence) -> Estimate:
    """An estimate of the lost camera's own map in the known one.

    odom goes on from where it was: nobody knows how the camera came here.
    """
    covariance = evidence.loop.covariance + np.diag([(0.02 * evidence.depth) ** 2] * 3 + [1e-4] * 3)
    return replace(
        moved(estimate, correction),
        T_odom_camera=known.T_odom_latest,
        covariance=covariance,
        velocity=None,
        velocity_covariance=np.diag([UNKNOWN] * 6),
        state=State.RELOCALIZED,
        scale=known.scale,
        epoch=known.epoch,
    )
