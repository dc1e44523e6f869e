"""Whether an image belongs to the camera that is followed, told by its stamp and frame id alone.

One image of another time is a fault and is refused: the map is worth more than it is. Several in a row, of which each
follows the other, are what has become of the camera: a bag that begins anew, a driver that was started again, a clock
that was set. Images that take turns with those of the camera are another camera's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar('T')

SECOND = 1_000_000_000  # ns
BELIEVED = 3  # images in a row of another time, after which it is the camera's
GAP = 10 * SECOND  # ns: further ahead without a passing of time that explains it, the map begins anew
STEPS = 10  # a camera that is so many of its usual steps late has only paused
PATIENCE = 2.0  # s after the last image for which doubtful ones wait for more of their kind, or for the camera to go on
TURNS = 3  # times that images of another source have come between those of the camera, until it is said
APART = 30  # images in a row after which another source is forgotten


@dataclass(frozen=True, eq=False)
class Verdict(Generic[T]):
    """What becomes of images. accepted: oldest first. refused: how many. restarted: whether the accepted begin anew.

    kind, text: what a person should know, empty when nothing.
    """

    accepted: Sequence[T] = ()
    refused: int = 0
    restarted: bool = False
    kind: str = ''
    text: str = ''


@dataclass(eq=False)
class _Source(Generic[T]):
    """Where images come from, as its newest shows. stamp: ns. received: monotonic s. step: usual ns from image to
    image, 0 before the second. held: what waits for a verdict.
    """

    frame_id: str
    first: int
    stamp: int
    received: float
    step: int = 0
    count: int = 1
    held: deque[T] = field(default_factory=lambda: deque(maxlen=BELIEVED))

    def continues(self, stamp: int, frame_id: str, received: float, allowance: int) -> bool:
        """Whether an image is this source's next. allowance: ns that it may be late without an explanation."""
        if frame_id != self.frame_id or stamp <= self.stamp:
            return False
        if self.count == 1:
            return True  # nothing is known of its pace
        passed = round((received - self.received) * SECOND)
        return stamp - self.stamp <= passed + max(allowance, STEPS * self.step)

    def add(self, stamp: int, received: float) -> None:
        """Its next image."""
        step = stamp - self.stamp
        self.step = step if self.count == 1 else round(0.8 * self.step + 0.2 * step)
        self.stamp, self.received, self.count = stamp, received, self.count + 1


class Timeline(Generic[T]):
    """Follows one camera through its stamps. For one thread at a time.

    max_time_jump: ns; a stamp further back, or ahead without as much time having passed, is of another time.
    """

    def __init__(self, max_time_jump: int) -> None:
        self._jump = max_time_jump
        self._camera: _Source[T] | None = None
        self._other: _Source[T] | None = None
        self._turns = 0  # how often the other was interrupted by the camera
        self._alone = 0  # images of the camera since

    def judge(self, item: T, stamp: int, frame_id: str, received: float) -> Verdict[T]:
        """An image that came. stamp: ns. received: monotonic s."""
        camera = self._camera
        if camera is None:
            self._camera = _Source(frame_id, stamp, stamp, received)
            return Verdict((item,))
        if camera.continues(stamp, frame_id, received, self._jump):
            verdict = self._go_on(item)
            camera.add(stamp, received)
            return verdict
        if frame_id == camera.frame_id:
            back = camera.stamp - stamp
            if back == 0:
                return _repeated(stamp)
            if 0 < back <= self._jump:
                text = f'an image is {back / SECOND:.3f} s older than the one before it; dropped'
                return Verdict(refused=1, kind='stamp back', text=text)
        return self._doubt(item, stamp, frame_id, received)

    def _go_on(self, item: T) -> Verdict[T]:
        other = self._other
        if other is None:
            self._alone += 1
            if self._alone > APART:
                self._turns = 0
            return Verdict((item,))
        self._turns, self._alone = self._turns + 1, 0
        kind, text = 'time jump', f'{self._where(other)}; dropped, for those after it are as before'
        if self._turns >= TURNS:
            kind, text = 'two sources', f'images of two sources take turns; {self._where(other)}; dropped'
        self._other = None
        return Verdict((item,), len(other.held), kind=kind if other.held else '', text=text)

    def _doubt(self, item: T, stamp: int, frame_id: str, received: float) -> Verdict[T]:
        camera, other = self._camera, self._other
        assert camera is not None
        refused, kind, text = 0, '', ''
        if other is not None and other.continues(stamp, frame_id, received, self._jump):
            refused = len(other.held) == BELIEVED
            other.add(stamp, received)
        elif other is not None and (stamp, frame_id) == (other.stamp, other.frame_id):
            return _repeated(stamp)
        else:
            if other is not None and other.held:
                refused, kind = len(other.held), 'time jump'
                text = f'{self._where(other)}; dropped, for the next are of yet another time'
            other = self._other = _Source(frame_id, stamp, stamp, received)
        other.held.append(item)
        if not self._is_the_camera(other, received):
            return Verdict(refused=refused, kind=kind, text=text)
        return self._follow(other, refused, kind, text)

    def _is_the_camera(self, other: _Source[T], now: float) -> bool:
        """Whether this is what has become of the camera. now: monotonic s."""
        camera = self._camera
        assert camera is not None
        # The faster of two sources that take turns may have several images in a row.
        few = other.count < BELIEVED or 2 * (other.stamp - other.first) < 3 * min(camera.step, SECOND)
        # Of two that are known the camera may be late for once; it must have gone.
        late = self._turns >= TURNS and now - camera.received < PATIENCE
        return not few and not late

    def _follow(self, other: _Source[T], refused: int = 0, kind: str = '', text: str = '') -> Verdict[T]:
        """From now on it is the camera, and what waits is of use."""
        camera = self._camera
        assert camera is not None
        restarted = other.frame_id != camera.frame_id or not 0 < other.first - camera.stamp <= max(GAP, self._jump)
        words = f'{self._where(other)}, and so are those after it: the map begins anew' if restarted else ''
        accepted = tuple(other.held)
        other.held.clear()
        self._camera, self._other = other, None
        return Verdict(accepted, refused, restarted, 'time jump' if restarted else kind, words or text)

    def _where(self, other: _Source[T]) -> str:
        camera = self._camera
        assert camera is not None
        if other.frame_id != camera.frame_id:
            return f'an image is of the frame {other.frame_id!r}, not {camera.frame_id!r}'
        ahead = (other.first - camera.stamp) / SECOND
        return f'the stamp of an image jumps {"ahead" if ahead > 0 else "back"} by {abs(ahead):.1f} s'

    def settle(self, now: float) -> Verdict[T]:
        """Images that have waited long enough for the camera are its, those that have for more of their kind refused.

        now: monotonic s.
        """
        other = self._other
        if other is None or not other.held:
            return Verdict()
        if self._is_the_camera(other, now):
            return self._follow(other)
        if now - other.received < PATIENCE:
            return Verdict()
        refused = len(other.held)
        other.held.clear()
        return Verdict(refused=refused, kind='time jump', text=f'{self._where(other)}; dropped, none came after it')

    def interrupt(self) -> None:
        """What waits is of no use any more; the camera goes on."""
        self._other = None


def _repeated(stamp: int) -> Verdict:
    hint = ': the camera driver does not stamp its images' if stamp == 0 else ''
    return Verdict(
        refused=1, kind='stamp repeated', text=f'an image repeats the stamp of the one before{hint}; dropped'
    )
