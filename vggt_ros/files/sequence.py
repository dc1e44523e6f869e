"""What a sequence of images on disk is: folder.py, video.py and bag.py read one each, alike and without ROS.

Each picture comes as the fields of a sensor_msgs Image or CompressedImage, so that a player republishes it unchanged;
``vggt_ros.ros.inputs.images.to_rgb`` decodes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import DamagedError, SequenceError
from vggt_ros.files.trajectory import Trajectory

IMAGE_SUFFIXES = {
    *('.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.tif', '.tiff', '.webp', '.pgm', '.ppm'),
    *('.avif', '.heic', '.heif'),
}
FRAME_ID = 'camera_optical_frame'


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

    def to_rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, a view. Raises ValueError for another encoding."""
        if self.encoding != 'rgb8':
            raise ValueError(f'the image is {self.encoding}, not rgb8')
        return self.data.reshape(self.height, self.width, 3)


@dataclass(frozen=True, eq=False)
class EncodedImage:
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
    image: RawImage | EncodedImage
    frame_id: str = FRAME_ID
    calibration: Calibration | None = None


class ImageSequence(ABC):
    """Pictures in the order of the input; iterating again starts again.

    path: what was opened. kind: what that is, in a word or two. topic: of a bag, else None. trajectory: true camera
    poses, where the input has them. notes: what a user should know about how the input was read. damaged: what could
    not be used, in words, since the newest iteration began, and lost: how many pictures that were; its neighbours are
    used all the same.
    ``len()`` is known for folders and bags and mostly for videos (an estimate of the container); TypeError otherwise.
    """

    kind: str
    topic: str | None = None
    trajectory: Trajectory | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, count: int | None, stride: int, limit: int | None) -> None:
        self.path, self._count, self._stride, self._limit = path, count, stride, limit
        self.damaged: list[str] = []
        self.lost = 0

    def __iter__(self) -> Iterator[SequenceItem]:
        self.damaged, self.lost = [], 0
        stop = None if self._limit is None else (self._limit - 1) * self._stride + 1
        used = 0
        for load in islice(self._loaders(), 0, stop, self._stride):
            try:
                item = load()
            except DamagedError as error:
                self.damaged.append(str(error))
                self.lost += error.count
                continue
            used += 1
            yield item
        if not used and self.damaged:
            raise SequenceError(f'{self.damaged[0]}; no other picture of {self.path} can be used either')
        if not used:
            raise SequenceError(f'{self.path}: there are no pictures in it')

    def __len__(self) -> int:
        if self._count is None:
            raise TypeError(f'the length of {self.path} is not known before it is read')
        selected = -(-self._count // self._stride)
        return selected if self._limit is None else min(selected, self._limit)

    @property
    def length(self) -> int | None:
        """``len()``, None where it is not known before everything is read."""
        return None if self._count is None else len(self)

    @abstractmethod
    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        """One function per picture, in order; only the selected ones are called."""

    def read_depth(self, index: int) -> np.ndarray | None:
        """True z-depth (h, w) float32 in metres of item ``index``, NaN where unknown; None when there is none."""
        return None
