"""What ``check`` looks at where changes come from the log: each finding with its fix. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.model import Finding, TablePlan
from replicator.sqlfiles import render, statement

OLDEST = 140000
"""Before PostgreSQL 14 the log does not tell who writes."""

_MUCH = 1 << 30
"""Bytes of log a slot may keep before it is worth a word."""


def check_log(place: str, connection: PostgresConnection) -> Iterator[Finding]:
    """The server's settings and the role's rights."""
    ((_, _, _, _, level, replication, slots, most_slots, senders, most_senders, keep, version, create, user),) = rows(
        connection, "wal", "facts", ""
    )
    if int(str(version)) < OLDEST:
        yield Finding(place, "version", False, "capture from the log takes PostgreSQL 14", "use capture: triggers here")
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
    """The slots on record: gone, invalidated, or far behind."""
    for name, obstacle_free, status, behind in rows(connection, "wal", "slots"):
        size = int(str(behind))
        if not obstacle_free:
            yield Finding(
                place, str(name), False, f"the replication slot is {status or 'gone'}", "run: replicator install"
            )
        elif status in ("unreserved", "extended") or size > _MUCH:
            message = f"the replication slot keeps {size // (1 << 20)} MB of log ({status})"
            yield Finding(place, str(name), False, message, "start the replicator, or uninstall", warning=True)


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
