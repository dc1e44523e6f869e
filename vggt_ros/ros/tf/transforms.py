"""The camera's pose on /tf, in the frames that ``tf_mode`` chooses (REP-105, see frames.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from rclpy.node import Node

from vggt_ros.camera import invert
from vggt_ros.odometry.scale.sources import Lookup
from vggt_ros.ros.tf.broadcaster import Broadcaster, TransformEdge
from vggt_ros.ros.tf.frames import Frames, Placement, correction
from vggt_ros.ros.tf.heard import Heard
from vggt_ros.types import PosedFrame, Scale

MOST_WAITING = 256  # poses; at 30 Hz more than 8 s of them

Item = TypeVar('Item')
Found = TypeVar('Found')

# What to do where somebody else places the frame.
_CAMERA = 'set tf_mode to odom, map or full with base_frame, or to none, or camera_frame to a name of its own'
_BASE = 'tf_mode map corrects the odometry of others; base_frame must be the root of the robot'
_ODOM = 'only one node may place odom in the map: stop the other, or set tf_mode to odom or none'


class Waiting(Generic[Item]):
    """Poses in order of time that wait for a transform of somebody else, each at most ``wait()`` seconds."""

    def __init__(self, wait: Callable[[], float]) -> None:
        self._wait = wait
        self._queue: deque[tuple[Item, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, item: Item) -> None:
        """One more, the newest."""
        self._queue.append((item, monotonic()))

    def clear(self) -> None:
        """Forget them all."""
        self._queue.clear()

    def take(self, find: Callable[[Item], Found | str]) -> tuple[list[tuple[Item, Found]], str | None]:
        """Those whose transform ``find`` has now, each with it, and why others were given up, None when none was."""
        ready: list[tuple[Item, Found]] = []
        problem = None
        while self._queue:
            item, since = self._queue[0]
            found = find(item)
            if isinstance(found, str):
                waited = monotonic() - since
                if waited < self._wait() and len(self._queue) <= MOST_WAITING:
                    break  # those behind it hardly have theirs, and must not overtake it
                problem = f'no transform at the stamp of an image, waited {waited:.1f} s: {found}'
            else:
                ready.append((item, found))
            self._queue.popleft()
        return ready, problem


class _Hanging(NamedTuple):
    """What is broadcast in place of a frame that hangs in a tree of others: its root. T: (4, 4) T_frame_root."""

    root: str
    T: np.ndarray


class Transforms:
    """Broadcasts what ``tf_mode`` says, and hands out the same poses for ~/odometry.

    node: publishes. settings: its parameters tf_mode, map_frame, odom_frame, base_frame, transform_wait (s).
    heard: what others publish. lookup: needed where ``Frames.looks_up``. publish: gets each pose once, in order of
    time, as soon as it is known.

    All methods are for one thread at a time, the executor's. Every transform carries the stamp of an image, never a
    later one: who wants the newest pose asks for the latest common time, or allows for the age of images (Nav2's
    transform_tolerance). A transform into the future, as AMCL sends, is a guess that the next one contradicts.
    Raises ValueError for frames that do not fit together.
    """

    def __init__(
        self,
        node: Node,
        settings: Mapping[str, Any],
        heard: Heard,
        lookup: Lookup | None,
        publish: Callable[[Placement], None],
    ) -> None:
        self.frames = Frames.from_settings(settings)
        if lookup is None and self.frames.looks_up:
            raise ValueError(f'tf_mode {self.frames.mode} needs transforms of others, and no lookup was given')
        self._lookup = lookup
        self._publish = publish
        self._broadcaster = Broadcaster(node, heard) if self.frames.mode != 'none' else None

        def wait() -> float:
            return settings['transform_wait']

        # The camera and T_map_odom, waiting for base -> camera; the base, waiting for odom -> base of somebody else;
        # the camera and T_map_odom, waiting for what moves between the camera and the root of a tree of others.
        self._unmounted: Waiting[tuple[Placement, np.ndarray]] = Waiting(wait)
        self._uncorrected: Waiting[Placement] = Waiting(wait)
        self._unhung: Waiting[tuple[Placement, np.ndarray]] = Waiting(wait)
        self.reset()

    def close(self) -> None:
        """Stop listening and publishing; what still waits is dropped."""
        if self._broadcaster is not None:
            self._broadcaster.close()

    def reset(self) -> None:
        """Begin anew, with earlier stamps too: a new epoch, or a simulation started again."""
        self._unmounted.clear()
        self._uncorrected.clear()
        self._unhung.clear()
        self._newest = -1
        self._held: np.ndarray | None = None  # T_map_odom, where odom is somebody else's
        if self._broadcaster is not None:
            self._broadcaster.reset()

    def send(self, located: PosedFrame) -> str | None:
        """One image's pose, in order of time; an image that is not newer than the last is ignored.

        What it needs of others may come later: then it is sent by a later call, of ``retry`` too. Returns what could
        not be sent and why, None when all is well.
        """
        problem = self._problem(located)
        if problem:
            return problem
        if located.frame.stamp > self._newest:
            self._newest = located.frame.stamp
            self._unmounted.put((self.frames.of_camera(located), correction(located)))
        return self.retry()

    def hold(self, stamp: int) -> str | None:
        """An image (stamp in ns) has no pose: in mode map the last correction holds, the others' odometry goes on."""
        if self._held is None or self._unmounted or self._uncorrected:
            return None
        return self._broadcast(stamp, [self._map_edge(self._held)])

    def retry(self) -> str | None:
        """Send what could not be sent before; for a timer, where images may pause."""
        mounted, problem = self._unmounted.take(self._mount)
        problems = [problem]
        for (camera, T_map_odom), T_camera_base in mounted:
            child = self.frames.child(camera.child_frame_id)
            placement = camera.of_child(child, T_camera_base)
            self._publish(placement)
            if self.frames.mode == 'map':
                self._uncorrected.put(placement)
            elif child == camera.child_frame_id:
                self._unhung.put((placement, T_map_odom))
            else:
                problems.append(self._place(placement, T_map_odom, _BASE))
        hung, problem = self._unhung.take(self._hang)
        problems.append(problem)
        for (placement, T_map_odom), (root, T_camera_root) in hung:
            problems.append(self._place(placement.of_child(root, T_camera_root), T_map_odom, _CAMERA))
        corrected, problem = self._uncorrected.take(self._odometry)
        problems.append(problem)
        for placement, T_odom_base in corrected:
            self._held = placement.T @ invert(T_odom_base)
            problems.append(self._broadcast(placement.stamp, [self._map_edge(self._held)]))
        return next((problem for problem in problems if problem), None)

    def _problem(self, located: PosedFrame) -> str | None:
        """Why this pose fits no frame of the robot."""
        camera, mode = located.frame.frame_id, self.frames.mode
        if camera in self.frames.worlds:
            return f'the camera has the frame id {camera} of the map or odom: set camera_frame, map_frame or odom_frame'
        if self.frames.looks_up and located.scale is not Scale.METRIC:
            why = 'the transforms of others are in metres'
            return f'tf_mode {mode} waits for a source of metric scale (/diagnostics has how they stand): {why}'
        return None

    def _mount(self, item: tuple[Placement, np.ndarray]) -> np.ndarray | str:
        """T_camera_base at the image's stamp: the camera may sit on a head that turns."""
        camera = item[0]
        base = self.frames.child(camera.child_frame_id)
        if self._lookup is None or base == camera.child_frame_id:
            return np.eye(4)
        return self._lookup(camera.child_frame_id, base, camera.stamp)

    def _odometry(self, base: Placement) -> np.ndarray | str:
        """T_odom_base of somebody else at the image's stamp."""
        assert self._lookup is not None
        return self._lookup(self.frames.odom, base.child_frame_id, base.stamp)

    def _hang(self, item: tuple[Placement, np.ndarray]) -> _Hanging | str:
        """By which frame the camera is to be placed: whoever hangs it in a tree of his own is its only parent."""
        camera, parents = item[0], self._broadcaster.parents if self._broadcaster is not None else None
        if parents is None:
            return _Hanging(camera.child_frame_id, np.eye(4))
        root = parents.root(camera.child_frame_id, self.frames.stands_still)
        T_camera_root = parents.fixed(camera.child_frame_id, root)
        if T_camera_root is not None:
            return _Hanging(root, T_camera_root)
        if parents.conflict(root):
            return _Hanging(root, np.eye(4))  # not to be broadcast
        if self._lookup is None:
            return f'something moves between {root} and {camera.child_frame_id}, and no lookup was given'
        found = self._lookup(camera.child_frame_id, root, camera.stamp)
        return found if isinstance(found, str) else _Hanging(root, found)

    def _place(self, placement: Placement, T_map_odom: np.ndarray, advice: str) -> str | None:
        """Broadcast the frame that this mode is about, base or camera."""
        edges = [TransformEdge(placement.frame_id, placement.child_frame_id, placement.T, advice)]
        if self.frames.mode == 'full':
            edges.insert(0, self._map_edge(T_map_odom))
        return self._broadcast(placement.stamp, edges)

    def _map_edge(self, T_map_odom: np.ndarray) -> TransformEdge:
        return TransformEdge(self.frames.map, self.frames.odom, T_map_odom, _ODOM)

    def _broadcast(self, stamp: int, edges: list[TransformEdge]) -> str | None:
        return self._broadcaster.send(stamp, edges) if self._broadcaster is not None else None
