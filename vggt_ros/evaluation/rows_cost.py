"""What the odometry costs: time of an alignment, and whether memory and time stay flat over a long run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np

from vggt_ros.evaluation import live, plots, scenarios
from vggt_ros.evaluation.report import EvaluationSettings, Findings, Row, at_most
from vggt_ros.evaluation.runs import LONGEST
from vggt_ros.evaluation.scenarios import PERIOD, Scenario
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.windows.alignment import Anchor, align
from vggt_ros.pipeline import Pipeline
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Frame, Predictor, WindowPrediction

WINDOW, ANCHORS, FULL_SIZE = 16, 8, 518  # frames, anchors with depth, longest side in px
PART = 1000  # images that are averaged over
WARM = 2000  # images after which the map is full
FLAT = 1.1  # most that the last part may need, relative to the first after the warm-up


def alignment(settings: EvaluationSettings) -> Findings:
    """The closed-form alignment of a window of 16 frames at full size, 8 of them anchors whose depth is compared."""
    scenario = scenarios.room_loop(240)
    network = SimulatedNetwork(scenario.truths, scenarios.TOY, settings.first_seed, FULL_SIZE)
    seconds = []
    for start in settings.progress(range(0, 40, 8)):
        frames = scenario.frames[start : start + 2 * WINDOW]
        before, now = network.predict(frames[:WINDOW]), network.predict(frames[WINDOW - ANCHORS : -ANCHORS])
        anchors = []
        for slot in range(ANCHORS):
            old = before.slot(now.indices[slot])
            poses = before.T_window_camera[old], now.T_window_camera[slot]
            depths = before.depth[old], now.depth[slot]
            anchors.append(Anchor(*poses, *depths, before.confidence[old], now.confidence[slot]))
        for _ in range(20):
            started = time.thread_time()
            align(anchors)
            seconds.append(time.thread_time() - started)
    test = f'alignment of a window of {WINDOW}, {ANCHORS} anchors, every 8th pixel of {FULL_SIZE}: ms on one core'
    return Findings([at_most(test, 1e3 * float(np.median(seconds)), 10.0, '{:.1f}')])


class _Timed:
    """A predictor, and the CPU seconds that it has used."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.accuracy, self.seconds = predictor, predictor.accuracy, 0.0
        self.pixel_map, self.describe = predictor.pixel_map, predictor.describe
        self.keep, self.close, self.warnings = predictor.keep, predictor.close, predictor.warnings

    def predict(self, *arguments, **options) -> WindowPrediction:
        """As the predictor."""
        started = time.thread_time()
        prediction = self.predictor.predict(*arguments, **options)
        self.seconds += time.thread_time() - started
        return prediction


def endless(scenario: Scenario) -> Iterator[Frame]:
    """A scenario's frames again and again, as new frames with images of their own."""
    for index in count():
        frame = scenario.frames[index % len(scenario.frames)]
        yield replace(frame, index=index, stamp=(index + 1) * PERIOD, image=frame.image.copy())


def costs(scenario: Scenario, frames: int, seed: int, longest: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
    """A long run: CPU seconds of each image (frames,), all but the network's own, and resident memory (frames,) in MiB
    after it, NaN where the system does not tell."""
    truths = scenario.truths
    network = _Timed(SimulatedNetwork(lambda index: truths[index % len(truths)], scenarios.TOY, seed, longest))
    pipeline = Pipeline(network, OdometryConfig(window=12, anchor_depths=12))
    seconds, memory = [], []
    started = time.thread_time()
    for _ in live.drive(pipeline, islice(endless(scenario), frames)):
        seconds.append(time.thread_time() - started - network.seconds)
        memory.append(_resident())
        network.seconds, started = 0.0, time.thread_time()
    return np.array(seconds), np.array(memory)


def _resident() -> float:
    """MiB of memory that this process occupies."""
    path = Path('/proc/self/statm')
    return int(path.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20 if path.exists() else np.nan


def long_run(settings: EvaluationSettings) -> Findings:
    """Round after round in the room: loops are closed again and again, the map stays full."""
    scenario = scenarios.room_loop(pictures=True)
    seconds, memory = costs(scenario, settings.frames, settings.first_seed)
    warm = min(WARM, settings.frames // 3)
    part = min(PART, (settings.frames - warm) // 2)
    first, last = slice(warm, warm + part), slice(-part, None)
    name = f'{settings.frames} images'
    ms = [1e3 * float(seconds[one].mean()) for one in (first, last)]
    mib = [float(memory[one].max()) for one in (first, last)]
    rows = [
        _flat(f'{name}: CPU time per image without the network, after {warm} images and at the end [ms]', ms, '{:.1f}'),
        _flat(f'{name}: resident memory after {warm} images and at the end [MiB]', mib, '{:.0f}'),
    ]
    return Findings(rows, {'odometry_cost.png': partial(plots.draw_costs, seconds, memory)})


def _flat(test: str, found: list[float], form: str) -> Row:
    ratio = found[1] / found[0]
    figure = f'{form.format(found[0])}, {form.format(found[1])}: x{ratio:.2f}'
    return Row(test, figure, f'<= x{FLAT}', bool(ratio <= FLAT))
