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
from vggt_ros.files.trajectory import Trajectory

IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.pgm', '.ppm'}
BAG_SUFFIXES = {'.bag', '.mcap', '.db3'}
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
