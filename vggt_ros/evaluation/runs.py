"""One run of the odometry over a scenario with simulated predictions, and what can be said of it against the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vggt_ros.camera import invert
from vggt_ros.evaluation import scenarios
from vggt_ros.evaluation.scenarios import Scenario
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.klt import Corners, KltTracker
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.scale.measurements import depth_scale
from vggt_ros.odometry.sensors import NoMeasurement, ScaleMeasurement
from vggt_ros.synthetic.errors import ErrorModel
from vggt_ros.synthetic.simulated import SimulatedNetwork
from vggt_ros.types import Estimate, WindowPrediction

LONGEST = 224  # pixels of the simulated network


@dataclass(frozen=True, eq=False)
class Run:
    """Estimates of a scenario's frames, and the window (a running number) that each came from."""

    scenario: Scenario
    estimates: list[Estimate]
    windows: np.ndarray

    @property
    def T_map(self) -> np.ndarray:
        """(N, 4, 4) poses in the map."""
        return np.stack([estimate.T_map_camera for estimate in self.estimates])

    @property
    def T_odom(self) -> np.ndarray:
        """(N, 4, 4) poses in odom."""
        return np.stack([estimate.T_odom_camera for estimate in self.estimates])

    @property
    def T_true(self) -> np.ndarray:
        """(N, 4, 4) true poses of the estimated frames."""
        return self.scenario.T_world_camera[[estimate.frame.index for estimate in self.estimates]]


def track(scenario: Scenario) -> list[Corners]:
    """The corners of every frame. They depend on the pictures only, so all seeds share them."""
    tracker = KltTracker()
    return [tracker.update(frame) for frame in scenario.frames]


def run(
    scenario: Scenario,
    errors: ErrorModel,
    seed: int,
    window: int = 12,
    stride: int = 6,
    corners: list[Corners] | None = None,
    spoil: Callable[[WindowPrediction, int], WindowPrediction] = lambda prediction, number: prediction,
    sensor: bool = False,
) -> Run:
    """Solve windows of ``window`` frames, ``stride`` of them new. spoil: changes each prediction, by its number.

    sensor: whether a depth camera with 2 % of noise sees the newest frame of every window.
    """
    network = SimulatedNetwork(scenario.truths, errors, seed, LONGEST)
    odometry = Odometry(OdometryConfig(window=window, anchor_depths=window))
    estimates: list[Estimate] = []
    windows: list[int] = []
    position = number = 0
    while position < len(scenario.frames):
        taken = scenario.frames[position : position + (stride if position else window)]
        position += len(taken)
        plan = odometry.plan(taken)
        assert plan is not None
        prediction = spoil(network.predict(plan.frames, plan.depth), number)
        known = (lambda index: None) if corners is None else corners.__getitem__
        solved = odometry.update(plan, prediction, known).estimates
        estimates += solved
        windows += [number] * len(solved)
        if sensor:
            odometry.measure([_seen_by_sensor(scenario, solved[-1], seed)])
        number += 1
    return Run(scenario, estimates, np.array(windows))


def _seen_by_sensor(scenario: Scenario, estimate: Estimate, seed: int) -> ScaleMeasurement | NoMeasurement:
    frame = estimate.frame
    depth = scenario.truths[frame.index].depth
    assert callable(depth)
    true = depth(scenarios.K, scenarios.SIZE)
    noise = np.random.default_rng((seed, frame.index)).normal(size=true.shape)
    seen = true * np.exp(0.02 * noise)
    return depth_scale(estimate.depth, estimate.confidence, estimate.map, frame.stamp, seen, frame.stamp)


def ate(T: np.ndarray, T_true: np.ndarray) -> tuple[float, float]:
    """Absolute trajectory error (RMSE, metres) after the best similarity, and that similarity's scale; by evo."""
    from evo.core import metrics, trajectory

    estimate, truth = trajectory.PosePath3D(poses_se3=list(T)), trajectory.PosePath3D(poses_se3=list(T_true))
    _, _, scale = estimate.align(truth, correct_scale=True)
    error = metrics.APE(metrics.PoseRelation.translation_part)
    error.process_data((truth, estimate))
    return float(error.get_statistic(metrics.StatisticsType.rmse)), float(scale)


def depth_scales(run: Run) -> np.ndarray:
    """(N,) metres per map unit, by every frame's own depth: median of true over estimated."""
    scales = []
    for estimate in run.estimates:
        depth = run.scenario.truths[estimate.frame.index].depth
        assert callable(depth)
        true = depth(estimate.K, estimate.map.size)
        scales.append(float(np.exp(np.nanmedian(np.log(true / estimate.depth)))))
    return np.array(scales)


def steps(T: np.ndarray) -> np.ndarray:
    """(N - 1, 4, 4) each pose seen from the one before."""
    return invert(T[:-1]) @ T[1:]


def seam(run: Run, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors (metres^2) of the steps in odom: those across a window boundary, and those within a window.

    scale: metres per map unit.
    """
    ours, true = steps(run.T_odom), steps(run.T_true)
    error = ((scale * ours[:, :3, 3] - true[:, :3, 3]) ** 2).sum(1)
    # The first window has no boundary, and a gauge of its own.
    across = np.diff(run.windows) > 0
    within = ~across & (run.windows[1:] > 0)
    return error[across], error[within]


def increments(run: Run, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Normalised squared errors (chi-square of 3) of the motion from each window's slot 0 to its new frames.

    Translation and rotation apart, both (M,); scale: metres per map unit.
    """
    translation, rotation = [], []
    last = {number: np.flatnonzero(run.windows == number)[-1] for number in np.unique(run.windows)}
    for row, number in enumerate(run.windows):
        if number == 0:
            continue
        start = last[number - 1]
        ours = invert(run.T_odom[start]) @ run.T_odom[row]
        true = invert(run.T_true[start]) @ run.T_true[row]
        covariance = run.estimates[row].step_covariance
        turn = run.estimates[row].T_map_camera[:3, :3] @ ours[:3, :3].T  # start's axes -> map
        error = turn @ (ours[:3, 3] - true[:3, 3] / scale)
        angle = turn @ Rotation.from_matrix(ours[:3, :3] @ true[:3, :3].T).as_rotvec()
        translation.append(error @ np.linalg.solve(covariance[:3, :3], error))
        rotation.append(angle @ np.linalg.solve(covariance[3:, 3:], angle))
    return np.array(translation), np.array(rotation)
