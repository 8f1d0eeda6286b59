"""Captured tables of a SQLite file that are gone or called otherwise: what keeps, brings back, or gives up their changes. Pure.

ALTER TABLE RENAME takes our triggers along, so that they tell what a table is called now. What waits of a table that is gone
can only be read once it is back: until then its outbox rows carry the negative relation number, and are not pruned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from replicator.engines.sqlite import planned
from replicator.engines.sqlite.captured import State, Trigger
from replicator.engines.sqlite.names import trigger_name
from replicator.model import PlannedStatement, TablePlan

EVENTS = ("ai", "au", "ak", "ad")


def present_name(topology: str, table: str, triggers: Mapping[str, Trigger]) -> str:
    """What a captured table is called now, by the triggers that were made on it; empty where they are gone."""
    found = {triggers[name].table for event in EVENTS if (name := trigger_name(topology, table, event)) in triggers}
    return found.pop() if len(found) == 1 else ""


def carry(topology: str, plans: Collection[TablePlan], state: State) -> tuple[State, list[PlannedStatement]]:
    """The state with renamed tables under the names the plans have for them, and what puts that on record.

    All their rows are read again: the name may go to another table at the centre.
    """
    keys = {plan.source.name.name: plan.key for plan in plans}
    relations, columns, steps = dict(state.relations), dict(state.columns), []
    for table in gone(state):
        name = present_name(topology, table, state.triggers)
        if name not in keys or name in relations:
            continue
        relations[name] = []
        for number, mark in relations.pop(table):
            same = mark == planned.fingerprint_of(table, keys[name])
            mark = planned.fingerprint_of(name, keys[name]) if same else mark
            relations[name].append((number, mark))
            columns[number] = frozenset()
            steps.append(planned.rename_relation(number, table, name, mark))
    return replace(state, relations=relations, columns=columns), steps


def give_up(topology: str, plans: Collection[TablePlan], state: State) -> Iterator[PlannedStatement]:
    """What ends the capture of tables that are gone, or called as no plan calls them."""
    planned_names = {plan.source.name.name for plan in plans}
    for table in gone(state):
        if table in planned_names:
            continue  # one that install makes
        triggers = [
            name for event in (*EVENTS, "bi", "bu") if (name := trigger_name(topology, table, event)) in state.triggers
        ]
        yield planned.give_up(table, [number for number, _ in state.relations[table]], triggers)


def gone(state: State) -> list[str]:
    """Captured tables that the file has no more under their names."""
    return [table for table in state.relations if table not in state.tables]
