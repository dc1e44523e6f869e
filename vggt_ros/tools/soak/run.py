"""A soak: fault after fault, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vggt_ros.tools.soak.faults import Fault
from vggt_ros.tools.soak.stage import FaultError, Stage

LOCATED, PROCESSED = 5, 2  # images after which the node is at work (again)
CALM = 5.0  # seconds between two faults in which it must be at work, at least
START = 60.0  # seconds in which a fresh node must be at work


@dataclass(frozen=True)
class Verdict:
    """What became of a fault.

    time, end: seconds of the run at which it began, and at which the node was back at work or was given up.
    said, back: seconds until all that must be said was, and from the fault's end until the node was back at work;
    None: never.
    anew: how often the map began anew beyond what the fault may cause. problems: what else was wrong. remarks: what
    else there is to say.
    """

    fault: Fault
    time: float
    end: float
    said: float | None
    back: float | None
    anew: int
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.problems and not self.anew

    @property
    def found(self) -> tuple[str, ...]:
        """All that there is to say."""
        anew = (f'the map began anew {self.anew} times',) if self.anew else ()
        return (*self.problems, *anew, *self.remarks)


def works(stage: Stage, seconds: float) -> float | None:
    """Seconds until the node is at work, with images located and solved since now; None when it never is."""
    begin, before = time.monotonic(), stage.watcher.work

    def at_work() -> bool:
        done = stage.watcher.work.since(before)
        return done.located >= LOCATED and done.processed >= PROCESSED and stage.at_work

    return time.monotonic() - begin if stage.wait(seconds, at_work) else None


def suffer(stage: Stage, fault: Fault) -> Verdict:
    """Let it happen and judge."""
    stage.mark()
    stage.remarks.clear()
    begun, before = stage.time, stage.watcher.work
    problems: list[str] = []
    said: float | None = None

    def look() -> bool:
        nonlocal said
        times = [stage.journal.first(channel, pattern, stage.began) for channel, pattern in fault.must.items()]
        if None not in times:
            said = max((at - stage.began for at in times if at is not None), default=None)
        return None not in times

    try:
        with fault.run(stage):
            heard = stage.wait(fault.within, look)
            stage.wait(fault.lasts - (time.monotonic() - stage.began))
            if not heard:
                missing = [c for c, p in fault.must.items() if stage.journal.first(c, p, stage.began) is None]
                problems += [f'{channel} said {_heard(stage, channel)}' for channel in missing]
    except (FaultError, OSError) as error:
        problems.append(str(error))
    back = works(stage, fault.back)
    if back is None:
        problems.append(f'not back at work: {_state(stage)}')
    ends = [text for text in stage.journal.texts('process', stage.began) if text.startswith('ended')]
    if ends and 'process' not in fault.must:
        problems.append(f'the node {", ".join(ends)}')
    epochs = stage.watcher.work.since(before).epochs
    anew = 0 if fault.epochs is None else max(0, epochs - fault.epochs)
    return Verdict(fault, begun, stage.time, said, back, anew, tuple(problems), tuple(stage.remarks))


def endure(stage: Stage, fault: Fault) -> Verdict:
    """As :func:`suffer`, but a fault of which nothing is wrong except that the map began anew comes a second time.

    A network that loses the place by itself now and then does so beside a fault as well, though hardly twice.
    """
    verdict = suffer(stage, fault)
    if not verdict.anew or verdict.problems:
        return verdict
    works(stage, 2 * START)
    again = suffer(stage, fault)
    return replace(
        again, time=verdict.time, remarks=(*again.remarks, 'the second time; at the first the map began anew')
    )


def _heard(stage: Stage, channel: str) -> str:
    texts = dict.fromkeys(stage.journal.texts(channel, stage.began))
    return '; '.join(f'"{text.strip()[:80]}"' for text in list(texts)[-3:]) or 'nothing'


def _state(stage: Stage) -> str:
    return f'ended with {stage.node.code}' if stage.node.code is not None else _heard(stage, 'status')


def run(stage: Stage, faults: Sequence[Fault], seconds: float, patience: float) -> Iterator[Verdict]:
    """All of them, spread over so many seconds at least. patience: by what times are multiplied on a slow machine.

    Each verdict comes when it is reached, the last one before the time is up. Raises FaultError when the node does not
    even begin.
    """
    first = works(stage, START * patience)
    if first is None:
        raise FaultError(f'the node does not begin: {_state(stage)}\n' + '\n'.join(stage.node.last_lines))
    print(f'at work after {first:.1f} s', flush=True)
    begin = stage.time
    for index, fault in enumerate(faults):
        stage.wait(begin + (seconds - begin) * index / len(faults) - stage.time)
        works(stage, 2 * START * patience)  # a camera that is lost just now would be blamed on the fault
        verdict = endure(stage, replace(fault, within=patience * fault.within, back=patience * fault.back))
        if verdict.back is None:
            stage.restart_node()
        stage.wait(CALM)
        yield verdict
    stage.wait(seconds - stage.time)


def tell(verdict: Verdict) -> None:
    """Print it in a line, and what there is to say below."""
    mark = 'ok ' if verdict.passed else 'RED'
    times = ', '.join(
        f'{what} {f"{value:.1f} s" if value is not None else "-"}'
        for what, value in (('said', verdict.said), ('back', verdict.back))
    )
    print(
        f'{verdict.time:6.0f} s  {mark}  {verdict.fault.name:18} {times}',
        *verdict.found,
        sep='\n              ',
        flush=True,
    )
