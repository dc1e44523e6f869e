"""Child processes that are watched, logged and never left behind."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

DOMAINS = range(1, 102)  # higher ones meet the ports that the system gives out
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Child:
    """One process: its output goes line by line to a log file and to ``on_line``.

    It is in a session of its own, so that Ctrl-C reaches only us and we end it in our own order; should we be killed,
    the system interrupts it. told: whether it reads what :meth:`tell` writes. Start it from the main thread.
    Raises OSError when the log cannot be written.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None] = lambda line: None,
        told: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self.last_lines: deque[str] = deque(maxlen=15)
        self._on_line = on_line
        self._log = log.open('w')
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if told else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            text=True,
            errors='replace',
            start_new_session=True,
            preexec_fn=_interrupt_with_parent if sys.platform == 'linux' else None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.last_lines.append(line.rstrip())
            try:
                self._log.write(line)
                self._log.flush()
            except OSError:
                pass  # a full disk: the recorder says so, and the process must not block on an unread pipe
            self._on_line(line.rstrip())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def tell(self, line: str) -> None:
        """Write a line to its standard input, if it reads any. Raises BrokenPipeError when it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + '\n')
        self._process.stdin.flush()

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def stop(self, patience: float = 15.0, more: float = 5.0) -> int:
        """Interrupt; after ``patience`` seconds terminate, ``more`` seconds later kill. The exit code."""
        for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, more), (signal.SIGKILL, None)):
            if self.code is None:
                self._process.send_signal(number)
            try:
                self._process.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(2.0)
        self._log.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return self._process.returncode

    def epitaph(self) -> str:
        """What to tell of a process that ended too early: its code and its last words."""
        words = '\n'.join(f'    {line}' for line in self.last_lines) or '    (it said nothing)'
        return f'{self.name} ended with code {self.code}; its last lines ({self.log}):\n{words}'


def _interrupt_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def free_domain() -> int:
    """A ROS_DOMAIN_ID on which nobody on this machine seems to talk. RuntimeError when there is none."""
    candidates = list(DOMAINS)
    random.shuffle(candidates)
    for domain in candidates:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                # Discovery port of the first participant of a domain, by the rules of DDS.
                probe.bind(('', 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise RuntimeError('every ROS domain of this machine is in use')


def share_folder() -> Path:
    """Where the built package has its files. Raises LookupError where ROS or the package cannot be found."""
    try:
        from ament_index_python import get_package_share_directory
    except ImportError as error:
        raise LookupError('ament_index_python') from error
    return Path(get_package_share_directory('vggt_ros'))


def private_environment(domain: int) -> dict[str, str]:
    """Our environment, but a ROS graph of our own that nobody outside this machine sees, and room for large images.

    Raises LookupError as :func:`share_folder`.
    """
    environment = {name: value for name, value in os.environ.items() if name != 'ROS_STATIC_PEERS'}
    environment |= {'ROS_DOMAIN_ID': str(domain), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    profile = share_folder() / 'config' / 'fastdds.xml'
    for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'):  # before and from Kilted
        environment.setdefault(name, str(profile))
    # Python holds back what it prints into a pipe.
    return environment | {'PYTHONUNBUFFERED': '1', 'RCUTILS_COLORIZED_OUTPUT': '0'}
