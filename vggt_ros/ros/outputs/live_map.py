"""What the node shows of its map: the topic ``~/map`` and the service ``~/save_map``."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent import futures
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from vggt_ros.mapping.export import (
    MapExportError,
    NoMapError,
    SavedMap,
    find_folder,
    save_map,
    take_name,
    write_beside,
)
from vggt_ros.mapping.voxel_map import MapConfig
from vggt_ros.ros.compat import point_cloud
from vggt_ros.ros.messages import POINT, ns_to_time, pack_rgb
from vggt_ros.ros.outputs.map_keeper import Edition, MapContents, MapKeeper
from vggt_ros.ros.outputs.publishers import Publishers, wanted
from vggt_ros.ros.problems import Problems
from vggt_ros.ros.steady import steady_timer
from vggt_ros.srv import SaveMap

PATIENCE = 60.0  # seconds until the map's thread must have answered
LOOK = 0.2  # seconds between looks whether there is something to publish


class LiveMap:
    """The map from configure to cleanup; ``add`` and ``add_located`` are the keeper's.

    ~/map is latched and published when the map has changed, at most once in ``period`` seconds (of the wall clock: it
    goes on when a bag has ended), and only while somebody listens. Whoever comes late gets the latched message at once,
    and right after it a new one if the map has changed since. What was latched of an older epoch is replaced even when
    nobody listens. Messages are made in the keeper's thread and published by the executor, which alone expects that
    Ctrl-C takes the context away.

    ~/save_map has a callback group of its own: images and the other services do not wait for the disk.
    """

    def __init__(self, node: Node, problems: Problems, config: MapConfig, map_frame: str, period: float) -> None:
        self._node = node
        self._problems = problems
        self._map_frame = map_frame
        self._period = period
        self._keeper = MapKeeper(config, problems)
        self.add, self.add_located = self._keeper.add, self._keeper.add_located
        self._making: Future[tuple[Edition, PointCloud2]] | None = None
        self._published = Edition(self._keeper.edition.version, None)
        self._due = 0.0
        self._closed = False
        self._publishing, self._saving = threading.Lock(), threading.Lock()
        self._publishers = Publishers(node)
        self._publisher = self._publishers.add(PointCloud2, '~/map', latched=True)
        topic_group, save_group = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._guard = node.create_guard_condition(self._publish, topic_group)
        self._timer = steady_timer(node, min(LOOK, period), self._look, topic_group)
        self._service = node.create_service(SaveMap, '~/save_map', self._on_save, callback_group=save_group)
        self._keeper.start()

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        return self._keeper.nbytes

    def tune(self, period: float, min_confidence: float) -> None:
        """Another period from now on; other keyframes' pixels from the next one on, see MapConfig."""
        with self._publishing:
            self._period = period
            self._due = min(self._due, time.monotonic() + period)
        self._keeper.ask(lambda contents: contents.map.tune(min_confidence))

    @property
    def is_alive(self) -> bool:
        """False when the keeper's thread has died of an error: see the log."""
        return self._keeper.is_alive()

    def save_at_end(self, folder: str, timeout: float) -> str:
        """What has come of saving the map before ``close``, in a sentence: see :func:`save_in_time`."""
        return save_in_time(self._keeper, folder, timeout)

    def close(self) -> None:
        """Forget the map and take topic and service away; a map that is just being written is finished first."""
        self._keeper.stop()
        with self._publishing, self._saving:
            self._closed = True
            self._node.destroy_timer(self._timer)
            self._node.destroy_guard_condition(self._guard)
            self._node.destroy_service(self._service)
            self._publishers.close()

    def _look(self) -> None:
        with self._publishing:
            if self._closed or self._making is not None or time.monotonic() < self._due:
                return
            published, now = self._published, self._keeper.edition
            outdated = published.epoch is not None and published.epoch != now.epoch
            if published.version != now.version and (outdated or wanted(self._publisher)):
                self._making = self._keeper.ask(self._make)
                self._making.add_done_callback(lambda future: self._guard.trigger())

    def _make(self, contents: MapContents) -> tuple[Edition, PointCloud2]:
        """In the keeper's thread."""
        cloud = contents.map.cloud()
        points = np.empty(len(cloud), POINT)
        points['x'], points['y'], points['z'] = cloud.xyz.T
        points['rgb'] = pack_rgb(cloud.rgb)
        points['confidence'] = cloud.confidence
        header = Header(stamp=ns_to_time(contents.stamp), frame_id=self._map_frame)
        return Edition.of(contents.map), point_cloud(header, points, dense=True)

    def _publish(self) -> None:
        with self._publishing:
            if self._closed or self._making is None or not self._making.done():
                return
            made, self._making = self._making, None
            if made.cancelled():
                return
            self._due = time.monotonic() + self._period
            try:
                edition, message = made.result()
            except ValueError as error:
                self._problems.report('map', f'the map cannot be published: {error}')
                return
            self._published = edition
            self._publisher.publish(message)

    def _on_save(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        with self._saving:
            response.success, response.message = save(self._keeper, request.folder)
        if response.success:
            self._node.get_logger().info(f'map saved: {response.message}')
        else:
            self._node.get_logger().warning(f'the map was not saved: {response.message}')
        return response


def save(keeper: MapKeeper, folder: str) -> tuple[bool, str]:
    """Save the map as it is now. Whether that was done, and what was written or what stood in the way.

    folder: see srv/SaveMap.srv. Takes seconds for a map of a million points: call it where nobody waits.
    """
    try:
        return True, save_map(folder or _fresh_folder(), keeper.ask(_gather).result(PATIENCE))
    except futures.CancelledError:
        return False, 'the node is shutting down or cleaning up, the map is gone'
    except futures.TimeoutError:
        return False, f'the map was busy for {PATIENCE:.0f} s: try again'
    except (MapExportError, ValueError) as error:
        return False, str(error)


def save_in_time(keeper: MapKeeper, folder: str, timeout: float) -> str:
    """Save the map into ``folder``, in place of the one from before, at the end of the node; a sentence that tells.

    It waits for the map's thread and the disk, ``timeout`` seconds at most, and for nobody else: ROS may be gone, and
    the network hang. The former folder is whole until the new one is, and stays when time runs out or there is no map.
    """
    making: Future[tuple[Path, Path, str]] = Future()
    # A daemon: when time is over the process ends, whatever the disk does.
    threading.Thread(target=_make, args=(keeper, folder, making), name='vggt_saving', daemon=True).start()
    try:
        target, made, sentence = making.result(timeout)
        take_name(made, target)
    except futures.TimeoutError:
        making.cancel()
        return f'the map was not saved: it was not written within {timeout:g} s; {folder} is as it was'
    except futures.CancelledError:
        return f"the map was not saved: the map's thread has ended, see the log; {folder} is as it was"
    except NoMapError as error:
        return f'no map is saved, {folder} is as it was: {error}'
    except (MapExportError, ValueError) as error:
        return f'the map was not saved: {error}'
    return f'map saved: {sentence}'


def _make(keeper: MapKeeper, folder: str, making: Future) -> None:
    """Target, folder beside it and sentence into the future; it is cancelled when an error ends this thread."""
    made = None
    try:
        try:
            target = find_folder(folder, replace=True)
            made, sentence = write_beside(target, keeper.ask(_gather).result())
            making.set_result((target, made, sentence))
        except (MapExportError, ValueError, futures.CancelledError) as error:
            making.set_exception(error)
    except futures.InvalidStateError:  # too late: nobody waits any more
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    finally:
        making.cancel()


def _gather(contents: MapContents) -> SavedMap:
    cloud, history = contents.map.cloud(), contents.history
    return SavedMap(cloud, history.trajectory(), history.pinholes(), contents.scale, contents.map.epoch or 0)


def _fresh_folder() -> Path:
    """A folder in the current one that does not exist yet, named by date and time."""
    name = f'vggt_map_{datetime.now():%Y-%m-%d_%H-%M-%S}'
    folder, number = Path(name), 1
    while folder.exists():
        number += 1
        folder = Path(f'{name}_{number}')
    return folder
