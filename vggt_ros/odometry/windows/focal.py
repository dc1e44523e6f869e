"""The focal length that the network sees: a start where no other is known, else compared with what is."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import WindowPrediction

WINDOWS = 3  # that have to agree
TOLERANCE = 0.05  # relative error of a focal length that does no harm
DOUBTED = 2.0  # standard deviations from which on a focal length is taken for another one
SUREST = 0.005  # log of an unknown focal length, standard deviation
REMEMBERED = 50  # windows in the mean of what the network guesses


class FocalEstimate(NamedTuple):
    """What the corners of a window say about the focal length of its frames' K. log: of the factor that it lacks.
    information: inverse of the variance of that, 0 where they say nothing.
    """

    log: float
    information: float


class OneLens:
    """The focal length of a camera that nobody has calibrated: one for all of its images.

    The network's guesses scatter, and the mean of many still errs as the network does: by as much as it says (sigma,
    relative), or TOLERANCE. What corners say, who see a focal length where the camera turns and moves (Pollefeys
    et al., Self-Calibration and Metric Reconstruction, 1999), adds up, and in the end overrules it.
    """

    def __init__(self, sigma: float) -> None:
        self._sigma = max(sigma, TOLERANCE)
        self.reset()

    def reset(self) -> None:
        """It may be another camera from now on."""
        self._size: tuple[int, int] | None = None  # of the source image
        self._guessed, self._windows = 0.0, 0  # mean log of the network's, in source pixels, and of how many windows
        self._pull, self._information = 0.0, 0.0  # of the corners: sum of the log by its information, and that
        self._log: float | None = None  # of the focal length that is used, in source pixels

    def hear(self, window: Window, prediction: WindowPrediction) -> None:
        """What the network says of a window's new frames, where nobody has given them a K."""
        new = [slot for slot in window.new_slots if window.frames[slot].K is None]
        if not new:
            return
        sources = [prediction.maps[slot].K_to_source(prediction.K[slot]) for slot in new]
        with np.errstate(invalid='ignore'):
            guesses = [np.log(K[0, 0] * K[1, 1]) / 2 for K in sources]
        if window.frames[new[-1]].size != self._size:
            self.reset()
            self._size = window.frames[new[-1]].size
        if np.isfinite(guesses).any():
            self._windows += 1
            share = 1 / min(self._windows, REMEMBERED)
            self._guessed += share * (float(np.nanmedian(guesses)) - self._guessed)
            self._settle(window)

    def given(self, window: Window, prediction: WindowPrediction) -> Window:
        """The window with this lens in the K of its frames where nobody has given one to the new ones; the same window
        where K is known, or where nobody has told anything of the lens.
        """
        if self._log is None or all(window.frames[slot].K is not None for slot in window.new_slots):
            return window
        frames = list(window.frames)
        for slot in range(len(frames) - window.companions):
            middle = prediction.maps[slot].K_to_source(prediction.K[slot])[:2, 2]
            if not np.isfinite(middle).all():
                middle = (np.array(frames[slot].size) - 1) / 2
            K = np.diag([np.exp(self._log), np.exp(self._log), 1.0])
            K[:2, 2] = middle
            frames[slot] = replace(frames[slot], K=K)
        return replace(window, frames=tuple(frames), focal_sigma=self.sigma)

    def learn(self, window: Window, found: FocalEstimate | None) -> None:
        """What the corners of a window say, whose K were of this lens; None for nothing. Neighbouring windows see the
        same corners.
        """
        if found is None or self._log is None:
            return
        share = window.new / max(window.new + window.anchors, 1)
        self._pull += share * found.information * (self._log_of(window) + found.log)
        self._information += share * found.information
        # Autofocus moves it: what was said long ago fades.
        faded = max(self._information * SUREST**2, 1.0)
        self._pull, self._information = self._pull / faded, self._information / faded
        self._settle(window)

    def _log_of(self, window: Window) -> float:
        K = window.frames[window.new_slots[-1]].K
        assert K is not None
        return float(np.log(K[0, 0]))

    def _settle(self, window: Window) -> None:
        """What a map began with stays as long as it may be right, for what was built with it cannot be bent after."""
        network = self._sigma**-2
        found = (network * self._guessed + self._pull) / (network + self._information)
        if self._log is None or not window.anchors or abs(found - self._log) > DOUBTED * self.sigma:
            self._log = found

    @property
    def sigma(self) -> float:
        """How sure it is: standard deviation of the log of the focal length."""
        return float((self._sigma**-2 + self._information) ** -0.5)


class FocalCheck:
    """Compares the predicted with the given focal length, window by window.

    sigma: relative standard deviation of the network's own focal length, common to all windows.
    """

    def __init__(self, sigma: float) -> None:
        self._bound = max(TOLERANCE, 3 * sigma)
        self._ratios: deque[float] = deque(maxlen=WINDOWS)

    def reset(self) -> None:
        """Forget the windows so far."""
        self._ratios.clear()

    def update(self, window: Window, prediction: WindowPrediction) -> str:
        """What is wrong with the calibration, in words; empty when nothing is, or it is not known yet."""
        ratios = []
        for slot in window.new_slots if not window.focal_sigma else ():
            K = window.frames[slot].K
            if K is not None:
                given = prediction.maps[slot].K_to_network(K)
                with np.errstate(invalid='ignore', divide='ignore'):
                    ratios.append(np.log(prediction.K[slot][0, 0] / given[0, 0]))
        if not ratios:
            return ''
        self._ratios.append(float(np.median(ratios)))
        typical = float(np.median(self._ratios))
        if len(self._ratios) < WINDOWS or not abs(typical) > self._bound:
            return ''
        return (
            f'the focal length in camera_info seems wrong: the network sees one {np.expm1(typical):+.0%} from it;'
            ' check the calibration, the zoom, and whether the images were resized without their camera_info'
        )
