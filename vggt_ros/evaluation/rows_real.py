"""Less simulation: a recorded walk whose truth drives the predictions, and the embedded network on rendered worlds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from vggt_ros.camera import pixel_grid
from vggt_ros.evaluation import hazards, live, plots
from vggt_ros.evaluation.accuracy import depth_error
from vggt_ros.evaluation.live import Live
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, median, median_and_worst
from vggt_ros.evaluation.scenarios import Scenario
from vggt_ros.evaluation.walks import unseen
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.truth import KnownPictures
from vggt_ros.synthetic.truth import FrameTruth, sample_depth
from vggt_ros.types import Frame
from vggt_ros.weights.registry import make_predictor

FEWEST = 20  # pictures of a recorded walk


def recorded_walk(folder: Path) -> Scenario:
    """Pictures with their truth from a folder or a dataset's root, rectified; those without pose or depth left out.

    Raises SequenceError.
    """
    sequence = open_sequence(folder)
    frames, truths, poses = [], [], []
    for number, known in enumerate(KnownPictures(sequence)):
        frames.append(Frame(number, known.item.stamp, known.image, known.K, known.item.frame_id))
        truths.append(FrameTruth(known.T_world_camera, known.K, known.depth))
        poses.append(known.T_world_camera)
    if sequence.damaged:
        raise SequenceError(sequence.damaged[0])
    if len(frames) < FEWEST:
        raise SequenceError(f'{folder}: {len(frames)} pictures with intrinsics, pose and depth; {FEWEST} are wanted')
    return Scenario(frames, np.stack(poses), truths)


def recorded(settings: EvaluationSettings) -> Findings:
    """Real pictures drive the corners and PnP, true poses and depth drive the simulated predictions."""
    if settings.data is None:
        return Findings([])
    scenario = recorded_walk(settings.data)
    way = np.linalg.norm(np.diff(scenario.T_world_camera[:, :3, 3], axis=0), axis=1).sum()
    rows, pictures = [], {}
    for stride, delay, name in ((6, 2, 'a window every 6 images'), (1, 0, 'a window for every image')):
        seeds = settings.runs(min(settings.seeds, 3))
        runs = [live.run_pipeline(scenario, hazards.ROUGH, seed, stride=stride, delay=delay) for seed in seeds]
        errors = [live.error(run) for run in runs]
        rows.append(
            Row(
                f'recorded walk of {way:.0f} m, {len(scenario.frames)} real pictures, {name}: ATE, '
                'median and worst [m]; share of images located at once',
                f'{median_and_worst([one.ate for one in errors])}; {median([run.at_once for run in runs]):.0%}',
            )
        )
        pictures = {'odometry_walk.png': partial(plots.draw_walk, scenario.T_world_camera, runs[0].positions)}
    return Findings(rows, pictures)


def tiny(settings: EvaluationSettings) -> Findings:
    """The embedded network on worlds that it never saw."""
    predictor = make_predictor(device='cpu', precision='float32', heads=('camera', 'depth'))
    name = predictor.name
    ates, depths, shares = [], [], []
    for seed in settings.runs(min(settings.seeds, 8)):
        scenario = unseen(seed)
        predictor.clear()  # the same indices are other images now
        run = live.run_pipeline(scenario, hazards.ROUGH, seed, window=8, stride=4, predictor=predictor)
        way = float(np.linalg.norm(np.diff(scenario.T_world_camera[:, :3, 3], axis=0), axis=1).sum())
        ates.append(live.error(run).ate / way)
        shares.append(float(np.mean([one is not None for one in run.published])))
        if run.estimates:
            depths.append(_depth_error(run))
    found = [ate for ate in ates if np.isfinite(ate)]
    return Findings(
        [
            Row(
                f'{name}, {len(ates)} unseen worlds: worlds with a path that is not called DEGRADED; its ATE over the '
                'way, median and worst',
                f'{len(found)}; {median_and_worst(found, "{:.1%}")}' if found else '0',
            ),
            Row(f'{name}: AbsRel of depth after one scale a world, median and worst', median_and_worst(depths)),
            Row(f'{name}: share of images with a pose, median', f'{median(shares):.0%}'),
        ]
    )


def _depth_error(run: Live) -> float:
    """AbsRel of all estimates after one scale."""
    pairs = []
    for estimate in run.estimates:
        depth = run.scenario.truths[estimate.frame.index].depth
        assert isinstance(depth, np.ndarray)
        pairs.append((estimate.depth, sample_depth(depth, estimate.map.to_source(pixel_grid(estimate.map.size)))))
    return depth_error(pairs)[0]
