"""Faults that end or begin the process, or move it through its lifecycle."""

from __future__ import annotations

import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import vggt_ros.weights
from vggt_ros.tools.soak.faults import both, fault, warned
from vggt_ros.tools.soak.faults_input import refused
from vggt_ros.tools.soak.samples import look_at
from vggt_ros.tools.soak.stage import FaultError, Stage

CYCLES, KEPT = 10, 20.0  # configure/cleanup, and MiB that the node may hold more after the last than half-way
FILE_LIMIT = 16384  # bytes that the node can write into a file while the disk is full


def _fresh(stage: Stage) -> Path:
    """A folder with nothing in it of a run before."""
    return Path(tempfile.mkdtemp(dir=stage.folder))


def _ended(stage: Stage, number: int) -> Iterator[None]:
    stage.order('hang 40')
    stage.mark()
    stage.node.send(number)
    yield
    if stage.node.code is None:
        stage.restart_node()


@fault('exit status 0', {'process': '^ended with 0$'}, within=2.0, lasts=0.0, back=40.0)
def sigint(stage: Stage) -> Iterator[None]:
    """SIGINT while a window hangs in the device."""
    yield from _ended(stage, signal.SIGINT)


@fault('exit status 0', {'process': '^ended with 0$'}, within=2.0, lasts=0.0, back=40.0)
def sigterm(stage: Stage) -> Iterator[None]:
    """SIGTERM while a window hangs in the device."""
    yield from _ended(stage, signal.SIGTERM)


@fault('no /clock', {'status': 'no /clock', 'diagnostics': '^(WARN|ERROR) .*no /clock'}, within=20.0, back=40.0)
def no_clock(stage: Stage) -> Iterator[None]:
    """Started with use_sim_time, and nobody publishes /clock."""
    stage.restart_node('use_sim_time:=true')
    stage.mark()
    yield
    stage.restart_node()


@fault('INACTIVE, names the file; ERROR', both('INACTIVE', r'late\.safetensors', 'ERROR'), within=20.0, back=90.0)
def no_weights(stage: Stage) -> Iterator[None]:
    """Started with weights that are not there; they come later."""
    path = _fresh(stage) / 'late.safetensors'
    stage.restart_node(f'weights:={path}')
    stage.mark()
    yield
    shutil.copy(Path(vggt_ros.weights.__path__[0]) / 'vggt_tiny.safetensors', path)


@fault('WARN, image refused', warned('image refused'), back=40.0)
def huge_png(stage: Stage) -> Iterator[None]:
    """Every second image is a PNG whose header promises 100000x100000 pixels."""
    stage.restart_node('image_transport:=compressed')
    with stage.behaving(compressed=True):
        if not stage.wait(60.0, lambda: stage.at_work):
            raise FaultError('not at work on compressed images')
        with refused(stage, broken='huge'):
            yield
        if not stage.wait(15.0, lambda: stage.at_work):
            raise FaultError('not back at work on compressed images')
    stage.restart_node()


@fault('INACTIVE', {'status': '^INACTIVE'}, within=120.0, lasts=0.0, back=40.0)
def cycles(stage: Stage) -> Iterator[None]:
    """Deactivated, cleaned up, configured and activated ten times; held memory is that after each clean-up."""
    held = []
    for _ in range(CYCLES):
        for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
            if not stage.watcher.change_state(transition, stage.wait):
                raise FaultError(f'transition {transition} was not made')
            if transition == 'cleanup':
                stage.wait(1.0)
                held.append(look_at(stage.node.pid)[0])
        stage.wait(3.0)
    stage.remarks.append(f'held MiB: {", ".join(f"{value:.0f}" for value in held)}')
    yield
    if held[-1] - held[CYCLES // 2 - 1] > KEPT:
        raise FaultError(f'memory grows by more than {KEPT:.0f} MiB in the second half')


@fault('PAUSED', {'status': '^PAUSED'}, within=2.0)
def pause(stage: Stage) -> Iterator[None]:
    """Paused and resumed by service."""
    stage.mark()
    if stage.watcher.call('pause', stage.wait) is None:
        raise FaultError('not injected: nobody answers ~/pause')
    yield
    stage.watcher.call('resume', stage.wait)


@fault(
    'the answer to ~/save_map says why',
    {'service': '(?i)^save_map False .*(large|space|full|disk|write|written)'},
    within=30.0,
    lasts=0.0,
    epochs=0,
)
def disk_full(stage: Stage) -> Iterator[None]:
    """The map is to be saved where a file can have 16 KiB."""
    stage.mark()
    before = resource.prlimit(stage.node.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.RLIM_INFINITY))
    fresh = _fresh(stage)
    folder = fresh / 'map_full'
    try:
        stage.watcher.call('save_map', stage.wait, folder=str(folder))
    finally:
        resource.prlimit(stage.node.pid, resource.RLIMIT_FSIZE, before)
    yield
    if folder.exists() and any(folder.iterdir()):
        raise FaultError('half a map stays')
    answer = stage.watcher.call('save_map', stage.wait, folder=str(fresh / 'map'))
    if answer is None or not answer.success:
        raise FaultError('the map cannot be saved once there is room again')


FAULTS = (sigint, sigterm, no_clock, no_weights, huge_png, cycles, pause, disk_full)
