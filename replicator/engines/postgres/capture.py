"""Writes the capture function and the triggers of one captured table, from the templates in ``triggers/postgres``.

Pure: no connection. What is written depends only on the plan, the relation's number, the settings its types need and
whether rows must be captured one by one, so equal input gives equal text and the text's checksum tells drift.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from replicator import sqlfiles
from replicator.model import TableName, TablePlan, TruncatePolicy
from replicator.sqlfiles import literal, quote, quoted

SETTINGS: Mapping[str, str] = {
    "datestyle": "ISO, MDY",
    "timezone": "UTC",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
}
"""What a capture function may fix for its own run; which ones depends on the types of the table's columns."""

EVENTS = ("insert", "update", "delete", "row", "truncate")
"""Suffixes of our triggers' names."""

_FILTER_COLUMN = re.compile(r'^\."((?:[^"]|"")*)"')


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as it should be, or as the catalogue shows it. ``type`` is ``pg_trigger.tgtype``."""

    name: str
    type: int
    enabled: str
    function: str
    old_table: str = ""
    new_table: str = ""


@dataclass(frozen=True, slots=True)
class Capture:
    """One captured table as it should be."""

    plan: TablePlan
    topology: str
    relation: int
    by_row: bool
    settings: frozenset[str]
    owned: bool = True
    attnums: Mapping[str, int] = field(default_factory=dict)
    """The numbers of the table's columns, by name."""
    mark: str = ""
    """The fingerprint the relation has, or gets, on record."""

    @property
    def name(self) -> TableName:
        """The captured table."""
        return self.plan.source.name

    @property
    def function(self) -> str:
        """Name of the capture function, without its schema."""
        return function_name(self.topology, self.name)

    @property
    def body(self) -> str:
        """The statement that creates the capture function."""
        return _render_function(self)

    @property
    def fingerprint(self) -> str:
        """Checksum of the function's text."""
        return checksum(self.body)

    def triggers(self) -> tuple[Trigger, ...]:
        """The triggers the table should have, by name."""
        enabled = "A" if self.owned else "O"
        names = trigger_names(self.topology)
        made = []
        if self.by_row:
            made.append(Trigger(names["row"], 1 | 4 | 8 | 16, enabled, self.function))
        else:
            made.append(Trigger(names["insert"], 4, enabled, self.function, "", "new_rows"))
            made.append(Trigger(names["update"], 16, enabled, self.function, "old_rows", "new_rows"))
            made.append(Trigger(names["delete"], 8, enabled, self.function, "old_rows", ""))
        if self.plan.truncate is not TruncatePolicy.IGNORE:
            made.append(Trigger(names["truncate"], 32, enabled, self.function))
        return tuple(sorted(made, key=lambda trigger: trigger.name))


def checksum(text: str) -> str:
    """A short fingerprint of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def relation_fingerprint(
    columns: Sequence[tuple[str, str]], key: Sequence[str], attnums: Sequence[int] = (), after: int = 0
) -> str:
    """Checksum over what an image's places mean: ordered columns (name and type), their numbers, and the key.

    Installations from before have none of the numbers. ``after``: the relation it takes the place of, though it is as that one.
    """
    places = [f"{name}\t{kind}" for name, kind in columns]
    if attnums:
        places = [f"{place}\t{number}" for place, number in zip(places, attnums, strict=True)]
    return checksum("\n".join([*places, "", *key, *([f"after {after}"] if after else [])]))


def function_name(topology: str, table: TableName) -> str:
    """A readable name of at most 63 bytes that no other table or topology has."""
    mark = checksum(f"{topology}\0{table.schema}\0{table.name}")[:10]
    return f"capture_{readable(topology, 18)}_{readable(table.name, 24)}_{mark}"


def trigger_names(topology: str) -> Mapping[str, str]:
    """Event → trigger name; the same on every table of a topology."""
    base = f"!replicator_{readable(topology, 24)}_{checksum(topology)[:10]}"
    return {event: f"{base}_{event}" for event in EVENTS}


def lock_number(topology: str) -> int:
    """The advisory lock a topology's reader holds while it sleeps."""
    return int.from_bytes(hashlib.sha256(f"replicator reader {topology}".encode()).digest()[:8], "big", signed=True)


def channel(topology: str) -> str:
    """The NOTIFY channel a topology's reader listens on."""
    return f"replicator_{checksum(topology)}"


def bare_type(type_name: str) -> str:
    """A ``format_type`` text without its modifier, as ``pg_typeof`` would show the type."""
    if type_name.startswith("interval"):
        return "interval[]" if type_name.endswith("[]") else "interval"
    return type_name if '"' in type_name else re.sub(r"\(-?\d+(,-?\d+)?\)", "", type_name)


