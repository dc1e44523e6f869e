"""The evaluation: 8-frame windows of worlds never trained on, exact truth, the real inference path, and baselines.

A window is scored in the network's own pixels for depth and focal length, in the source's pixels for tracks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vggt_ros import camera, weights
from vggt_ros.inference import NetworkPredictor
from vggt_ros.network.checkpoint import CheckpointError
from vggt_ros.synthetic.places import random_world
from vggt_ros.synthetic.render import cast
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics, render_sequence
from vggt_ros.synthetic.tracks import follow
from vggt_ros.synthetic.trajectory import Trajectory, make_trajectory
from vggt_ros.synthetic.world import World
from vggt_ros.training import baselines, metrics
from vggt_ros.types import DeviceError, Frame, Predictor

FIRST_SEED = 100_000
"""Evaluation worlds have this seed and the following ones: reserved, see clips.RESERVED_SEEDS."""
SIZE = (224, 168)
FRAMES = 8
QUERIES = 64
PATHS = ('handheld', 'orbit', 'drone', 'corridor', 'car', 'loop')
RATE = (2.0, 10.0)  # pictures per second, log-uniform
FOV = (50.0, 90.0)  # degrees, uniform

GOALS = {
    'auc30': ('relative pose AUC@30', '>= 0.70', '{:.3f}'),
    'rotation': ('median rotation error [deg]', '<= 2', '{:.2f}'),
    'direction': ('median translation-direction error [deg]', '<= 7', '{:.2f}'),
    'absrel': ('depth AbsRel after one scale a window', '<= 0.10', '{:.3f}'),
    'inliers': ('depth within a factor of 1.25', '>= 0.90', '{:.3f}'),
    'focal': ('median focal error', '<= 4 %', '{:.1%}'),
    'tracked': ('visible points within 3 px (224 wide)', '>= 0.75', '{:.3f}'),
    'visibility': ('visibility accuracy', '>= 0.85', '{:.3f}'),
    'seconds_depth': ('8 frames: camera and depth [s]', '<= 0.5', '{:.2f}'),
    'seconds_tracks': ('8 frames: with 64 tracks [s]', '<= 0.8', '{:.2f}'),
}


@dataclass(frozen=True, eq=False)
class Window:
    """S frames and what is true of them.

    queries: (Q, 2) source pixels of frame 0. uv: (S, Q, 2) and visible: (S, Q), where they are in all frames.
    """

    world: World
    trajectory: Trajectory
    frames: list[Frame]
    K: np.ndarray
    queries: np.ndarray
    uv: np.ndarray
    visible: np.ndarray
    _depth: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def depth(self, pixel_map: camera.PixelMap) -> np.ndarray:
        """Exact z-depth (S, h, w) in the pixels of a network, NaN in the sky."""
        size = pixel_map.size
        if size not in self._depth:
            scene, K = Scene.pack(self.world, self.trajectory.times), pixel_map.K_to_network(self.K)
            hits = cast(scene, self.trajectory.T_world_camera, K, camera.pixel_grid(size).reshape(-1, 2))
            self._depth[size] = hits.depth.reshape(len(self.frames), size[1], size[0]).numpy()
        return self._depth[size]


def windows(count: int, first_seed: int = FIRST_SEED) -> Iterator[Window]:
    """Render ``count`` windows, each of a world of its own; always the same ones."""
    for number in range(count):
        seed = first_seed + number
        rng = np.random.default_rng(seed)
        world = random_world(seed)
        rate, fov = float(np.exp(rng.uniform(*np.log(RATE)))), float(rng.uniform(*FOV))
        path = _path(world, seed, rate, number)
        K = default_intrinsics(SIZE, fov)
        sequence = render_sequence(world, path, K, SIZE)
        queries = rng.uniform(0, np.array(SIZE) - 1, (QUERIES, 2))
        tracks = follow(Scene.pack(world, path.times), path.T_world_camera, K, SIZE, queries)
        met = (tracks.object_id[0] > 0).numpy()
        uv, visible = tracks.uv[0].numpy()[:, met], tracks.visible[0].numpy()[:, met]
        yield Window(world, path, sequence.frames, K, queries[met], uv, visible)


def _path(world: World, seed: int, rate: float, number: int) -> Trajectory:
    """The kinds of path in turn; another one where one does not fit into the world."""
    for kind in (*PATHS[number % len(PATHS) :], *PATHS):
        try:
            return make_trajectory(world, kind, seed, FRAMES, rate)
        except RuntimeError:
            continue
    raise RuntimeError(f'no path fits into {world.kind} {world.seed}')


@dataclass
class Result:
    """All figures of one contender. kinds: of the world of each window, for figures by kind."""

    name: str
    scores: metrics.Scores
    kinds: list[str]
    seconds_depth: list[float]
    seconds_tracks: list[float]

    @classmethod
    def empty(cls, name: str) -> Result:
        """Without any window yet."""
        return cls(name, metrics.Scores(), [], [], [])

    def figures(self) -> dict[str, float]:
        """metrics.FIGURES and the median seconds a window."""
        times = {'seconds_depth': self.seconds_depth, 'seconds_tracks': self.seconds_tracks}
        medians = {name: float(np.median(values)) if values else float('nan') for name, values in times.items()}
        return self.scores.figures() | medians


def score(predictor: Predictor, window: Window, result: Result) -> np.ndarray:
    """Add what a predictor makes of a window to a result; its depth (S, h, w)."""
    pixel_map = predictor.pixel_map(window.frames[0].size)
    started = time.perf_counter()
    predictor.predict(window.frames)
    result.seconds_depth.append(time.perf_counter() - started)
    _forget(predictor)
    started = time.perf_counter()
    prediction = predictor.predict(window.frames, queries=pixel_map.to_network(window.queries).astype(np.float32))
    result.seconds_tracks.append(time.perf_counter() - started)
    _forget(predictor)

    scores, K = result.scores, pixel_map.K_to_network(window.K)
    truth = window.depth(pixel_map)
    depth = np.stack([prediction.depth[slot] for slot in range(len(window.frames))])
    T_true = camera.invert(window.trajectory.T_world_camera)
    scores.add_poses(camera.invert(prediction.T_window_camera), T_true, float(np.nanmedian(truth)))
    scores.add_depth(depth, truth)
    scores.add_focal(prediction.K, np.broadcast_to(K, prediction.K.shape))
    if prediction.tracks is not None:
        uv = pixel_map.to_source(prediction.tracks.uv)
        scores.add_tracks(uv, prediction.tracks.visibility, window.uv, window.visible, window.frames[0].size[0])
    result.kinds.append(window.world.kind)
    return depth


def score_classical(window: Window, median_depth: float, result: Result) -> None:
    """Add what OpenCV makes of a window, given the true K."""
    T = window.trajectory.T_world_camera
    baselines.add_classical(
        result.scores, window.frames, window.K, T, median_depth, window.queries, window.uv, window.visible
    )
    result.kinds.append(window.world.kind)


def _forget(predictor: Predictor) -> None:
    """Windows share frame numbers, and a cached frame would make the second run look too fast."""
    clear = getattr(predictor, 'clear', None)
    if clear is not None:
        clear()


def table(results: Iterable[Result]) -> str:
    """The figures as a Markdown table, a column for each result."""
    results = list(results)
    figures = [result.figures() for result in results]
    lines = ['| figure | goal | ' + ' | '.join(result.name for result in results) + ' |']
    lines.append('|---' * (2 + len(results)) + '|')
    for key, (title, goal, form) in GOALS.items():
        cells = [form.format(one[key]) if np.isfinite(one[key]) else '-' for one in figures]
        lines.append(f'| {title} | {goal} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def table_by_kind(result: Result) -> str:
    """The depth and pose figures of one result by kind of world, as a Markdown table."""
    lines = ['| world | windows | AUC@30 | AbsRel | within 3 px |', '|---|---|---|---|---|']
    scores = result.scores
    for kind in sorted(set(result.kinds)):
        rows = [index for index, one in enumerate(result.kinds) if one == kind]
        part = metrics.Scores(
            rotation=[scores.rotation[i] for i in rows],
            direction=[scores.direction[i] for i in rows],
            absrel=[scores.absrel[i] for i in rows],
            tracked=[scores.tracked[i] for i in rows if i < len(scores.tracked)],
        ).figures()
        cells = [f'{part[name]:.3f}' for name in ('auc30', 'absrel', 'tracked')]
        lines.append(f'| {kind} | {len(rows)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def run(source: str, count: int, size: int, plots: Path | None, table_path: Path | None, device: str) -> int:
    """The command; its exit status."""
    from tqdm import tqdm

    try:
        network, name = weights.load(source, device)
    except (CheckpointError, DeviceError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    predictor = NetworkPredictor(network, name=name, device=device, image_size=size or network.config.img_size)
    pixel_map = predictor.pixel_map(SIZE)
    still = baselines.Still(predictor.pixel_map)
    results = [Result.empty(name), Result.empty('standing still, flat'), Result.empty('SIFT + essential matrix, KLT')]
    shown = []
    for number, window in enumerate(tqdm(windows(count), total=count, unit='window')):
        depth = score(predictor, window, results[0])
        score(still, window, results[1])
        score_classical(window, float(np.nanmedian(window.depth(pixel_map))), results[2])
        if number < 6:
            shown.append((window, depth))
    text = f'{count} windows of {FRAMES} frames, {SIZE[0]}x{SIZE[1]} pixels, {torch.get_num_threads()} threads\n\n'
    text += table(results) + '\n\n' + table_by_kind(results[0])
    print(text)
    if table_path is not None:
        table_path.write_text(text + '\n', encoding='utf-8')
    if plots is not None:
        from vggt_ros.training.plots import draw_figures, draw_windows

        plots.mkdir(parents=True, exist_ok=True)
        draw_figures(results, plots / 'evaluation.png')
        draw_windows(shown, pixel_map, plots / 'evaluation_depth.jpg')
    return 0
