"""The window's size: smaller while the device lacks memory, larger again when it has gone well."""

from vggt_ros.odometry.windows.size import LEAST, MOST_PATIENCE, PATIENCE, WindowSize


def windows_until_growth(size):
    before, count = size.frames, 0
    while size.frames == before:
        size.fitted()
        count += 1
    return count


def test_it_stays_as_configured_while_all_goes_well():
    size = WindowSize(8)
    for _ in range(3 * PATIENCE):
        size.fitted()
    assert size.frames == 8


def test_half_and_back_in_steps_within_what_is_configured():
    size = WindowSize(14)
    size.too_large(14)
    assert size.frames == 7
    size.too_large(7)
    assert size.frames == LEAST
    size.too_large(3)
    assert size.frames == LEAST
    sizes = []
    for _ in range(4 * MOST_PATIENCE):
        size.fitted()
        sizes.append(size.frames)
    assert sorted(set(sizes)) == [3, 6, 12, 14]
    assert sizes == sorted(sizes)


def test_a_window_that_was_not_full_counts_as_it_was():
    size = WindowSize(12)
    size.too_large(8)
    assert size.frames == 4


def test_who_meets_the_same_limit_again_waits_twice_as_long():
    size, waited = WindowSize(8), []
    for _ in range(8):
        size.too_large(8)
        assert size.frames == 4
        waited.append(windows_until_growth(size))
        assert size.frames == 8
    assert waited == [min(PATIENCE * 2**k, MOST_PATIENCE) for k in range(8)]


def test_after_a_long_quiet_patience_is_as_at_first():
    size = WindowSize(8)
    size.too_large(8)
    windows_until_growth(size)
    size.too_large(8)
    assert windows_until_growth(size) == 2 * PATIENCE
    for _ in range(2 * PATIENCE):
        size.fitted()
    size.too_large(8)
    assert windows_until_growth(size) == PATIENCE
