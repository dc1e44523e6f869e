"""What a window brought to the map, complete when it is returned and never changed afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vggt_ros.odometry.windows.placing import PlacedWindow
from vggt_ros.similarity import Similarity, for_all
from vggt_ros.types import Estimate, Scale, State


@dataclass(frozen=True, eq=False)
class WindowOutcome:
    """How things stand after a window, and what is new.

    state, scale, epoch: of the map. reasons: why the state is not TRACKING. estimates: one for each new frame that was
    placed, in the order of time. keyframes: those of them that became keyframes of the map. corrections: frame index ->
    how a keyframe that was known before has moved, x -> similarity x; all of them or, as a rule, none. placed: the
    window itself, None where the map does not hang on it. Estimates and keyframes are as they are after corrections.
    """

    state: State
    scale: Scale
    epoch: int
    reasons: tuple[str, ...] = ()
    estimates: Sequence[Estimate] = ()
    keyframes: Sequence[Estimate] = ()
    corrections: Mapping[int, Similarity] = field(default_factory=dict)
    placed: PlacedWindow | None = None

    def moved(self, corrections: Mapping[int, Similarity], newest: Similarity) -> WindowOutcome:
        """The map has moved once more, and by ``newest`` where this window put the newest image."""
        before, placed = self.corrections, self.placed
        own = for_all(corrections, [one.frame.index for one in self.estimates])
        if placed is not None:
            similarity = newest @ placed.alignment.similarity
            placed = replace(placed, alignment=replace(placed.alignment, similarity=similarity))
        return replace(
            self,
            corrections={index: one @ before[index] if index in before else one for index, one in corrections.items()},
            estimates=[moved(one, own.get(one.frame.index, newest)) for one in self.estimates],
            keyframes=[moved(one, own.get(one.frame.index, newest)) for one in self.keyframes],
            placed=placed,
        )

    def with_estimates(self, **changes: Any) -> WindowOutcome:
        """Fields of all estimates and keyframes replaced."""
        estimates, keyframes = ([replace(one, **changes) for one in ones] for ones in (self.estimates, self.keyframes))
        return replace(self, estimates=estimates, keyframes=keyframes)


def moved(estimate: Estimate, correction: Similarity) -> Estimate:
    """The estimate where a correction puts it, in its unit."""
    unit = np.diag([correction.scale] * 3 + [1.0] * 3)
    turn = np.kron(np.eye(2), correction.R) @ unit
    return replace(
        estimate,
        T_map_camera=correction.pose(estimate.T_map_camera),
        covariance=turn @ estimate.covariance @ turn.T,
        step_covariance=turn @ estimate.step_covariance @ turn.T,
        velocity=None if estimate.velocity is None else unit @ estimate.velocity,
        velocity_covariance=unit @ estimate.velocity_covariance @ unit,
        depth=estimate.depth * np.float32(correction.scale),
    )
