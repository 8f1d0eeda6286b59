"""The contract between the pipeline and the databases: what an engine must offer, and its promises.

Engines meet these protocols by shape, without importing them; ``tests/contract`` runs one suite over every engine and
pair. Every docstring says when the method is called, in which transaction, whether it is safe to repeat, and what it
raises. All methods may raise RetryableError (database away) and SetupError (rights, schema) besides what they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from replicator.errors import RejectedError
from replicator.model import (
    Catalogue,
    Conflict,
    DatabasePlan,
    Decision,
    Finding,
    Key,
    Lag,
    LinkRecord,
    Outcome,
    ParkedChange,
    Position,
    RecordedConflict,
    Relation,
    Span,
    TableName,
    TablePlan,
    TableShape,
)


@dataclass(frozen=True, slots=True)
class OutboxBlock:
    """Outbox rows as the source PostgreSQL's COPY text, raw: nothing in Python looks at a value.

    Columns: ``ord bigint, relation integer, op "char", changed_at bigint, before text, after text``; images are
    record literals (``record_out``) over the relation's columns.
    """

    chunks: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one relation as the source's driver gives them (SQLite storage classes: None, int, float, str, bytes).

    Each row: ``(ord, op, changed_at, *values)`` in the relation's column order; ``op`` is Op.STATE, or Op.GONE with all
    but the key values None. ``odd`` rows hold a value whose storage class or form does not fit the target column: they
    take the careful way (value by value, parked when they do not fit).
    """

    relation: int
    rows: Sequence[tuple[object, ...]]
    odd: Sequence[tuple[object, ...]] = ()


class Batch(Protocol):
    """Consecutive whole transactions of one source, streamed once in order. Memory used does not grow with its size."""

    after: Position | None
    relations: Mapping[int, Relation]

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        """The changes. Ordinals grow over the whole batch; per row, ordinal order is commit order. Call once."""
        ...

    @property
    def upto(self) -> Position:
        """The position after the batch; known once ``blocks`` is exhausted."""
        ...

    @property
    def more(self) -> bool:
        """Whether more can be read at once; known once ``blocks`` is exhausted."""
        ...


class Source(Protocol):
    """A database changes are read from. One instance serves one link and one thread."""

    def read_identity(self) -> str:
        """What tells this database from every other and from an older backup of itself. Read only."""
        ...

    def read_batch(self, after: Position | None, limit: int) -> AbstractContextManager[Batch | None]:
        """The next whole transactions behind ``after`` (``None``: from the start of the outbox), about ``limit`` changes.

        Source transaction, read only, short; it ends with the context. ``None`` when there is nothing. Safe to repeat:
        the same ``after`` gives at least the same changes. A transaction larger than ``limit`` still comes whole.
        Raises BatchError when ``after`` is not of this source's history (restored from a backup).
        """
        ...

    def acknowledge_batch(self, upto: Position) -> None:
        """Tell the source that ``upto`` is durable at the target, so it may prune. Own short transaction; repeatable."""
        ...

    def tidy(self) -> None:
        """Write acknowledgements put off and prune what every link has passed; called when there is nothing to move.

        Own short transactions; repeatable.
        """
        ...

    def read_lag(self, after: Position | None) -> Lag:
        """How much lies behind ``after``. Read only."""
        ...

    def read_clock(self) -> int:
        """The source's wall clock, microseconds since 1970 (for the skew measured at each contact)."""
        ...

    def wait(self, timeout: float) -> bool:
        """Sleep until something may have been committed, at most ``timeout`` seconds; false on time-out.

        Costs next to nothing while nothing happens, holds no transaction, never slows writers down.
        """
        ...

    def wake(self) -> None:
        """Make a ``wait`` in another thread return at once (clean stop). Thread-safe."""
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...


class Target(Protocol):
    """A database changes are applied to. One instance serves one link and one thread.

    Order of calls: ``read_position``, then inside one ``transaction``: ``stage_batch``, per span (``savepoint``:
    ``apply_clean``, ``find_conflicts``, ``apply_decisions``, ``check_constraints``), ``record_batch``.

    ``checks_whole``: ``check_constraints`` speaks for all of the transaction so far, not only for the span applied last,
    so it may be called once behind all spans.
    """

    checks_whole: bool

    def take_lease(self) -> None:
        """Become the only replicator of this link; repeat to renew. Raises LeaseError when another holds it."""
        ...

    def read_position(self) -> Position | None:
        """The link's position as recorded; ``None`` for a new link."""
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

        Raises StaleError when the position is not ``batch.after`` any more.
        """
        ...

    def read_clock(self) -> int:
        """The target's wall clock, microseconds since 1970."""
        ...

    def record_contact(self, identity: str, skew_us: int) -> None:
        """Store the source's identity and clock skew (source minus target). Own transaction.

        Raises BatchError when the link is known under another identity.
        """
        ...

    # Parked changes are worked on beside a running replicator: nothing from here to ``close`` takes the lease. A change
    # that comes in meanwhile waits behind the one in hand, at worst with nothing before it, until it is tried too.

    def list_parked(self, *, ids: Sequence[int] = (), table: str = "") -> Sequence[ParkedChange]:
        """This link's parked changes, oldest first."""
        ...

    def list_conflicts(
        self, *, ids: Sequence[int] = (), table: str = "", limit: int = 100
    ) -> Sequence[RecordedConflict]:
        """This link's newest recorded decisions, oldest first. Read only."""
        ...

    def stage_parked(self, parked_id: int) -> None:
        """Inside ``transaction``: stage one parked change as if it came in a batch, and take it off the parked list.

        ``park`` puts it back with one more attempt.
        """
        ...

    def skip_parked(self, parked_id: int) -> None:
        """Drop one parked change for good, recorded as a decision; the next of its row becomes the first. Own transaction."""
        ...

    def edit_parked(self, parked_id: int, values: Mapping[str, str | None]) -> None:
        """Replace values (source column → text) of a parked change's after image. Own transaction."""
        ...

    def close(self) -> None:
        """Release all connections and the lease. Repeatable."""
        ...


