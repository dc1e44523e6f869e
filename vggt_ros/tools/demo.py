"""The main job: a player publishes images, the VGGT node solves them, a recorder writes what the node publishes.

Three real processes on a ROS domain of their own, connected over DDS. Without --input a short flight through a
synthetic room is rendered and played. Leaves trajectory, depth and confidence pictures, a coloured cloud, a bag of all
outputs and summary.png in the output folder; when that holds a recording already, in run_2, run_3, ... inside it.

Exit status: 0 done; 1 a process failed or nothing came back; 2 the input or an argument is wrong; 3 the output cannot
be written; 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from vggt_ros import sequence as sequences
from vggt_ros.recording import DEPTH, SUMMARY, TRAJECTORY, OutputError, fresh_folder, writing
from vggt_ros.tools import summary
from vggt_ros.tools.processes import Child, free_domain, private_environment, share_folder
from vggt_ros.tools.recorded import Accuracy, Recorded, RecordedError, measure

FRAMES, SIZE, WORLD = 60, (320, 240), 'room'
LOGS = 'logs'
# The rest of a recorder's work is the cloud, which may take its time.
RECORDER_PATIENCE = 120.0
PROGRESS = re.compile(r'(\d+)(?: of (\d+))? (?:images )?played, (\d+) accounted for')
REFUSAL = re.compile(r'cannot configure: (.*)')
UNTRAINED = re.compile(r'network: untrained')
TROUBLE = re.compile(r'\[(WARN|ERROR|FATAL)\]|^Traceback|^\w*Error: ')


class DemoError(RuntimeError):
    """The demo cannot go on; code: the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Settings:
    """What to run. input: None = synthetic. node: further parameters of the VGGT node by name."""

    input: Path | None = None
    output: Path = Path('demo_output')
    topic: str | None = None
    fps: float | None = None
    frame_stride: int = 1
    limit: int | None = None
    seed: int = 0
    node: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    node_command: Sequence[str] = (sys.executable, '-m', 'vggt_ros.ros.node')


class Run:
    """One run of the demo: the processes, from start to stop."""

    def __init__(self, settings: Settings, sequence: sequences.Sequence, folder: Path) -> None:
        self._settings, self._sequence, self._folder = settings, sequence, folder
        self._refusal = ''
        self._bar: tqdm | None = None
        self.children: list[Child] = []

    def execute(self) -> None:
        """Start, wait for the end, stop everything in every case. Raises DemoError or OutputError."""
        domain = free_domain()
        environment = private_environment(domain)
        logs = self._folder / LOGS
        _say(f'starting node, player and recorder on ROS_DOMAIN_ID {domain}; their logs are in {logs}')
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
        if isinstance(first.image, sequences.CompressedImage):
            parameters['image_transport'] = 'compressed'
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
        if name == 'vggt' and (found := REFUSAL.search(line)):
            self._refusal = found[1]
        if name == 'vggt' and UNTRAINED.search(line):
            tqdm.write('the network is UNTRAINED: what comes is noise, not a result', file=sys.stderr)
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
        with _progress(desc='loading the network') as self._bar:
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
        if player.code:
            raise DemoError(player.epitaph(), player.code if player.code > 0 else 1)

    def _stop(self) -> None:
        """The player first, so that nothing new comes; the node last: the recorder still asks who it was."""
        for name, patience in (('vggt_player', 10.0), ('vggt_recorder', RECORDER_PATIENCE), ('vggt', 20.0)):
            for child in self.children:
                if child.name == name:
                    child.stop(patience)


