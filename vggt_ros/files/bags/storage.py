"""What every storage of messages offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

Lose = Callable[[str], None]
"""Told, in words, of every part of a storage that cannot be read; what lies around it is read all the same."""


@dataclass(frozen=True)
class Channel:
    """A topic of a storage; several may have one name.

    key: of the storage. topic: with a leading slash. kind: as ROS 2 has it, ``sensor_msgs/msg/Image``. encoding: of its
    messages, ``cdr``, ``ros1`` or what else there is. count: of its messages.
    """

    key: int
    topic: str
    kind: str
    encoding: str
    count: int


@dataclass(frozen=True, eq=False)
class Stored:
    """A message as it lies there. time: of its recording, nanoseconds."""

    channel: Channel
    time: int
    data: bytes


class Storage(ABC):
    """One file of a bag. Opening raises SequenceError. Use as a context: it holds the file open.

    channels: all of them. notes: what a user should know of it.
    """

    path: Path
    channels: list[Channel]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def messages(self, channels: Collection[Channel], lose: Lose) -> Iterator[Stored]:
        """Of these channels, in the order of their recording."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kind_of_ros2(name: str) -> str:
    """``sensor_msgs/Image`` of ROS 1 -> ``sensor_msgs/msg/Image``; a name of ROS 2 stays."""
    package, _, rest = name.partition('/')
    return name if '/' in rest or not rest else f'{package}/msg/{rest}'


def with_slash(topic: str) -> str:
    """A topic as ROS 2 writes it."""
    return '/' + '/'.join(part for part in topic.split('/') if part)
