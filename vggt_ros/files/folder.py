"""A folder of pictures as a sequence, with what its layout tells of stamps, camera, truth and depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vggt_ros.calibration import Calibration
from vggt_ros.files.errors import DamagedError, SequenceError
from vggt_ros.files.layouts.finding import find_layout
from vggt_ros.files.layouts.layout import Layout, once
from vggt_ros.files.pace import note_of_pace
from vggt_ros.files.picture import Sample, Stretch, read_depth_picture, read_picture
from vggt_ros.files.sequence import ImageSequence, RawImage, SequenceItem
from vggt_ros.files.text import is_there
from vggt_ros.files.trajectory import Trajectory
from vggt_ros.lens import CameraInfoError
from vggt_ros.rectify import Rectifier

FOLDER_FPS = 10.0
SAMPLES = 9  # pictures that are looked at before: what size most have, how many bits
DEEP_SAMPLES = 60  # where they have more than 8 bits: one that is bright may be rare
GAP = 250_000_000  # nanoseconds between two true poses within which the camera is taken to move evenly


class FolderSequence(ImageSequence):
    """Pictures of one size, in the order of time, else in natural order of their names (2 before 10).

    What lies beside them, in the layouts of ``files/layouts``, is used: stamps, calibration, true poses and depth.
    Without stamps those of true poses are taken if there is one for each picture, else picture n has the stamp
    (n + 1) / fps: a stamp of 0 would mean "no time" to ROS. Of 16 bits or decimal numbers 8 are
    made, alike for all.
    """

    def __init__(self, path: Path, fps: float | None, stride: int, limit: int | None) -> None:
        self.layout = layout = _one_a_stamp(find_layout(path))
        super().__init__(path, len(layout.pictures), stride, limit)
        self._files = layout.pictures
        self.kind, self.notes = layout.name, layout.notes
        samples = self._samples(SAMPLES)
        if any(sample.dtype != np.uint8 for sample in samples):
            samples = self._samples(DEEP_SAMPLES)
        self._size = Counter(sample.size for sample in samples).most_common(1)[0][0]
        self._stretch = Stretch(samples)
        self._calibration = self._checked(layout.calibration)
        self._stamps = self._choose_stamps(fps)
        self.notes += note_of_pace(self._stamps)
        self.trajectory = self._truth()
        self._depth: Sequence[Path | None] = self._checked_depth()
        if self._calibration is None:
            self.notes += ('no calibration: the camera is uncalibrated',)
        if self._stretch.note:
            self.notes += (self._stretch.note,)

    def _samples(self, count: int) -> list[Sample]:
        """Some of the pictures, evenly spread. Raises SequenceError when none of those can be read."""
        places = sorted({round(x) for x in np.linspace(0, len(self._files) - 1, min(count, len(self._files)))})
        found, problem = [], None
        for place in places:
            try:
                found.append(Sample.of(self._files[place]))
            except DamagedError as error:
                problem = problem or error
        if not found:
            raise SequenceError(str(problem))
        return found

    def _checked(self, calibration: Calibration | None) -> Calibration | None:
        """Of the pictures' size; a layout that does not tell the size means theirs. Raises SequenceError."""
        if calibration is None:
            return None
        if (calibration.width, calibration.height) == (0, 0):
            calibration = replace(calibration, width=self._size[0], height=self._size[1])
        if (calibration.width, calibration.height) != self._size:
            (width, height), file = self._size, self.layout.calibration_file or self.path
            calibrated = f'calibrated at {calibration.width}x{calibration.height}'
            raise SequenceError(f'{file}: {calibrated}, but the pictures have {width}x{height} pixels')
        try:
            Rectifier(calibration)
        except CameraInfoError as error:
            raise SequenceError(f'{self.layout.calibration_file or self.path}: {error}') from error
        return calibration

    def _choose_stamps(self, fps: float | None) -> Sequence[int]:
        layout = self.layout
        if layout.stamps and not (layout.guessed and fps is not None):
            if fps is not None:
                raise SequenceError(f'{self.path}: the pictures have stamps of their own: fps cannot be set')
            # A stamp of 0 means "no time" to ROS.
            return [stamp + 1 for stamp in layout.stamps] if min(layout.stamps) == 0 else layout.stamps
        truth = layout.truth
        if fps is None and truth is not None and len(truth) == len(self._files):
            self.notes += ('no stamps of pictures: taken from the true poses, one for each picture',)
            return sorted(truth.stamps.tolist())
        rate = FOLDER_FPS if fps is None else fps
        self.notes += (f'no stamps: {rate:g} pictures per second',)
        return [round((index + 1) * 1e9 / rate) for index in range(len(self._files))]

    def _truth(self) -> Trajectory | None:
        """True poses at the stamps of the pictures."""
        layout, stamps = self.layout, np.array(self._stamps, np.int64)
        if layout.poses is not None:
            known = _are_poses(layout.poses)
            if not known.all():
                self.notes += (f'{np.sum(~known)} of {len(known)} pictures have no true pose',)
            return Trajectory(stamps[known], layout.poses[known]) if known.any() else None
        if layout.truth is None:
            return None
        proper = _are_poses(layout.truth.T_world_camera)
        if not proper.all():
            self.notes += (f'{np.sum(~proper)} of {len(proper)} true poses are none, and are left out',)
        truth = Trajectory(layout.truth.stamps[proper], layout.truth.T_world_camera[proper])
        found = truth.at(stamps, GAP)
        exact = int(np.isin(found.stamps, truth.stamps).sum())
        if exact < len(stamps):
            self.notes += (
                f'true poses have other stamps than pictures: {len(found)} of {len(stamps)} pictures have one,'
                f' {len(found) - exact} interpolated between poses {GAP / 1e9:g} s apart at most',
            )
        return found if len(found) else None

    def _checked_depth(self) -> Sequence[Path | None]:
        """The depth of the layout, where its pictures are 16 bits of one channel."""
        first = next((x for x in self.layout.depth if x is not None and is_there(x)), None)
        if first is None:
            return ()
        try:
            usable = read_depth_picture(first) is not None
        except DamagedError:
            usable = True
        if not usable:
            self.notes += (f'{first.parent.name}/ is left out: its pictures are no depth (16 bits, one channel)',)
        return self.layout.depth if usable else ()

    def _loaders(self) -> Iterator[Callable[[], SequenceItem]]:
        for index in range(len(self._files)):
            yield partial(self._load, index)

    def _load(self, index: int) -> SequenceItem:
        file = self._files[index]
        rgb = self._stretch(read_picture(file))
        size = rgb.shape[1::-1]
        if size != self._size:
            raise DamagedError(f'{file}: {size[0]}x{size[1]} pixels, most have {self._size[0]}x{self._size[1]}')
        image = RawImage.from_rgb(rgb)
        return SequenceItem(index, file.name, self._stamps[index], image, calibration=self._calibration)

    def read_depth(self, index: int) -> np.ndarray | None:
        path = self._depth[index] if self._depth else None
        if path is None or not is_there(path):
            return None
        try:
            raw = read_depth_picture(path)
        except DamagedError as error:
            self.damaged.append(str(error))
            return None
        if raw is None:
            self.damaged.append(f'{path}: not a 16-bit one-channel picture')
            return None
        known = ~np.isin(raw, self.layout.depth_unknown)
        return np.where(known, raw * np.float32(self.layout.depth_scale), np.float32(np.nan))


def _one_a_stamp(layout: Layout) -> Layout:
    """Without pictures that have the stamp of one before; it is said."""
    kept, more = once(range(len(layout.stamps)), layout.stamps.__getitem__)
    if not more:
        return layout
    return replace(
        layout,
        pictures=[layout.pictures[i] for i in kept],
        stamps=[layout.stamps[i] for i in kept],
        depth=[layout.depth[i] for i in kept] if layout.depth else (),
        poses=None if layout.poses is None else layout.poses[kept],
        notes=(*layout.notes, f'{more} pictures have the stamp of another: left out'),
    )


def _are_poses(T: np.ndarray) -> np.ndarray:
    """(N, 4, 4) -> (N,) whether each is finite and turns without mirroring or stretching."""
    R = np.where(np.isfinite(T[:, :3, :3]), T[:, :3, :3], 0.0)
    with np.errstate(over='ignore', invalid='ignore'):
        turns = np.isclose(R @ R.transpose(0, 2, 1), np.eye(3), atol=1e-2).all((1, 2)) & (np.linalg.det(R) > 0)
    return np.isfinite(T).all((1, 2)) & turns
