"""Node, recorder and player as three processes that are started, watched and stopped together."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from vggt_ros.files.recording import writing
from vggt_ros.files.sequence import EncodedImage, ImageSequence, RawImage
from vggt_ros.ros.inputs.images import ImageError, to_picture
from vggt_ros.tools.processes import Child, free_domain, private_environment

LOGS = 'logs'
# The rest of a recorder's work is the cloud, which may take its time.
RECORDER_PATIENCE = 120.0
PROGRESS = re.compile(r'(\d+)(?: of (\d+))? (?:images )?played, (\d+) accounted for')
REFUSAL = re.compile(r'cannot configure: (.*)')
DAMAGED = re.compile(r'not played: (.*)')
UNANSWERED = re.compile(r'(\d+ of \d+ images were never accounted for.*)')
TROUBLE = re.compile(r'\[(WARN|ERROR|FATAL)\]|^Traceback|^\w*Error: ')


INCOMPLETE = 3  # exit status: all is done but for pictures that are damaged
GIVEN_UP = 5  # exit status of the player
LARGE = 1920 * 1200  # pixels of a picture above which depth has the network's size: more than shared memory holds


class DemoError(RuntimeError):
    """The demo cannot go on; code: the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class RunSettings:
    """What to run."""

    input: Path | None = None  # folder, video or bag; None = synthetic
    output: Path = Path('demo_output')  # folder of the results
    topic: str | None = None  # image topic of a bag
    fps: float | None = None  # pictures per second of an input without stamps
    frame_stride: int = 1  # every n-th picture
    limit: int | None = None  # most pictures
    seed: int = 0  # of the synthetic input
    node: dict[str, Any] = field(default_factory=dict)  # further parameters of the VGGT node by name
    overrides: list[str] = field(default_factory=list)  # parameters as -p has them, name:=value
    node_command: Sequence[str] = (sys.executable, '-m', 'vggt_ros.ros.node')  # what runs the node


