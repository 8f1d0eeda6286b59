"""Rows that were there before: the order to bring them over a link, how far it got, and one chunk of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from replicator.model.catalogue import TableName
from replicator.model.plan import LinkName
from replicator.model.words import Direction, Key


class Prefer(StrEnum):
    """Whose row stands where a backfill finds another row at the target than at the source."""

    POLICY = "policy"
    """The table's policy decides, as for an insert that meets a row."""
    OWN = "own"
    """The site's row where the centre's was last written by this very site; else the table's policy."""
    SOURCE = "source"
    TARGET = "target"

    @property
    def asks(self) -> bool:
        """Whether the table's policy decides, at least about some rows."""
        return self in (Prefer.POLICY, Prefer.OWN)


class BackfillState(StrEnum):
    """State of a backfill."""

    WAITING = "waiting"
    """Ordered; no chunk has been brought."""
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Backfill:
    """An order to bring the rows a table has already over one link, kept at the link's target.

    ``table`` is the plan's source table. ``behind``: the key of the last row brought, as the source spells it (``None``: none
    yet); it moves in the transaction that applies the chunk. ``keyed``: only the rows whose keys were named, those that are
    gone at the source included; else the whole table in key order. ``estimate``: about how many rows there are. ``rows``:
    brought so far, ``differing``: of them, met another row at the target. ``chunk_rows``: rows of a chunk; ``rate``: rows per
    second at most, 0: no limit. Times are microseconds since 1970, 0 where it has not happened.
    """

    id: int
    link: LinkName
    table: TableName
    state: BackfillState
    prefer: Prefer = Prefer.POLICY
    keyed: bool = False
    behind: str | None = None
    estimate: int = 0
    rows: int = 0
    differing: int = 0
    chunk_rows: int = 10_000
    rate: int = 0
    requested_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    reason: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether rows may still be brought."""
        return self.state in (BackfillState.WAITING, BackfillState.RUNNING, BackfillState.PAUSED)


def backfill_of(topology: str, row: Sequence[object]) -> Backfill:
    """A backfill from a row of ``list_orders``: id, site, direction, the table's schema and name, then the fields in order."""
    number, site, direction, schema, name, state, prefer, keyed, behind, *numbers, reason = row
    estimate, rows, differing, chunk_rows, rate, requested, started, finished = (int(str(each)) for each in numbers)
    return Backfill(
        int(str(number)), LinkName(topology, str(site), Direction(str(direction))), TableName(str(schema), str(name)),
        BackfillState(str(state)), Prefer(str(prefer)), bool(keyed), None if behind is None else str(behind), estimate, rows,
        differing, chunk_rows, rate, requested, started, finished, str(reason),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """The next chunk a target wants: the rows of ``table`` behind the key ``behind``, at most ``limit`` in key order.

    With ``keys`` (source spelling: SQLite as stored; PostgreSQL as in record literals): those rows, whether there or gone.
    ``upto`` then is what ``Chunk.upto`` has to be.
    """

    backfill: int
    table: TableName
    behind: str | None
    limit: int
    keys: Sequence[Key] | None = None
    upto: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a batch carries of a backfill, besides the changes of its window.

    The rows are those of the request as they are at the batch's end (its ``upto``), so whatever is behind ``upto`` changes
    them further, and nothing before it does. ``upto``: the key of its last row. ``last``: there are no rows behind it.
    """

    backfill: int
    upto: str | None
    rows: int
    last: bool
