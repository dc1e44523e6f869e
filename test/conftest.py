"""What all tests share: a ROS domain of their own, and real recordings where they are."""

import contextlib
import fcntl
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import IO

import pytest


def claim_domain() -> tuple[int, IO[str]]:
    """Return a ROS domain that no other test process on this machine uses, and the file whose lock holds it."""
    for domain in range(1, 102):  # DDS maps 0 to 101 to ports outside the range of ephemeral ones; 0 is everybody's
        path = Path(tempfile.gettempdir()) / f'vggt_ros_test_domain_{domain}'
        with contextlib.ExitStack() as stack, contextlib.suppress(BlockingIOError, PermissionError):
            file = stack.enter_context(open(path, 'a'))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stack.pop_all()
            return domain, file
    raise RuntimeError('101 test processes hold all ROS domains: end some of them')


# Set before any test module imports rclpy. The lock lives as long as this process.
DOMAIN, DOMAIN_LOCK = claim_domain()
os.environ['ROS_DOMAIN_ID'] = str(DOMAIN)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
if os.environ.get('ROS_DISTRO') == 'humble':
    os.environ['ROS_LOCALHOST_ONLY'] = '1'
os.environ['MPLBACKEND'] = 'Agg'
# Small tensors on many threads mostly wait for each other, the more so on a busy machine.
os.environ.setdefault('OMP_NUM_THREADS', '1')


def module_exists(name: str) -> bool:
    """Whether a module can be found. A folder without `__init__.py`, such as our `launch/`, does not count."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers('requires_ros'):
        # launch, tf2_ros, cv_bridge ... are named by the test: @pytest.mark.requires_ros('tf2_ros')
        absent = [name for name in ('rclpy', 'vggt_ros.msg', *marker.args) if not module_exists(name)]
        if absent:
            pytest.skip(f'{", ".join(absent)} not found: build the workspace and source scripts/env.sh or your ROS')


@pytest.fixture(scope='session')
def test_data() -> Path:
    """The folder of real recordings that VGGT_ROS_TEST_DATA names; tests that ask for it are skipped without."""
    folder = os.environ.get('VGGT_ROS_TEST_DATA')
    if not folder:
        pytest.skip('VGGT_ROS_TEST_DATA does not name a folder of recordings')
    if not Path(folder).is_dir():
        pytest.fail(f'VGGT_ROS_TEST_DATA is {folder}, which is not a folder')
    return Path(folder)
