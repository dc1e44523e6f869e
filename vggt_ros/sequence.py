"""Image sequences on disk: a folder, a video file or a bag (ROS 1 or ROS 2), read alike and without ROS.

Each picture comes as the fields of a sensor_msgs Image or CompressedImage, so that a player republishes it unchanged;
``vggt_ros.ros.images.to_rgb`` decodes it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path

import cv2
import numpy as np
import yaml

from vggt_ros.calibration import Calibration
from vggt_ros.trajectory_io import Trajectory, parse_stamp, read_tum

IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.pgm', '.ppm'}
BAG_SUFFIXES = {'.bag', '.mcap', '.db3'}
FOLDER_FPS = 10.0
VIDEO_FPS = 30.0
FRAME_ID = 'camera_optical_frame'


class SequenceError(ValueError):
    """An input that cannot be read; the message names the file or the topic and says what was wanted."""


@dataclass(frozen=True, eq=False)
class RawImage:
    """The fields of sensor_msgs/Image. data: flat uint8 array of step * height bytes."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: np.ndarray

    @classmethod
    def from_rgb(cls, rgb: np.ndarray) -> RawImage:
        """From (H, W, 3) uint8 RGB."""
        height, width = rgb.shape[:2]
        return cls(height, width, 'rgb8', 0, 3 * width, np.ascontiguousarray(rgb).reshape(-1))


@dataclass(frozen=True, eq=False)
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage. data: flat uint8 array, a jpeg or png file."""

    format: str
    data: np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceItem:
    """One picture of a sequence.

    index: position in the whole input, whatever the stride. name: file name or topic, for messages to people.
    stamp: nanoseconds; exact where the input has stamps. calibration: None when the input has none.
    """

    index: int
    name: str
    stamp: int
    image: RawImage | CompressedImage
    frame_id: str = FRAME_ID
    calibration: Calibration | None = None


class Sequence(ABC):
    """Pictures in the order of the input; iterating again starts again.

    path: what was opened. topic: of a bag, else None. trajectory: true camera poses, where the input has them.
    notes: what a user should know about how the input was read.
    ``len()`` is known for folders and bags and mostly for videos (an estimate of the container); TypeError otherwise.
    """

    topic: str | None = None
    trajectory: Trajectory | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, count: int | None, stride: int, limit: int | None) -> None:
        self.path, self._count, self._stride, self._limit = path, count, stride, limit

    def __iter__(self) -> Iterator[SequenceItem]:
        stop = None if self._limit is None else (self._limit - 1) * self._stride + 1
        for load in islice(self._loaders(), 0, stop, self._stride):
            yield load()

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError(f'the length of {self.path} is not known before it is read')
        selected = -(-self._count // self._stride)
        return selected if self._limit is None else min(selected, self._limit)

    @abstractmethod
    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        """One function per picture, in order; only the selected ones are called."""

    def read_depth(self, index: int) -> np.ndarray | None:
        """True z-depth (h, w) float32 in metres of item ``index``, NaN where unknown; None when there is none."""
        return None


class FolderSequence(Sequence):
    """Pictures of one size in natural order of their names (2 before 10).

    Beside them, in the folder itself or next to its ``images/``, there may be ``intrinsics.yaml``
    (:meth:`Calibration.from_fields`, and ``depth_scale`` in metres per unit, 0.001 without it), ``timestamps.txt``
    (``name seconds`` a line), ``poses.txt`` (TUM, camera-to-world) and ``depth/`` (16-bit png named as the picture,
    0 = unknown). Without ``timestamps.txt`` the poses' stamps are taken if there is one pose for each picture, else
    picture n has the stamp (n + 1) / fps: a stamp of 0 would mean "no time" to ROS.
    """

    def __init__(self, path: Path, fps: float | None, stride: int, limit: int | None) -> None:
        images = path / 'images' if (path / 'images').is_dir() else path
        self._root = images.absolute().parent if images.absolute().name == 'images' else images
        self._files = sorted(
            (x for x in images.iterdir() if x.suffix.lower() in IMAGE_SUFFIXES and not x.name.startswith('.')),
            key=lambda x: _natural(x.name),
        )
        if not self._files:
            raise SequenceError(f'{images}: neither pictures ({" ".join(sorted(IMAGE_SUFFIXES))}) nor a bag')
        super().__init__(path, len(self._files), stride, limit)
        self._size = _read_picture(self._files[0]).shape[1::-1]
        self._calibration, self._depth_scale = self._read_intrinsics()
        try:
            if (self._root / 'poses.txt').is_file():
                self.trajectory = read_tum(self._root / 'poses.txt')
            self._stamps = self._read_stamps(fps)
        except ValueError as error:
            raise SequenceError(str(error)) from error

    def _read_intrinsics(self) -> tuple[Calibration | None, float]:
        path = self._root / 'intrinsics.yaml'
        if not path.is_file():
            return None, 0.001
        try:
            fields = yaml.safe_load(path.read_text())
            calibration = Calibration.from_fields(fields)
            depth_scale = float(fields.get('depth_scale', 0.001))
        except (ValueError, yaml.YAMLError) as error:
            raise SequenceError(f'{path}: {error}') from error
        if (calibration.width, calibration.height) != self._size:
            raise SequenceError(
                f'{path}: calibrated at {calibration.width}x{calibration.height}, but {self._files[0].name} has'
                f' {self._size[0]}x{self._size[1]} pixels'
            )
        return calibration, depth_scale

    def _read_stamps(self, fps: float | None) -> list[int]:
        """One stamp per file; sorts the files by them."""
        path = self._root / 'timestamps.txt'
        if path.is_file():
            if fps is not None:
                raise SequenceError(f'{path} gives the stamps: fps cannot be set')
            stamps = _read_timestamps(path)
            if missing := [x.name for x in self._files if x.name not in stamps]:
                raise SequenceError(f'{path}: no stamp for {missing[0]} ({len(missing)} of {self._count} missing)')
            self._files.sort(key=lambda x: stamps[x.name])
            return [stamps[x.name] for x in self._files]
        if fps is None and self.trajectory is not None and len(self.trajectory) == self._count:
            self.notes += ('no timestamps.txt: stamps taken from poses.txt, one pose for each picture',)
            return self.trajectory.stamps.tolist()
        rate = FOLDER_FPS if fps is None else fps
        self.notes += (f'no timestamps.txt: stamps at {rate:g} pictures per second',)
        return [round((index + 1) * 1e9 / rate) for index in range(len(self._files))]

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        for index in range(len(self._files)):
            yield partial(self._load, index)

    def _load(self, index: int) -> SequenceItem:
        file = self._files[index]
        rgb = _read_picture(file)
        size = rgb.shape[1::-1]
        if size != self._size:
            raise SequenceError(
                f'{file}: {size[0]}x{size[1]} pixels, the others have {self._size[0]}x{self._size[1]}:'
                ' a sequence is of one camera and one size'
            )
        image = RawImage.from_rgb(rgb)
        return SequenceItem(index, file.name, self._stamps[index], image, calibration=self._calibration)

    def read_depth(self, index: int) -> np.ndarray | None:
        path = self._root / 'depth' / f'{self._files[index].stem}.png'
        if not path.is_file():
            return None
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
            raise SequenceError(f'{path}: not a 16-bit one-channel png')
        return np.where(raw > 0, raw * np.float32(self._depth_scale), np.float32(np.nan))


class VideoSequence(Sequence):
    """A video file that OpenCV can read. Stamps: (n + 1) / fps with ``fps``, else the container's presentation
    times after a first one of one frame period, at the container's rate (30 where it has none)."""

    def __init__(self, path: Path, fps: float | None, stride: int, limit: int | None) -> None:
        capture = cv2.VideoCapture(str(path))
        frames, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
        if not capture.isOpened() or not capture.grab():
            raise SequenceError(f'{path}: not a video that OpenCV can read, nor a bag ({" ".join(BAG_SUFFIXES)})')
        capture.release()
        super().__init__(path, frames if frames > 0 else None, stride, limit)
        self._fps, self._period = fps, 1e9 / (fps or (rate if rate > 0 else VIDEO_FPS))

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        capture = cv2.VideoCapture(str(self.path))
        stamp = 0
        for index in count():
            if not capture.grab():
                break
            shown = index * self._period if self._fps else capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6
            # Some containers have no presentation times: then the frames follow one another at the nominal rate.
            stamp = round(self._period + shown) if self._period + shown > stamp else round(stamp + self._period)
            yield partial(self._load, capture, index, stamp)
        capture.release()

    def _load(self, capture: cv2.VideoCapture, index: int, stamp: int) -> SequenceItem:
        name = f'{self.path.name} frame {index}'
        readable, bgr = capture.retrieve()
        if not readable:
            raise SequenceError(f'{self.path}: frame {index} cannot be decoded')
        return SequenceItem(index, name, stamp, RawImage.from_rgb(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))


