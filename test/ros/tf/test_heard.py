"""What /tf says while nobody asks."""

import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs')
pytest.importorskip('rclpy')

from vggt_ros.ros.tf import heard
from vggt_ros.ros.tf.heard import Unread


@pytest.fixture
def clock(monkeypatch):
    """``clock[0]`` is what the time is."""
    times = [0.0]
    monkeypatch.setattr(heard, 'monotonic', lambda: times[0])
    return times


def test_after_a_long_idle_the_last_ten_seconds_are_there(clock):
    unread = Unread(10.0)
    for tick in range(3600 * 4):
        clock[0] = tick / 4
        unread.add(tick.to_bytes(4, 'little'))
    taken = list(unread.take())
    assert [second for second, _ in taken] == [3589.75 + tick / 4 for tick in range(41)]
    assert [int.from_bytes(raw, 'little') / 4 for _, raw in taken] == [second for second, _ in taken]
    assert list(unread.take()) == []


def test_a_storm_keeps_the_newest(clock):
    unread = Unread(10.0)
    for number in range(heard.MOST + 5):
        unread.add(number.to_bytes(4, 'little'))
    taken = [int.from_bytes(raw, 'little') for _, raw in unread.take()]
    assert taken == list(range(5, heard.MOST + 5))
