"""What can go wrong on a link, put between the pipeline and the real ends: crashes at any gap, lost and doubled messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from replicator import ports
from replicator.model import Position

_CONTEXTS = frozenset({"read_batch", "transaction", "savepoint"})
_UNSTEPPED = frozenset({"close", "wait", "wake", "read_lag"})


class CrashError(BaseException):
    """The replicator's process ends here. Not an Exception: nothing of ours may catch it and go on."""


class Gaps:
    """Counts the gaps between two calls; raises CrashError at one of them (0: never)."""

    def __init__(self, crash_at: int = 0) -> None:
        self.met = 0
        self._crash_at = crash_at

    def meet(self) -> None:
        """One more gap."""
        self.met += 1
        if self.met == self._crash_at:
            raise CrashError


class _Stepped:
    """An end whose every step has a gap before and after it; a context manager, around entering and leaving."""

    def __init__(self, inner: Any, port: type, meet: Callable[[], None]) -> None:
        self._inner, self._meet = inner, meet
        self._steps = {name for name in vars(port) if not name.startswith("_")} - _UNSTEPPED

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._steps or not callable(found):
            return found
        if name in _CONTEXTS:
            return lambda *given: self._around(found, given)

        def step(*given: Any) -> Any:
            self._meet()
            result = found(*given)
            self._meet()
            return result

        return step

    @contextmanager
    def _around(self, found: Callable[..., Any], given: tuple[Any, ...]) -> Iterator[Any]:
        self._meet()
        with found(*given) as inner:
            self._meet()
            yield _Blocks(inner, self._meet) if hasattr(inner, "blocks") else inner
            self._meet()
        self._meet()


class _Blocks:
    """A batch with a gap before every block."""

    def __init__(self, inner: Any, meet: Callable[[], None]) -> None:
        self._inner, self._meet = inner, meet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def blocks(self) -> Iterator[Any]:
        for block in self._inner.blocks():
            self._meet()
            yield block
        self._meet()


class _Acknowledging:
    """A source whose acknowledgements arrive at once, twice, or never, and so do not depend on the time of day."""

    def __init__(self, inner: Any, times: int) -> None:
        self._inner, self._times = inner, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def acknowledge_batch(self, upto: Position) -> None:
        for _ in range(self._times):
            self._inner.acknowledge_batch(upto)
            self._inner.tidy()


def faulty_source(source: ports.Source, gaps: Gaps, acknowledgements: int = 1) -> ports.Source:
    """The source with gaps and so many acknowledgements for each."""
    return cast(ports.Source, _Stepped(_Acknowledging(source, acknowledgements), ports.Source, gaps.meet))


def faulty_target(target: ports.Target, gaps: Gaps) -> ports.Target:
    """The target with gaps."""
    return cast(ports.Target, _Stepped(target, ports.Target, gaps.meet))
