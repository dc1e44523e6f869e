"""What a back end does with the tracks: the way of every keypoint through the images, by its id.

python examples/tracks_subscriber.py        # beside a running node: ros2 launch vggt_ros vggt.launch.py

An id is the same physical point for as long as it lives, within an epoch. It may be absent for some images and come
back; a new epoch is a new map, and its ids have nothing to do with the old ones.
"""

from collections import defaultdict, deque
from contextlib import suppress
from functools import partial

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from vggt_ros.msg import TrackArray

LONGEST = 1000  # images of a way that are kept
ABSENT = 10_000_000_000  # ns after which a track that is not seen is forgotten


class Ways(Node):
    """Prints, for every image, how many tracks it has, and the longest way among them."""

    def __init__(self) -> None:
        super().__init__('ways')
        self.epoch = 0
        # id -> (stamp in ns, u, v), image after image
        self.ways: dict[int, deque[tuple[int, float, float]]] = defaultdict(partial(deque, maxlen=LONGEST))
        self.create_subscription(TrackArray, '/vggt/tracks', self.on_tracks, 10)

    def on_tracks(self, message: TrackArray) -> None:
        if message.epoch != self.epoch:
            self.epoch = message.epoch
            self.ways.clear()
        now = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        for track, u, v in zip(message.id, message.u, message.v, strict=True):
            self.ways[track].append((now, u, v))
        for track in [track for track, way in self.ways.items() if now - way[-1][0] > ABSENT]:
            del self.ways[track]
        text = f'{now}: {len(message.id)} tracks'
        if message.id:
            longest = max(message.id, key=lambda track: len(self.ways[track]))
            (_, u0, v0), (_, u, v) = self.ways[longest][0], self.ways[longest][-1]
            text += f'; {longest} in {len(self.ways[longest])} images, from ({u0:.1f}, {v0:.1f}) to ({u:.1f}, {v:.1f})'
        print(text, flush=True)


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Ways())
