"""What the input may do to the odometry: a wrong calibration, images that never come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vggt_ros.evaluation import hazards, live, scenarios
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, at_most, median
from vggt_ros.pipeline import WindowResult

FOCAL = 1.1  # factor of the wrong focal length
OFF_CENTRE = (0.0, 0.03, 0.08)  # of the width
MISJUDGED = (1.05, 0.92)  # factors of every focal length that the network sees
MISSING = 0.3  # share of the images that never come
WARNED = 3  # windows until a warning
SEEN_ENOUGH = 10  # windows after which an unknown focal length should be known


def wrong_focal(settings: EvaluationSettings) -> Findings:
    """The calibration's focal length is off by 10 %; what the network sees of it is off by 1 % a window."""
    right = scenarios.room_loop(240, pictures=True, stop=60)
    errors = replace(hazards.ROUGH, focal_window=0.01, centred=True)
    until, false, ates = [], 0, []
    for seed in settings.runs():
        for factor in (FOCAL, 1 / FOCAL):
            run = live.run_pipeline(hazards.wrong_focal(right, factor), errors, seed)
            warned = [_warns(one.result) for one in run.windows]
            until.append(warned.index(True) + 1 if any(warned) else np.inf)
            ates.append(live.error(run).ate)
        run = live.run_pipeline(right, errors, seed)
        false += any(_warns(one.result) for one in run.windows)
    return Findings(
        [
            Row(
                'focal length of the calibration wrong by 10 %: windows until a warning, worst',
                f'{max(until):g}',
                f'<= {WARNED}',
                max(until) <= WARNED,
            ),
            Row('the same with the right one: runs with a warning', f'{false} of {settings.seeds}', '0', false == 0),
            Row('focal length wrong by 10 %: ATE, median and worst [m]', f'{median(ates):.3f}, {max(ates):.3f}'),
        ]
    )


def _warns(result: WindowResult) -> bool:
    return any('focal' in text for text in (*result.reasons, *result.warnings))


def off_centre(settings: EvaluationSettings) -> Findings:
    """The principal point is not in the image's middle, and camera_info says so; the network supposes it there."""
    errors, rows = replace(hazards.ROUGH, focal_window=0.01, centred=True), []
    for share in OFF_CENTRE:
        scenario = scenarios.room_loop(120, pictures=True, K=scenarios.off_centre(share))
        ates = [live.error(live.run_pipeline(scenario, errors, seed)).ate for seed in settings.runs()]
        name = f'principal point off by {share:.0%} of the width: median ATE [m]'
        rows.append(at_most(name, median(ates), 0.03, '{:.3f}'))
    return Findings(rows)


def misjudged(settings: EvaluationSettings) -> Findings:
    """camera_info is right; the network sees another focal length, and its depth and poses are those of that lens."""
    scenario, rows = scenarios.room_loop(120, pictures=True), []
    for factor in MISJUDGED:
        errors = replace(hazards.ROUGH, focal_window=0.01, centred=True, focal=factor, focal_follows=1.0)
        ates = [live.error(live.run_pipeline(scenario, errors, seed)).ate for seed in settings.runs()]
        name = f'focal length that the network sees off by {factor - 1:+.0%}, depth and poses with it: median ATE [m]'
        rows.append(at_most(name, median(ates), 0.03, '{:.3f}'))
    return Findings(rows)


def uncalibrated(settings: EvaluationSettings) -> Findings:
    """No camera_info; the network guesses the focal length anew in each window and frame, and where it errs in the
    mean, its depth and poses are those of the lens that it sees.
    """
    scenario, rows = scenarios.room_loop(120, pictures=True), []
    unknown = replace(scenario, frames=[replace(frame, K=None) for frame in scenario.frames])
    for factor in (1.0, *MISJUDGED):
        errors = replace(hazards.ROUGH, focal_window=0.01, focal_frame=0.01, centred=True)
        if factor != 1:
            errors = replace(errors, focal=factor, focal_follows=1.0)
        ates, off = [], []
        for seed in settings.runs():
            known, run = (live.run_pipeline(one, errors, seed) for one in (scenario, unknown))
            ates.append((live.error(known).ate, live.error(run).ate))
            off.append(_focal_errors(run)[SEEN_ENOUGH:].max())
        calibrated, found = np.median(ates, axis=0)
        what = 'no camera_info' if factor == 1 else f'the same, the network sees the focal length {factor - 1:+.0%} off'
        rows.append(at_most(f'{what}: median ATE over that with camera_info', found / calibrated, 1.5, '{:.2f}'))
        name = f'{what}: worst focal length later than {SEEN_ENOUGH} windows, median'
        rows.append(at_most(name, median(off), 0.02, '{:.1%}'))
    return Findings(rows)


def _focal_errors(run: live.Live) -> np.ndarray:
    """Relative, of each window that placed something."""
    errors = []
    for window in run.windows:
        for one in window.result.estimates[-1:]:
            true = one.map.K_to_network(run.scenario.truths[one.frame.index].K)
            errors.append(abs(one.K[0, 0] / true[0, 0] - 1))
    return np.array(errors)


def missing(settings: EvaluationSettings) -> Findings:
    """30 % of the images never come, at random."""
    scenario = scenarios.room_loop(pictures=True)
    ates, shares, whole = [], [], []
    for seed in settings.runs():
        run = live.run_pipeline(hazards.missing(scenario, MISSING, seed), hazards.ROUGH, seed)
        ates.append(live.error(run).ate)
        shares.append(run.at_once)
        whole.append(live.error(live.run_pipeline(scenario, hazards.ROUGH, seed)).ate)
    return Findings(
        [
            at_most('loop at camera rate, live: median ATE [m]', median(whole), 0.03, '{:.4f}'),
            at_most('the same, 30 % of the images missing: median ATE [m]', median(ates), 0.03, '{:.4f}'),
            Row('the same: share of the images located at once, worst run', f'{min(shares):.1%}'),
        ]
    )
