"""Makes a failing history short: steps, and actions in steps, are left out while it still fails in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from replicator.simulate.steps import Move, Step, Write

Fails = Callable[[Sequence[Step]], bool]


def shrink(
    steps: Sequence[Step], fails: Fails, seconds: float, clock: Callable[[], float] = time.monotonic
) -> list[Step]:
    """A history that still fails, from which nothing can be left out, or as far as one got in ``seconds``."""
    deadline = clock() + seconds
    best = list(steps)
    size = max(len(best) // 2, 1)
    while clock() < deadline:
        found = _without(best, size, fails, deadline, clock)
        if len(found) < len(best):
            best = found
        elif size > 1:
            size //= 2
        elif (simpler := _simpler(best, fails, deadline, clock)) is not None:
            best = simpler
        else:
            break
    return best


def _without(steps: list[Step], size: int, fails: Fails, deadline: float, clock: Callable[[], float]) -> list[Step]:
    """The history without the groups of so many steps that it can do without; the last ones are tried first."""
    start = (len(steps) - 1) // size * size
    while start >= 0 and clock() < deadline:
        shorter = steps[:start] + steps[start + size :]
        if shorter and fails(shorter):
            steps = shorter
        start -= size
    return steps


def _simpler(steps: list[Step], fails: Fails, deadline: float, clock: Callable[[], float]) -> list[Step] | None:
    """The history with one step made simpler; None when that is not to be had."""
    for place, step in enumerate(steps):
        for easier in _easier(step):
            if clock() > deadline:
                return None
            changed = [*steps[:place], easier, *steps[place + 1 :]]
            if fails(changed):
                return changed
    return None


def _easier(step: Step) -> Iterator[Step]:
    if isinstance(step, Move) and step.fault:
        yield replace(step, fault="", at=0)
    if isinstance(step, Move) and step.limit != 1000:
        yield replace(step, limit=1000)
    if isinstance(step, Write) and len(step.actions) > 1:
        for place in range(len(step.actions)):
            yield replace(step, actions=step.actions[:place] + step.actions[place + 1 :])
