"""Folders as people have them, with true poses: what the demo makes of every image, and what COLMAP makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from vggt_ros.evaluation import colmap, live
from vggt_ros.evaluation.accuracy import trajectory_error
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, median_and_worst
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.trajectory import Trajectory
from vggt_ros.files.truth import calibrated
from vggt_ros.mapping.history import History
from vggt_ros.pipeline import Pipeline
from vggt_ros.types import Frame, PosedFrame, State
from vggt_ros.weights.registry import make_predictor

NOWHERE = (State.LOST, State.INITIALIZING)
BEGINNINGS = (0, 1, 2)  # images that runs leave out: what hangs on few corners falls out differently in each


@dataclass(frozen=True, eq=False)
class Walk:
    """Pictures of a known camera, rectified, and the true poses of those that have one."""

    frames: Sequence[Frame]
    truth: Trajectory


@dataclass(frozen=True)
class Outcome:
    """Of a run. share: of the images with a pose, in the largest epoch. epochs: how many have any. ate: m, of their
    positions in the trajectory as it is in the end, after one similarity; at_once: of the same as they were published.
    """

    share: float
    epochs: int
    ate: float
    at_once: float


def walk(folder: Path) -> Walk:
    """Of a folder or a dataset's root. Raises SequenceError where camera or poses are not known."""
    sequence = open_sequence(folder)
    if sequence.trajectory is None:
        raise SequenceError(f'{folder}: there are no true poses')
    frames = [
        Frame(number, item.stamp, rectifier(image), rectifier.K, item.frame_id)
        for number, (item, image, rectifier) in enumerate(calibrated(sequence))
    ]
    return Walk(frames, sequence.trajectory)


def run(walk: Walk, stride: int = 1) -> Outcome:
    """The embedded network with the settings that ship, a window every ``stride`` images."""
    predictor = make_predictor(device='cpu', precision='float32', heads=('camera', 'depth'))
    pipeline = Pipeline(predictor)
    published: dict[int, PosedFrame] = {}
    histories: dict[int, History] = {}
    for image, solved in live.drive(pipeline, walk.frames, stride):
        located = [image.located, *(() if solved is None else solved.result.located)]
        for one in located:
            if one is not None and one.state not in NOWHERE:
                published.setdefault(one.frame.index, one)
                histories.setdefault(one.epoch, History()).add_pose(one.frame.index, one.frame.stamp, one.T_map_camera)
        if solved is not None:
            result = solved.result
            history = histories.setdefault(result.epoch, History())
            history.correct(result.corrections)
            for keyframe in result.keyframes:
                history.add_keyframe(keyframe)
            for estimate in result.estimates:
                history.add_pose(estimate.frame.index, estimate.frame.stamp, estimate.T_map_camera)
    epochs = Counter(one.epoch for one in published.values())
    if not epochs:
        return Outcome(0.0, 0, np.inf, np.inf)
    (largest, count), *_ = epochs.most_common()
    own = sorted((one for one in published.values() if one.epoch == largest), key=lambda one: one.frame.index)
    stamps = np.array([one.frame.stamp for one in own])
    at_once = Trajectory(stamps, np.stack([one.T_map_camera for one in own]))
    final = histories[largest].trajectory()
    kept = np.isin(final.stamps, stamps)
    ates = [_ate(one, walk.truth) for one in (Trajectory(final.stamps[kept], final.T_world_camera[kept]), at_once)]
    return Outcome(count / len(walk.frames), len(epochs), *ates)


def by_colmap(walk: Walk) -> tuple[int, float, float]:
    """(models, share of the images in the largest, its ATE in m). Raises RuntimeError where it fails."""
    first = walk.frames[0]
    assert first.K is not None
    with TemporaryDirectory(prefix='pictures_') as folder:
        for frame in walk.frames:
            cv2.imwrite(f'{folder}/{frame.index:06d}.png', frame.image[..., ::-1])
        models, places = colmap.positions(Path(folder), first.K)
    if not places:
        return models, 0.0, np.inf
    names = sorted(places)
    T = np.tile(np.eye(4), (len(names), 1, 1))
    T[:, :3, 3] = [places[name] for name in names]
    stamps = np.array([walk.frames[int(Path(name).stem)].stamp for name in names])
    return models, len(names) / len(walk.frames), _ate(Trajectory(stamps, T), walk.truth)


def _ate(estimate: Trajectory, truth: Trajectory) -> float:
    try:
        return trajectory_error(estimate, truth).rmse
    except ValueError:
        return np.inf


def folders(settings: EvaluationSettings) -> Findings:
    """Every folder that was given: ours with a window for every image and every fourth, and COLMAP."""
    rows = []
    for folder in settings.folders:
        one = walk(folder)
        name = f'{folder.resolve().name}, {len(one.frames)} real pictures'
        for stride, what in ((1, 'a window for every image'), (4, 'a window every 4 images')):
            found = [run(Walk(one.frames[first:], one.truth), stride) for first in BEGINNINGS]
            shares = [one.share for one in found]
            ates = '; '.join(median_and_worst([getattr(one, key) for one in found]) for key in ('ate', 'at_once'))
            figure = f'{np.median(shares):.0%}, {min(shares):.0%}; {ates}'
            test = (
                f'{name}, {what}, median and worst of {len(found)} runs that begin an image later each: images with a'
                f' pose in the largest map; ATE in the end, at once [m]'
            )
            rows.append(Row(test, figure))
        try:
            models, share, ate = by_colmap(one)
        except RuntimeError as error:
            rows.append(Row(f'{name}, COLMAP', str(error)))
        else:
            test = f'{name}, COLMAP: images in the largest of {models} models; ATE [m]'
            rows.append(Row(test, f'{share:.0%}; {ate:.3f}'))
    return Findings(rows)
