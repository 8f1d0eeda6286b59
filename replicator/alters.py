"""Statements that change users' tables, in either dialect: what messages name and ``schema apply`` runs. Pure.

The texts are templates of ``sql/<engine>/schema.sql``; types are spelled as the database they are meant for spells them.
"""

from __future__ import annotations

from collections.abc import Sequence

from replicator.model import ColumnShape, Engine, TableName
from replicator.sqlfiles import quote, quoted, render, statement


def add_column(engine: Engine, table: TableName, column: ColumnShape) -> str:
    """Adds a column. SQLite takes a NOT NULL column only with a default that is not NULL."""
    parts = [quote(column.name), column.type]
    if column.not_null and (column.default or engine is Engine.POSTGRES):
        parts.append("not null")
    if column.default:
        parts.append(f"default {column.default}")
    return _fill(engine, "add_column", table, column=" ".join(part for part in parts if part))


def drop_column(engine: Engine, table: TableName, column: str) -> str:
    """Drops a column."""
    return _fill(engine, "drop_column", table, column)


def rename_column(engine: Engine, table: TableName, column: str, new: str) -> str:
    """Renames a column."""
    return _fill(engine, "rename_column", table, column, new=quote(new))


def rename_table(engine: Engine, table: TableName, new: str) -> str:
    """Renames a table within its schema."""
    return _fill(engine, "rename_table", table, new=quote(new))


def set_type(table: TableName, column: str, kind: str) -> str:
    """Gives a PostgreSQL column another type."""
    return _fill(Engine.POSTGRES, "set_type", table, column, type=kind)


def set_not_null(table: TableName, column: str) -> str:
    """Lets a PostgreSQL column refuse NULL."""
    return _fill(Engine.POSTGRES, "set_not_null", table, column)


def drop_not_null(table: TableName, column: str) -> str:
    """Lets a PostgreSQL column take NULL."""
    return _fill(Engine.POSTGRES, "drop_not_null", table, column)


def set_key(table: TableName, columns: Sequence[str], old: str = "") -> str:
    """Makes columns a PostgreSQL table's primary key, in place of the constraint called ``old``."""
    listed = quoted(tuple(columns))
    if not old:
        return _fill(Engine.POSTGRES, "add_key", table, columns=listed)
    return _fill(Engine.POSTGRES, "replace_key", table, constraint=old, columns=listed)


def _fill(
    engine: Engine, name: str, table: TableName, column_name: str = "", /, constraint: str = "", **fragments: str
) -> str:
    folder = "postgres" if engine is Engine.POSTGRES else "sqlite"
    identifiers = {"schema": table.schema, "table": table.name, "column": column_name, "constraint": constraint}
    lines = [
        line for line in statement(f"sql/{folder}/schema.sql", name).splitlines() if not line.lstrip().startswith("--")
    ]
    return render(" ".join(lines), identifiers=identifiers, fragments=fragments)
