"""Every input ends as its class demands: read, read with what was assumed, read but for what is counted, or refused."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from inputs import CASES, COUNTED, READ, REFUSED, table

from vggt_ros.files.errors import SequenceError
from vggt_ros.files.opening import open_sequence
from vggt_ros.ros.inputs.images import to_rgb

GUIDE = Path(__file__).parents[2] / 'docs' / 'guides' / 'recordings.md'
ALL = [case for _, cases in CASES.values() for case in cases]


@pytest.mark.parametrize('case', ALL, ids=lambda case: case.what)
def test_an_input_becomes_what_the_guide_says(case, tmp_path):
    place = case.make(tmp_path) or tmp_path
    if case.result == REFUSED:
        with pytest.raises(SequenceError, match=case.words) as refusal:
            list(open_sequence(place))
        assert '\n' not in str(refusal.value)
        assert str(tmp_path) in str(refusal.value)
        return
    sequence = open_sequence(place, topic=case.topic)
    items = list(sequence)
    assert case.count is None or len(items) == case.count
    with suppress(TypeError):  # of a video whose container does not count
        assert len(items) + sequence.lost == len(sequence)
    assert (sequence.lost > 0) == (case.result == COUNTED)
    said = sequence.damaged if case.result == COUNTED else sequence.notes
    assert case.result == READ or any(re.search(case.words, text) for text in said), said
    assert case.result != READ or not said
    stamps = [item.stamp for item in items]
    assert stamps == sorted(set(stamps))
    assert stamps[0] > 0
    assert all(to_rgb(item.image).max() > 60 for item in items), 'no picture is black'


def test_the_guide_has_the_table():
    assert table() in GUIDE.read_text(), 'run python test/files/inputs.py and put what it prints into the guide'
