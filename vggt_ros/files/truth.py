"""Pictures of which everything is known: for training, and for figures against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vggt_ros.camera import image_size, pixel_grid, shown_by
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.sequence import ImageSequence, RawImage, SequenceItem
from vggt_ros.lens import CameraInfoError
from vggt_ros.rectify import Rectifier


@dataclass(frozen=True, eq=False)
class KnownPicture:
    """A picture as a pinhole camera sees it. image: (H, W, 3) uint8 RGB. K: (3, 3). depth: (H, W) float32 z-depth in
    metres, NaN unknown. T_world_camera: (4, 4)."""

    item: SequenceItem
    image: np.ndarray
    K: np.ndarray
    depth: np.ndarray
    T_world_camera: np.ndarray


class KnownPictures:
    """The pictures of a sequence that have a true pose and a true depth, rectified; others are left out.

    Iterating raises SequenceError where none has, or the camera is not known. notes: what was left out, after that.
    """

    def __init__(self, sequence: ImageSequence) -> None:
        self._sequence = sequence
        self.notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[KnownPicture]:
        sequence = self._sequence
        if sequence.trajectory is None:
            raise SequenceError(f'{sequence.path}: there are no true poses')
        without, count = [], 0
        for item, image, rectifier in calibrated(sequence):
            T, depth = sequence.trajectory.pose(item.stamp), sequence.read_depth(item.index)
            if T is None or depth is None:
                without.append(item.name)
                continue
            try:
                depth = rectifier.depth(_at_pixels_of(image, depth))
                count += 1
                yield KnownPicture(item, rectifier(image), rectifier.K, depth, T)
            except CameraInfoError as error:
                raise SequenceError(f'{sequence.path}: {item.name}: {error}') from error
        if not count:
            raise SequenceError(f'{sequence.path}: no picture has both a true pose and a true depth')
        self.notes = tuple(f'not used: {text}' for text in sequence.damaged)
        if without:
            self.notes += (f'{len(without)} pictures without pose or depth are left out, {without[0]} is the first',)


def calibrated(sequence: ImageSequence) -> Iterator[tuple[SequenceItem, np.ndarray, Rectifier]]:
    """The pictures (H, W, 3) uint8 RGB as they are, with what rectifies them. Raises SequenceError without a camera."""
    rectifier = None
    for item in sequence:
        if item.calibration is None or not isinstance(item.image, RawImage):
            raise SequenceError(f'{sequence.path}: {item.name}: the camera is not calibrated')
        try:
            if rectifier is None or rectifier.calibration != item.calibration:
                rectifier = Rectifier(item.calibration)
        except CameraInfoError as error:
            raise SequenceError(f'{sequence.path}: {item.name}: {error}') from error
        yield item, item.image.to_rgb(), rectifier


def _at_pixels_of(image: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Depth of the same view with other pixels (some datasets have smaller ones): that of the nearest."""
    if depth.shape == image.shape[:2]:
        return depth
    places = shown_by(image_size(image), depth).to_network(pixel_grid(image_size(image))).round().astype(int)
    columns, rows = (places[..., axis].clip(0, depth.shape[1 - axis] - 1) for axis in (0, 1))
    return depth[rows, columns]
