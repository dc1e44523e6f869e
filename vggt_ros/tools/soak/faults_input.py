"""Faults of cameras, drivers, clocks and of everybody else on the graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vggt_ros.tools.soak.faults import both, fault, warned
from vggt_ros.tools.soak.stage import FaultError, Stage

HOUR = 3600.0
FEWEST = 5  # bad images that make a fault


@contextmanager
def refused(stage: Stage, **habits: Any) -> Iterator[None]:
    """The camera with habits of which the node must refuse some images. Raises FaultError when it refuses none."""
    before = stage.watcher.work
    with stage.behaving(**habits):
        yield
    if stage.watcher.work.since(before).refused < FEWEST:
        raise FaultError(f'fewer than {FEWEST} images were refused')


@fault('LOST, no image for N s', both('(LOST|INITIALIZING)', 'no image for'), lasts=6.0)
def unplugged(stage: Stage) -> Iterator[None]:
    """The camera is unplugged for 6 s."""
    with stage.behaving(publishing=False):
        yield


@fault(lasts=0.0, epochs=0)
def driver(stage: Stage) -> Iterator[None]:
    """The driver starts again within a second, its stamps go on."""
    with stage.behaving(publishing=False):
        stage.wait(0.5)
    yield


@fault('WARN, time went back', warned('(time|stamp)'), epochs=2)
def driver_from_zero(stage: Stage) -> Iterator[None]:
    """The driver starts again with stamps from 0, later with its former stamps."""
    with stage.behaving(offset=-time.time()):
        yield


@fault('WARN, two sources', warned('(two|sources|interleav|publishers)'), lasts=6.0, epochs=1)
def doubled(stage: Stage) -> Iterator[None]:
    """A second camera publishes on the same topic, its clock is 1000 s behind."""
    since = time.monotonic()
    with stage.camera_process('second', offset=-1000.0):
        stage.confirm('second', '^habits', since)
        yield


@fault('WARN, image refused', warned('image refused'), epochs=0)
def wrong_length(stage: Stage) -> Iterator[None]:
    """Every second image is cut off."""
    with refused(stage, broken='length'):
        yield


@fault('WARN, image refused', warned('image refused.*moon8'), epochs=0)
def wrong_encoding(stage: Stage) -> Iterator[None]:
    """Every second image has an unknown encoding."""
    with refused(stage, broken='encoding'):
        yield


@fault('WARN, image refused', warned('image refused.*0x0'), epochs=0)
def empty_image(stage: Stage) -> Iterator[None]:
    """Every second image has no pixels."""
    with refused(stage, broken='empty'):
        yield


@fault('WARN, image refused', warned('image refused.*100000'), epochs=0)
def lying_header(stage: Stage) -> Iterator[None]:
    """Every second image claims 100000x100000 pixels."""
    with refused(stage, broken='huge'):
        yield


@fault('WARN, new size', warned('3840'), within=10.0, lasts=8.0, back=40.0)
def four_k(stage: Stage) -> Iterator[None]:
    """The images become 3840x2160 for 8 s."""
    with stage.behaving(size=(3840, 2160)):
        yield


@fault('WARN, new size', warned('1024'), lasts=6.0)
def wide(stage: Stage) -> Iterator[None]:
    """The images become 1024x64 for 6 s."""
    with stage.behaving(size=(1024, 64)):
        yield


@fault('WARN, new size', warned('240'), lasts=6.0)
def size(stage: Stage) -> Iterator[None]:
    """The images become 240x180 for 6 s."""
    with stage.behaving(size=(240, 180)):
        yield


@fault('WARN, new calibration', warned('camera changed .*fx'), lasts=6.0, epochs=2)
def calibration(stage: Stage) -> Iterator[None]:
    """The focal length in camera_info becomes 0.8 of what it was for 6 s."""
    with stage.behaving(focal=0.8):
        yield


def _strayed(stage: Stage, ahead: float) -> Iterator[None]:
    """Three lone ones, a second apart: of a single image a busy machine may lose sight."""
    for _ in range(3):
        stage.behave(once=ahead)
        stage.wait(1.0)
    yield


@fault('WARN, the stamp', warned('(time|stamp)'), epochs=0)
def hour_ahead(stage: Stage) -> Iterator[None]:
    """One image is stamped an hour ahead, three times."""
    yield from _strayed(stage, HOUR)


@fault('WARN, the stamp', warned('(time|stamp|older)'), epochs=0)
def seconds_back(stage: Stage) -> Iterator[None]:
    """One image is stamped 2 s before the others, three times."""
    yield from _strayed(stage, -2.0)


@fault('WARN, the time', warned('(time|stamp)'), lasts=6.0, epochs=2)
def clock_jump(stage: Stage) -> Iterator[None]:
    """The camera's clock jumps an hour ahead, 6 s later back."""
    with stage.behaving(offset=HOUR):
        yield


def _stormed(stage: Stage, kind: str, topic: str, seconds: float, proof: str = '') -> Iterator[None]:
    """With a crowd on a topic that the node must listen to; what it costs becomes a remark.

    proof: what the crowd must have said before it goes, late where messages are large.
    """
    since = stage.began
    if topic and not stage.watcher.listens(topic):
        raise FaultError(f'not injected: the node does not listen to {topic}')
    stage.wait(seconds)
    usual, before = stage.cpu_share(stage.time - seconds), stage.watcher.work
    with stage.crowd(kind):
        if topic and not stage.wait(10.0, lambda: stage.watcher.count_publishers(topic) > 0):
            raise FaultError(f'not injected: nobody publishes {topic}')
        stage.mark()
        begin = stage.time
        yield
        if proof and not stage.wait(60.0, lambda: stage.journal.first(kind, proof, since) is not None):
            raise FaultError(f'not injected: the {kind} never said {proof!r}')
        stage.remarks.append(f'{100 * usual:.0f} % of a core before, {100 * stage.cpu_share(begin):.0f} % in it')
    if stage.watcher.work.since(before).located < FEWEST:
        raise FaultError(f'fewer than {FEWEST} images were located meanwhile')


@fault(lasts=10.0, epochs=0)
def tf_storm(stage: Stage) -> Iterator[None]:
    """Six transforms on /tf at 200 Hz for 10 s."""
    yield from _stormed(stage, 'tf', '/tf', 8.0)


@fault(lasts=10.0, epochs=0)
def imu_storm(stage: Stage) -> Iterator[None]:
    """An IMU at 200 Hz for 10 s."""
    yield from _stormed(stage, 'imu', '/imu', 8.0)


@fault(lasts=12.0, epochs=0)
def subscribers(stage: Stage) -> Iterator[None]:
    """Ten subscribers of every topic come and go for 12 s."""
    yield from _stormed(stage, 'storm', '', 8.0, '^heard: [1-9]')


FAULTS = (
    four_k,
    unplugged,
    driver,
    driver_from_zero,
    doubled,
    wrong_length,
    wrong_encoding,
    empty_image,
    lying_header,
    wide,
    size,
    calibration,
    hour_ahead,
    seconds_back,
    clock_jump,
    tf_storm,
    imu_storm,
    subscribers,
)
