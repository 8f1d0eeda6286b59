"""Writes the capture function and the triggers of one table of a centre, from ``triggers/postgres/central_*.sql``. Pure.

An outbox row of a centre says which row was touched and whom that concerns: ``route`` (see the migration). A row that
leaves its route is noted under the old one too, and a row that others follow takes them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from replicator import sqlfiles
from replicator.engines.postgres.capture import (
    SETTINGS,
    Trigger,
    bare_type,
    channel,
    checksum,
    lock_number,
    readable,
    render_body,
    trigger_names,
    trigger_statement,
    without_comments,
)
from replicator.engines.postgres.chains import Chain, Follower, Shapes, piece, used_columns, via, written
from replicator.model import CentralTable, Route, TableName
from replicator.sqlfiles import literal, quote, quoted

_TEMPLATE = "triggers/postgres/central_capture.sql"


@dataclass(frozen=True)
class CentralCapture:
    """One captured table of a centre as it should be.

    ``shapes``: the tables its route and its followers name. ``schemas``: type → schema of its own ``=``, where that is
    not PostgreSQL's.
    """

    table: CentralTable
    topology: str
    relation: int
    by_row: bool
    settings: frozenset[str]
    shapes: Shapes
    followers: tuple[Follower, ...] = ()
    owned: bool = True
    schemas: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> TableName:
        """The captured table."""
        return self.table.table.name

    @property
    def function(self) -> str:
        """Name of the capture function, without its schema."""
        return function_name(self.topology, self.name)

    @cached_property
    def body(self) -> str:
        """The statement that creates the capture function."""
        return _Body(self).render()

    @property
    def fingerprint(self) -> str:
        """Checksum of the function's text."""
        return checksum(self.body)

    def triggers(self) -> tuple[Trigger, ...]:
        """The triggers the table should have, by name."""
        enabled, names = "A" if self.owned else "O", trigger_names(self.topology)
        made = [Trigger(names["truncate"], 2 | 32, enabled, self.function)]
        if self.by_row:
            made.append(Trigger(names["row"], 1 | 4 | 8 | 16, enabled, self.function))
        else:
            made.append(Trigger(names["insert"], 4, enabled, self.function, "", "new_rows"))
            made.append(Trigger(names["update"], 16, enabled, self.function, "old_rows", "new_rows"))
            made.append(Trigger(names["delete"], 8, enabled, self.function, "old_rows", ""))
        return tuple(sorted(made, key=lambda trigger: trigger.name))


def function_name(topology: str, table: TableName) -> str:
    """A readable name of at most 63 bytes that no other table or topology has, and no site's capture."""
    mark = checksum(f"{topology}\0{table.schema}\0{table.name}")[:10]
    return f"central_{readable(topology, 18)}_{readable(table.name, 24)}_{mark}"


def relation_fingerprint(table: CentralTable) -> str:
    """Checksum over what the places of a key mean: its columns with their types."""
    return checksum("\n".join(["central", *(f"{name}\t{table.table.column(name).type}" for name in table.key)]))


def render_triggers(capture: CentralCapture, drops: Sequence[str]) -> str:
    """One transaction that drops the triggers called ``drops`` and creates those the table should have."""
    names = trigger_names(capture.topology)
    base = {"schema": capture.name.schema, "table": capture.name.name, "function": capture.function, **names}
    always = [trigger_statement("always", {**base, "trigger": trigger.name}) + ";" for trigger in capture.triggers()]
    dropped = [trigger_statement("drop", {**base, "trigger": name}) + ";" for name in drops]
    return trigger_statement("by_row" if capture.by_row else "by_statement", base, {
        "drops": "\n".join(dropped),
        "truncate": trigger_statement("truncate_before", base) + ";",
        "always": "\n".join(without_comments(always)) if capture.owned else "",
    })  # fmt: skip


