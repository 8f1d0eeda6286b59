"""The statements an install or uninstall consists of, as text that also runs by hand in psql. Pure: no connection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

from replicator import sqlfiles
from replicator.engines.postgres import central
from replicator.engines.postgres.capture import (
    SETTINGS,
    Capture,
    checksum,
    function_name,
    render_body,
    render_triggers,
)
from replicator.engines.postgres.central import CentralCapture
from replicator.engines.postgres.chunks import beyond
from replicator.model import DatabasePlan, Engine, ForeignKeyShape, PlannedStatement, TableName, TableShape
from replicator.sqlfiles import literal, quote, quoted

_SQL = "sql/postgres/install.sql"
_MIGRATIONS = "sql/postgres/migrations"
_FUNCTIONS = "sql/postgres/functions"
SITE_FUNCTIONS = frozenset({"capture_by_name", "note_schema_change"})
CENTRAL_FUNCTIONS = frozenset({"announce_by_name", "follow_moves"})
"""Which of the shared functions a site needs, and which a centre."""

_SIGNATURE = re.compile(r"\bfunction replicator\.(\w+)\(([^)]*)\)")


def migrations() -> Iterable[tuple[int, str, str]]:
    """Number, file name and checksum of every migration, in order."""
    for name in sqlfiles.names(_MIGRATIONS):
        yield int(name.split("_", 1)[0]), name, checksum(sqlfiles.text(f"{_MIGRATIONS}/{name}"))


def migrate(number: int, name: str, mark: str) -> PlannedStatement:
    """Runs one migration and records it, in one transaction."""
    body = sqlfiles.text(f"{_MIGRATIONS}/{name}").strip()
    values = {"body": body, "number": str(number), "name": literal(name), "checksum": literal(mark)}
    return PlannedStatement(f"create our tables ({name})", _render("migrate", values), f"migration {number}")


def create_identity() -> PlannedStatement:
    """Gives the database an identity unless it has one."""
    return PlannedStatement("name this database", _render("create_identity"), "replicator.identity")


def shared_functions() -> Iterable[tuple[str, str, str, str]]:
    """Name, argument list, text and fingerprint of each function that is the same in every database."""
    for file in sqlfiles.names(_FUNCTIONS):
        text = sqlfiles.text(f"{_FUNCTIONS}/{file}").strip()
        match = _SIGNATURE.search(text)
        if match is not None:
            yield match.group(1), match.group(2), text, checksum(text)


def create_function(name: str, arguments: str, body: str, mark: str, purpose: str, first: str = "") -> PlannedStatement:
    """Creates or replaces a function and stores its fingerprint in its comment, in one transaction begun with ``first``."""
    fragments = {"body": body, "arguments": arguments, "comment": literal(f"replicator {mark}"), "first": first}
    return PlannedStatement(purpose, _render("create_function", fragments, function=name), f"replicator.{name}")


EVENT_TRIGGERS = frozenset({"replicator_schema_change", "replicator_schema_drop"})


def create_event_triggers() -> PlannedStatement:
    """Lets changes of captured tables be noticed when they are made; takes a superuser."""
    return PlannedStatement("notice changes of tables at once", _render("create_event_triggers"), "event triggers")


def create_capture(capture: Capture | CentralCapture, *, stopped: bool = False) -> PlannedStatement:
    """The capture function of one table. ``stopped``: writers have got by it, and must have ended when it is back."""
    purpose = f"write what captures {capture.name}"
    first = _render("wait_for_writers", schema=capture.name.schema, table=capture.name.name) if stopped else ""
    return create_function(capture.function, "", capture.body.strip(), capture.fingerprint, purpose, first)


def create_triggers(capture: Capture | CentralCapture, drops: Sequence[str]) -> PlannedStatement:
    """The triggers of one table, those called ``drops`` dropped first, in one transaction."""
    text = (
        central.render_triggers(capture, drops)
        if isinstance(capture, CentralCapture)
        else render_triggers(capture, drops)
    )
    return PlannedStatement(f"capture changes of {capture.name}", text, f"triggers on {capture.name}")


def add_relation(capture: Capture | CentralCapture) -> PlannedStatement:
    """Puts the table's present version on record and retires the others. At a centre only the key is recorded."""
    if isinstance(capture, CentralCapture):
        key, mark = capture.table.key, central.relation_fingerprint(capture.table)
        columns = key
    else:
        key, mark = capture.plan.key, capture.mark
        columns = tuple(column.source for column in capture.plan.columns)
    fragments = {
        "id": str(capture.relation),
        "topology": literal(capture.topology),
        "schema": literal(capture.name.schema),
        "table": literal(capture.name.name),
        "columns": ", ".join(map(literal, columns)),
        "key": ", ".join(map(literal, key)),
        "fingerprint": literal(mark),
    }
    purpose = f"record the columns of {capture.name}"
    return PlannedStatement(purpose, _render("add_relation", fragments), f"relation {capture.relation}")


