"""Values that travel between the floors: frozen dataclasses and enums, no I/O.

Enums are spelled as in SQL and in logs. See the glossary in README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

Position = NewType("Position", str)
"""A source's opaque, ordered place in its change stream; only the source that made it can read it.

PostgreSQL: the horizon, a ``pg_snapshot`` as text. SQLite: ``<nonce>:<seq>``.
"""

Key = tuple[object, ...]
"""Primary-key values of one row, in key-column order, as the driver gives them."""


class Engine(StrEnum):
    """Database engines."""

    POSTGRES = "postgres"
    SQLITE = "sqlite"


class Direction(StrEnum):
    """Which way a table's changes flow."""

    TO_CENTRE = "to_centre"


class PolicyName(StrEnum):
    """Who wins a conflict."""

    SOURCE_WINS = "source_wins"
    CENTRE_WINS = "centre_wins"


class TruncatePolicy(StrEnum):
    """What a TRUNCATE at the source does at the target."""

    REPLICATE = "replicate"
    PARK = "park"
    IGNORE = "ignore"


class Op(StrEnum):
    """What happened to a row, as the outbox and the stage spell it."""

    INSERT = "i"
    UPDATE = "u"
    DELETE = "d"
    KEY_UPDATE = "k"
    TRUNCATE = "t"
    STATE = "s"
    """Key mode: the row as it is now; whether it was there before is for the ledger to say."""
    GONE = "g"
    """Key mode: the row is not there now."""


class ConflictKind(StrEnum):
    """PostgreSQL's names for a change that does not fit the row it meets."""

    INSERT_EXISTS = "insert_exists"
    UPDATE_DIFFERS = "update_differs"
    UPDATE_MISSING = "update_missing"
    UPDATE_DELETED = "update_deleted"
    DELETE_DIFFERS = "delete_differs"
    DELETE_MISSING = "delete_missing"


class Verdict(StrEnum):
    """What is done with a conflicting change."""

    APPLY = "apply"
    KEEP = "keep"
    PARK = "park"


class ParkedState(StrEnum):
    """State of a parked change: the first of a row's queue is ``parked``, those behind it wait."""

    PARKED = "parked"
    WAITING = "waiting"


# --- the catalogue: what a database has ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table's name; ``schema`` is empty on SQLite."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema and self.schema != "public" else self.name


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column as the catalogue shows it.

    ``type`` is ``format_type`` on PostgreSQL, the declared type as written on SQLite (may be empty).
    ``generated`` columns are computed by the database and never captured or written.
    """

    name: str
    type: str
    not_null: bool = False
    generated: bool = False
    identity_always: bool = False
    collation: str = ""
    default: str = ""


@dataclass(frozen=True, slots=True)
class UniqueShape:
    """A unique index or constraint; ``exact`` is false for partial and expression indexes."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    exact: bool = True
    deferrable: bool = False
    predicate: str = ""
    collations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignKeyShape:
    """A foreign key; ``on_delete`` and ``on_update`` are spelled as in SQL, lower case (``no action``, ``cascade`` …)."""

    name: str
    columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]
    on_delete: str = "no action"
    on_update: str = "no action"
    deferrable: bool = False


@dataclass(frozen=True, slots=True)
class TableShape:
    """One table as the catalogue shows it. ``key`` is the primary key's columns in order, empty when there is none.

    ``kind``: ``table``, ``partitioned``, ``partition``, ``inherited``, ``foreign`` (PostgreSQL);
    ``table``, ``without_rowid``, ``virtual`` (SQLite). ``estimate`` is a row count, exact or from statistics.
    """

    name: TableName
    columns: tuple[ColumnShape, ...]
    key: tuple[str, ...] = ()
    uniques: tuple[UniqueShape, ...] = ()
    foreign_keys: tuple[ForeignKeyShape, ...] = ()
    kind: str = "table"
    estimate: int = 0

    def column(self, name: str) -> ColumnShape:
        """The column called ``name``; raises KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All user tables of one database (ours and the system's left out)."""

    engine: Engine
    version: str
    tables: Mapping[TableName, TableShape]


