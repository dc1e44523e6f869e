"""The whole pipeline over a scenario as the node runs it live, and what can be said of what it publishes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert
from vggt_ros.evaluation import runs
from vggt_ros.evaluation.scenarios import Scenario
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.front.frontend import FrameResult
from vggt_ros.pipeline import Pipeline, WindowResult
from vggt_ros.similarity import umeyama
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Estimate, Frame, PosedFrame, Predictor, State

PATIENCE = 1_000_000_000  # ns after which the node does not wait for more images
FEWEST = 10  # poses of an epoch that can be aligned
DOUBTED = {State.DEGRADED, State.LOST}
SAID = DOUBTED | {State.RELOCALIZED}  # states that say that a pose may jump


class LiveWindow(NamedTuple):
    """A window's answer, and the indices of its oldest and its newest new frame."""

    oldest: int
    newest: int
    result: WindowResult


@dataclass(frozen=True, eq=False)
class Live:
    """What came of a scenario's frames. images: one for each frame, in order."""

    scenario: Scenario
    images: list[FrameResult]
    windows: list[LiveWindow]

    @cached_property
    def published(self) -> list[PosedFrame | None]:
        """Where each frame was said to be: at once, or, where that could not be, when its window was solved."""
        late = {one.frame.index: one for window in self.windows for one in window.result.located}
        return [image.located or late.get(image.frame.index) for image in self.images]

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) published positions in the map, NaN where there are none."""
        return np.array([np.full(3, np.nan) if one is None else one.T_map_camera[:3, 3] for one in self.published])

    @property
    def at_once(self) -> float:
        """Share of the frames that were located at camera rate, of those since the first one that was."""
        located = np.array([image.located is not None for image in self.images])
        return float(located[located.argmax() :].mean()) if located.any() else 0.0

    @property
    def estimates(self) -> list[Estimate]:
        """Of all windows, in order."""
        return [one for window in self.windows for one in window.result.estimates]

    def until(self, index: int) -> Live:
        """The frames before this one and the windows that know nothing later."""
        images = [image for image in self.images if image.frame.index < index]
        return Live(self.scenario, images, [window for window in self.windows if window.newest < index])

    @property
    def T_true(self) -> np.ndarray:
        """(N, 4, 4) of all frames."""
        return self.scenario.T_world_camera[[image.frame.index for image in self.images]]


def drive(
    pipeline: Pipeline, frames: Iterable[Frame], stride: int = 6, delay: int = 0, track: bool = False
) -> Iterator[tuple[FrameResult, LiveWindow | None]]:
    """Every frame is looked at; those that are due are processed ``stride`` at a time, or when no more come for a
    second. delay: frames that come while the network is at work. track: whether tracks are wanted."""
    waiting: list[Frame] = []
    begun: list[tuple[int, list[Frame]]] = []  # the number of the frame with which it is done
    for number, frame in enumerate(frames):
        image = pipeline.look(frame, track)
        if waiting and (len(waiting) == stride or frame.stamp - waiting[-1].stamp >= PATIENCE):
            begun.append((number - 1 + delay, waiting))
            waiting = []
        if pipeline.due(image):
            waiting.append(frame)
            if len(waiting) == stride:
                begun.append((number + delay, waiting))
                waiting = []
        solved = None
        if begun and begun[0][0] <= number:
            _, batch = begun.pop(0)
            solved = LiveWindow(batch[0].index, batch[-1].index, pipeline.process(batch, track=track))
        yield image, solved


def run_pipeline(
    scenario: Scenario,
    errors: ErrorModel,
    seed: int,
    window: int = 12,
    stride: int = 6,
    delay: int = 2,
    predictor: Predictor | None = None,
) -> Live:
    """All frames through a pipeline of its own. predictor: in place of a simulated network with these errors."""
    network = predictor or SimulatedNetwork(scenario.truths, errors, seed, runs.LONGEST)
    pipeline = Pipeline(network, OdometryConfig(window=window, anchor_depths=window, accuracy=network.accuracy))
    images, windows = [], []
    for image, solved in drive(pipeline, scenario.frames, stride, delay):
        images.append(image)
        if solved is not None:
            windows.append(solved)
    return Live(scenario, images, windows)


@dataclass(frozen=True)
class Error:
    """A published path against the truth, the poses in the map of every epoch aligned by a similarity of their own.

    ate: m, root mean square over the poses that are neither DEGRADED nor LOST. jump: m, the largest error of a step
    between neighbouring published poses, in the map or in odom, that nothing announced (see SAID); turn: the same in
    degrees. wrong: m, the largest error of a step in the map between poses that are neither DEGRADED nor LOST.
    """

    ate: float
    jump: float
    turn: float
    wrong: float


def error(live: Live) -> Error:
    """How far the published poses are from the truth; epochs with but a few poses to be trusted are left out."""
    squares: list[np.ndarray] = [np.zeros(0)]
    jump = turn = wrong = 0.0
    placed = [(row, one) for row, one in enumerate(live.published) if one is not None]
    for epoch in {one.epoch for _, one in placed}:
        rows, found = zip(*(pair for pair in placed if pair[1].epoch == epoch), strict=True)
        trusted = np.array([one.state not in DOUBTED for one in found])
        if trusted.sum() < FEWEST:
            continue
        T, T_true = np.stack([one.T_map_camera for one in found]), live.T_true[list(rows)]
        squares.append(_squares(T[trusted, :3, 3], T_true[trusted, :3, 3]))
        silent = np.array([not SAID & {a.state, b.state} for a, b in pairwise(found)])
        for poses in (T, np.stack([one.T_odom_camera for one in found])):
            off, turned = _step_errors(poses, T_true)
            jump, turn = max(jump, np.max(off[silent], initial=0.0)), max(turn, np.max(turned[silent], initial=0.0))
        wrong = max(wrong, np.max(_step_errors(T, T_true)[0][trusted[1:] & trusted[:-1]], initial=0.0))
    every = np.concatenate(squares)
    return Error(float(np.sqrt(every.mean())) if len(every) else np.inf, float(jump), float(turn), float(wrong))


def _squares(ours: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Squared errors (N,) of positions after the best similarity; a path may be straight."""
    if np.ptp(ours, axis=0).max() == 0:
        return ((true - true.mean(0)) ** 2).sum(1)
    return ((umeyama(ours, true).transform(ours) - true) ** 2).sum(1)


def _step_errors(T: np.ndarray, T_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N - 1,) of the steps in m and degrees, in the unit that the median step has."""
    ours, true = runs.steps(T), runs.steps(T_true)
    lengths = [np.linalg.norm(steps[:, :3, 3], axis=1) for steps in (ours, true)]
    moving = (lengths[0] > 0) & (lengths[1] > 0)
    scale = np.median(lengths[1][moving] / lengths[0][moving]) if moving.any() else 1.0
    turned = Rotation.from_matrix(invert(true)[:, :3, :3] @ ours[:, :3, :3]).magnitude()
    return np.linalg.norm(scale * ours[:, :3, 3] - true[:, :3, 3], axis=1), np.degrees(turned)
