"""The text of the capture triggers of one table of a centre: templates of ``triggers/sqlite/central_*.sql``, filled. Pure.

As at a site the outbox says which key was touched; besides, whom the change concerns (``route``). A row that changes its
route is noted for the old one and for the new one, and so are, at any depth, the rows that follow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replicator.engines.sqlite.capture import Capture
from replicator.engines.sqlite.names import trigger_name
from replicator.model import CentralTable, RouteStep, UniqueShape
from replicator.sqlfiles import quote, render, statement, text

_FRAGMENTS = "triggers/sqlite/central_fragments.sql"
_TEMPLATE = "triggers/sqlite/central_trigger.sql"
_SEPARATOR = " || char(31) || "
"""Between the values of a route: the unit separator."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A captured table whose route passes through another, ``depth`` steps up its path."""

    relation: int
    table: CentralTable
    depth: int


@dataclass(frozen=True)
class CentralCapture(Capture):
    """What capturing one table of a centre takes.

    Args:
        table_plan: what is captured, and how its rows are divided among the sites.
        followers: the captured tables that take their route from this one.
    """

    table_plan: CentralTable
    followers: tuple[Follower, ...] = ()

    def triggers(self) -> Mapping[str, str]:
        """Trigger name → CREATE TRIGGER statement."""
        made = [
            self._trigger("ai", "after insert", [self._note("i", "new"), *self._note_followers("new")]),
            self._trigger("au", "after update", [self._note("u", "new")]),
            self._trigger("ak", "after update", [self._note("d", "old")], self._differs("old", "new")),
            self._trigger("ad", "after delete", [self._note("d", "old"), *self._note_followers("old")]),
        ]
        if routing := self._routing_columns():
            moved = " or ".join(f"(old.{quote(name)} collate binary) is not new.{quote(name)}" for name in routing)
            notes = [self._note("u", "new", route_of="old")] if self._routed else []
            notes += [*self._note_followers("old"), *self._note_followers("new")]
            made.append(self._trigger("ar", "after update", notes, moved))
        made += [self._before(name, guards) for name in ("bi", "bu") if (guards := self._guards(name))]
        return dict(made)

    # --- whom a change concerns -----------------------------------------------------------------------------------

    @property
    def _routed(self) -> bool:
        return self.table_plan.sent and bool(self.table_plan.route.columns)

    def route(self, row: str) -> str:
        """The expression for the route of this table's row behind an alias."""
        if not self.table_plan.sent:
            return "null"
        return _route(self.table_plan, 0, row)

    def _routing_columns(self) -> tuple[str, ...]:
        """Columns whose change gives this row, or rows that follow it, another route."""
        route = self.table_plan.route
        mine = (route.path[0].columns if route.path else route.columns) if self._routed else ()
        theirs = [name for each in self.followers for name in _columns_used(each)]
        return tuple(dict.fromkeys([*mine, *theirs]))

    # --- statements -----------------------------------------------------------------------------------------------

    def _note(self, op: str, row: str, *, route_of: str = "") -> str:
        """Note a row; for the route it had before where ``route_of`` is given, and then it is written by nobody."""
        fragments = self._common() | {
            "op": f"'{op}'",
            "key": self._key_of(row),
            "origin": "''" if route_of else "null",
            "route": self.route(route_of or row),
        }
        return _piece("note", fragments)

    def _note_followers(self, row: str) -> Iterator[str]:
        for follower in self.followers:
            yield self._followers_of(follower, row, "")

    def _followers_of(self, follower: Follower, row: str, victim: str) -> str:
        """Notes the rows that follow the row behind an alias; with ``victim``, those that follow any victim (alias x)."""
        path = follower.table.route.path
        steps = list(enumerate(path[: follower.depth]))
        joins = [f", {quote(step.parent.name)} as f{place + 1}" for place, step in steps]
        follows = [_follows(step, f"f{place}", f"f{place + 1}") for place, step in steps]
        follows.append(_follows(path[follower.depth], f"f{follower.depth}", row))
        if victim:
            joins.append(f", {quote(self.table)} as x")
            follows.append(victim)
        fragments = {
            "places": ", ".join(f"k{place}" for place in range(len(follower.table.key))),
            "relation": str(follower.relation),
            "hybrid_time": self.hybrid_time,
            "key": ", ".join(f"f0.{quote(name)}" for name in follower.table.key),
            "route": _route(follower.table, follower.depth + 1, row),
            "joins": "".join(joins),
            "follows": " and ".join(follows),
        }
        return _piece("note_followers", fragments, table=follower.table.table.name.name)

    def _guards(self, event: str) -> list[tuple[UniqueShape, str]]:
        """Unique indexes by which a REPLACE removes a row, each with the condition that finds the row (alias x).

        The key is one of them where routes matter: the row that goes may have had another route.
        """
        found = []
        for unique in self.guarded():
            other = self._differs_from_new() if event == "bi" else self._differs("x", "old")
            found.append((unique, f"{self._same_unique(unique)} and ({other})"))
        if self._routing_columns():
            collations = tuple(self.shape.column(name).collation or "BINARY" for name in self.key)
            key = UniqueShape("", self.key, primary=self.rowid_key, collations=collations)
            same = self._same_unique(key)
            found.append((key, same if event == "bi" else f"{same} and ({self._differs('x', 'old')})"))
        return found

    def _before(self, name: str, guards: Sequence[tuple[UniqueShape, str]]) -> tuple[str, str]:
        of_columns = self._of_columns(tuple(unique for unique, _ in guards)) if name == "bu" else ""
        event = f"before update {of_columns}".strip() if name == "bu" else "before insert"
        exists = [
            (self._moved(unique) if name == "bu" else "") + _piece("any_victim", {"victim": victim}, table=self.table)
            for unique, victim in guards
        ]
        notes = []
        for _, victim in guards:
            fragments = self._common() | {"key": self._key_of("x"), "route": self.route("x"), "victim": victim}
            notes.append(_piece("note_victims", fragments, table=self.table))
            notes += [self._followers_of(each, "x", victim) for each in self.followers]
        return self._trigger(name, event, notes, "\n   or ".join(exists))

    def _trigger(self, name: str, event: str, statements: Sequence[str], condition: str = "1") -> tuple[str, str]:
        full = trigger_name(self.topology, self.table, name)
        body = render(
            _without_comments(text(_TEMPLATE)).rstrip(";"),
            identifiers={"trigger": full, "table": self.table},
            fragments={"event": event, "condition": condition, "statements": ";\n    ".join(statements)},
        )
        return full, body


