"""Chunks of a backfill at a SQLite source: the order a table's rows are brought in, and what one batch reads of them.

The order is that of the key's own index, never of the rowid: VACUUM numbers rows anew. A place in it is spelled as text
that gives every value back exactly (values.encode_image), together with the order itself: a place in an order that the table
does not have any more is none, and the backfill begins again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from replicator.canonical import Undecodable
from replicator.engines.sqlite.reading import Row, TableReader, Undecoded, param
from replicator.engines.sqlite.values import decode_image, encode_image
from replicator.errors import SetupError
from replicator.model import Chunk, ChunkRequest, Key, Op, TableShape
from replicator.ports import RowBlock
from replicator.sqlfiles import quote, render, statement

_BYTES = 8 * 1024 * 1024
_COUNTED, _SAMPLE = 200_000, 10_000
"""Rows that an estimate counts, and looks at to see which are wanted."""
_SCAN = 10
"""Where a filter leaves few rows, so many times the chunk's rows are looked at in one transaction."""


@dataclass(frozen=True)
class KeyOrder:
    """The order of one table's rows by key, each row at one place of its own.

    Args:
        shape: the table.
        key: the key columns.
        rowid: the rowid's name; it tells rows apart whose key is NULL in part (those are parked at the target).
        own: the collation each key column was declared with.
        constants: columns that are the same in all rows asked for.
        inside: the row filter; where it is another, more rows may pass.
    """

    shape: TableShape
    key: tuple[str, ...]
    rowid: str | None
    own: Mapping[str, str]
    constants: frozenset[str] = frozenset()
    inside: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The key columns in the order of the index that keeps them unique."""
        return tuple(name for name, _ in self._indexed)

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """What to order by."""
        terms = [f"m.{quote(name)}" + (f" collate {quote(coll)}" if coll else "") for name, coll in self._indexed]
        return (*terms, f"m.{self.rowid}") if self.tied else tuple(terms)

    @cached_property
    def tied(self) -> bool:
        """Whether a row's place ends with its rowid: two rows may have one key where it may be NULL."""
        return self.rowid is not None and any(not self.shape.column(name).not_null for name in self.key)

    @cached_property
    def _indexed(self) -> tuple[tuple[str, str], ...]:
        """Key columns with the collation that keeps them apart, where that is not the column's own.

        Where one is spelled SQLite finds the place in the index by the first column only.
        """
        for unique in self.shape.uniques:
            if unique.exact and set(unique.columns) - self.constants == set(self.key):
                collations = unique.collations or ("",) * len(unique.columns)
                pairs = zip(unique.columns, collations, strict=True)
                return tuple((name, self._spelled(name, coll)) for name, coll in pairs if name not in self.constants)
        return tuple((name, self._spelled(name, "BINARY")) for name in self.key)

    def _spelled(self, name: str, collation: str) -> str:
        return "" if collation.upper() in ("", self.own[name]) else collation

    # --- places ---------------------------------------------------------------------------------------------------

    def spell(self, place: Row) -> str:
        """A place as text."""
        return encode_image((self._sign, *place))

    def read(self, text: str | None) -> Row | None:
        """The place a text names; ``None`` for none, and for one in another order."""
        if text is None:
            return None
        order, *place = decode_image(text)
        return tuple(place) if order == self._sign else None

    @cached_property
    def _sign(self) -> str:
        """What another order does not have."""
        own = [f"{name} {self.own[name]}" for name in self.names]
        return hashlib.sha256(", ".join((*self.terms, *own, self.inside)).encode()).hexdigest()[:8]

    def behind(self, place: Row | None) -> tuple[str, Row]:
        """Condition and parameters: a row comes behind a place (``None``: any row does). NULL comes before all else."""
        if place is None:
            return "1", ()
        if None not in place:
            return self._compared(">", place)
        return self._beyond(place, 0), tuple(v for value in place if value is not None for v in (value, value))

    def upto(self, place: Row) -> tuple[str, Row]:
        """Condition and parameters: a row comes at or before a place; both are whole keys."""
        return self._compared("<=", place)

    def _compared(self, sign: str, place: Row) -> tuple[str, Row]:
        whole = place[: len(self.names)]
        values = ", ".join(param(value) for value in whole)
        return f"({', '.join(self.terms[: len(whole)])}) {sign} ({values})", whole

    def _beyond(self, place: Row, spot: int) -> str:
        """Term by term, because to ``>`` nothing is beyond NULL."""
        if spot == len(place):
            return "0"
        term, value, rest = self.terms[spot], place[spot], self._beyond(place, spot + 1)
        if value is None:
            return f"({term} is not null or {rest})"
        return f"({term} > {param(value)} or ({term} = {param(value)} and {rest}))"


