"""Coverage-guided fuzzing of everything that opens recordings; not a part of the tests, for it takes an hour.

pip install atheris && python test/files/fuzz.py MINUTES FOLDER     # found inputs and the corpus go to FOLDER

An input is two bytes that choose one of the files of test_damage.py, then what is in that file. A failure is an error
that is no SequenceError, or one of more than one line; each kind of it is told once, and what made it is kept.
"""

import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=['vggt_ros.files', 'mcap', 'rosbags']):
    import test_damage

    from vggt_ros.files.errors import SequenceError
    from vggt_ros.files.opening import open_sequence

LARGEST = 1 << 16  # bytes of a file that is worth changing
SLOW = 20  # seconds for one input


class Target:
    """found: kind of failure -> how often."""

    def __init__(self, base: Path, kept: Path) -> None:
        self._kept = kept
        self.found: dict[str, int] = {}
        self._files = []
        for name, folder, place in test_damage.make_all(base):
            whole = base / f'{name} to change'
            shutil.copytree(folder, whole)
            small = [x for x in sorted(whole.rglob('*')) if x.is_file() and x.stat().st_size < LARGEST]
            self._files.append((name, whole / place, [(x, x.read_bytes()) for x in small]))

    def seeds(self, corpus: Path) -> None:
        corpus.mkdir(parents=True, exist_ok=True)
        for number, (_, _, files) in enumerate(self._files):
            for place, (_, data) in enumerate(files):
                (corpus / f'seed_{number}_{place}').write_bytes(bytes((number, place)) + data)

    def __call__(self, data: bytes) -> None:
        if len(data) < 2:
            return
        name, opened, files = self._files[data[0] % len(self._files)]
        if not files:
            return
        file, whole = files[data[1] % len(files)]
        file.write_bytes(data[2:])
        try:
            self._open(opened)
        except Exception as error:  # noqa: BLE001 - what is looked for
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f'{type(error).__name__} at {Path(last.filename).name}:{last.lineno}'
            if kind not in self.found:
                (self._kept / f'{len(self.found)}_{name}_{file.name}').write_bytes(data)
                print(f'FOUND {kind} in {name}, {file.name}: {error}', flush=True)
            self.found[kind] = self.found.get(kind, 0) + 1
        finally:
            file.write_bytes(whole)

    def _open(self, path: Path) -> None:
        try:
            sequence = open_sequence(path)
            for item in sequence:
                sequence.read_depth(item.index)
        except SequenceError as error:
            if '\n' in str(error):
                raise AssertionError('an error of more than one line') from error


def main() -> None:
    kept = Path(sys.argv[2])
    kept.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * float(sys.argv[1])
    base = Path(tempfile.mkdtemp(prefix='vggt_fuzz_'))
    target = Target(base, kept)
    target.seeds(kept / 'corpus')
    runs = 0

    def once(data: bytes) -> None:
        nonlocal runs
        if time.monotonic() > until:  # libFuzzer ends the process without a word to Python
            print(f'{runs} runs, {len(target.found)} kinds of failure: {target.found}', flush=True)
            shutil.rmtree(base)
            os._exit(bool(target.found))
        runs += 1
        target(data)

    options = (f'-max_len={LARGEST}', f'-timeout={SLOW}', '-rss_limit_mb=6000', f'-artifact_prefix={kept}/')
    atheris.Setup([sys.argv[0], *options, str(kept / 'corpus')], once)
    atheris.Fuzz()


if __name__ == '__main__':
    main()
