"""Recordings of one's own robot as training data: folders as :class:`vggt_ros.files.folder.FolderSequence` reads them.

Needed for every picture: its pose (``poses.txt``), its depth (``depth/``), and an ``intrinsics.yaml`` without
distortion. All of it is checked and read before the training begins, and kept in memory at the network's size:
150 kB a picture of 168 x 126.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from vggt_ros.camera import PixelMap, fit
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.folder import FolderSequence
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.sequence import SequenceItem
from vggt_ros.network import ConfigError
from vggt_ros.training.clips import Clips
from vggt_ros.training.config import Stage, TrainConfig
from vggt_ros.training.schedule import births


class DatasetError(ConfigError):
    """The configuration names a recording that cannot be trained on; the message names the file."""


@dataclass(frozen=True, eq=False)
class RecordedFolder:
    """N pictures of one camera. seconds: (N,), increasing. images: (N, 3, h, w) uint8 RGB. depth: (N, h, w) float32
    z-depth in metres, 0 unknown. T_world_camera: (N, 4, 4). K: (3, 3), its principal point in the image's middle."""

    path: Path
    seconds: np.ndarray
    images: np.ndarray
    depth: np.ndarray
    T_world_camera: np.ndarray
    K: np.ndarray

    @classmethod
    def read(cls, path: Path, longest: int, patch: int) -> RecordedFolder:
        """Read a folder at ``longest`` pixels on the longer side, a multiple of ``patch``. Raises DatasetError."""
        try:
            return cls._read(path, longest, patch)
        except (SequenceError, FileNotFoundError) as error:
            raise DatasetError(str(error)) from error

    @classmethod
    def _read(cls, path: Path, longest: int, patch: int) -> RecordedFolder:
        sequence = open_sequence(path)
        if not isinstance(sequence, FolderSequence):
            raise DatasetError(f'{path}: only folders of pictures can be trained on')
        if sequence.trajectory is None:
            raise DatasetError(f'{path / "poses.txt"} is missing: training needs the pose of every picture')
        _check_listed(path)
        items = list(sequence)
        if sequence.damaged:
            raise DatasetError(f'{sequence.damaged[0]}: training needs every picture')
        K, crop, pixel_map = _camera(path, items[0], longest, patch)
        images, depths, poses = [], [], []
        for item in items:
            pose, depth = sequence.trajectory.pose(item.stamp), sequence.read_depth(item.index)
            if pose is None:
                raise DatasetError(f'{path / "poses.txt"}: no pose with the stamp of {item.name}')
            if depth is None:
                raise DatasetError(f'{path / "depth"}: there is no depth picture for {item.name}')
            rgb = _pixels(item)
            if depth.shape != rgb.shape[:2]:
                raise DatasetError(f'{path / "depth"}: the depth of {item.name} has another size than the picture')
            images.append(_resize(rgb[crop], pixel_map).transpose(2, 0, 1))
            depths.append(_sample(depth[crop], pixel_map))
            poses.append(pose)
        seconds = np.array([item.stamp for item in items], np.int64) * 1e-9
        return cls(path, seconds, np.stack(images), np.stack(depths), np.stack(poses), K)

    def excerpt(self, rng: np.random.Generator, stage: Stage, frames: int) -> np.ndarray:
        """Indices (frames,) of pictures at a rate of the stage, from a random beginning; all of it when it is short."""
        span = float(np.ptp(self.seconds))
        period = min(float(np.exp(-rng.uniform(*np.log(stage.rate)))), span / max(frames - 1, 1))
        first = self.seconds[0] + rng.uniform(0, max(span - period * (frames - 1), 0.0))
        times = first + period * np.arange(frames)
        after = np.searchsorted(self.seconds, times).clip(1, max(len(self.seconds) - 1, 1))
        before_is_nearer = times - self.seconds[after - 1] < self.seconds[after % len(self.seconds)] - times
        return np.where(before_is_nearer, after - 1, after % len(self.seconds))


