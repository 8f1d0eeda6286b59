"""The statements that set up capture from the log, as text that also runs by hand in psql. Pure: no connection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from replicator import sqlfiles
from replicator.engines.postgres.capture import SETTINGS, Capture, bare_type, filter_columns, render_body
from replicator.engines.postgres.chunks import beyond
from replicator.model import PlannedStatement, TableName, TruncatePolicy
from replicator.sqlfiles import literal, quote, quoted

_SQL = "sql/postgres/wal.sql"
_ALIAS = "r"
_BEGIN = re.compile(r"\bbegin;")
_IDENTITIES = {"d": "default", "n": "nothing", "f": "full"}


@dataclass(frozen=True, slots=True)
class Identity:
    """A table's replica identity as the catalogue spells it; ``owned``: the present role may change it."""

    oid: int
    table: TableName
    identity: str
    index: str
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Definition:
    """What ``replicator.wal_relation`` has, or should have, of one relation."""

    oid: int
    types: tuple[str, ...]
    filter: str
    filter_columns: tuple[str, ...]
    filter_types: tuple[str, ...]
    truncates: bool


def definition(capture: Capture, oid: int) -> Definition:
    """What a captured table's relation should have."""
    plan = capture.plan
    used = filter_columns(plan)
    return Definition(
        oid=oid,
        types=tuple(bare_type(column.source_type) for column in plan.columns),
        filter=quote(_ALIAS).join(plan.where.postgres) if plan.where else "",
        filter_columns=used,
        filter_types=tuple(bare_type(plan.source.column(name).type) for name in used),
        truncates=plan.truncate is not TruncatePolicy.IGNORE,
    )


def set_full(identity: Identity) -> PlannedStatement:
    """Asks the log for old rows in full."""
    fragments = {"oid": str(identity.oid), "identity": literal(identity.identity), "index": literal(identity.index)}
    purpose = f"let the log have the old rows of {identity.table} (more log with each update and delete)"
    return _step(purpose, "set_full", f"replica identity of {identity.table}", fragments, identity.table)


def restore_identity(identity: Identity) -> PlannedStatement:
    """Gives a table the replica identity it had."""
    spelled = _IDENTITIES.get(identity.identity) or f"using index {quote(identity.index)}"
    fragments = {"oid": str(identity.oid), "identity": spelled}
    purpose = f"give {identity.table} its replica identity back"
    return _step(purpose, "restore_identity", f"replica identity of {identity.table}", fragments, identity.table)


def publish(name: str, captures: Sequence[Capture], *, exists: bool) -> PlannedStatement:
    """Makes the publication, or adds tables to it."""
    tables = [_published(capture) for capture in captures]
    text = ", ".join(tables) if exists else "".join(f", {table}" for table in tables)
    sql = _render("publish_more" if exists else "publish", {"tables": text}, publication=name)
    return PlannedStatement("publish changes", sql, f"publication {name}")


def _published(capture: Capture) -> str:
    only = "only " if capture.plan.source.kind == "inherited" else ""
    return f"{only}{quote(capture.name.schema)}.{quote(capture.name.name)}"


def drop_publication(name: str) -> PlannedStatement:
    """Drops the publication."""
    return PlannedStatement("stop publishing", _render("drop_publication", publication=name), f"publication {name}")


def create_slot(topology: str, name: str, *, gap: bool) -> PlannedStatement:
    """Makes the slot and puts it on record; ``gap``: with changes missing before it."""
    fragments = {
        "topology": literal(topology), "publication": literal(name), "slot": literal(name), "gap": "true" if gap else "false",
    }  # fmt: skip
    return PlannedStatement(
        "keep the log until it is read", _render("create_slot", fragments), f"replication slot {name}"
    )


def drop_slot(name: str) -> PlannedStatement:
    """Drops the slot, if it is there."""
    sql = _render("drop_slot", {"slot": literal(name)})
    return PlannedStatement("stop keeping the log", sql, f"replication slot {name}")


def forget_slot(topology: str) -> PlannedStatement:
    """Takes slot and relations off the record."""
    sql = _render("forget_slot", {"topology": literal(topology)})
    return PlannedStatement("forget the slot", sql, f"slot of {topology}")


def start(capture: Capture, wanted: Definition, drops: Sequence[str] = ()) -> PlannedStatement:
    """Starts capture of one table from the log; its triggers called ``drops`` end in the same transaction."""
    table = capture.name
    dropped = [
        sqlfiles.render(
            sqlfiles.statement("triggers/postgres/triggers.sql", "drop"),
            identifiers={"schema": table.schema, "table": table.name, "trigger": name},
        ) + ";"
        for name in drops
    ]  # fmt: skip
    fragments = {
        "drops": "\n".join(dropped),
        "relation": str(capture.relation),
        "number": literal(str(capture.relation)),
        "topology": literal(capture.topology),
        "oid": str(wanted.oid),
        "types": ", ".join(map(literal, wanted.types)),
        "filter": literal(wanted.filter),
        "filter_columns": ", ".join(map(literal, wanted.filter_columns)),
        "filter_types": ", ".join(map(literal, wanted.filter_types)),
        "truncates": "true" if wanted.truncates else "false",
    }
    return PlannedStatement(
        f"capture changes of {table} from the log", _render("start", fragments), f"capture of {table}"
    )


def take_over(triggers: str, capture: Capture, relation: int) -> str:
    """The transaction that makes a table's triggers, with what ends capture of the table from the log in it."""
    fragments = {"relation": str(relation), "number": literal(str(relation)), "topology": literal(capture.topology)}
    stop = _render("stop", fragments, schema=capture.name.schema, table=capture.name.name)
    return f"{stop}\n{_BEGIN.split(triggers, maxsplit=1)[1].lstrip()}"


def read_existing(capture: Capture, operators: Sequence[str]) -> PlannedStatement:
    """Puts the rows a table has already into the log, and so into the outbox. ``operators``: as for capture_existing."""
    plan = capture.plan
    fragments = {
        "settings": ", ".join(f"({literal(name)}, {literal(value)})" for name, value in SETTINGS.items()),
        "columns": quoted([column.source for column in plan.columns], "t."),
        "key": quoted(plan.key, "t."),
        "key_fields": ", ".join(f"t.{quote(name)} as k{place}" for place, name in enumerate(plan.key)),
        "behind": beyond(plan.key, operators, [f"last.k{place}" for place in range(len(plan.key))]),
        "filter": quote("t").join(plan.where.postgres) if plan.where else "true",
        "only": "only" if plan.source.kind == "inherited" else "",
        "relation": str(capture.relation),
    }
    name = plan.source.name
    template = sqlfiles.statement(_SQL, "read_existing")
    text = render_body(template, "existing", {"schema": name.schema, "table": name.name}, fragments) + ";"
    return PlannedStatement(f"capture the rows {name} has already", text, f"rows of {name}", name)


def _step(purpose: str, name: str, what: str, fragments: dict[str, str], table: TableName) -> PlannedStatement:
    return PlannedStatement(purpose, _render(name, fragments, schema=table.schema, table=table.name), what)


def _render(name: str, fragments: dict[str, str] | None = None, /, **identifiers: str) -> str:
    return sqlfiles.render(sqlfiles.statement(_SQL, name), identifiers=identifiers, fragments=fragments) + ";"
