"""The statements an install consists of, put together as text that also runs by hand in the sqlite3 shell. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from replicator.engines.sqlite.capture import Capture
from replicator.model import DatabasePlan, Engine, PlannedStatement, TableName, TableShape
from replicator.sqlfiles import literal, names, quote, quoted, render, statement, text

_SQL = "sql/sqlite/install.sql"
_MIGRATIONS = "sql/sqlite/migrations"


def migrations() -> Iterable[tuple[int, str, str]]:
    """Number, file name and checksum of every migration, in order."""
    for name in names(_MIGRATIONS):
        checksum = hashlib.sha256(text(f"{_MIGRATIONS}/{name}").encode()).hexdigest()
        yield int(name.split("_", 1)[0]), name, checksum


def migrate(number: int, name: str, checksum: str) -> PlannedStatement:
    """Runs one migration and records it, in one transaction."""
    values = {"number": str(number), "name": literal(name), "checksum": literal(checksum)}
    body = text(f"{_MIGRATIONS}/{name}").strip().rstrip(";")
    sql = render(_statement("migrate"), fragments={"body": body, **values})
    return PlannedStatement(f"make our tables ({name})", sql, f"migration {number}")


def create_identity() -> PlannedStatement:
    """Gives the file an identity unless it has one."""
    return PlannedStatement("name this database", _statement("create_identity"), "replicator_identity")


def first_marker(topology: str) -> PlannedStatement:
    """Keeps all of the site's changes until the link from the centre says which of them the centre has processed."""
    sql = render(_statement("first_marker"), fragments={"topology": literal(topology)})
    return PlannedStatement("wait for the link from the centre", sql, f"marker of {topology}")


def widen_outbox(place: int) -> PlannedStatement:
    """Adds one key place to the outbox."""
    sql = render(_statement("widen_outbox"), identifiers={"place": f"k{place}"})
    return PlannedStatement("make room for a wider key", sql, "replicator_outbox")


def capture_table(
    capture: Capture,
    columns: Sequence[str],
    *,
    new: bool,
    wider: bool,
    retired: Sequence[int],
    stale: Iterable[str],
    read_all: bool,
    added: Sequence[str] = (),
    versioned: bool = False,
    route: str = "null",
) -> PlannedStatement:
    """(Re-)creates the triggers of one table in one transaction.

    Args:
        capture: what the triggers are made from.
        columns: the planned columns.
        new: the relation is not on record yet.
        wider: what is on record of it is not what is planned now.
        retired: relations this one replaces.
        stale: names of triggers to drop first.
        read_all: order the reader to read every row, because changes, or columns, were not captured until now.
        added: columns that were not captured until now, where all else was: rows that hold something there are noted.
        versioned: the ledger keeps who wrote each row last.
        route: whom that order concerns, as an expression.
    """
    steps = [render(_statement("retire_relation"), fragments={"id": str(old)}) for old in retired]
    if new:
        steps.append(_add_relation(capture, columns, versioned=versioned))
    elif wider:
        values = {"id": str(capture.relation), "columns": literal(_json(columns)), "versioned": str(int(versioned))}
        steps.append(render(_statement("record_columns"), fragments=values))
    steps += [render(_statement("drop_trigger"), identifiers={"trigger": name}) for name in stale]
    steps += capture.triggers().values()
    if read_all:
        fragments = {"relation": str(capture.relation), "hybrid_time": capture.hybrid_time, "route": route}
        steps.append(render(_statement("order_read_all"), identifiers={"table": capture.table}, fragments=fragments))
    elif added:
        fragments = {
            "relation": str(capture.relation),
            "hybrid_time": capture.hybrid_time,
            "places": ", ".join(f"k{place}" for place in range(len(capture.key))),
            "key": quoted(capture.key, "t."),
            "filled": " or ".join(f"t.{quote(name)} is not null" for name in added),
        }
        steps.append(render(_statement("note_columns"), identifiers={"table": capture.table}, fragments=fragments))
    sql = render(_statement("capture_table"), fragments={"statements": ";\n".join(steps)})
    queues = capture.shape.name if read_all else None
    return PlannedStatement(f"capture changes of {capture.table}", sql, f"triggers on {capture.table}", queues)


def rename_key(relation: int, table: str, key: Sequence[str]) -> PlannedStatement:
    """Puts the key's new names on record: the same columns under other names."""
    values = {"id": str(relation), "key": literal(_json(key)), "fingerprint": literal(fingerprint_of(table, key))}
    sql = render(_statement("rename_key"), fragments=values)
    return PlannedStatement(f"record the key of {table} under its new name", sql, f"relation {relation}")


def rename_relation(relation: int, table: str, name: str, fingerprint: str) -> PlannedStatement:
    """Puts on record what a captured table is called now; all its rows are to be read again."""
    values = {"id": str(relation), "table": literal(name), "fingerprint": literal(fingerprint)}
    sql = render(_statement("rename_relation"), fragments=values)
    return PlannedStatement(f"go on with {table} as {name}", sql, f"relation {relation}")


def bring_back(relation: int, table: str, places: int) -> PlannedStatement:
    """Lets the changes that waited for a table to come back follow."""
    keys = ", ".join(f"k{place}" for place in range(places))
    sql = render(_statement("bring_back"), fragments={"id": str(relation), "places": keys})
    return PlannedStatement(f"bring what waited of {table}", sql, f"relation {relation}")


