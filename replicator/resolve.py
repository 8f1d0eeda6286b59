"""A table rule of the YAML meets a table of one site: which columns, which key, which name at the centre. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from replicator import filters, routes, types
from replicator.errors import SettingsError, SetupError
from replicator.model import ColumnPlan, ColumnShape, Engine, RowFilter, TableName, TableShape
from replicator.settings import Settings, TableRule, require_param
from replicator.shapes import Feed, derive_site_shape

SITE = "site"
"""The word of ``keyed_by`` that stands for the site's name."""
_LISTED = 12


@dataclass(frozen=True, slots=True)
class Resolve:
    """One rule meets one table of one site.

    Args:
        place: the rule's place in ``tables``.
        shape: the table as the site has it; ``engine`` is the site's, ``centre`` the centre's.
        used: takes (rule, word) for every column word of the YAML that met a column.
    """

    settings: Settings
    place: int
    site: str
    engine: Engine
    shape: TableShape
    centre: Engine
    used: set[tuple[int, str]]

    @property
    def rule(self) -> TableRule:
        """The rule."""
        return self.settings.tables[self.place]

    def feed(self) -> Feed:
        """What goes from the table to the centre. Raises SettingsError at the rule's line."""
        columns = tuple(column for column in self.shape.columns if self._captured(column))
        key = self._key()
        for name in key:
            if name not in {column.name for column in columns}:
                generated = self.shape.column(name).generated
                raise self._error(
                    f"key column {name!r} " + ("is generated" if generated else "is left out"),
                    "columns",
                    "name another key" if generated else "key columns cannot be excluded",
                )
        names = {
            column.name: self._word("rename", self.rule.columns.rename, column.name) or column.name
            for column in columns
        }
        constants = self._constants(names)
        self._check_names(names)
        asked = {names[c.name]: self._word("types", self.rule.columns.types, c.name) for c in columns}
        return Feed(
            site=self.site,
            engine=self.engine,
            rule=self.place,
            source=self.shape,
            target=self._target(),
            columns=columns,
            names=names,
            key=key,
            constants=constants,
            types={name: kind for name, kind in asked.items() if kind},
            where=self._where(),
        )

    @property
    def target(self) -> TableName:
        """The table's name at the centre."""
        return self._target()

    def _captured(self, column: ColumnShape) -> bool:
        wanted = self._meets("include", self.rule.columns.include, column.name)
        unwanted = self._meets("exclude", self.rule.columns.exclude, column.name)
        return wanted and not unwanted and not column.generated

    def takes(self, column: str) -> bool:
        """Whether the rule's ``include`` and ``exclude`` let a column go."""
        return self._captured(self.shape.column(column))

    def _meets(self, where: str, patterns: Sequence[str], column: str) -> bool:
        met = [pattern for pattern in patterns if same_name(pattern, column, self.engine, glob=True)]
        self.used.update((self.place, f"{where} {pattern}") for pattern in met)
        return bool(met)

    def _word(self, where: str, words: Mapping[str, str], column: str) -> str:
        found = next((word for word in words if same_name(word, column, self.engine)), None)
        if found is None:
            return ""
        self.used.add((self.place, f"{where} {found}"))
        return words[found]

    def _key(self) -> tuple[str, ...]:
        if self.shape.key and (not self.rule.key or self.rule.is_glob):
            return self.shape.key
        found = [
            next((c.name for c in self.shape.columns if same_name(name, c.name, self.engine)), "")
            for name in self.rule.key
        ]
        if self.shape.key:
            if set(found) == set(self.shape.key):
                return self.shape.key
            raise self._error(
                f"has the primary key ({listed(self.shape.key)})",
                "key",
                "leave key out: it is for tables without a primary key",
            )
        usable = [
            unique.columns
            for unique in self.shape.uniques
            if unique.exact
            and unique.columns
            and not unique.predicate
            and not unique.deferrable
            and all(self.shape.column(name).not_null for name in unique.columns)
        ]
        match = next((unique for unique in usable if set(unique) == set(found)), None)
        if match is not None:
            return match
        offer = (
            f"key: [{listed(usable[0])}] would do"
            if usable
            else "add a primary key, or a unique index over NOT NULL columns"
        )
        if not self.rule.key:
            raise self._error("has no primary key, so its rows cannot be told apart", "", offer)
        if "" in found:
            raise self._error(f"has no column {self.rule.key[found.index('')]!r}", "key", offer)
        raise self._error(f"has no unique index over exactly ({listed(found)}) with all columns NOT NULL", "key", offer)

    def _constants(self, names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        params = {SITE: self.site, **self.settings.sites[self.site].params}
        folded = {name.lower() for name in names.values()}
        taken = next((name for name in self.rule.keyed_by if name.lower() in folded), "")
        if taken:
            message = f"has a column that is called {taken!r} at the centre, like the one keyed_by adds"
            raise self._error(message, "keyed_by", f"rename it: columns: {{rename: {{{taken}: {taken}_name}}}}")
        return tuple((name, params[name]) for name in self.rule.keyed_by)

    def _check_names(self, names: Mapping[str, str]) -> None:
        seen: dict[str, str] = {}
        for source, target in names.items():
            folded = target.lower() if self.centre is Engine.SQLITE else target
            if seen.setdefault(folded, source) != source:
                raise self._error(
                    f"columns {seen[folded]!r} and {source!r} both go to {target!r}", "columns.rename", ""
                )
            if self.centre is Engine.POSTGRES and len(target.encode()) > 63:
                raise self._error(
                    f"column {source!r}: its name has more than PostgreSQL's 63 bytes", "columns.rename", "rename it"
                )

    def _target(self) -> TableName:
        name, asked = self.shape.name, self.rule.target
        if self.centre is Engine.SQLITE:
            plain = name.name if name.schema in ("", "public") else f"{name.schema}_{name.name}"
            return TableName("", asked or plain)
        schema, _, table = asked.rpartition(".")
        found = TableName(schema or "public", table) if asked else TableName(name.schema or "public", name.name)
        if len(found.name.encode()) > 63:
            raise self._error("its name has more than PostgreSQL's 63 bytes", "target", "give a shorter target")
        return found

    def _where(self) -> RowFilter | None:
        if not self.rule.where or not self.settings.direction_of(self.rule).rises or self._divides():
            return None
        families = {column.name: types.family(self.engine, column.type) for column in self.shape.columns}
        try:
            row_filter = parse_filter(self.settings, self.place, self.rule, families)
            if self.engine is Engine.SQLITE:
                filters.require_sqlite(row_filter)
        except SettingsError:
            raise
        except SetupError as error:
            raise self._error(error.message, "where", error.hint) from None
        return row_filter

    def _divides(self) -> bool:
        """Whether the row filter has parameters: then it says what the site gets, not what it sends."""
        return bool(routes.parameters(self.rule.where))

    def _error(self, message: str, key: str, hint: str) -> SettingsError:
        where = f"tables.{self.place}.{key}" if key else f"tables.{self.place}"
        return self.settings.error(f"site {self.site}, table {self.shape.name}: {message}", key=where, hint=hint)


def absent_shape(
    settings: Settings,
    place: int,
    site: str,
    engine: Engine,
    shape: TableShape,
    centre: Engine,
    used: set[tuple[int, str]],
) -> TableShape:
    """The table a rule that names one table would have at a site that lacks it, after the centre's ``shape``.

    Without the columns of ``keyed_by``, those the rule excludes, and those the centre computes.
    """
    rule = settings.tables[place]
    name = site_name(rule.name, engine)
    back = {new: old for old, new in rule.columns.rename.items()}
    names = {
        column.name: next((old for new, old in back.items() if same_name(new, column.name, centre)), column.name)
        for column in shape.columns
        if not any(same_name(word, column.name, centre) for word in rule.keyed_by)
    }
    bare = TableShape(name, tuple(ColumnShape(found, "") for found in names.values()))
    probe = Resolve(settings, place, site, engine, bare, centre, used)
    kept = {
        old: new
        for old, new in names.items()
        if probe.takes(new) and (not shape.column(old).generated or not settings.direction_of(rule).rises)
    }
    return derive_site_shape(shape, name, kept, centre, engine)


def site_name(written: str, engine: Engine) -> TableName:
    """The table of a site that a rule's plain name means."""
    if engine is Engine.SQLITE:
        return TableName("", written)
    schema, _, table = written.rpartition(".")
    return TableName(schema or "public", table)


def check_words(settings: Settings, used: set[tuple[int, str]], met: Collection[str]) -> None:
    """Every rule must have met a table (``met`` are those there are), every column word a column."""
    for place, rule in enumerate(settings.tables):
        if (place, "") not in used:
            nobody = "neither a site nor the centre has" if settings.direction_of(rule).falls else "no site has"
            raise settings.error(
                f"{nobody} a table {rule.name!r} that no earlier rule takes",
                key=f"tables.{place}.name",
                hint=suggest(rule.name, sorted(met)) or _tables(met),
            )
        words = {
            "include": rule.columns.include,
            "exclude": rule.columns.exclude,
            "rename": tuple(rule.columns.rename),
            "types": tuple(rule.columns.types),
        }
        for where, patterns in words.items():
            for pattern in patterns:
                if (place, f"{where} {pattern}") not in used:
                    key = f"tables.{place}.columns.{where}"
                    raise settings.error(f"no table of this rule has a column {pattern!r}", key=key)


def _tables(names: Collection[str]) -> str:
    first = sorted(names)[:_LISTED]
    if not first:
        return "the sites have no tables at all: are these the right databases?"
    return f"the sites have: {listed(first)}{', …' if len(names) > _LISTED else ''}"


def suggest(word: str, known: Sequence[str]) -> str:
    """What a misspelt word may have meant, as a sentence."""
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {close[0]}?" if close else ""


def matches(pattern: str, name: TableName, engine: Engine) -> bool:
    """Whether a rule's name means a table: ``schema.table`` with a dot, else a table of ``public`` (or of SQLite)."""
    spellings = [name.name] if name.schema in ("", "public") else []
    if "." in pattern and name.schema:
        spellings.append(f"{name.schema}.{name.name}")
    return any(same_name(pattern, spelling, engine, glob=True) for spelling in spellings)


def parse_filter(settings: Settings, place: int, rule: TableRule, columns: Mapping[str, str] | None) -> RowFilter:
    """A rule's row filter for columns of these families; None before the table is known (errors then name the line).

    Before the table is known, parameters of the sites are checked too, and any value stands for them.
    """
    if columns is not None:
        return filters.parse_expression(rule.where, columns)
    key = f"tables.{place}.where"
    try:
        words = routes.parameters(rule.where)
        filled = routes.fill(rule.where, dict.fromkeys(words, "0"))
        parsed = filters.parse_expression(filled, None, written=rule.where)
    except SetupError as error:
        raise settings.error(error.message, key=key, hint=error.hint) from None
    if words and not settings.direction_of(rule).falls:
        message = ":site. divides the centre's rows among the sites, and this table only goes to the centre"
        raise settings.error(message, key=key, hint="set direction: both or from_centre, or write a value")
    for word in words if settings.params_known else ():
        if word != routes.NAME:
            require_param(settings, word, key, f"use :site.{routes.NAME}")
    return parsed


def same_name(word: str, name: str, engine: Engine, *, glob: bool = False) -> bool:
    """Whether a word of the YAML means a name; SQLite's names know no case."""
    if engine is Engine.SQLITE:
        word, name = word.lower(), name.lower()
    return word == name or (glob and fnmatchcase(name, word))


def find_column(shape: TableShape, name: str, engine: Engine) -> ColumnShape | None:
    """The column a name means; SQLite's names know no case."""
    return next((column for column in shape.columns if same_name(name, column.name, engine)), None)


def column_plan(engine: Engine, column: ColumnShape, target_engine: Engine, found: ColumnShape) -> ColumnPlan:
    """How the values of a column get into a column of the other side."""
    staging = fits = ""
    if engine is target_engine is Engine.POSTGRES and types.may_lose(column.type, found.type):
        staging = types.staging_type(column.type, found.type)
    if engine is Engine.SQLITE:
        fits = types.fits_form(column.type, found.type, target_engine)
        staging = types.widest(found.type) if target_engine is Engine.POSTGRES else ""
    form = types.canonical_form(engine, column.type, target_engine, found.type)
    return ColumnPlan(column.name, column.type, found.name, found.type, staging, fits, form)


def listed(names: Sequence[str]) -> str:
    """Names as people read them in a message."""
    return ", ".join(names)
