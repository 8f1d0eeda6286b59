"""Tables joined along routes, and the pieces of a centre's capture functions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from replicator import sqlfiles
from replicator.engines.postgres.capture import bare_type
from replicator.model import CentralTable, Route, RouteStep, TableName, TableShape
from replicator.sqlfiles import literal, quote, quoted

_PIECES = "triggers/postgres/central_pieces.sql"

Shapes = Mapping[TableName, TableShape]


@dataclass(frozen=True, slots=True)
class Follower:
    """A captured table whose route passes through another, ``depth`` steps up its path.

    ``orphans``: it may have rows whose followed row is not there, because no enforced foreign key rules them out.
    """

    relation: int
    table: CentralTable
    depth: int
    orphans: bool

    @property
    def steps(self) -> tuple[RouteStep, ...]:
        """The way from the follower up to the followed table."""
        return self.table.route.path[: self.depth + 1]

    @property
    def rest(self) -> Route:
        """The followed table's part of the route."""
        route = self.table.route
        return Route(route.columns, route.path[self.depth + 1 :], route.watched)

    @property
    def referred(self) -> tuple[str, ...]:
        """The followed table's columns that are referred to."""
        return self.steps[-1].parent_columns

    @property
    def decides(self) -> tuple[str, ...]:
        """The followed table's columns that decide about the follower's route."""
        return via(self.rest) + (() if self.rest.path else self.rest.watched)


def via(route: Route) -> tuple[str, ...]:
    """The columns of the table itself that decide about a route."""
    return route.path[0].columns if route.path else route.columns


def used_columns(table: CentralTable, followers: Sequence[Follower]) -> tuple[str, ...]:
    """The columns of the table that its capture function reads."""
    names = [*table.key, *via(table.route)]
    for follower in followers:
        names += [*follower.referred, *follower.decides]
    return tuple(dict.fromkeys(names))


def texts_used(table: CentralTable, followers: Sequence[Follower]) -> Iterable[tuple[TableName, str]]:
    """The columns whose text the capture function writes down: keys and routing values."""
    here = table.table.name
    yield from ((here, name) for name in table.key)
    yield from ((route_end(here, table.route), name) for name in table.route.columns)
    for follower in followers:
        yield from ((here, name) for name in follower.referred)
        yield from ((follower.table.table.name, name) for name in follower.table.key)
        yield from ((route_end(here, follower.rest), name) for name in follower.rest.columns)


def route_end(table: TableName, route: Route) -> TableName:
    """The table whose columns divide the rows."""
    return route.path[-1].parent if route.path else table


class Chain:
    """Tables joined along the steps of a route, spelled with their aliases."""

    def __init__(self, shapes: Shapes, schemas: Mapping[str, str]) -> None:
        self._shapes = shapes
        self._schemas = schemas

    def table(self, name: TableName, alias: str) -> str:
        """A table in FROM."""
        text = piece("table", {"schema": name.schema, "table": name.name}, alias=alias)
        return text.split(" from ", 1)[1]

    def tie(self, table: TableName, column: str, left: str, right: str) -> str:
        """``left`` (a column of the table) equals ``right``, by the type's own ``=``."""
        kind = self._shapes[table].column(column).type
        schema = self._schemas.get(bare_type(kind))
        if schema is None:
            return piece("tie", left=left, right=right)
        return piece("odd_tie", {"schema": schema}, left=left, right=right, type=kind)

    def joins(self, alias: str, steps: Sequence[RouteStep]) -> tuple[list[str], list[str]]:
        """The tables up a route, as p0, p1 …, and what ties them to the row behind ``alias``."""
        tables, ties, below = [], [], alias
        for place, step in enumerate(steps):
            tables.append(self.table(step.parent, f"p{place}"))
            for here, there in zip(step.columns, step.parent_columns, strict=True):
                ties.append(self.tie(step.parent, there, f"p{place}.{quote(there)}", f"{below}.{quote(here)}"))
            below = f"p{place}"
        return tables, ties

    def route(self, route: Route, alias: str) -> str:
        """The route of the row behind ``alias``, as text."""
        if not route.columns:
            return literal("")
        end = f"p{len(route.path) - 1}" if route.path else alias
        columns = quoted(route.columns, f"{end}.")
        texts = ", ".join(piece("text", value=f"{end}.{quote(name)}") for name in route.columns)
        if not route.path:
            return piece("own_route", columns=columns, texts=texts)
        tables, ties = self.joins(alias, route.path)
        fragments = {"parents": ", ".join(tables), "ties": " and ".join(ties)}
        return piece("followed_route", columns=columns, texts=texts, **fragments)


def piece(name: str, identifiers: Mapping[str, str] | None = None, /, **fragments: str) -> str:
    """A named piece of a capture function, filled, without its comments."""
    lines = sqlfiles.statement(_PIECES, name).splitlines()
    template = "\n".join(line for line in lines if not line.startswith("--"))
    return sqlfiles.render(template, identifiers=identifiers, fragments=fragments)


def written(table: TableName) -> str:
    """A table's quoted name."""
    return f"{quote(table.schema)}.{quote(table.name)}"
