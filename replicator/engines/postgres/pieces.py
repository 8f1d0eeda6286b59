"""Expressions and facts the lane's statements are made of. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.model import ColumnShape, TableName
from replicator.sqlfiles import render, statement

_ONE_SPELLING = frozenset({
    "smallint", "integer", "bigint", "text", "character varying", "uuid", "bytea", "boolean", "oid", "date",
    "timestamp without time zone", "timestamp with time zone", "time without time zone", "inet", "macaddr",
})  # fmt: skip
"""Types whose equal values are equal bit by bit (texts in a deterministic collation)."""


@dataclass(frozen=True, slots=True)
class Cascade:
    """A foreign key of ``child`` by which a delete in the target table would remove or change rows there."""

    child: TableName
    columns: tuple[str, ...]
    referred: tuple[str, ...]


def has_one_spelling(column: ColumnShape) -> bool:
    """Whether equal values of the column are the same value; in others 1.0 equals 1.00, or case is nothing."""
    return not column.collation and column.type.partition("(")[0] in _ONE_SPELLING


def piece(which: str, /, **fragments: str) -> str:
    """A named expression of ``sql/postgres/pieces.sql``, filled."""
    return render(statement("sql/postgres/pieces.sql", which), fragments=fragments)


def as_text(value: str) -> str:
    """An expression's value as text."""
    return piece("as_text", value=value)
