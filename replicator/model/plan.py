"""What is captured and where it goes, and what is to be installed for it."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.model.catalogue import TableName, TableShape
from replicator.model.words import Direction, Engine, PolicyName, TruncatePolicy


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
