"""Compiles a topology: table rules and catalogues → what each site captures and what the centre has or gets. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from replicator import types
from replicator.errors import SetupError
from replicator.model import (
    Catalogue,
    ColumnPlan,
    ColumnShape,
    Engine,
    PolicyPlan,
    TableName,
    TablePlan,
    TableShape,
    TruncatePolicy,
)
from replicator.resolve import SITE, Resolve, listed, matches, parse_filter, same_name
from replicator.settings import Settings
from replicator.shapes import Feed, derive_foreign_keys, derive_shape, in_foreign_key_order, unique_columns

_OURS = "replicator"
_WIDEST = 1_590
"""Before and after image, key and bookkeeping of a row stand in one table of 1,600 columns while a batch is applied."""
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Topology:
    """A compiled topology.

    ``centre_tables`` are all target tables, parents first; those in ``missing`` are to be created. ``notes`` say what
    was passed over and why, one sentence each.
    """

    plans: Mapping[str, tuple[TablePlan, ...]]
    centre_tables: tuple[TableShape, ...]
    missing: tuple[TableShape, ...]
    notes: tuple[str, ...]


def check_expressions(settings: Settings) -> None:
    """Parse every row filter before any database is asked. Raises SettingsError with its line."""
    for place, rule in enumerate(settings.tables):
        if rule.where:
            parse_filter(settings, place, rule, None)


def compile_site(settings: Settings, site: str, catalogue: Catalogue, centre: Catalogue) -> list[TablePlan]:
    """What one site captures, judged without the others: a table the centre lacks is planned in this site's shape."""
    return list(_compile(settings, {site: catalogue}, centre).plans[site])


def compile_topology(settings: Settings, sites: Mapping[str, Catalogue], centre: Catalogue) -> Topology:
    """What every site captures and what the centre has or gets.

    ``sites`` may lack sites that are away; then rules that match nothing are not judged, and tables that are not keyed
    by site count as fed by several. Raises SetupError, or SettingsError with the line where a rule is to blame.
    """
    return _compile(settings, sites, centre)


def _compile(settings: Settings, sites: Mapping[str, Catalogue], centre: Catalogue) -> Topology:
    draft = _Draft(settings, centre)
    for site, catalogue in sites.items():
        draft.add_site(site, catalogue)
    complete = set(sites) == set(settings.sites)
    if complete:
        draft.check_rules()
    shapes = draft.target_shapes()
    plans = {site: tuple(draft.plan(feed, shapes, complete) for feed in draft.of_site(site)) for site in sites}
    ordered = in_foreign_key_order(shapes.values())
    missing = tuple(shape for shape in ordered if draft.existing(shape.name) is None)
    return Topology(plans, tuple(ordered), missing, tuple(draft.notes))