def captures_of(topology: str, tables: Sequence[CentralTable], numbers: Mapping[str, int]) -> Iterator[CentralCapture]:
    """The captures of a centre's tables; ``numbers``: table name → relation."""
    routed = [each for each in tables if each.sent and (each.route.columns or each.route.watched)]
    for table in tables:
        name = table.table.name.name
        followers = tuple(
            Follower(numbers[each.table.name.name], each, depth)
            for each in routed
            for depth, step in enumerate(each.route.path)
            if step.parent.name.lower() == name.lower()
        )
        yield CentralCapture(topology, numbers[name], table.table, table.key, table, followers)


def _route(table: CentralTable, start: int, row: str) -> str:
    """The route of a table's rows as seen from the row behind an alias, which stands ``start`` steps up their path."""
    route = table.route
    if not route.columns:
        return "''"
    path = route.path[start:]
    if not path:
        return _piece("route_value", {"values": _values(route.columns, row)})
    first, *rest = path
    steps = list(enumerate(rest))
    fragments = {
        "values": _values(route.columns, f"p{len(rest)}"),
        "joins": "".join(f", {quote(step.parent.name)} as p{place + 1}" for place, step in steps),
        "follows": " and ".join(
            [_follows(first, row, "p0"), *(_follows(step, f"p{place}", f"p{place + 1}") for place, step in steps)]
        ),
    }
    return _piece("route_by_path", fragments, table=first.parent.name)


def _values(columns: Sequence[str], row: str) -> str:
    return _SEPARATOR.join(f"cast({row}.{quote(name)} as text)" for name in columns)


def _follows(step: RouteStep, row: str, parent: str) -> str:
    pairs = zip(step.parent_columns, step.columns, strict=True)
    return " and ".join(f"{parent}.{quote(there)} = {row}.{quote(here)}" for there, here in pairs)


def _columns_used(follower: Follower) -> tuple[str, ...]:
    """Columns of the followed table by which rows follow it, or which say where they go on."""
    route, depth = follower.table.route, follower.depth
    last = depth + 1 == len(route.path)
    further = (*route.columns, *route.watched) if last else route.path[depth + 1].columns
    return (*route.path[depth].parent_columns, *further)


def _piece(name: str, fragments: Mapping[str, str], **identifiers: str) -> str:
    template = _without_comments(statement(_FRAGMENTS, name))
    return render(template, identifiers=identifiers, fragments=fragments)


def _without_comments(template: str) -> str:
    return "\n".join(line for line in template.splitlines() if not line.lstrip().startswith("--")).strip()
