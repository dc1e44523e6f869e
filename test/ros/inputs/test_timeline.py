"""Which images are the camera's, by their stamps alone."""

import pytest

pytest.importorskip('rclpy')

from vggt_ros.ros.inputs.timeline import APART, GAP, SECOND, Timeline

STEP = 100_000_000
START = 1_700_000_000 * SECOND


class Watch:
    """A timeline and what it has said; images are their numbers."""

    def __init__(self, max_time_jump=SECOND):
        self.timeline = Timeline(max_time_jump)
        self.now = 0.0
        self.sent = self.refused = 0
        self.accepted, self.restarts, self.said = [], [], []

    def image(self, stamp, frame_id='eye', passed=STEP / SECOND):
        self.now += passed
        self.sent += 1
        self.note(self.timeline.judge(stamp, stamp, frame_id, self.now))

    def images(self, *stamps, **options):
        for stamp in stamps:
            self.image(stamp, **options)

    def note(self, verdict):
        if verdict.restarted:
            self.restarts.append(verdict.accepted[0])
        self.accepted += verdict.accepted
        self.refused += verdict.refused
        if verdict.kind:
            self.said.append((verdict.kind, verdict.text))

    @property
    def kinds(self):
        return [kind for kind, _ in self.said]


def steps(first, count, step=STEP):
    return [first + i * step for i in range(count)]


@pytest.fixture
def watch():
    return Watch()


