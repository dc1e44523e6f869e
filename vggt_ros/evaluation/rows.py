"""The rows of the odometry's table: each measures one thing on many seeds and says what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from vggt_ros.evaluation import baselines, runs, scenarios
from vggt_ros.odometry.alignment import Similarity
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Scale, WindowPrediction

FIRST_SEED = 1000
"""The seeds that are reported; smaller ones are for trying things out."""
Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class Row:
    """One line: what was measured, the figure as text, the goal as text, and whether it was reached (None: no goal)."""

    test: str
    figure: str
    goal: str
    reached: bool | None


def loop(seeds: int, progress: Progress) -> list[Row]:
    """One turn in a room: error and scale at the end, with and without pictures, against four ways of chaining."""
    scenario = scenarios.room_loop(pictures=True)
    corners = runs.track(scenario)
    errors: dict[str, list[float]] = {'with tracked corners': [], 'predictions alone': []}
    drift: dict[str, list[float]] = {name: [] for name in errors}
    chains: dict[str, list[float]] = {name: [] for name in baselines.ESTIMATORS}
    for seed in progress(range(FIRST_SEED, FIRST_SEED + seeds)):
        for name, tracked in (('with tracked corners', corners), ('predictions alone', None)):
            run = runs.run(scenario, scenarios.TOY, seed, corners=tracked)
            errors[name].append(runs.ate(run.T_map, run.T_true)[0])
            scales = runs.depth_scales(run)
            drift[name].append(abs(float(np.median(scales[-12:]) / np.median(scales[:12])) - 1))
        network = SimulatedNetwork(scenario.truths, scenarios.TOY, seed, runs.LONGEST)
        for name, estimator in baselines.ESTIMATORS.items():
            T = baselines.chain(network, scenario.frames, 12, 6, estimator)
            chains[name].append(runs.ate(T, scenario.T_world_camera)[0])
    rows = []
    for name in errors:
        found, off = float(np.median(errors[name])), float(np.median(drift[name]))
        rows.append(_at_most(f'loop in a room, {name}: median ATE [m]', found, 0.03, '{:.4f}'))
        rows.append(_at_most(f'loop in a room, {name}: median scale error at the end', off, 0.01, '{:.2%}'))
    ours = float(np.median(errors['predictions alone']))
    for name, values in chains.items():
        theirs = float(np.median(values))
        rows.append(
            Row(
                f'baseline: {name}: median ATE [m] and ratio to ours (predictions alone)',
                f'{theirs:.3f}, x{theirs / ours:.1f}',
                '> 1',
                theirs > ours,
            )
        )
    return rows


def gauge(seeds: int, progress: Progress) -> list[Row]:
    """A random similarity on every raw window after the first must change nothing."""
    scenario = scenarios.room_loop(96)
    worst = 0.0
    for seed in progress(range(FIRST_SEED, FIRST_SEED + min(seeds, 3))):
        plain = runs.run(scenario, scenarios.TOY, seed, spoil=_in_double)
        moved = runs.run(scenario, scenarios.TOY, seed, spoil=_other_gauge(seed))
        size = np.abs(plain.T_map[:, :3, 3]).max()
        worst = max(worst, float(np.abs(moved.T_map[:, :3, 3] - plain.T_map[:, :3, 3]).max() / size))
        worst = max(worst, float(np.abs(moved.T_map[:, :3, :3] - plain.T_map[:, :3, :3]).max()))
    return [_at_most('gauge: largest change of a pose under random similarities, relative', worst, 1e-6, '{:.1e}')]


def _in_double(prediction: WindowPrediction, number: int) -> WindowPrediction:
    return replace(prediction, depth={slot: depth.astype(np.float64) for slot, depth in prediction.depth.items()})


def _other_gauge(seed: int) -> Callable[[WindowPrediction, int], WindowPrediction]:
    def spoil(prediction: WindowPrediction, number: int) -> WindowPrediction:
        if number == 0:
            return _in_double(prediction, number)
        rng = np.random.default_rng((seed, number))
        moved = Similarity(
            float(np.exp(rng.normal())), Rotation.random(random_state=rng).as_matrix(), 3 * rng.normal(size=3)
        )
        T = np.stack([moved.pose(one) for one in prediction.T_window_camera])
        depth = {slot: moved.scale * one.astype(np.float64) for slot, one in prediction.depth.items()}
        return replace(prediction, T_window_camera=T, depth=depth)

    return spoil


def seam(seeds: int, progress: Progress) -> list[Row]:
    """Steps of odom across the boundaries of windows against steps within, all seeds pooled."""
    rows = []
    scenario = scenarios.room_loop(pictures=True)
    tracked = runs.track(scenario)
    for name, corners in (('with tracked corners', tracked), ('predictions alone', None)):
        across, within = [], []
        for seed in progress(range(FIRST_SEED, FIRST_SEED + seeds)):
            run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
            scale = float(np.median(runs.depth_scales(run)))
            a, b = runs.seam(run, scale)
            across.append(a)
            within.append(b)
        ratio = float(np.sqrt(np.concatenate(across).mean() / np.concatenate(within).mean()))
        rows.append(_at_most(f'seam, {name}: step error across windows / within, RMS', ratio, 1.1, '{:.2f}'))
    return rows


def covariance(seeds: int, progress: Progress) -> list[Row]:
    """Whether the covariance of the motion inside a window holds: 5 runs of the loop for each seed asked for."""
    rows = []
    scenario = scenarios.room_loop(120, pictures=True)
    tracked = runs.track(scenario)
    for name, corners in (('with tracked corners', tracked), ('predictions alone', None)):
        found: tuple[list, list] = ([], [])
        for seed in progress(range(FIRST_SEED, FIRST_SEED + 5 * seeds)):
            run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
            for values, more in zip(found, runs.increments(run, float(np.median(runs.depth_scales(run)))), strict=True):
                values.append(more)
        for kind, values in zip(('translation', 'rotation'), found, strict=True):
            pooled = np.concatenate(values)
            anees, held = float(pooled.mean() / 3), float(np.mean(pooled < chi2.ppf(0.95, 3)))
            rows.append(
                Row(
                    f'covariance of {kind} within windows, {name}: ANEES per degree of freedom, held by 95 %',
                    f'{anees:.2f}, {held:.1%}',
                    '0.5-2, >= 90 %',
                    0.5 <= anees <= 2 and held >= 0.9,
                )
            )
    return rows


def turn(seeds: int, progress: Progress) -> list[Row]:
    """A full turn on the spot: how far the position drifts."""
    scenario = scenarios.room_turn(pictures=True)
    corners = runs.track(scenario)
    drift = []
    for seed in progress(range(FIRST_SEED, FIRST_SEED + seeds)):
        run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
        depth = float(np.nanmedian(run.estimates[0].depth))
        drift.append(float(np.linalg.norm(run.T_map[-1, :3, 3] - run.T_map[0, :3, 3])) / depth)
    found = float(np.median(drift))
    return [_at_most('pure rotation of 360 deg: median drift of the position over the depth', found, 0.01, '{:.2%}')]


def corridor(seeds: int, progress: Progress) -> list[Row]:
    """A kilometre of corridor, 25 % jitter of the windows' units, without and with a metric source."""
    scenario = scenarios.corridor(1000.0, 1.0)
    errors = replace(scenarios.TOY, window_scale=0.25)
    relative, metric = [], []
    for seed in progress(range(FIRST_SEED, FIRST_SEED + max(1, seeds // 4))):
        scales = runs.depth_scales(runs.run(scenario, errors, seed))
        first = float(np.median(scales[:12]))
        relative.append(max(abs(float(np.median(part)) / first - 1) for part in np.array_split(scales, 20)))
        known = runs.run(scenario, errors, seed, sensor=True)
        metres = [one.scale is Scale.METRIC for one in known.estimates]
        begun = metres.index(True)
        way = [float(np.linalg.norm(T[-1, :3, 3] - T[begun, :3, 3])) for T in (known.T_odom, known.T_true)]
        metric.append(abs(way[0] / way[1] - 1) if all(metres[begun:]) else np.inf)
    return [
        _at_most(
            '1 km of corridor without metric source: largest scale error, median', _median(relative), 0.04, '{:.1%}'
        ),
        _at_most(
            'the same with a depth camera: error of the length of the way in odom, median',
            _median(metric),
            0.005,
            '{:.2%}',
        ),
    ]


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _at_most(test: str, found: float, goal: float, form: str) -> Row:
    return Row(test, form.format(found), f'<= {form.format(goal)}', found <= goal)


ROWS: dict[str, Callable[[int, Progress], list[Row]]] = {
    'loop': loop,
    'gauge': gauge,
    'seam': seam,
    'covariance': covariance,
    'turn': turn,
    'corridor': corridor,
}
