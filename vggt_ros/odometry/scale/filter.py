"""Metres per map unit: one log-scale, any mix of metric sources, and an honest answer whether lengths are metres.

Model, a Kalman filter on x = (lambda, b_1, ..., b_n). lambda = log(metres per map unit) walks randomly with every
window that is chained to the map. A measurement of source i is z = lambda + b_i + noise. The bias b_i ~ N(0, bias_i^2)
is constant: a miscalibrated wheel is wrong by the same share every time, so a thousand measurements of one source do
not make lambda better than that source's bias, whereas a second source does (Schmidt 1966; Bar-Shalom, Li and
Kirubarajan, Estimation with Applications to Tracking and Navigation, 2001, for the gate and for correlated errors).

What the caller does with it, once per window::

    scale.predict()                          # or predict(variance) when the aligner knows how uncertain its scale is
    for answer in answers:                   # see sources.py
        scale.update(answer)

- Until ``scale.scale`` is METRIC, outputs stay in map units and say RELATIVE; ``factor`` still moves, do not use it.
- When it turns METRIC, multiply the whole map about its origin by ``factor`` (keyframe positions and depths, voxels,
  path) and call ``rescale(factor)``: now the map's unit is the metre and ``factor`` is 1. The message that carries the
  new positions carries the new state, so nobody sees a jump without a word. odom stays continuous: its increments are
  metres from then on, and map -> odom takes up the difference.
- While ``locked``, place windows with SE(3): the window's scale is the anchors' times ``factor``, and call
  ``rescale(factor)`` again. ``factor`` is then the small drift since the last window, so new keyframes hold metres and
  what was published before stays where it is. Between METRIC sources (not ``locked``) the anchors alone hold the scale.
- A contradiction that forces the filter to change its mind turns METRIC back to RELATIVE at once, before ``factor``
  jumps; METRIC comes back, with the first step again, when the new value is confirmed.
A new epoch takes a new filter.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from scipy.special import chdtri

from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.types import Scale

FIXED = 'fixed'  # the source that nobody measures: a promise of the user, see ScaleFilter._settle
PRIOR = 10.0  # standard deviation of log-scale before anything is known: no unit in use is e^10 away from another
UNKNOWN_BIAS = 0.03
PATIENCE = 20  # windows in which sources may get ready


class MeasurementVerdict(IntEnum):
    """What became of the latest answer of a source."""

    UNAVAILABLE = 0
    ACCEPTED = 1
    REJECTED = 2


@dataclass(eq=False)
class SourceStatus:
    """A source's latest answer and its history, for diagnostics.

    innovation: latest measurement minus its prediction, log units, and innovation_sigma its standard deviation before
    the measurement was used; NaN before the first. reason: in words, empty when accepted without remark.
    accepted, rejected: how many. window: the filter's window of the latest accepted one, -1 = never.
    """

    verdict: MeasurementVerdict = MeasurementVerdict.UNAVAILABLE
    reason: str = ''
    innovation: float = math.nan
    innovation_sigma: float = math.nan
    accepted: int = 0
    rejected: int = 0
    window: int = -1
    agreed: int = field(default=0, repr=False)  # accepted since the filter last changed its mind
    disputed: deque[tuple[int, float]] = field(
        default_factory=deque, repr=False
    )  # (window, log-scale) rejected in a row

    def describe(self) -> str:
        """For a person."""
        history = f'{self.accepted} accepted, {self.rejected} rejected'
        return f'{self.verdict.name.lower()}; {history}' + (f'; {self.reason}' if self.reason else '')


@dataclass(frozen=True)
class ScaleConfig:
    """How the filter trusts."""

    walk: float = 0.003  # standard deviation of the map's log-scale added by one window
    # source -> standard deviation of what it is wrong by always, log units (others: 3 %)
    bias: Mapping[str, float] = field(
        default_factory=lambda: {'depth': 0.01, 'odometry': 0.02, 'baseline': 0.01, 'height': 0.03, FIXED: 0.02}
    )
    gate: float = 0.99  # probability that a good measurement passes the chi-square gate
    metric_below: float = 0.05  # standard deviation of log-scale below which lengths become metres
    relative_above: float = 0.08  # and above which they cease to be
    confirm: int = 3  # measurements that must agree before lengths are called metres
    # rejections of one source in a row, agreeing among themselves, after which the filter doubts itself
    persistence: int = 5
    live: int = 10  # windows without any accepted measurement after which ``locked`` ends

    def __post_init__(self) -> None:
        if not 0 < self.gate < 1:
            raise ValueError(f'gate is a probability in (0, 1), not {self.gate}')
        if not 0 < self.metric_below < self.relative_above:
            raise ValueError(f'metric_below {self.metric_below} must be below relative_above {self.relative_above}')
        if self.walk < 0 or any(not sigma > 0 for sigma in self.bias.values()):
            raise ValueError('walk must not be negative, and every bias must be positive')
        if self.confirm < 1 or self.persistence < 2:
            raise ValueError('confirm must be at least 1 and persistence at least 2')


class ScaleFilter:
    """Log-scale, its uncertainty, and who says what. Not thread-safe: one worker owns it.

    scale: UNKNOWN until the first window, then RELATIVE or METRIC. sources: name -> :class:`SourceStatus`.
    """

    def __init__(self, config: ScaleConfig | None = None) -> None:
        self.config = config or ScaleConfig()
        self.scale = Scale.UNKNOWN
        self.sources: dict[str, SourceStatus] = {}
        self._gate = math.sqrt(chdtri(1, 1 - self.config.gate))  # chi-square, one degree of freedom
        self._rows: dict[str, int] = {}
        self._x = np.zeros(1)
        self._P = np.array([[PRIOR**2]])
        self._window = 0
        self._confirmed = 0

    @property
    def log_scale(self) -> float:
        """log(metres per map unit); 0 while nothing was measured."""
        return float(self._x[0])

    @property
    def factor(self) -> float:
        """Metres per map unit; 1 while nothing was measured."""
        return math.exp(self.log_scale)

    @property
    def sigma(self) -> float:
        """Standard deviation of log-scale (0.01 = one per cent); 10 while nothing was measured."""
        return math.sqrt(self._P[0, 0])

    @property
    def complaint(self) -> str:
        """Why lengths are still no metres although somebody is asked, in words; empty when they are, or it is early."""
        if self.scale is Scale.METRIC or self._window < PATIENCE:
            return ''
        said = [
            f'{name}: {status.reason or "not sure enough yet"}'
            for name, status in self.sources.items()
            if status.verdict is not MeasurementVerdict.ACCEPTED
        ]
        return f'lengths are not metres: {"; ".join(said)}' if said else ''

    @property
    def locked(self) -> bool:
        """Whether windows shall be placed with SE(3): METRIC, and a source has lately seen the map's scale."""
        latest = max((status.window for status in self.sources.values()), default=-1)
        return self.scale is Scale.METRIC and self._window - latest < self.config.live

    def predict(self, variance: float | None = None) -> None:
        """A window was chained to the map. variance: of the log-scale that it added, default ``walk`` squared."""
        variance = self.config.walk**2 if variance is None else variance
        if not (math.isfinite(variance) and variance >= 0):
            raise ValueError(f'the variance of a window must be finite and not negative, not {variance}')
        self._window += 1
        self._P[0, 0] += variance
        self._judge()

    def rescale(self, ratio: float) -> None:
        """Every length in the map was multiplied by ``ratio``: one map unit is that many times fewer metres now."""
        if not (math.isfinite(ratio) and ratio > 0):
            raise ValueError(f'the map can only be scaled by a positive number, not {ratio}')
        step = math.log(ratio)
        self._x[0] -= step
        for status in self.sources.values():
            status.disputed = deque((window, value - step) for window, value in status.disputed)

    def update(self, answer: ScaleMeasurement | NoMeasurement) -> SourceStatus:
        """Use what a source says, or say why not."""
        status = self.sources.setdefault(answer.source, SourceStatus())
        if isinstance(answer, NoMeasurement):
            status.verdict, status.reason = MeasurementVerdict.UNAVAILABLE, answer.reason
            return status
        row = self._row(answer.source)
        innovation, spread = self._innovation(row, answer.log_scale, answer.variance)
        status.innovation, status.innovation_sigma = innovation, spread
        if abs(innovation) <= self._gate * spread:
            status.reason = ''
            self._accept(status, row, answer.log_scale, answer.variance)
        else:
            status.verdict = MeasurementVerdict.REJECTED
            status.reason = f'off by {math.expm1(innovation):+.1%}, {abs(innovation) / spread:.1f} standard deviations'
            status.rejected += 1
            status.disputed.append((self._window, answer.log_scale))
            if len(status.disputed) > self.config.persistence:
                status.disputed.popleft()
            self._reconsider(answer, status, row)
        self._judge()
        return status

    def _row(self, source: str) -> int:
        """The row of the source's bias in the state, made on first sight."""
        if source not in self._rows:
            self._rows[source] = len(self._x)
            self._x = np.append(self._x, 0.0)
            self._P = np.pad(self._P, (0, 1))
            self._P[-1, -1] = self._bias(source) ** 2
        return self._rows[source]

    def _bias(self, source: str) -> float:
        return self.config.bias.get(source, UNKNOWN_BIAS)

    def _innovation(self, row: int, log_scale: float, variance: float) -> tuple[float, float]:
        seen = [0, row]
        return log_scale - float(self._x[seen].sum()), math.sqrt(self._P[np.ix_(seen, seen)].sum() + variance)

    def _accept(self, status: SourceStatus, row: int, log_scale: float, variance: float) -> None:
        """Kalman update in Joseph's form, which keeps P positive after the huge prior."""
        h = np.zeros(len(self._x))
        h[[0, row]] = 1.0
        innovation, spread = self._innovation(row, log_scale, variance)
        gain = self._P @ h / spread**2
        self._x += gain * innovation
        left = np.eye(len(h)) - np.outer(gain, h)
        self._P = left @ self._P @ left.T + variance * np.outer(gain, gain)
        status.verdict, status.window = MeasurementVerdict.ACCEPTED, self._window
        status.accepted += 1
        status.agreed += 1
        status.disputed.clear()
        self._confirmed += 1

    def _reconsider(self, answer: ScaleMeasurement, status: SourceStatus, row: int) -> None:
        """Let a rejected source in when it keeps saying the same: somebody is wrong, and it need not be the source."""
        if len(status.disputed) < self.config.persistence:
            return
        values = np.array([value for _, value in status.disputed])
        centre, scatter = float(np.median(values)), float(values.std(ddof=1))
        offset, _ = self._innovation(row, centre, answer.variance)
        if scatter > abs(offset) / 2:
            return  # it does not even agree with itself
        status.reason = self._settle(answer.source, status, row, offset)
        self._accept(status, row, centre, max(answer.variance, scatter**2))

    def _settle(self, source: str, status: SourceStatus, row: int, offset: float) -> str:
        """Decide by witnesses, the other sources accepted meanwhile, whose uncertainty grows by the disagreement.

        A fixed factor is no witness: it agrees with any memory of itself, whatever the map does.
        """
        since = status.disputed[0][0]
        witnesses = [
            name
            for name, other in self.sources.items()
            if name not in (source, FIXED) and other.accepted and other.window >= since
        ]
        if not witnesses:
            # Only the filter's own memory contradicts: the map's unit jumped, or the memory began with an outlier.
            self._forget()
            return f'off by {math.expm1(offset):+.1%} for {len(status.disputed)} times: the scale starts anew from it'
        if source == FIXED or len(witnesses) > 1 or status.agreed >= self.config.confirm:
            # Outvoted, or it alone changed while another went on as before: only its own bias is in doubt.
            self._P[row, row] += offset**2
            return f'off by {math.expm1(offset):+.1%} against {", ".join(witnesses)}: taken as its own bias'
        # One word against another: either may be wrong. lambda + bias of the witness, which it keeps measuring, stays.
        doubt = np.zeros(len(self._x))
        doubt[0], doubt[self._rows[witnesses[0]]] = 1.0, -1.0
        self._P += offset**2 * np.outer(doubt, doubt)
        self._P[row, row] += offset**2
        self._confirmed = 0
        return f'contradicts {witnesses[0]} by {math.expm1(offset):+.1%}: neither is believed alone'

    def _forget(self) -> None:
        self._x[:] = 0.0
        self._P = np.diag([PRIOR**2, *(self._bias(name) ** 2 for name in self._rows)])
        self._confirmed = 0
        for status in self.sources.values():
            status.agreed = 0

    def _judge(self) -> None:
        """Two thresholds, so that the state does not flicker."""
        bound = self.config.relative_above if self.scale is Scale.METRIC else self.config.metric_below
        metric = self._confirmed >= self.config.confirm and self.sigma < bound
        self.scale = Scale.METRIC if metric else Scale.RELATIVE
