"""Which keyframes may show the place where the camera is, and whether a window with them says that they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vggt_ros.odometry.keyframe import Keyframe
from vggt_ros.odometry.loops.place_index import Candidate, LoopConfig, PlaceIndex
from vggt_ros.odometry.loops.verification import Decision, DepthView, Evidence, LoopVerifier, conflict, moved
from vggt_ros.odometry.windows.alignment import Alignment, AlignmentError
from vggt_ros.odometry.windows.placing import align_keyframes
from vggt_ros.odometry.windows.window import Window
from vggt_ros.types import WindowPrediction

LOOP_GUESTS = 2  # keyframes of one place that join a window: one alone does not show whether they agree
LOST_GUESTS = 3  # the same for a camera that is lost
AROUND = 5  # keyframes around a place that tell what it looks like

DriftFrom = Callable[[int], np.ndarray]
"""Index of a keyframe -> (7, 7) how far the odometry may have drifted since."""


class Recognition:
    """The places of one map. capacity: keyframes remembered.

    candidate: the place that the next window is compared with, if any.
    """

    def __init__(self, capacity: int) -> None:
        self._places = PlaceIndex(LoopConfig(capacity=capacity))
        self._verifier = LoopVerifier()
        self.candidate: Candidate | None = None

    def doubt(self) -> None:
        """The last windows have no say about the next one."""
        self._verifier.clear()

    def index(self, keyframes: Sequence[Keyframe], worthwhile: Callable[[int], bool], latest: Keyframe) -> None:
        """Remember new keyframes, forget those that are gone, and see whether the newest shows a place met before.

        worthwhile: whether a loop with the keyframe of this index would tell anything. latest: where the camera is; of
        several places the nearest is the likeliest.
        """
        at = {keyframe.frame.index: keyframe for keyframe in keyframes}
        for index in set(self._places.indices) - set(at):
            self._places.remove(index)
        for index in sorted(set(at) - set(self._places.indices)):
            candidates = self._places.add(index, at[index].descriptor)
            found = [one for one in candidates if worthwhile(one.index)]
            if found:
                self.candidate = min(found, key=lambda one: _apart(at[one.index], latest))

    def alike(self, keyframes: Sequence[Keyframe], query: np.ndarray) -> list[Keyframe]:
        """A keyframe of each place that looks like the query, a descriptor."""
        at = {keyframe.frame.index: keyframe for keyframe in keyframes}
        return [at[index] for index in self._places.alike(query) if index in at]

    def guests(self, keyframes: Sequence[Keyframe], query: np.ndarray | None = None) -> list[Keyframe]:
        """The keyframes that join the next window: the candidate and its nearest neighbours in time.

        query: the descriptor of the newest frame of a camera that is lost, which may be anywhere.
        """
        count = LOOP_GUESTS
        if query is not None:
            found = self._places.relocalise(query) if len(self._places) else ()
            self.candidate, count = (found[0] if found else None), LOST_GUESTS
        at = {keyframe.frame.index: number for number, keyframe in enumerate(keyframes)}
        if self.candidate is None or self.candidate.index not in at:
            self.candidate = None
            return []
        number = at[self.candidate.index]
        near = sorted(range(len(keyframes)), key=lambda other: (abs(other - number), other))
        return [keyframes[one] for one in near[:count]]

    def judge(
        self,
        window: Window,
        prediction: WindowPrediction,
        keyframes: Sequence[Keyframe],
        own: Sequence[Keyframe],
        query: Keyframe,
        recent: Alignment,
        drift: DriftFrom | None,
    ) -> tuple[Decision, Evidence]:
        """Whether the guests of this window show where the camera is.

        keyframes: of the map; own: of the map that the odometry goes on in, the same unless the camera is lost; query:
        the newest frame, recent: the window, both in that map. drift: None when it is unknown.
        Raises AlignmentError when the guests do not say where the window lies.
        """
        assert self.candidate is not None
        at = {keyframe.frame.index: keyframe for keyframe in keyframes}
        names = [window.frames[slot].index for slot in window.guest_slots]
        if not at.keys() >= {*names, self.candidate.index}:
            raise AlignmentError('the map has forgotten the place meanwhile')
        guests, candidate = [at[index] for index in names], at[self.candidate.index]
        evidence = Evidence(
            candidate=self.candidate.index,
            T_map_candidate=candidate.T_map_camera,
            T_map_query=query.T_map_camera,
            recent=recent,
            loop=align_keyframes(guests, window.guest_slots, prediction),
            depth=candidate.median_depth,
            drift=None if drift is None else drift(self.candidate.index),
            conflict=(0.0, 0),
            rivals=[at[index].T_map_camera for index in self.candidate.rivals if index in at],
        )
        here = [moved(_view(one), evidence.correction) for one in (*own[-AROUND + 1 :], query)]
        there = [_view(one) for one in sorted(keyframes, key=lambda one: _apart(one, candidate))[:AROUND]]
        evidence = replace(evidence, conflict=conflict(here, there))
        return self._verifier.judge(evidence), evidence


def _view(keyframe: Keyframe) -> DepthView:
    return DepthView(keyframe.T_map_camera, keyframe.K, keyframe.depth)


def _apart(a: Keyframe, b: Keyframe) -> float:
    return float(np.linalg.norm(a.T_map_camera[:3, 3] - b.T_map_camera[:3, 3]))
