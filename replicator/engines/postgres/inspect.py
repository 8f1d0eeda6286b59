"""Reads what of ours a PostgreSQL database has, beside the user's tables: the facts plans and checks are made from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from replicator.engines.postgres import central
from replicator.engines.postgres.capture import Capture, Trigger, bare_type
from replicator.engines.postgres.catalogue import Inventory, read_inventory, rows
from replicator.engines.postgres.central import CentralCapture
from replicator.engines.postgres.chains import Follower, texts_used
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.relations import RelationRecord, choose, is_of
from replicator.errors import SetupError
from replicator.model import CentralTable, TableName, TablePlan, TableShape

_TEXT_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "date": ("datestyle",), "timestamp": ("datestyle",), "time with time zone": ("datestyle",),
    "timestamp with time zone": ("datestyle", "timezone"), "interval": ("intervalstyle",),
    "real": ("extra_float_digits",), "double precision": ("extra_float_digits",), "bytea": ("bytea_output",),
    "money": ("lc_monetary",),
}  # fmt: skip
"""What the texts of plain types depend on, for tables that are not there yet; else the catalogue says it."""


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
    equalities: Mapping[str, str] = field(default_factory=dict)
    feeds: frozenset[str] = frozenset()
    may_trigger: bool = False
    """Whether event triggers may be made by who is connected."""
    event_triggers: frozenset[str] = frozenset()

    def captures(self, topology: str, plans: Sequence[TablePlan]) -> list[Capture]:
        """The plans as captured tables: relation numbers given out, and the way to capture chosen."""
        free = self.next_relation
        made = []
        for plan in plans:
            oid = self.inventory.oids.get(plan.source.name, 0)
            attnums = self.inventory.attnums.get(oid, {})
            number, mark = choose(plan, attnums, self.relations)
            if not number:
                number, free = free, free + 1
            made.append(Capture(
                plan=plan, topology=topology, relation=number, settings=self._settings(plan),
                by_row=plan.source.kind != "table" or oid in self.rowwise, owned=oid in self.owned,
                attnums=attnums, mark=mark,
            ))  # fmt: skip
        return made

    def central(self, topology: str, tables: Sequence[CentralTable]) -> list[CentralCapture]:
        """The tables a centre captures, with those that follow them. Raises SetupError when one follows a table not named."""
        known = {(record.table, record.fingerprint): record.id for record in self.relations}
        free = self.next_relation
        numbers: dict[TableName, int] = {}
        for table in tables:
            number = known.get((table.table.name, central.relation_fingerprint(table)))
            if number is None:
                number, free = free, free + 1
            numbers[table.table.name] = number
        shapes = {**self.inventory.catalogue.tables, **{table.table.name: table.table for table in tables}}
        followers = self._followers(tables, numbers)
        return [
            self._central(topology, table, numbers[table.table.name], shapes, followers.get(table.table.name, ()))
            for table in tables
        ]

    def central_tables(self, topology: str) -> list[TableName]:
        """Tables whose changes a centre's functions of the topology capture."""
        tables = {record.table for record in self.relations if not record.retired}
        return sorted(table for table in tables if central.function_name(topology, table) in self.functions)

    def _central(
        self, topology: str, table: CentralTable, number: int, shapes: Mapping[TableName, TableShape],
        followers: Sequence[Follower],
    ) -> CentralCapture:  # fmt: skip
        oid = self.inventory.oids.get(table.table.name)
        settings = {name for used in texts_used(table, followers) for name in self._text_settings(*used, shapes)}
        return CentralCapture(
            table=table, topology=topology, relation=number, settings=frozenset(settings), shapes=shapes,
            by_row=table.table.kind != "table" or oid in self.rowwise, followers=tuple(followers),
            owned=oid is None or oid in self.owned, schemas=self.equalities,
        )  # fmt: skip

    def _followers(
        self, tables: Sequence[CentralTable], numbers: Mapping[TableName, int]
    ) -> Mapping[TableName, list[Follower]]:
        found: dict[TableName, list[Follower]] = defaultdict(list)
        for table in tables:
            below = table.table
            for depth, step in enumerate(table.route.path if table.sent else ()):
                parent = next((each.table for each in tables if each.table.name == step.parent), None)
                if parent is None:
                    raise SetupError(f"table {below.name} follows {step.parent}, which the centre does not capture")
                tied = any(
                    (key.parent, set(zip(key.columns, key.parent_columns, strict=True)))
                    == (step.parent, set(zip(step.columns, step.parent_columns, strict=True)))
                    for key in below.foreign_keys
                )
                found[step.parent].append(Follower(numbers[table.table.name], table, depth, not tied))
                below = parent
        return found

    def _text_settings(
        self, table: TableName, column: str, shapes: Mapping[TableName, TableShape]
    ) -> frozenset[str] | tuple[str, ...]:
        oid = self.inventory.oids.get(table)
        if oid is not None:
            return self.inventory.type_settings.get((oid, column), frozenset())
        return _TEXT_SETTINGS.get(bare_type(shapes[table].column(column).type).partition(" without")[0], ())

    def record(self, capture: Capture | CentralCapture) -> RelationRecord | None:
        """The relation on record for a capture."""
        return next((record for record in self.relations if record.id == capture.relation), None)

    def predecessor(self, capture: Capture) -> RelationRecord | None:
        """The version captured so far, where the new one has but more columns: same table, triggers, key, types, and numbers.

        Not one whose rows were captured by name while one of its columns was called otherwise.
        """
        found = [r for r in self.relations if r.table == capture.name and not r.retired and r.loaded]
        shape = self.inventory.catalogue.tables.get(capture.name)
        if not found or shape is None or len(self.own_triggers(capture)) < len(capture.triggers()):
            return None
        kinds = {column.name: column.type for column in shape.columns}
        record = found[-1]
        same = all(name in kinds for name in record.columns) and record.key == capture.plan.key and not record.torn
        columns = [(name, kinds[name]) for name in record.columns if same]
        fits = same and is_of(record, columns, record.key, capture.attnums, self.relations)
        return record if fits else None

    def operators(self, plan: TablePlan) -> list[str]:
        """The schemas of the operators that compare the key's values, column by column."""
        kinds = [bare_type(plan.source.column(name).type) for name in plan.key]
        return [self.equalities.get(kind, "pg_catalog") for kind in kinds]

    def own_triggers(self, capture: Capture | CentralCapture) -> tuple[Trigger, ...]:
        """Triggers of this topology on the table, as they are."""
        return tuple(t for t in self.triggers.get(capture.name, ()) if t.function == capture.function)

    def _settings(self, plan: TablePlan) -> frozenset[str]:
        found: set[str] = set()
        oid = self.inventory.oids.get(plan.source.name)
        for column in plan.columns:
            found |= self.inventory.type_settings.get((oid or 0, column.source), frozenset())
        return frozenset(found)


