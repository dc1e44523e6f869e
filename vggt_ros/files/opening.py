"""Whatever a person has recorded, opened: a folder of pictures, a video or a bag."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vggt_ros.files.bags.names import is_bag
from vggt_ros.files.errors import SequenceError
from vggt_ros.files.folder import FolderSequence
from vggt_ros.files.layouts.finding import is_dataset
from vggt_ros.files.sequence import IMAGE_SUFFIXES, ImageSequence


def open_sequence(
    path: Path | str,
    *,
    fps: float | None = None,
    topic: str | None = None,
    stride: int = 1,
    limit: int | None = None,
) -> ImageSequence:
    """Open a folder of pictures, a video file or a bag (ROS 1 ``.bag``; ROS 2 folder, ``.mcap``, ``.db3``).

    fps: pictures per second of an input without stamps (a folder; 10) or in place of a video's own (30 where the
    video has none); an input with stamps refuses it. topic: the image topic of a bag, needed where there are several.
    stride: every n-th picture. limit: at most so many pictures.

    Raises SequenceError (a ValueError) or FileNotFoundError saying what is wrong, here or while reading.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if stride < 1 or (limit is not None and limit < 1) or (fps is not None and not 0 < fps < np.inf):
        raise SequenceError(f'stride {stride}, limit {limit} and fps {fps} must be positive')
    # A dataset with truth may have the same as a bag beside it.
    if is_bag(path) and not (path.is_dir() and is_dataset(path)):
        from vggt_ros.files.bag import BagSequence  # rosbags takes 0.3 s to import

        if fps is not None:
            raise SequenceError(f'{path}: a bag has its own stamps: fps cannot be set')
        return BagSequence(path, topic, stride, limit)
    if topic is not None:
        raise SequenceError(f'{path}: topic {topic} makes sense for a bag only')
    if path.is_dir():
        return FolderSequence(path, fps, stride, limit)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SequenceError(f'{path}: is a single picture; give its folder')
    from vggt_ros.files.video import VideoSequence  # so does PyAV

    return VideoSequence(path, fps, stride, limit)
