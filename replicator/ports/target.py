"""A database changes are applied to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from replicator.errors import RejectedError
from replicator.model import (
    Backfill,
    BackfillState,
    ChunkRequest,
    Conflict,
    Decision,
    Key,
    Outcome,
    ParkedChange,
    Position,
    Prefer,
    RecordedConflict,
    RowEvent,
    Span,
    TableName,
)
from replicator.ports.batch import Batch


class Target(Protocol):
    """A database changes are applied to. One instance serves one link and one thread.

    Order of calls: ``read_position``, then inside one ``transaction``: ``stage_batch``, per span (``savepoint``:
    ``apply_clean``, ``find_conflicts``, ``apply_decisions``, ``check_constraints``), ``record_batch``.

    ``checks_whole``: ``check_constraints`` speaks for all of the transaction so far, not only for the span applied last,
    so it may be called once behind all spans.

    The marker rule (DESIGN.md §6). At the centre, where the site gets changes too: ``apply_decisions`` writes a correction (the
    row, to this site alone) for every change kept or merged, ``record_batch`` a marker with ``batch.upto``. At the site:
    ``stage_batch`` passes over rows that have a change of the site's own beyond the marker, all others are written as they
    come and there are no conflicts; the marker is stored in the same transaction, as an acknowledgement of the link from
    the centre, so that the site's outbox keeps everything beyond it.
    """

    checks_whole: bool

    def take_lease(self) -> None:
        """Become the only replicator of this link; repeat to renew. Raises LeaseError when another holds it."""
        ...

    def read_position(self) -> Position | None:
        """The link's position as recorded; ``None`` for a new link."""
        ...

    def read_identity(self) -> str:
        """What tells this database from every other, as Source.read_identity; empty where it has no name. Read only."""
        ...

    def read_stamp(self) -> str:
        """The stamp (ports.Batch) of the batch that the position on record ended; empty where there is none. Read only."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """One target transaction: commits at the end, rolls all back on any error."""
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """Inside ``transaction``: rolls back to here on error and re-raises."""
        ...

    def stage_batch(self, batch: Batch) -> None:
        """Bring the batch beside the data, then set aside changes of rows that have parked changes (they wait behind).

        Raises BatchError when the batch names a relation no plan knows.
        """
        ...

    def spans(self) -> Sequence[Span]:
        """The staged batch as spans in order: one, unless barriers (TRUNCATE, key updates) cut it."""
        ...

    def halve(self, span: Span) -> tuple[Span, Span]:
        """Two spans with half of the changes each, in order."""
        ...

    def apply_clean(self, span: Span) -> None:
        """Net the span per row and apply every change whose base equals the current row. Set-based.

        The comparison stands in the applying statement itself, so a row that moves meanwhile is not overwritten.
        Raises RejectedError when the database refuses a row.
        """
        ...

    def find_conflicts(self, span: Span) -> Iterator[Conflict]:
        """The changes ``apply_clean`` left: neither applied nor already there. Empty at no cost when all were clean."""
        ...

    def apply_decisions(self, decisions: Iterable[Decision]) -> None:
        """Apply, keep or park what was decided and record each decision. Raises RejectedError."""
        ...

    def check_constraints(self) -> None:
        """Make the database check deferred constraints now. Raises RejectedError."""
        ...

    def park(self, span: Span, error: RejectedError) -> None:
        """Set a single-change span aside with its cause."""
        ...

    def record_batch(self, batch: Batch) -> Outcome:
        """Move the link's position from ``batch.after`` to ``batch.upto`` by compare-and-set, in the same transaction.

        A chunk moves its backfill forward as well, likewise (``StaleError`` when it was moved or ended meanwhile).

        Raises StaleError when the position is not ``batch.after`` any more.
        """
        ...

    # Backfills (see model.Backfill). While one of a table is not done, a change of the table whose row the target lacks
    # (ConflictKind.UPDATE_MISSING) brings the row: it was not loaded yet. That is no conflict and not on record.

    def next_chunk(self) -> ChunkRequest | None:
        """What the link's oldest unfinished backfill wants next; None when there is none. Read only; next to no cost then."""
        ...

    def order_backfill(
        self,
        table: TableName,
        *,
        keys: Iterable[Key] | None = None,
        prefer: Prefer = Prefer.POLICY,
        chunk_rows: int = 10_000,
        rate: int = 0,
        estimate: int = 0,
        reason: str = "",
        held: bool = False,
    ) -> Backfill:
        """Write an order down, for whoever replicates the link. Own short transaction; needs no lease.

        ``held``: it is paused from the start.

        One that waits or runs for the whole table already is given back as it is, when ``keys`` is None.
        """
        ...

    def list_backfills(self, *, unfinished: bool = False) -> Sequence[Backfill]:
        """This link's backfills, oldest first. Read only; needs no lease."""
        ...

    def steer_backfill(self, backfill: int, state: BackfillState) -> bool:
        """Pause, go on with (RUNNING) or cancel an unfinished backfill; false when it is not unfinished. Needs no lease."""
        ...

    def read_schema_mark(self) -> str:
        """Another text whenever the plans' tables have other columns, types or keys. Read only, quick."""
        ...

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        ...

    def record_contact(self, identity: str, skew_us: int, *, proven: bool = False) -> None:
        """Store the source's identity and clock skew (source minus target). Own transaction.

        Raises BatchError when the link is known under another identity, or another site's link under this one. With ``proven``
        (Source.prove_history) a database that is only on another server now, as pg_upgrade leaves it, is the same.
        """
        ...

    # Parked changes are worked on beside a running replicator: nothing from here to ``close`` takes the lease. A change
    # that comes in meanwhile waits behind the one in hand, at worst with nothing before it, until it is tried too.

    def list_parked(self, *, ids: Sequence[int] = (), table: str = "", limit: int = 0) -> Sequence[ParkedChange]:
        """This link's parked changes, oldest first; with a ``limit``, the newest so many of them."""
        ...

    def list_conflicts(
        self, *, ids: Sequence[int] = (), table: str = "", limit: int = 100
    ) -> Sequence[RecordedConflict]:
        """This link's newest recorded decisions, oldest first. Read only."""
        ...

    def list_queues(self, limit: int) -> Sequence[Sequence[int]]:
        """Parked changes by row, oldest row first, whose cause may have gone: a constraint, or later changes wait behind.

        A change that waits for a person's decision is not among them. Read only, cheap when nothing is parked.
        """
        ...

    def stage_parked(self, parked_ids: Sequence[int]) -> None:
        """Inside ``transaction``: stage a row's parked changes as if they came in a batch, and take them off the list.

        They are netted into one. What is applied of them concerns every site, also the one it came from: its marker has
        passed. ``park`` puts all back, the first with one more attempt.
        """
        ...

    def skip_parked(self, parked_id: int) -> None:
        """Drop one parked change for good, recorded as a decision; the next of its row becomes the first. Own transaction."""
        ...

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """Replace values (source column → text) of a parked change's after image. Own transaction."""
        ...

    def find_blocking(self, parked_id: int) -> Mapping[str, object] | None:
        """The target row that holds a unique value which a parked change wants, column → text; None: nothing like it.

        Read only.
        """
        ...

    def read_row(self, table: str, key: str) -> Mapping[str, object] | None:
        """The row of a conflict (``table`` and ``key`` as recorded there) as it is now, column → text. Read only."""
        ...

    def settle_conflict(
        self, conflict_id: int, result: Mapping[str, str | None] | None, resolution: str, *, expected: bool = False
    ) -> bool:
        """Make ``result`` the row of a recorded conflict (None: delete it), as an ordinary change of the centre.

        Its parked changes are dropped, the conflict is ``resolved``, and every site that wants the row gets it, the one the
        change came from as well. Own transaction. With ``expected``, false and nothing done unless the row is still as the
        conflict's decision left it. Raises SetupError for an unknown conflict, RejectedError when the row is refused.
        """
        ...

    def read_history(self, table: str, key: Sequence[str]) -> Sequence[RowEvent]:
        """What this link's ledger, conflicts and parked changes know of one row (key values as text), by time. Read only."""
        ...

    def close(self) -> None:
        """Release all connections and the lease. Repeatable."""
        ...