class _Body:
    """The text of one capture function."""

    def __init__(self, capture: CentralCapture) -> None:
        self._capture = capture
        self._table = capture.table
        self._columns = used_columns(capture.table, capture.followers)
        self._chain = Chain(capture.shapes, capture.schemas)

    def render(self) -> str:
        capture = self._capture
        fragments = {
            "settings": " ".join(_setting(name) for name in SETTINGS if name in capture.settings),
            "origins": literal(f"{capture.topology}/"),
            "sent": _truth(self._table.sent),
            "versioned": _truth(self._table.versioned),
            "followed": _truth(bool(capture.followers)),
            "orphans": _truth(any(each.orphans for each in capture.followers)),
            "relation": str(capture.relation),
            "only": self._only,
            "followers": literal("{" + ",".join(str(each.relation) for each in capture.followers) + "}"),
            "lock": str(lock_number(capture.topology)),
            "channel": literal(channel(capture.topology)),
            **self._readiness(),
            **self._by_name(),
            **self._one_sided("inserted", "n", self._rows("n")),
            **self._one_sided("deleted", "o", self._rows("o")),
            **self._one_sided("truncated", "o", self._all_rows),
            **self._updated(),
        }
        text = sqlfiles.text(_TEMPLATE)
        return render_body(text, "central", {"function": capture.function}, fragments)

    # --- is the table as it was? ---

    def _readiness(self) -> dict[str, str]:
        if self._capture.by_row:
            here = self._ready_by_row()
            tests = {"ready_new": here, "ready_old": here}
        else:
            tests = {
                "ready_new": self._ready_by_statement("new_rows"),
                "ready_old": self._ready_by_statement("old_rows"),
            }
        name = piece("is_table", name=literal(written(self._capture.name)))
        return {**tests, "ready_all": f"{name} and {self._ready_by_row()}", "others_ready": self._others_ready()}

    def _ready_by_statement(self, rows: str) -> str:
        typed = {name for step in self._table.route.path[:1] for name in step.columns}
        typed |= {name for follower in self._capture.followers for name in follower.referred}
        tests = [piece("is_null", value=quote(name)) for name in self._columns]
        tests += [
            piece("has_type", value=quote(name), type=literal(self._type(name)))
            for name in self._columns
            if name in typed
        ]
        return piece(
            "ready_by_statement", rows=rows, wanted_values=", ".join(["true"] * len(self._columns)),
            wanted_names=quoted(self._columns), wanted_test=" and ".join(tests),
        )  # fmt: skip

    def _ready_by_row(self) -> str:
        types = ", ".join(f"({literal(name)}, {literal(self._type(name))})" for name in self._columns)
        return piece("ready_by_row", wanted_types=types, wanted_count=str(len(self._columns)))

    def _type(self, name: str) -> str:
        return bare_type(self._table.table.column(name).type)

    def _others_ready(self) -> str:
        """The columns of other tables that the function reads."""
        found: dict[tuple[TableName, str], None] = {}
        for step_columns in (self._up(self._table.route), *(self._below(each) for each in self._capture.followers)):
            found.update(dict.fromkeys(step_columns))
        if not found:
            return "true"
        lines = []
        for table, name in found:
            kind = bare_type(self._capture.shapes[table].column(name).type)
            lines.append(f"({literal(written(table))}, {literal(name)}, {literal(kind)})")
        return piece("others_ready", others=", ".join(lines), others_count=str(len(lines)))

    @staticmethod
    def _up(route: Route) -> Iterable[tuple[TableName, str]]:
        for place, step in enumerate(route.path):
            yield from ((step.parent, name) for name in step.parent_columns)
            last = place + 1 == len(route.path)
            further = route.columns if last else route.path[place + 1].columns
            yield from ((step.parent, name) for name in further)

    def _below(self, follower: Follower) -> Iterable[tuple[TableName, str]]:
        table = follower.table.table.name
        yield from ((table, name) for name in follower.table.key)
        for step in follower.steps:
            yield from ((table, name) for name in step.columns)
            table = step.parent
            if step is not follower.steps[-1]:
                yield from ((table, name) for name in step.parent_columns)
        yield from self._up(follower.rest)

    def _by_name(self) -> dict[str, str]:
        """What the fallback is given: the transition tables, or the rows as parameters."""
        if not self._capture.by_row:
            named = {
                "named_new": "'', 'new_rows'",
                "named_pair": "'old_rows', 'new_rows'",
                "named_old": "'old_rows', ''",
            }
            return {**named, "using_new": "", "using_pair": "", "using_old": ""}
        first, second = "'(select ($3).*)'", "'(select ($4).*)'"
        named = {"named_new": f"'', {first}", "named_pair": f"{second}, {first}", "named_old": f"{first}, ''"}
        return {**named, "using_new": ", new", "using_pair": ", new, old", "using_old": ", old"}

    # --- rows ---

    @property
    def _only(self) -> str:
        return "only" if self._table.table.kind == "inherited" else ""

    def _rows(self, alias: str) -> str:
        """The rows before (``o``) or after (``n``) the change, in FROM."""
        if self._capture.by_row:
            return _source(piece("rows_by_row", columns=self._fields(_RECORDS[alias]), alias=alias))
        return _source(piece("rows_by_statement", rows=f"{_RECORDS[alias]}_rows", alias=alias))

    @property
    def _all_rows(self) -> str:
        names = {"schema": self._capture.name.schema, "table": self._capture.name.name}
        return _source(piece("rows_of_table", names, only=self._only, alias="o"))

    def _pairs(self) -> str:
        """The changed rows before and after, in FROM."""
        if self._capture.by_row:
            columns = {"old_columns": self._fields("old"), "new_columns": self._fields("new")}
            return _source(piece("pairs_by_row", **columns))
        return _source(piece("pairs_by_statement", columns=quoted(self._columns, "x.")))

    def _fields(self, record: str) -> str:
        return ", ".join(f"{record}.{quote(name)} as {quote(name)}" for name in self._columns)

    # --- what is written ---

    def _one_sided(self, event: str, alias: str, rows: str) -> dict[str, str]:
        """The statements for rows that came (``n``) or went (``o``)."""
        key = quoted(self._table.key, f"{alias}.")
        gone = alias == "o"
        written = piece(
            "write_rows", relation=str(self._capture.relation), op=literal("d" if gone else "i"), key=key,
            route=self._chain.route(self._table.route, alias), rows=rows,
        )  # fmt: skip
        touched = piece("touched", key=key, deleted=_truth(gone), rows=rows)
        orphans = [each for each in self._capture.followers if each.orphans]
        moved = [
            piece(
                "moved_rows", values=_numbered(each.referred, f"{alias}.", "m"), route=self._chain.route(each.rest, alias),
                rows=rows,
            )
            for each in orphans
        ]  # fmt: skip
        return {event: written, f"versions_{event}": self._versions(touched), **self._follow(event, orphans, moved)}

    def _updated(self) -> dict[str, str]:
        route, pairs = self._table.route, self._pairs()
        new_route = self._chain.route(route, "n")
        old_route = self._chain.route(route, "o")
        if route.path:
            old_route = piece(
                "same_route", old_via=quoted(via(route), "o."), new_via=quoted(via(route), "n."),
                new_route=new_route, old_route=old_route,
            )  # fmt: skip
        keys = {"old_key": quoted(self._table.key, "o."), "new_key": quoted(self._table.key, "n.")}
        written = piece(
            "write_updated",
            relation=str(self._capture.relation),
            **keys,
            old_route=old_route,
            new_route=new_route,
            pairs=pairs,
        )
        touched = piece("touched_both", **keys, pairs=pairs)
        moved = [self._moved_pairs(each, pairs) for each in self._capture.followers]
        follow = self._follow("updated", list(self._capture.followers), moved)
        return {"updated": written, "versions_updated": self._versions(touched), **follow}

    def _moved_pairs(self, follower: Follower, pairs: str) -> str:
        watched = tuple(dict.fromkeys((*follower.referred, *follower.decides)))
        places = range(len(follower.referred))
        return piece(
            "moved_pairs", pairs=pairs, watched=_truth(bool(follower.rest.watched)),
            fields=_listed("w.m", places), names=_listed("m", places),
            old_fields=_listed("b.o", places), new_fields=_listed("b.n", places),
            old_values=_numbered(follower.referred, "o.", "o"), new_values=_numbered(follower.referred, "n.", "n"),
            old_referred=quoted(follower.referred, "o."), new_referred=quoted(follower.referred, "n."),
            old_watched=quoted(watched, "o."), new_watched=quoted(watched, "n."),
            old_route=self._chain.route(follower.rest, "o"), new_route=self._chain.route(follower.rest, "n"),
        )  # fmt: skip

    def _versions(self, touched: str) -> str:
        return piece("write_versions", touched=touched, table=literal(str(self._capture.name)))

    def _follow(self, event: str, followers: Sequence[Follower], moved: Sequence[str]) -> dict[str, str]:
        """The statements that take the followers of moved rows along, now and once more (see ``replicator.moved``)."""
        if not followers:
            nothing = {f"{event}_followers": piece("write_followers", parts=piece("no_followers"))}
            return {**nothing, f"{event}_moves": piece("write_moves", parts=piece("no_moves"))}
        lines = [self._followers(each, source) for each, source in zip(followers, moved, strict=True)]
        moves = [self._moves(each, source) for each, source in zip(followers, moved, strict=True)]
        return {
            f"{event}_followers": piece("write_followers", parts="\nunion all\n".join(lines)),
            f"{event}_moves": piece("write_moves", parts="\nunion all\n".join(moves)),
        }

    def _followers(self, follower: Follower, moved: str) -> str:
        right = [f"m.m{place}" for place in range(len(follower.referred))]
        tables, ties = self._descent(follower, right)
        return piece(
            "followers", relation=str(follower.relation), key=quoted(follower.table.key, "f."), moved=moved,
            chain=", ".join(tables), ties=" and ".join(ties),
        )  # fmt: skip

    def _descent(self, follower: Follower, right: Sequence[str]) -> tuple[list[str], list[str]]:
        """The tables from the follower ``f`` up to the one below the followed row, whose values are ``right``."""
        name = follower.table.table.name
        tables, ties = self._chain.joins("f", follower.steps[:-1])
        last = follower.steps[-1]
        below, place = (f"p{follower.depth - 1}", follower.steps[-2].parent) if follower.depth else ("f", name)
        ties += [self._chain.tie(place, c, f"{below}.{quote(c)}", r) for c, r in zip(last.columns, right, strict=True)]
        return [self._chain.table(name, "f"), *tables], ties

    def _moves(self, follower: Follower, moved: str) -> str:
        fields = _listed("m.m", range(len(follower.referred)))
        statement = literal(self._announcement(follower))
        return piece("moves", topology=literal(self._capture.topology), statement=statement, fields=fields, moved=moved)

    def _announcement(self, follower: Follower) -> str:
        types = [self._table.table.column(name).type for name in follower.referred]
        right = [piece("field", fields="m.k", name=f"k{place}", type=kind) for place, kind in enumerate(types)]
        tables, ties = self._descent(follower, right)
        return piece(
            "announce_followers", relation=str(follower.relation), key=quoted(follower.table.key, "f."),
            route=self._chain.route(follower.table.route, "f"), count=str(len(types)), chain=", ".join(tables),
            ties=" and ".join(ties),
        )  # fmt: skip


_RECORDS = {"o": "old", "n": "new"}


def _source(text: str) -> str:
    """What stands behind ``from`` in a piece that had to be a whole statement to be valid SQL."""
    return text.split("select 1", 1)[1].strip().removeprefix("from ")


def _numbered(names: Sequence[str], prefix: str, mark: str) -> str:
    return ", ".join(f"{prefix}{quote(name)} as {mark}{place}" for place, name in enumerate(names))


def _listed(prefix: str, places: Iterable[int]) -> str:
    return ", ".join(f"{prefix}{place}" for place in places)


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _setting(name: str) -> str:
    return f"set {name} = {literal(SETTINGS[name])}"
