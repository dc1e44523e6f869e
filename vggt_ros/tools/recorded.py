"""What a recorded folder holds, read back, and how it compares with the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from vggt_ros.camera import PixelMap, fit, image_size, pixel_grid, shown_by
from vggt_ros.evaluation import accuracy
from vggt_ros.files import recording
from vggt_ros.files.cloud import read_ply
from vggt_ros.files.sequence import ImageSequence, SequenceItem
from vggt_ros.files.trajectory import Trajectory, read_tum
from vggt_ros.lens import CameraInfoError
from vggt_ros.rectify import Rectifier
from vggt_ros.tracks.picture import TrackedPoints
from vggt_ros.types import Scale

DEPTH_FRAMES = 60  # at most so many frames are compared with their true depth


class RecordedError(ValueError):
    """A folder that is no recording, or an empty one."""


class Recorded:
    """A folder that a RecordingWriter (files/recording.py) wrote; of several epochs the one with the most poses.

    status: the contents of status.json. trajectory: of that epoch. Raises RecordedError, or OSError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.status: dict[str, Any] = json.loads((folder / recording.STATUS).read_text())
        except FileNotFoundError as error:
            raise RecordedError(f'{folder} is not a finished recording: no {recording.STATUS}') from error
        files = sorted(folder.glob('trajectory*.txt'))
        self.epochs = len(files)
        if not files:
            raise RecordedError(f'{folder} holds no trajectory: {self.status.get("message") or "nothing was solved"}')
        trajectories = [read_tum(file) for file in files]
        longest = max(range(len(files)), key=lambda i: len(trajectories[i]))
        self.trajectory: Trajectory = trajectories[longest]
        if not len(self.trajectory):
            raise RecordedError(f'{folder}: the trajectory is empty')
        self._cloud = folder / files[longest].name.replace('trajectory', 'cloud').replace('.txt', '.ply')

    @property
    def scale(self) -> Scale:
        """What lengths mean."""
        return Scale[self.status.get('scale', 'UNKNOWN')]

    @property
    def network(self) -> str:
        """The network's name as the node told it; empty when it did not."""
        return self.status['node'].get('network', '')

    def missing(self) -> list[str]:
        """What of the node's results did not arrive, in words."""
        status = self.status
        lost, partly = status.get('images_processed', 0) - status['frames'], status['frames_incomplete']
        found = [f'{lost} solved images did not arrive at all'] if lost > 0 else []
        return [*found, f'{partly} solved images without pose, depth, confidence or points'] if partly else found

    @cached_property
    def cloud(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) positions in the map and (N, 3) uint8 colours; empty when none was recorded."""
        if not self._cloud.is_file():
            return np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8)
        return read_ply(self._cloud)

    def choose(self, count: int) -> list[int]:
        """Stamps of at most ``count`` frames, evenly spread from the first to the last."""
        places = np.linspace(0, len(self.trajectory) - 1, min(count, len(self.trajectory)))
        return [int(self.trajectory.stamps[round(place)]) for place in places]

    def _messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """(stamp, message) of every message on a topic that ends like this."""
        with AnyReader([self.folder / recording.BAG], default_typestore=get_typestore(Stores.LATEST)) as reader:
            connections = [x for x in reader.connections if x.topic.endswith(topic)]
            for connection, _, raw in reader.messages(connections) if connections else ():
                message: Any = reader.deserialize(raw, connection.msgtype)
                yield message.header.stamp.sec * 10**9 + message.header.stamp.nanosec, message

    def images(self, topic: str, stamps: Sequence[int]) -> dict[int, np.ndarray]:
        """(h, w) float32 by stamp of ``/depth/image_rect`` or ``/depth/confidence``."""
        wanted = set(stamps)
        return {
            stamp: message.data.view(np.float32).reshape(message.height, message.width)
            for stamp, message in self._messages(topic)
            if stamp in wanted
        }

    def tracks(self) -> list[TrackedPoints]:
        """All keypoints, image by image."""
        return [
            TrackedPoints(stamp, message.id, np.stack([message.u, message.v], -1), message.age)
            for stamp, message in self._messages('/tracks')
        ]


@dataclass(frozen=True, eq=False)
class RunAccuracy:
    """Comparison with the truth, None where there is none or too little of it; why tells what is missing.

    depth: AbsRel after one scale; depth_scale: true over recorded depth.
    """

    trajectory: accuracy.TrajectoryError | None = None
    depth: float | None = None
    depth_scale: float | None = None
    why: str = ''


def measure(recorded: Recorded, sequence: ImageSequence) -> RunAccuracy:
    """Compare with the truth of the input, as far as it has any."""
    error, why = None, ''
    if sequence.trajectory is not None:
        try:
            error = accuracy.trajectory_error(recorded.trajectory, sequence.trajectory)
        except ValueError as reason:
            why = str(reason)
    stamps = recorded.choose(DEPTH_FRAMES)
    truths = true_depths(sequence, pictures(sequence, stamps))
    depth, scale = None, None
    if truths:
        ours = recorded.images('/depth/image_rect', list(truths))
        pairs = [(ours[x], truth.at(image_size(ours[x]))) for x, truth in truths.items() if x in ours]
        try:
            depth, scale = accuracy.depth_error(pairs)
        except ValueError as reason:
            why = why or str(reason)
    return RunAccuracy(error, depth, scale, why)


@dataclass(frozen=True, eq=False)
class TrueDepth:
    """Of a picture as the node saw it. depth: (H, W), NaN unknown. size: (width, height) of the picture."""

    depth: np.ndarray
    size: tuple[int, int]

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """(h, w) at the pixels of a depth image of this size: the picture's, or that of what the network sees of it."""
        seen = PixelMap(self.size, self.size, (0, 0), self.size) if size == self.size else fit(self.size, max(size))
        if seen.size != size:
            return np.full(size[::-1], np.nan, np.float32)
        places = shown_by(self.size, self.depth).to_network(seen.to_source(pixel_grid(size)))
        columns, rows = places.round().astype(int).reshape(-1, 2).T
        height, width = self.depth.shape
        return self.depth[rows.clip(0, height - 1), columns.clip(0, width - 1)].reshape(size[::-1])


