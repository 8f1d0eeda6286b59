"""Windows between two snapshots of a source: which of its outbox rows belong to a batch, and the batch itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.chunks import ChunkRows, require_as_seen
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.errors import SchemaError
from replicator.model import Chunk, Position, Relation, TableName, TablePlan
from replicator.ports import OutboxBlock, RowBlock
from replicator.sqlfiles import literal

START = Position("1:1:")
"""The snapshot nothing is visible in: what a link reads from at first."""

_SQL = "sql/postgres/source.sql"
_PARTIAL = 1 << 30
"""Above all numbers of relations: those of rows that have a part of a relation's columns."""


@dataclass(frozen=True, slots=True)
class Window:
    """Open ranges of transaction ids that became visible between two snapshots, and what stands in them.

    ``now`` is the present snapshot (equal to ``upto`` unless the window was cut), ``past`` whether ``after`` lies in this
    server's past, ``newest`` the newest relation's number. ``filled``: rows of ours stand in it; ``changed``: rows that
    were captured by name, because their table had changed.
    """

    now: Position
    upto: Position
    past: bool
    newest: int
    low: list[int]
    high: list[int]
    filled: bool
    changed: bool


@dataclass(frozen=True, slots=True)
class Relations:
    """The captured table versions of one topology whose tables the plans name."""

    known: Mapping[int, Relation]
    current: Mapping[TableName, Relation]
    newest: int
    recorded: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By number the names on record, as rows captured by name have them where the columns are still those."""

    @property
    def numbers(self) -> list[int]:
        """Their numbers."""
        return list(self.known)


class PostgresBatch:
    """One window's rows, streamed from the source while its transaction is open. Meets ports.Batch.

    ``statement``: the COPY to run, empty when there are no rows. ``live``: it reads tables, not only the outbox. ``certify``
    makes the stamp, from how many outbox rows came and the number and time of the last.
    """

    def __init__(
        self, connection: PostgresConnection, place: str, statement: str, after: Position | None, upto: Position,
        relations: Mapping[int, Relation], *, more: bool, marker: Position | None = None,
        certify: Callable[[int, int, int], str] = lambda count, seq, changed_at: "", loaded: ChunkRows | None = None,
        live: bool = False,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._place = place
        self._statement = statement
        self.after = after
        self.relations = relations
        self._upto = upto
        self._more = more
        self.marker = marker
        self._certify = certify
        self._loaded = loaded
        self._live = live
        self._count, self._last = 0, b""
        self._stamp: str | None = None

    def blocks(self) -> Iterator[OutboxBlock | RowBlock]:
        """The window as the server's COPY text, then the rows of a backfill; nothing for a marker alone. Call once.

        Raises RetryableError at the end where a table was rewritten between the snapshot and the reading of it.
        """
        if self._statement:
            yield OutboxBlock(self._chunks())
        if self._loaded is not None:
            yield from self._loaded.blocks()
        if self._live and (self._statement or self._loaded is not None):
            with translated(self._place):
                require_as_seen(self._connection, self._place)

    def _chunks(self) -> Iterator[bytes]:
        with (
            translated(self._place),
            self._connection.cursor() as cursor,
            cursor.copy(self._statement.encode()) as copy,
        ):
            for chunk in copy:
                self._last = bytes(chunk)
                self._count += self._last.count(b"\n")
                yield self._last

    @property
    def upto(self) -> Position:
        """The position after the batch."""
        return self._upto

    @property
    def stamp(self) -> str:
        """See ports.Batch."""
        if self._stamp is None:
            seq, _, _, changed_at = self._last.splitlines()[-1].split(b"\t", 4)[:4] if self._count else (0, 0, 0, 0)
            self._stamp = self._certify(self._count, int(seq), int(changed_at))
        return self._stamp

    @property
    def chunk(self) -> Chunk | None:
        """See ports.Batch."""
        return None if self._loaded is None else self._loaded.chunk

    @property
    def more(self) -> bool:
        """Whether the window was cut."""
        return self._more

    def expect_more(self) -> None:
        """More is known to follow, though the window was not cut."""
        self._more = True


def open_window(connection: PostgresConnection, after: Position, limit: int, relations: Relations) -> Window:
    """The next window behind ``after``, of about ``limit`` rows when there are that many."""
    (row,) = rows(connection, "source", "open_window", after, limit, relations.numbers)
    now, past, newest, upto, low, high, filled, changed = row
    return Window(
        Position(str(now)), Position(str(upto)), bool(past), int(str(newest)), numbers_of(low), numbers_of(high),
        bool(filled), bool(changed),
    )  # fmt: skip


def read_ranges(connection: PostgresConnection, after: Position, upto: Position) -> tuple[list[int], list[int]]:
    """The ranges between two snapshots."""
    found = rows(connection, "source", "window_ranges", after, upto)
    return numbers_of([low for low, _ in found]), numbers_of([high for _, high in found])


def read_relations(connection: PostgresConnection, topology: str, plans: Sequence[TablePlan], newest: int) -> Relations:
    """The topology's relations, those of tables no plan names left out."""
    wanted = {plan.source.name for plan in plans}
    known: dict[int, Relation] = {}
    current: dict[TableName, Relation] = {}
    recorded: dict[int, tuple[str, ...]] = {}
    for number, schema, table, columns, key, mark, retired, names in rows(connection, "source", "relations", topology):
        name = TableName(str(schema), str(table))
        if name not in wanted:
            continue
        relation = Relation(int(str(number)), name, _texts(columns), _texts(key), str(mark))
        known[relation.id] = relation
        recorded[relation.id] = _texts(names)
        if not retired:
            current[name] = relation
    return Relations(known, current, newest, recorded)