# --- the plan: what is captured and where it goes -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RowFilter:
    """One side-effect-free SQL expression over a table's columns, in both engines' spelling with the same meaning.

    ``source`` is as the user wrote it. ``postgres`` and ``sqlite`` are the texts between the places where the row's
    alias stands; ``filters.render_postgres`` and ``filters.render_sqlite`` put one in. ``sqlite`` is empty when the
    expression has no exact SQLite form (then only PostgreSQL sites may use it); ``obstacle`` says why.
    """

    source: str
    postgres: tuple[str, ...]
    sqlite: tuple[str, ...] = ()
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """One captured column and the target column its values go to (types as each catalogue spells them).

    Filled by the topology rules, read by the engines (which know no rules): ``staging_type`` is the target's type
    without the modifier that would round or cut in silence, empty when nothing can be lost; ``fits`` names the block of
    ``sql/sqlite/fits.sql`` that says whether a SQLite value fits the target; ``form`` is the audit's canonical form.
    """

    source: str
    source_type: str
    target: str
    target_type: str
    staging_type: str = ""
    fits: str = ""
    form: str = ""


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One captured table of one site and where its rows go: a topology's table rule compiled against the catalogues.

    ``columns`` come in source-column order; ``key`` names source columns. ``constants`` are target key columns with the
    value this site puts in (``keyed_by``), always text; the target's key is constants + key.
    ``ledgered``: the source gives no before images (SQLite key mode), so the target's ledger says what the site believed.
    ``target_shape`` is what the target has, or what ``install`` will create there.
    """

    source: TableShape
    target: TableName
    columns: tuple[ColumnPlan, ...]
    key: tuple[str, ...]
    source_engine: Engine
    target_engine: Engine
    target_shape: TableShape
    constants: tuple[tuple[str, str], ...] = ()
    where: RowFilter | None = None
    policy: PolicyName = PolicyName.SOURCE_WINS
    truncate: TruncatePolicy = TruncatePolicy.REPLICATE
    direction: Direction = Direction.TO_CENTRE
    ledgered: bool = False

    @property
    def key_indexes(self) -> tuple[int, ...]:
        """Places of the key columns in ``columns``, in key order."""
        names = [column.source for column in self.columns]
        return tuple(names.index(name) for name in self.key)

    @property
    def target_key(self) -> tuple[str, ...]:
        """The target's key columns: constants first."""
        return tuple(name for name, _ in self.constants) + tuple(self.columns[i].target for i in self.key_indexes)


@dataclass(frozen=True, slots=True)
class Relation:
    """A captured table *version* at a source: what the column places of an outbox row mean.

    ``id`` is the source's own number; ``columns`` are source column names in image order.
    """

    id: int
    table: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class LinkName:
    """One site and the centre, in one direction."""

    topology: str
    site: str
    direction: Direction = Direction.TO_CENTRE

    def __str__(self) -> str:
        return f"{self.site}→centre"


# --- the stream ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """A closed range of staged ordinals applied as one set; ``exact`` spans hold one barrier (key update, TRUNCATE)."""

    low: int
    high: int
    count: int

    @property
    def single(self) -> bool:
        """Whether the span cannot be halved."""
        return self.count <= 1


@dataclass(frozen=True, slots=True)
class Conflict:
    """A staged change that does not fit the row it meets.

    ``before``, ``after`` and ``current`` are images in the target's columns (``None``: no row); ``before`` is ``None``
    also where the source gives no before image. ``key`` is the target's key as text.
    """

    ord: int
    relation: int
    table: str
    key: str
    kind: ConflictKind
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    current: Mapping[str, object] | None
    changed_at: int
    policy: PolicyName


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one conflict: verdict, the rule that gave it, and why, in words."""

    conflict: Conflict
    verdict: Verdict
    rule: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What one batch did at the target. ``net`` rows changed, ``changes`` outbox rows read."""

    upto: Position
    changes: int = 0
    net: int = 0
    conflicts: int = 0
    parked: int = 0
    more: bool = False
    """Whether the source has more to read at once (a backlog)."""
    newest_changed_at: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a link is behind, as its source sees it. ``oldest_changed_at``: microseconds since 1970, 0 when none."""

    changes: int
    oldest_changed_at: int
    horizon_holder: str = ""
    """Who holds the horizon back (PostgreSQL: pid, user and age of the oldest open transaction), empty when nobody."""


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """A change set aside with its cause; see ``sql/README.md`` for the states. ``before``/``after`` are column → text."""

    id: int
    link: str
    table: str
    key: str
    op: Op
    state: ParkedState
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    sqlstate: str
    cause: str
    parked_at: int
    attempts: int


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """What the target knows about a link: the last proof."""

    link: LinkName
    position: Position | None
    source_identity: str
    recorded_at: int
    changes: int
    conflicts: int
    parked: int
    skew_us: int
    newest_changed_at: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``check``: what was looked at, whether it is right, and the fix when it is not."""

    place: str
    subject: str
    ok: bool
    message: str
    fix: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """One statement ``install`` runs: why, its text, and the object it makes."""

    purpose: str
    sql: str
    object: str


@dataclass(frozen=True, slots=True)
class DatabasePlan:
    """All statements for one database in order; ``fingerprint`` is stable for equal plans; empty = nothing to do."""

    place: str
    engine: Engine
    statements: tuple[PlannedStatement, ...]
    fingerprint: str
    leftovers: tuple[str, ...] = field(default=())
    """Objects of ours whose table the YAML no longer names: shown, never dropped (invariant 11)."""