def add_feed(table: TableName) -> PlannedStatement:
    """Opens the ledger in which a table's row versions are kept."""
    text = _render("add_feed", {"table": literal(str(table))})
    return PlannedStatement(f"keep who writes {table}", text, f"ledger of {table}")


def look_again(capture: CentralCapture) -> PlannedStatement:
    """Makes every site look at every row of a table that a centre did not capture for a while."""
    text = _render("look_again", {"relation": str(capture.relation)})
    return PlannedStatement(f"look at all rows of {capture.name} again", text, f"rows of {capture.name}")


def mark_loaded(capture: Capture) -> PlannedStatement:
    """Says that nothing is to be done about the rows a table has: they came under the version before, or come otherwise."""
    text = _render("mark_loaded", {"relation": str(capture.relation)})
    return PlannedStatement(f"go on with {capture.name}", text, f"relation {capture.relation}")


def capture_existing(capture: Capture, operators: Sequence[str], added: Sequence[str] = ()) -> PlannedStatement:
    """Puts the rows a table has already into the outbox; only what ``added`` columns hold, where all else was captured.

    ``operators``: where those that compare the key's values are, column by column.
    """
    plan = capture.plan
    old = ", ".join("null" if column.source in added else f"t.{quote(column.source)}" for column in plan.columns)
    condition = quote("t").join(plan.where.postgres) if plan.where else "true"
    fragments = {
        "settings": ", ".join(f"({literal(name)}, {literal(value)})" for name, value in SETTINGS.items()),
        "columns": quoted([column.source for column in plan.columns], "t."),
        "key": quoted(plan.key, "t."),
        "key_fields": ", ".join(f"t.{quote(name)} as k{place}" for place, name in enumerate(plan.key)),
        "behind": beyond(plan.key, operators, [f"last.k{place}" for place in range(len(plan.key))]),
        "filter": f"({condition}) and num_nonnulls({quoted(tuple(added), 't.')}) > 0" if added else condition,
        "before": old,
        "only_new": "true" if added else "false",
        "op": "'u'" if added else "'i'",
        "only": "only" if plan.source.kind == "inherited" else "",
        "relation": str(capture.relation),
    }
    name = plan.source.name
    template = sqlfiles.statement(_SQL, "capture_existing")
    text = render_body(template, "existing", {"schema": name.schema, "table": name.name}, fragments) + ";"
    what = f"the new columns of {name}" if added else f"the rows {name} has already"
    return PlannedStatement(f"capture {what}", text, f"rows of {name}", None if added else name)


def create_tables(shapes: Sequence[TableShape], existing: frozenset[TableName]) -> list[PlannedStatement]:
    """Creates tables, parents first, then their foreign keys (so that circles are no trouble)."""
    missing = {shape.name: shape for shape in shapes if shape.name not in existing}
    ordered = _parents_first(missing)
    made = [
        PlannedStatement(f"make schema {schema}", _render("create_schema", schema=schema), f"schema {schema}")
        for schema in sorted({name.schema for name in missing} - {name.schema for name in existing} - {"public"})
    ]
    made += [PlannedStatement(f"make table {shape.name}", _create_table(shape), str(shape.name)) for shape in ordered]
    known = existing | missing.keys()
    return made + [_add_foreign_key(s, key) for s in ordered for key in s.foreign_keys if key.parent in known]


def rename_relation(topology: str, table: TableName, name: TableName) -> PlannedStatement:
    """Puts on record what a captured table is called now."""
    fragments = {
        "topology": literal(topology), "schema": literal(table.schema), "table": literal(table.name),
        "new_schema": literal(name.schema), "new_table": literal(name.name),
    }  # fmt: skip
    what = f"function {function_name(topology, table)}"
    return PlannedStatement(f"go on with {table} as {name}", _render("rename_relation", fragments), what)


