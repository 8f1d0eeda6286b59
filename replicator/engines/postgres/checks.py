"""What ``check`` looks at in a PostgreSQL database: each finding with its fix, the exact GRANT where a right is missing.

Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from replicator.engines.postgres.catalogue import rows
from replicator.engines.postgres.connection import PostgresConnection
from replicator.errors import SetupError
from replicator.model import CentralTable, Finding, TableName, TablePlan, TableShape
from replicator.sqlfiles import literal, quoted, render, statement

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
        fix = "" if create else _fix("grant_create", database=str(database), role=str(user))
        yield Finding(
            place, "rights", bool(create), f"{user} may {'' if create else 'not '}create schema replicator", fix
        )
    else:
        yield from _our_rights(place, connection, str(user), create=bool(create_ours))
    if not fsync:
        yield Finding(
            place, "fsync", False, "fsync is off: a crash may lose committed rows", "set fsync = on", warning=True
        )
    if as_source and int(str(prepared)) > 0:
        yield Finding(
            place, "max_prepared_transactions", True,
            "two-phase commit is enabled: writers send no notifications, the reader polls (up to 250 ms later); "
            "if no captured transaction is ever prepared: alter database … set replicator.notify = on",
        )  # fmt: skip
    yield from _open_transactions(place, connection)


def _our_rights(place: str, connection: PostgresConnection, user: str, *, create: bool) -> Iterator[Finding]:
    """Rights on what install has made, by another role perhaps: to work with it, and to make more."""
    ((use, write),) = rows(connection, "check", "our_rights")
    if not (use and write):
        fixes = ("grant_use", "grant_our_tables", "grant_sequences")
        message = f"{user} may not {'read and write all tables' if use else 'use what is'} in schema replicator"
        yield Finding(place, "rights", False, message, " ".join(_fix(name, role=user) for name in fixes))
    if create:
        yield Finding(place, "rights", True, f"{user} may create objects in schema replicator")
    else:
        message = f"{user} may not create objects in schema replicator: install has to be run by a role that may"
        yield Finding(place, "rights", False, message, _fix("grant_ours", role=user), warning=True)


def may_not_read(place: str, connection: PostgresConnection, table: TableName) -> SetupError:
    """The error for a table this role may not read, with the GRANT."""
    ((_, _, user, *_),) = rows(connection, "check", "database")
    names = {"schema": table.schema, "table": table.name, "role": str(user)}
    fix = f"{_fix('grant_usage', schema=table.schema, role=str(user))} {_fix('grant_select', **names)}"
    return SetupError(f"{place}: {user} may not read {table}", hint=fix)


def check_capture(place: str, connection: PostgresConnection, plans: Sequence[TablePlan]) -> Iterator[Finding]:
    """Each table that is to be captured: its kind, key and owner, and what capture could not see."""
    facts = _facts(connection, [plan.source.name for plan in plans])
    planned = {f"{plan.source.name.schema}.{plan.source.name.name}" for plan in plans}
    for plan in plans:
        name = plan.source.name
        found = facts.get(name)
        if found is None:
            yield Finding(place, str(name), False, "no such table", "correct the name in the YAML")
            continue
        problems = list(_capture_problems(place, plan.source, plan.key, found, planned))
        yield from problems or [Finding(place, str(name), True, "can be captured")]


def check_central(place: str, connection: PostgresConnection, captured: Sequence[CentralTable]) -> Iterator[Finding]:
    """Each table of a centre whose own changes are to be captured; those that install will create are right."""
    facts = _facts(connection, [each.table.name for each in captured])
    planned = {f"{name.schema}.{name.name}" for name in facts}
    for each in captured:
        found = facts.get(each.table.name)
        if found is not None:
            problems = list(_capture_problems(place, each.table, each.key, found, planned))
            yield from problems or [Finding(place, str(each.table.name), True, "can be captured")]


def check_target(place: str, connection: PostgresConnection, plans: Sequence[TablePlan]) -> Iterator[Finding]:
    """Each target table: rights to read and write it, or to create it."""
    facts = _facts(connection, [plan.target for plan in plans])
    ((_, _, user, *_),) = rows(connection, "check", "database")
    for name in dict.fromkeys(plan.target for plan in plans):
        found = facts.get(name)
        if found is None:
            yield _new_table(place, connection, name)
            continue
        if not found["usage"]:
            fix = _fix("grant_usage", schema=name.schema, role=str(user))
            yield Finding(place, str(name), False, f"{user} may not use schema {name.schema}", fix)
        if not (found["select"] and found["write"]):
            fix = _fix("grant_write", schema=name.schema, table=name.name, role=str(user))
            yield Finding(place, str(name), False, f"{user} may not read and write the table", fix)
        elif (found["security"] and not found["owner"]) or found["forced"]:
            fix = _fix("bypass", role=str(user))
            yield Finding(place, str(name), False, "row security may hide rows from the replicator", fix)
        else:
            yield Finding(place, str(name), True, "can be written")


def check_followers(place: str, connection: PostgresConnection, table: CentralTable) -> Iterator[Finding]:
    """Whether the rows that follow a row can be found by an index."""
    name = table.table.name
    for step in table.route.path[:1]:
        ((indexed,),) = rows(connection, "check", "is_indexed", name.schema, name.name, list(step.columns))
        if not indexed:
            fix = _fix("create_index", {"columns": quoted(step.columns)}, schema=name.schema, table=name.name)
            message = (
                f"no index begins with {', '.join(step.columns)}: each row of {step.parent} that is inserted, deleted or "
                f"given to another site makes the server read all of {name}"
            )
            yield Finding(place, str(name), False, message, fix, warning=True)


def _new_table(place: str, connection: PostgresConnection, name: TableName) -> Finding:
    """Whether install may create a table the centre lacks; it creates a schema that is missing, too."""
    ((_, _, user, database, _, _, create, *_),) = rows(connection, "check", "database")
    schemas = rows(connection, "check", "schemas", [name.schema])
    if not schemas and not create:
        fix = _fix("grant_create", database=str(database), role=str(user))
        return Finding(place, str(name), False, f"{user} may not create schema {name.schema}", fix)
    if schemas and not schemas[0][1]:
        fix = _fix("grant_tables", schema=name.schema, role=str(user))
        return Finding(place, str(name), False, f"{user} may not create tables in schema {name.schema}", fix)
    return Finding(place, str(name), True, "will be created by install")


def _capture_problems(
    place: str, shape: TableShape, key: Sequence[str], found: dict[str, object], planned: set[str]
) -> Iterator[Finding]:
    name = shape.name
    names = {"schema": name.schema, "table": name.name}

    def wrong(message: str, fix: str, *, warning: bool = False) -> Finding:
        return Finding(place, str(name), False, message, fix, warning=warning)

    if shape.kind == "foreign":
        yield wrong("a foreign table: its rows change without us", "capture it in its own database")
    yield from _missing_rights(place, name, key, found)
    if found["unlogged"]:
        yield wrong("unlogged: a crash empties it and no trigger sees that", _fix("set_logged", **names), warning=True)
    if found["root"] in planned:
        yield wrong(f"a partition of {found['root']}, which is captured too", "name only one of them in the YAML")
    if shape.kind in ("partitioned", "partition"):
        message = "partitioned: attaching, detaching, dropping or truncating a single partition is not captured"
        yield wrong(message, "run replicator audit after such a change", warning=True)
    if found["rules"]:
        message = "it has rewrite rules: rows they write elsewhere are captured there, not here"
        yield wrong(message, "use triggers instead of rules", warning=True)
    if found["forced"]:
        message = "row security is forced on its owner: rows may be hidden from the audit"
        yield wrong(message, _fix("no_force", **names), warning=True)


def _missing_rights(place: str, name: TableName, key: Sequence[str], found: dict[str, object]) -> Iterator[Finding]:
    user, owner = str(found["user"]), str(found["owner_name"])
    if not key:
        fix = "add one, or name a unique not-null key in the YAML (tables: … key: […])"
        yield Finding(place, str(name), False, "no primary key", fix)
    if not found["owner"]:
        message = f"creating and enabling triggers takes the table's owner, {owner}"
        yield Finding(place, str(name), False, message, _fix("grant_owner", owner=owner, role=user))
    if not found["usage"]:
        message = f"{user} may not use schema {name.schema}"
        yield Finding(place, str(name), False, message, _fix("grant_usage", schema=name.schema, role=user))


def _open_transactions(place: str, connection: PostgresConnection) -> Iterator[Finding]:
    for pid, user, application, state, seconds in rows(connection, "check", "open_transactions"):
        prepared = str(pid).removeprefix("prepared ")
        stop = (
            _fix("roll_back", {"gid": literal(prepared)}) if prepared != pid else _fix("terminate", {"pid": prepared})
        )
        yield Finding(
            place, f"transaction {pid}", False,
            f"open for {int(str(seconds)) // 60} min ({user}, {application or 'no name'}, {state}): "
            "the outbox cannot be vacuumed",
            f"end it in the application, or: {stop}", warning=True,
        )  # fmt: skip


def _facts(connection: PostgresConnection, names: Sequence[TableName]) -> dict[TableName, dict[str, object]]:
    ((_, _, user, *_),) = rows(connection, "check", "database")
    keys = (
        "kind",
        "unlogged",
        "forced",
        "owner",
        "owner_name",
        "select",
        "write",
        "usage",
        "root",
        "rules",
        "security",
    )
    found = rows(connection, "check", "tables", [name.schema for name in names], [name.name for name in names])
    return {
        TableName(str(row[0]), str(row[1])): {**dict(zip(keys, row[2:], strict=True)), "user": user} for row in found
    }


def _fix(name: str, fragments: dict[str, str] | None = None, /, **identifiers: str) -> str:
    """The statement that mends a finding."""
    template = statement("sql/postgres/check.sql", f"fix_{name}")
    return render(template, identifiers=identifiers, fragments=fragments) + ";"
