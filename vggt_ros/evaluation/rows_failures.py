"""What the odometry does when something goes wrong: that it says so, and finds back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vggt_ros.evaluation import hazards, live, scenarios
from vggt_ros.evaluation.live import Live
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, at_most, median, median_and_worst
from vggt_ros.evaluation.runs import LONGEST
from vggt_ros.evaluation.scenarios import Scenario
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Accuracy, Frame, State, WindowPrediction

JUMP = 0.05
"""Share of the depth beyond which the error of a step is a jump: such a step has to be announced by the state."""
NOISE = 10.0, 0.3  # deg, share of the depth: poses that tell nothing
WORLDS = 4  # look-alike corridors, each for as many seeds


def standstill(settings: EvaluationSettings) -> Findings:
    """500 noisy images of a camera that stands after a short way."""
    drift, late = [], []
    quiet = hazards.standstill()
    for seed in settings.runs(min(settings.seeds, 5)):
        run = live.run_pipeline(hazards.noisy(quiet, seed), hazards.ROUGH, seed)
        states = [one is not None and one.state is State.STATIONARY for one in run.published]
        begun = states.index(True)
        late.append(begun - hazards.MOVING)
        poses = [one for one in run.published[begun:] if one is not None]
        for T in (np.stack([one.T_map_camera for one in poses]), np.stack([one.T_odom_camera for one in poses])):
            drift.append(float(np.abs(T - T[0]).max()) if all(states[begun:]) else np.inf)
    return Findings(
        [
            at_most('standstill of 500 noisy images: largest change of a pose in map or odom', max(drift), 0.0, '{:g}'),
            Row('the same: images until STATIONARY is said, at 10 Hz', f'{max(late)}'),
        ]
    )


def blank(settings: EvaluationSettings) -> Findings:
    """Past a wall without any texture, and back."""
    scenario = hazards.blank_wall()
    found = [live.run_pipeline(scenario, hazards.ROUGH, seed) for seed in settings.runs()]
    return Findings(_said('blank wall for 2 s', found, hazards.WALL))


def passing(settings: EvaluationSettings) -> Findings:
    """A large object moves through the picture."""
    rows = []
    for share in (0.1, 0.35, 0.6):
        scenario = hazards.passing_object(share)
        found = [live.run_pipeline(scenario, hazards.ROUGH, seed) for seed in settings.runs()]
        rows += _said(f'object that covers {share:.0%} of the image passes', found, hazards.BACKGROUND)
    return Findings(rows)


def _said(test: str, found: list[Live], depth: float) -> list[Row]:
    """Whether all jumps were announced, and how exact the poses are that claim to be good. depth: m."""
    errors = [live.error(one) for one in found]
    jump = max(one.jump for one in errors) / depth
    shown = np.mean([np.mean([one is not None for one in run.published]) for run in found])
    return [
        at_most(f'{test}: largest step error that no state announced, over the depth', jump, JUMP, '{:.1%}'),
        Row(
            f'{test}: ATE of poses not called DEGRADED or LOST, median and worst [m]; share of images with a pose',
            f'{median([one.ate for one in errors]):.3f}, {max(one.ate for one in errors):.3f}; {shown:.0%}',
        ),
    ]


def teleport(settings: EvaluationSettings) -> Findings:
    """A cut to another room, and back again."""
    lost, back, ates = [], [], []
    for seed in settings.runs():
        # The cut comes anywhere in a window.
        before, away, after = 60 + seed % 6, 36, 66 - seed % 6
        run = live.run_pipeline(hazards.teleport(before, away, after), hazards.ROUGH, seed)
        lost.append(_windows(run, before, before + away, State.LOST))
        back.append(_windows(run, before + away, len(run.images), State.RELOCALIZED))
        ates.append(live.error(run).ate)
    return Findings(
        [
            Row(
                'cut to another room: whole windows until LOST, worst',
                f'{max(lost):g}',
                '<= 2',
                max(lost) <= 2,
            ),
            Row(
                'back from there: runs that said RELOCALIZED, windows until then (median)',
                f'{np.isfinite(back).mean():.0%}, {median(back):g}',
                '100%',
                bool(np.isfinite(back).all()),
            ),
            Row('the same: ATE of poses not called DEGRADED or LOST, median and worst [m]', median_and_worst(ates)),
        ]
    )


def _windows(run: Live, begin: int, end: int, state: State) -> float:
    """How many windows of nothing but frames from ``begin`` to ``end`` it took until one had the state; inf: none."""
    inside = [one for one in run.windows if begin <= one.oldest and one.newest < end]
    numbers = [number for number, one in enumerate(inside, start=1) if one.result.state is state]
    return numbers[0] if numbers else np.inf


def noise(settings: EvaluationSettings) -> Findings:
    """Poses that are noise, of a network that claims to be as good as any, and depth that is one for all pixels."""
    scenario = scenarios.room_loop(120, pictures=True, stop=60)
    bad = replace(hazards.ROUGH, rotation=NOISE[0], translation=NOISE[1])
    ratios: dict[str, list[float]] = {'': [], ', depth a constant': []}
    jumps = []
    for seed in settings.runs():
        good = _error(scenario, SimulatedNetwork(scenario.truths, hazards.ROUGH, seed, LONGEST))
        for what, kind in (('', SimulatedNetwork), (', depth a constant', _Flat)):
            error = _error(scenario, kind(scenario.truths, bad, seed, LONGEST))
            ratios[what].append(error.ate / good.ate)
            jumps.append(error.jump)
    name = f'poses of the network wrong by {NOISE[0]:.0f} deg and {NOISE[1]:.0%} of the depth'
    rows = [
        at_most(f'{name}{what}: median ATE over that with a good one', median(one), 3, '{:.1f}')
        for what, one in ratios.items()
    ]
    jump = max(jumps) / hazards.BACKGROUND
    return Findings([*rows, at_most('the same: largest step error that no state announced', jump, JUMP, '{:.1%}')])


class _Flat(SimulatedNetwork):
    """Everything is as far away."""

    def predict(
        self, frames: Sequence[Frame], depth: Sequence[int] | None = None, queries: np.ndarray | None = None
    ) -> WindowPrediction:
        found = super().predict(frames, depth, queries)
        return replace(found, depth={slot: np.ones_like(one) for slot, one in found.depth.items()})


def _error(scenario: Scenario, network: SimulatedNetwork) -> live.Error:
    network.accuracy = Accuracy()
    return live.error(live.run_pipeline(scenario, network.errors, 0, window=8, stride=1, delay=0, predictor=network))


def look_alike(settings: EvaluationSettings) -> Findings:
    """Corridors of equal bays, a network that takes every bay for every other: loops, and a camera that is carried."""
    errors = replace(hazards.ROUGH, alias=1.0, lost_confident=1.0)
    worst: dict[str, list[float]] = {'walked': [], 'carried': []}
    loops = 0
    for seed in settings.runs():
        scenario, bay, carried = hazards.look_alike(seed % WORLDS)
        run = live.run_pipeline(scenario, errors, seed)
        loops += sum(window.result.state is State.RELOCALIZED for window in run.windows)
        for name, part in (('walked', run.until(carried)), ('carried', run)):
            worst[name].append(live.error(part).wrong / bay)
    rows = []
    for name, text in (
        ('walked', f'look-alike corridor, there and back, {loops} loops closed: runs with a false one'),
        ('carried', 'then carried to a look-alike of another bay: runs that took it for a place where it is not'),
    ):
        false = int(np.sum(np.array(worst[name]) > 0.5))
        rows.append(Row(text, f'{false} of {len(worst[name])}', '0', false == 0))
    return Findings(rows)
