"""The processes of a soak and what can be done to them."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from vggt_ros.ros.soak.camera import Habits
from vggt_ros.ros.soak.journal import Journal
from vggt_ros.ros.soak.watcher import Watcher, spin
from vggt_ros.tools.processes import Child
from vggt_ros.tools.soak.samples import Sample, look_at

RESPAWN = 1.0  # seconds after which a node that ended by itself is started again, as the launch file's respawn does


class FaultError(RuntimeError):
    """Not what must be; the text says what was found."""


class Stage:
    """The node, a camera and listeners as processes, watched from here.

    folder: for logs and for what faults write. input: what the camera plays. began: when the present fault began,
    monotonic seconds. remarks: what else there is to say of it. samples: of the node, once a second.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        input: Path,
        rate: float,
        parameters: Sequence[str],
        faulty: bool,
        listeners: bool,
    ) -> None:
        self.folder, self._environment, self._input, self._rate = folder, environment, input, rate
        self.parameters = list(parameters)
        self._module = 'vggt_ros.ros.soak.faulty_node' if faulty else 'vggt_ros.ros.node'
        self.journal = Journal()
        self.watcher = Watcher(self.journal)
        self.samples: list[Sample] = []
        self.remarks: list[str] = []
        self.began = self._start = self._sampled = time.monotonic()
        self._lives = 0
        self._ended: float | None = None  # when the node was found to have ended
        self._parts = ExitStack()
        self._parts.callback(self.watcher.destroy_node)
        self.camera = self._parts.enter_context(self.camera_process())
        if listeners:
            self._parts.enter_context(self._child('listeners', 'vggt_ros.ros.soak.crowd', 'listeners'))
        self._extra: list[str] = []
        self.node = self._start_node()

    def close(self) -> None:
        """End everything."""
        self._end_node()
        self._parts.close()

    @property
    def time(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    # Processes

    @contextmanager
    def _child(self, name: str, module: str, *arguments: str, told: bool = False) -> Iterator[Child]:
        child = self._spawn(name, [module, *arguments], told)
        try:
            yield child
        finally:
            child.stop(3.0, 1.0)

    def _spawn(self, name: str, command: Sequence[str], told: bool = False) -> Child:
        log = self.folder / f'{name}.log'
        command = [sys.executable, '-m', *command]
        return Child(name, command, log, self._environment, lambda line: self.journal.note(name, line), told)

    @contextmanager
    def camera_process(self, name: str = 'camera', **habits: Any) -> Iterator[Child]:
        """A camera on the topic ``image``."""
        arguments = [str(self._input), '--rate', str(self._rate), '--habits', json.dumps(habits)]
        with self._child(name, 'vggt_ros.ros.soak.camera', *arguments, told=True) as camera:
            yield camera

    @contextmanager
    def crowd(self, kind: str) -> Iterator[Child]:
        """Somebody else on the graph, see crowd.py."""
        with self._child(kind, 'vggt_ros.ros.soak.crowd', kind) as child:
            yield child

    def _start_node(self) -> Child:
        self._lives += 1
        self._ended = None
        self.watcher.forget()
        words = [word for parameter in (*self.parameters, *self._extra) for word in ('-p', parameter)]
        node = self._spawn('node', [self._module, '--ros-args', *words])
        node.log.rename(self.folder / f'node_{self._lives}.log')  # the next life has a log of its own
        return node

    def _end_node(self) -> None:
        code = self.node.code
        if code is None:
            code = self.node.stop(5.0, 1.0)
            self.journal.note('process', f'stopped with {code}')

    def restart_node(self, *extra: str) -> None:
        """End the node and start it with further parameters (``NAME:=VALUE``) for the time of a fault."""
        self._end_node()
        self._extra = list(extra)
        self.node = self._start_node()

    # Time

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Watch for so long, or until it is so; whether it is."""
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() >= end:
                return False
            spin(self.watcher, 0.05)
            self._sample()
            self._respawn()
        return True

    def mark(self) -> None:
        """The fault begins now."""
        self.began = time.monotonic()

    def _respawn(self) -> None:
        now = time.monotonic()
        if self.node.code is None:
            return
        if self._ended is None:
            self._ended = now
            self.journal.note('process', f'ended with {self.node.code}')
        elif now - self._ended > RESPAWN:
            self.node = self._start_node()

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled < 1 or self.node.code is not None:
            return
        self._sampled = now
        try:
            memory, own, threads, files, cpu = look_at(self.node.pid)
        except OSError:
            return
        status, work = self.watcher.status, self.watcher.work
        latency = math.nan if status is None else status.window_latency
        done = (work.located, work.processed, work.epochs, self.watcher.held)
        self.samples.append(Sample(self.time, self.node.pid, memory, own, threads, files, cpu, latency, *done))

    def cpu_share(self, since: float) -> float:
        """Share of one core that the node has taken since ``time`` was so, NaN without two samples of one process."""
        taken = [sample for sample in self.samples if sample.time >= since and sample.pid == self.node.pid]
        if len(taken) < 2:
            return math.nan
        return (taken[-1].cpu - taken[0].cpu) / (taken[-1].time - taken[0].time)

    # Orders: each is confirmed, or the fault counts as not injected

    def confirm(self, who: str, pattern: str, since: float, seconds: float = 15.0) -> None:
        """Wait for a line of a process's output; the fault begins with it. Raises FaultError."""
        if not self.wait(seconds, lambda: self.journal.first(who, pattern, since) is not None):
            raise FaultError(f'not injected: the {who} never said {pattern!r}')
        self.began = self.journal.first(who, pattern, since) or since

    def behave(self, **habits: Any) -> None:
        """Tell the camera to change its habits. Raises FaultError."""
        since = time.monotonic()
        self.camera.tell(json.dumps(habits))
        self.confirm('camera', '^habits', since)

    @contextmanager
    def behaving(self, **habits: Any) -> Iterator[None]:
        """The camera with other habits than its usual, for a while."""
        self.behave(**habits)
        try:
            yield
        finally:
            self.behave(**{name: getattr(Habits(), name) for name in habits})

    def order(self, fault: str) -> None:
        """Tell the node to fail; a strike ends it. Raises FaultError."""
        since = time.monotonic()
        if not self.wait(10.0, lambda: self.watcher.count_subscribers('/vggt/fault') > 0):
            raise FaultError('not injected: the node does not listen to ~/fault')
        self.watcher.order(fault)
        self.confirm('node', f'told: {fault}', since)
        if fault != 'none':
            self.confirm('node', f'injected: {fault.partition(" ")[0]}', since, 30.0)

    @property
    def at_work(self) -> bool:
        """Whether the node runs and says that it is at work."""
        return self.node.code is None and self.watcher.well