def read_installed(connection: PostgresConnection, topology: str, *, outbox: bool = False) -> Installed:
    """Everything of one topology, and what all share. ``outbox``: it is looked through for rows captured by name."""
    inventory = read_inventory(connection)
    oids = list(inventory.oids.values())
    ((migrated, has_schema),) = rows(connection, "install", "our_schema")
    triggers: dict[TableName, list[Trigger]] = defaultdict(list)
    for schema, table, name, kind, enabled, function, old_table, new_table in rows(connection, "install", "triggers"):
        shown = Trigger(str(name), int(str(kind)), str(enabled), str(function), str(old_table), str(new_table))
        triggers[TableName(str(schema), str(table))].append(shown)
    ((may_trigger, noticing),) = rows(connection, "install", "event_triggers")
    base = {
        "inventory": inventory,
        "may_trigger": bool(may_trigger),
        "event_triggers": frozenset(_texts(noticing)),
        "has_schema": bool(has_schema),
        "functions": {str(name): str(mark) for name, mark in rows(connection, "install", "functions")},
        "triggers": {name: tuple(found) for name, found in triggers.items()},
        "rowwise": frozenset(int(str(row[0])) for row in rows(connection, "install", "rowwise")),
        "owned": frozenset(int(str(row[0])) for row in rows(connection, "install", "owned", oids)),
        "equalities": {str(kind): str(schema) for kind, schema in rows(connection, "install", "equalities")},
    }
    if not migrated:
        return Installed(**base)  # type: ignore[arg-type]  # the names are the fields' own
    torn = {row[0] for row in rows(connection, "install", "torn", topology)} if outbox else set()
    records = tuple(map(_record, rows(connection, "install", "relations", topology)))
    return Installed(
        **base,  # type: ignore[arg-type]
        migrations={int(str(number)): str(mark) for number, mark in rows(connection, "install", "migrations")},
        has_identity=bool(rows(connection, "install", "has_identity")[0][0]),
        topologies=tuple(str(row[0]) for row in rows(connection, "install", "topologies")),
        relations=tuple(replace(record, torn=record.id in torn) for record in records),
        feeds=frozenset(str(row[0]) for row in rows(connection, "install", "feeds")),
        next_relation=int(str(rows(connection, "install", "next_relation")[0][0])),
    )


def _record(row: tuple[object, ...]) -> RelationRecord:
    number, schema, table, columns, key, mark, retired, loaded, oid, attnums = row
    return RelationRecord(
        int(str(number)), TableName(str(schema), str(table)), _texts(columns), _texts(key), str(mark), bool(retired),
        bool(loaded), int(str(oid)), tuple(map(int, _texts(attnums))),
    )  # fmt: skip


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