@dataclass(slots=True)
class _Draft:
    """The topology while it is compiled."""

    settings: Settings
    centre: Catalogue
    feeds: list[Feed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: set[tuple[int, str]] = field(default_factory=set)
    """Rules that matched, and (rule, word) pairs for every column word that met a column."""
    met: set[str] = field(default_factory=set)
    """Names of all tables the sites have."""

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
        for place, rule in enumerate(self.settings.tables):
            if place not in matched:
                self.notes.append(f"site {site} has no table for the rule {rule.name!r}")

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

    def check_rules(self) -> None:
        """Every rule must have met a table, every column word a column."""
        for place, rule in enumerate(self.settings.tables):
            if (place, "") not in self.used:
                raise self.settings.error(
                    f"no site has a table {rule.name!r} that no earlier rule takes",
                    key=f"tables.{place}.name",
                    hint=_suggest(rule.name, sorted(self.met)) or _listed(self.met),
                )
            words = {
                "include": rule.columns.include,
                "exclude": rule.columns.exclude,
                "rename": tuple(rule.columns.rename),
                "types": tuple(rule.columns.types),
            }
            for where, patterns in words.items():
                for pattern in patterns:
                    if (place, f"{where} {pattern}") not in self.used:
                        key = f"tables.{place}.columns.{where}"
                        raise self.settings.error(f"no table of this rule has a column {pattern!r}", key=key)

    def of_site(self, site: str) -> list[Feed]:
        """The feeds of one site, by table name."""
        return [feed for feed in self.feeds if feed.site == site]

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

    def plan(self, feed: Feed, shapes: Mapping[TableName, TableShape], complete: bool) -> TablePlan:
        """One table plan; checks the centre's table where it exists."""
        rule, defaults, shape = self.settings.tables[feed.rule], self.settings.defaults, shapes[feed.target]
        columns = tuple(self._column(feed, column, shape) for column in feed.columns)
        if self.existing(feed.target) is not None:
            self._check_target(feed, shape, {column.target for column in columns})
        if self.centre.engine is Engine.POSTGRES and 2 * len(columns) + len(feed.key) > _WIDEST:
            raise SetupError(
                f"{feed}: {len(columns)} columns are more than can be compared at the centre",
                hint=f"exclude columns, so that at most {(_WIDEST - len(feed.key)) // 2} are left",
            )
        feeders = {other.site for other in self.feeds if other.target == feed.target}
        alone = SITE in rule.keyed_by or len(self.settings.sites) == 1 or (complete and len(feeders) == 1)
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
            policy=PolicyPlan(rule.policy or defaults.policy),
            truncate=truncate,
            direction=rule.direction,
            ledgered=feed.engine is Engine.SQLITE,
        )

    def _column(self, feed: Feed, column: ColumnShape, shape: TableShape) -> ColumnPlan:
        wanted, engine = feed.names[column.name], self.centre.engine
        found = _find_column(shape, wanted, engine)
        if found is None:
            close = _suggest(wanted, [other.name for other in shape.columns])
            raise SetupError(
                f"{feed}: column {column.name!r} goes to {wanted!r}, which {shape.name} at the centre lacks",
                hint=f"add the column there, or exclude or rename it here. {close}".strip(),
            )
        if found.generated:
            raise SetupError(
                f"{feed}: column {found.name!r} of {shape.name} at the centre is generated", hint="exclude the column"
            )
        problem = types.incompatible(feed.engine, column.type, engine, found.type)
        if problem:
            raise SetupError(
                f"{feed}, column {column.name!r}: {problem} (column {found.name!r} of {shape.name})",
                hint="change the type at the centre, or exclude the column",
            )
        return _column_plan(feed.engine, column, engine, found)

    def _check_target(self, feed: Feed, shape: TableShape, fed: set[str]) -> None:
        constants = [name for name, _ in feed.constants]
        for name in constants:
            if _find_column(shape, name, self.centre.engine) is None:
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
                    hint="give it a default there, or rename a column to it",
                )
        key = {name.lower() for name in feed.target_key}
        ready = [unique for unique in unique_columns(shape) if {name.lower() for name in unique} == key]
        late = {unique.columns for unique in shape.uniques if unique.deferrable}
        if not [unique for unique in ready if unique not in late]:
            raise SetupError(
                f"{feed}: {shape.name} at the centre has no unique key on ({listed(feed.target_key)})",
                hint="make these columns its primary key (not deferrable), or change keyed_by",
            )


def _column_plan(engine: Engine, column: ColumnShape, target_engine: Engine, found: ColumnShape) -> ColumnPlan:
    staging = fits = ""
    if engine is target_engine is Engine.POSTGRES and types.may_lose(column.type, found.type):
        staging = types.staging_type(column.type, found.type)
    if engine is Engine.SQLITE:
        fits = types.fits_form(column.type, found.type, target_engine)
        staging = types.widest(found.type) if target_engine is Engine.POSTGRES else ""
    form = types.canonical_form(engine, column.type, target_engine, found.type)
    return ColumnPlan(column.name, column.type, found.name, found.type, staging, fits, form)


def _find_column(shape: TableShape, name: str, engine: Engine) -> ColumnShape | None:
    return next((column for column in shape.columns if same_name(name, column.name, engine)), None)


def _fold(name: TableName, engine: Engine) -> TableName:
    return TableName(name.schema, name.name.lower()) if engine is Engine.SQLITE else name


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {close[0]}?" if close else ""


def _is_ours(name: TableName) -> bool:
    return name.schema == _OURS or (not name.schema and name.name.lower().startswith((f"{_OURS}_", "sqlite_")))


def _listed(names: Collection[str]) -> str:
    first = sorted(names)[:_LISTED]
    if not first:
        return "the sites have no tables at all: are these the right databases?"
    return f"the sites have: {listed(first)}{', …' if len(names) > _LISTED else ''}"
