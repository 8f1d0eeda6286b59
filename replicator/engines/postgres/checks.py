"""What ``check`` looks at in a PostgreSQL database: each finding with its fix, the exact GRANT where a right is missing.

Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.model import Finding, TableName, TablePlan
from replicator.sqlfiles import quote

_OLDEST, _NEWEST = 130000, 190000


def check_database(place: str, connection: PostgresConnection, *, as_source: bool) -> Iterator[Finding]:
    """Version, state, rights on the database, and transactions that have been open for too long."""
    ((number, version, user, database, standby, encoding, create, create_ours, prepared, fsync),) = rows(
        connection, "check", "database"
    )
    known = _OLDEST <= int(str(number)) < _NEWEST
    yield Finding(place, "version", known, f"PostgreSQL {version}", "" if known else "use PostgreSQL 13 to 18")
    if standby:
        yield Finding(place, "state", False, "this server is a standby", "point the URL to the primary")
    if encoding != "UTF8":
        yield Finding(
            place, "encoding", False, f"the database's encoding is {encoding}: text is converted on the way",
            "texts the encoding cannot hold are parked; use a UTF8 database to avoid it", warning=True,
        )  # fmt: skip
    if create_ours is None:
        fix = "" if create else f"grant create on database {quote(str(database))} to {quote(str(user))};"
        yield Finding(place, "rights", bool(create), f"{user} may {'' if create else 'not '}create schema replicator", fix)
    elif not create_ours:
        fix = f"grant create, usage on schema replicator to {quote(str(user))};"
        yield Finding(place, "rights", False, f"{user} may not create objects in schema replicator", fix)
    else:
        yield Finding(place, "rights", True, f"{user} may create objects in schema replicator")
    if not fsync:
        yield Finding(place, "fsync", False, "fsync is off: a crash may lose committed rows", "set fsync = on", warning=True)
    if as_source and int(str(prepared)) > 0:
        yield Finding(
            place, "max_prepared_transactions", True,
            "two-phase commit is enabled: writers send no notifications, the reader polls instead",
        )  # fmt: skip
    yield from _open_transactions(place, connection)


def check_capture(place: str, connection: PostgresConnection, plans: Sequence[TablePlan]) -> Iterator[Finding]:
    """Each table that is to be captured: its kind, key and owner, and what capture could not see."""
    facts = _facts(connection, [plan.source.name for plan in plans])
    planned = {f"{quote(plan.source.name.schema)}.{quote(plan.source.name.name)}" for plan in plans}
    for plan in plans:
        name = plan.source.name
        found = facts.get(name)
        if found is None:
            yield Finding(place, str(name), False, "no such table", "correct the name in the YAML")
            continue
        problems = list(_capture_problems(place, plan, found, planned))
        yield from problems or [Finding(place, str(name), True, "can be captured")]


def check_target(place: str, connection: PostgresConnection, plans: Sequence[TablePlan]) -> Iterator[Finding]:
    """Each target table that exists: rights to read and write it."""
    facts = _facts(connection, [plan.target for plan in plans])
    ((_, _, user, *_),) = rows(connection, "check", "database")
    for name in dict.fromkeys(plan.target for plan in plans):
        found = facts.get(name)
        if found is None:
            yield Finding(place, str(name), True, "will be created by install")
            continue
        table = f"{quote(name.schema)}.{quote(name.name)}"
        if not found["usage"]:
            fix = f"grant usage on schema {quote(name.schema)} to {quote(str(user))};"
            yield Finding(place, str(name), False, f"{user} may not use schema {name.schema}", fix)
        if not (found["select"] and found["write"]):
            fix = f"grant select, insert, update, delete, truncate on {table} to {quote(str(user))};"
            yield Finding(place, str(name), False, f"{user} may not read and write the table", fix)
        elif found["security"] and not found["owner"] or found["forced"]:
            fix = f"alter role {quote(str(user))} bypassrls;"
            yield Finding(place, str(name), False, "row security may hide rows from the replicator", fix)
        else:
            yield Finding(place, str(name), True, "can be written")


def _capture_problems(place: str, plan: TablePlan, found: dict[str, object], planned: set[str]) -> Iterator[Finding]:
    name = str(plan.source.name)
    table = f"{quote(plan.source.name.schema)}.{quote(plan.source.name.name)}"

    def wrong(message: str, fix: str, *, warning: bool = False) -> Finding:
        return Finding(place, name, False, message, fix, warning=warning)

    if plan.source.kind == "foreign":
        yield wrong("a foreign table: its rows change without us", "capture it in its own database")
    if not plan.key:
        yield wrong("no primary key", f"alter table {table} add primary key (…); or name a unique not-null key in the YAML")
    if not found["owner"]:
        yield wrong(
            f"creating and enabling triggers takes the table's owner, {found['owner_name']}",
            f"grant {quote(str(found['owner_name']))} to {quote(str(found['user']))};",
        )
    if not found["usage"]:
        yield wrong("its schema may not be used", f"grant usage on schema {quote(plan.source.name.schema)} to {quote(str(found['user']))};")
    if found["unlogged"]:
        fix = f"alter table {table} set logged;"
        yield wrong("unlogged: a crash empties it and no trigger sees that", fix, warning=True)
    if found["root"] and str(found["root"]) in planned | {part.replace('"', "") for part in planned}:
        yield wrong(f"a partition of {found['root']}, which is captured too", "name only one of them in the YAML")
    if plan.source.kind in ("partitioned", "partition"):
        yield wrong(
            "partitioned: attaching, detaching, dropping or truncating a single partition is not captured",
            "run: replicator audit, after such a change", warning=True,
        )  # fmt: skip
    if found["rules"]:
        yield wrong("it has rewrite rules: statements they turn elsewhere are not captured here", "use triggers", warning=True)
    if found["forced"]:
        yield wrong("row security is forced on its owner: the audit may not see all rows", f"alter table {table} no force row level security;", warning=True)


def _open_transactions(place: str, connection: PostgresConnection) -> Iterator[Finding]:
    for pid, user, application, state, seconds in rows(connection, "check", "open_transactions"):
        stop = f"select pg_terminate_backend({pid});" if str(pid).isdigit() else f"rollback prepared '{str(pid)[9:]}';"
        yield Finding(
            place, f"transaction {pid}", False,
            f"open for {int(str(seconds)) // 60} min ({user}, {application or 'no name'}, {state}): the outbox cannot be vacuumed",
            f"end it in the application, or: {stop}", warning=True,
        )  # fmt: skip


def _facts(connection: PostgresConnection, names: Sequence[TableName]) -> dict[TableName, dict[str, object]]:
    ((_, _, user, *_),) = rows(connection, "check", "database")
    keys = ("kind", "unlogged", "forced", "owner", "owner_name", "select", "write", "usage", "root", "rules", "security")
    found = rows(connection, "check", "tables", [name.schema for name in names], [name.name for name in names])
    return {
        TableName(str(row[0]), str(row[1])): {**dict(zip(keys, row[2:], strict=True)), "user": user} for row in found
    }