def open_sequence(
    path: Path | str,
    *,
    fps: float | None = None,
    topic: str | None = None,
    stride: int = 1,
    limit: int | None = None,
) -> Sequence:
    """Open a folder of pictures, a video file or a bag (ROS 1 ``.bag``; ROS 2 folder, ``.mcap``, ``.db3``).

    fps: pictures per second of an input without stamps (a folder; 10) or in place of a video's own (30 where the
    video has none); an input with stamps refuses it. topic: the image topic of a bag, needed where there are several.
    stride: every n-th picture. limit: at most so many pictures.

    Raises SequenceError (a ValueError) or FileNotFoundError saying what is wrong, here or while reading.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if stride < 1 or (limit is not None and limit < 1) or (fps is not None and not 0 < fps < np.inf):
        raise SequenceError(f'stride {stride}, limit {limit} and fps {fps} must be positive')
    if path.suffix in BAG_SUFFIXES or (path.is_dir() and _holds_bag(path)):
        from vggt_ros.bag import BagSequence  # rosbags takes 0.3 s to import

        if fps is not None:
            raise SequenceError(f'{path}: a bag has its own stamps: fps cannot be set')
        return BagSequence(path, topic, stride, limit)
    if topic is not None:
        raise SequenceError(f'{path}: topic {topic} makes sense for a bag only')
    if path.is_dir():
        return FolderSequence(path, fps, stride, limit)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SequenceError(f'{path}: is a single picture; give its folder')
    return VideoSequence(path, fps, stride, limit)


def _holds_bag(folder: Path) -> bool:
    return (folder / 'metadata.yaml').is_file() or any(folder.glob('*.mcap')) or any(folder.glob('*.db3'))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that orders numbers by value: each piece of the name is (number, '') or (-1, text)."""
    return [(int(x), '') if x.isdecimal() else (-1, x) for x in re.split(r'(\d+)', name)]


def _read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SequenceError(f'{path}: cannot be read as a picture (broken or cut off?)')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _read_timestamps(path: Path) -> dict[str, int]:
    """File name -> nanoseconds."""
    stamps: dict[str, int] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith('#'):
            continue
        if len(words) < 2:
            raise SequenceError(f'{path}:{number}: wanted "name seconds", found {line!r}')
        try:
            stamps[words[0]] = parse_stamp(words[1])
        except ValueError as error:
            raise SequenceError(f'{path}:{number}: {error}') from error
    if len(set(stamps.values())) != len(stamps):
        raise SequenceError(f'{path}: two pictures have the same stamp')
    return stamps