def run(settings: Settings) -> Path:
    """Everything; the folder with the results. Raises DemoError, OutputError or SequenceError."""
    _check_overrides(settings.overrides)
    folder = fresh_folder(settings.output)
    if folder != settings.output:
        _say(f'{settings.output} holds a recording already: this one goes to {folder}')
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _fetch_weights(settings.node)
    sequence = _open(settings, folder)
    name = settings.input.absolute().name if settings.input else f'synthetic {WORLD}, seed {settings.seed}'
    _say(f'input: {name}{_extent(sequence)}')
    Run(settings, sequence, folder).execute()
    try:
        recorded = Recorded(folder)
    except RecordedError as error:
        raise DemoError(str(error)) from error
    _say('comparing with the truth and drawing')
    accuracy = measure(recorded, sequence)
    with writing(folder / SUMMARY):
        summary.draw(recorded, sequence, accuracy, name, folder / SUMMARY)
    print(report(recorded, accuracy))
    return folder


def _open(settings: Settings, folder: Path) -> sequences.Sequence:
    path = settings.input
    if path is None:
        path = folder / 'input'
        with writing(path):
            render(path, settings.seed, settings.limit or FRAMES)
    try:
        return sequences.open_sequence(
            path, fps=settings.fps, topic=settings.topic, stride=settings.frame_stride, limit=settings.limit
        )
    except FileNotFoundError as error:
        raise sequences.SequenceError(str(error)) from error


def render(path: Path, seed: int, frames: int) -> None:
    """Write a flight through a synthetic room, with its truth, as a folder of pictures. Raises OSError."""
    from vggt_ros.synthetic import places, trajectory
    from vggt_ros.synthetic import sequence as synthetic
    from vggt_ros.synthetic.writers import write_folder

    world = places.make_world(WORLD, seed)
    way = trajectory.make_trajectory(world, 'handheld', seed, frames)
    K = synthetic.default_intrinsics(SIZE)
    stream = synthetic.render_frames(world, way, K, SIZE)
    write_folder(path, _progress(stream, desc='rendering the input', total=frames), K, SIZE)


def _check_overrides(overrides: Sequence[str]) -> None:
    """ROS passes over parameters that a node does not have; a person wants to hear of a slip of the pen."""
    try:
        config = share_folder() / 'config' / 'vggt.yaml'
    except LookupError as error:
        reason = f'{error}: build the workspace and source scripts/env.sh, or source your ROS 2 and its install folder'
        raise DemoError(reason) from error
    known = yaml.safe_load(config.read_text())['/**']['ros__parameters']
    for override in overrides:
        name = override.partition(':=')[0]
        if name not in known:
            raise DemoError(f'{name} is no parameter of the VGGT node; it has {", ".join(sorted(known))}', 2)


def _fetch_weights(node: dict[str, Any]) -> None:
    """Download what comes from the hub now, where its progress and its errors can be seen."""
    source = node.get('weights', '')
    if not source or Path(source).exists():
        return
    from vggt_ros.network import hub

    where = hub.parse(source)
    if where is None:
        raise DemoError(f'{source} is neither a file nor a hub id such as facebook/VGGT-1B', 2)
    try:
        hub.fetch(*where)
    except hub.HubError as error:
        raise DemoError(str(error)) from error


def report(recorded: Recorded, accuracy: Accuracy) -> str:
    """Where everything is, and the key figures, for the terminal."""
    status, folder = recorded.status, recorded.folder
    rate = status.get('frames_per_second')
    lines = [
        '',
        f'frames    {len(recorded.trajectory)} placed of {status.get("images_received", 0)} received'
        + (f', {rate:.2g} a second' if rate else ''),
        f'windows   {status["node"].get("windows", "?")} of at most {status["node"].get("window", "?")} frames',
        f'network   {recorded.network or "unknown"}, {status["node"].get("device", "")}',
        f'state     {status.get("state")}, scale {status.get("scale")}',
    ]
    if not recorded.is_untrained:
        lines += [f'accuracy  {words}' for words in summary.figures(accuracy)]
    if accuracy.why:
        lines.append(f'accuracy  not measured: {accuracy.why}')
    lines += [
        '',
        f'picture      {folder / SUMMARY}',
        f'trajectory   {folder / TRAJECTORY}',
        f'pictures     {folder / DEPTH} and {folder / "confidence"}',
        f'cloud        {folder / "cloud.ply"}' if len(recorded.cloud[0]) else 'cloud        none',
        f'bag          {folder / "outputs"}',
    ]
    if recorded.is_untrained:
        lines += ['', 'The network is UNTRAINED: all of this is noise. It shows that the pipeline runs, nothing more.']
    return '\n'.join(lines)


