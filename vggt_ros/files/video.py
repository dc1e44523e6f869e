"""A video file as a sequence of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import cv2

from vggt_ros.files.sequence import BAG_SUFFIXES, ImageSequence, RawImage, SequenceError, SequenceItem

VIDEO_FPS = 30.0


class VideoSequence(ImageSequence):
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