def true_depths(sequence: ImageSequence, items: Sequence[SequenceItem]) -> dict[int, TrueDepth]:
    """By stamp, of the items that have a true depth."""
    found = {}
    for item in items:
        depth = sequence.read_depth(item.index)
        if depth is not None:
            rectifier = _rectifier(item, image_size(depth))
            rectified = depth if rectifier is None else rectifier.depth(depth)
            found[item.stamp] = TrueDepth(rectified, image_size(seen(item)))
    return found


def pictures(sequence: ImageSequence, stamps: Sequence[int]) -> list[SequenceItem]:
    """The items of the input with these stamps."""
    wanted = set(stamps)
    found = []
    for item in sequence:
        if item.stamp in wanted:
            found.append(item)
            wanted.remove(item.stamp)
            if not wanted:
                break
    return found


def seen(item: SequenceItem) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a picture as the node saw it: decoded and, where it was calibrated so, rectified."""
    # Not part of an installation without ROS, although it needs none.
    from vggt_ros.ros.inputs.images import to_rgb

    image = to_rgb(item.image)
    rectifier = _rectifier(item, image_size(image))
    return image if rectifier is None else rectifier(image)


def _rectifier(item: SequenceItem, size: tuple[int, int]) -> Rectifier | None:
    """For images of this size; None where the node goes on without a calibration, too."""
    if item.calibration is None:
        return None
    try:
        rectifier = Rectifier(item.calibration)
        rectifier.check(size)
    except CameraInfoError:
        return None
    return rectifier
