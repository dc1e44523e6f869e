"""The node ``vggt_recorder``: writes what the VGGT node publishes into a folder, see :mod:`vggt_ros.files.recording`.

    ros2 run vggt_ros vggt_recorder --ros-args -p output:=FOLDER -p namespace:=vggt

It ends on SIGINT or SIGTERM, when all that has arrived is written. Exit code 3: the output cannot be written.
``~/status`` passes on the VGGT node's status when the recorder is connected to every output and has written every image
that the status counts as solved: a player that follows it does not begin before both are ready, plays no faster than
both together, and ends when all is written.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from ament_index_python import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from vggt_ros.files.recording import OutputError, RecordedFrame, RecordingWriter, fresh_folder
from vggt_ros.msg import Status, TrackArray
from vggt_ros.ros.messages import POINT, time_to_ns
from vggt_ros.ros.parameters import Declared, OptionError, declare_options
from vggt_ros.types import Scale, State

PARAMETERS = (
    Declared(
        'output', 'recording', 'folder to write; when it holds a recording, the new one goes to run_2, run_3, ...'
    ),
    Declared('namespace', 'vggt', 'name of the VGGT node, the namespace of its outputs'),
    Declared('voxel', 0.0, 'edge of a voxel of cloud.ply in map units, 0 = 1 % of the median depth', '', (0.0, 1000.0)),
    Declared('queue_size', 200, 'messages of a topic that may wait while the disk is slow', '', (1, 10000)),
)
OUTPUTS = {
    'odometry': Odometry,
    'pose': PoseWithCovarianceStamped,
    'path': PathMessage,
    'depth/image_rect': Image,
    'depth/camera_info': CameraInfo,
    'depth/confidence': Image,
    'points': PointCloud2,
    'tracks': TrackArray,
    'status': Status,
}
# These four belong together by their stamp. Tracks come for every image, also for those that are never solved.
JOINED = ('odometry', 'depth/image_rect', 'depth/confidence', 'points')
QUIET = 0.5  # seconds without a message after which nothing more is on its way
DIAGNOSTICS_EVERY = 1.5  # seconds within which a live node reports once more
STRAGGLER = 4.0  # seconds without any output after which what is missing will not come: DDS notices a loss after 3
MOST_WAITING = 50  # images of which something is missing
MOST_REMEMBERED = 1000  # images of which the epoch is known


class Recorder(Node):
    """Raises OptionError for bad parameters, OutputError when the folder cannot be made or written."""

    def __init__(self, **options: Any) -> None:
        super().__init__('vggt_recorder', **options)
        settings = declare_options(self, PARAMETERS)
        asked = Path(settings['output'])
        folder = fresh_folder(asked)
        if folder != asked:
            self.get_logger().info(f'{asked} holds a recording already: writing to {folder}')
        self.recording = RecordingWriter(
            folder,
            {f'vggt_ros/msg/{kind.__name__}': _definition(kind) for kind in (Status, TrackArray)},
            voxel=settings['voxel'],
        )
        self.failure: OutputError | None = None
        self.last_arrival = time.monotonic()
        self.diagnosed = 0.0  # when the node last told on /diagnostics what it runs and has done
        self.deadline: int | None = None  # nanoseconds; what comes later is not recorded
        self._joined: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._begun: dict[int, int] = {}  # how many images had begun to arrive when this one did
        self._newest = dict.fromkeys(JOINED, 0)  # the same of the newest image on each topic
        self._images = 0
        self._progress = time.monotonic()  # when the last of the joined outputs came
        self._tracks: OrderedDict[int, tuple[int, int]] = OrderedDict()  # epoch and scale by stamp
        self._incomplete = 0
        self._arrivals: dict[str, list[int]] = {}
        self._statuses: deque[tuple[float, Status]] = deque()
        self._solved_before: int | None = None
        self._states: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._latest: Status | None = None
        self._relay = self.create_publisher(Status, '~/status', _qos(1, latched=True))
        self._connected = False
        prefix = settings['namespace'].rstrip('/')
        for name, kind in OUTPUTS.items():
            self._record(f'{prefix}/{name}', kind, settings['queue_size'], name)
        self._record('/tf', TFMessage, settings['queue_size'])
        self._record('/diagnostics', DiagnosticArray, settings['queue_size'])
        self._output_topics = [self.resolve_topic_name(f'{prefix}/{name}') for name in OUTPUTS]
        self._node_name = self.resolve_topic_name(prefix).lstrip('/')
        self.create_timer(0.05, self._on_timer)
        self.get_logger().info(f'recording {self.resolve_topic_name(prefix)} to {folder}')

    def _record(self, topic: str, kind: type, depth: int, name: str = '') -> None:
        topic = self.resolve_topic_name(topic)
        type_name = kind.__module__.partition('.')[0] + '/msg/' + kind.__name__
        latched = kind is Status

        def receive(data: bytes, info: dict[str, int]) -> None:
            # Not every middleware knows when a message came.
            arrived = info['received_timestamp'] or time.time_ns()
            if self.deadline is not None and arrived > self.deadline:
                return
            self.last_arrival = time.monotonic()
            self._guarded(self.recording.write_message, topic, type_name, arrived, data, latched=latched)
            first_and_last = self._arrivals.setdefault(topic, [arrived, arrived])
            first_and_last[1] = arrived
            if name == 'tracks':
                self._remember(deserialize_message(data, kind))
            elif name in JOINED:
                self._join(name, deserialize_message(data, kind))
            elif kind is Status:
                self._on_status(deserialize_message(data, kind))
            elif kind is DiagnosticArray:
                self._on_diagnostics(deserialize_message(data, kind))

        # Humble's rclpy does not tell callbacks when a message came.
        has_info = hasattr(Subscription, 'CallbackType')
        callback: Any = receive if has_info else lambda data: receive(data, {'received_timestamp': 0})
        overrides = QoSOverridingOptions.with_default_policies()
        self.create_subscription(
            kind, topic, callback, _qos(depth, latched), raw=True, qos_overriding_options=overrides
        )

    def _guarded(self, write: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """After the first failure nothing more is written: better a recording that ends early than one with holes."""
        if self.failure is None:
            try:
                write(*arguments, **options)
            except OutputError as error:
                self.failure = error

    def _join(self, name: str, message: Any) -> None:
        stamp = time_to_ns(message.header.stamp)
        self._progress = time.monotonic()
        if stamp not in self._joined:
            self._joined[stamp] = {}
            self._images += 1
            self._begun[stamp] = self._images
        self._joined[stamp][name] = message
        self._newest[name] = max(self._newest[name], self._begun[stamp])
        for waiting in [one for one in self._joined if self._is_done(one)]:  # in the order in which they began
            self._write_joined(waiting)
        if len(self._joined) > MOST_WAITING:
            self._write_joined(next(iter(self._joined)))

    def _is_done(self, stamp: int) -> bool:
        """Whether all of an image is here, or later ones have come on every topic that lacks it: they keep order."""
        parts, begun = self._joined[stamp], self._begun[stamp]
        return all(self._newest[name] > begun for name in JOINED if name not in parts)

    def _remember(self, tracks: TrackArray) -> None:
        self._tracks[time_to_ns(tracks.header.stamp)] = tracks.epoch, tracks.scale
        while len(self._tracks) > MOST_REMEMBERED:
            self._tracks.popitem(last=False)

    def _write_joined(self, stamp: int) -> None:
        parts = self._joined.pop(stamp)
        del self._begun[stamp]
        self._incomplete += len(parts) < len(JOINED)
        status = self._latest
        now = (0, Scale.UNKNOWN) if status is None else (status.epoch, status.scale)
        epoch, scale = self._tracks.get(stamp, now)  # that of the image, not of now
        frame = RecordedFrame(
            stamp,
            epoch=epoch,
            scale=Scale(scale),
            pose=_to_matrix(parts['odometry'].pose.pose) if 'odometry' in parts else None,
            depth=_to_array(parts.get('depth/image_rect')),
            confidence=_to_array(parts.get('depth/confidence')),
        )
        if (cloud := parts.get('points')) is not None:
            frame = _with_points(frame, cloud)
        self._guarded(self.recording.write_frame, frame)

    def _on_status(self, message: Status) -> None:
        # The newest that is about images: that no more come, and that the node ends, is the end of every recording.
        if self._latest is None or (_counted(message) != _counted(self._latest) and message.state != Status.INACTIVE):
            self._latest = message
        self._states[State(message.state).name] += 1
        if self._solved_before is None:
            self._solved_before = message.images_processed
        self._statuses.append((time.monotonic(), message))

    def _on_timer(self) -> None:
        """Give up on what is missing when nothing comes any more, and pass on what is written."""
        now = time.monotonic()
        if now - self._progress > STRAGGLER:
            for stamp in list(self._joined):
                self._write_joined(stamp)
        if not self._connected:
            self._connected = all(self.count_publishers(topic) for topic in self._output_topics)
        while self._connected and self._statuses:
            since, message = self._statuses[0]
            missing = message.images_processed - (self._solved_before or 0) - self.recording.frames
            if missing > 0 and now - max(since, self._progress) <= STRAGGLER:
                break
            self._relay.publish(message)
            self._statuses.popleft()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.hardware_id.lstrip('/') == self._node_name:
                self._details |= {entry.key: entry.value for entry in status.values}
                self.diagnosed = time.monotonic()

    def finish(self) -> None:
        """Write what still waits and end all files. Raises OutputError."""
        while self._joined:
            self._write_joined(next(iter(self._joined)))
        if self.failure is not None:
            self.recording.abandon()
            raise self.failure
        self.recording.close(self._summary())
        self.get_logger().info(f'{self.recording.frames} frames in {self.recording.folder}')

    def _summary(self) -> dict[str, Any]:
        latest = self._latest
        times = [time for topic in self._output_topics for time in self._arrivals.get(topic, ())]
        odometry = self._arrivals.get(self._output_topics[0], [0, 0])
        seconds = (odometry[1] - odometry[0]) * 1e-9
        summary: dict[str, Any] = {
            'frames': self.recording.frames,
            'frames_incomplete': self._incomplete,
            'frames_per_second': round((self.recording.frames - 1) / seconds, 3) if seconds else None,
            'seconds': round((max(times) - min(times)) * 1e-9, 3) if times else 0.0,
            'states_seen': dict(self._states),
            'messages': dict(self.recording.bag.counts),
            'node': self._details,
        }
        if latest is not None:
            summary |= {
                'state': State(latest.state).name,
                'scale': Scale(latest.scale).name,
                'message': latest.message,
                'epoch': latest.epoch,
                'images_received': latest.images_received,
                'images_processed': latest.images_processed,
                'images_dropped': latest.images_dropped,
                'images_refused': latest.images_refused,
                'windows_per_second': round(latest.rate, 3),
            }
        return summary


def _counted(status: Status) -> tuple[int, ...]:
    return status.images_received, status.images_processed, status.images_dropped, status.images_refused


def _qos(depth: int, latched: bool = False) -> QoSProfile:
    qos = QoSProfile(depth=depth)
    if latched:
        qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return qos


def _definition(kind: type) -> str:
    return (Path(get_package_share_directory('vggt_ros')) / 'msg' / f'{kind.__name__}.msg').read_text()


def _to_matrix(pose: Any) -> np.ndarray:
    T = np.eye(4)
    T[:3, 3] = pose.position.x, pose.position.y, pose.position.z
    q = pose.orientation
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    return T


def _to_array(image: Image | None) -> np.ndarray | None:
    """The node's own 32FC1 images: rows are not padded."""
    return None if image is None else np.frombuffer(image.data, np.float32).reshape(image.height, image.width)


