"""Reads what there is of a topology's capture from the log, and says what takes it away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.wal import planned
from replicator.engines.postgres.wal.planned import Definition, Identity
from replicator.engines.postgres.wal.slot import Slot, find_slot, slot_name
from replicator.model import PlannedStatement, TableName


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is of a topology's capture from the log.

    ``strays``: a slot of our name that is not on record; ``tables``: whether our tables for it are there; ``sound``: whether
    the publication has all changes of what is captured.
    """

    name: str
    slot: Slot | None = None
    strays: bool = False
    publication: bool = False
    published: frozenset[TableName] = frozenset()
    relations: dict[int, tuple[Definition, str]] = field(default_factory=dict)
    tables: bool = False
    sound: bool = False

    @property
    def usable(self) -> bool:
        """Whether the slot continues what the outbox has. Where the publication was away, the slot cannot be read on."""
        return self.slot is not None and not self.slot.obstacle and self.sound


def read_facts(connection: PostgresConnection, topology: str) -> Facts:
    """What there is of a topology's capture from the log."""
    ((database,),) = rows(connection, "wal", "current_database")
    name = slot_name(topology, str(database))
    slot = None
    relations: dict[int, tuple[Definition, str]] = {}
    ((tables,),) = rows(connection, "wal", "has_tables")
    if tables:
        slot = find_slot(connection, topology)
        for number, oid, types, where, columns, filter_types, truncates, state in rows(
            connection, "wal", "wal_relations", topology
        ):
            known = Definition(
                int(str(oid)), _texts(types), str(where), _texts(columns), _texts(filter_types), bool(truncates)
            )
            relations[int(str(number))] = known, str(state)
    name = slot.name if slot and (slot.ours or not slot.exists) else name
    ((_, _, publication, exists, *_),) = rows(connection, "wal", "facts", name)
    published = frozenset(
        TableName(str(schema), str(table)) for schema, table in rows(connection, "wal", "published", name)
    )
    sound = bool(publication) and bool(tables) and not rows(connection, "wal", "unpublished", topology, name)
    strays = bool(exists) and slot is None
    return Facts(name, slot, strays, bool(publication), published, relations, bool(tables), sound)


def read_identities(connection: PostgresConnection, oids: Sequence[int]) -> list[Identity]:
    """Those of the tables, and their partitions, whose old rows the log does not have in full."""
    found = rows(connection, "wal", "identities", list(oids))
    return [
        Identity(int(str(oid)), TableName(str(schema), str(table)), str(identity), str(index), bool(owned))
        for oid, schema, table, identity, index, owned in found
    ]


def uninstall_steps(connection: PostgresConnection, topology: str) -> list[PlannedStatement]:
    """What removes a topology's capture from the log; nothing where there is none."""
    facts = read_facts(connection, topology)
    steps = []
    if facts.slot is not None or facts.strays:
        steps.append(planned.drop_slot(facts.slot.name if facts.slot else facts.name))
    names = {facts.name} if facts.publication else set()
    if facts.slot is not None:
        names.add(facts.slot.publication)
    steps += [planned.drop_publication(name) for name in sorted(names)]
    if facts.tables:
        steps += restoring_steps(connection, topology)
    if facts.slot is not None or facts.relations:
        steps.append(planned.forget_slot(topology))
    return steps


def restoring_steps(connection: PostgresConnection, topology: str) -> list[PlannedStatement]:
    """What gives tables their replica identity back, unless another topology needs it."""
    if rows(connection, "wal", "others", topology)[0][0]:
        return []
    return [
        planned.restore_identity(Identity(int(str(oid)), TableName(str(schema), str(table)), str(identity), str(index)))
        for oid, schema, table, identity, index in rows(connection, "wal", "changed_identities")
    ]


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
