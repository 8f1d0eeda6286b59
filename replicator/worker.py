"""One link's loop: contact, move batches until nothing is left, mend what is parked, wait, start again.

A worker never gives up: a database that is away is tried again with jittered, growing pauses; an error that needs a
person is said once per change and tried again slowly, so that mending the cause is enough. One worker is one thread
and touches no other link (invariant 9).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum

from replicator.errors import ReplicatorError, RetryableError, SchemaError, StaleError
from replicator.model import Chunk, LinkName, Outcome
from replicator.pipeline import heal, run_once
from replicator.ports import Source, Target

_FIRST_PAUSE, _LONGEST_PAUSE, _PERSON_PAUSE = 0.2, 30.0, 30.0
_FIRST_HEALING, _LONGEST_HEALING = 1.0, 600.0
_TRIES = 8
"""How often a drain runs into another link's locks before it gives up."""
_BREATH = 0.5
"""Seconds a drain sleeps at most between two looks at the changes, while a backfill waits because of its rate."""
_REPLANS = 3
"""How often in a row a link is planned anew because tables have changed, before a person is waited for."""
_NAMED = 5
"""Parked rows of a batch that a report names."""
_QUEUES = 1_000
"""Parked rows tried in one go."""


class LinkState(StrEnum):
    """What a link's worker is doing."""

    STARTING = "starting"
    MOVING = "moving"
    WAITING = "waiting"
    RETRYING = "retrying"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LinkReport:
    """A worker's state at one moment; counters since the worker started. ``healed``: parked rows applied after all.

    ``rows``: the newest of the rows that were parked or healed last, as table and key. ``loaded``: rows that backfills brought.
    ``outbox``: what there is to say of the outbox the link reads; empty while it has room.
    ``news``: what changed in the link's tables, and what is held because of it, when it was planned last.
    """

    link: LinkName
    state: LinkState = LinkState.STARTING
    batches: int = 0
    changes: int = 0
    net: int = 0
    conflicts: int = 0
    parked: int = 0
    healed: int = 0
    error: str = ""
    retries: int = field(default=0)
    rows: tuple[str, ...] = ()
    loaded: int = 0
    outbox: str = ""
    news: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a link.

    ``news``: what was found when it was planned, such as columns that are held. ``same``: whether the tables are as they were
    then.
    """

    source: Source
    target: Target
    news: tuple[str, ...] = ()
    same: Callable[[], bool] = lambda: True

    def close(self) -> None:
        """Release both."""
        self.source.close()
        self.target.close()


class Worker:
    """Moves one link's changes.

    Args:
        link: the link.
        connect: opens both ends; called at the start and again after every error, then with true: tables may have changed.
        batch_changes: about how many changes make a batch.
        listen: called with a new report whenever something happened (from the worker's thread).
        slot: held while the centre is used; when it is not free, the worker waits its turn.
        keep_open: keep a target at the centre connected while idle (false when links outnumber connections; a source at
            the centre is told so itself).
        contact_seconds: how often an idle link proves that both sides answer.
        guard: looks after the outbox the link reads, whether or not the target answers; what there is to say of it. Called only
            by ``run``, with what writes acknowledgements put off and prunes.
    """

    def __init__(
        self,
        link: LinkName,
        connect: Callable[[bool], Ends],
        *,
        batch_changes: int,
        listen: Callable[[LinkReport], None] = lambda report: None,
        slot: AbstractContextManager[object] | None = None,
        keep_open: bool = True,
        contact_seconds: float = 60.0,
        guard: Callable[[Callable[[], None]], str] = lambda tidy: "",
    ) -> None:
        self._connect = connect
        self._ends: Ends | None = None
        self._failed = False
        self._batch_changes = batch_changes
        self._listen = listen
        self._slot = slot or nullcontext()
        self._keep_open = keep_open
        self._contact_seconds = contact_seconds
        self._guard = guard
        self._contacted = 0.0
        self._mark = ""
        self._healing = _Healing()
        self._pace = _Pace()
        self._stop = threading.Event()
        self.report = LinkReport(link)

    # --- once ---

    def drain(self) -> LinkReport:
        """Move batches until the source has nothing more; raises what the databases raise. Used by ``sync``.

        A batch that met another link's in a deadlock is run again; so is, once, one whose tables have changed.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                with self._slot:
                    ends = self._open()
                    self._contact(ends, 0.0)
                    self._move(ends, patient=True)
                    self._heal(ends)
                    ends.source.tidy()
                break
            except StaleError:
                if not tries_left:
                    raise
                self._stop.wait(_FIRST_PAUSE * random.uniform(0.5, 1.5))
            except SchemaError:
                if tries_left <= _TRIES - _REPLANS:
                    raise
                self._failed = True
            finally:
                self._close()
        return self.report

    def _open(self) -> Ends:
        if self._ends is None:
            self._ends = self._connect(self._failed)
            self._failed = False
            self._contacted = 0.0
            self._mark = ""
            if self._ends.news:
                self._say(news=self._ends.news)
        return self._ends

    def _contact(self, ends: Ends, every: float) -> bool:
        """Prove that both ends answer, unless that was done less than ``every`` seconds ago; whether it was done."""
        if self._contacted and time.monotonic() - self._contacted < every:
            return False
        identity = ends.source.read_identity()  # first, so that both are connected when the clocks are read
        position, stamp = ends.target.read_position(), ends.target.read_stamp()
        before = ends.target.read_clock()
        clock = ends.source.read_clock()
        skew = clock - (before + ends.target.read_clock()) // 2
        try:
            proven = ends.source.prove_history(position, stamp, ends.target.read_identity())
        except ReplicatorError:
            ends.target.record_contact(identity, skew)  # says more when it is another database altogether
            raise
        ends.target.record_contact(identity, skew, proven=proven)
        self._require_same_tables(ends)
        self._contacted = time.monotonic()
        return True

    def _require_same_tables(self, ends: Ends) -> None:
        """Notice tables that have changed since the link was planned. Raises SchemaError: it is planned anew."""
        mark = f"{ends.source.read_schema_mark()} {ends.target.read_schema_mark()}"
        known, self._mark = self._mark, mark
        # The first mark may be that of tables which have changed between the planning and now.
        if known != mark if known else not ends.same():
            self._mark = ""
            raise SchemaError(
                "tables of this link have changed; it is planned anew", hint="run: replicator schema diff"
            )

    def _move(self, ends: Ends, *, patient: bool = False) -> bool:
        """Move batches until nothing is left; whether rows changed.

        Where a backfill has to wait because of its rate, changes go on without it; ``patient``: the wait is sat out here.
        """
        changed = False
        while not self._stop.is_set():
            load = not self._pace.rest()
            outcome = run_once(ends.source, ends.target, self._batch_changes, load=load)
            if outcome is not None:
                self._count(outcome, ends.target)
                changed = changed or bool(outcome.net or outcome.parked)
                self._healing.stuck = self._healing.stuck or bool(outcome.parked)
                if outcome.chunk is not None:
                    self._pace.brought(outcome.chunk, ends.target)
                if outcome.more or outcome.chunk is not None:
                    continue
            if load or not patient:
                return changed
            self._stop.wait(min(self._pace.rest(), _BREATH))
        return changed

    def _heal(self, ends: Ends) -> None:
        """Try what is parked again: a missing parent, or the holder of a unique value, may have gone its way."""
        done = heal(ends.target, _QUEUES)
        self._healing.tried(done.healed, done.refused)
        if done.healed:
            self._say(healed=self.report.healed + done.healed, rows=done.rows)

    def _count(self, outcome: Outcome, target: Target) -> None:
        was, rows = self.report, list[str]()
        if outcome.parked:
            newest = target.list_parked(limit=min(outcome.parked, _NAMED))
            rows = [f"{change.table} {change.key}" for change in newest]
        self._say(
            state=LinkState.MOVING, batches=was.batches + 1, changes=was.changes + outcome.changes, net=was.net + outcome.net,
            conflicts=was.conflicts + outcome.conflicts, parked=was.parked + outcome.parked, error="", retries=0,
            rows=tuple(rows), loaded=was.loaded + (outcome.chunk.rows if outcome.chunk else 0),
        )  # fmt: skip

    def _say(self, **changes: object) -> None:
        self.report = replace(self.report, **changes)  # type: ignore[arg-type]  # fields are the report's own
        self._listen(self.report)

    # --- for ever ---

    def run(self) -> None:
        """Work until ``stop``; the batch in hand is finished first."""
        while not self._stop.is_set():
            try:
                ends = self._turn()
                if self.report.state is not LinkState.WAITING:
                    self._say(state=LinkState.WAITING, error="", retries=0)
                if not self._stop.is_set():
                    pause = self._pace.rest() or self._contact_seconds
                    ends.source.wait(min(pause, self._contact_seconds, self._healing.rest()))
            except ReplicatorError as error:
                self._pause_after(error)
        self._close()
        self._say(state=LinkState.STOPPED)

    def _turn(self) -> Ends:
        with self._slot:
            ends = self._open()
            asked = self._contact(ends, self._contact_seconds)
            if (self._move(ends) or asked or self._healing.stuck) and self._healing.due():
                self._heal(ends)
            if not self._keep_open and self.report.link.direction.rises:
                ends.target.close()
        self._tend()
        return ends

    def _tend(self) -> None:
        """See that the outbox keeps within its limits; what there is to say of it is said once."""
        ends = self._ends
        told = self._guard(ends.source.tidy if ends is not None else lambda: None)
        if told != self.report.outbox:
            self._say(outbox=told)

    def _pause_after(self, error: ReplicatorError) -> None:
        """Drop the connections (their state is unknown) and wait: longer each time, and never in step with others."""
        retries = self.report.retries + 1
        self._close()
        self._failed = True
        with suppress(ReplicatorError):  # an outbox that does not answer either: the error in hand says enough
            self._tend()
        self._say(state=LinkState.RETRYING, error=str(error), retries=retries)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(retries - 1, 16))
        soon = isinstance(error, RetryableError) or (isinstance(error, SchemaError) and retries <= _REPLANS)
        pause = longest if soon else _PERSON_PAUSE
        self._stop.wait(pause * random.uniform(0.5, 1.0))

    def _close(self) -> None:
        ends, self._ends = self._ends, None
        if ends is not None:
            ends.close()

    def stop(self) -> None:
        """Ask the worker to end after the batch in hand. Thread-safe, repeatable."""
        self._stop.set()
        ends = self._ends
        if ends is not None:
            ends.source.wake()


