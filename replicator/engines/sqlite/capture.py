"""The text of the capture triggers of one table: templates of ``triggers/sqlite`` filled from its shape. Pure.

A unique index other than the key is *guarded*: BEFORE triggers note the rows a REPLACE would remove by it. A *loose*
key (NOCASE or RTRIM, or no affinity, where 1 and 1.0 are one key) is guarded too: to SQLite two spellings are one key,
to the target they are two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.names import trigger_name
from replicator.model import TablePlan, TableShape, UniqueShape
from replicator.sqlfiles import literal, quote, render, statement, text

_FRAGMENTS = "triggers/sqlite/fragments.sql"
_FILES = {"ai": "capture_insert", "au": "capture_update", "ak": "capture_key_update", "ad": "capture_delete"}
_CONSTANT = re.compile(r"[+-]?\s*(\d[\w.+-]*|\.\d[\w+-]*|x?'(?:[^']|'')*'|true|false|current_\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Capture:
    """What capturing one table takes: its relation number and what the triggers must know of its key."""

    topology: str
    relation: int
    shape: TableShape
    key: tuple[str, ...]

    @property
    def table(self) -> str:
        """The captured table's name."""
        return self.shape.name.name

    @property
    def hybrid_time(self) -> str:
        """The expression that stamps a change."""
        return f"({_without_comments(statement(_FRAGMENTS, 'hybrid_time'))})"

    def triggers(self) -> Mapping[str, str]:
        """Trigger name → CREATE TRIGGER statement."""
        filled = {event: self._fill(event) for event in _FILES}
        if guarded := self.guarded():
            filled["bi"] = self._fill_victims("bi", guarded, self._differs_from_new)
            filled["bu"] = self._fill_victims("bu", guarded, lambda: self._differs("x", "old"))
        return {trigger_name(self.topology, self.table, event): body for event, body in filled.items()}

    def guarded(self) -> tuple[UniqueShape, ...]:
        """The unique indexes by which a REPLACE can remove a row with another key."""
        others = [unique for unique in self.shape.uniques if unique.columns and not self._is_covered(unique)]
        if any(self.loose(column) for column in self.key):
            columns = [self.shape.column(name) for name in self.key]
            collations = tuple(column.collation or "BINARY" for column in columns)
            others.append(UniqueShape("", self.key, collations=collations))
        return tuple(others)

    def loose(self, column: str) -> bool:
        """Whether SQLite takes two different values of this key column for the same."""
        shape = self.shape.column(column)
        return bool(shape.collation) or affinity_of(shape.type) is Affinity.BLOB

    @property
    def rowid_key(self) -> bool:
        """Whether the key is the rowid under another name (INTEGER PRIMARY KEY)."""
        return any(unique.primary and not unique.name and unique.columns == self.key for unique in self.shape.uniques)

    def _is_covered(self, unique: UniqueShape) -> bool:
        """Whether rows equal by this index have equal keys in the key's own collation (loose keys: own guard)."""
        collations = dict(zip(unique.columns, unique.collations or ("BINARY",) * len(unique.columns), strict=True))
        return all(
            collations.get(name, "").upper() == (self.shape.column(name).collation or "BINARY").upper()
            for name in self.key
        )

    def _fill(self, event: str) -> str:
        fragments = self._common() | {
            "new_key": self._key_of("new"),
            "old_key": self._key_of("old"),
            "key_moved": self._differs("old", "new"),
        }
        return self._render(event, f"triggers/sqlite/{_FILES[event]}.sql", fragments)

    def _fill_victims(self, event: str, guarded: tuple[UniqueShape, ...], other_row: Callable[[], str]) -> str:
        victims = [f"{self._same_unique(unique)} and ({other_row()})" for unique in guarded]
        exists = [
            (self._moved(unique) if event == "bu" else "") + self._fragment("any_victim", {"victim": victim})
            for unique, victim in zip(guarded, victims, strict=True)
        ]
        notes = [
            self._fragment("note_victims", self._common() | {"victim_key": self._key_of("x"), "victim": victim})
            for victim in victims
        ]
        fragments = {
            "any_victim": "\n   or ".join(exists),
            "notes": ";\n    ".join(notes),
            "of_columns": self._of_columns(guarded),
        }
        path = f"triggers/sqlite/capture_victims_{'insert' if event == 'bi' else 'update'}.sql"
        return self._render(event, path, fragments)

    def _same_unique(self, unique: UniqueShape) -> str:
        collations = unique.collations or ("BINARY",) * len(unique.columns)
        equal = [
            f"x.{quote(column)} = {self._new_value(column)} collate {quote(collation)}"
            for column, collation in zip(unique.columns, collations, strict=True)
        ]
        return " and ".join(equal + ([f"({unique.predicate})"] if unique.predicate else []))

    def _new_value(self, column: str) -> str:
        """The value about to be stored: a REPLACE puts the default where a NOT NULL column is given NULL."""
        shape = self.shape.column(column)
        default = _constant(shape.default) if shape.not_null else ""
        return f"coalesce(new.{quote(column)}, {default})" if default else f"new.{quote(column)}"

    def _of_columns(self, guarded: tuple[UniqueShape, ...]) -> str:
        names = sorted({name for unique in guarded for name in unique.columns})
        anywhere = any(_is_partial(unique) or (unique.primary and not unique.name) for unique in guarded)
        if anywhere or any(self.shape.column(name).generated for name in names):
            return ""
        return "of " + ", ".join(quote(name) for name in names)

    def _moved(self, unique: UniqueShape) -> str:
        """A cheap first question before the index is searched: did the unique columns change at all?"""
        if _is_partial(unique):
            return ""
        changed = " or ".join(f"(old.{quote(c)} collate binary) is not new.{quote(c)}" for c in unique.columns)
        return f"({changed}) and "

    def _differs_from_new(self) -> str:
        if self.rowid_key:  # -1 is what NEW shows in BEFORE for a rowid still to be chosen
            key = quote(self.key[0])
            return f"x.{key} <> new.{key} or new.{key} = -1"
        return self._differs("x", "new")

    def _differs(self, left: str, right: str) -> str:
        return " or ".join(_differs(left, right, name, self.loose(name)) for name in self.key)

    def _key_of(self, row: str) -> str:
        return ", ".join(f"{row}.{quote(name)}" for name in self.key)

    def _common(self) -> dict[str, str]:
        return {
            "places": ", ".join(f"k{place}" for place in range(len(self.key))),
            "relation": str(self.relation),
            "hybrid_time": self.hybrid_time,
        }

    def _fragment(self, name: str, fragments: Mapping[str, str]) -> str:
        template = _without_comments(statement(_FRAGMENTS, name))
        return render(template, identifiers={"table": self.table}, fragments=fragments)

    def _render(self, event: str, path: str, fragments: Mapping[str, str]) -> str:
        name = trigger_name(self.topology, self.table, event)
        template = _without_comments(text(path)).rstrip(";")
        return render(template, identifiers={"trigger": name, "table": self.table}, fragments=fragments)


def capture_of(topology: str, relation: int, plan: TablePlan) -> Capture:
    """The capture of a planned table."""
    return Capture(topology, relation, plan.source, plan.key)


def _differs(left: str, right: str, name: str, loose: bool) -> str:
    column = quote(name)
    bytes_differ = f"({left}.{column} collate binary) is not {right}.{column}"
    return f"{bytes_differ} or typeof({left}.{column}) <> typeof({right}.{column})" if loose else bytes_differ


def _constant(default: str) -> str:
    """A column's default where it is a constant, as SQL that means the same inside a trigger; else empty."""
    if default.startswith('"') and default.endswith('"'):
        return literal(default[1:-1].replace('""', '"'))
    return default if _CONSTANT.fullmatch(default) else ""


def _is_partial(unique: UniqueShape) -> bool:
    return not unique.exact


def _without_comments(template: str) -> str:
    """The template without its heading: the reasons stay in our files, the database keeps the statement."""
    return "\n".join(line for line in template.splitlines() if not line.lstrip().startswith("--")).strip()
