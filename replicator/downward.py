"""What comes down: links from the centre as the reversal of those to it, and how rows are divided among sites. Pure.

The centre's rows are the same for all; a site gets those its rule's condition, its key constants (``keyed_by``) or the
parents they follow give it. Column names of the YAML are the site's, or the centre's where the site has no such column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from replicator import filters, routes, sqlfiles, types
from replicator.errors import SettingsError, SetupError
from replicator.holding import column_or_held, held_descent, table_or_held
from replicator.model import (
    CentralTable,
    ColumnPlan,
    ColumnShape,
    Direction,
    Engine,
    ForeignKeyShape,
    HeldColumn,
    PolicyPlan,
    Route,
    RouteStep,
    RowFilter,
    TableName,
    TablePlan,
    TableShape,
)
from replicator.resolve import column_plan, find_column, listed, matches, same_name
from replicator.settings import Settings, require_param
from replicator.shapes import Feed


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a centre table that one site gets.

    ``conditions`` are over the columns of the table at the end of the route, as text of a row filter.
    """

    route: Route
    params: tuple[str, ...]
    conditions: tuple[str, ...]
    names: Mapping[str, str]
    """What the conditions call columns → their names at the centre."""
    end: TableName
    own: RowFilter | None
    """The rule's own condition: on the table itself without the key's constants, which are the plan's own."""
    whole: RowFilter | None
    """All conditions as one, once it is known."""
    plain: bool
    """Whether the route's columns say all: nothing but them decides which site gets a row."""

    @property
    def routed(self) -> bool:
        """Whether it is less than the whole table."""
        return bool(self.conditions)