def _progress(*arguments: Any, **options: Any) -> tqdm:
    """A bar on a terminal; in a log file a line now and then."""
    interval = 0.2 if sys.stderr.isatty() else 10
    columns, lines = shutil.get_terminal_size()  # never 0, as a terminal in a container may say
    options |= {'unit': ' images', 'file': sys.stderr, 'mininterval': interval, 'ncols': columns, 'nrows': lines}
    return tqdm(*arguments, **options)


def _extent(sequence: sequences.Sequence) -> str:
    try:
        return f', {len(sequence)} images'
    except TypeError:
        return ''


def _say(text: str) -> None:
    print(text, flush=True)


def parse(arguments: list[str] | None = None) -> Settings:
    """The command line."""
    first, _, rest = (__doc__ or '').partition('\n\n')
    parser = argparse.ArgumentParser(
        prog='demo', description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--input', type=Path, metavar='PATH', help='folder of pictures, video or bag (ROS 1 or 2); default: synthetic')
    add('--topic', help='image topic of a bag (its only one)')
    add('--fps', type=float, help='pictures per second of an input without stamps')
    add('--frame-stride', type=int, default=1, metavar='K', help='play every K-th picture (1)')
    add('--limit', type=int, metavar='N', help='play at most N pictures')
    add('--seed', type=int, default=0, help='of the synthetic input (0)')
    add('--output', type=Path, default=Path('demo_output'), metavar='DIR', help='where the results go (demo_output)')
    add('--weights', metavar='W', help='.safetensors or .pt file, or hub id (facebook/VGGT-1B); default: embedded')
    add('--device', help='torch device (auto)')
    add('--window', type=int, metavar='N', help="most frames the network sees at once (the node's default)")
    add('--stride', type=int, metavar='N', help='new frames for each window')
    add('--image-size', type=int, metavar='PX', help="longest side of the network's image, a multiple of 14")
    add('--param', action='append', default=[], metavar='NAME:=VALUE', help='any other parameter of the VGGT node')
    args = parser.parse_args(arguments)
    for text in args.param:
        if not re.fullmatch(r'[\w.]+:=.*', text):
            parser.error(f'--param {text}: wanted NAME:=VALUE')
    node = {name: getattr(args, name) for name in ('weights', 'device', 'window', 'stride', 'image_size')}
    return Settings(
        input=args.input,
        output=args.output,
        topic=args.topic,
        fps=args.fps,
        frame_stride=args.frame_stride,
        limit=args.limit,
        seed=args.seed,
        node={name: value for name, value in node.items() if value is not None},
        overrides=args.param,
    )


def main(arguments: list[str] | None = None, execute: Callable[[Settings], Any] = run) -> int:
    """Run the demo; the exit status. Ctrl-C and SIGTERM stop all processes and leave what was recorded."""
    settings = parse(arguments)
    # SIGINT too: a shell that starts us in the background has it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        execute(settings)
    except sequences.SequenceError as error:
        return _fail(str(error), 2)
    except OutputError as error:
        return _fail(str(error), 3)
    except DemoError as error:
        return _fail(str(error), error.code)
    except KeyboardInterrupt:
        return _fail('interrupted; what was recorded until now is complete', 130)
    return 0


def _fail(text: str, code: int) -> int:
    print(f'demo: {text}', file=sys.stderr)
    return code


if __name__ == '__main__':
    sys.exit(main())