class Installable(Protocol):
    """A database our tables and triggers can be put into. Methods with a plan argument take all of one topology's."""

    def read_catalogue(self) -> Catalogue:
        """All user tables with columns, keys, unique and foreign keys. Read only."""
        ...

    def check(self, plans: Sequence[TablePlan], *, as_source: bool) -> Sequence[Finding]:
        """Connection, version, rights, settings, triggers as planned, table traps; each with the fix. Read only."""
        ...

    def plan_site(self, topology: str, plans: Sequence[TablePlan]) -> DatabasePlan:
        """What is missing or drifted for capturing these tables: our tables, functions, triggers, relations. Read only."""
        ...

    def plan_centre(self, topology: str, plans: Sequence[TablePlan]) -> DatabasePlan:
        """What is missing at a target: our tables, and user tables to create (parents first). Read only."""
        ...

    def install(self, plan: DatabasePlan) -> None:
        """Run a plan: idempotent, each object in a short transaction with a lock timeout."""
        ...

    def plan_uninstall(self, topology: str) -> DatabasePlan:
        """What removes all of a topology's objects (ours only; triggers first). Read only."""
        ...

    def list_objects(self) -> Sequence[str]:
        """Every object of ours in the database, by catalogue query: empty proves that nothing is left."""
        ...

    def list_links(self, topology: str) -> Sequence[LinkRecord]:
        """Links recorded here (targets only)."""
        ...

    def read_clock(self) -> int:
        """The database's wall clock, microseconds since 1970. Needs nothing of ours."""
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...


@dataclass(frozen=True, slots=True)
class Digest:
    """Count and sum of row hashes of one bucket. The sum is over signed 64-bit hashes, as a Python int."""

    count: int
    total: int


@dataclass(frozen=True, slots=True)
class AuditTable:
    """One side of an audited table: its name, columns in the plan's order with their types, key columns, row filter.

    ``constants``: this site's key constants (only rows that carry them belong to the site). ``forms`` names each
    column's canonical form (see ``replicator/canonical.py``); both sides of a pair use the same forms.
    """

    name: TableName
    columns: tuple[str, ...]
    types: tuple[str, ...]
    forms: tuple[str, ...]
    key: tuple[str, ...]
    constants: tuple[tuple[str, str], ...] = ()
    where: str = ""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row as its database spells it for comparison: images of its key and of all columns, and the key itself.

    ``native``: the key's values as ``InFlight`` takes them (SQLite: as stored; PostgreSQL: as in record literals).
    """

    key: str
    image: str
    native: Key


class Auditable(Protocol):
    """A database whose tables can be digested inside it. Read only, short transactions, nothing written.

    Images, hashes and buckets are those of ``replicator/canonical``. A table is read page by page, each page in a snapshot
    of its own: a row written meanwhile may be seen in either state, or in none when its key changes.
    """

    def prove_form(self, form: str) -> Sequence[int]:
        """Row hashes of the form's test vector, computed as those of rows are. Raises RejectedError."""
        ...

    def digest_buckets(self, table: AuditTable, buckets: int) -> Mapping[int, Digest]:
        """Digest per bucket of the key's hash; equal rows give equal digests on every engine. Empty buckets are left out."""
        ...

    def digest_rows(self, table: AuditTable, buckets: int, wanted: Sequence[int]) -> Iterator[tuple[str, int]]:
        """(key image, row hash) of every row in the wanted buckets."""
        ...

    def fetch_rows(self, table: AuditTable, keys: Sequence[str]) -> Sequence[AuditRow]:
        """The rows whose key images are among ``keys``; those that do not exist are left out. Read when called."""
        ...

    def close(self) -> None:
        """Release all connections. Repeatable."""
        ...


class InFlight(Protocol):
    """Tells rows in flight from rows that differ (met by sources)."""

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        """Those of ``keys`` with a committed change behind ``after``, before or after that change. Read only.

        Key values: SQLite as stored; PostgreSQL as record literals spell them. A TRUNCATE behind ``after``
        puts every key in flight. Changes already pruned may be left out: the caller checks that the link did not move.
        """
        ...

    def read_lag(self, after: Position | None) -> Lag:
        """As ``Source.read_lag``: no change at all behind ``after`` settles keys whose stored spelling is unknown."""
        ...


class ShapeMapper(Protocol):
    """Turns a source table's shape into the target's (types, keys with constants, deferrable constraints)."""

    def __call__(self, shape: TableShape, name: TableName) -> TableShape: ...
