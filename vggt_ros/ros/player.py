"""The node ``vggt_player``: plays a folder of pictures, a video or a bag as a camera driver would publish it.

    ros2 run vggt_ros vggt_player --ros-args -p path:=FOLDER_VIDEO_OR_BAG -r image:=/camera/image_raw

Publishes ``image`` (or ``image/compressed`` for a bag that holds compressed images) and ``camera_info``, reliably, with
exactly the stamps and frame ids of the input.

Exit status: 0; 2 with one line when there is nothing to play; 3 when all was played but pictures that are damaged; 5
when the node that it follows has not accounted for all images and is no longer at work.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tqdm import tqdm

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.sequence import EncodedImage, SequenceItem
from vggt_ros.msg import Status
from vggt_ros.ros.compat import to_array
from vggt_ros.ros.messages import ns_to_time
from vggt_ros.ros.parameters import Declared, OptionError, declare_options

PARAMETERS = (
    Declared('path', '', 'what to play: a folder of pictures, a video file or a bag (ROS 1 or ROS 2)'),
    Declared('topic', '', 'image topic of a bag; empty: its only one'),
    Declared('fps', 0.0, 'pictures per second of an input without stamps; 0: its own', 'Hz', (0.0, 1000.0)),
    Declared('stride', 1, 'play every n-th picture', '', (1, 1_000_000)),
    Declared('limit', 0, 'most pictures to play, 0 = all', '', (0, 2**31 - 1)),
    Declared('rate', 1.0, 'speed: 1.0 = real time by the stamps, 0.0 = as fast as receivers follow', '', (0.0, 1000.0)),
    Declared('loop', False, 'begin again at the end; the stamps repeat, which is a restart to the vggt node'),
    Declared('clock', False, 'publish the stamps on /clock, for nodes with use_sim_time'),
    Declared('wait_for_subscriber', True, 'begin when somebody has subscribed to the images'),
    Declared('start_delay', 0.0, 'further wait before the first image', 's', (0.0, 3600.0)),
    Declared('follow', '', "topic of the vggt node's status, such as vggt/status: play as it solves; empty: do not"),
    Declared('max_in_flight', 16, 'with follow: most images published and not yet accounted for', '', (1, 1000)),
    Declared('patience', 15.0, 'with follow: wait after the last sign that the node is at work', 's', (0.1, 86400.0)),
    Declared('report_every', 5.0, 'time between reports in the log, where there is no terminal', 's', (0.1, 3600.0)),
)
WAITING_EVERY = 5.0
DAMAGED = 'not played: '  # before what is said of each damaged picture, of so many at most
MOST_TOLD = 20
UNANSWERED = 5  # exit status


class Backlog:
    """How many published images the follower has not yet accounted for (solved, dropped or refused).

    Fed with the follower's totals; what they were before the first image does not count, and a smaller total than the
    one before means that the follower began to count anew.
    """

    def __init__(self) -> None:
        self.published = 0
        self.accounted = 0
        self.longest_gap = 0.0  # seconds without progress that turned out to be mere slowness
        self._total: int | None = None
        self._moved = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether the follower has been heard."""
        return self._total is not None

    @property
    def in_flight(self) -> int:
        """Images out there; other publishers' images may be among those accounted for, so never below 0."""
        return max(0, self.published - self.accounted)

    @property
    def idle(self) -> float:
        """Seconds since the last publication, progress or sign of work."""
        return time.monotonic() - self._moved

    def on_publish(self) -> None:
        """One image more."""
        if self.in_flight == 0:
            self._moved = time.monotonic()
        self.published += 1

    def on_total(self, total: int, at_work: bool = False) -> None:
        """The follower's newest total, and whether it says that it is at work all the same."""
        if self._total is not None and total != self._total:
            self.accounted += total - self._total if total > self._total else total
            self.longest_gap = max(self.longest_gap, self.idle)
            self._moved = time.monotonic()
        elif at_work:
            self._moved = time.monotonic()
        self._total = total


