"""What a SQLite file has: tables, columns, keys, unique indexes, foreign keys; by sqlite-utils where it shows them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator

import sqlite_utils
from sqlite_utils.db import Index, Table, XIndexColumn

from replicator.engines.sqlite.names import our_tables
from replicator.model import Catalogue, ColumnShape, Engine, ForeignKeyShape, TableName, TableShape, UniqueShape
from replicator.sqlfiles import render, statement

_SQL = "sql/sqlite/catalogue.sql"
_EXPRESSION = -2
"""Column number of an expression in ``pragma index_xinfo``."""

_OWN_COLLATION = re.compile(r"no such collation sequence: (.*)")
"""What SQLite says of a collation that only the application has."""
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] | --[^\n]* | /\*.*?\*/ | \w+ | [()]""",
    re.VERBOSE | re.DOTALL,
)


def read_catalogue(connection: sqlite3.Connection) -> Catalogue:
    """All user tables of the file. Reads without a transaction of its own."""
    ours = our_tables()
    database = sqlite_utils.Database(connection, recursive_triggers=False, execute_plugins=False)
    shapes = (
        _read_table(database, connection, name, kind, bool(without_rowid))
        for name, kind, without_rowid in connection.execute(statement(_SQL, "list_tables")).fetchall()
        if kind in ("table", "virtual") and name not in ours
    )
    return Catalogue(Engine.SQLITE, sqlite3.sqlite_version, {shape.name: shape for shape in shapes})


def _read_table(
    database: sqlite_utils.Database, connection: sqlite3.Connection, name: str, kind: str, without_rowid: bool
) -> TableShape:
    if kind == "virtual":
        return TableShape(TableName("", name), (), kind="virtual")
    rows = connection.execute(statement(_SQL, "list_columns"), (name,)).fetchall()
    table = database.table(name)
    key = tuple(row[0] for row in sorted((row for row in rows if row[4]), key=lambda row: int(row[4])))
    uniques = tuple(_uniques(table, connection, key))
    default_collations = _column_collations(connection, name, [str(row[0]) for row in rows])
    always_filled = set(key) if without_rowid or _is_rowid_alias(uniques) else set()
    columns = tuple(
        ColumnShape(
            name=column,
            type=declared,
            not_null=bool(not_null) or column in always_filled,
            generated=hidden in (2, 3),
            collation=default_collations.get(column, ""),
            default=default or "",
        )
        for column, declared, not_null, default, _, hidden in rows
    )
    return TableShape(
        name=TableName("", name),
        columns=columns,
        key=key,
        uniques=uniques,
        foreign_keys=tuple(_foreign_keys(table)),
        kind="without_rowid" if without_rowid else "table",
        estimate=_estimate(connection, name, without_rowid),
    )


def _uniques(table: Table, connection: sqlite3.Connection, key: tuple[str, ...]) -> Iterator[UniqueShape]:
    """Unique indexes; a rowid alias has none, it comes as a primary key without an index name."""
    details = {index.name: [column for column in index.columns if column.key] for index in table.xindexes}
    indexes = [index for index in table.indexes if index.unique]
    if key and not any(index.origin == "pk" for index in indexes):
        yield UniqueShape("", key, primary=True)
    for index in indexes:
        yield _unique(index, details[index.name], connection)


def _unique(index: Index, columns: list[XIndexColumn], connection: sqlite3.Connection) -> UniqueShape:
    by_expression = any(column.cid == _EXPRESSION for column in columns)
    predicate = ""
    if index.partial:
        (text,) = connection.execute(statement(_SQL, "read_index_sql"), (index.name,)).fetchone()
        predicate = predicate_of(text)
    return UniqueShape(
        name=index.name,
        columns=() if by_expression else tuple(str(column.name) for column in columns),
        primary=index.origin == "pk",
        exact=not by_expression and not index.partial,
        predicate=predicate,
        collations=() if by_expression else tuple(str(column.coll) for column in columns),
    )


def predicate_of(create_index: str) -> str:
    """The WHERE expression of a CREATE INDEX statement, empty when there is none."""
    depth = 0
    for token in _TOKEN.finditer(create_index):
        word = token.group()
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth == 0 and word.upper() == "WHERE":
            return create_index[token.end() :].strip()
    return ""


def _column_collations(connection: sqlite3.Connection, table: str, columns: Iterable[str]) -> dict[str, str]:
    """Collations the columns were declared with (an index may have others); BINARY is left out."""
    (text,) = connection.execute(statement(_SQL, "read_table_sql"), (table,)).fetchone() or ("",)
    if "collate" not in str(text).lower():
        return {}
    found = {column: _column_collation(connection, table, column) for column in columns}
    return {column: collation for column, collation in found.items() if collation != "BINARY"}


def _column_collation(connection: sqlite3.Connection, table: str, column: str) -> str:
    names = {"table": table, "column": column}
    sql = render(statement("sql/sqlite/source.sql", "column_collation"), identifiers=names)
    try:
        (collation,) = connection.execute(sql).fetchone()
    except sqlite3.OperationalError as error:
        unknown = _OWN_COLLATION.search(str(error))
        if unknown is None:
            raise
        return unknown.group(1)
    return str(collation)


def _is_rowid_alias(uniques: tuple[UniqueShape, ...]) -> bool:
    return any(unique.primary and not unique.name for unique in uniques)


def _foreign_keys(table: Table) -> Iterator[ForeignKeyShape]:
    for number, key in enumerate(table.foreign_keys):
        yield ForeignKeyShape(
            name=f"fk_{number}",
            columns=tuple(key.columns),
            parent=TableName("", key.other_table),
            parent_columns=tuple(key.other_columns),
            on_delete=key.on_delete.lower(),
            on_update=key.on_update.lower(),
        )


def _estimate(connection: sqlite3.Connection, name: str, without_rowid: bool) -> int:
    """The highest rowid: exact enough, and no scan."""
    query = "estimate_table" if without_rowid else "estimate_rowid_table"
    (count,) = connection.execute(render(statement(_SQL, query), identifiers={"table": name})).fetchone()
    return int(count) if isinstance(count, int) else 0
