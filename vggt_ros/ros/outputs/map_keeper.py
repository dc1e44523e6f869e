"""The thread that owns the map: what the odometry found goes in, and nobody who gives or asks waits for the others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from vggt_ros.mapping.history import History
from vggt_ros.mapping.voxel_map import MapConfig, VoxelMap
from vggt_ros.pipeline import WindowResult
from vggt_ros.ros.problems import Problems
from vggt_ros.similarity import Similarity, for_all
from vggt_ros.types import Estimate, PosedFrame, Scale, State

WAITING = 32  # keyframes that may wait; each holds an image and a depth image
POSES = 20_000  # poses that may wait, a kilobyte each: ten minutes of a camera at 30 Hz

T = TypeVar('T')


@dataclass(eq=False)
class MapContents:
    """What is known of one epoch. stamp: nanoseconds, of the newest keyframe. scale: of everything in it."""

    map: VoxelMap
    history: History = field(default_factory=History)
    stamp: int = 0
    scale: Scale = Scale.UNKNOWN


@dataclass(frozen=True)
class Edition:
    """Which map this is. version: changes with it. epoch: that it belongs to, None before the first."""

    version: int
    epoch: int | None

    @classmethod
    def of(cls, voxel_map: VoxelMap) -> Edition:
        """Of the map as it is now."""
        return cls(voxel_map.version, voxel_map.epoch)


@dataclass(eq=False)
class _Update:
    """poses: (index, stamp, T_map_camera) without the images, so that they cost nothing to keep.

    scale: of the map from now on, None as it was. unit: of the poses, None as the map has it: those of before the map
    became metric may come after it did.
    """

    epoch: int
    poses: list[tuple[int, int, np.ndarray]]
    scale: Scale | None = None
    unit: Scale | None = None
    keyframes: Sequence[Estimate] = ()
    corrections: Mapping[int, Similarity] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Question:
    function: Callable[[MapContents], Any]
    future: Future


class MapKeeper(threading.Thread):
    """Runs until ``stop``. Knows no node: what is asked of it is computed here and used elsewhere.

    When more keyframes come than the map can take in, the oldest that wait stay out of it, and it is said. Corrections
    are never left out, and poses of images between them only when POSES wait: every second one of them then goes. An
    unusable keyframe is reported and passed over. So what waits is bounded, as are the map and the history of poses.
    """

    def __init__(self, config: MapConfig, problems: Problems) -> None:
        super().__init__(name='vggt_map', daemon=True)
        self._contents = MapContents(VoxelMap(config))
        self._edition, self._nbytes = Edition.of(self._contents.map), 0
        self._problems = problems
        self._changed = threading.Condition()
        self._waiting: deque[_Update | _Question] = deque()
        self._stopping = False

    @property
    def edition(self) -> Edition:
        """The map as it was after the newest update that it has taken in."""
        with self._changed:
            return self._edition

    @property
    def nbytes(self) -> int:
        """What map and history held in memory after the newest keyframe."""
        return self._nbytes

    def add(self, result: WindowResult) -> None:
        """What a window gave, in order; never waits.

        Its corrections name every keyframe that the odometry still has; those that it has forgotten follow their
        neighbours.
        """
        poses = [_pose(one) for one in result.estimates]
        update = _Update(result.epoch, poses, result.scale, keyframes=result.keyframes, corrections=result.corrections)
        self._put(update)

    def add_located(self, located: PosedFrame) -> None:
        """The pose of an image that the network has not looked at (yet), unless it is LOST; never waits."""
        if located.state is not State.LOST:
            self._put(_Update(located.epoch, [_pose(located)], unit=located.scale))

    def ask(self, function: Callable[[MapContents], T]) -> Future[T]:
        """Call ``function`` in this thread, once all that was added before is in the map; it must keep no part of it.

        Its ValueError becomes the future's. The future is cancelled when the thread ends before.
        """
        question = _Question(function, Future())
        if not self._put(question):
            question.future.cancel()
        return question.future

    def stop(self) -> None:
        """End the thread and wait for it; what still waits is not taken in."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self.join()

    def run(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, _Update):
                    self._take(item)
                    with self._changed:
                        self._edition = Edition.of(self._contents.map)
                else:
                    self._answer(item)
                if notice := self._contents.map.notice():
                    self._problems.report('map budget', notice)
        finally:
            with self._changed:
                self._stopping = True
            for item in self._waiting:
                if isinstance(item, _Question):
                    item.future.cancel()

    def _put(self, item: _Update | _Question) -> bool:
        """Whether there is still somebody to take it."""
        with self._changed:
            if self._stopping:
                return False
            self._waiting.append(item)
            left_out = self._leave_out()
            if len(self._waiting) > POSES:
                self._thin_poses()
            self._changed.notify()
        if left_out:
            self._problems.report('map', f'the map cannot keep up: {left_out} keyframes stay out of it')
        return True

    def _leave_out(self) -> int:
        """Drop keyframes, the oldest first, until no more than WAITING wait beside those that just came."""
        updates = [item for item in list(self._waiting)[:-1] if isinstance(item, _Update)]
        too_many = sum(len(update.keyframes) for update in updates) - WAITING
        left_out = 0
        for update in updates:
            if left_out >= too_many:
                break
            number = min(too_many - left_out, len(update.keyframes))
            update.keyframes = update.keyframes[number:]
            left_out += number
        return left_out

    def _thin_poses(self) -> None:
        """Drop every second of what waits and holds nothing but the pose of an image."""
        located = [item for item in self._waiting if isinstance(item, _Update) and item.unit is not None]
        gone = {id(item) for item in located[::2]}
        self._waiting = deque(item for item in self._waiting if id(item) not in gone)

    def _next(self) -> _Update | _Question | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            return None if self._stopping else self._waiting.popleft()

    def _take(self, update: _Update) -> None:
        contents = self._contents
        if update.epoch != contents.map.epoch:
            if contents.map.epoch is not None and update.epoch < contents.map.epoch:
                return  # an image that was still being located when the new epoch began
            contents.map.begin(update.epoch)
            contents.history.clear()
        if update.scale is not None:
            contents.scale = update.scale
        try:
            contents.map.correct(for_all(update.corrections, [submap.index for submap in contents.map.submaps]))
        except ValueError as error:
            self._problems.report('map', f'the map is not corrected: {error}')
        else:
            contents.history.correct(for_all(update.corrections, contents.history.keyframes()))
        for keyframe in update.keyframes:
            try:
                contents.map.add(keyframe)
            except ValueError as error:
                self._problems.report('map', f'a keyframe stays out of the map: {error}')
                continue
            contents.history.add_keyframe(keyframe)
            contents.stamp = keyframe.frame.stamp
        if update.keyframes:
            self._nbytes = contents.map.nbytes + contents.history.nbytes
        if update.unit not in (None, contents.scale):
            return
        for index, stamp, T_map_camera in update.poses:
            contents.history.add_pose(index, stamp, T_map_camera)

    def _answer(self, question: _Question) -> None:
        if not question.future.set_running_or_notify_cancel():
            return
        try:
            answer = question.function(self._contents)
        except ValueError as error:
            question.future.set_exception(error)
        else:
            question.future.set_result(answer)


def _pose(located: PosedFrame) -> tuple[int, int, np.ndarray]:
    return located.frame.index, located.frame.stamp, located.T_map_camera
