"""Backfills as people handle them: which tables over which links, ordered, measured, steered, and keys kept on disk.

An order stands at the link's target. Whoever replicates the link carries it out chunk by chunk (see ``pipeline``); nothing here
moves rows. Ordering twice is ordering once: an order for a whole table that is not done is given back as it is.
"""

from __future__ import annotations

import pickle
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from replicator.errors import LeaseError, SetupError
from replicator.model import (
    Backfill,
    BackfillState,
    Direction,
    Finding,
    Key,
    LinkName,
    Prefer,
    TableName,
    TablePlan,
)
from replicator.ports import Source, Target

CHUNK_ROWS = 10_000
_WINDOW_SECONDS = 30.0
"""Over how long the rate of a running backfill is taken."""
_IN_MEMORY = 1 << 20
"""Bytes of keys before they go to disk."""
_LONG_PAUSED_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Wish:
    """One table to be brought over one link. ``keys``: only these rows, in the link's source's spelling.

    ``turn``: of a table that goes both ways 1 to the centre, 2 back, when all that the site had has been decided; else 0.
    """

    link: LinkName
    table: TableName
    prefer: Prefer
    keys: Spool | None = None
    reason: str = ""
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Ordered:
    """A wish as it stands on record. ``known``: it was ordered before and is not done; it goes on as it was ordered then."""

    backfill: Backfill
    known: bool


def choose(
    links: Mapping[LinkName, Sequence[TablePlan]],
    tables: Sequence[str] = (),
    direction: Direction | None = None,
    prefer: Prefer = Prefer.POLICY,
    reason: str = "",
) -> list[Wish]:
    """What to bring: the tables called ``tables`` (names or globs, of either side; all when none), parents first per link.

    A table that goes both ways goes both ways here as well, unless ``direction`` names one: to the centre first, where the
    policy decides, and back in a second turn, because what comes from the centre replaces what the site has.

    Raises SetupError for a name that no link has, and where a table goes both ways and ``prefer`` would mean either side.
    """
    found = []
    for link, plans in links.items():
        if direction is not None and link.direction is not direction:
            continue
        for plan in plans:
            if not means(tables, plan):
                continue
            both = plan.direction is Direction.BOTH and direction is None
            if both:
                require_side(plan.source.name, prefer)
            turn = (1 if link.direction.rises else 2) if both else 0
            found.append(Wish(link, plan.source.name, prefer, reason=reason, turn=turn))
    for pattern in tables:
        if not any(means([pattern], plan) for plans in links.values() for plan in plans):
            known = sorted({str(plan.source.name) for plans in links.values() for plan in plans})
            raise SetupError(
                f"no captured table is called {pattern!r}", hint=f"tables are: {', '.join(known) or 'none'}"
            )
    return found


def in_turns(wishes: Sequence[Wish], unfinished: Iterable[Backfill]) -> list[list[Wish]]:
    """What is ordered at once, and what after that. A site whose second turn is on record already has had its first."""
    on_record = {(each.link, each.table) for each in unfinished}
    second = [wish for wish in wishes if wish.turn == 2]
    begun = {wish.link.site for wish in second} - {
        wish.link.site for wish in second if (wish.link, wish.table) not in on_record
    }
    first = [wish for wish in wishes if wish.turn == 0 or (wish.turn == 1 and wish.link.site not in begun)]
    return [turn for turn in (first, second) if turn]


def require_side(table: TableName, prefer: Prefer) -> None:
    """Raises SetupError unless what is preferred of a table that goes both ways is the same on both of its links."""
    if not prefer.asks:
        raise SetupError(
            f"{table} goes both ways: its source is the site on one link and the centre on the other",
            hint=f"with --prefer {prefer} say --direction to_centre or --direction from_centre",
        )


def means(tables: Sequence[str], plan: TablePlan) -> bool:
    """Whether names or globs mean a table, by its name on either side; none mean all."""
    return is_named(tables, plan.source.name, plan.target)


def is_named(tables: Sequence[str], *names: TableName) -> bool:
    """Whether names or globs mean one of a table's names; none mean all."""
    return not tables or any(fnmatchcase(str(name), pattern) for name in names for pattern in tables)


def order(
    source: Source, target: Target, wishes: Iterable[Wish], *, chunk_rows: int = CHUNK_ROWS, rate: int = 0
) -> list[Ordered]:
    """Put wishes of one link on record, in their order, and wake whoever replicates it. Repeatable, but for keyed ones."""
    before = {each.id for each in target.list_backfills(unfinished=True)}
    done = []
    for wish in wishes:
        estimate = source.estimate_rows(wish.table) if wish.keys is None else wish.keys.count
        backfill = target.order_backfill(
            wish.table, keys=wish.keys, prefer=wish.prefer, chunk_rows=chunk_rows, rate=rate, estimate=estimate,
            reason=wish.reason,
        )  # fmt: skip
        done.append(Ordered(backfill, backfill.id in before))
    if done:
        source.wake_others()
    return done


