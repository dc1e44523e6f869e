"""Recordings of one's own robot, and datasets, as training data: whatever folder ``open_sequence`` reads.

Needed are the camera's calibration and, for every picture that is to be used, its pose and its depth: in a plain folder
``intrinsics.yaml``, ``poses.txt`` and ``depth/``. All of it is checked, rectified and read before the training begins,
and kept in memory at the network's size: 150 kB a picture of 168 x 126.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from vggt_ros.camera import PixelMap, fit, image_size
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.folder import FolderSequence
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.truth import KnownPicture, KnownPictures
from vggt_ros.network import ConfigError
from vggt_ros.training.clips import Clips
from vggt_ros.training.config import Stage, TrainConfig
from vggt_ros.training.schedule import births


class DatasetError(ConfigError):
    """The configuration names a recording that cannot be trained on; the message names the file."""


@dataclass(frozen=True, eq=False)
class RecordedFolder:
    """N pictures of one camera. seconds: (N,), increasing. images: (N, 3, h, w) uint8 RGB. depth: (N, h, w) float32
    z-depth in metres, 0 unknown. T_world_camera: (N, 4, 4). K: (3, 3), its principal point in the image's middle.
    notes: how it was read, and what was left out."""

    path: Path
    seconds: np.ndarray
    images: np.ndarray
    depth: np.ndarray
    T_world_camera: np.ndarray
    K: np.ndarray
    notes: tuple[str, ...] = ()

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
        known = KnownPictures(sequence)
        crop, pixel_map, K = None, None, np.eye(3)
        stamps, images, depths, poses = [], [], [], []
        for picture in known:
            if crop is None or pixel_map is None:
                crop, pixel_map, K = _centred(picture, longest, patch)
            stamps.append(picture.item.stamp)
            images.append(_resize(picture.image[crop], pixel_map).transpose(2, 0, 1))
            depths.append(_sample(picture.depth[crop], pixel_map))
            poses.append(picture.T_world_camera)
        seconds = np.array(stamps, np.int64) * 1e-9
        notes = (*sequence.notes, *known.notes)
        return cls(path, seconds, np.stack(images), np.stack(depths), np.stack(poses), K, notes)

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
    for one in recordings:
        for note in one.notes:
            print(f'{one.path}: {note}', file=sys.stderr, flush=True)
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


def _centred(picture: KnownPicture, longest: int, patch: int) -> tuple[tuple[slice, slice], PixelMap, np.ndarray]:
    """The crop of the source whose middle is the principal point, the way from there to the network's image, its K."""
    K = picture.K
    # VGGT knows no principal point but the middle: what is nearer to one edge than to the other is cut off.
    size = image_size(picture.image)
    halves = [min(K[axis, 2] + 0.5, side - K[axis, 2] - 0.5) for axis, side in enumerate(size)]
    left, top = (max(round(K[axis, 2] + 0.5 - half), 0) for axis, half in enumerate(halves))
    width, height = (int(2 * half) for half in halves)
    pixel_map = fit((width, height), longest, patch)
    shifted = K.copy()
    shifted[:2, 2] -= (left, top)
    return (slice(top, top + height), slice(left, left + width)), pixel_map, pixel_map.K_to_network(shifted)


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
