"""A short soak with real processes, and what judges it."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs')
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from exact import SIZE, K, depth_of, view, walk
from vggt_ros.ros.soak.journal import Journal
from vggt_ros.ros.soak.watcher import Work
from vggt_ros.synthetic.sequence import RenderedFrame
from vggt_ros.synthetic.writers import write_folder
from vggt_ros.tools.soak import report
from vggt_ros.tools.soak.catalogue import FAULTS
from vggt_ros.tools.soak.faults import Fault
from vggt_ros.tools.soak.run import LOCATED, PROCESSED, Verdict, endure, suffer
from vggt_ros.tools.soak.samples import Sample, slope
from vggt_ros.tools.soak.stage import FaultError

# Those that end or restart something, and one of each other kind: about ten seconds each.
CHOSEN = (
    'sigint',
    'device_gone',
    'network_error',
    'camera_thread',
    'unplugged',
    'wrong_encoding',
    'wide',
    'hour_ahead',
)
FRAMES = 40


def test_a_soak_has_no_red_row(tmp_path):
    frames = (
        RenderedFrame(i, i * 10**8, view(T), depth_of(T, K, SIZE).astype(np.float32), None, T)
        for i, T in enumerate(walk(FRAMES))
    )
    write_folder(tmp_path / 'input', frames, K, SIZE)
    command = [sys.executable, '-m', 'vggt_ros.tools.soak', '--minutes', '1', '--patience', '5']
    command += ['--faults', *CHOSEN, '--input', str(tmp_path / 'input'), '--output', str(tmp_path / 'found')]
    command += [word for parameter in ('threads:=1', 'image_size:=126') for word in ('-p', parameter)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / 'found' / 'soak.md').read_text()
    assert page in done.stdout
    assert re.findall(r'^\| `(\w+)`.*\| yes \|', page, re.MULTILINE) == list(CHOSEN)
    assert '**no**' not in page
    assert (tmp_path / 'found' / 'soak.png').stat().st_size > 10_000


@pytest.mark.parametrize('arguments', [['--faults', 'moon'], ['--minutes', 'many'], ['--input', '/no/such/folder']])
def test_wrong_arguments_end_it_with_2(arguments):
    done = subprocess.run(
        [sys.executable, '-m', 'vggt_ros.tools.soak', *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert arguments[1] in done.stderr


def test_a_soak_that_is_interrupted_tells_what_it_has_found(tmp_path):
    command = [sys.executable, '-m', 'vggt_ros.tools.soak', '--faults', 'pause', '--logs', str(tmp_path), '--alone']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as soak:
        while 'pause' not in (line := soak.stdout.readline()):
            assert line, soak.stderr.read()
        soak.send_signal(signal.SIGINT)
        said, error = soak.communicate(timeout=60)
    assert soak.returncode == 1
    assert 'stopped after' in error
    assert 'Traceback' not in error
    assert re.search(r'^\| `pause`', said, re.MULTILINE)
    assert (tmp_path / 'samples.csv').read_text().startswith('time,pid,memory')


class Still:
    """A stage without processes: what a node would do happens at once, in ``then``."""

    def __init__(self, then=lambda stage: None, works=True):
        self.journal, self.remarks, self.began, self.time = Journal(), [], 0.0, 0.0
        self.watcher = self
        self.node = self
        self.pid, self.code, self.work = 1, None, Work()
        self.then, self.works, self.at_work = then, works, works
        self.lost = 0

    def mark(self):
        self.began = time.monotonic()

    def wait(self, seconds, until=lambda: False):
        self.then(self)
        if self.works:
            self.work = Work(self.work.located + LOCATED, self.work.processed + PROCESSED, 0, self.lost)
        return until()


def made(run, **fields):
    return Fault('moon', 'the moon falls', contextmanager(run), 'LOST', {'status': '^LOST .*moon'}, **fields)


def happens(stage):
    yield


def test_a_fault_that_is_said_and_survived_passes():
    verdict = suffer(Still(lambda stage: stage.journal.note('status', 'LOST the moon')), made(happens))
    assert verdict.passed, verdict.problems
    assert verdict.said is not None
    assert verdict.back is not None


def says_something_else(stage):
    stage.journal.note('status', 'TRACKING the moon')


def test_a_fault_that_is_not_said_is_red():
    verdict = suffer(Still(says_something_else), made(happens))
    assert not verdict.passed
    assert verdict.said is None
    assert 'TRACKING the moon' in verdict.problems[0]


def test_what_was_said_before_the_fault_does_not_count():
    stage = Still()
    stage.journal.note('status', 'LOST the moon')
    assert not suffer(stage, made(happens)).passed


def test_what_is_said_again_counts_from_when_it_is_said_again():
    journal = Journal()
    journal.note('process', 'ended with 0')
    time.sleep(0.02)
    since = time.monotonic()
    assert journal.first('process', 'ended', since) is None
    time.sleep(0.02)
    before = time.monotonic()
    journal.note('process', 'ended with 0')
    assert journal.first('process', 'ended', since) >= before


def test_a_node_that_does_not_come_back_is_red():
    verdict = suffer(Still(lambda stage: stage.journal.note('status', 'LOST the moon'), works=False), made(happens))
    assert not verdict.passed
    assert verdict.back is None


def test_a_fault_that_cannot_be_injected_is_red():
    def fails(stage):
        raise FaultError('not injected: no moon')
        yield

    verdict = suffer(Still(), made(fails))
    assert verdict.problems == ('not injected: no moon',)


def test_a_process_that_ended_and_a_map_that_began_anew_are_red():
    def then(stage):
        stage.journal.note('status', 'LOST the moon')
        stage.journal.note('process', 'ended with -11')
        stage.lost += 1

    verdict = endure(Still(then, works=True), made(happens, epochs=0))
    assert any('-11' in problem for problem in verdict.problems)
    assert verdict.anew > 0


def begins_anew(times):
    """A stage whose map begins anew at the first waits, so many times."""
    left = [times]

    def then(stage):
        stage.journal.note('status', f'LOST the moon {time.monotonic()}')
        stage.lost += left[0] > 0
        left[0] -= 1

    return Still(then)


@pytest.mark.parametrize(('times', 'passed'), [(0, True), (1, True), (100, False)])
def test_a_map_that_begins_anew_with_the_fault_is_red_when_it_does_so_again(times, passed):
    verdict = endure(begins_anew(times), made(happens, epochs=0))
    assert verdict.passed is passed
    assert ('at the first the map began anew' in ' '.join(verdict.found)) is (times > 0)


def test_maps_that_began_anew_between_the_faults_are_counted():
    found = suffer(Still(), made(happens))
    at = [Verdict(found.fault, 100.0, 200.0, None, None, 0, (), ())]
    samples = [sample(i, 500.0, maps=(i > 50) + (i > 150) + (i > 250)) for i in range(301)]
    row = report.rows(at, samples, 150.0)[1]
    assert row.passed is None
    assert row.found == 'the map began anew 2 times in 3 minutes'


def noise(rng, count, memory):
    """Samples of which each remembers the one before: AR(1) of standard deviation 1."""
    values = [rng.normal()]
    for _ in range(count - 1):
        values.append(memory * values[-1] + np.sqrt(1 - memory**2) * rng.normal())
    return np.array(values)


@pytest.mark.parametrize('memory', [0.0, 0.9, 0.97])
def test_the_interval_of_a_slope_holds_the_true_one(memory):
    """Of 95 %, with noise whose neighbours are alike; an interval of independent samples would miss it mostly."""
    rng = np.random.default_rng(0)
    times = np.arange(1800.0)
    truth = 7.0
    held = 0
    for _ in range(200):
        found = slope(times, 500 + truth * times / 3600 + noise(rng, len(times), memory))
        held += found.low <= truth <= found.high
    assert held >= 180


def test_growth_is_told_from_none():
    rng = np.random.default_rng(1)
    times = np.arange(1800.0)
    assert slope(times, 500 + 100 * times / 3600 + noise(rng, len(times), 0.9)).low > 30
    assert np.isnan(slope(times[:10], times[:10]).low)


def sample(second, memory, pid=1, threads=20, maps=0, held=0.0):
    return Sample(float(second), pid, memory, memory, threads, 30, second * 0.5, 0.2, second, second, maps, held)


def need(samples):
    rows = report.rows([], samples, 150.0)
    return {row.what if row.what.startswith('memory of') else row.what.split()[0]: row.passed for row in rows}


def test_memory_that_grows_is_red_and_memory_that_does_not_is_not():
    assert need([sample(i, 500.0 + i % 3) for i in range(1300)])['memory'] is True
    assert need([sample(i, 500.0 + i) for i in range(1300)])['memory'] is False


def test_what_the_map_holds_may_grow_to_its_bound_and_not_beyond():
    grown = need([sample(i, 500.0 + i / 10, held=i / 10) for i in range(1300)])
    assert grown['memory'] is True
    assert grown['memory of the map, by its own account'] is True
    assert need([sample(i, 900.0, held=500.0) for i in range(1300)])['memory of the map, by its own account'] is False


def test_minutes_tell_no_trend_and_no_samples_are_red():
    assert need([sample(i, 500.0) for i in range(600)])['memory'] is None
    assert need([])['the'] is False


def test_threads_and_files_that_grow_are_red():
    assert need([sample(i, 500.0) for i in range(1300)])['threads'] is True
    assert need([sample(i, 500.0, threads=20 + i // 100) for i in range(1300)])['threads'] is False


def test_only_the_longest_life_counts():
    short = [sample(i, 500.0 + 10 * i, pid=1) for i in range(50)]
    assert need(short + [sample(i, 900.0, pid=2) for i in range(50, 1400)])['memory'] is True


def test_every_fault_says_what_it_is():
    assert all(fault.story and fault.says and name == fault.name for name, fault in FAULTS.items())
    assert all(re.compile(pattern) for fault in FAULTS.values() for pattern in fault.must.values())
