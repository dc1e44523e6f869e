"""A folder of pictures, with what may lie beside them: stamps, intrinsics, poses, depth."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import yaml

from vggt_ros.calibration import Calibration
from vggt_ros.files.sequence import IMAGE_SUFFIXES, ImageSequence, RawImage, SequenceError, SequenceItem
from vggt_ros.files.trajectory import parse_stamp, read_tum

FOLDER_FPS = 10.0


class FolderSequence(ImageSequence):
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
