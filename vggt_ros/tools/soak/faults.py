"""What a fault is: something that happens to a node, and what it must say then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from vggt_ros.tools.soak.stage import Stage


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    story: in words. says: what the node must say, in words; must: channel of the journal -> pattern of it.
    run: makes it happen, until its ``with`` ends; raises FaultError for what must not be. within: seconds from then on
    in which it must be said. lasts: seconds that it lasts at least. back: seconds after its end in which the node must
    be back at work. epochs: most times that the map may begin anew for it, None: any.
    """

    name: str
    story: str
    run: Callable[[Stage], AbstractContextManager[None]]
    says: str = 'nothing: it goes on'
    must: Mapping[str, str] = field(default_factory=dict)
    within: float = 6.0
    lasts: float = 3.0
    back: float = 20.0
    epochs: int | None = None


def fault(
    says: str = Fault.says,
    must: Mapping[str, str] | None = None,
    *,
    within: float = Fault.within,
    lasts: float = Fault.lasts,
    back: float = Fault.back,
    epochs: int | None = Fault.epochs,
) -> Callable[[Callable[[Stage], Iterator[None]]], Fault]:
    """Make a fault of a generator: its name is the fault's, its docstring the story."""

    def make(generator: Callable[[Stage], Iterator[None]]) -> Fault:
        story = ' '.join((generator.__doc__ or '').split()).rstrip('.')
        run = contextmanager(generator)
        return Fault(generator.__name__, story, run, says, must or {}, within, lasts, back, epochs)

    return make


def both(state: str, reason: str, level: str = '(WARN|ERROR)') -> dict[str, str]:
    """Patterns: the status is in this state and gives this reason, so do the diagnostics."""
    return {'status': f'^{state} .*{reason}', 'diagnostics': f'^{level} .*{reason}'}


def warned(reason: str) -> dict[str, str]:
    """Pattern: the diagnostics name the reason."""
    return {'diagnostics': f'^(WARN|ERROR) .*{reason}'}
