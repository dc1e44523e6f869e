"""A folder with what the node published: trajectory, pictures, cloud, bag and a summary of the run. No ROS here.

    trajectory.txt    TUM, camera-to-world, optical axes, stamps exact; written pose by pose
    kitti_trajectory.txt  the same poses as KITTI's odometry has them
    depth/NNNNNN.png  and confidence/NNNNNN.png, colours for people; frames.txt lists number and stamp, and behind a #
                      in its first line how the input was read
    cloud.ply         all frames in one world, coloured; cloud.glb: with the camera's way, for viewers of models
    outputs/          a ROS 2 bag (MCAP) of every output topic
    status.json       counts, rates, states, scale

After a reset of the map a new epoch begins, which must not be mixed with the one before: its trajectory and cloud go to
``trajectory_epoch_N.txt``, ``cloud_epoch_N.ply`` and the like.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from vggt_ros.files.bag_writer import BagWriter
from vggt_ros.files.cloud import CloudBuilder, write_ply, write_whole
from vggt_ros.files.glb import write_glb
from vggt_ros.files.pictures import UNITS, DepthRange, confidence_picture, depth_picture
from vggt_ros.files.trajectory import format_stamp, kitti_lines, tum_header, tum_lines
from vggt_ros.types import Scale

TRAJECTORY, KITTI, FRAMES = 'trajectory.txt', 'kitti_trajectory.txt', 'frames.txt'
DEPTH, CONFIDENCE, CLOUD, MODEL = 'depth', 'confidence', 'cloud.ply', 'cloud.glb'
BAG, STATUS, SUMMARY = 'outputs', 'status.json', 'summary.png'
FILES = (TRAJECTORY, KITTI, FRAMES, DEPTH, CONFIDENCE, CLOUD, MODEL, BAG, STATUS, SUMMARY)


class OutputError(RuntimeError):
    """Something cannot be written; the text names the file and the reason."""


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """What the node published about one image. What is missing is None.

    stamp: nanoseconds. pose: (4, 4) T_map_camera. depth, confidence: (h, w) float32, NaN unknown.
    xyz: (h, w, 3) points in the optical frame, NaN unknown; rgb: (h, w, 3) uint8.
    """

    stamp: int
    epoch: int
    scale: Scale
    pose: np.ndarray | None = None
    depth: np.ndarray | None = None
    confidence: np.ndarray | None = None
    xyz: np.ndarray | None = None
    rgb: np.ndarray | None = None


def fresh_folder(path: Path) -> Path:
    """The folder itself when it holds no recording yet, else the first free ``path/run_2``, ``path/run_3``, ...

    Nothing that was recorded before is ever overwritten or mixed with something new.
    """
    folder, number = path, 1
    while any((folder / name).exists() for name in FILES):
        number += 1
        folder = path / f'run_{number}'
    return folder


def annotate(folder: Path, notes: Sequence[str]) -> None:
    """Say how the input was read, in ``frames.txt`` and ``status.json`` of a finished recording. Raises OutputError."""
    if not notes:
        return
    path = folder / FRAMES
    with writing(path):
        first, _, rest = path.read_text().partition('\n')
        write_whole(path, f'{first}  # {"; ".join(notes)}\n{rest}'.encode())
    path = folder / STATUS
    with writing(path):
        fields = json.loads(path.read_text()) | {'input': list(notes)}
        write_whole(path, (json.dumps(fields, indent=2) + '\n').encode())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise OutputError(f'cannot write {path}: {error.strerror or error}') from error


class RecordingWriter:
    """Writes a folder as described above. Every method raises OutputError; what was written before stays readable.

    folder: made if it is not there; see :func:`fresh_folder`. definitions: as for :class:`BagWriter`.
    """

    def __init__(self, folder: Path, definitions: Mapping[str, str], *, voxel: float = 0.0) -> None:
        self.folder = folder
        self.frames = 0
        self._voxel = voxel
        self._trajectory: TextIO | None = None
        self._kitti: TextIO | None = None
        self._way: list[np.ndarray] = []  # poses of this epoch
        self._epoch: int | None = None
        self._first_epoch: int | None = None
        self._cloud: CloudBuilder | None = None
        self._range: DepthRange | None = None
        with writing(folder):
            for name in (DEPTH, CONFIDENCE):
                (folder / name).mkdir(parents=True, exist_ok=True)
            self._frames = (folder / FRAMES).open('w')
        with writing(folder / BAG):
            self.bag = BagWriter(folder / BAG, definitions)

    def write_message(self, topic: str, kind: str, time: int, data: bytes, *, latched: bool = False) -> None:
        """Into the bag, see :meth:`BagWriter.write`."""
        with writing(self.bag.file):
            self.bag.write(topic, kind, time, data, latched=latched)

    def write_frame(self, frame: RecordedFrame) -> None:
        """Everything but the bag, for one image."""
        if frame.epoch != self._epoch:
            self._begin_epoch(frame.epoch)
        name = f'{self.frames:06d}'
        if frame.depth is not None:
            self._range = self._range or DepthRange.of(frame.depth)
            # Without any known depth yet every pixel is grey, whatever the scale.
            picture = depth_picture(frame.depth, self._range or DepthRange(1, 10), UNITS[frame.scale])
            _write_picture(self.folder / DEPTH / f'{name}.png', picture)
        if frame.confidence is not None:
            _write_picture(self.folder / CONFIDENCE / f'{name}.png', confidence_picture(frame.confidence))
        if frame.pose is not None:
            assert self._trajectory is not None
            assert self._kitti is not None
            self._way.append(frame.pose)
            for file, line in (
                (self._trajectory, tum_lines([frame.stamp], frame.pose[None])),
                (self._kitti, kitti_lines(frame.pose[None], self._way[0])),
            ):
                with writing(Path(file.name)):
                    file.write(line)
                    file.flush()
            if self._cloud is not None and frame.xyz is not None and frame.rgb is not None:
                self._cloud.add(frame.xyz, frame.rgb, frame.pose)
        with writing(self.folder / FRAMES):
            self._frames.write(f'{name} {format_stamp(frame.stamp)}\n')
            self._frames.flush()
        self.frames += 1

    def _begin_epoch(self, epoch: int) -> None:
        self._end_epoch()
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._epoch = epoch
        path = self._of_epoch(TRAJECTORY)
        with writing(path):
            self._trajectory = path.open('w')
            self._trajectory.write(tum_header())
        path = self._of_epoch(KITTI)
        with writing(path):
            self._kitti = path.open('w')
        self._way = []
        self._range = None
        self._cloud = CloudBuilder(voxel=self._voxel)

    def _end_epoch(self) -> None:
        for file in (self._trajectory, self._kitti):
            if file is not None:
                with writing(Path(file.name)):
                    file.close()
        if self._cloud is not None:
            xyz, rgb = self._cloud.result()
            if len(xyz):
                with writing(self._of_epoch(CLOUD)):
                    write_ply(self._of_epoch(CLOUD), xyz, rgb)
                with writing(self._of_epoch(MODEL)):
                    write_glb(self._of_epoch(MODEL), xyz, rgb, np.array([pose[:3, 3] for pose in self._way]))

    def _of_epoch(self, name: str) -> Path:
        if self._epoch == self._first_epoch:
            return self.folder / name
        stem, _, suffix = name.partition('.')
        return self.folder / f'{stem}_epoch_{self._epoch}.{suffix}'

    def abandon(self) -> None:
        """After an OutputError: leave what is there in a readable state."""
        with suppress(OSError):
            self.bag.close()
        for file in (self._frames, self._trajectory, self._kitti):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Finish all files. summary: what goes into ``status.json``."""
        self._end_epoch()
        with writing(self.bag.file):
            self.bag.close()
        with writing(self.folder / FRAMES):
            self._frames.close()
        with writing(self.folder / STATUS):
            write_whole(self.folder / STATUS, (json.dumps(summary, indent=2) + '\n').encode())


def _write_picture(path: Path, rgb: np.ndarray) -> None:
    # OpenCV's own file writer does not notice a full disk.
    data = cv2.imencode('.png', rgb[..., ::-1])[1].tobytes()
    with writing(path):
        write_whole(path, data)