@dataclass(slots=True)
class Descent:
    """All feeds of a topology turned round.

    Args:
        feeds: the tables the rules matched, in both directions.
        shapes: the centre's tables that they meet.
        lenient: hold what does not fit, instead of raising (see topology.compile_site).
    """

    settings: Settings
    centre: Engine
    feeds: Sequence[Feed]
    shapes: Mapping[TableName, TableShape]
    lenient: bool = False
    _routes: dict[TableName, tuple[Route, Feed]] = field(default_factory=dict)
    _shares: dict[tuple[str, TableName], Share] = field(default_factory=dict)
    _of_site: dict[str, list[Feed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for feed in self.feeds:
            self._of_site.setdefault(feed.site, []).append(feed)

    def plan_or_hold(self, feed: Feed, policy: PolicyPlan) -> TablePlan:
        """As ``plan``; a table that does not fit is held where that is wanted."""
        direction = self.settings.direction_of(self.settings.tables[feed.rule])
        held = partial(held_descent, feed, self.shapes[feed.target], self.centre, direction)
        return table_or_held(lambda: self.plan(feed, policy), held, lenient=self.lenient)

    def plan(self, feed: Feed, policy: PolicyPlan) -> TablePlan:
        """The table's plan on the link from the centre. Raises SettingsError at the rule's line, SetupError."""
        shape, rule = self.shapes[feed.target], self.settings.tables[feed.rule]
        order = {column.name: place for place, column in enumerate(shape.columns)}
        plan = partial(self._column, feed, shape)
        met = [column_or_held(plan, feed, each, shape, self.centre, lenient=self.lenient) for each in feed.columns]
        columns = tuple(
            sorted((each for each in met if isinstance(each, ColumnPlan)), key=lambda each: order[each.source])
        )
        self._check_site(feed, {column.target for column in columns})
        share = self._share(feed, ())
        constants = tuple((self._spelled(feed, name).name, value) for name, value in feed.constants)
        self._agree(feed, share.route)
        return TablePlan(
            source=shape,
            target=feed.source.name,
            columns=columns,
            key=tuple(self._spelled(feed, feed.names[name]).name for name in feed.key),
            source_engine=self.centre,
            target_engine=feed.engine,
            target_shape=feed.source,
            where=share.own,
            policy=policy,
            direction=self.settings.direction_of(rule),
            route=share.route,
            params=share.params,
            source_constants=constants,
            held=tuple(each for each in met if isinstance(each, HeldColumn)),
        )

    def central(self, upward: Sequence[TablePlan], downward: Sequence[TablePlan]) -> tuple[CentralTable, ...]:
        """What the centre captures: tables some site gets, those whose last writer is kept, and parents on the way."""
        sent = {plan.source.name for plan in downward}
        versioned = {plan.target_shape.name for plan in upward if plan.versioned}
        parents = {step.parent for plan in downward for step in plan.route.path}
        routes = {plan.source.name: plan.route for plan in downward}
        lacking = {feed.target for feed in self.feeds if self.lenient and self._lacks(feed, feed.target_key)}
        keys = {self.shapes[each.target].name: self._key(each) for each in self.feeds if each.target not in lacking}
        return tuple(
            CentralTable(
                shape,
                keys[shape.name],
                routes.get(shape.name, Route()),
                sent=shape.name in sent,
                versioned=shape.name in versioned,
            )
            for shape in self.shapes.values()
            if shape.name in (sent | versioned | parents) & keys.keys()
        )

    def _lacks(self, feed: Feed, names: Sequence[str]) -> bool:
        return any(find_column(self.shapes[feed.target], name, self.centre) is None for name in names)

    def _key(self, feed: Feed) -> tuple[str, ...]:
        return tuple(self._spelled(feed, name).name for name in feed.target_key)

    def _spelled(self, feed: Feed, name: str) -> ColumnShape:
        found = find_column(self.shapes[feed.target], name, self.centre)
        if found is None:
            raise SetupError(
                f"{feed}: {self.shapes[feed.target].name} at the centre has no column {name!r}",
                hint="add the column there, or exclude or rename it here",
            )
        return found

    def _column(self, feed: Feed, shape: TableShape, column: ColumnShape) -> ColumnPlan:
        found = self._spelled(feed, feed.names[column.name])
        problem = types.incompatible(self.centre, found.type, feed.engine, column.type)
        if problem:
            raise SetupError(
                f"{feed}, column {column.name!r} ({column.type}): {problem} on the way back from the centre "
                f"(column {found.name!r} of {shape.name}, {found.type})",
                hint="change one of the two types, or exclude the column",
            )
        return column_plan(self.centre, found, feed.engine, column)

    def _check_site(self, feed: Feed, fed: set[str]) -> None:
        late = {unique.columns for unique in feed.source.uniques if unique.deferrable}
        ready = {unique.columns for unique in feed.source.uniques if not unique.deferrable}
        if feed.key in late - ready:
            raise SetupError(
                f"{feed}: the key ({listed(feed.key)}) is checked at the end of a transaction only",
                hint="make it a key that is not deferrable: rows that come from the centre are matched by it",
            )
        for column in feed.source.columns:
            filled = column.default or column.generated or column.identity_always or not column.not_null
            if not filled and column.name not in fed:
                raise SetupError(
                    f"{feed}: column {column.name!r} is NOT NULL at the site, and the centre sends no such column",
                    hint="give it a default there, or let the column go as well",
                )

    # --- which rows ---

    def _share(self, feed: Feed, below: tuple[TableName, ...]) -> Share:
        known = self._shares.get((feed.site, feed.target))
        if known is None:
            known = self._shares[feed.site, feed.target] = self._divide(feed, below)
        return known

    def _divide(self, feed: Feed, below: tuple[TableName, ...]) -> Share:
        rule = self.settings.tables[feed.rule]
        if rule.follows is not None:
            return self._followed(feed, (*below, feed.target))
        shape = self.shapes[feed.target]
        names = self._names(feed, shape)
        names |= {name: self._spelled(feed, name).name for name, _ in feed.constants}
        columns = {self._spelled(feed, name).name: value for name, value in feed.constants}
        conditions = [f"{sqlfiles.quote(name)} = {sqlfiles.literal(value)}" for name, value in columns.items()]
        plain, own = True, None
        if rule.where:
            words = self._parameters(feed)
            condition = f"({routes.fill(rule.where, words)})"
            conditions.append(condition)
            own = self._parse(feed, [condition], names, shape)
            # Only what parsed as a whole is looked at more closely.
            equal, plain = routes.equalities(rule.where)
            columns |= {self._named(names, word): words[parameter] for word, parameter in equal.items()}
        routed = {name: value for name, value in columns.items() if self._can_route(shape.column(name))}
        params = tuple(self._spell(feed, shape.column(name), value) for name, value in routed.items())
        plain = plain and len(routed) == len(columns)
        return Share(
            Route(tuple(routed)),
            params,
            tuple(conditions),
            names,
            feed.target,
            own,
            None if feed.constants else own,
            plain,
        )

    def _parameters(self, feed: Feed) -> dict[str, str]:
        """This site's values of the parameters its rule's row filter names."""
        rule, site = self.settings.tables[feed.rule], self.settings.sites[feed.site]
        known = {**site.params, routes.NAME: feed.site}
        try:
            words = routes.parameters(rule.where)
        except SetupError as error:
            raise self._error(feed, error.message, "where", error.hint) from None
        for word in words:
            if word not in known:
                require_param(self.settings, word, f"tables.{feed.rule}.where", f"use :site.{routes.NAME}")
        return {word: known[word] for word in words}

    def _names(self, feed: Feed, shape: TableShape) -> dict[str, str]:
        """What a condition may call the centre's columns → their names there.

        A condition with parameters is about the centre's rows, so the centre's names go first; else the site's.
        """
        own = {column.name: column.name for column in shape.columns}
        found = {source: find_column(shape, name, self.centre) for source, name in feed.names.items()}
        theirs = {source: column.name for source, column in found.items() if column is not None}
        return theirs | own if self._parameters(feed) else own | theirs

    def _named(self, names: Mapping[str, str], word: str) -> str:
        if word in names:
            return names[word]
        return next(found for name, found in names.items() if name.lower() == word.lower())

    def _can_route(self, column: ColumnShape) -> bool:
        return routes.can_route(self.centre, column, types.family(self.centre, column.type))

    def _spell(self, feed: Feed, column: ColumnShape, value: str) -> str:
        family = types.family(self.centre, column.type)
        try:
            return routes.spell(family, value)
        except ValueError:
            message = f"{value!r} is no value for {column.name} ({column.type} at the centre)"
            raise self._error(feed, message, "", f"correct the parameters of site {feed.site}") from None

    def _parse(self, feed: Feed, conditions: Sequence[str], names: Mapping[str, str], shape: TableShape) -> RowFilter:
        families = {name: types.family(self.centre, shape.column(column).type) for name, column in names.items()}
        written = self.settings.tables[feed.rule].where
        try:
            parsed = routes.rename(filters.parse_expression(" and ".join(conditions), families, written=written), names)
            if self.centre is Engine.SQLITE:
                filters.require_sqlite(parsed)
        except SettingsError:
            raise
        except SetupError as error:
            raise self._error(feed, error.message, "where", error.hint) from None
        return parsed

    # --- parents ---

    def _followed(self, feed: Feed, path: tuple[TableName, ...]) -> Share:
        rule = self.settings.tables[feed.rule]
        assert rule.follows is not None
        parent = self._parent(feed, rule.follows.table)
        if parent.target in path:
            circle = " → ".join(str(name) for name in (*path, parent.target))
            raise self._error(feed, f"follows itself: {circle}", "follows", "let one of them have a row filter")
        above = self._share(parent, path)
        if not above.routed:
            message = f"follows {rule.follows.table}, of which every site gets every row"
            hint = f"give the rule of {rule.follows.table} a where with :site.…, or leave follows out"
            raise self._error(feed, message, "follows", hint)
        if not above.plain and self.centre is Engine.SQLITE:
            message = f"follows {parent.target}, whose rows are not divided by its columns alone"
            hint = (
                f"let the where of {parent.target} be column = :site.parameter, joined by and, on whole numbers or text"
            )
            raise self._error(feed, message, "follows", hint)
        read = above.whole or self._parse(feed, above.conditions, above.names, self.shapes[above.end])
        watched = tuple(name for name in routes.columns_read(read) if name not in above.route.columns)
        route = Route(above.route.columns, (self._step(feed, parent), *above.route.path), watched)
        return Share(route, above.params, above.conditions, above.names, above.end, read, read, plain=True)

    def _parent(self, feed: Feed, word: str) -> Feed:
        here = self._of_site[feed.site]
        found = next(
            (
                other
                for other in here
                if self.settings.direction_of(self.settings.tables[other.rule]).falls
                and (matches(word, other.source.name, other.engine) or matches(word, other.target, self.centre))
            ),
            None,
        )
        if found is None:
            hint = f"name a table of this topology with direction {Direction.BOTH} or {Direction.FROM_CENTRE}"
            raise self._error(
                feed, f"follows {word!r}, which does not come from the centre", "follows",
                f"{hint}; site {feed.site} has: {listed(sorted(str(other.source.name) for other in here))}",
            )  # fmt: skip
        return found

    def _step(self, feed: Feed, parent: Feed) -> RouteStep:
        """The way from a row to the row it follows."""
        follows = self.settings.tables[feed.rule].follows
        above = self.shapes[parent.target]
        keys = self._foreign_keys(feed, parent)
        if follows is None or not follows.via:
            if len(keys) == 1:
                ((columns, referred),) = keys.items()
                return RouteStep(columns, above.name, referred)
            several = " and ".join(f"({listed(columns)})" for columns in keys)
            problem = f"several foreign keys to {above.name}: {several}" if keys else f"no foreign key to {above.name}"
            hint = f"say which columns lead there: follows: {{table: {follows and follows.table}, via: [column]}}"
            raise self._error(feed, f"has {problem}", "follows", hint)
        via = self._via(feed, follows.via)
        constants = tuple(name for name, _ in feed.constants if feed.constants == parent.constants)
        wanted = {frozenset(via), frozenset((*constants, *via))}
        match = next((columns for columns in keys if frozenset(columns) in wanted), None)
        if match is not None:
            return RouteStep(match, above.name, keys[match])
        key = self._key(parent)
        fitting = [each for each in (via, (*constants, *via)) if len(each) == len(key)]
        if not fitting:
            message = f"({listed(via)}) cannot refer to {above.name}, whose key is ({listed(key)})"
            raise self._error(feed, message, "follows", "name as many columns as that key has, in its order")
        return RouteStep(fitting[0], above.name, key)

    def _via(self, feed: Feed, words: Sequence[str]) -> tuple[str, ...]:
        names = self._names(feed, self.shapes[feed.target])
        found = []
        for word in words:
            name = next((name for name in names if same_name(word, name, feed.engine)), None)
            if name is None:
                raise self._error(feed, f"has no column {word!r}", "follows", f"columns: {listed(list(names))}")
            found.append(names[name])
        return tuple(found)

    def _foreign_keys(self, feed: Feed, parent: Feed) -> dict[tuple[str, ...], tuple[str, ...]]:
        """Columns → the parent's columns, as the centre has them, else as the site has them."""
        child, above = self.shapes[feed.target], self.shapes[parent.target]
        found = {
            key.columns: key.parent_columns if all(key.parent_columns) and key.parent_columns else above.key
            for key in child.foreign_keys
            if key.parent == above.name or (self.centre is Engine.SQLITE and _same(key.parent, above.name))
        }
        return found or dict(self._site_keys(feed, parent))

    def _site_keys(self, feed: Feed, parent: Feed) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        shared = tuple(name for name, _ in feed.constants) if feed.constants == parent.constants else ()
        found = []
        for key in feed.source.foreign_keys:
            pair = self._renamed(feed, parent, key)
            if pair is not None:
                found.append((shared + pair[0], shared + pair[1]))
        return found

    def _renamed(
        self, feed: Feed, parent: Feed, key: ForeignKeyShape
    ) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        same = key.parent == parent.source.name
        if not same and not (feed.engine is Engine.SQLITE and _same(key.parent, parent.source.name)):
            return None
        named = key.parent_columns if all(key.parent_columns) else ()
        columns, referred = feed.renamed(key.columns), parent.renamed(named or parent.source.key)
        return (columns, referred) if columns and referred and len(columns) == len(referred) else None

    def _agree(self, feed: Feed, route: Route) -> None:
        """All sites must divide a table's rows the same way, for the centre writes one route per change."""
        known, first = self._routes.setdefault(feed.target, (route, feed))
        if known != route:
            raise self._error(
                feed, f"divides {feed.target} otherwise than {first} does", "",
                "give both rules the same keyed_by, the same :site conditions and the same follows",
            )  # fmt: skip

    def _error(self, feed: Feed, message: str, key: str, hint: str) -> SettingsError:
        where = f"tables.{feed.rule}.{key}" if key else f"tables.{feed.rule}"
        return self.settings.error(f"{feed}: {message}", key=where, hint=hint)


def _same(one: TableName, other: TableName) -> bool:
    return one.name.lower() == other.name.lower()
