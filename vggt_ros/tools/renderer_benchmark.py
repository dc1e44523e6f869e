"""What a picture of the synthetic worlds costs, and what each option and each sensor effect adds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from time import perf_counter

import numpy as np
import torch

from vggt_ros.synthetic import effects
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.trajectory import make_trajectory

KIND, SEED = 'room', 10  # 60 primitives
SIZE = (224, 168)
PLAIN = 'one sample a pixel, no shadows'
OPTIONS = {
    PLAIN: {},
    'shadows': {'shadows': True},
    'ambient occlusion': {'occlusion': True},
    '2x2 samples': {'samples': 2},
    'all three': {'shadows': True, 'occlusion': True, 'samples': 2},
}


def measure(
    frames: int, size: tuple[int, int] = SIZE, device: str | torch.device = 'cpu', progress: Callable = iter
) -> tuple[int, dict[str, list[float]]]:
    """The number of primitives, and the seconds of each frame with each option and effect, in turns.

    An effect on a finished picture counts with its rendering. progress: wraps the iteration over frames (tqdm).
    """
    world = make_world(KIND, SEED)
    path = make_trajectory(world, 'handheld', SEED, frames + 1)
    K = default_intrinsics(size)
    streams = {
        name: render_frames(world, path, K, size, str(device), **options)  # type: ignore[arg-type]
        for name, options in OPTIONS.items()
    }
    for stream in streams.values():
        next(stream)  # warms up
    rng, lens = np.random.default_rng(0), np.array([-0.2, 0.05, 0, 0, 0])
    on_picture: dict[str, Callable[[np.ndarray], object]] = {
        'sensor noise': lambda image: effects.noise(image, rng),
        'defocus': lambda image: effects.blur(image, 1.0),
        'exposure': lambda image: effects.exposure(image, 0.5),
        'vignetting': effects.vignette,
        'JPEG': effects.jpeg,
        'lens distortion': lambda image: effects.distort(image, K, K, lens, size),
    }
    # These render for themselves, on the CPU.
    on_world: dict[str, Callable[[float], object]] = {
        'motion blur, 5 steps': lambda time: effects.motion_blur(world, path, time, 0.02, K, size),
        'rolling shutter': lambda time: effects.rolling_shutter(world, path, time, 0.02, K, size),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*OPTIONS, *on_picture, *on_world)}

    def timed(name: str, run: Callable, *arguments: object, plus: float = 0.0) -> object:
        started = perf_counter()
        result = run(*arguments)
        seconds[name].append(perf_counter() - started + plus)
        return result

    for time in progress(path.times[1:]):
        pictures = {name: timed(name, next, stream) for name, stream in streams.items()}
        plain = pictures[PLAIN].image  # type: ignore[attr-defined]
        for name, effect in on_picture.items():
            timed(name, effect, plain, plus=seconds[PLAIN][-1])
        for name, whole in on_world.items():
            timed(name, whole, time)
    return len(world.shape), seconds


def table(seconds: dict[str, list[float]]) -> Iterable[str]:
    """Lines with median milliseconds, frames a second, and the ratio to a plain picture."""
    yield f'{"":<32}{"ms/frame":>10}{"frames/s":>10}{"ratio":>8}'
    plain = statistics.median(seconds[PLAIN])
    for name, values in seconds.items():
        middle = statistics.median(values)
        yield f'{name:<32}{1000 * middle:>10.1f}{1 / middle:>10.1f}{middle / plain:>8.2f}'
