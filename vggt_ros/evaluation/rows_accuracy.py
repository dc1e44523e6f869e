"""How exact the odometry is where nothing goes wrong: room, turn on the spot, corridor; and how honest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import chi2

from vggt_ros.evaluation import baselines, plots, runs, scenarios
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, at_most, median
from vggt_ros.odometry.klt import Corners
from vggt_ros.similarity import Similarity
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Scale, WindowPrediction


def loop(settings: EvaluationSettings) -> Findings:
    """One turn in a room: error and scale at the end, with and without pictures, against four ways of chaining."""
    scenario = scenarios.room_loop(pictures=True)
    corners = runs.track(scenario)
    ways: dict[str, list[Corners] | None] = {'with tracked corners': corners, 'predictions alone': None}
    paths: dict[str, list[np.ndarray]] = {name: [] for name in (*ways, *baselines.ESTIMATORS)}
    drift: dict[str, list[float]] = {name: [] for name in ways}
    for seed in settings.runs():
        for name, tracked in ways.items():
            run = runs.run(scenario, scenarios.TOY, seed, corners=tracked)
            paths[name].append(run.T_map)
            scales = runs.depth_scales(run)
            drift[name].append(abs(median(scales[-12:]) / median(scales[:12]) - 1))
        network = SimulatedNetwork(scenario.truths, scenarios.TOY, seed, runs.LONGEST)
        for name, estimator in baselines.ESTIMATORS.items():
            paths[name].append(baselines.chain(network, scenario.frames, 12, 6, estimator))
    errors = {name: [runs.ate(T, scenario.T_world_camera)[0] for T in found] for name, found in paths.items()}
    rows = []
    for name in ways:
        rows.append(at_most(f'loop in a room, {name}: median ATE [m]', median(errors[name]), 0.03, '{:.4f}'))
        off = median(drift[name])
        rows.append(at_most(f'loop in a room, {name}: median scale error at the end', off, 0.01, '{:.2%}'))
    ours = median(errors['predictions alone'])
    for name in baselines.ESTIMATORS:
        theirs = median(errors[name])
        test = f'baseline: {name}: median ATE [m] and ratio to ours (predictions alone)'
        rows.append(Row(test, f'{theirs:.3f}, x{theirs / ours:.1f}', '> 1', theirs > ours))
    first = {name: found[0] for name, found in paths.items()}
    picture = partial(plots.draw_loop, scenario.T_world_camera, first, errors)
    return Findings(rows, {'odometry_loop.png': picture})


def gauge(settings: EvaluationSettings) -> Findings:
    """A random similarity on every raw window after the first must change nothing."""
    scenario = scenarios.room_loop(96)
    worst = 0.0
    for seed in settings.runs(min(settings.seeds, 3)):
        plain = runs.run(scenario, scenarios.TOY, seed, spoil=_in_double)
        moved = runs.run(scenario, scenarios.TOY, seed, spoil=_other_gauge(seed))
        size = np.abs(plain.T_map[:, :3, 3]).max()
        worst = max(worst, float(np.abs(moved.T_map[:, :3, 3] - plain.T_map[:, :3, 3]).max() / size))
        worst = max(worst, float(np.abs(moved.T_map[:, :3, :3] - plain.T_map[:, :3, :3]).max()))
    test = 'gauge: largest change of a pose under random similarities, relative'
    return Findings([at_most(test, worst, 1e-6, '{:.1e}')])


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


def seam(settings: EvaluationSettings) -> Findings:
    """Steps of odom across the boundaries of windows against steps within, all seeds pooled."""
    rows = []
    scenario = scenarios.room_loop(pictures=True)
    tracked = runs.track(scenario)
    for name, corners in (('with tracked corners', tracked), ('predictions alone', None)):
        across, within = [], []
        for seed in settings.runs():
            run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
            scale = median(runs.depth_scales(run))
            a, b = runs.seam(run, scale)
            across.append(a)
            within.append(b)
        ratio = float(np.sqrt(np.concatenate(across).mean() / np.concatenate(within).mean()))
        rows.append(at_most(f'seam, {name}: step error across windows / within, RMS', ratio, 1.1, '{:.2f}'))
    return Findings(rows)


def covariance(settings: EvaluationSettings) -> Findings:
    """Whether the covariance of the motion inside a window holds: 5 runs of the loop for each seed asked for."""
    rows = []
    scenario = scenarios.room_loop(120, pictures=True)
    tracked = runs.track(scenario)
    for name, corners in (('with tracked corners', tracked), ('predictions alone', None)):
        found: tuple[list, list] = ([], [])
        for seed in settings.runs(5 * settings.seeds):
            run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
            for values, more in zip(found, runs.increments(run, median(runs.depth_scales(run))), strict=True):
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
    return Findings(rows)


def turn(settings: EvaluationSettings) -> Findings:
    """A full turn on the spot: how far the position drifts."""
    scenario = scenarios.room_turn(pictures=True)
    corners = runs.track(scenario)
    drift = []
    for seed in settings.runs():
        run = runs.run(scenario, scenarios.TOY, seed, corners=corners)
        depth = float(np.nanmedian(run.estimates[0].depth))
        drift.append(float(np.linalg.norm(run.T_map[-1, :3, 3] - run.T_map[0, :3, 3])) / depth)
    test = 'pure rotation of 360 deg: median drift of the position over the depth'
    return Findings([at_most(test, median(drift), 0.01, '{:.2%}')])


WINDOWS = (16, 24)  # frames, 6 of them new: the more anchors, the better the scale is held


def corridor(settings: EvaluationSettings) -> Findings:
    """A kilometre of corridor, 25 % jitter of the windows' units, without and with a metric source."""
    scenario = scenarios.corridor(1000.0, 1.0)
    errors = replace(scenarios.TOY, window_scale=0.25)
    relative: dict[int, list[float]] = {window: [] for window in WINDOWS}
    metric, curves = [], []
    for seed in settings.runs(max(1, settings.seeds // 4)):
        for window, found in relative.items():
            scales = runs.depth_scales(runs.run(scenario, errors, seed, window))
            scales = scales / median(scales[:12])
            found.append(max(abs(median(part) - 1) for part in np.array_split(scales, 20)))
        known = runs.run(scenario, errors, seed, sensor=True)
        metres = [one.scale is Scale.METRIC for one in known.estimates]
        begun = metres.index(True)
        way = [float(np.linalg.norm(T[-1, :3, 3] - T[begun, :3, 3])) for T in (known.T_odom, known.T_true)]
        metric.append(abs(way[0] / way[1] - 1) if all(metres[begun:]) else np.inf)
        curves.append((scales, runs.depth_scales(known)[begun:]))
    rows = [
        at_most(
            f'1 km of corridor, windows of {window}, no metric source: largest scale error, median',
            median(found),
            0.04,
            '{:.1%}',
        )
        for window, found in relative.items()
    ]
    rows += [
        at_most(
            'the same with a depth camera: error of the length of the way in odom',
            median(metric),
            0.005,
            '{:.2%}',
        ),
    ]
    return Findings(rows, {'odometry_scale.png': partial(plots.draw_scale, curves)})