def filter_columns(plan: TablePlan) -> tuple[str, ...]:
    """Columns the plan's row filter reads."""
    parts = plan.where.postgres[1:] if plan.where else ()
    found = [match.group(1).replace('""', '"') for part in parts if (match := _FILTER_COLUMN.match(part))]
    return tuple(dict.fromkeys(found))


def render_triggers(capture: Capture, drops: Sequence[str]) -> str:
    """One transaction that drops the triggers called ``drops`` and creates those the table should have."""
    names = dict(trigger_names(capture.topology))
    table = capture.plan.source.name
    base = {"schema": table.schema, "table": table.name, "function": capture.function, **names}
    truncate = "" if capture.plan.truncate is TruncatePolicy.IGNORE else trigger_statement("truncate", base) + ";"
    always = [trigger_statement("always", {**base, "trigger": trigger.name}) + ";" for trigger in capture.triggers()]
    dropped = [trigger_statement("drop", {**base, "trigger": name}) + ";" for name in drops]
    return trigger_statement("by_row" if capture.by_row else "by_statement", base, {
        "drops": "\n".join(dropped),
        "truncate": truncate,
        "always": "\n".join(without_comments(always)) if capture.owned else "",
    })  # fmt: skip


def render_body(template: str, mark: str, identifiers: Mapping[str, str], fragments: Mapping[str, str]) -> str:
    """A template with a ``$mark$`` quoted body; the mark is changed while a name in the body contains it."""
    chosen, number = mark, 0
    while any(f"${chosen}$" in piece for piece in (*fragments.values(), *identifiers.values())):
        number += 1
        chosen = f"{mark}{number}"
    return sqlfiles.render(template.replace(f"${mark}$", f"${chosen}$"), identifiers=identifiers, fragments=fragments)


def _render_function(capture: Capture) -> str:
    plan = capture.plan
    columns = tuple(column.source for column in plan.columns)
    new, old = ("new", "old") if capture.by_row else ("n", "o")
    wanted = tuple(dict.fromkeys((*columns, *plan.key, *filter_columns(plan))))
    template = sqlfiles.text(f"triggers/postgres/{'capture_row' if capture.by_row else 'capture_statement'}.sql")
    fragments = {
        "settings": " ".join(_setting(name) for name in SETTINGS if name in capture.settings),
        "wanted_values": ", ".join(["true"] * len(wanted)),
        "wanted_names": quoted(wanted),
        "wanted_test": _wanted_test(plan, wanted),
        "wanted_types": ", ".join(f"({literal(name)}, {literal(_type(plan, name))})" for name in wanted),
        "by_attnum": _by_attnum({capture.attnums.get(name, 0): name for name in wanted}),
        "partitioned": "true" if plan.source.kind == "partitioned" else "false",
        "wanted_count": str(len(wanted)),
        "relation": str(capture.relation),
        "new_columns": quoted(columns, f"{new}."),
        "old_columns": quoted(columns, f"{old}."),
        "new_key": quoted(plan.key, f"{new}."),
        "old_key": quoted(plan.key, f"{old}."),
        "new_filter": _filter(plan, new),
        "old_filter": _filter(plan, old),
        "applied": literal(f"{capture.topology}/centre"),
        "lock": str(lock_number(capture.topology)),
        "channel": literal(channel(capture.topology)),
    }
    return render_body(template, "capture", {"function": capture.function}, fragments)


def _wanted_test(plan: TablePlan, wanted: Sequence[str]) -> str:
    """True when the rows have every wanted column (see README.md), and the filter's columns have their types still."""
    tests = [f"{quote(name)} is null" for name in wanted]
    for name in filter_columns(plan):
        tests.append(f"format_type(pg_typeof({quote(name)}), null) = {literal(_type(plan, name))}")
    return " and ".join(tests)


def _by_attnum(names: Mapping[int, str]) -> str:
    """The wanted columns in the order of their numbers, with nothing for numbers that others have."""
    return ", ".join(literal(names[number]) if number in names else "null" for number in range(1, max(names) + 1))


def _type(plan: TablePlan, name: str) -> str:
    return bare_type(plan.source.column(name).type)


def _filter(plan: TablePlan, alias: str) -> str:
    return "(" + quote(alias).join(plan.where.postgres) + ")" if plan.where else "true"


def _setting(name: str) -> str:
    return f"set {name} = {literal(SETTINGS[name])}"


def trigger_statement(name: str, identifiers: Mapping[str, str], fragments: Mapping[str, str] | None = None) -> str:
    """One named statement of ``triggers.sql``, filled."""
    template = sqlfiles.statement("triggers/postgres/triggers.sql", name)
    return sqlfiles.render(template, identifiers=identifiers, fragments=fragments)


def without_comments(statements: Sequence[str]) -> list[str]:
    """The lines of the statements that are no comments."""
    return [line for text in statements for line in text.splitlines() if not line.startswith("--")]


def readable(name: str, length: int) -> str:
    """ASCII letters, digits and underscores of a name, for people; uniqueness comes from a checksum."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:length] or "x"
