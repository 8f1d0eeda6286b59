"""Captured table versions on record: which of them a table is as it is now. Pure: no connection.

A column is its number (pg_attribute.attnum), whatever it is called: one that was dropped and added again under its old name is
another one, and what it holds was never captured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replicator.engines.postgres.capture import relation_fingerprint
from replicator.model import TableName, TablePlan


@dataclass(frozen=True, slots=True)
class RelationRecord:
    """A row of ``replicator.relation``."""

    id: int
    table: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    fingerprint: str
    retired: bool
    loaded: bool
    oid: int = 0
    """The table's number in pg_class; 0 where it is not on record."""
    attnums: tuple[int, ...] = ()
    """The columns' numbers in pg_attribute; none where they are not on record."""
    torn: bool = False
    """Whether the outbox has rows, captured by name beside it, in which a column of it was not there or called otherwise."""


def choose(plan: TablePlan, attnums: Mapping[str, int], records: Sequence[RelationRecord]) -> tuple[int, str]:
    """The number (0: a new one) and the fingerprint of the version that a planned table is.

    A torn one is not gone on with, though the table is as it was again: the rows it lacks come with a new one. Of a table that
    is not there nothing says that it is another one: it is as it was captured last.
    """
    columns = [(column.source, column.source_type) for column in plan.columns]
    if not attnums:
        names = tuple(name for name, _ in columns)
        for each in records:
            if (each.table, each.columns, each.key) == (plan.source.name, names, tuple(plan.key)) and not each.retired:
                return each.id, each.fingerprint
    same = [
        each for each in records if each.table == plan.source.name and is_of(each, columns, plan.key, attnums, records)
    ]
    whole = [each for each in same if not each.torn]
    if whole:
        best = min(whole, key=lambda each: each.retired)
        return best.id, best.fingerprint
    after = max((each.id for each in same), default=0)
    return 0, relation_fingerprint(columns, plan.key, _numbers(columns, attnums), after)


def is_of(
    record: RelationRecord, columns: Sequence[tuple[str, str]], key: Sequence[str], attnums: Mapping[str, int],
    records: Sequence[RelationRecord],
) -> bool:  # fmt: skip
    """Whether a version on record has these columns (name and type), of the numbers they have now, and this key."""
    numbers = _numbers(columns, attnums)
    if record.fingerprint == relation_fingerprint(columns, key):  # an installation from before
        return not record.retired and record.attnums in ((), numbers)
    others = [each.id for each in records if each.table == record.table]
    return record.fingerprint in {relation_fingerprint(columns, key, numbers, after) for after in (0, *others)}


def _numbers(columns: Sequence[tuple[str, str]], attnums: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(attnums.get(name, 0) for name, _ in columns)
