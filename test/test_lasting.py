"""Arrays in pages of their own."""

import mmap
import weakref

import numpy as np
import pytest

from vggt_ros.lasting import LEAST, MOST, Lasting, lasting


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.int32, bool])
def test_a_copy_that_is_equal_and_can_be_written(dtype):
    array = np.random.default_rng(0).integers(0, 2, (300, 200)).astype(dtype)
    found = lasting(array[::2])
    np.testing.assert_array_equal(found, array[::2])
    assert found.dtype == array.dtype
    assert found.flags.writeable
    assert found.flags.c_contiguous
    found[:] = 0
    assert array[::2].any()


def test_small_and_large_ones_stay():
    for count in (LEAST - 1, MOST):
        array = np.zeros(count, np.uint8)
        assert lasting(array) is array


def test_what_has_its_pages_stays_and_a_part_of_it_gets_its_own():
    whole = lasting(np.arange(2 * LEAST, dtype=np.uint8))
    assert lasting(whole) is whole
    part = lasting(whole[:LEAST])
    assert part.base is not whole
    np.testing.assert_array_equal(part, whole[:LEAST])


def test_the_pages_go_with_the_array(monkeypatch):
    made = []

    class Watched(mmap.mmap):
        def __new__(cls, *arguments):
            one = super().__new__(cls, *arguments)
            made.append(weakref.ref(one))
            return one

    monkeypatch.setattr('vggt_ros.lasting.mmap.mmap', Watched)
    found = lasting(np.ones(LEAST, np.uint8))
    part = found[: LEAST // 2]
    del found
    assert made[0]() is not None
    del part
    assert made[0]() is None


def test_attributes():
    class Thing(Lasting):
        pass

    thing, array = Thing(), np.ones(LEAST, np.uint8)
    thing.values, thing.name = array, 'x'
    assert thing.values is not array
    assert thing.name == 'x'
    thing.values[3] = 0
    assert array[3] == 1
