"""Nothing of a thread is read from another one: what crosses are mailboxes, snapshots and frozen results."""

import threading
import time
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros()
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, PointCloud2
from vggt_ros.msg import Status, TrackArray

from exact import ExactPredictor
from harness import Rig, info_message, ns_to_time, poses, stamp_of, wait_until
from vggt_ros.evaluation.scenarios import room_loop
from vggt_ros.mapping.history import History
from vggt_ros.mapping.voxel_map import VoxelMap
from vggt_ros.odometry.front.frontend import FrontEnd
from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.keyframe_map import KeyframeMap
from vggt_ros.odometry.loops.closing import Loops
from vggt_ros.odometry.loops.recognition import Recognition
from vggt_ros.odometry.odometry import Odometry
from vggt_ros.odometry.scale.filter import ScaleFilter
from vggt_ros.odometry.windows.focal import FocalCheck, OneLens
from vggt_ros.odometry.world import World
from vggt_ros.pipeline import Pipeline
from vggt_ros.ros.inputs.frames import FrameMaker
from vggt_ros.ros.messages import fill_image
from vggt_ros.ros.outputs.publication import Publication
from vggt_ros.tracks.tracker import KeypointTracker

# Who alone may touch the data of these while the node is active.
OWNED = {
    'vggt_network': (World, Odometry, KeyframeMap, Keyframe, ScaleFilter, Recognition, Loops, FocalCheck, OneLens),
    'vggt_camera': (FrameMaker,),
    'vggt_map': (VoxelMap, History),
}
# Parts of the pipeline that both threads use: they lock themselves.
SHARED = {'front', 'tracker', 'predictor', 'sensors'}


class Touched:
    """Which threads read or write which data of some classes, while ``recording``."""

    def __init__(self, monkeypatch):
        self.recording = False
        self.threads = defaultdict(set)  # (class, attribute) -> names of threads
        self.unlocked = set()  # (class, attribute) of those with a lock that was not held
        self._patch = monkeypatch.setattr
        for kinds in OWNED.values():
            for kind in kinds:
                self.watch(kind)

    def watch(self, kind, locked=False):
        def touch(one, name):
            if self.recording and name in object.__getattribute__(one, '__dict__'):
                self.threads[kind, name].add(threading.current_thread().name)
                if locked and name.startswith('_') and name != '_lock':
                    lock = object.__getattribute__(one, '__dict__').get('_lock')
                    if lock is not None and not lock.locked():
                        self.unlocked.add((kind, name))

        def read(one, name):
            touch(one, name)
            return object.__getattribute__(one, name)

        def write(one, name, value):
            touch(one, name)
            object.__setattr__(one, name, value)

        self._patch(kind, '__getattribute__', read)
        self._patch(kind, '__setattr__', write)


class Slow(ExactPredictor):
    """Takes the time of two images, so that both threads are at work."""

    def predict(self, frames, depth=None, queries=None):
        time.sleep(0.05)
        return super().predict(frames, depth, queries)


def play(rig, scenario, first, last):
    for frame in scenario.frames[first:last]:
        message = Image()
        fill_image(message, frame.image, 'rgb8')
        message.header.stamp, message.header.frame_id = ns_to_time(stamp_of(frame.index)), 'eye'
        rig.send(message)
        time.sleep(0.03)


def test_every_thread_touches_its_own_data_alone(monkeypatch, tmp_path):
    from vggt_ros.srv import SaveMap

    touched = Touched(monkeypatch)
    for kind in (FrontEnd, KeypointTracker):
        touched.watch(kind, locked=True)
    touched.watch(Pipeline)
    touched.watch(Publication)
    touched.watch(Slow)
    scenario = room_loop(240, pictures=True, stop=60)
    truth = {stamp_of(frame.index): T for frame, T in zip(scenario.frames, scenario.T_world_camera, strict=True)}
    predictor = Slow(truth, longest=224, K=scenario.frames[0].K)
    with Rig(predictor, mode='live', refine=True, map_period=0.1) as rig:
        rig.listen(TrackArray, '/vggt/tracks')
        clouds = rig.listen(PointCloud2, '/vggt/map', latched=True)
        status = rig.listen(Status, '/vggt/status', latched=True)
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        rig.connected()
        rig.info.publish(info_message(0, scenario.frames[0].K, (224, 168)))
        time.sleep(0.2)
        touched.recording = True
        play(rig, scenario, 0, 25)
        assert rig.call('pause').success
        assert rig.call('resume').success
        client = rig.client.create_client(SaveMap, '/vggt/save_map')
        future = client.call_async(SaveMap.Request(folder=str(tmp_path / 'map')))
        play(rig, scenario, 25, 45)
        assert rig.call('reset').success
        play(rig, scenario, 45, 60)
        assert wait_until(lambda: status and status[-1].epoch == 1 and diagnostics and clouds)
        assert wait_until(future.done)
        assert rig.settled()
        touched.recording = False
    for owner, kinds in OWNED.items():
        found = {(kind.__name__, name): names for (kind, name), names in touched.threads.items() if kind in kinds}
        assert {kind for kind, _ in found} >= {kind.__name__ for kind in kinds if kind not in (FocalCheck, OneLens)}
        assert {key: names for key, names in found.items() if names != {owner}} == {}
    pipeline = {name: names for (kind, name), names in touched.threads.items() if kind is Pipeline}
    assert {'front', 'world', '_waiting'} <= set(pipeline)
    assert {name: names for name, names in pipeline.items() if name not in SHARED and names != {'vggt_network'}} == {}
    assert pipeline['front'] == pipeline['tracker'] == {'vggt_camera', 'vggt_network'}
    predicted = {name: names for (kind, name), names in touched.threads.items() if kind is Slow}
    assert predicted['windows'] == {'vggt_network'}
    assert touched.unlocked == set()
    # What is published is told by results alone: no thread of ours looks into the publication.
    published = set().union(*(names for (kind, _), names in touched.threads.items() if kind is Publication))
    assert published
    assert not published & {'vggt_camera', 'vggt_network', 'vggt_map'}


def test_reports_at_20_hz_while_the_cache_of_9000_frames_changes():
    """What ended the node after five minutes: the executor walked through the cache that a window was changing."""
    describers = set()

    class Caching(ExactPredictor):
        def __init__(self, poses):
            super().__init__(poses)
            self.cache = OrderedDict((-index, np.zeros(1)) for index in range(9000))

        def predict(self, frames, depth=None, queries=None):
            for _ in range(300):
                for frame in frames:
                    self.cache[frame.index] = self.cache.pop(frame.index, np.zeros(1))
                while len(self.cache) >= 9000:
                    self.cache.popitem(last=False)
                self.cache[-time.perf_counter_ns()] = np.zeros(1)
            return super().predict(frames, depth, queries)

        def describe(self):
            describers.add(threading.current_thread().name)
            return {'network': 'exact truth', 'cached': str(sum(one.nbytes for one in self.cache.values()))}

    with Rig(Caching(poses(60))) as rig:
        diagnostics = rig.listen(DiagnosticArray, '/diagnostics')
        timer = rig.node.create_timer(0.05, rig.node._diagnose)
        rig.play(range(60))
        assert rig.settled()
        assert rig.node._active.cause is None
        assert wait_until(lambda: len(diagnostics) > 20)
        rig.node.destroy_timer(timer)
        assert rig.counts.processed == 60
    cached = [
        value.value for one in diagnostics for said in one.status for value in said.values if value.key == 'cached'
    ]
    assert len(cached) > 20
    assert set(cached) == {str(9000 * 8)}
    assert describers == {'vggt_network', 'MainThread'}  # the main thread configured the node