def give_up(target: Target, tables: Iterable[TableName], keep: Callable[[Backfill], bool]) -> None:
    """Cancel unfinished orders for whole tables, so that they are ordered anew: the rows one has passed would not come again.

    For whoever orders a table because changes of it were missed. ``keep``: which orders stay all the same.
    """
    wanted = set(tables)
    for each in target.list_backfills(unfinished=True):
        if each.table in wanted and not each.keyed and not keep(each):
            target.steer_backfill(each.id, BackfillState.CANCELLED)


def is_served(target: Target) -> bool:
    """Whether another replicator works on the link at this moment. Takes the lease when not: close the target."""
    try:
        target.take_lease()
    except LeaseError:
        return True
    return False


def steer(target: Target, state: BackfillState, tables: Sequence[str], plans: Sequence[TablePlan]) -> list[Backfill]:
    """Pause, continue or cancel a link's unfinished backfills of tables (all when none is named); those it was done to.

    Takes effect between two chunks.
    """
    wanted = {plan.source.name for plan in plans if means(tables, plan)}
    found = [
        each for each in target.list_backfills(unfinished=True) if each.table in wanted or is_named(tables, each.table)
    ]
    from_states = {
        BackfillState.PAUSED: (BackfillState.WAITING, BackfillState.RUNNING),
        BackfillState.RUNNING: (BackfillState.PAUSED,),
    }.get(state, tuple(BackfillState))
    return [each for each in found if each.state in from_states and target.steer_backfill(each.id, state)]


# --- progress ---


@dataclass(frozen=True, slots=True)
class Progress:
    """One backfill now. ``rate``: rows per second of late, ``left``: seconds; ``None`` where nobody can say."""

    backfill: Backfill
    rate: float | None = None
    left: float | None = None

    @property
    def expected(self) -> int:
        """About how many rows there are, never fewer than have come; exact once it is done."""
        if self.backfill.state is BackfillState.DONE:
            return self.backfill.rows
        return max(self.backfill.estimate, self.backfill.rows)


@dataclass(slots=True)
class Meter:
    """Turns what is on record, looked at again and again, into rates and times left."""

    clock: Callable[[], float] = time.monotonic
    _seen: dict[tuple[LinkName, int], deque[tuple[float, int]]] = field(default_factory=dict)

    def look(self, backfills: Iterable[Backfill]) -> list[Progress]:
        """Progress of each."""
        now = self.clock()
        return [self._progress(each, now) for each in backfills]

    def _progress(self, backfill: Backfill, now: float) -> Progress:
        seen = self._seen.setdefault((backfill.link, backfill.id), deque())
        seen.append((now, backfill.rows))
        while len(seen) > 2 and seen[0][0] < now - _WINDOW_SECONDS:
            seen.popleft()
        (began, first), running = seen[0], backfill.state is BackfillState.RUNNING
        rate = (backfill.rows - first) / (now - began) if running and now > began else None
        left = max(backfill.estimate - backfill.rows, 0) / rate if rate and backfill.estimate else None
        return Progress(backfill, rate, left)


def total(progress: Sequence[Progress]) -> Progress | None:
    """All of them as one; ``left`` counts those that wait their turn at the rate of those that run. None for none."""
    if not progress:
        return None
    rates = [each.rate for each in progress if each.rate]
    rows, expected = sum(each.backfill.rows for each in progress), sum(each.expected for each in progress)
    rate = sum(rates) if rates else None
    state = BackfillState.RUNNING if rates else progress[0].backfill.state
    whole = Backfill(0, progress[0].backfill.link, TableName("", "total"), state, estimate=expected, rows=rows)
    return Progress(whole, rate, (expected - rows) / rate if rate else None)


def average(backfill: Backfill, now_us: int) -> float | None:
    """Rows per second since it began, pauses included; None before that."""
    passed = ((backfill.finished_at or now_us) - backfill.started_at) / 1e6
    return backfill.rows / passed if backfill.started_at and passed > 0 else None


def find_lingering(backfills: Iterable[Backfill], now_us: int) -> Iterator[Finding]:
    """Backfills that are paused, or have not begun, for a day: until they are done, their tables are not whole."""
    for each in backfills:
        since = each.started_at or each.requested_at
        if each.unfinished and now_us - since > _LONG_PAUSED_US and each.state is not BackfillState.RUNNING:
            began = "paused" if each.state is BackfillState.PAUSED else "not begun"
            yield Finding(
                each.link.site, "backfill", False,
                f"{each.link}, {each.table}: {began} for more than a day, {each.rows:,} rows brought",
                f"replicator backfill continue --site {each.link.site}, or: replicator backfill cancel", warning=True,
            )  # fmt: skip


# --- keys ---


class Spool:
    """Keys in the order they came, on disk once they are many; iterable again and again. Close it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by close
        self.count = 0

    def add(self, key: Key) -> None:
        """Put a key behind the others."""
        pickle.dump(key, self._file, pickle.HIGHEST_PROTOCOL)
        self.count += 1

    def __iter__(self) -> Iterator[Key]:
        """All keys."""
        self._file.seek(0)
        for _ in range(self.count):
            yield pickle.load(self._file)
        self._file.seek(0, 2)

    def close(self) -> None:
        """Release the file. Repeatable."""
        self._file.close()
