"""Which tables are captured at the place the stream has reached: lanes by table number, started and stopped by messages."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.wal.protocol import TableMessage
from replicator.engines.postgres.wal.tables import Captured, Lane
from replicator.model import TableName


class Lanes:
    """The lanes of one topology. Connections given must see what others have committed."""

    def __init__(self, topology: str) -> None:
        self._topology = topology
        self._known: dict[int, Captured] = {}
        self._active: dict[int, int] = {}
        self._shown: dict[int, TableMessage] = {}
        self._lanes: dict[int, Lane] = {}
        self._states: dict[int, str] = {}
        self.clock = 0
        """The number of our own table ``replicator.clock``, once the stream has shown it."""

    def load(self, connection: PostgresConnection) -> None:
        """Read what is captured now; the stream shows tables again after this."""
        self._known.clear()
        self._read(connection)
        self._active = {c.oid: c.relation for c in self._known.values() if c.state == "active"}
        self._shown.clear()
        self._lanes.clear()
        self._states.clear()
        self.clock = 0

    def _read(self, connection: PostgresConnection) -> None:
        found = map(_captured, rows(connection, "wal", "captured", self._topology))
        self._known |= {captured.relation: captured for captured in found}

    def show(self, connection: PostgresConnection, table: TableMessage) -> None:
        """The stream says how a table looks from here on."""
        if (table.schema, table.name) == ("replicator", "clock"):
            self.clock = table.oid
        self._shown[table.oid] = table
        self._open(connection, table.oid)

    def _open(self, connection: PostgresConnection, oid: int) -> None:
        self._lanes.pop(oid, None)
        table = self._shown.get(oid)
        number = self._active.get(oid, self._made_again(table) if table is not None else None)
        if number is not None and table is not None:
            types = [str(row[0]) for row in rows(connection, "wal", "type_names", list(table.types))]
            numbers = {str(name): int(str(place)) for name, place in rows(connection, "wal", "column_numbers", oid)}
            self._lanes[oid] = Lane(self._known[number], table, types, numbers, staged=self.staged)

    def _made_again(self, table: TableMessage) -> int | None:
        """The relation of a table that was dropped and made again: the old one's changes too, until the new one's start."""
        active = set(self._active.values())
        for each in self._known.values():
            named = (each.table.schema, each.table.name) == (table.schema, table.name)
            if named and each.state == "waiting" and each.relation not in active and each.oid != table.oid:
                return each.relation
        return None

    def get(self, oid: int) -> Lane | None:
        """The lane of a table; ``None`` when it is not captured from the log (yet, or any more)."""
        return self._lanes.get(oid)

    def relation(self, number: int) -> Captured | None:
        """An active relation by its number."""
        found = self._known.get(number)
        return found if found and self._active.get(found.oid) == number else None

    def switch(self, connection: PostgresConnection, number: int, *, start: bool) -> bool:
        """Capture of a relation starts or stops here, by a message in the stream; false for another topology's."""
        self._read(connection)
        captured = self._known.get(number)
        if captured is None:
            return False
        was = self._active.pop(captured.oid, None)
        if was is not None:
            self._states[was] = "stopped"
        if start:
            self._active[captured.oid] = number
            self._states[number] = "active"
        self._open(connection, captured.oid)
        return True

    def take_states(self) -> dict[int, str]:
        """States that have changed since they were asked for last, to be written with the place reached."""
        taken, self._states = self._states, {}
        return taken

    def renew(self, connection: PostgresConnection) -> None:
        """Make all lanes anew: whether rows are staged may have changed."""
        for oid in list(self._shown):
            self._open(connection, oid)

    @property
    def staged(self) -> bool:
        """Whether rows go by the stage."""
        return bool(self.filters())

    def filters(self) -> Mapping[int, Captured]:
        """The active relations whose rows are filtered."""
        active = [self._known[number] for number in self._active.values()]
        return {captured.relation: captured for captured in active if captured.filter}


def _captured(row: tuple[object, ...]) -> Captured:
    number, oid, schema, table, columns, key, types, where, filter_columns, filter_types, truncates, state, attnums = (
        row
    )
    return Captured(
        int(str(number)), int(str(oid)), TableName(str(schema), str(table)), _texts(columns), _texts(key), _texts(types),
        str(where), _texts(filter_columns), _texts(filter_types), bool(truncates), str(state),
        tuple(map(int, _texts(attnums))),
    )  # fmt: skip


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