class Player(Node):
    """Raises OptionError, SequenceError or FileNotFoundError when there is nothing to play."""

    def __init__(self, **options: Any) -> None:
        super().__init__('vggt_player', **options)
        self.settings = declare_options(self, PARAMETERS)
        if not self.settings['path']:
            raise OptionError('nothing to play: set the parameter path')
        self.sequence = open_sequence(
            self.settings['path'],
            fps=self.settings['fps'] or None,
            topic=self.settings['topic'] or None,
            stride=self.settings['stride'],
            limit=self.settings['limit'] or None,
        )
        first = next(iter(self.sequence))
        self._compressed = isinstance(first.image, EncodedImage)
        kind, topic = (CompressedImage, 'image/compressed') if self._compressed else (Image, 'image')
        self._image = self._publisher(kind, topic)
        self._info = self._publisher(CameraInfo, 'camera_info')
        self._clock_publisher = self.create_publisher(Clock, '/clock', 10) if self.settings['clock'] else None
        self.backlog = Backlog()
        self.lost = 0  # pictures of the input that could not be played
        if self.settings['follow']:
            latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._follow = self.create_subscription(Status, self.settings['follow'], self._on_status, latched)
        self._calibration: Any = None
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self)

    def _publisher(self, kind: type, topic: str) -> Publisher:
        qos = QoSProfile(depth=self.settings['max_in_flight'])
        overrides = QoSOverridingOptions.with_default_policies()
        return self.create_publisher(kind, topic, qos, qos_overriding_options=overrides)

    def _on_status(self, message: Status) -> None:
        total = message.images_processed + message.images_dropped + message.images_refused
        # It says something new every second while its first window takes its time, and is LOST when a window hangs.
        self.backlog.on_total(total, message.state not in (Status.LOST, Status.INACTIVE))

    def play(self) -> int:
        """Play everything; the number of published images. Raises SequenceError when a picture cannot be read."""
        for note in self.sequence.notes:
            self.get_logger().info(note)
        self._wait_for_receivers()
        length = self.sequence.length
        self.get_logger().info(f'playing {length or "the"} images of {self.sequence.path}')
        with Progress(self, None if self.settings['loop'] else length) as progress:
            while True:
                self._play_once(progress)
                if not self.settings['loop']:
                    break
            if self.settings['follow']:
                self._wait_until_solved(progress)
        return self.backlog.published

    def _play_once(self, progress: Progress) -> None:
        origin = None
        rate = self.settings['rate']
        for item in self.sequence:
            if self.settings['follow']:
                self._spin_until(lambda: self.backlog.in_flight < self.settings['max_in_flight'], progress.update)
            if rate:
                now = time.monotonic()
                due = now if origin is None else origin + item.stamp * 1e-9 / rate
                self._spin_for(due - now, progress.update)
                # Whoever comes late shifts what follows: no burst makes up for it.
                origin = max(now, due) - item.stamp * 1e-9 / rate
            self._publish(item)
            if not rate and not self.settings['follow']:
                self._image.wait_for_all_acked(Duration(seconds=1))
            self._executor.spin_once(timeout_sec=0)
            progress.update()
        for text in self.sequence.damaged[:MOST_TOLD]:
            self.get_logger().warning(f'{DAMAGED}{text}')
        if (more := len(self.sequence.damaged) - MOST_TOLD) > 0:
            self.get_logger().warning(f'{DAMAGED}{more} more')
        self.lost = self.sequence.lost

    def _publish(self, item: SequenceItem) -> None:
        header = Header(stamp=ns_to_time(item.stamp), frame_id=item.frame_id)
        if self._clock_publisher:
            self._clock_publisher.publish(Clock(clock=header.stamp))
        if item.calibration is not None:
            info = CameraInfo(header=header)
            item.calibration.fill(info)
            self._info.publish(info)
            if item.calibration != self._calibration:
                # Two topics have no common order: a new calibration must have arrived before its first image.
                self._calibration = item.calibration
                self._info.wait_for_all_acked(Duration(seconds=1))
                self._spin_for(0.1)
        image = item.image
        if isinstance(image, EncodedImage):
            message = CompressedImage(header=header, format=image.format)
        else:
            message = Image(header=header, height=image.height, width=image.width, encoding=image.encoding)
            message.is_bigendian, message.step = image.is_bigendian, image.step
        message.data = to_array('B', image.data)
        self._image.publish(message)
        self.backlog.on_publish()

    def _wait_for_receivers(self) -> None:
        if self.settings['wait_for_subscriber']:
            say = f'waiting for a subscriber on {self._image.topic_name}'
            self._wait(lambda: self._image.get_subscription_count() > 0, say)
        if self.settings['follow']:
            self._wait(
                lambda: self.backlog.connected, f'waiting for {self._follow.topic_name}: is the vggt node active?'
            )
        self._spin_for(self.settings['start_delay'])

    def _wait_until_solved(self, progress: Progress) -> None:
        """Until every image is accounted for, or the node has not been at work for so long that it will not be."""

        def patience() -> float:
            # A large network on a CPU is silent for minutes in a window: what it took before, it may take again.
            return max(self.settings['patience'], 3 * self.backlog.longest_gap)

        self._spin_until(lambda: self.backlog.in_flight == 0 or self.backlog.idle > patience(), progress.update)
        if self.backlog.in_flight:
            self.get_logger().warning(
                f'{self.backlog.in_flight} of {self.backlog.published} images were never accounted for on '
                f'{self._follow.topic_name}: nothing has moved for {self.backlog.idle:.0f} s'
            )

    def _wait(self, condition: Callable[[], bool], say: str) -> None:
        """Spin until the condition holds; say every few seconds what is waited for."""
        last = time.monotonic() - WAITING_EVERY + 1

        def report() -> None:
            nonlocal last
            if time.monotonic() - last > WAITING_EVERY:
                last = time.monotonic()
                self.get_logger().info(say)

        self._spin_until(condition, report)

    def _spin_for(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        end = time.monotonic() + seconds
        self._spin_until(lambda: time.monotonic() >= end, meanwhile)

    def _spin_until(self, condition: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        while not condition():
            self._executor.spin_once(timeout_sec=0.02)
            meanwhile()


class Progress:
    """A bar on a terminal, else a log line every few seconds. Counts solved images when the player follows."""

    def __init__(self, player: Player, total: int | None) -> None:
        self._player = player
        self._total = total
        self._bar = tqdm(total=total, unit=' images', desc='playing', disable=not sys.stderr.isatty(), smoothing=0.1)
        self._last = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.update()
        self._bar.close()
        self._player.get_logger().info(self._text())

    def _text(self) -> str:
        backlog = self._player.backlog
        text = f'{backlog.published} of {self._total} images played' if self._total else f'{backlog.published} played'
        return f'{text}, {backlog.accounted} accounted for' if self._player.settings['follow'] else text

    def update(self) -> None:
        """Show where things stand."""
        backlog = self._player.backlog
        count = min(backlog.accounted, backlog.published) if self._player.settings['follow'] else backlog.published
        self._bar.update(count - self._bar.n)
        if self._bar.disable and time.monotonic() - self._last > self._player.settings['report_every']:
            self._last = time.monotonic()
            self._player.get_logger().info(self._text())


def main(args: list[str] | None = None) -> int:
    """Play; exit code 2 with one line when the input cannot be read."""
    # rclpy's own handling makes the context invalid in the middle of a publication.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        player = Player()
        player.play()
    except (OptionError, SequenceError, FileNotFoundError) as error:
        print(f'vggt_player: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    finally:
        rclpy.try_shutdown()
    if player.settings['follow'] and player.backlog.in_flight:
        return UNANSWERED
    return 3 if player.lost else 0


if __name__ == '__main__':
    sys.exit(main())
