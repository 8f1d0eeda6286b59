"""Reads what of ours a PostgreSQL database has, beside the user's tables: the facts plans and checks are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replicator.engines.postgres.capture import Capture, Trigger, function_name, relation_fingerprint
from replicator.engines.postgres.catalogue import Inventory, read_inventory, rows
from replicator.engines.postgres.connection import PostgresConnection
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


@dataclass(frozen=True, slots=True)
class Installed:
    """What is there: the user's tables and ours."""

    inventory: Inventory
    has_schema: bool = False
    migrations: Mapping[int, str] = field(default_factory=dict)
    has_identity: bool = False
    topologies: tuple[str, ...] = ()
    relations: tuple[RelationRecord, ...] = ()
    next_relation: int = 1
    functions: Mapping[str, str] = field(default_factory=dict)
    triggers: Mapping[TableName, tuple[Trigger, ...]] = field(default_factory=dict)
    rowwise: frozenset[int] = frozenset()
    owned: frozenset[int] = frozenset()

    def captures(self, topology: str, plans: Sequence[TablePlan]) -> list[Capture]:
        """The plans as captured tables: relation numbers given out, and the way to capture chosen."""
        known = {(record.table, record.fingerprint): record.id for record in self.relations}
        free = self.next_relation
        made = []
        for plan in plans:
            number = known.get((plan.source.name, relation_fingerprint(plan)))
            if number is None:
                number, free = free, free + 1
            oid = self.inventory.oids.get(plan.source.name, 0)
            made.append(Capture(
                plan=plan, topology=topology, relation=number, settings=self._settings(plan),
                by_row=plan.source.kind != "table" or oid in self.rowwise, owned=oid in self.owned,
            ))  # fmt: skip
        return made

    def record(self, capture: Capture) -> RelationRecord | None:
        """The relation on record for a capture."""
        return next((record for record in self.relations if record.id == capture.relation), None)

    def own_triggers(self, capture: Capture) -> tuple[Trigger, ...]:
        """Triggers of this topology on the table, as they are."""
        name = function_name(capture.topology, capture.plan.source.name)
        return tuple(t for t in self.triggers.get(capture.plan.source.name, ()) if t.function == name)

    def _settings(self, plan: TablePlan) -> frozenset[str]:
        found: set[str] = set()
        oid = self.inventory.oids.get(plan.source.name)
        for column in plan.columns:
            found |= self.inventory.type_settings.get((oid or 0, column.source), frozenset())
        return frozenset(found)


def read_installed(connection: PostgresConnection, topology: str) -> Installed:
    """Everything of one topology, and what all share."""
    inventory = read_inventory(connection)
    oids = list(inventory.oids.values())
    ((migrated, has_schema),) = rows(connection, "install", "our_schema")
    triggers: dict[TableName, list[Trigger]] = defaultdict(list)
    for schema, table, name, kind, enabled, function, old_table, new_table in rows(connection, "install", "triggers"):
        shown = Trigger(str(name), int(str(kind)), str(enabled), str(function), str(old_table), str(new_table))
        triggers[TableName(str(schema), str(table))].append(shown)
    base = {
        "inventory": inventory,
        "has_schema": bool(has_schema),
        "functions": {str(name): str(mark) for name, mark in rows(connection, "install", "functions")},
        "triggers": {name: tuple(found) for name, found in triggers.items()},
        "rowwise": frozenset(int(str(row[0])) for row in rows(connection, "install", "rowwise")),
        "owned": frozenset(int(str(row[0])) for row in rows(connection, "install", "owned", oids)),
    }
    if not migrated:
        return Installed(**base)  # type: ignore[arg-type]  # the names are the fields' own
    return Installed(
        **base,  # type: ignore[arg-type]
        migrations={int(str(number)): str(mark) for number, mark in rows(connection, "install", "migrations")},
        has_identity=bool(rows(connection, "install", "has_identity")[0][0]),
        topologies=tuple(str(row[0]) for row in rows(connection, "install", "topologies")),
        relations=tuple(map(_record, rows(connection, "install", "relations", topology))),
        next_relation=int(str(rows(connection, "install", "next_relation")[0][0])),
    )


def _record(row: tuple[object, ...]) -> RelationRecord:
    number, schema, table, columns, key, mark, retired, loaded = row
    return RelationRecord(
        int(str(number)), TableName(str(schema), str(table)), _texts(columns), _texts(key), str(mark), bool(retired),
        bool(loaded),
    )  # fmt: skip


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
