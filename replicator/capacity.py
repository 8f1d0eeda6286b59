"""How large outboxes are, how long their room will last, and what is done when it ends.

A rate is never guessed: it is the way the outbox's own numbers went since a sample ten minutes to a day old, or, where there
is none, the rows that wait and the time of the oldest.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from replicator.errors import ReplicatorError, SetupError
from replicator.model import Cap, Finding, OutboxFacts, WhenFull
from replicator.ports import Outbox
from replicator.reasons import moment

_log = logging.getLogger(__name__)

_AT_ONCE = 8
_LOOK_SECONDS, _IDLE_SECONDS = 30.0, 300.0
_LEAST_SPAN, _LEAST_ROWS = 600.0, 1_000
_SOON_DAYS = 7.0
_FEW = 10_000
"""An outbox with fewer rows is not what fills the disk."""
_SILENT_SECONDS = 600.0
_DAY = 86_400.0


class Room(StrEnum):
    """How an outbox stands to its limits."""

    ENOUGH = "enough"
    SOON = "soon full"
    FULL = "full"
    STOPPED = "capture stopped"
    GAP = "to be resynced"
    """Capture was stopped for a while: what was written meanwhile is to be looked at."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """One place's outbox. ``per_second``, ``days``: ``None`` where nothing honest can be said.

    ``days``: how long its room lasts at that rate, should nothing be taken out of it. ``oldest_seconds``: age of its oldest
    change.
    """

    place: str
    room: Room
    rows: int | None
    bytes: int
    oldest_seconds: float | None
    per_second: float | None
    free: int | None
    days: float | None
    problem: str = ""
    hint: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nothing is lost, and nothing will be before somebody looks again."""
        return self.room in (Room.ENOUGH, Room.SOON)


def judge(place: str, facts: OutboxFacts, cap: Cap) -> Capacity:
    """What the facts mean. Pure."""
    oldest = (facts.clock - facts.oldest_changed_at) / 1e6 if facts.rows and facts.oldest_changed_at else None
    rate = _rate(facts, oldest)
    left = _left(facts, cap)
    each = facts.bytes / facts.rows if facts.rows and facts.rows >= _LEAST_ROWS else None
    days = None
    if left is not None and each is not None and rate:
        days = max(left, 0) / (rate * each) / _DAY
    room, problem, hint = _standing(place, facts, cap, left, days)
    return Capacity(place, room, facts.rows, facts.bytes, oldest, rate, facts.free, days, problem, hint)


def _rate(facts: OutboxFacts, oldest: float | None) -> float | None:
    span = (facts.clock - facts.sampled_at) / 1e6 if facts.sampled_at else 0.0
    if span >= _LEAST_SPAN:
        return max(facts.top - facts.sampled, 0) / span
    if oldest is not None and oldest >= _LEAST_SPAN and facts.rows and facts.rows >= _LEAST_ROWS:
        return facts.rows / oldest
    return None


def _left(facts: OutboxFacts, cap: Cap) -> int | None:
    """Bytes the outbox may still grow by."""
    limits = [left for left in _lefts(facts, cap) if left is not None]
    return min(limits) if limits else None


def _lefts(facts: OutboxFacts, cap: Cap) -> tuple[int | None, int | None]:
    """What ``max_size`` leaves, and what the disk does; ``None`` without a limit."""
    disk = None if facts.free is None else facts.free - cap.keep_free
    return cap.max_size - _held(facts) if cap.max_size else None, disk


def _standing(place: str, facts: OutboxFacts, cap: Cap, left: int | None, days: float | None) -> tuple[Room, str, str]:
    again = f"run: replicator install --site {place}, then: replicator resync --site {place}"
    if facts.stopped_at and not facts.resumed_at:
        problem = f"capture is stopped since {moment(facts.stopped_at)}: {facts.stop_reason}"
        return Room.STOPPED, problem, f"changes since then are not captured; make room, then {again}"
    if facts.stopped_at:
        problem = f"to be resynced since {moment(facts.stopped_at)}: {facts.stop_reason}"
        if facts.stopped_at != facts.resumed_at:
            problem += f"; capture was stopped until {moment(facts.resumed_at)}"
        return (
            Room.GAP,
            problem,
            f"what was written meanwhile is to be looked at; run: replicator resync --site {place}",
        )
    if left is not None and left < 0:
        return Room.FULL, f"the outbox is full: {_full(facts, cap)}", _make_room(facts, cap)
    if days is not None and days < _SOON_DAYS:
        return Room.SOON, f"its room lasts {days:.1f} days at the present rate", _make_room(facts, cap)
    return Room.ENOUGH, "", ""