class ChunkReader:
    """Reads chunks of one table, inside read transactions of the caller.

    Args:
        connection: the file's.
        reader: the table's reader.
    """

    def __init__(self, connection: sqlite3.Connection, reader: TableReader) -> None:
        self._connection, self._reader = connection, reader
        plan = reader.plan
        constants = frozenset(name for name, _ in plan.source_constants)
        own = {name: self._collation(name) for name in plan.key}
        inside = "m".join(plan.where.sqlite) if plan.where else ""
        self.order = KeyOrder(plan.source, plan.key, reader.rowid, own, constants, inside)

    def _collation(self, column: str) -> str:
        names = {"table": self._reader.plan.source.name.name, "column": column}
        sql = render(statement("sql/sqlite/source.sql", "column_collation"), identifiers=names)
        (name,) = self._connection.execute(sql).fetchone()
        return str(name)

    def rows_behind(self, behind: Row | None, limit: int, ordinal: int) -> tuple[RowBlock, Row | None, bool]:
        """At most ``limit`` rows behind a place, and not many bytes of them; up to where, and whether the table ends there."""
        condition, parameters = self.order.behind(behind)
        end = self._scan_end(condition, parameters, limit * _SCAN) if self._sparse(behind) else None
        if end is not None:
            within, more = self.order.upto(end)
            condition, parameters = f"{condition} and {within}", (*parameters, *more)
        fragments = self._fragments | {"behind": condition, "order": ", ".join(self.order.terms)}
        sql = self._reader.render_chunk("read_chunk", fragments)
        rows, whole = self._reader.fetch_upto(self._connection, sql, (*parameters, limit), _BYTES)
        cut = not whole or len(rows) == limit
        last = not cut and end is None
        if rows and (cut or last):
            end = self._place_of(rows[-1])
        return self._reader.block_of(rows, ordinal), end, last

    def _sparse(self, behind: Row | None) -> bool:
        """Whether the rows that are wanted may lie far apart (behind a whole key: then the place to stop is one, too)."""
        return self._reader.mine != "1" and not (self.order.tied and (behind is None or None in behind))

    def _scan_end(self, condition: str, parameters: Row, count: int) -> Row | None:
        fragments = {"order": ", ".join(self.order.terms), "behind": f"{condition} and {self._reader.constants}"}
        sql = self._reader.render_chunk("page_end", fragments)
        return self._reader.fetch_place(self._connection, sql, (*parameters, count - 1))

    def rows_of(self, keys: Sequence[Key], ordinal: int) -> tuple[RowBlock, int]:
        """The rows with the first of these keys, there or gone, not many bytes of them; how many keys that were."""
        rows: list[Row] = []
        size = asked = 0
        for key in keys:
            asked += 1
            if None in key:
                continue
            found, _ = self._reader.fetch_upto(self._connection, self._by_key(key), key, _BYTES)
            rows += found or [self._gone(key)]
            size += self._reader.size_of(found)
            if size > _BYTES:
                break
        return self._reader.block_of(rows, ordinal), asked

    def _by_key(self, key: Key) -> str:
        plan = self._reader.plan
        same = []
        for place, (name, value) in enumerate(zip(plan.key, key, strict=True)):
            column, given = f"m.{quote(name)}", param(value, str(place + 1))
            same.append(f"{column} = {given}")
            if self._reader.is_loose(name):
                same.append(f"({column} collate binary) = {given} and typeof({column}) = typeof({given})")
        return self._reader.render_chunk("read_by_key", self._fragments | {"same_row": " and ".join(same)})

    def _gone(self, key: Key) -> Row:
        plan = self._reader.plan
        values: list[object] = [None] * len(plan.columns)
        for place, value in zip(plan.key_indexes, key, strict=True):
            values[place] = value
        odd = any(isinstance(value, Undecoded) for value in key)
        return (0, "og" if odd else Op.GONE.value, 0, *values, None, None)

    def _place_of(self, row: Row) -> Row:
        plan = self._reader.plan
        named = {name: row[3 + place] for name, place in zip(plan.key, plan.key_indexes, strict=True)}
        place = tuple(named[name] for name in self.order.names)
        return (*place, row[-1]) if self.order.tied else place

    @cached_property
    def _fragments(self) -> dict[str, str]:
        tie = f"m.{self.order.rowid}" if self.order.tied else "null"
        return {**self._reader.chunk_fragments, "tie": tie}


