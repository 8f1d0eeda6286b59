"""Captured tables of a PostgreSQL site that are gone or called otherwise: what carries them on, or gives them up. Pure.

A table is known by its number (pg_class.oid), whatever it is called. Of one that is gone the outbox has whole images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from replicator.engines.postgres import planned
from replicator.engines.postgres.capture import function_name
from replicator.engines.postgres.inspect import Installed
from replicator.model import PlannedStatement, TableName


def carry(
    topology: str, wanted: Collection[TableName], installed: Installed
) -> tuple[Installed, list[PlannedStatement]]:
    """What is installed with renamed tables under the names the plans have for them, and what puts that on record.

    Nothing of a name that was captured before: two versions of it could not be told apart.
    """
    called = {oid: name for name, oid in installed.inventory.oids.items()}
    known = {record.table for record in installed.relations}
    names: dict[TableName, TableName] = {}
    for record in installed.relations:
        name = called.get(record.oid)
        if name is None or record.table in called.values():
            continue
        if not record.retired and name in wanted and name not in known:
            names[record.table] = name
    relations = tuple(
        replace(each, table=names[each.table], loaded=False) if each.table in names else each
        for each in installed.relations
    )
    steps = [planned.rename_relation(topology, old, new) for old, new in names.items()]
    return replace(installed, relations=relations), steps


def give_up(topology: str, wanted: Collection[TableName], installed: Installed) -> Iterator[PlannedStatement]:
    """What ends the capture of tables that are gone, or called as no plan calls them."""
    there = installed.inventory.catalogue.tables.keys() | set(wanted)
    for table in sorted({each.table for each in installed.relations if not each.retired} - there):
        yield planned.give_up(topology, table, function_name(topology, table))


def drop_functions(
    topology: str, steps: Collection[PlannedStatement], installed: Installed
) -> Iterator[PlannedStatement]:
    """Drops the functions of tables that go on under other names."""
    for step in steps:
        function = step.object.removeprefix("function ")
        if function in installed.functions:
            yield planned.drop_function(function)