def _with_points(frame: RecordedFrame, cloud: PointCloud2) -> RecordedFrame:
    points = np.frombuffer(cloud.data, POINT).reshape(cloud.height, cloud.width)
    colour = np.ascontiguousarray(points['rgb']).view(np.uint32)
    rgb = np.stack([colour >> 16 & 255, colour >> 8 & 255, colour & 255], -1).astype(np.uint8)
    xyz = np.stack([points[axis] for axis in 'xyz'], -1)
    return RecordedFrame(
        frame.stamp, frame.epoch, frame.scale, frame.pose, frame.depth, frame.confidence, xyz=xyz, rgb=rgb
    )


def main(args: list[str] | None = None) -> int:
    """Record until a signal comes. Exit codes: 2 bad parameters, 4 the output cannot be written."""
    # The default handling invalidates the context at once, and what has arrived could not be read any more.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stopping = False

    def stop(*_: Any) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        recorder = Recorder()
        executor = SingleThreadedExecutor()
        executor.add_node(recorder)
        while not stopping and recorder.failure is None:
            executor.spin_once(timeout_sec=0.1)
        _drain(recorder, executor)
        recorder.finish()
    except OptionError as error:
        print(f'vggt_recorder: {error}', file=sys.stderr)
        return 2
    except OutputError as error:
        print(f'vggt_recorder: {error}', file=sys.stderr)
        return 4
    finally:
        rclpy.try_shutdown()
    return 0


def _drain(recorder: Recorder, executor: SingleThreadedExecutor) -> None:
    """Take in what is on its way: what comes in the next half second, and whatever waits already."""
    asked = time.monotonic()
    while recorder.failure is None and recorder.diagnosed < asked > time.monotonic() - DIAGNOSTICS_EVERY:
        executor.spin_once(timeout_sec=0.1)
    recorder.deadline = time.time_ns() + int(QUIET * 1e9)
    recorder.last_arrival = time.monotonic()
    while recorder.failure is None and time.monotonic() - recorder.last_arrival < QUIET:
        executor.spin_once(timeout_sec=0.1)


if __name__ == '__main__':
    sys.exit(main())
