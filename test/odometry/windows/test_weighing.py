"""Depth weighs as much as it has shown to be worth."""

import numpy as np
import pytest

from vggt_ros.odometry.windows.covariance import SurfaceNoise
from vggt_ros.odometry.windows.weighing import LEAST_INDEPENDENT, RefineConfig
from vggt_ros.types import Accuracy


def test_depth_that_fits_is_believed_as_declared():
    usual = RefineConfig.of(Accuracy())
    assert usual.seen(0.0) == usual
    assert usual.seen(usual.surface / 2) == usual


def test_depth_that_does_not_fit_weighs_less_the_worse_it_is():
    usual = RefineConfig.of(Accuracy())
    some, wild = usual.seen(0.2), usual.seen(3.0)
    assert (some.surface, some.independent) == (0.2, pytest.approx(usual.independent / 4))
    assert (wild.surface, wild.independent) == (3.0, LEAST_INDEPENDENT)
    assert some.pixel == wild.pixel == usual.pixel


def test_the_surface_is_judged_by_the_middle_of_the_latest_images():
    noise = SurfaceNoise()
    assert noise.spread == 0
    for spread in (0.1, np.nan, 5.0, 0.1):
        noise.learn(spread)
    assert noise.spread == pytest.approx(0.1)  # one image tells little, and one that could not tell nothing
    for _ in range(5):
        noise.learn(0.4)
    assert noise.spread == pytest.approx(0.4)
