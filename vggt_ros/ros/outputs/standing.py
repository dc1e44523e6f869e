"""How things stand: from what the window said last to what is true now, with the age of everything in mind."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vggt_ros.pipeline import WindowResult, current_state
from vggt_ros.ros.counters import Counts
from vggt_ros.types import PosedFrame, State

BUSY = 5.0  # seconds that a window may take before anybody wonders, and
LATENCIES = 3.0  # how many times the latest window's latency


@dataclass(frozen=True)
class Standing:
    """state: what is true. reasons: why, in words. failed: something does not work, the camera is not merely lost.

    silence: why there is no image to look at, empty when there is.
    """

    state: State
    reasons: tuple[str, ...] = ()
    failed: bool = False
    silence: str = ''

    @property
    def message(self) -> str:
        """The reasons in one line."""
        return '; '.join(self.reasons)

    def with_reason(self, reason: str) -> Standing:
        """The same with one reason more, unless that is empty."""
        return replace(self, reasons=(*self.reasons, reason), failed=True) if reason else self


@dataclass(frozen=True)
class Activity:
    """What else decides how things stand.

    counts: of the present activation. began: when it did, or went on after a pause, monotonic seconds. topics: of the
    images. image_timeout: seconds without an image after which the place is no longer known. every_frame: images may
    wait for their turn, so that as long as something is solved nothing is missing. paused: by service. complaints: what
    went wrong lately. first_wait: seconds for which the first images may wait for their camera_info.
    """

    counts: Counts
    began: float
    topics: tuple[str, ...]
    image_timeout: float
    every_frame: bool = False
    paused: bool = False
    complaints: tuple[str, ...] = ()
    first_wait: float = 0.0


def judge(result: WindowResult, located: PosedFrame | None, activity: Activity, now: float) -> Standing:
    """How an active node stands. result: of the newest window. located: the image located last. now: monotonic s."""
    counts = activity.counts
    state = current_state(result.state, located, activity.paused)
    if activity.paused:
        return Standing(state)
    if text := _silence(activity, now):
        return Standing(State.INITIALIZING if counts.last_seen is None else State.LOST, (text,), True, text)
    camera, network = counts.failures['camera'], counts.failures['network']
    if camera.in_row:
        return Standing(State.LOST, (camera.reason,), True)
    carried = counts.last_located is not None and now - counts.last_located < activity.image_timeout
    if network.in_row:
        return Standing(_without_network(state, carried), (network.reason,), True)
    latency = 0.0 if math.isnan(counts.latency) else counts.latency
    if counts.busy_since is not None and (busy := now - counts.busy_since) > max(BUSY, LATENCIES * latency):
        if counts.windows:  # the first one may have to compile or to fetch much
            text = f'the network has not answered for {busy:.0f} s'
            return Standing(_without_network(state, carried), (text,), True)
        return Standing(state, (*result.reasons, f'the first window takes its time: {busy:.0f} s so far'))
    return Standing(state, result.reasons)


def _without_network(state: State, carried: bool) -> State:
    """Of a node whose windows do not come: the camera's thread may carry the pose on for a while."""
    return State.DEGRADED if carried and state is not State.LOST else State.LOST


def _silence(activity: Activity, now: float) -> str:
    """Why there is nothing to look at, empty when there is."""
    counts, topics = activity.counts, ' or '.join(activity.topics)
    work: tuple[float | None, ...] = ()
    if activity.every_frame:
        if counts.busy_since is not None:
            return ''
        work = (counts.last_seen, counts.last_solved)
    silent = _since(now, activity.began, counts.last_received, *work)
    if silent > activity.image_timeout:
        known = [text for text in activity.complaints if any(topic in text for topic in activity.topics)]
        why = '; '.join(known) or 'is it published, with a matching QoS?'
        return f'no image for {silent:.0f} s on {topics}: {why}'
    blind = _since(now, activity.began, counts.last_seen, *work)
    if blind > activity.image_timeout + (activity.first_wait if counts.last_seen is None else 0.0):
        why = '; '.join(activity.complaints) or 'see /diagnostics'
        return f'no image of use for {blind:.0f} s on {topics}: {why}'
    return ''


def _since(now: float, *times: float | None) -> float:
    """Seconds since the last of these times; None is never."""
    return now - max(time for time in times if time is not None)
