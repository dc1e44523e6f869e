"""The evaluation: 8-frame windows of worlds never trained on, exact truth, the real inference path, and baselines.

A window is scored in the network's own pixels for depth and focal length, in the source's pixels for tracks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from vggt_ros import camera
from vggt_ros.training import baselines, metrics, report
from vggt_ros.training.report import Evaluation, Result
from vggt_ros.training.unseen import FIRST_SEED, FRAMES, SIZE, UnseenWindow, windows
from vggt_ros.types import Predictor
from vggt_ros.weights.registry import make_predictor

HEADS = ('camera', 'depth', 'track')
TIMED = 20  # windows that the network is timed on
_SHOWN = 6  # windows in the picture of depth


def score(predictor: Predictor, window: UnseenWindow, result: Result) -> np.ndarray:
    """Add what a predictor makes of a window to a result; its depth (S, h, w)."""
    pixel_map = predictor.pixel_map(SIZE)
    _forget(predictor)
    prediction = predictor.predict(window.frames, queries=pixel_map.to_network(window.queries).astype(np.float32))
    scores, K = result.scores, pixel_map.K_to_network(window.K)
    truth = window.depth(pixel_map)
    depth = np.stack([prediction.depth[slot] for slot in range(len(window.frames))])
    scores.add_poses(camera.invert(prediction.T_window_camera), window.T_camera_world, float(np.nanmedian(truth)))
    scores.add_depth(depth, truth)
    scores.add_focal(prediction.K, np.broadcast_to(K, prediction.K.shape))
    if prediction.tracks is not None:
        uv = pixel_map.to_source(prediction.tracks.uv)
        scores.add_tracks(uv, prediction.tracks.visibility, window.uv, window.visible, SIZE[0])
    return depth


def score_essential(window: UnseenWindow, median_depth: float, result: Result, detector: str) -> None:
    """Add the poses that OpenCV finds, given the true K."""
    poses = baselines.essential_poses([frame.image for frame in window.frames], window.K, detector)
    result.scores.pairs.append(metrics.pair_errors(poses, window.T_camera_world, median_depth))


def score_klt(window: UnseenWindow, result: Result) -> None:
    """Add the tracks that OpenCV finds."""
    uv, visibility = baselines.klt_tracks([frame.image for frame in window.frames], window.queries)
    result.scores.add_tracks(uv, visibility, window.uv, window.visible, SIZE[0])


def time_window(predictor: Predictor, window: UnseenWindow, result: Result) -> None:
    """Add the seconds that a window of new frames takes, without and with tracks."""
    queries = predictor.pixel_map(SIZE).to_network(window.queries).astype(np.float32)
    for points, seconds in ((None, result.seconds_depth), (queries, result.seconds_tracks)):
        _forget(predictor)
        started = time.perf_counter()
        predictor.predict(window.frames, queries=points)
        seconds.append(time.perf_counter() - started)


def _forget(predictor: Predictor) -> None:
    """Windows share frame numbers: a cached frame would be one of another window, and its time would be missing."""
    clear = getattr(predictor, 'clear', None)
    if clear is not None:
        clear()


def evaluate(
    predictor: Predictor,
    name: str,
    count: int,
    progress: Callable[[Iterable[UnseenWindow]], Iterable[UnseenWindow]] = iter,
) -> tuple[Evaluation, list[tuple[UnseenWindow, np.ndarray]]]:
    """Score a predictor and the baselines on ``count`` windows; the scores, and a window of each kind of world with the
    predicted depth. progress: wraps the iteration over windows (tqdm)."""
    pixel_map = predictor.pixel_map(SIZE)
    still = baselines.Still(predictor.pixel_map)
    names = (name, 'identity pose, constant depth', 'SIFT + essential matrix', 'ORB + essential matrix', 'KLT')
    ours, constant, sift, orb, klt = results = [Result(name) for name in names]
    kinds: list[str] = []
    shown: dict[str, tuple[UnseenWindow, np.ndarray]] = {}
    for number, window in enumerate(progress(windows(count))):
        depth = score(predictor, window, ours)
        if number < TIMED:
            time_window(predictor, window, ours)
        score(still, window, constant)
        median_depth = float(np.nanmedian(window.depth(pixel_map)))
        score_essential(window, median_depth, sift, 'SIFT')
        score_essential(window, median_depth, orb, 'ORB')
        score_klt(window, klt)
        kinds.append(window.world.kind)
        if len(shown) < _SHOWN:
            shown.setdefault(window.world.kind, (window, depth))
    return Evaluation(results, kinds), list(shown.values())


def run(source: str, count: int, size: int, output: Path | None, device: str) -> None:
    """The command: print the tables, and write them with plots into a folder."""
    from tqdm import tqdm

    predictor = make_predictor(source, device=device, precision='float32', image_size=size, heads=HEADS)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)  # not after an hour
    name = Path(predictor.name).name if Path(predictor.name).exists() else predictor.name
    evaluation, shown = evaluate(
        predictor, name, count, lambda items: tqdm(items, total=count, unit='window', desc='evaluating')
    )
    how = (
        f'{count} windows of {FRAMES} frames, {SIZE[0]}x{SIZE[1]} pixels, each of a world of its own (seeds from '
        f'{FIRST_SEED} on, never trained on). Times: medians of {min(count, TIMED)} windows on '
        f'{device_name(predictor.device)}.'
    )
    print('\n'.join(['', how, '', report.table(evaluation.results), '', report.table_by_kind(evaluation)]))
    if output is not None:
        from vggt_ros.training import plots

        plots.draw_figures(evaluation, output / report.FIGURES_NAME)
        plots.draw_windows(shown, predictor.pixel_map(SIZE), output / report.DEPTH_NAME)
        (output / report.NAME).write_text(report.document(evaluation, how), encoding='utf-8')
        print(f'\n{output / report.NAME}, {report.FIGURES_NAME}, {report.DEPTH_NAME}')


def device_name(device: torch.device) -> str:
    """For people."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{torch.get_num_threads()} CPU thread{"s" if torch.get_num_threads() > 1 else ""}'
