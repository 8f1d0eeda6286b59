"""The topology as a history sees it: tables by their name at the centre, who writes them, and how a row is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replicator.model import Engine, PolicyName, TableName, TablePlan, TableShape
from replicator.settings import CENTRE
from replicator.types import family

ROWS = 6
"""Rows a table's pool of keys has."""
_PARENTS = 3
"""Parents that the rows of a table with the parent in its key are shared among."""
_LENGTH = re.compile(r"\((\d+)\)")
_TRACED_KEYS = frozenset({"int", "text", "uuid", "date"})
_STAMP_LENGTH = 8

Constants = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column at one place; ``length``: of texts and bits that have one, else 0."""

    name: str
    engine: Engine
    type: str
    family: str
    nullable: bool
    length: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """A table at one place. ``columns``: the centre's name → column, for what travels; ``extra``: what else must be filled."""

    place: str
    engine: Engine
    name: TableName
    columns: Mapping[str, Column]
    extra: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign key in the centre's names; the parent's name is that of its Table."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


@dataclass(slots=True)
class Table:
    """One replicated table. ``key`` leaves out the constants of ``keyed_by``; ``params``: site → its values of ``route``.

    ``stamp`` is the column that can hold a mark of who wrote the row, empty when there is none. ``up`` and ``down`` are the
    sites' plans.
    """

    name: str
    key: tuple[str, ...]
    route: tuple[str, ...] = ()
    stamp: str = ""
    traced: bool = False
    views: dict[str, View] = field(default_factory=dict)
    writers: set[str] = field(default_factory=set)
    foreign: tuple[Foreign, ...] = ()
    unique: tuple[str, ...] = ()
    constants: dict[str, Constants] = field(default_factory=dict)
    params: dict[str, tuple[str, ...]] = field(default_factory=dict)
    up: dict[str, TablePlan] = field(default_factory=dict)
    down: dict[str, TablePlan] = field(default_factory=dict)

    def shared_alone(self, site: str) -> bool:
        """Whether sites send rows of this table without getting any: then each keeps to keys of its own."""
        return not self.down and not self.constants and len(self.up) > 1 and site in self.up

    def pool(self, place: str) -> tuple[int, ...]:
        """The numbers of the rows a place may write."""
        if not self.shared_alone(place):
            return tuple(range(ROWS))
        sites = sorted(self.up)
        start = sites.index(place) * ROWS
        return tuple(range(start, start + ROWS))


@dataclass(frozen=True, slots=True)
class Schema:
    """All replicated tables, parents first as far as they come so."""

    tables: Mapping[str, Table]
    sites: tuple[str, ...]

    def numbers(self, table: Table, row: int, depth: int = 0) -> dict[str, int]:
        """Which value of its kind each key column of a row has: those of its parent where the key refers to one."""
        found: dict[str, int] = {}
        for key in table.foreign:
            parent = self.tables.get(key.parent)
            inside = set(key.columns) <= set(table.key)
            if parent is None or not inside or depth > 4 or set(key.parent_columns) - set(parent.key):
                continue
            alone = set(key.columns) == set(table.key)
            above = self.numbers(parent, row if alone else row % _PARENTS, depth + 1)
            for ours, theirs in zip(key.columns, key.parent_columns, strict=True):
                found.setdefault(ours, above[theirs])
        rest = row // _PARENTS if found else row
        return {column: found.get(column, rest) for column in table.key}

    def descendants(self, name: str) -> set[str]:
        """Names of the tables that refer to a table, at any depth, and its own."""
        found = {name}
        while True:
            more = {t.name for t in self.tables.values() if any(key.parent in found for key in t.foreign)} - found
            if not more:
                return found
            found |= more