def give_up(topology: str, table: TableName, function: str) -> PlannedStatement:
    """Ends the capture of a table that is gone."""
    fragments = {"topology": literal(topology), "schema": literal(table.schema), "table": literal(table.name)}
    text = f"{_render('retire_table', fragments)}\n{_render('drop_function', function=function)}"
    return PlannedStatement(f"give up {table}, which is gone", text, f"table {table}", gives_up=True)


def drop_function(name: str) -> PlannedStatement:
    """Drops one of our functions with the triggers that call it."""
    text = _render("drop_function", function=name)
    return PlannedStatement("stop capturing, remove triggers", text, f"replicator.{name}")


def forget_topology(topology: str) -> PlannedStatement:
    """Removes a topology's rows from our tables."""
    text = _render("forget_topology", {"topology": literal(topology)})
    return PlannedStatement(f"forget topology {topology}", text, f"topology {topology}")


def drop_schema() -> PlannedStatement:
    """Removes everything of ours."""
    return PlannedStatement("remove our schema", _render("drop_schema"), "schema replicator")


def database_plan(
    place: str,
    statements: Sequence[PlannedStatement],
    leftovers: Sequence[str] = (),
    unqueued: Sequence[TableName] = (),
) -> DatabasePlan:
    """The statements as a plan with its fingerprint."""
    mark = checksum("\0".join(statement.sql for statement in statements)) if statements else ""
    return DatabasePlan(place, Engine.POSTGRES, tuple(statements), mark, tuple(leftovers), tuple(unqueued))


def _create_table(shape: TableShape) -> str:
    parts = [_column(shape, place) for place in range(len(shape.columns))]
    if shape.key:
        parts.append(_part("primary_key", {"columns": quoted(shape.key)}))
    for unique in shape.uniques:
        if unique.exact and not unique.primary:
            parts.append(_part("unique", {"columns": quoted(unique.columns)}, name=unique.name))
    fragments = {"parts": "\n    " + ",\n    ".join(parts) + "\n"}
    return _render("create_table", fragments, schema=shape.name.schema, table=shape.name.name)


def _column(shape: TableShape, place: int) -> str:
    column = shape.columns[place]
    fragments = {
        "type": column.type,
        "collation": f"collate {column.collation}" if column.collation else "",
        "not_null": "not null" if column.not_null else "",
    }
    return " ".join(_part("column", fragments, column=column.name).split("  ")).rstrip()


def _part(name: str, fragments: dict[str, str], /, **identifiers: str) -> str:
    """The clause behind ``add`` or ``add column`` of a template that had to be a whole statement to be valid SQL."""
    template = re.sub(r"^alter table x add (column )?", "", sqlfiles.statement(_SQL, name))
    return sqlfiles.render(template, identifiers=identifiers, fragments=fragments)


def _add_foreign_key(shape: TableShape, key: ForeignKeyShape) -> PlannedStatement:
    fragments = {
        "columns": quoted(key.columns),
        "parent_columns": quoted(key.parent_columns),
        "on_delete": key.on_delete,
        "on_update": key.on_update,
    }
    text = _render(
        "foreign_key", fragments, name=key.name, schema=shape.name.schema, table=shape.name.name,
        parent_schema=key.parent.schema, parent=key.parent.name,
    )  # fmt: skip
    return PlannedStatement(f"tie {shape.name} to {key.parent}", text, f"{key.name} on {shape.name}")


def _parents_first(shapes: dict[TableName, TableShape]) -> list[TableShape]:
    """Shapes in an order of creation; in circles any order (foreign keys are added afterwards)."""
    graph = {
        name: {key.parent for key in shapes[name].foreign_keys} & shapes.keys() - {name} for name in sorted(shapes)
    }
    try:
        return [shapes[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError:
        return [shapes[name] for name in sorted(shapes)]


def _render(name: str, fragments: dict[str, str] | None = None, /, **identifiers: str) -> str:
    return sqlfiles.render(sqlfiles.statement(_SQL, name), identifiers=identifiers, fragments=fragments) + ";"


def resume(topology: str) -> PlannedStatement:
    """Puts on record that what was stopped because its outbox was full is captured again."""
    text = sqlfiles.render(
        sqlfiles.statement("sql/postgres/purge.sql", "resume"), fragments={"topology": literal(topology)}
    )
    return PlannedStatement("capture again", text, f"capture of {topology}")
