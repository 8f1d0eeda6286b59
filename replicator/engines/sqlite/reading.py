"""Reading one captured table in key mode: changed rows as they are now, or all rows page by page.

Every method runs inside a read transaction of the caller and returns rows held in memory, so that the transaction can
end before the rows are sent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.capture import Capture
from replicator.model import Op, Relation, TablePlan
from replicator.ports import RowBlock
from replicator.sqlfiles import quote, render, statement

_SQL = "sql/sqlite/source.sql"
_FITS = "sql/sqlite/fits.sql"
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_ODD, _ODD_GONE = "o", "og"
_PLAIN = {_ODD: Op.STATE.value, _ODD_GONE: Op.GONE.value}
"""How the statements and the careful fetch mark a row that takes the careful way, and the op it stands for."""
_FIRST_FETCH, _FETCH = 16, 512

Row = tuple[object, ...]
_T = TypeVar("_T")


class Undecoded(bytes):
    """Text that is not UTF-8: the bytes as they are in the file (a plain ``bytes`` is a BLOB)."""


class TooLargeError(Exception):
    """The rows asked for do not fit the memory allowed: ask for fewer."""


@dataclass(frozen=True)
class TableReader:
    """Reads the rows of one planned table.

    Args:
        plan: the table's plan.
        relation: what its outbox rows carry, and what its blocks are called.
    """

    plan: TablePlan
    relation: Relation

    def changed_rows(
        self, connection: sqlite3.Connection, low: int, high: int, shift: int, budget: int
    ) -> tuple[RowBlock, int]:
        """Rows named in the outbox in ``low`` < seq <= ``high``, and their size in bytes (long values only).

        Raises TooLargeError beyond ``budget`` bytes.
        """
        parameters = (low, high, self.relation.id, shift)
        rows, size = self._fetch(connection, self._read_changed, parameters, budget)
        if self._key_may_be_null:
            places = [3 + place for place in self.plan.key_indexes]
            rows = [row for row in rows if row[1] != Op.GONE or all(row[place] is not None for place in places)]
        return self._block(rows), size

    def page_end(self, connection: sqlite3.Connection, behind: Row | None, count: int) -> Row | None:
        """Where a page of ``count`` rows behind ``behind`` ends; ``None`` when the table ends before."""
        bound = "" if behind is None else self._bound(">", behind)
        sql = self._render("page_end", {"order": ", ".join(self._order), "behind": bound or "1"})
        return self.fetch_place(connection, sql, (*(behind or ()), count - 1))

    def fetch_place(self, connection: sqlite3.Connection, sql: str, parameters: Row) -> Row | None:
        """The one row that a statement gives, with text of any kind."""
        connection.text_factory = _decode
        try:
            found = connection.execute(sql, parameters).fetchone()
        finally:
            connection.text_factory = str
        return None if found is None else tuple(found)

    def page_rows(
        self,
        connection: sqlite3.Connection,
        behind: Row | None,
        end: Row | None,
        ordinal: int,
        changed_at: int,
        budget: int,
    ) -> tuple[RowBlock, int]:
        """All rows between two page ends, numbered from ``ordinal`` + 1. Raises TooLargeError beyond ``budget``."""
        bounds = [self._bound(sign, bound) for sign, bound in ((">", behind), ("<=", end)) if bound is not None]
        if self.plan.where is not None:
            bounds.append(self._filter)
        sql = self._render("read_page", self._fragments | {"between": " and ".join(bounds) or "1"})
        rows, size = self._fetch(connection, sql, (ordinal, changed_at, *(behind or ()), *(end or ())), budget)
        return self._block(rows), size

    # --- chunks of a backfill -------------------------------------------------------------------------------------

    def fetch_upto(
        self, connection: sqlite3.Connection, sql: str, parameters: Row, budget: int
    ) -> tuple[list[Row], bool]:
        """Rows until their size goes beyond ``budget`` bytes; whether these are all."""
        return self._decoding(connection, lambda: self._fetch_first(connection.execute(sql, parameters), budget))

    def _fetch_first(self, cursor: sqlite3.Cursor, budget: int) -> tuple[list[Row], bool]:
        rows: list[Row] = []
        size, count = 0, _FIRST_FETCH
        while some := cursor.fetchmany(count):
            rows += some
            size += (more := self.size_of(some))
            if size > budget:
                cursor.close()
                return rows, False
            count = min(2 * count, _FETCH) if more < budget // _FETCH else max(count // 4, 1)
        return rows, True

    def block_of(self, rows: list[Row], ordinal: int) -> RowBlock:
        """A block of a chunk's rows as their statements give them, numbered from ``ordinal`` + 1."""
        block = self._block([(number, *row[1:-2]) for number, row in enumerate(rows, ordinal + 1)])
        return replace(block, loaded=True)

    def render_chunk(self, name: str, fragments: dict[str, str]) -> str:
        """One of the statements that read chunks."""
        return self._render(name, fragments)

    @property
    def chunk_fragments(self) -> dict[str, str]:
        """What those statements have in common."""
        return self._fragments | {"mine": self.mine, "base": "null"}

    @property
    def mine(self) -> str:
        """The condition for a row (m) to be brought."""
        return self._filter if self.plan.where is not None else self.constants

    @property
    def constants(self) -> str:
        """The condition for a row to carry the site's key constants."""
        return "1"

    def is_loose(self, name: str) -> bool:
        """Whether SQLite takes two different values of a key column for the same."""
        return self._capture.loose(name)

    # --- rows -----------------------------------------------------------------------------------------------------

    def _fetch(self, connection: sqlite3.Connection, sql: str, parameters: Row, budget: int) -> tuple[list[Row], int]:
        return self._decoding(connection, lambda: self._fetch_within(connection.execute(sql, parameters), budget))

    def _decoding(
        self, connection: sqlite3.Connection, fetch: Callable[[], tuple[list[Row], _T]]
    ) -> tuple[list[Row], _T]:
        """What ``fetch`` gives; rows with text that is not UTF-8 take the careful way."""
        try:
            return fetch()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        connection.text_factory = _decode
        try:
            rows, rest = fetch()
        finally:
            connection.text_factory = str
        return [(row[0], _odd(row[1]), *row[2:]) if _has_undecoded(row) else row for row in rows], rest

    def _fetch_within(self, cursor: sqlite3.Cursor, budget: int) -> tuple[list[Row], int]:
        rows: list[Row] = []
        size = 0
        while some := cursor.fetchmany(_FETCH):
            rows += some
            size += self.size_of(some)
            if size > budget and len(rows) > 1:
                raise TooLargeError
        return rows, size

    def size_of(self, rows: list[Row]) -> int:
        """Bytes in the columns that may hold long values."""
        size = 0
        for place in self._long_places:
            values = [row[place] for row in rows]
            try:
                size += sum(map(len, filter(None, values)))  # type: ignore[arg-type]
            except TypeError:
                size += sum(len(value) for value in values if isinstance(value, (str, bytes)))
        return size

    @cached_property
    def _long_places(self) -> tuple[int, ...]:
        long = (Affinity.TEXT, Affinity.BLOB)
        return tuple(3 + i for i, c in enumerate(self.plan.columns) if affinity_of(c.source_type) in long)

    def _block(self, rows: list[Row]) -> RowBlock:
        """The rows, with those that take the careful way apart."""
        if any(row[1] in _PLAIN for row in rows):
            odd = [(row[0], _PLAIN[row[1]], *row[2:]) for row in rows if row[1] in _PLAIN]
            return RowBlock(self.relation.id, [row for row in rows if row[1] not in _PLAIN], odd)
        return RowBlock(self.relation.id, rows)

    # --- statements -----------------------------------------------------------------------------------------------

    @cached_property
    def _read_changed(self) -> str:
        loose = [place for place, name in enumerate(self.plan.key) if self._capture.loose(name)]
        distinct = [f"k{place}" for place in range(len(self.plan.key))] + [f"typeof(k{place})" for place in loose]
        same_row = [self._same_key(place, name, place in loose) for place, name in enumerate(self.plan.key)]
        if self.plan.where is not None:
            same_row.append(self._filter)
        places = ", ".join(f"k{place} as replicator_k{place}" for place in range(len(self.plan.key)))
        noted = {name: f"c.replicator_k{place}" for place, name in enumerate(self.plan.key)}
        more = {
            "present": self._present,
            "places": places,
            "distinct": ", ".join(distinct),
            "same_row": " and ".join(same_row),
            "values": self._values(noted),
        }
        return self._render("read_changed", self._fragments | more)

    def _same_key(self, place: int, name: str, loose: bool) -> str:
        """Found by the table's own index, and, where that is loose, the same byte for byte."""
        column, noted = f"m.{quote(name)}", f"c.replicator_k{place}"
        equal = "=" if self.plan.source.column(name).not_null else "is"
        exact = f" and ({column} collate binary) is {noted} and typeof({column}) = typeof({noted})" if loose else ""
        return f"{column} {equal} {noted}{exact}"

    @cached_property
    def _fragments(self) -> dict[str, str]:
        return {"fits": self._fits, "values": self._values({})}

    def _values(self, instead: dict[str, str]) -> str:
        return ", ".join(instead.get(c.source) or f"m.{quote(c.source)}" for c in self.plan.columns)

    @cached_property
    def _fits(self) -> str:
        """True when no value needs the careful way."""
        named = [(column.source, column.fits) for column in self.plan.columns if column.fits not in ("", "any")]
        forms = [render(_expression(fits), identifiers={"column": name}) for name, fits in named]
        nulls = [f"m.{quote(name)} is not null" for name in self.plan.key if not self.plan.source.column(name).not_null]
        return "\n and ".join(forms + nulls) or "1"

    @cached_property
    def _filter(self) -> str:
        parts = self.plan.where.sqlite if self.plan.where is not None else ()
        return f"({quote('m').join(parts)})"

    @cached_property
    def _present(self) -> str:
        if self.rowid is not None:
            return f"m.{self.rowid} is not null"
        return f"m.{quote(self.plan.key[0])} is not null"

    @cached_property
    def rowid(self) -> str | None:
        """The rowid's name; ``None`` where rows have none."""
        if self.plan.source.kind == "without_rowid":
            return None
        taken = {column.name.lower() for column in self.plan.source.columns}
        return next((name for name in _ROWID_NAMES if name not in taken), None)

    @cached_property
    def _order(self) -> tuple[str, ...]:
        """What pages are ordered by: the rowid, which every row has, else the key."""
        return (f"m.{self.rowid}",) if self.rowid else tuple(f"m.{quote(name)}" for name in self.plan.key)

    def _bound(self, sign: str, place: Row) -> str:
        return f"({', '.join(self._order)}) {sign} ({', '.join(param(value) for value in place)})"

    @property
    def _key_may_be_null(self) -> bool:
        return any(not self.plan.source.column(name).not_null for name in self.plan.key)

    @cached_property
    def _capture(self) -> Capture:
        return Capture("", self.relation.id, self.plan.source, self.plan.key)

    def _render(self, name: str, fragments: dict[str, str]) -> str:
        template = statement(_SQL, name)
        return render(template, identifiers={"table": self.plan.source.name.name}, fragments=fragments)


def param(value: object, number: str = "") -> str:
    """A parameter for a stored value; text that is not UTF-8 is bound as its bytes. It has no affinity either way."""
    return f"+cast(?{number} as text)" if isinstance(value, bytes) and type(value) is not bytes else f"?{number}"


def blocks_of(blocks: Sequence[RowBlock]) -> Iterator[RowBlock]:
    """The blocks that hold anything."""
    return (block for block in blocks if block.rows or block.odd)


def _expression(fits: str) -> str:
    lines = statement(_FITS, fits).splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def _has_undecoded(row: Row) -> bool:
    return any(type(value) is Undecoded for value in row)


def _odd(op: object) -> str:
    return _ODD_GONE if op == Op.GONE else _ODD


def _decode(raw: bytes) -> object:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Undecoded(raw)
