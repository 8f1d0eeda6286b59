"""Compiles a topology: table rules and catalogues → what each site captures and what the centre has or gets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from replicator import types
from replicator.downward import Descent
from replicator.errors import SetupError
from replicator.holding import column_or_held, held_plan, mend_column, or_null, table_or_held
from replicator.model import (
    Catalogue,
    CentralTable,
    ColumnPlan,
    ColumnShape,
    Direction,
    Engine,
    HeldColumn,
    PolicyName,
    PolicyPlan,
    TableName,
    TablePlan,
    TableShape,
    TruncatePolicy,
)
from replicator.policy_plans import DEFAULTS, check_rule, compile_policy
from replicator.resolve import (
    SITE,
    Resolve,
    absent_shape,
    check_words,
    column_plan,
    find_column,
    listed,
    matches,
    parse_filter,
    site_name,
    suggest,
)
from replicator.settings import Settings
from replicator.shapes import (
    Feed,
    derive_foreign_keys,
    derive_shape,
    in_foreign_key_order,
    unique_columns,
)

_OURS = "replicator"
_WIDEST = 1_590
"""Before and after image, key and bookkeeping of a row stand in one table of 1,600 columns while a batch is applied."""
_TIMED = frozenset({PolicyName.NEWEST_WINS, PolicyName.SITE_PRIORITY})
"""Policies that ask who wrote the centre's row, and when."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A compiled topology.

    ``plans`` are those of the links to the centre, ``downward`` those of the links from it (by site, the site's parents
    first). ``centre_tables`` are all tables that take part at the centre, parents first; those in ``missing`` are to be
    created; the changes of those in ``central`` are captured there. ``notes`` say what was passed over and why, one
    sentence each.
    """

    plans: Mapping[str, tuple[TablePlan, ...]]
    centre_tables: tuple[TableShape, ...]
    missing: tuple[TableShape, ...]
    notes: tuple[str, ...]
    downward: Mapping[str, tuple[TablePlan, ...]] = field(default_factory=dict)
    central: tuple[CentralTable, ...] = ()


def check_expressions(settings: Settings) -> None:
    """Parse every row filter and conflict rule before any database is asked. Raises SettingsError with its line."""
    check_rule(settings, "defaults.policy", settings.defaults.policy)
    for place, rule in enumerate(settings.tables):
        if rule.where:
            parse_filter(settings, place, rule, None)
        if rule.policy is not None:
            check_rule(settings, f"tables.{place}.policy", rule.policy)


def compile_site(
    settings: Settings, site: str, catalogue: Catalogue, centre: Catalogue, *, lenient: bool = False
) -> Topology:
    """The topology as one site sees it, judged without the others: a table the centre lacks gets this site's shape.

    ``lenient``: what one side has changed and the other not yet is held (see TablePlan), and words for lost columns pass.
    """
    return _compile(settings, {site: catalogue}, centre, lenient)


def compile_topology(
    settings: Settings, sites: Mapping[str, Catalogue], centre: Catalogue, *, lenient: bool = False
) -> Topology:
    """What every site captures and what the centre has or gets.

    ``sites`` may lack sites that are away; then rules that match nothing are not judged, and tables that are not keyed
    by site count as fed by several. Raises SetupError, or SettingsError with the line where a rule is to blame.
    """
    return _compile(settings, sites, centre, lenient)


def _compile(settings: Settings, sites: Mapping[str, Catalogue], centre: Catalogue, lenient: bool) -> Topology:
    draft = _Draft(settings, centre, lenient)
    for site, catalogue in sites.items():
        draft.add_site(site, catalogue)
    complete = set(sites) == set(settings.sites) and not lenient
    shapes = draft.target_shapes()
    draft.add_absent(shapes)
    if complete:
        check_words(settings, draft.used, draft.met)
    descent = Descent(settings, centre.engine, draft.feeds, shapes, lenient)
    of_site: dict[str, list[Feed]] = {}
    for feed in draft.feeds:
        of_site.setdefault(feed.site, []).append(feed)
        draft.feeders.setdefault(feed.target, set()).add(feed.site)
    plans: dict[str, tuple[TablePlan, ...]] = {}
    downward: dict[str, tuple[TablePlan, ...]] = {}
    for site in sites:
        up, down = draft.plan_site(of_site.get(site, ()), shapes, descent, complete)
        plans[site], downward[site] = tuple(up), tuple(_in_order(down))
    if complete:
        draft.check_policies()
    ordered = in_foreign_key_order(shapes.values())
    missing = tuple(shape for shape in ordered if draft.existing(shape.name) is None)
    central = descent.central(_flat(plans), _flat(downward))
    return Topology(plans, tuple(ordered), missing, tuple(draft.notes), downward, central)


def _in_order(plans: Sequence[TablePlan]) -> list[TablePlan]:
    """Parents at the target first."""
    order = {shape.name: place for place, shape in enumerate(in_foreign_key_order(plan.target_shape for plan in plans))}
    return sorted(plans, key=lambda plan: order[plan.target])


def _flat(plans: Mapping[str, Sequence[TablePlan]]) -> list[TablePlan]:
    return [plan for found in plans.values() for plan in found]


@dataclass(slots=True)
class _Draft:
    """The topology while it is compiled."""

    settings: Settings
    centre: Catalogue
    lenient: bool = False
    feeds: list[Feed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: set[tuple[int, str]] = field(default_factory=set)
    """Rules that matched, and (rule, word) pairs for every column word that met a column."""
    met: set[str] = field(default_factory=set)
    """Names of all tables the sites have."""
    feeders: dict[TableName, set[str]] = field(default_factory=dict)
    """Target → the sites that take part in it, once all feeds are known."""
    lacking: list[tuple[str, Engine, int]] = field(default_factory=list)
    """Site, its engine, and a rule that met no table there."""

    def add_site(self, site: str, catalogue: Catalogue) -> None:
        """Resolve the rules against one site."""
        matched: set[int] = set()
        taken: dict[TableName, TableShape] = {}
        for name, shape in sorted(catalogue.tables.items()):
            if not _is_ours(name):
                self.met.add(str(name))
            place = self._find_rule(name, catalogue.engine)
            if place is None or not self._wanted(site, place, shape):
                continue
            matched.add(place)
            feed = Resolve(self.settings, place, site, catalogue.engine, shape, self.centre.engine, self.used).feed()
            if feed.target in taken:
                raise self.settings.error(
                    f"site {site}: {taken[feed.target].name} and {name} would both go to {feed.target}",
                    key=f"tables.{place}",
                    hint="give one of them another target",
                )
            taken[feed.target] = shape
            self.feeds.append(feed)
        self.used.update((place, "") for place in matched)
        missed = (place for place in range(len(self.settings.tables)) if place not in matched)
        self.lacking.extend((site, catalogue.engine, place) for place in missed)

    def _find_rule(self, name: TableName, engine: Engine) -> int | None:
        rules = enumerate(self.settings.tables)
        return next((place for place, rule in rules if matches(rule.name, name, engine)), None)

    def _wanted(self, site: str, place: int, shape: TableShape) -> bool:
        name, rule = shape.name, self.settings.tables[place]
        if _is_ours(name):
            return False
        reasons = {
            "partition": "it is a partition: its parent is captured",
            "foreign": "it is a foreign table",
            "virtual": "it is a virtual table",
        }
        if shape.kind not in reasons:
            return True
        if not rule.is_glob:
            raise self.settings.error(
                f"site {site}, table {name}: cannot be captured, {reasons[shape.kind]}",
                key=f"tables.{place}.name",
                hint="name the table that holds the rows",
            )
        self.notes.append(f"site {site}, table {name} is passed over: {reasons[shape.kind]}")
        return False

    def add_absent(self, shapes: dict[TableName, TableShape]) -> None:
        """Plan tables that come from the centre at sites that lack them: install creates them there."""
        for site, engine, place in self.lacking:
            rule = self.settings.tables[place]
            found = None
            if self.settings.direction_of(rule).falls and not rule.is_glob:
                found = self._absent(site, engine, place, shapes)
            if found is None:
                self.notes.append(f"site {site} has no table for the rule {rule.name!r}")
                continue
            self.feeds.append(found)
            self.used.add((place, ""))
            self.notes.append(f"site {site} has no table {found.source.name}: install creates it as the centre has it")

    def _absent(self, site: str, engine: Engine, place: int, shapes: dict[TableName, TableShape]) -> Feed | None:
        bare = TableShape(site_name(self.settings.tables[place].name, engine), ())
        target = Resolve(self.settings, place, site, engine, bare, self.centre.engine, self.used).target
        shape = shapes.get(target) or self.existing(target)
        if self._find_rule(bare.name, engine) != place or shape is None or not shape.key:
            return None
        if any(feed.site == site and feed.target == target for feed in self.feeds):
            return None  # the site has the table under another name
        source = absent_shape(self.settings, place, site, engine, shape, self.centre.engine, self.used)
        shapes.setdefault(target, shape)
        return Resolve(self.settings, place, site, engine, source, self.centre.engine, self.used).feed()

    def check_policies(self) -> None:
        """Every column a policy names must have met a column."""
        places = [(DEFAULTS, "defaults.policy", self.settings.defaults.policy)]
        places += [(n, f"tables.{n}.policy", rule.policy) for n, rule in enumerate(self.settings.tables) if rule.policy]
        for place, key, policy in places:
            for word in policy.columns:
                if (place, f"policy {word}") not in self.used:
                    key = f"{key}.columns.{word}"
                    raise self.settings.error(f"no table of this policy has a column {word!r}", key=key)

    def plan_site(
        self, feeds: Sequence[Feed], shapes: Mapping[TableName, TableShape], descent: Descent, complete: bool
    ) -> tuple[list[TablePlan], list[TablePlan]]:
        """The plans of one site's two links."""
        up, down = [], []
        for feed in feeds:
            direction, shape = self.settings.direction_of(self.settings.tables[feed.rule]), shapes[feed.target]
            policy = PolicyPlan(PolicyName.CENTRE_WINS)
            if direction.rises:
                policy = compile_policy(self.settings, feed, shape, self.centre.engine, self.used)
                held = partial(held_plan, feed, shape, self.centre.engine, direction)
                plan = partial(self.plan, feed, shape, policy, complete)
                up.append(table_or_held(plan, held, lenient=self.lenient))
            elif self.existing(feed.target) is not None:
                self._check_key(feed, shape, late=True)
            if direction.falls:
                down.append(descent.plan_or_hold(feed, policy))
            if direction.rises and direction.falls and not up[-1].hold:
                up[-1] = replace(up[-1], divided=down[-1].where is not None)
        return up, down

    def existing(self, name: TableName) -> TableShape | None:
        """The centre's table of that name, if it has one."""
        if self.centre.engine is Engine.POSTGRES:
            return self.centre.tables.get(name)
        return next(
            (shape for other, shape in self.centre.tables.items() if other.name.lower() == name.name.lower()), None
        )

    def target_shapes(self) -> dict[TableName, TableShape]:
        """Every target's shape: the centre's own where it has one, else what the feeds make of it."""
        groups: dict[TableName, list[Feed]] = {}
        for feed in self.feeds:
            groups.setdefault(feed.target, []).append(feed)
        self._check_names(list(groups))
        shapes: dict[TableName, TableShape] = {}
        for name, feeds in groups.items():
            found = self.existing(name)
            shapes[name] = found if found is not None else derive_shape(feeds, self.centre.engine)
        by_source = {(feed.site, _fold(feed.source.name, feed.engine)): feed for feed in self.feeds}
        engines = {feed.site: feed.engine for feed in self.feeds}

        def parent(site: str, name: TableName) -> Feed | None:
            return by_source.get((site, _fold(name, engines[site])))

        for name, feeds in groups.items():
            if self.existing(name) is None:
                keys = derive_foreign_keys(feeds, parent, shapes, self.notes.append)
                shapes[name] = replace(shapes[name], foreign_keys=keys)
        return shapes

    def _check_names(self, names: Sequence[TableName]) -> None:
        seen: dict[tuple[str, str], TableName] = {}
        for name in names:
            other = seen.setdefault((name.schema.lower(), name.name.lower()), name)
            if other != name:
                raise SetupError(
                    f"{other} and {name} at the centre differ in case only",
                    hint="send both to one table, or apart, with target: in rules of their own",
                )

    def plan(self, feed: Feed, shape: TableShape, policy: PolicyPlan, complete: bool) -> TablePlan:
        """One plan of a link to the centre; checks the centre's table where it exists."""
        rule, defaults = self.settings.tables[feed.rule], self.settings.defaults
        direction = self.settings.direction_of(rule)
        fit = partial(self._column, feed, shape)
        found = [column_or_held(fit, feed, c, shape, self.centre.engine, lenient=self.lenient) for c in feed.columns]
        columns = tuple(column for column in found if isinstance(column, ColumnPlan))
        if self.existing(feed.target) is not None:
            self._check_target(feed, shape, {column.target for column in columns})
        if self.centre.engine is Engine.POSTGRES and 2 * len(columns) + len(feed.key) > _WIDEST:
            raise SetupError(
                f"{feed}: {len(columns)} columns are more than can be compared at the centre",
                hint=f"exclude columns, so that at most {(_WIDEST - len(feed.key)) // 2} are left",
            )
        single = len(self.settings.sites) == 1 or (complete and len(self.feeders[feed.target]) == 1)
        alone = SITE in rule.keyed_by or (single and direction is not Direction.BOTH)
        truncate = rule.truncate or defaults.truncate or (TruncatePolicy.REPLICATE if alone else TruncatePolicy.PARK)
        return TablePlan(
            source=feed.source,
            target=shape.name,
            columns=columns,
            key=feed.key,
            source_engine=feed.engine,
            target_engine=self.centre.engine,
            target_shape=shape,
            constants=feed.constants,
            where=feed.where,
            policy=policy,
            truncate=truncate,
            direction=direction,
            ledgered=feed.engine is Engine.SQLITE,
            versioned=direction is Direction.BOTH or bool(policy.names & _TIMED),
            held=tuple(column for column in found if isinstance(column, HeldColumn)),
        )

    def _column(self, feed: Feed, shape: TableShape, column: ColumnShape) -> ColumnPlan:
        wanted, engine = feed.names[column.name], self.centre.engine
        found = find_column(shape, wanted, engine)
        if found is None:
            close = suggest(wanted, [other.name for other in shape.columns])
            mend = mend_column(feed, column, shape, engine)
            raise SetupError(
                f"{feed}: column {column.name!r} goes to {wanted!r}, which {shape.name} at the centre lacks",
                hint=f"add the column there, or exclude or rename it here: {mend} {close}".strip(),
            )
        if found.generated:
            raise SetupError(
                f"{feed}: column {found.name!r} of {shape.name} at the centre is generated", hint="exclude the column"
            )
        problem = types.incompatible(feed.engine, column.type, engine, found.type)
        if problem:
            raise SetupError(
                f"{feed}, column {column.name!r}: {problem} (column {found.name!r} of {shape.name})",
                hint=f"change the type at the centre, or exclude the column: {mend_column(feed, column, shape, engine)}",
            )
        return column_plan(feed.engine, column, engine, found)

    def _check_target(self, feed: Feed, shape: TableShape, fed: set[str]) -> None:
        constants = [name for name, _ in feed.constants]
        for name in constants:
            if find_column(shape, name, self.centre.engine) is None:
                raise SetupError(
                    f"{feed}: {shape.name} at the centre lacks the column {name!r} of keyed_by",
                    hint=f"add it there as text, and to its primary key: ({listed(feed.target_key)})",
                )
        folded = {name.lower() for name in (*fed, *constants)}
        for column in shape.columns:
            filled = column.default or column.generated or column.identity_always or not column.not_null
            if not filled and column.name.lower() not in folded:
                raise SetupError(
                    f"{feed}: column {column.name!r} of {shape.name} at the centre is NOT NULL, and the "
                    "site has no such column",
                    hint=f"give it a default there, or rename a column to it{or_null(shape, column, self.centre.engine)}",
                )
        self._check_key(feed, shape)

    def _check_key(self, feed: Feed, shape: TableShape, *, late: bool = False) -> None:
        """The centre's rows must be told apart by the same key; ``late``: it may be checked at a transaction's end."""
        key = {name.lower() for name in feed.target_key}
        ready = [unique for unique in unique_columns(shape) if {name.lower() for name in unique} == key]
        deferred = {unique.columns for unique in shape.uniques if unique.deferrable and not late}
        if not [unique for unique in ready if unique not in deferred]:
            raise SetupError(
                f"{feed}: {shape.name} at the centre has no unique key on ({listed(feed.target_key)})",
                hint="make these columns its primary key (not deferrable), or change keyed_by",
            )


def _fold(name: TableName, engine: Engine) -> TableName:
    return TableName(name.schema, name.name.lower()) if engine is Engine.SQLITE else name


def _is_ours(name: TableName) -> bool:
    return name.schema == _OURS or (not name.schema and name.name.lower().startswith((f"{_OURS}_", "sqlite_")))