class LiveRun:
    """One run of the demo: the processes, from start to stop."""

    def __init__(self, settings: RunSettings, sequence: ImageSequence, folder: Path) -> None:
        self._settings, self._sequence, self._folder = settings, sequence, folder
        self._refusal = ''
        self._bar: tqdm | None = None
        self.damaged: list[str] = []  # what the player could not play, in words
        self.missing: list[str] = []  # what the node did not do, in words
        self.notes: tuple[str, ...] = ()  # what was chosen for this input
        self.children: list[Child] = []

    def execute(self) -> None:
        """Start, wait for the end, stop everything in every case. Raises DemoError or OutputError."""
        domain = free_domain()
        environment = private_environment(domain)
        logs = self._folder / LOGS
        tell(f'starting node, player and recorder on ROS_DOMAIN_ID {domain}; their logs are in {logs}')
        try:
            with writing(logs):
                logs.mkdir(parents=True, exist_ok=True)
                python = (sys.executable, '-m')
                self._start('vggt', self._settings.node_command, self._node_parameters(), environment)
                self._start(
                    'vggt_recorder', (*python, 'vggt_ros.ros.recorder'), {'output': str(self._folder)}, environment
                )
                self._start('vggt_player', (*python, 'vggt_ros.ros.player'), self._player_parameters(), environment)
            self._watch()
        finally:
            self._stop()
        _, recorder, _ = self.children
        if recorder.code:
            raise DemoError(recorder.epitaph(), recorder.code if recorder.code > 0 else 1)

    def _start(
        self, name: str, command: Sequence[str], parameters: dict[str, Any], environment: dict[str, str]
    ) -> None:
        # A file keeps every value what it is, whatever characters a path has.
        file = self._folder / LOGS / f'{name}.yaml'
        file.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}))
        full = [*command, '--ros-args', '--params-file', str(file)]
        if name == 'vggt':
            for override in self._settings.overrides:
                full += ['-p', override]
        log = self._folder / LOGS / f'{name}.log'
        self.children.append(Child(name, full, log, environment, lambda line: self._on_line(name, line)))

    def _node_parameters(self) -> dict[str, Any]:
        first = next(iter(self._sequence))
        parameters: dict[str, Any] = {'mode': 'every_frame', 'tf_mode': 'camera', 'autostart': True}
        if isinstance(first.image, EncodedImage):
            parameters['image_transport'] = 'compressed'
        width, height = _size(first.image)
        if width * height > LARGE:
            parameters['depth_size'] = 'network'
            self.notes += (f'pictures of {width}x{height}: depth has the size of what the network sees (depth_size)',)
            tell(f'       {self.notes[-1]}')
        if first.calibration is None:
            parameters['calibration'] = 'predicted'  # nothing to wait for
        return parameters | self._settings.node

    def _player_parameters(self) -> dict[str, Any]:
        settings = self._settings
        return {
            'path': str(self._sequence.path),
            'topic': settings.topic or '',
            'fps': float(settings.fps or 0),
            'stride': settings.frame_stride,
            'limit': settings.limit or 0,
            'rate': 0.0,
            # The recorder passes the node's status on when both are ready and connected.
            'follow': 'vggt_recorder/status',
            'max_in_flight': max(16, 2 * int(settings.node.get('stride', 1))),
            'start_delay': 0.5,
            'report_every': 0.5,
        }

    def _on_line(self, name: str, line: str) -> None:
        """Called for every line that a process writes, from its own thread."""
        if name == 'vggt_player' and (found := PROGRESS.search(line)):
            self._on_progress(int(found[3]), int(found[2]) if found[2] else None)
            return
        if name == 'vggt_player' and (found := DAMAGED.search(line)):
            self.damaged.append(found[1])
        if name == 'vggt_player' and (found := UNANSWERED.search(line)):
            self.missing.append(found[1])
        if name == 'vggt' and (found := REFUSAL.search(line)):
            self._refusal = found[1]
        if TROUBLE.search(line):
            tqdm.write(f'{name}: {line}', file=sys.stderr)

    def _on_progress(self, done: int, total: int | None) -> None:
        if self._bar is not None:
            self._bar.total = total
            self._bar.set_description_str('solving', refresh=False)
            self._bar.update(done - self._bar.n)

    def _watch(self) -> None:
        """Until the player has ended. Raises DemoError when something else ends first."""
        node, recorder, player = self.children
        started = told = time.monotonic()
        with progress(desc='loading the network') as self._bar:
            while player.code is None:
                time.sleep(0.05)
                if self._refusal:
                    raise DemoError(f'the VGGT node could not start: {self._refusal}')
                for child in (node, recorder):
                    if child.code is not None:
                        raise DemoError(child.epitaph(), child.code if child is recorder and child.code > 0 else 1)
                if self._bar.n == 0 and time.monotonic() - told > 30:
                    told = time.monotonic()
                    tqdm.write(f'nothing solved after {told - started:.0f} s: still loading, or slow', file=sys.stderr)
        if player.code not in (0, INCOMPLETE, GIVEN_UP):
            raise DemoError(player.epitaph(), player.code if player.code > 0 else 1)

    def _stop(self) -> None:
        """The player first, so that nothing new comes; the node last: the recorder still asks who it was."""
        for name, patience in (('vggt_player', 10.0), ('vggt_recorder', RECORDER_PATIENCE), ('vggt', 20.0)):
            for child in self.children:
                if child.name == name:
                    child.stop(patience)


def _size(image: RawImage | EncodedImage) -> tuple[int, int]:
    """(width, height); of one that cannot be decoded nothing is known, and the node will say so."""
    try:
        return to_picture(image, longest=256).source
    except ImageError:
        return 0, 0


def progress(*arguments: Any, **options: Any) -> tqdm:
    """A bar on a terminal; in a log file a line now and then."""
    interval = 0.2 if sys.stderr.isatty() else 10
    columns, lines = shutil.get_terminal_size()  # never 0, as a terminal in a container may say
    options |= {'unit': ' images', 'file': sys.stderr, 'mininterval': interval, 'ncols': columns, 'nrows': lines}
    return tqdm(*arguments, **options)


def tell(text: str) -> None:
    """A line for the person who waits, at once."""
    print(text, flush=True)
