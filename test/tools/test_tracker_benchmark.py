"""The plain tracker of the benchmark is the same network."""

import numpy as np
import torch

from vggt_ros.tools import tracker_benchmark


def test_the_plain_tracker_says_the_same():
    ours, plain, difference = tracker_benchmark.measure(3, 9, (140, 154), torch.device('cpu'), 2)
    assert len(ours) == len(plain) == 2
    assert min(*ours, *plain) > 0
    assert difference < 1e-3


def test_the_table_has_the_ratio_of_the_medians():
    lines = tracker_benchmark.table([3.0, 1.0, 2.0], [4.0, 8.0, 5.0], 1.5e-4)
    assert '| 5.000 s | 1 |' in lines[2]
    assert '| 2.000 s | 0.40 |' in lines[3]
    assert '1.5e-04 px' in lines[-1]
    assert np.all([line.count('|') == 4 for line in lines[:4]])
