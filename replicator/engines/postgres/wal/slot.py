"""A topology's replication slot: its names, and whether it is still what the outbox was filled from."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.engines.postgres.capture import checksum, readable
from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.positions import parsed_lsn
from replicator.errors import SetupError
from replicator.sqlfiles import statement

WAY_BACK = (
    "run: replicator install (it makes the slot anew and orders that all rows are brought again), then replicator resync: "
    "it finds what was deleted meanwhile"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """The slot on record; everything whose commit ended before ``lsn`` is in the outbox."""

    name: str
    publication: str
    lsn: int
    seen: int
    exists: bool
    active_pid: int
    confirmed: int
    status: str
    ours: bool
    gap: bool = False

    @property
    def obstacle(self) -> str:
        """Why changes may be missing, empty when none are."""
        if not self.exists:
            return f"the replication slot {self.name} is gone"
        if not self.ours:
            return f"the replication slot {self.name} is of another database or plugin"
        if self.status == "lost":
            return f"the replication slot {self.name} was invalidated: its log was removed before it was read"
        if self.confirmed > self.lsn:
            return f"the replication slot {self.name} was moved by somebody else, or this database is an older copy"
        return ""


def find_slot(connection: PostgresConnection, topology: str) -> Slot | None:
    """The slot on record; ``None`` when the topology does not capture from the log here."""
    found = rows(connection, "wal", "slot", topology)
    if not found:
        return None
    name, publication, lsn, seen, exists, pid, confirmed, status, ours, gap = found[0]
    return Slot(
        str(name), str(publication), parsed_lsn(str(lsn)), int(str(seen)), bool(exists), int(str(pid)),
        parsed_lsn(str(confirmed)) if confirmed else 0, str(status), bool(ours), bool(gap),
    )  # fmt: skip


def read_slot(connection: PostgresConnection, place: str, topology: str) -> Slot:
    """The slot to read. Raises SetupError when there is none, or when changes may be missing from it."""
    slot = find_slot(connection, topology)
    if slot is None:
        raise SetupError(f"{place}: topology {topology} has no replication slot here", hint="run: replicator install")
    if slot.obstacle:
        raise SetupError(f"{place}: {slot.obstacle}; changes may be missing", hint=WAY_BACK)
    if slot.gap:
        raise SetupError(
            f"{place}: the replication slot {slot.name} is new, and changes from before it are missing",
            hint="run: replicator install (while the centre answers: it orders that all rows are brought again)",
        )
    check_published(connection, place, topology, slot.publication)
    return slot


def check_published(connection: PostgresConnection, place: str, topology: str, publication: str) -> None:
    """Raises SetupError when the publication is gone or does not publish all changes of all captured tables."""
    found = [str(row[0]) for row in rows(connection, "wal", "unpublished", topology, publication)]
    if found:
        tables = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
        raise SetupError(
            f"{place}: publication {publication} does not have all changes of {tables}; changes may be missing",
            hint=WAY_BACK,
        )


def end_slot(connection: PostgresConnection, topology: str) -> None:
    """Drop the slot and forget it; nothing reads it now. Safe to repeat."""
    rows(connection, "wal", "end_slot", topology)
    connection.execute(statement("sql/postgres/wal.sql", "end_record").encode(), (topology,))


def slot_name(topology: str, database: str) -> str:
    """The name of slot and publication: of at most 63 bytes, and no other database's of the same server."""
    mark = checksum(f"{topology}\0{database}")[:10]
    return f"replicator_{readable(topology, 20)}_{readable(database, 20)}_{mark}"
