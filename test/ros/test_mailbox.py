"""What waits for a thread: newest first gone, or bounded in items and bytes."""

import threading

import pytest

pytest.importorskip('rclpy')

from vggt_ros.ros.mailbox import Mailbox, Room


def test_live_only_the_newest_wait():
    mailbox = Mailbox(2)
    assert [mailbox.offer(i) for i in range(4)] == [0, 0, 1, 1]
    assert mailbox.put(4) == 1
    assert mailbox.take() == [3, 4]


@pytest.mark.parametrize(
    ('room', 'kept'), [(Room(3, 10**9, len), 3), (Room(100, 35, len), 3), (Room(100, 0, len), 1), (Room(1, 40, len), 1)]
)
def test_what_waits_is_bounded_in_items_and_bytes_and_one_always_fits(room, kept):
    mailbox = Mailbox(1, room)
    assert [mailbox.offer(bytes(10)) for _ in range(5)] == [0] * kept + [1] * (5 - kept)
    for _ in range(kept):
        assert mailbox.take() == [bytes(10)]
    assert mailbox.offer(bytes(10)) == 0
    assert mailbox.clear() == 1
    assert [mailbox.offer(bytes(10)) for _ in range(5)] == [0] * kept + [1] * (5 - kept)


def test_a_batch_always_finds_room():
    mailbox = Mailbox(4, Room(2, 5, len))
    for _ in range(4):
        assert mailbox.put(bytes(10)) == 0
    assert mailbox.offer(b'') == 1
    assert len(mailbox.take()) == 4


def test_put_waits_for_room_and_nothing_is_dropped():
    mailbox = Mailbox(1, Room(2, 10**9, lambda item: 1))
    taken = []

    def consume():
        while (batch := mailbox.take()) is not None:
            taken.extend(batch)

    def produce():
        for item in range(500):
            assert mailbox.put(item) == 0

    producer, consumer = threading.Thread(target=produce), threading.Thread(target=consume)
    producer.start()
    producer.join(0.05)
    assert producer.is_alive()
    consumer.start()
    producer.join(60)
    while len(taken) < 500:
        consumer.join(0.01)
    mailbox.close()
    consumer.join(60)
    assert taken == list(range(500))
    assert mailbox.put(1) == 0
    assert mailbox.offer(1) == 0