def _held(facts: OutboxFacts) -> int:
    """Bytes that max_size limits: what is delivered is as good as gone."""
    return facts.bytes if facts.waiting is None else facts.waiting


def _is_too_large(facts: OutboxFacts, cap: Cap) -> bool:
    return bool(cap.max_size) and _held(facts) > cap.max_size


def _make_room(facts: OutboxFacts, cap: Cap) -> str:
    own, disk = _lefts(facts, cap)
    room = "raise max_size" if disk is None or (own is not None and own < disk) else "make room on its disk"
    away = facts.waiting and facts.clock - max(facts.heard_at, facts.oldest_changed_at) > _SILENT_SECONDS * 1e6
    return f"bring back the links that are away, or {room}" if away else f"run: replicator sync, or {room}"


def _full(facts: OutboxFacts, cap: Cap) -> str:
    if _is_too_large(facts, cap):
        return f"it takes {size(_held(facts))}, more than max_size {size(cap.max_size)}"
    return f"{size(facts.free or 0)} are free on its disk, less than keep_free {size(cap.keep_free)}"


def size(number: float) -> str:
    """Bytes for people, in units of 1024."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1024 or unit == "GB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError


def read_capacities(places: Iterable[str], opened: Callable[[str], Outbox], cap: Cap) -> list[Capacity]:
    """Every place's outbox, several at a time; places that do not answer, or have none yet, are left out: others tell why."""

    def read(place: str) -> Capacity | None:
        try:
            with closing(opened(place)) as outbox:
                facts = outbox.measure(count=True)
        except ReplicatorError as error:
            _log.debug("outbox of %s: %s", place, error)
            return None
        return judge(place, facts, cap) if facts is not None else None

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return [found for found in pool.map(read, places) if found is not None]


def check_outboxes(found: Iterable[Capacity]) -> Iterator[Finding]:
    """Outboxes as findings."""
    for each in found:
        lasts = f", room for {each.days:,.0f} days at the present rate" if each.days is not None else ""
        message = each.problem or f"{each.rows or 0:,} changes, {size(each.bytes)}{lasts}"
        warning = each.room in (Room.SOON, Room.FULL, Room.GAP)
        yield Finding(each.place, "outbox", each.room is Room.ENOUGH, message, each.hint, warning=warning)


class Guard:
    """Keeps one place's outbox within its limits while a replicator works, also while the other end is away. Thread-safe.

    Args:
        place: a site's name, or the centre's.
        opened: opens the outbox; kept open.
        cap: its limits.
        central: the outbox is the centre's: its slowest link is given up, capture goes on for the others.
    """

    def __init__(self, place: str, opened: Callable[[], Outbox], cap: Cap, *, central: bool) -> None:
        self._place, self._open, self._cap, self._central = place, opened, cap, central
        self._lock = threading.Lock()
        self._next = 0.0
        self._top = -1
        self._told = ""

    def look(self, tidy: Callable[[], None] = lambda: None) -> str:
        """Measure, at most twice a minute and less often while nothing is captured; what there is to say, empty for nothing.

        ``tidy``: writes acknowledgements put off and prunes; called before a full outbox is judged.

        Raises what the database raises; the next look is then as far away.
        """
        with self._lock:
            if time.monotonic() < self._next:
                return self._told
            self._next = time.monotonic() + _LOOK_SECONDS
            with closing(self._open()) as outbox:
                self._told = self._keep(outbox, tidy)
            return self._told

    def _keep(self, outbox: Outbox, tidy: Callable[[], None]) -> str:
        facts = outbox.measure()
        if facts is None:
            return ""
        if facts.top == self._top:
            self._next = time.monotonic() + _IDLE_SECONDS
        self._top = facts.top
        outbox.sample()
        standing = judge(self._place, facts, self._cap)
        if standing.room is Room.FULL:
            tidy()
            facts = outbox.measure(count=True) or facts
            standing = judge(self._place, facts, self._cap)
        if standing.room is not Room.FULL or self._cap.when_full is WhenFull.WARN:
            return f"{standing.problem}; {standing.hint}" if standing.problem else ""
        if (facts.rows or 0) < _FEW and not _is_too_large(facts, self._cap):
            return f"{standing.problem}; it holds few changes, something else fills the disk"
        if self._central:
            link = outbox.expire_slowest(_SILENT_SECONDS)
            return f"{standing.problem}; " + (
                f"link {link} is waited for no more and must rejoin" if link else "no link has been away for long"
            )
        try:
            instead = outbox.stop_capture(_full(facts, self._cap))
        except SetupError as error:
            return f"{standing.problem}; capture cannot be stopped: {error.message}"
        return f"{standing.problem}; {instead or 'capture is stopped, the site must be resynced'}"
