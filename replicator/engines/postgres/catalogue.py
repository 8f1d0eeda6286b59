"""Reads a PostgreSQL catalogue into the model's shapes, with a fixed number of queries whatever the number of tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator import sqlfiles
from replicator.engines.postgres.connection import PostgresConnection
from replicator.model import Catalogue, ColumnShape, Engine, ForeignKeyShape, TableName, TableShape, UniqueShape

_ACTIONS: Mapping[str, str] = {
    "a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inventory:
    """A catalogue with what only this engine needs: numbers of tables and columns, and the settings a column's text needs."""

    catalogue: Catalogue
    oids: Mapping[TableName, int]
    attnums: Mapping[int, Mapping[str, int]]
    """By table the columns' numbers (pg_attribute): one that was dropped and added again has another."""
    type_settings: Mapping[tuple[int, str], frozenset[str]]
    version: int


def rows(connection: PostgresConnection, file: str, name: str, *values: object) -> list[tuple[object, ...]]:
    """All rows of one named statement."""
    text = sqlfiles.statement(f"sql/postgres/{file}.sql", name)
    return connection.execute(text.encode(), values or None).fetchall()


def read_inventory(connection: PostgresConnection) -> Inventory:
    """Every user table of the database, one snapshot of the catalogue."""
    with connection.transaction():
        ((version, number),) = rows(connection, "catalogue", "version")
        tables = rows(connection, "catalogue", "tables")
        oids = [row[0] for row in tables]
        described = rows(connection, "catalogue", "columns", oids)
        uniques = _uniques(rows(connection, "catalogue", "uniques", oids))
        foreign_keys = _foreign_keys(rows(connection, "catalogue", "foreign_keys", oids))
        settings = rows(connection, "catalogue", "type_settings", oids)
    columns = _columns(described)
    attnums: dict[int, dict[str, int]] = defaultdict(dict)
    for row in described:
        attnums[int(str(row[0]))][str(row[1])] = int(str(row[-1]))
    shapes = {}
    for oid, schema, name, kind, estimate in tables:
        own = uniques[oid]
        shapes[TableName(str(schema), str(name))] = TableShape(
            name=TableName(str(schema), str(name)),
            columns=tuple(columns[oid]),
            key=next((unique.columns for unique in own if unique.primary), ()),
            uniques=tuple(own),
            foreign_keys=tuple(foreign_keys[oid]),
            kind=str(kind),
            estimate=int(str(estimate)),
        )
    return Inventory(
        catalogue=Catalogue(Engine.POSTGRES, str(version), shapes),
        oids={TableName(str(row[1]), str(row[2])): int(str(row[0])) for row in tables},
        attnums=attnums,
        type_settings={
            (int(str(oid)), str(column)): frozenset(map(str, _list(names))) for oid, column, names in settings
        },
        version=int(str(number)),
    )


def _columns(found: Sequence[tuple[object, ...]]) -> Mapping[object, list[ColumnShape]]:
    columns: dict[object, list[ColumnShape]] = defaultdict(list)
    for oid, name, kind, not_null, generated, always, collation, default, _ in found:
        columns[oid].append(ColumnShape(
            name=str(name), type=str(kind), not_null=bool(not_null), generated=bool(generated),
            identity_always=bool(always), collation=str(collation), default=str(default),
        ))  # fmt: skip
    return columns


def _uniques(found: Sequence[tuple[object, ...]]) -> Mapping[object, list[UniqueShape]]:
    uniques: dict[object, list[UniqueShape]] = defaultdict(list)
    for oid, name, primary, exact, deferrable, predicate, columns, collations in found:
        spelled = tuple(map(str, _list(collations)))
        uniques[oid].append(UniqueShape(
            name=str(name), columns=tuple(map(str, _list(columns))), primary=bool(primary), exact=bool(exact),
            deferrable=bool(deferrable), predicate=str(predicate), collations=spelled if any(spelled) else (),
        ))  # fmt: skip
    return uniques


def _foreign_keys(found: Sequence[tuple[object, ...]]) -> Mapping[object, list[ForeignKeyShape]]:
    keys: dict[object, list[ForeignKeyShape]] = defaultdict(list)
    for oid, name, schema, parent, deferrable, on_delete, on_update, columns, parent_columns in found:
        keys[oid].append(ForeignKeyShape(
            name=str(name), columns=tuple(map(str, _list(columns))), parent=TableName(str(schema), str(parent)),
            parent_columns=tuple(map(str, _list(parent_columns))), on_delete=_ACTIONS[str(on_delete)],
            on_update=_ACTIONS[str(on_update)], deferrable=bool(deferrable),
        ))  # fmt: skip
    return keys


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []
