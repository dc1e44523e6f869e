"""Images as they come: by stamps and calibration they are judged before anybody decodes their pixels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from vggt_ros.calibration import Calibration
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import Incoming
from vggt_ros.ros.inputs.images import ImageError
from vggt_ros.ros.inputs.serialized import header_of
from vggt_ros.ros.inputs.timeline import Timeline, Verdict
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.problems import Problems

INFO_LATE = 1.0  # s after the first image; until then camera_info may be on its way


class Intake:
    """Accepts or refuses images by their stamps, and remembers the latest camera_info.

    calibration: 'auto', 'required' or 'predicted'; timeout: seconds that auto waits for the first camera_info;
    max_time_jump: nanoseconds, see :class:`Timeline`. kind: of the images, as in ``serialized.read``.
    """

    def __init__(self, problems: Problems, calibration: str, timeout: float, max_time_jump: int, kind: str) -> None:
        self._problems = problems
        self._mode = calibration
        self._timeout = timeout
        self._timeline: Timeline[Incoming] = Timeline(max_time_jump)
        self._kind = kind
        self._lock = threading.Lock()
        self._calibration: Calibration | None = None
        self._first_image: float | None = None

    def on_camera_info(self, message: Any) -> None:
        """Remember the calibration; it counts for the images that follow."""
        calibration = Calibration.from_message(message)
        with self._lock:
            self._calibration = calibration

    def begin(self) -> None:
        """Images are of a new activation: what still waited for a verdict is forgotten."""
        self._timeline.interrupt()

    def judge(self, data: bytes, publishers: Callable[[], Sequence[str]]) -> Verdict[Incoming]:
        """A serialized image; what is refused is reported. publishers: names of the nodes that send images."""
        now = time.monotonic()
        try:
            header = header_of(data)
        except ImageError as error:
            self._problems.report('image', f'image refused: {error}')
            return Verdict(refused=1)
        with self._lock:
            calibration = self._calibration
        if self._first_image is None:
            self._first_image = now
        if self._mode == 'predicted':
            calibration = None
        elif calibration is None:
            if self._mode == 'required' or now - self._first_image < self._timeout:
                if now - self._first_image >= INFO_LATE:
                    text = 'images arrive but no camera_info: check its topic, or set calibration'
                    self._problems.report('camera_info missing', text)
                return Verdict(refused=1)
            self._problems.report('uncalibrated', 'no camera_info: going on with predicted intrinsics')
        incoming = Incoming(data, self._kind, calibration, header.stamp, now)
        verdict = self._timeline.judge(incoming, header.stamp, header.frame_id, now)
        return self._told(verdict, publishers)

    def settle(self, publishers: Callable[[], Sequence[str]]) -> Verdict[Incoming]:
        """What has waited in vain for others of its kind. publishers: as for ``judge``."""
        return self._told(self._timeline.settle(time.monotonic()), publishers)

    def _told(self, verdict: Verdict[Incoming], publishers: Callable[[], Sequence[str]]) -> Verdict[Incoming]:
        if verdict.kind:
            text = verdict.text
            if len(names := publishers()) > 1:
                text = f'{text}; {len(names)} nodes publish images: {", ".join(names)}'
            self._problems.report(verdict.kind, text)
        return verdict


class ImageInput:
    """The images' callback, on the executor: judges each and puts it into the camera's mailbox.

    on_restart: called when the stamps say that time began anew, before the map does. on_image: called for every image
    that goes on. publishers: names of the nodes that send images. Pause and reset may be called by the executor's
    other threads.
    """

    def __init__(
        self,
        intake: Intake,
        mailbox: Mailbox[Incoming],
        problems: Problems,
        counters: Counters,
        on_restart: Callable[[], None],
        on_image: Callable[[], None],
        publishers: Callable[[], Sequence[str]],
    ) -> None:
        self._intake, self._mailbox, self._problems, self._counters = intake, mailbox, problems, counters
        self._on_restart, self._on_image, self._publishers = on_restart, on_image, publishers
        self._lock = threading.Lock()
        self._resets = 0
        self._paused = False
        intake.begin()

    def __call__(self, data: bytes) -> None:
        self._counters.received()
        if self.paused:  # an image that was on its way
            self._counters.count('dropped')
            return
        self._follow(self._intake.judge(data, self._publishers))

    def settle(self) -> None:
        """Now and then, where images are received: what waits for a verdict gets it when no more images come."""
        self._follow(self._intake.settle(self._publishers))

    def _follow(self, verdict: Verdict[Incoming]) -> None:
        self._counters.count('refused', verdict.refused)
        if verdict.restarted:
            self._on_restart()
            self.begin_epoch()
        for incoming in verdict.accepted:
            self._on_image()
            with self._lock:
                incoming = replace(incoming, resets=self._resets)
            dropped = self._mailbox.offer(incoming)
            self._counters.count('dropped', dropped)
            if dropped and (room := self._mailbox.room) is not None:
                self._problems.report(
                    'queue full',
                    f'an image came while {room.items} images or {room.memory >> 20} MiB of them waited; dropped:'
                    ' play more slowly, or raise queue_size and queue_memory',
                )

    @property
    def paused(self) -> bool:
        """Whether images are ignored."""
        with self._lock:
            return self._paused

    def begin_epoch(self) -> None:
        """The map begins anew with the next image; what waits is solved before."""
        with self._lock:
            self._resets += 1

    def pause(self, paused: bool) -> None:
        """While paused, images are ignored."""
        with self._lock:
            self._paused = paused
        if paused:
            self._counters.count('dropped', self._mailbox.clear())