def test_a_camera_is_followed_at_any_pace_and_through_pauses(watch):
    stamps = [*steps(START, 20), *steps(START + 60 * SECOND, 20, STEP // 7), *steps(START + 70 * SECOND, 20, 3 * STEP)]
    for before, stamp in zip([stamps[0], *stamps], stamps, strict=False):
        watch.image(stamp, passed=(stamp - before) / SECOND)
    assert watch.accepted == stamps
    assert (watch.restarts, watch.said, watch.refused) == ([], [], 0)


def test_a_bag_as_fast_as_it_can_be_read(watch):
    for stamp in steps(START, 50, 30 * SECOND):  # pictures of half a minute each
        watch.image(stamp, passed=0.001)
    assert len(watch.accepted) == 50
    assert watch.restarts == []


@pytest.mark.parametrize('jump', [-2 * SECOND, -3600 * SECOND, 3600 * SECOND, -START, 10 * 365 * 86400 * SECOND])
def test_one_image_of_another_time_loses_nothing_but_itself(watch, jump):
    watch.images(*steps(START, 10), START + 10 * STEP + jump, *steps(START + 11 * STEP, 10))
    assert watch.accepted == [*steps(START, 10), *steps(START + 11 * STEP, 10)]
    assert (watch.restarts, watch.refused, watch.kinds) == ([], 1, ['time jump'])
    assert f'{"ahead" if jump > 0 else "back"} by {abs(jump + STEP) / SECOND:.1f} s' in watch.said[0][1]


@pytest.mark.parametrize('jump', [-2 * SECOND, -3600 * SECOND, 3600 * SECOND, -START])
def test_three_images_of_another_time_are_believed_and_none_is_lost(watch, jump):
    first, second = steps(START, 10), steps(START + 10 * STEP + jump, 10)
    watch.images(*first, *second[:2])
    assert watch.accepted == first
    watch.images(*second[2:])
    assert watch.accepted == first + second
    assert (watch.restarts, watch.refused, watch.kinds) == ([second[0]], 0, ['time jump'])
    assert 'the map begins anew' in watch.said[0][1]


def test_images_of_many_times_are_all_refused(watch):
    watch.images(*steps(START, 5))
    watch.images(*(START - (i * i % 7) * 1000 * SECOND - i * 1000 for i in range(1, 30)))
    assert watch.restarts == []
    watch.images(*steps(START + 40 * STEP, 5))
    assert watch.accepted == [*steps(START, 5), *steps(START + 40 * STEP, 5)]
    assert watch.refused == watch.sent - 10


def test_a_gap_that_nothing_explains_is_waited_out_and_the_map_stays(watch):
    stamps = [*steps(START, 10), *steps(START + GAP, 10)]
    for stamp in stamps:
        watch.image(stamp, passed=0.001)
    assert watch.accepted == stamps
    assert (watch.restarts, watch.refused) == ([], 0)


@pytest.mark.parametrize('offset', [-5 * SECOND, 5 * SECOND, -1000 * SECOND, 1000 * SECOND])
@pytest.mark.parametrize('others', [1, 2, 4])  # images of the other camera for one of ours
def test_of_two_that_take_turns_the_first_is_kept(watch, offset, others):
    ours = steps(START, 60)
    watch.images(*ours[:5])
    for stamp in ours[5:]:
        for i in range(others):
            watch.image(stamp + offset + i * STEP // others, passed=STEP / SECOND / (others + 1))
        watch.image(stamp, passed=STEP / SECOND / (others + 1))
    assert watch.accepted == ours
    assert watch.restarts == []
    assert watch.refused == 55 * others
    assert watch.kinds[-1] == 'two sources'
    assert set(watch.kinds[-20:]) == {'two sources'}


def test_of_two_that_take_turns_the_first_may_be_late_but_not_gone(watch):
    ours, others = steps(START, 40), steps(START - 1000 * SECOND, 80)
    for one, other in zip(ours[:10], others[:10], strict=True):
        watch.images(one, other, passed=0.05)
    watch.images(*others[10:29])  # 1.9 s
    assert (watch.accepted, watch.restarts) == (ours[:10], [])
    watch.images(*ours[29:])
    assert (watch.accepted, watch.restarts) == ([*ours[:10], *ours[29:]], [])
    for one, other in zip(steps(ours[-1] + STEP, 10), others[40:50], strict=True):
        watch.images(one, other, passed=0.05)
    before = len(watch.accepted)
    watch.images(*others[50:])
    assert watch.restarts == [watch.accepted[before]]
    assert others[66] <= watch.accepted[before] <= others[70]
    assert watch.accepted[-1] == others[-1]
    assert watch.sent == len(watch.accepted) + watch.refused


def test_what_has_waited_for_the_camera_is_of_use(watch):
    ours, others = steps(START, 10), steps(START - 1000 * SECOND, 20)
    for one, other in zip(ours, others, strict=False):
        watch.images(one, other, passed=0.05)
    watch.images(*others[10:16])
    watch.note(watch.timeline.settle(watch.now))
    assert watch.restarts == []
    watch.note(watch.timeline.settle(watch.now + 1.6))
    assert watch.restarts == [others[13]]
    assert watch.accepted == [*ours, *others[13:16]]
    assert watch.sent == len(watch.accepted) + watch.refused


def test_cameras_are_told_apart_by_their_frames(watch):
    ours = steps(START, 40)
    for stamp in ours:
        watch.image(stamp, 'left', passed=0.05)
        watch.image(stamp + 1000, 'right', passed=0.05)
    assert watch.accepted == ours
    assert watch.kinds[-1] == 'two sources'
    assert "the frame 'right', not 'left'" in watch.said[-1][1]
    # The left one is unplugged.
    theirs = steps(ours[-1] + 2 * STEP, 30)
    watch.images(*theirs, frame_id='right')
    assert watch.restarts == [theirs[17]]  # the third before two seconds were over
    assert watch.accepted == [*ours, *theirs[17:]]


def test_two_sources_are_forgotten(watch):
    stamps = steps(START, 200)
    for i, stamp in enumerate(stamps):
        watch.image(stamp)
        if i % (2 * APART) == 0:
            watch.image(stamp - 1000 * SECOND)
    assert set(watch.kinds) == {'time jump'}


def test_late_and_repeated_images(watch):
    watch.images(START, START + STEP, START + STEP // 2, START + STEP, START + 2 * STEP)
    assert watch.accepted == [START, START + STEP, START + 2 * STEP]
    assert watch.kinds == ['stamp back', 'stamp repeated']
    assert '0.050 s older' in watch.said[0][1]


def test_a_driver_that_does_not_stamp(watch):
    watch.images(0, 0, 0, 0)
    assert watch.accepted == [0]
    assert all(kind == 'stamp repeated' and 'does not stamp' in text for kind, text in watch.said)
    stamped = Watch()
    stamped.images(*steps(START, 5), 0, 0, 0, 0, *steps(START + 9 * STEP, 5))
    assert len(stamped.accepted) == 10
    assert stamped.restarts == []
    assert any('does not stamp' in text for _, text in stamped.said)


def test_what_waits_in_vain_is_refused_and_the_next_still_count(watch):
    watch.images(*steps(START, 5))
    lonely = steps(START - 100 * SECOND, 3, 5 * SECOND)
    for stamp in lonely:
        watch.image(stamp, passed=5.0)
        watch.note(watch.timeline.settle(watch.now + 1.0))
        watch.note(watch.timeline.settle(watch.now + 2.5))
    assert watch.accepted == [*steps(START, 5), lonely[2]]
    assert watch.restarts == [lonely[2]]
    assert watch.refused == 2
    watch.note(watch.timeline.settle(watch.now + 60.0))
    assert watch.refused == 2


def test_every_image_gets_one_verdict(watch):
    """Whatever comes: accepted or refused, once, but for those that still wait."""
    import random

    chance = random.Random(3)
    stamp = START
    for _ in range(5000):
        stamp = chance.choice(
            [stamp + STEP, stamp + STEP, stamp + STEP, stamp, stamp - STEP, 0, START]
        ) + chance.choice([0] * 9 + [100 * SECOND, -20 * SECOND])
        watch.image(max(stamp, 0), chance.choice(['eye'] * 9 + ['ear']), passed=chance.random())
        if chance.random() < 0.1:
            watch.note(watch.timeline.settle(watch.now + 3.0))
    watch.note(watch.timeline.settle(watch.now + 3.0))
    assert len(watch.accepted) + watch.refused == watch.sent
    assert watch.refused
    assert len(watch.restarts) > 5
