"""A command as a process of its own: what it prints, and how it ends."""

import os
import signal
import subprocess
import threading


class Started:
    """The command at work, until the ``with`` ends; ``lines`` is what it has printed, errors among it.

    environment: variables beside our own. start_new_session: in a process group of its own.
    """

    def __init__(self, command: list[str], *, start_new_session: bool = False, **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | environment,
            start_new_session=start_new_session,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self) -> str:
        """The lines in one."""
        return '\n'.join(self.lines)

    def wait(self, seconds: float) -> int:
        """The exit status, once all that was printed is read. Raises TimeoutExpired."""
        status = self.process.wait(seconds)
        self._reader.join()
        return status

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
