"""Foreign keys checked by hand at a SQLite target: the statements, and a broken reference in words.

Enforcement by SQLite is off while changes are applied, so that no action of a foreign key touches a third row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replicator.engines.sqlite.values import shown
from replicator.model import ForeignKeyShape, TableName, TableShape
from replicator.sqlfiles import quote, render, statement

_SQL = "sql/sqlite/apply.sql"


@dataclass(frozen=True)
class ForeignKeyCheck:
    """One foreign key as a statement that finds a broken reference around the rows of a span.

    Rows: the child's ``key`` values, then those it refers by. ``whole`` looks at all rows that refer: for removed rows that
    are not listed (TRUNCATE), and where ``sql`` is empty because the reference is not to the key.
    """

    table: str
    parent: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    sql: str
    whole: str = ""

    def broken(self, found: Sequence[object], removed: str = "") -> str:
        """A row that was found, in words; ``removed``: what became of the parent, empty where it never was there."""
        own, referred = found[: len(self.key)], found[len(self.key) :]
        child = f"{self.table} {_row(self.key, own)}" if self.key else self.table
        pairs = ", ".join(f"{name} = {shown(value)}" for name, value in zip(self.columns, referred, strict=True))
        parent = f"{self.parent} {_row(self.parent_columns, referred)}"
        return f"FOREIGN KEY constraint failed: {child} has {pairs}, and {parent} {removed or 'is not there'}"


def orphaned(shape: TableShape, shapes: Mapping[TableName, TableShape], same_key: str) -> Iterator[ForeignKeyCheck]:
    """References of the rows that were written (``t``, found by ``same_key`` among ``n``). Parameters: relation, verdicts."""
    for key in shape.foreign_keys:
        if parent_of(key, shapes) is not None:
            fragments = {
                "values": _values(shape, key, "t"),
                "same_key": same_key,
                "refers": " and ".join(f"t.{quote(column)} is not null" for column in key.columns),
                "parent": _matches(key, "t"),
            }
            names = {"table": shape.name.name, "parent": key.parent.name}
            yield _check(shape, key, render(statement(_SQL, "orphaned"), identifiers=names, fragments=fragments))


def bereaved(
    shape: TableShape, shapes: Mapping[TableName, TableShape], places: Mapping[str, str]
) -> Iterator[ForeignKeyCheck]:
    """References to rows that were removed; ``places``: key column, in lower case → its value. Parameters as above."""
    for child in shapes.values():
        for key in child.foreign_keys:
            if parent_of(key, shapes) is shape:
                yield _bereaved(shape, child, key, places)


def _bereaved(shape: TableShape, child: TableShape, key: ForeignKeyShape, places: Mapping[str, str]) -> ForeignKeyCheck:
    names = {"table": shape.name.name, "child": child.name.name}
    fragments = {"values": _values(child, key, "c"), "parent": _matches(key, "c")}
    anyhow = " and ".join(f"c.{quote(own)} is not null" for own in key.columns)
    whole = render(statement(_SQL, "bereaved_anyhow"), identifiers=names, fragments={**fragments, "refers": anyhow})
    if any(column.lower() not in places for column in key.parent_columns):
        return _check(child, key, "", whole)
    pairs = zip(key.columns, key.parent_columns, strict=True)
    refers = " and ".join(f"c.{quote(own)} = {places[column.lower()]}" for own, column in pairs)
    sql = render(statement(_SQL, "bereaved"), identifiers=names, fragments={**fragments, "refers": refers})
    return _check(child, key, sql, whole)


def parent_of(key: ForeignKeyShape, shapes: Mapping[TableName, TableShape]) -> TableShape | None:
    """The referred-to table, when it is there and the reference matches a key of it."""
    for shape in shapes.values():
        if shape.name.name.lower() == key.parent.name.lower() and len(key.columns) == len(key.parent_columns):
            wanted = {column.lower() for column in key.parent_columns}
            keys = [{column.lower() for column in unique.columns} for unique in shape.uniques if unique.exact]
            return shape if wanted in keys else None
    return None


def _check(child: TableShape, key: ForeignKeyShape, sql: str, whole: str = "") -> ForeignKeyCheck:
    return ForeignKeyCheck(
        child.name.name, key.parent.name, tuple(child.key), tuple(key.columns), tuple(key.parent_columns), sql, whole
    )


def _values(child: TableShape, key: ForeignKeyShape, alias: str) -> str:
    return ", ".join(f"{alias}.{quote(column)}" for column in (*child.key, *key.columns))


def _matches(key: ForeignKeyShape, alias: str) -> str:
    pairs = zip(key.columns, key.parent_columns, strict=True)
    return " and ".join(f"p.{quote(parent)} = {alias}.{quote(own)}" for own, parent in pairs)


def _row(names: Sequence[str], values: Sequence[object]) -> str:
    return f"({', '.join(names)}) = ({', '.join(str(shown(value)) for value in values)})"