def read_schema(plans: Mapping[str, tuple[Sequence[TablePlan], Sequence[TablePlan]]]) -> Schema:
    """The schema of a topology: site → its plans to the centre and from it, as App gives them (parents first)."""
    tables: dict[str, Table] = {}
    for site, (up, down) in plans.items():
        for plan in up:
            table = _table(tables, str(plan.target), plan.key_indexes, [c.target for c in plan.columns])
            table.up[site] = plan
            _add_view(table, site, plan.source, plan.source_engine, {c.target: c.source for c in plan.columns})
            _add_view(table, CENTRE, plan.target_shape, plan.target_engine, {c.target: c.target for c in plan.columns})
            table.constants |= {site: plan.constants} if plan.constants else {}
            table.writers |= {site, CENTRE} if plan.direction.falls else {site}
        for plan in down:
            table = _table(tables, str(plan.source.name), plan.key_indexes, [c.source for c in plan.columns])
            table.down[site] = plan
            _add_view(table, site, plan.target_shape, plan.target_engine, {c.source: c.target for c in plan.columns})
            _add_view(table, CENTRE, plan.source, plan.source_engine, {c.source: c.source for c in plan.columns})
            table.constants |= {site: plan.source_constants} if plan.source_constants else {}
            table.writers.add(CENTRE)
            if plan.route.columns and not plan.route.path:
                table.route = plan.route.columns
                table.params[site] = plan.params
    for table in tables.values():
        _complete(table, tables)
    return Schema(tables, tuple(plans))


def _table(tables: dict[str, Table], name: str, key: Iterable[int], columns: Sequence[str]) -> Table:
    return tables.setdefault(name, Table(name, tuple(columns[place] for place in key)))


def _add_view(table: Table, place: str, shape: TableShape, engine: Engine, names: Mapping[str, str]) -> None:
    if place in table.views:
        return
    columns = {name: _column(shape, here, engine) for name, here in names.items()}
    used = {*names.values(), *(name for name, _ in table.constants.get(place, ()))}
    extra = tuple(
        _column(shape, column.name, engine)
        for column in shape.columns
        if column.name not in used and column.not_null and not column.default and not column.generated
    )
    table.views[place] = View(place, engine, shape.name, columns, extra)


def _column(shape: TableShape, name: str, engine: Engine) -> Column:
    column = shape.column(name)
    length = _LENGTH.search(column.type)
    kind = family(engine, column.type)
    nullable = not column.not_null and name not in shape.key
    return Column(
        name, engine, column.type, kind, nullable, int(length[1]) if length and kind in ("text", "bits") else 0
    )


def _complete(table: Table, tables: Mapping[str, Table]) -> None:
    """Foreign keys, unique columns and the stamp, from the first site that sends or gets the table."""
    site, plan = next(iter((table.up or table.down).items()))
    shape = plan.source if table.up else plan.target_shape
    names = {(column.name.lower()): centre for centre, column in table.views[site].columns.items()}
    parents = {_fold(other.views[site].name): other for other in tables.values() if site in other.views}
    foreign = []
    for key in shape.foreign_keys:
        parent = parents.get(_fold(key.parent))
        if parent is None or any(column.lower() not in names for column in key.columns):
            continue
        theirs = {column.name.lower(): centre for centre, column in parent.views[site].columns.items()}
        named = key.parent_columns if key.parent_columns and all(key.parent_columns) else ()
        referred = tuple(theirs.get(column.lower(), "") for column in named) or parent.key
        foreign.append(Foreign(tuple(names[column.lower()] for column in key.columns), parent.name, referred))
    table.foreign = tuple(
        key for key in foreign if all(key.parent_columns) and len(key.columns) == len(key.parent_columns)
    )
    unique = {names[c.lower()] for u in shape.uniques for c in u.columns if c.lower() in names}
    table.unique = tuple(sorted(unique - set(table.key)))
    table.stamp = _stamp(table)
    centre = table.views[CENTRE]
    table.traced = bool(table.stamp) and all(centre.columns[column].family in _TRACED_KEYS for column in table.key)


def _stamp(table: Table) -> str:
    """A plain column that every place has, that can hold a mark, and that no counter's policy adds up."""
    plan = next(iter((table.up or table.down).values()))
    taken = {*table.key, *table.unique, *table.route, *(column for key in table.foreign for column in key.columns)}
    taken |= {column for column, policy in plan.policy.columns if policy is PolicyName.ADD}
    fitting = [
        name
        for name in table.views[CENTRE].columns
        if name not in taken
        and all(name in view.columns and _holds(view.columns[name]) for view in table.views.values())
    ]
    texts = [name for name in fitting if table.views[CENTRE].columns[name].family == "text"]
    return next(iter(reversed(texts)), fitting[-1] if fitting else "")


def _holds(column: Column) -> bool:
    return column.family == "int" or (column.family == "text" and (not column.length or column.length >= _STAMP_LENGTH))


def _fold(name: TableName) -> str:
    return name.name.lower()
