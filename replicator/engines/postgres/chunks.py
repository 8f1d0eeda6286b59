"""Chunks of a backfill at a PostgreSQL source: rows of one table in key order, as they are in a snapshot.

Keys are compared by the server alone, with the operators of their types and of the columns' collations. A place in the order
is a record literal of the key as the server spells it, behind a sign of the order itself: a place in an order that the table
does not have any more is none, and the rows are gone through from the beginning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replicator import sqlfiles
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection, translated
from replicator.engines.postgres.copying import copy_out
from replicator.errors import RetryableError
from replicator.model import Chunk, ChunkRequest, Relation, TablePlan
from replicator.ports import OutboxBlock
from replicator.records import encode_record, parse_record
from replicator.sqlfiles import literal, quote, quoted

_SQL = "sql/postgres/chunk.sql"
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_SIGN = 8
_IMAGE, _PREFIX = 5, 3
"""Place of the image in a line of the COPY; of the first value in a line of numbered plain rows."""


class ChunkRows:
    """One chunk's rows, streamed from the source while its transaction is open.

    Args:
        connection: the one whose snapshot is read.
        place: how messages name the database.
        wanted: what was asked for.
        relation: what the places of an image mean.
        sign: of the order they come in.
        statement: the COPY; empty where nothing is to be read now.
        values: a query of the same rows value by value; empty where there is none. Then they can be had as PlainRows.
    """

    def __init__(
        self, connection: PostgresConnection, place: str, wanted: ChunkRequest, relation: Relation, sign: str,
        statement: str, values: str = "",
    ) -> None:  # fmt: skip
        self._connection = connection
        self._place = place
        self._wanted = wanted
        self._relation = relation
        self._sign = sign
        self._statement = statement
        self._values = values
        self._first: int | None = None
        self._last = b""
        self._rows = 0

    def blocks(self) -> Iterator[OutboxBlock]:
        """One block, or none."""
        if self._statement:
            plain = self if self._values else None
            yield OutboxBlock(self._stream(self._statement, None), loaded=True, plain=plain)

    @property
    def relation(self) -> int:
        """The relation's number; see ports.PlainRows."""
        return self._relation.id

    def read(self, *, numbered: bool) -> Iterator[bytes]:
        """See ports.PlainRows."""
        name, first = ("read_numbered", _PREFIX) if numbered else ("read_plain", 0)
        return self._stream(piece(name, part=self._values), first)

    def put_off(self) -> None:
        """Bring nothing now: the next batch is asked for the same again."""
        self._statement = ""

    def _stream(self, statement: str, first: int | None) -> Iterator[bytes]:
        """Rows as they come. ``first``: the place of the first value in a line; none where lines have an image."""
        self._first, self._last, self._rows = first, b"", 0
        with translated(self._place):
            for data in copy_out(self._connection, statement):
                self._last = data
                self._rows += data.count(b"\n")
                yield data

    @property
    def chunk(self) -> Chunk:
        """How far the rows go; known once they were read."""
        wanted = self._wanted
        if not self._statement:
            return Chunk(wanted.backfill, wanted.behind, 0, last=False)
        if wanted.keys is not None:
            return Chunk(wanted.backfill, wanted.upto, self._rows, last=False)
        return Chunk(wanted.backfill, self._last_key() or wanted.behind, self._rows, last=self._rows < wanted.limit)

    def _last_key(self) -> str | None:
        if not self._last:
            return None
        fields = self._last.rstrip(b"\n").rpartition(b"\n")[2].split(b"\t")
        places = [self._relation.columns.index(name) for name in self._relation.key]
        if self._first is None:
            values = parse_record(_unescaped(fields[_IMAGE]))
            return self._sign + encode_record([values[place] for place in places])
        return self._sign + encode_record([_unescaped(fields[self._first + place]) for place in places])


def _unescaped(field: bytes) -> str:
    """What a field of COPY text says; it is not NULL."""
    return _ESCAPED.sub(lambda match: _ESCAPES.get(match.group(1), match.group(1)), field).decode()


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """The order of a table's keys: where each column's operators are, its type, and a sign that another order does not have."""

    schemas: Sequence[str]
    types: Sequence[str]
    sign: str


def hold(connection: PostgresConnection, plan: TablePlan) -> None:
    """Keep a plan's source table as it is until the connection's transaction ends; see ``require_as_seen``."""
    name = {"schema": plan.source.name.schema, "table": plan.source.name.name}
    connection.execute(piece("hold", name, key=quoted(tuple(plan.key), "t."), only=only(plan)).encode())


def require_as_seen(connection: PostgresConnection, place: str) -> None:
    """Raises RetryableError where a table that was read has been rewritten since the connection's snapshot was taken.

    To that snapshot such a table is empty.
    """
    if not rows(connection, "chunk", "is_as_seen")[0][0]:
        raise RetryableError(f"{place}: a table was altered or emptied just before it was read; it is read anew")


def key_order(connection: PostgresConnection, plan: TablePlan) -> KeyOrder:
    """The order of a plan's source table as it is now. Its sign is another, too, when the row filter is: more rows may pass."""
    name = plan.source.name
    found = rows(connection, "chunk", "key_order", name.schema, name.name, list(plan.key))
    schemas, types, spelled = zip(*(map(str, row) for row in found), strict=True)
    return KeyOrder(schemas, types, hashlib.sha256(", ".join((*spelled, inside(plan))).encode()).hexdigest()[:_SIGN])