class _Healing:
    """When parked rows are tried again.

    At most once a second while there are none or they go in; while none of them goes in, after a pause that doubles each
    time, up to ten minutes, so that rows that wait for a person cost next to nothing.
    """

    def __init__(self) -> None:
        self._pause, self._next = _FIRST_HEALING, 0.0
        self.stuck = False

    def due(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self._next

    def rest(self) -> float:
        """Seconds a link may sleep for the sake of its parked rows."""
        return max(self._next - time.monotonic(), _FIRST_PAUSE) if self.stuck else _LONGEST_HEALING

    def tried(self, healed: int, refused: int) -> None:
        """Set the next time."""
        hopeless = bool(refused and not healed)
        self._pause = min(2 * self._pause, _LONGEST_HEALING) if hopeless else _FIRST_HEALING
        self._next = time.monotonic() + self._pause
        self.stuck = bool(refused)


class _Pace:
    """When the next chunk of a backfill may be asked for, so that no more rows come in a second than its rate allows."""

    def __init__(self) -> None:
        self._next = 0.0

    def rest(self) -> float:
        """Seconds until then; 0 when it may be now."""
        return max(self._next - time.monotonic(), 0.0)

    def brought(self, chunk: Chunk, target: Target) -> None:
        """Count a chunk that came: its rows use up their share of time, from when the last share was over."""
        rate = next((each.rate for each in target.list_backfills(unfinished=True) if each.id == chunk.backfill), 0)
        now = time.monotonic()
        self._next = max(self._next, now) + chunk.rows / rate if rate else now
