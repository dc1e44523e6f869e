"""Images as they come: by stamps and calibration they are judged before anybody decodes their pixels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vggt_ros.calibration import Calibration
from vggt_ros.ros.counters import Counters
from vggt_ros.ros.inputs.frames import Incoming
from vggt_ros.ros.mailbox import Mailbox
from vggt_ros.ros.messages import time_to_ns
from vggt_ros.ros.problems import Problems


class Intake:
    """Accepts or refuses images by their stamps, and remembers the latest camera_info.

    calibration: 'auto', 'required' or 'predicted'; timeout: seconds that auto waits for the first camera_info;
    max_time_jump: nanoseconds; a stamp further back is a restart.
    """

    def __init__(self, problems: Problems, calibration: str, timeout: float, max_time_jump: int) -> None:
        self._problems = problems
        self._mode = calibration
        self._timeout = timeout
        self._max_time_jump = max_time_jump
        self._lock = threading.Lock()
        self._calibration: Calibration | None = None
        self._first_image: float | None = None
        self._last_stamp: int | None = None
        self.restarted = False

    def on_camera_info(self, message: Any) -> None:
        """Remember the calibration; it counts for the images that follow."""
        calibration = Calibration.from_message(message)
        with self._lock:
            self._calibration = calibration

    def accept(self, message: Any) -> Incoming | None:
        """The image with its calibration, or None with the reason reported.

        ``restarted``: whether its stamp shows that time began anew.
        """
        self.restarted = False
        now = time.monotonic()
        stamp = time_to_ns(message.header.stamp)
        if not self._in_time(stamp):
            return None
        with self._lock:
            calibration = self._calibration
        if self._first_image is None:
            self._first_image = now
        if self._mode == 'predicted':
            calibration = None
        elif calibration is None:
            waiting = now - self._first_image < self._timeout
            if self._mode == 'required' or waiting:
                self._problems.report(
                    'camera_info missing', 'images arrive but no camera_info: check its topic, or set calibration'
                )
                return None
            self._problems.report('uncalibrated', 'no camera_info: going on with predicted intrinsics')
        self._last_stamp = stamp
        return Incoming(message, calibration, stamp, now)

    def _in_time(self, stamp: int) -> bool:
        """Whether the stamp comes after the last accepted one, or so far before it that time began anew."""
        if self._last_stamp is None or stamp > self._last_stamp:
            return True
        if stamp == self._last_stamp:
            hint = ': the camera driver does not stamp its images' if stamp == 0 else ''
            self._problems.report('stamp repeated', f'an image repeats the stamp of the one before{hint}; dropped')
            return False
        back = self._last_stamp - stamp
        if back <= self._max_time_jump:
            self._problems.report(
                'stamp back', f'an image is {back * 1e-9:.3f} s older than the one before it; dropped'
            )
            return False
        self._problems.report('time jump', f'time went back by {back * 1e-9:.1f} s: a restart, the map begins anew')
        self.restarted = True
        return True


class ImageInput:
    """The images' callback, on the executor: judges each and puts it into the camera's mailbox.

    on_restart: called when the stamps say that time began anew, before the map does. on_image: called for every image
    that goes on. Pause and reset may be called by the executor's other threads.
    """

    def __init__(
        self,
        intake: Intake,
        mailbox: Mailbox[Incoming],
        counters: Counters,
        on_restart: Callable[[], None],
        on_image: Callable[[], None],
    ) -> None:
        self._intake, self._mailbox, self._counters = intake, mailbox, counters
        self._on_restart, self._on_image = on_restart, on_image
        self._lock = threading.Lock()
        self._resets = 0
        self._paused = False

    def __call__(self, message: Any) -> None:
        self._counters.received()
        with self._lock:
            paused = self._paused
        if paused:
            self._counters.count('dropped')
            return
        incoming = self._intake.accept(message)
        if incoming is None:
            self._counters.count('refused')
            return
        if self._intake.restarted:
            self._on_restart()
            self.begin_epoch()
        self._on_image()
        with self._lock:
            incoming = replace(incoming, resets=self._resets)
        self._counters.count('dropped', self._mailbox.put(incoming))

    @property
    def paused(self) -> bool:
        """Whether images are ignored."""
        with self._lock:
            return self._paused

    def begin_epoch(self) -> None:
        """The map begins anew with the next image; what waits is forgotten."""
        with self._lock:
            self._resets += 1
        self._drop()

    def pause(self, paused: bool) -> None:
        """While paused, images are ignored."""
        with self._lock:
            self._paused = paused
        if paused:
            self._drop()

    def _drop(self) -> None:
        self._counters.count('dropped', self._mailbox.clear())
