"""Who wrote each row of a centre last, and what apply leaves in the centre's own outbox: tags, corrections, markers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from replicator.engines.sqlite.affinity import Affinity, affinity_of
from replicator.engines.sqlite.capture import Capture
from replicator.engines.sqlite.lane import Lane, rowid_of
from replicator.engines.sqlite.names import trigger_name
from replicator.model import LinkName, TableName, TableShape
from replicator.sqlfiles import literal, quote, render, statement

_SQL = "sql/sqlite/versions.sql"


@dataclass(frozen=True, slots=True)
class CentralRelation:
    """A table captured at this centre."""

    id: int
    table: str
    key: tuple[str, ...]
    versioned: bool
    divided: bool = False
    """Whether its rows, or rows that follow them, are divided among the sites."""


def read_relations(connection: sqlite3.Connection, topology: str) -> dict[str, CentralRelation]:
    """What is captured here for a topology, by lower-case table name."""
    rows = connection.execute(statement(_SQL, "central_relations"), (topology,)).fetchall()
    dividing = {str(name) for (name,) in connection.execute(statement(_SQL, "dividing_triggers"))}
    found = (
        CentralRelation(
            int(n), str(name), tuple(json.loads(key)), bool(keeps), trigger_name(topology, str(name), "ar") in dividing
        )
        for n, name, key, keeps in rows
    )
    return {relation.table.lower(): relation for relation in found}


def fold_local(
    connection: sqlite3.Connection, relations: Mapping[str, CentralRelation], shapes: Mapping[TableName, TableShape]
) -> None:
    """Bring what applications here wrote into the ledger. Under the write lock, before anything is applied."""
    if not any(relation.versioned for relation in relations.values()):
        return
    upto, top = connection.execute(statement(_SQL, "versioned_upto")).fetchone()
    if top is None or top <= upto:
        return
    touched = {int(number) for (number,) in connection.execute(statement(_SQL, "touched_relations"), (upto,))}
    tables = {shape.name.name.lower(): shape for shape in shapes.values()}
    for relation in relations.values():
        shape = tables.get(relation.table.lower())
        if relation.id in touched and shape is not None:
            connection.execute(_fold(relation, shape), (upto, relation.id, str(shape.name)))
    connection.execute(statement(_SQL, "set_versioned_upto"))


def _fold(relation: CentralRelation, shape: TableShape) -> str:
    capture = Capture("", relation.id, shape, relation.key)
    same = []
    for place, name in enumerate(relation.key):
        column, noted = f"t.{quote(name)}", f"c.replicator_k{place}"
        exact = f" and ({column} collate binary) is {noted} and typeof({column}) = typeof({noted})"
        same.append(f"{column} = {noted}" + (exact if capture.loose(name) else ""))
    places = range(len(relation.key))
    rowid = rowid_of(shape)
    fragments = {
        "noted": ", ".join(f"c.replicator_k{place}" for place in places),
        "places": ", ".join(f"k{place} as replicator_k{place}" for place in places),
        "distinct": ", ".join(f"k{place}, typeof(k{place})" for place in places),
        "same_key": " and ".join(same),
        "found": f"t.{rowid if rowid else quote(relation.key[0])} is not null",
    }
    return render(statement(_SQL, "fold_local"), identifiers={"table": shape.name.name}, fragments=fragments)


def tag_tail(connection: sqlite3.Connection, top: int, origin: str | None) -> None:
    """What capture noted behind ``top`` was written by ``origin`` (None: by nobody in particular), and has its version."""
    if origin is not None:
        connection.execute(statement(_SQL, "tag_own_tail"), (origin, top))
    connection.execute(statement(_SQL, "set_versioned_upto"))


def return_strays(connection: sqlite3.Connection, top: int, width: int, link: LinkName) -> None:
    """Have a site look at rows it wrote that are not its own: nobody else would tell it what becomes of them.

    Behind ``top``, before they are tagged; ``width``: the key places in use. A site whose routes are not known yet looks at
    all of its rows.
    """
    (routes,) = connection.execute(statement(_SQL, "read_routes"), (link.reverse.text,)).fetchone()
    places = ", ".join(f"k{place}" for place in range(width))
    sql = render(statement(_SQL, "return_strays"), fragments={"places": places, "hybrid_time": hybrid_time()})
    connection.execute(sql, (top, routes, route_to(link)))


def mark(connection: sqlite3.Connection, position: str, link: LinkName) -> None:
    """Leave the marker of a batch: the site's changes up to ``position`` are processed."""
    connection.execute(statement(_SQL, "keep_for"), (link.reverse.text, link.topology))
    sql = render(statement(_SQL, "mark"), fragments={"hybrid_time": hybrid_time()})
    connection.execute(sql, (position, route_to(link)))