def set_aside(relation: int) -> str:
    """Lets the changes of a table that is gone wait for it to come back."""
    return render(_statement("set_aside"), fragments={"id": str(relation)})


def give_up(table: str, relations: Sequence[int], triggers: Sequence[str]) -> PlannedStatement:
    """Ends the capture of a table that is gone, and forgets what waits of it."""
    steps = [render(_statement("retire_relation"), fragments={"id": str(number)}) for number in relations]
    steps += [render(_statement("forget_aside"), fragments={"id": str(number)}) for number in relations]
    steps += [render(_statement("drop_trigger"), identifiers={"trigger": name}) for name in triggers]
    sql = render(_statement("capture_table"), fragments={"statements": ";\n".join(steps)})
    return PlannedStatement(f"give up {table}, which is gone", sql, f"table {table}", gives_up=True)


def fingerprint_of(table: str, key: Sequence[str]) -> str:
    """What makes a relation a new version: in key mode an outbox row depends on nothing but table and key."""
    return hashlib.sha256(json.dumps([table, list(key)]).encode()).hexdigest()[:16]


def _json(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _add_relation(capture: Capture, columns: Sequence[str], *, versioned: bool) -> str:
    values = {
        "id": str(capture.relation),
        "topology": literal(capture.topology),
        "table": literal(capture.table),
        "columns": literal(_json(columns)),
        "key": literal(_json(capture.key)),
        "fingerprint": literal(fingerprint_of(capture.table, capture.key)),
        "versioned": str(int(versioned)),
    }
    return render(_statement("add_relation"), fragments=values)


def create_tables(shapes: Iterable[TableShape]) -> Iterable[PlannedStatement]:
    """CREATE TABLE statements, parents first."""
    by_name = {shape.name: shape for shape in shapes}
    for name in parents_first(by_name):
        lines = ",\n    ".join(_table_lines(by_name[name]))
        sql = render(_statement("create_table"), identifiers={"table": name.name}, fragments={"lines": lines})
        yield PlannedStatement(f"make the missing table {name.name}", sql, f"table {name.name}")


def parents_first(shapes: dict[TableName, TableShape]) -> Sequence[TableName]:
    """Table names so that a table comes behind those it refers to; in the given order where they refer in a circle."""
    graph = {
        name: [key.parent for key in shape.foreign_keys if key.parent in shapes and key.parent != name]
        for name, shape in shapes.items()
    }
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError:
        return tuple(shapes)


def _table_lines(shape: TableShape) -> Iterable[str]:
    for column in shape.columns:
        yield f"{quote(column.name)} {column.type}".rstrip() + (" not null" if column.not_null else "")
    if shape.key:
        yield f"primary key ({quoted(shape.key)})"
    for unique in shape.uniques:
        if unique.exact and unique.columns and unique.columns != shape.key:
            yield f"unique ({quoted(unique.columns)})"
    for key in shape.foreign_keys:
        target = quote(key.parent.name) + (f" ({quoted(key.parent_columns)})" if key.parent_columns else "")
        yield f"foreign key ({quoted(key.columns)}) references {target} deferrable initially deferred"


def uninstall(
    topology: str, triggers: Sequence[str], tables: Sequence[str], *, last: bool
) -> Iterable[PlannedStatement]:
    """Removes one topology: triggers first, since a trigger without its outbox fails every write of the application.

    Args:
        topology: whose objects go.
        triggers: names of its triggers.
        tables: names of our tables in the file.
        last: nobody else needs our tables: drop them too.
    """
    for name in triggers:
        sql = render(_statement("drop_trigger"), identifiers={"trigger": name})
        yield PlannedStatement("stop capture", sql, f"trigger {name}")
    if last:
        for name in tables:
            sql = render(_statement("drop_table"), identifiers={"table": name})
            yield PlannedStatement("drop our table", sql, f"table {name}")
    elif tables:
        yield from _forget(topology)


def _forget(topology: str) -> Iterable[PlannedStatement]:
    mine = {"topology": literal(topology)}
    for table in ("replicator_ledger", "replicator_conflict", "replicator_parked"):
        sql = render(_statement("forget_link_rows"), identifiers={"table": table}, fragments=mine)
        yield PlannedStatement(f"forget the links of {topology}", sql, f"rows of {table}")
    for name in (
        "forget_bases",
        "forget_links",
        "forget_acknowledged",
        "forget_stops",
        "forget_sites",
        "retire_topology",
    ):
        yield PlannedStatement(f"forget {topology}", render(_statement(name), fragments=mine), f"rows of {topology}")


def database_plan(
    place: str,
    statements: Iterable[PlannedStatement],
    leftovers: Iterable[str] = (),
    unqueued: Iterable[TableName] = (),
) -> DatabasePlan:
    """The plan with its fingerprint."""
    planned = tuple(statements)
    digest = hashlib.sha256("\0".join(step.sql for step in planned).encode()).hexdigest()[:16]
    return DatabasePlan(place, Engine.SQLITE, planned, digest, tuple(leftovers), tuple(unqueued))


def _statement(name: str) -> str:
    """A named statement without the comment lines that document it."""
    lines = statement(_SQL, name).splitlines()
    return "\n".join(line for line in lines if not line.startswith("--"))


def resume(topology: str) -> PlannedStatement:
    """Puts on record that what was stopped because its outbox was full is captured again."""
    sql = render(statement("sql/sqlite/purge.sql", "resume"), fragments={"topology": literal(topology)})
    return PlannedStatement("capture again", sql, f"capture of {topology}")