def estimate_rows(connection: sqlite3.Connection, reader: TableReader) -> int:
    """About how many rows a table has for the link: exact for a small one, else by its rowids and a sample."""
    names = reader.chunk_fragments
    sql = reader.render_chunk("count_some", names)
    most = _COUNTED if reader.rowid is not None else 10 * _COUNTED
    counted, sampled, wanted = connection.execute(sql, (most, _SAMPLE)).fetchone()
    if counted == _COUNTED and reader.rowid is not None:
        span, room = connection.execute(reader.render_chunk("rowid_span", {"rowid": reader.rowid})).fetchone()
        counted = max(min(int(span), int(room)), counted)
    return int(counted) * int(wanted) // max(int(sampled), 1)


class ChunkReading:
    """The chunk of one batch, read in the transaction that ends its changes.

    Only rows asked for by key that are too large for one transaction come in more parts: what is written meanwhile is in a
    later part and in the next batch, which brings such a row once more.

    Args:
        request: what the target wants.
        largest: at most this many rows, so that the transaction is short.
    """

    def __init__(self, request: ChunkRequest, largest: int) -> None:
        self._request, self._largest = request, largest
        self._keys = list({encode_image(key): key for key in _stored(request.keys or ())}.values())
        self._rows = self._asked = 0
        self.chunk: Chunk | None = None
        """What was read; ``None`` before all is."""

    def read(self, connection: sqlite3.Connection, readers: Iterable[TableReader], ordinal: int) -> RowBlock:
        """The next part, numbered from ``ordinal`` + 1. Raises SetupError when the table is not captured."""
        found = next((reader for reader in readers if reader.plan.source.name == self._request.table), None)
        if found is None:
            raise SetupError(f"table {self._request.table} is not captured", hint="run: replicator install")
        reader = ChunkReader(connection, found)
        if self._request.keys is not None:
            return self._read_keys(reader, ordinal)
        behind = reader.order.read(self._request.behind)
        block, end, last = reader.rows_behind(behind, min(self._request.limit, self._largest), ordinal)
        upto = self._request.behind if end is None else reader.order.spell(end)
        self.chunk = Chunk(self._request.backfill, upto, _count(block), last)
        return block

    def _read_keys(self, reader: ChunkReader, ordinal: int) -> RowBlock:
        some = self._keys[self._asked : self._asked + self._largest]
        block, asked = reader.rows_of(some, ordinal)
        self._asked += asked
        self._rows += _count(block)
        if self._asked == len(self._keys):
            # Whether more keys are wanted is for the target to say.
            self.chunk = Chunk(self._request.backfill, self._request.upto, self._rows, last=False)
        return block


def _stored(keys: Iterable[Key]) -> Iterable[Key]:
    """Keys with their values as this engine's readers have them."""
    for key in keys:
        yield tuple(Undecoded(value) if isinstance(value, Undecodable) else value for value in key)


def _count(block: RowBlock) -> int:
    return len(block.rows) + len(block.odd)
