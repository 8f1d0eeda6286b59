"""What a database has: tables, columns, keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replicator.model.words import Engine


@dataclass(frozen=True, slots=True, order=True)
class TableName:
    """A table's name; ``schema`` is empty on SQLite."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema and self.schema != "public" else self.name


@dataclass(frozen=True, slots=True)
class ColumnShape:
    """One column as the catalogue shows it.

    ``type`` is ``format_type`` on PostgreSQL, the declared type as written on SQLite (may be empty).
    ``generated`` columns are computed by the database and never captured or written.
    """

    name: str
    type: str
    not_null: bool = False
    generated: bool = False
    identity_always: bool = False
    collation: str = ""
    default: str = ""


@dataclass(frozen=True, slots=True)
class UniqueShape:
    """A unique index or constraint; ``exact`` is false for partial and expression indexes."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    exact: bool = True
    deferrable: bool = False
    predicate: str = ""
    collations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignKeyShape:
    """A foreign key; ``on_delete`` and ``on_update`` are spelled as in SQL, lower case (``no action``, ``cascade`` …)."""

    name: str
    columns: tuple[str, ...]
    parent: TableName
    parent_columns: tuple[str, ...]
    on_delete: str = "no action"
    on_update: str = "no action"
    deferrable: bool = False


@dataclass(frozen=True, slots=True)
class TableShape:
    """One table as the catalogue shows it. ``key`` is the primary key's columns in order, empty when there is none.

    ``kind``: ``table``, ``partitioned``, ``partition``, ``inherited``, ``foreign`` (PostgreSQL);
    ``table``, ``without_rowid``, ``virtual`` (SQLite). ``estimate`` is a row count, exact or from statistics.
    """

    name: TableName
    columns: tuple[ColumnShape, ...]
    key: tuple[str, ...] = ()
    uniques: tuple[UniqueShape, ...] = ()
    foreign_keys: tuple[ForeignKeyShape, ...] = ()
    kind: str = "table"
    estimate: int = 0

    def column(self, name: str) -> ColumnShape:
        """The column called ``name``; raises KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All user tables of one database (ours and the system's left out)."""

    engine: Engine
    version: str
    tables: Mapping[TableName, TableShape]
