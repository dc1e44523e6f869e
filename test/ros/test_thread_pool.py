"""Threads that are used again: torch and CUDA remember every one that has computed."""

import gc
import threading
import weakref

import pytest

pytest.importorskip('rclpy')

from vggt_ros.ros.thread_pool import ThreadPool


@pytest.fixture
def threads():
    return ThreadPool('moon')


def test_one_thread_does_one_thing_after_the_other(threads):
    used = {threads.submit(threading.get_ident).result(10) for _ in range(100)}
    assert len(used) == 1
    assert threading.get_ident() not in used


def test_work_waits_for_no_other_work(threads):
    go = threading.Event()
    hangs = [threads.submit(go.wait) for _ in range(3)]
    assert threads.submit(lambda: 'done').result(10) == 'done'
    assert not any(future.done() for future in hangs)
    go.set()
    assert all(future.result(10) for future in hangs)
    before = threading.active_count()
    for _ in range(4):
        threads.submit(lambda: None).result(10)
    assert threading.active_count() == before


def test_what_is_raised_is_raised_where_the_result_is_asked_and_the_thread_goes_on(threads):
    def fall():
        raise SystemExit('the moon falls')

    used = threads.submit(threading.get_ident).result(10)
    with pytest.raises(SystemExit, match='the moon falls'):
        threads.submit(fall).result(10)
    assert threads.submit(threading.get_ident).result(10) == used


def test_an_idle_thread_holds_nothing_of_what_it_did(threads):
    class Moon:
        pass

    given, made = Moon(), threads.submit(Moon).result(10)
    threads.submit(lambda moon: None, given).result(10)
    gone = weakref.ref(given), weakref.ref(made)
    del given, made
    gc.collect()
    assert [moon() for moon in gone] == [None, None]