def read_statement(window: Window, relations: Relations, beyond: str) -> str:
    """The COPY of a window's rows. ``beyond``: what the log shows committed before this place is left out."""
    return sqlfiles.render(sqlfiles.statement(_SQL, "read_batch"), fragments=_fragments(window, relations, beyond))


def read_changed_statement(
    connection: PostgresConnection,
    place: str,
    window: Window,
    relations: Relations,
    plans: Sequence[TablePlan],
    beyond: str,
) -> tuple[str, Mapping[int, Relation]]:
    """The COPY of a window that has rows captured by name, in the form of their tables' present relations, and all relations.

    Rows from between two changes of a table may lack columns that it has now; they come as what of these they have, and the
    rest with the rows that install captured anew behind them. It did where the table's version is another one: also where the
    table is as it was again, but its columns were not in between. Raises SchemaError where install has not run since.
    """
    targets: dict[int, Relation] = {}
    planned = {plan.source.name: {column.source for column in plan.columns} for plan in plans}
    found = rows(connection, "source", "changed_tables", window.low, window.high, relations.numbers)
    there: dict[int, set[str]] = {}
    torn: set[int] = set()
    for number, names in found:
        there[int(str(number))] = there.get(int(str(number)), set(_texts(names))) & set(_texts(names))
        recorded = relations.recorded[int(str(number))]
        if tuple(name for name in _texts(names) if name in recorded) != recorded:
            torn.add(int(str(number)))
    for number, known in there.items():
        old = relations.known[number]
        present = relations.current.get(old.table)
        if present is not None and present.id == number and number in torn:
            present = None
        if present is not None and not set(present.columns) <= known:
            columns = tuple(name for name in present.columns if name in known)
            settled = set(present.columns) == planned.get(old.table) and set(present.key) <= known
            present = replace(present, id=_PARTIAL + number, columns=columns) if settled else None
        if present is None:
            raise SchemaError(
                f"{place}: the columns of table {old.table} have changed since its triggers were made",
                hint="run: replicator schema diff, then replicator install; changes made meanwhile were kept and will follow",
            )
        targets[old.id] = present
    lines = [
        f"({old}, {relation.id}, array[{_literals(relation.columns)}], array[{_literals(relation.key)}])"
        for old, relation in targets.items()
    ]
    fragments = {**_fragments(window, relations, beyond), "targets": ", ".join(lines)}
    statement = sqlfiles.render(sqlfiles.statement(_SQL, "read_changed"), fragments=fragments)
    return statement, {**relations.known, **{relation.id: relation for relation in targets.values()}}


def _fragments(window: Window, relations: Relations, beyond: str) -> dict[str, str]:
    pairs = zip(window.low, window.high, strict=True)
    return {
        "beyond": literal(beyond),
        "ranges": ", ".join(f"({low}, {high})" for low, high in pairs),
        "relations": ", ".join(map(str, relations.numbers)),
    }


def _literals(values: Sequence[str]) -> str:
    return ", ".join(map(literal, values))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def numbers_of(value: object) -> list[int]:
    """The numbers of an array."""
    return [int(str(item)) for item in value] if isinstance(value, list) else []
