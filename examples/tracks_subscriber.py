"""What a back end does with the tracks: the way of every keypoint through the images, by its id.

python examples/tracks_subscriber.py        # beside a running node: ros2 launch vggt_ros vggt.launch.py

An id is the same physical point for as long as it lives, within an epoch; a new epoch is a new map, and ids begin anew.
"""

from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from vggt_ros.msg import TrackArray


class Ways(Node):
    """Prints, for every image, how many tracks it has and the oldest of them."""

    def __init__(self) -> None:
        super().__init__('ways')
        self.epoch = 0
        self.ways: dict[int, list[tuple[float, float]]] = {}  # id -> pixels, image after image
        self.create_subscription(TrackArray, '/vggt/tracks', self.on_tracks, 10)

    def on_tracks(self, message: TrackArray) -> None:
        if message.epoch != self.epoch:
            self.epoch, self.ways = message.epoch, {}
        for track, u, v in zip(message.id, message.u, message.v, strict=True):
            self.ways.setdefault(track, []).append((u, v))
        self.ways = {track: self.ways[track] for track in message.id}  # what ended has ended
        stamp = message.header.stamp
        text = f'{stamp.sec}.{stamp.nanosec:09d}: {len(message.id)} tracks'
        if self.ways:
            oldest = max(self.ways, key=lambda track: len(self.ways[track]))
            (u, v), (u0, v0) = self.ways[oldest][-1], self.ways[oldest][0]
            text += f', {oldest} since {len(self.ways[oldest])} images, from ({u0:.1f}, {v0:.1f}) to ({u:.1f}, {v:.1f})'
        print(text, flush=True)


if __name__ == '__main__':
    rclpy.init()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Ways())
