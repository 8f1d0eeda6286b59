"""What ``check`` looks at where changes come from the log: each finding with its fix. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.engines.postgres.wal.slot import WAY_BACK, find_slot
from replicator.model import Finding, TablePlan
from replicator.sqlfiles import render, statement

_MUCH, _LITTLE = 1 << 30, 0.5
"""Bytes of log a slot may keep before it is worth a word; the share of its limit that is to be left."""


def check_log(place: str, connection: PostgresConnection) -> Iterator[Finding]:
    """The server's settings and the role's rights."""
    ((_, _, _, _, level, replication, slots, most_slots, senders, most_senders, keep, _, create, user),) = rows(
        connection, "wal", "facts", ""
    )
    fine = level == "logical"
    fix = "" if fine else f"{_fix('wal_level')} then restart the server"
    yield Finding(place, "wal_level", fine, f"wal_level is {level}", fix)
    if not replication:
        yield Finding(
            place, "replication", False, f"{user} may not use replication slots", _fix("replication", role=str(user))
        )
    if not create:
        fix = "grant it create on the database, for the publication"
        yield Finding(place, "publication", False, f"{user} may not create a publication", fix)
    for subject, used, most in (
        ("max_replication_slots", slots, most_slots), ("max_wal_senders", senders, most_senders),
    ):  # fmt: skip
        if int(str(used)) >= int(str(most)):
            yield Finding(
                place, subject, False, f"all {most} are in use", f"raise {subject} and restart the server", warning=True
            )
    if int(str(keep)) < 0:
        message = "max_slot_wal_keep_size has no limit: while nobody reads the slot, the log fills the disk"
        yield Finding(place, "max_slot_wal_keep_size", False, message, _fix("keep_size"), warning=True)


def check_slots(place: str, connection: PostgresConnection) -> Iterator[Finding]:
    """The slots on record: gone, invalidated, or far behind; publications that lack something."""
    for topology, name, obstacle_free, status, *figures in rows(connection, "wal", "slots"):
        slot = find_slot(connection, str(topology))
        obstacle = slot.obstacle if slot else ""
        if not obstacle_free or obstacle:
            message = obstacle or f"the replication slot is {status or 'gone'}"
            yield Finding(place, str(name), False, f"{message}; changes may be missing", WAY_BACK)
            continue
        if slot is not None and slot.gap:
            message = "the replication slot is new, and changes from before it are missing"
            yield Finding(place, str(name), False, message, "run: replicator install")
        lacking = rows(connection, "wal", "unpublished", topology, slot.publication if slot else name)
        if lacking:
            message = f"the publication does not have all changes of {', '.join(str(row[0]) for row in lacking[:5])}"
            yield Finding(place, str(name), False, message, WAY_BACK)
        alarm = slot_alarm(str(name), str(status), figures)
        if alarm:
            yield Finding(place, str(name), False, alarm, "start the replicator, or uninstall", warning=True)


def slot_alarm(name: str, status: str, figures: Sequence[object]) -> str:
    """What is to be said of the log a slot keeps, and when the slot will be lost; empty when nothing is.

    ``figures``: as the statement ``slots`` has them: bytes kept, bytes left before it is lost, the limit, for how many seconds
    its place has not moved, bytes written since.
    """
    behind, left, limit, still, written = (None if each is None else float(str(each)) for each in figures)
    kept, free = behind or 0.0, left if left is not None else None
    close = free is not None and limit is not None and limit > 0 and free < limit * _LITTLE
    if not (close or kept > _MUCH or status in ("unreserved", "extended")):
        return ""
    text = f"the replication slot {name} keeps {kept / (1 << 20):,.0f} MB of log ({status})"
    if free is None:
        return f"{text}; no limit is set, and the log may fill the disk"
    text += f"; it is lost when {max(free, 0.0) / (1 << 20):,.0f} MB more are written"
    rate = (written or 0.0) / still if still else 0.0
    return f"{text}, at the present rate in about {_spoken(free / rate)}" if rate > 1 and free > 0 else text


def _spoken(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def check_tables(place: str, connection: PostgresConnection, plans: Sequence[TablePlan]) -> Iterator[Finding]:
    """Tables whose old rows the log does not have, and the right to change that."""
    schemas, names = [plan.source.name.schema for plan in plans], [plan.source.name.name for plan in plans]
    for schema, table, _, unlogged, *_ in rows(connection, "check", "tables", schemas, names):
        if unlogged:
            fix = "alter it to logged, or use capture: triggers for this site"
            yield Finding(place, f"{schema}.{table}", False, "unlogged: its changes are not in the log", fix)
    oids = rows(connection, "wal", "oids", schemas, names)
    for _, schema, table, _, _, owned in rows(connection, "wal", "identities", [row[0] for row in oids]):
        name = f"{schema}.{table}"
        if owned:
            message = "its replica identity is not full: install changes that (more log with each update and delete)"
            yield Finding(place, name, True, message)
        else:
            fix = _fix("full", schema=str(schema), table=str(table))
            yield Finding(
                place, name, False, "its replica identity is not full, and changing that takes its owner", fix
            )


def _fix(name: str, /, **identifiers: str) -> str:
    return render(statement("sql/postgres/wal.sql", f"fix_{name}"), identifiers=identifiers) + ";"