class KeyRange:
    """The pieces of a statement that say which rows of a plan's source table a chunk has, and in what order.

    Args:
        plan: the table's.
        in_order: the order of its key.
        wanted: what was asked for.
    """

    def __init__(self, plan: TablePlan, in_order: KeyOrder, wanted: ChunkRequest) -> None:
        self._plan = plan
        self._names = [{"operators": schema} for schema in in_order.schemas]
        self._types = dict(zip(plan.key, in_order.types, strict=True))
        self.sign = in_order.sign
        self.wanted = wanted

    @property
    def behind(self) -> str:
        """Whether a row lies behind the last chunk."""
        sign, place = (self.wanted.behind or "")[:_SIGN], (self.wanted.behind or "")[_SIGN:]
        if sign != self.sign:
            return "true"  # the first chunk, or the order is another now: from the start, and rows that are there cost little
        values = parse_record(place)
        typed = [self._typed(literal(str(value)), name) for value, name in zip(values, self._plan.key, strict=True)]
        return beyond(self._plan.key, [names["operators"] for names in self._names], typed)

    @property
    def order(self) -> str:
        """The order of the key."""
        pairs = zip(self._plan.key, self._names, strict=True)
        terms = [piece("in_order", names, column=f"t.{quote(name)}") for name, names in pairs]
        return ", ".join(term.partition("\n")[2] for term in terms)

    @property
    def keys(self) -> str:
        """The keys that were asked for, each with its place."""
        return ", ".join(
            "(" + ", ".join([str(place), *("null" if v is None else literal(str(v)) for v in key)]) + ")"
            for place, key in enumerate(self.wanted.keys or ())
        )

    @property
    def names(self) -> str:
        """What the values of such a key are called."""
        return ", ".join(f"k{n}" for n in range(len(self._plan.key)))

    @property
    def same_row(self) -> str:
        """Whether a row has such a key."""
        return " and ".join(
            piece("same_value", names, column=f"t.{quote(name)}", value=self._typed(f"w.k{n}", name))
            for n, (name, names) in enumerate(zip(self._plan.key, self._names, strict=True))
        )

    def gone(self, columns: Sequence[str]) -> str:
        """Nothing but such a key, over a relation's columns."""
        place = {name: n for n, name in enumerate(self._plan.key)}
        return ", ".join(
            self._typed(f"w.k{place[name]}", name) if name in place else piece("nothing") for name in columns
        )

    def _typed(self, value: str, name: str) -> str:
        return piece("typed", value=value, type=self._types[name])


def beyond(key: Sequence[str], operators: Sequence[str], values: Sequence[str]) -> str:
    """Whether the key of the row ``t`` is greater than these values; ``operators``: the schema of each column's."""
    names = [{"operators": schema} for schema in operators]
    if all(each == names[0] for each in names):
        return piece("behind", names[0], key=quoted(tuple(key), "t."), values=", ".join(values))
    columns = [f"t.{quote(name)}" for name in key]
    test = "false"
    for each, column, value in reversed(list(zip(names, columns, values, strict=True))):
        first = piece("behind", each, key=column, values=value)
        same = piece("same_value", each, column=column, value=value)
        test = piece("behind_in_part", first=first, same=same, rest=test)
    return test


def site_values(plan: TablePlan, relation: Relation, span: KeyRange) -> str:
    """The rows of a chunk of a site's table value by value; empty where they were asked for by key."""
    if span.wanted.keys is not None:
        return ""
    return piece(
        "site_plain", {"schema": plan.source.name.schema, "table": plan.source.name.name},
        values=quoted(relation.columns, "t."), only=only(plan), inside=inside(plan), behind=span.behind, order=span.order,
        limit=str(span.wanted.limit),
    )  # fmt: skip


def site_chunk(plan: TablePlan, relation: Relation, span: KeyRange) -> str:
    """The COPY of a chunk of a site's table, in its captured form; empty where no key was asked for."""
    source, wanted = plan.source.name, span.wanted
    known = {
        "relation": str(relation.id),
        "values": quoted(relation.columns, "t."),
        "only": only(plan),
        "inside": inside(plan),
    }
    names = {"schema": source.schema, "table": source.name}
    if wanted.keys is None:
        part = piece("site_part", names, **known, behind=span.behind, order=span.order, limit=str(wanted.limit))
    elif not wanted.keys:
        return ""
    else:
        part = piece(
            "site_keys", names, **known, keys=span.keys, names=span.names, same_row=span.same_row,
            gone=span.gone(relation.columns), there=piece("there", value=f"t.{quote(plan.key[0])}"),
        )  # fmt: skip
    return copy_chunk(part)


def copy_chunk(part: str) -> str:
    """The COPY of a chunk's rows."""
    return piece("read_chunk", part=part)


def count_site(plan: TablePlan) -> str:
    """A query whose rows are those of a site's table that the link brings."""
    source = plan.source.name
    return piece("site_count", {"schema": source.schema, "table": source.name}, only=only(plan), inside=inside(plan))


def estimate(connection: PostgresConnection, part: str) -> int:
    """About how many rows a query has, as the server's planner sees it."""
    ((plans,),) = connection.execute(piece("estimate", part=part).encode()).fetchall()
    return int(plans[0]["Plan"]["Plan Rows"])


def only(plan: TablePlan) -> str:
    """Whether rows of tables that inherit from the plan's are not meant."""
    return "only" if plan.source.kind == "inherited" else ""


def inside(plan: TablePlan) -> str:
    """Whether the row behind ``t`` passes the plan's row filter."""
    return "(" + quote("t").join(plan.where.postgres) + ")" if plan.where else "true"


def piece(which: str, identifiers: Mapping[str, str] | None = None, /, **fragments: str) -> str:
    """A named part of the chunk file, filled."""
    lines = sqlfiles.statement(_SQL, which).splitlines()
    template = "\n".join(line for line in lines if not line.startswith("--"))
    return sqlfiles.render(template, identifiers=identifiers, fragments=fragments)
