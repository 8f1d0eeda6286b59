"""Bases: what a site's rows were when the centre wrote them last, for the first change of the site's own behind that.

The link from the centre writes them (follow.py), the link to the centre sends them along and, once what it sent is
acknowledged, forgets them. A base is named by topology, table, and the row's key as text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from replicator.engines.sqlite.connection import transaction
from replicator.engines.sqlite.values import decode_text, encode_image, key_maker
from replicator.model import Relation
from replicator.ports import Base, RowBlock
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/source.sql"
_CATALOGUE = "sql/sqlite/catalogue.sql"
_TRANSACTIONS = "sql/sqlite/transactions.sql"
_STRETCH, _FORGOTTEN = 10_000, 2_000
"""Outbox rows looked at in one short read; bases deleted in one short write."""


def add_key_function(connection: sqlite3.Connection) -> None:
    """Let a connection's statements make key texts: ``replicator_key``, called as ``key_call`` writes it."""
    (encoding,) = connection.execute(statement(_CATALOGUE, "encoding")).fetchone()
    connection.create_function("replicator_key", -1, partial(_key_text, str(encoding)), deterministic=True)


def key_call(values: Sequence[str]) -> str:
    """The expression that makes the key text of these SQL values, the same as values.key_maker; text may be broken."""
    parts = (f"typeof({v}), case typeof({v}) when 'text' then cast({v} as blob) else {v} end" for v in values)
    return f"replicator_key({', '.join(parts)})"


def _key_text(encoding: str, *parts: object) -> str:
    classes, values = parts[::2], parts[1::2]
    if classes == ("integer",):
        return f"[{values[0]}]"  # what is below, for most keys there are
    return encode_image(
        decode_text(value, encoding) if kind == "text" and isinstance(value, bytes) else value
        for kind, value in zip(classes, values, strict=True)
    )


def forget_bases(connection: sqlite3.Connection, name: str, bases: Sequence[Sequence[object]]) -> None:
    """Delete bases by the statement ``name``, in transactions of their own, so that none holds the write lock for long."""
    for start in range(0, len(bases), _FORGOTTEN):
        with transaction(connection, statement(_TRANSACTIONS, "begin_write")):
            connection.executemany(statement(_SQL, name), bases[start : start + _FORGOTTEN])


def base_place(topology: str, table: str) -> str:
    """How the bases of a table are named."""
    return f"{topology}/{table}"


@dataclass(frozen=True)
class BaseReader:
    """The bases of one table, as its link to the centre needs them.

    Args:
        topology: whose link it is.
        relation: the captured table.
        key_places: places of the key in a row's values.
    """

    topology: str
    relation: Relation
    key_places: tuple[int, ...]

    def add_to(self, block: RowBlock, connection: sqlite3.Connection, acknowledged: int, after: int) -> RowBlock:
        """The block with the bases of its rows, read in the transaction the rows were read in.

        A base is good for the first change behind it: not where the row was changed between it and ``after``. Changes up to
        ``acknowledged`` need no look: their bases went when they were acknowledged.
        """
        if not self._any(connection):
            return block
        rows = (*block.rows, *block.odd)
        keys = [self._key_of(row) for row in rows]
        wanted = json.dumps(keys, ensure_ascii=False)
        parameters = (self.place, wanted, acknowledged, after, self.relation.id)
        found: Mapping[str, tuple[object, ...]] = {
            str(key): rest for key, *rest in connection.execute(self._read_bases, parameters)
        }
        bases = [
            Base(int(str(row[0])), not found[key][0], *(None if v is None else str(v) for v in found[key][1:]))
            for row, key in zip(rows, keys, strict=True)
            if key in found
        ]
        return replace(block, bases=bases)

    def list_settled(self, connection: sqlite3.Connection, low: int, high: int) -> Iterator[list[tuple[str, str, int]]]:
        """Bases that outbox rows in ``low`` < seq <= ``high`` have used up, in portions: table, key, and that row's seq."""
        if not self._any(connection):
            return
        for start in range(low, high, _STRETCH):
            parameters = (self.place, start, min(start + _STRETCH, high), self.relation.id)
            found = connection.execute(self._list_settled, parameters).fetchall()
            if found:
                yield [(self.place, str(key), int(seq)) for key, seq in found]

    def list_known(self, block: RowBlock, connection: sqlite3.Connection) -> list[tuple[object, ...]]:
        """The bases of a chunk's rows: once the centre has those, its ledger knows the rows as they are."""
        if not self._any(connection):
            return []
        wanted = json.dumps([self._key_of(row) for row in (*block.rows, *block.odd)], ensure_ascii=False)
        return connection.execute(statement(_SQL, "list_bases"), (self.place, wanted)).fetchall()

    @property
    def place(self) -> str:
        """How the bases of this table are named."""
        return base_place(self.topology, self.relation.table.name)

    def _any(self, connection: sqlite3.Connection) -> bool:
        (found,) = connection.execute(statement(_SQL, "has_bases"), (self.place,)).fetchone()
        return bool(found)

    @cached_property
    def _key_of(self) -> Callable[[Sequence[object]], str]:
        return key_maker((), [place + 3 for place in self.key_places])

    @cached_property
    def _key_call(self) -> str:
        return key_call([f"k{place}" for place in range(len(self.key_places))])

    @cached_property
    def _read_bases(self) -> str:
        return render(statement(_SQL, "read_bases"), fragments={"key": self._key_call})

    @cached_property
    def _list_settled(self) -> str:
        return render(statement(_SQL, "list_settled"), fragments={"key": self._key_call})