def route_to(link: LinkName) -> str:
    """The route that concerns a link's site alone."""
    return f"@{link.topology}/{link.site}"


def hybrid_time() -> str:
    """The expression that stamps a row of the outbox."""
    return f"({statement('triggers/sqlite/fragments.sql', 'hybrid_time')}\n)"


@dataclass(frozen=True)
class CentralLane:
    """A lane's statements about what the centre knows and captures of its table.

    Args:
        lane: the lane.
        relation: how the centre captures the lane's table; None when it does not.
    """

    lane: Lane
    relation: CentralRelation | None

    @cached_property
    def key_values(self) -> tuple[str, ...]:
        """The whole key of a net row (n) as the captured relation has it."""
        plan, targets = self.lane.plan, self.lane.targets
        values = {name: f"n.k{i}" for i, name in enumerate(targets[place] for place in self.lane.key_places)}
        values |= {name: self._constant(name, value) for name, value in plan.constants}
        return tuple(values[name] for name in (self.relation.key if self.relation else plan.target_key))

    def _constant(self, name: str, value: str) -> str:
        kind = affinity_of(self.lane.shape.column(name).type)
        return literal(value) if kind in (Affinity.TEXT, Affinity.BLOB) else f"cast({literal(value)} as {kind})"

    @cached_property
    def version_key(self) -> str:
        """The key text of a net row in the ledger's rows of link 0."""
        simple = not self.lane.plan.constants and (
            self.relation is None or self.relation.key == self.lane.plan.target_key
        )
        return f"n.{quote('key')}" if simple else f"replicator_row_key({', '.join(self.key_values)})"

    @cached_property
    def write_versions(self) -> str:
        """Parameters: table, relation, verdicts, origin."""
        return render(statement(_SQL, "write_versions"), fragments={"version_key": self.version_key})

    @cached_property
    def mark_in_flight(self) -> str:
        """Parameters: relation, the captured relation, seen, the outbox's end, the site's origin, the route to it."""
        places = ", ".join(f"k{place}" for place in range(len(self.key_values)))
        fragments = {"version_key": self.version_key, "places": places}
        return render(statement(_SQL, "mark_in_flight"), fragments=fragments)

    @cached_property
    def correct(self) -> str:
        """Parameters: the captured relation, route, relation."""
        return render(statement(_SQL, "correct"), fragments=self._places | {"key": ", ".join(self.key_values)})

    @cached_property
    def correct_there(self) -> str:
        """Parameters: the captured relation, route, relation, whether rows are divided among the sites."""
        return render(statement(_SQL, "correct_there"), fragments=self._places | {"key": ", ".join(self.key_values)})

    @cached_property
    def correct_row(self) -> str:
        """Parameters: the captured relation, route, key values."""
        values = ", ".join(f"?{place + 3}" for place in range(len(self.key_values)))
        return render(statement(_SQL, "correct_row"), fragments=self._places | {"values": values})

    @property
    def _places(self) -> dict[str, str]:
        places = ", ".join(f"k{place}" for place in range(len(self.key_values)))
        return {"places": places, "hybrid_time": hybrid_time()}

    def whole_key(self, key: Sequence[object]) -> tuple[object, ...]:
        """Key values as a key text has them (constants, then key), in the order of the captured relation."""
        named = dict(zip(self.lane.plan.target_key, key, strict=True))
        return tuple(named[name] for name in (self.relation.key if self.relation else self.lane.plan.target_key))
