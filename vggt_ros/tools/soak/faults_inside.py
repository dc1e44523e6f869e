"""Faults of the device, of the network and of the threads, injected by faulty_node.py."""

from __future__ import annotations

from collections.abc import Iterator

from vggt_ros.tools.soak.faults import both, fault, warned
from vggt_ros.tools.soak.stage import Stage


def _ordered(stage: Stage, order: str) -> Iterator[None]:
    stage.order(order)
    yield
    if stage.watcher.count_subscribers('/vggt/fault'):
        stage.watcher.order('none')


@fault('DEGRADED or LOST, the reason', both('(DEGRADED|LOST)', 'device'))
def device(stage: Stage) -> Iterator[None]:
    """The device refuses three windows."""
    yield from _ordered(stage, 'device 3')


@fault('INACTIVE, the reason; ERROR', both('INACTIVE', 'device', 'ERROR'), within=30.0, lasts=10.0, back=60.0)
def device_gone(stage: Stage) -> Iterator[None]:
    """The device refuses every window, then comes back."""
    yield from _ordered(stage, 'device 1000000')


@fault('DEGRADED or LOST, out of memory', both('(DEGRADED|LOST)', 'out of memory'))
def window_too_large(stage: Stage) -> Iterator[None]:
    """The device has no memory for four windows."""
    yield from _ordered(stage, 'oom 4')


@fault('WARN, out of memory', warned('out of memory'))
def out_of_memory(stage: Stage) -> Iterator[None]:
    """torch runs out of memory inside one window of full length."""
    yield from _ordered(stage, 'torch_oom 1')


@fault('DEGRADED or LOST, the reason', both('(DEGRADED|LOST)', 'injected: an error in the network'))
def network_error(stage: Stage) -> Iterator[None]:
    """Two windows raise an error that nobody knows."""
    yield from _ordered(stage, 'crash 2')


@fault('WARN, the reason', warned('injected: an error in the front end'))
def camera_error(stage: Stage) -> Iterator[None]:
    """Two images raise an error in the camera's thread that nobody knows."""
    yield from _ordered(stage, 'camera_crash 2')


@fault('INACTIVE, thread; ERROR', both('INACTIVE', 'thread', 'ERROR'), within=8.0, back=40.0)
def network_thread(stage: Stage) -> Iterator[None]:
    """The network's thread ends."""
    yield from _ordered(stage, 'exit 1')


@fault('INACTIVE, thread; ERROR', both('INACTIVE', 'thread', 'ERROR'), within=8.0, back=40.0)
def camera_thread(stage: Stage) -> Iterator[None]:
    """The camera's thread ends."""
    yield from _ordered(stage, 'camera_exit 1')


@fault(
    'DEGRADED or LOST, not answered for N s', both('(DEGRADED|LOST)', 'not answered'), within=8.0, lasts=9.0, epochs=0
)
def hang(stage: Stage) -> Iterator[None]:
    """One window takes 8 s."""
    yield from _ordered(stage, 'hang 8')


FAULTS = (
    device,
    device_gone,
    out_of_memory,
    window_too_large,
    network_error,
    camera_error,
    network_thread,
    camera_thread,
    hang,
)