def recorded(config: TrainConfig, device: torch.device, first: int) -> Iterator[Clips]:
    """Clips of the folders of a configuration, as :func:`vggt_ros.training.stream.rendered` gives rendered ones.

    They are shown at the last stage's image size; aspect and field of view are the camera's own.
    """

    longest, patch = config.stages[-1].longest, config.network.patch_size
    recordings = [RecordedFolder.read(Path(folder), longest, patch) for folder in config.data.folders]
    weights = np.array([len(one.seconds) for one in recordings], np.float64)
    for number in births(first, config.data):
        rng, stage = np.random.default_rng((config.run.seed, number, 1)), config.stage(number)
        # Clips of one set have one size, that of a recording drawn first.
        size = recordings[rng.choice(len(recordings), p=weights / weights.sum())].depth.shape[1:]
        alike = weights * [one.depth.shape[1:] == size for one in recordings]
        chosen = [recordings[i] for i in rng.choice(len(recordings), config.data.worlds, p=alike / alike.sum())]
        excerpts = [one.excerpt(rng, stage, config.data.frames) for one in chosen]

        def gather(
            name: str, chosen: list[RecordedFolder] = chosen, excerpts: list[np.ndarray] = excerpts
        ) -> torch.Tensor:
            stack = np.stack([getattr(one, name)[rows] for one, rows in zip(chosen, excerpts, strict=True)])
            return torch.from_numpy(stack).to(device)

        K = torch.from_numpy(np.stack([one.K for one in chosen])).to(device)
        K = K[:, None].expand(-1, config.data.frames, -1, -1)
        yield Clips.of(gather('images'), gather('depth'), gather('T_world_camera'), K)


def _pixels(item: SequenceItem) -> np.ndarray:
    return item.image.to_rgb()  # type: ignore[union-attr]  # folders give raw images


def _check_listed(path: Path) -> None:
    """DatasetError if ``timestamps.txt`` names a picture that is not there."""
    images = path / 'images' if (path / 'images').is_dir() else path
    listed = path / 'timestamps.txt'
    names = [line.split()[0] for line in listed.read_text().splitlines() if line.split()] if listed.is_file() else []
    missing = [name for name in names if not name.startswith('#') and not (images / name).is_file()]
    if missing:
        raise DatasetError(f'{images / missing[0]} is missing, {listed.name} names it ({len(missing)} such pictures)')


def _camera(path: Path, item: SequenceItem, longest: int, patch: int) -> tuple[np.ndarray, tuple, PixelMap]:
    """K of the network's image, the crop of the source whose middle is the principal point, and the way from there."""
    calibration = item.calibration
    if calibration is None or calibration.K is None:
        raise DatasetError(f'{path / "intrinsics.yaml"} is missing: training needs the camera')
    if any(calibration.d):
        raise DatasetError(f'{path / "intrinsics.yaml"}: the camera distorts; rectify the pictures and the depth first')
    K = calibration.K
    # VGGT knows no principal point but the middle: what is nearer to one edge than to the other is cut off.
    size = _pixels(item).shape[1::-1]
    halves = [min(K[axis, 2] + 0.5, side - K[axis, 2] - 0.5) for axis, side in enumerate(size)]
    left, top = (max(round(K[axis, 2] + 0.5 - half), 0) for axis, half in enumerate(halves))
    width, height = (int(2 * half) for half in halves)
    pixel_map = fit((width, height), longest, patch)
    shifted = K.copy()
    shifted[:2, 2] -= (left, top)
    return pixel_map.K_to_network(shifted), (slice(top, top + height), slice(left, left + width)), pixel_map


def _resize(rgb: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    (left, top), (width, height) = pixel_map.offset, pixel_map.size
    return cv2.resize(rgb, pixel_map.resized, interpolation=cv2.INTER_AREA)[top : top + height, left : left + width]


def _sample(depth: np.ndarray, pixel_map: PixelMap) -> np.ndarray:
    """The depth at the nearest source pixel: a mean of two sides of an edge would be the depth of nothing."""
    width, height = pixel_map.size
    u = pixel_map.to_source(np.stack([np.arange(width), np.zeros(width)], -1))[:, 0]
    v = pixel_map.to_source(np.stack([np.zeros(height), np.arange(height)], -1))[:, 1]
    rows = np.round(v).astype(int).clip(0, depth.shape[0] - 1)
    columns = np.round(u).astype(int).clip(0, depth.shape[1] - 1)
    return np.nan_to_num(depth[rows[:, None], columns]).astype(np.float32)
