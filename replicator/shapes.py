"""Table shapes at the centre: what install creates for tables the sites have and the centre has not. Pure.

The rules: columns are the captured ones in the first site's order behind the ``keyed_by`` constants; types are mapped
(``types.centre_type``), and where sites differ a PostgreSQL site's type counts before a SQLite site's; a column is
NOT NULL, a combination unique, a foreign key there only where all sites say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from replicator.errors import SetupError
from replicator.model import ColumnShape, Engine, ForeignKeyShape, RowFilter, TableName, TableShape, UniqueShape
from replicator.types import centre_type, family, incompatible


@dataclass(frozen=True, slots=True)
class Feed:
    """One table of one site on its way to the centre: a rule resolved against the site's catalogue.

    ``columns`` are the captured columns in source order, ``names`` their names at the centre, ``types`` the types the
    rule asks for there (centre name → type). ``rule`` is the rule's place in the YAML.
    """

    site: str
    engine: Engine
    rule: int
    source: TableShape
    target: TableName
    columns: tuple[ColumnShape, ...]
    names: Mapping[str, str]
    key: tuple[str, ...]
    constants: tuple[tuple[str, str], ...]
    types: Mapping[str, str]
    where: RowFilter | None

    @property
    def target_key(self) -> tuple[str, ...]:
        """The key columns at the centre, constants first."""
        return (*(name for name, _ in self.constants), *(self.names[column] for column in self.key))

    def renamed(self, columns: Sequence[str]) -> tuple[str, ...] | None:
        """The centre's names of source columns; None when one of them is not captured."""
        found = [self.names.get(column) or self._folded(column) for column in columns]
        return tuple(name for name in found if name) if all(found) else None

    def _folded(self, column: str) -> str:
        if self.engine is not Engine.SQLITE:
            return ""
        return next((name for source, name in self.names.items() if source.lower() == column.lower()), "")

    def __str__(self) -> str:
        return f"site {self.site}, table {self.source.name}"


def derive_shape(feeds: Sequence[Feed], engine: Engine) -> TableShape:
    """The shape of a new centre table that takes all feeds; foreign keys are left to ``derive_foreign_keys``.

    Raises SetupError naming two sites and the column they do not agree on.
    """
    first = feeds[0]
    for other in feeds[1:]:
        _check_agreement(first, other)
    constants = tuple(
        ColumnShape(name, "text" if engine is Engine.POSTGRES else "TEXT", not_null=True) for name, _ in first.constants
    )
    columns = tuple(_derive_column(feeds, first.names[column.name], engine) for column in first.columns)
    shape = TableShape(first.target, constants + columns, first.target_key)
    key = UniqueShape(_constraint_name(first.target, shape.key, "pkey"), shape.key, primary=True)
    return replace(shape, uniques=(key, *_derive_uniques(feeds, shape)))


def _check_agreement(first: Feed, other: Feed) -> None:
    if [name for name, _ in first.constants] != [name for name, _ in other.constants]:
        raise SetupError(
            f"{first} and {other} both go to {first.target} but are keyed differently",
            hint="give both rules the same keyed_by",
        )
    ours, theirs = set(first.names.values()), set(other.names.values())
    for has, lacks, names in ((first, other, ours - theirs), (other, first, theirs - ours)):
        if names:
            column = min(names)
            raise SetupError(
                f"column {column!r} of {first.target}: {has} has it, {lacks} has not",
                hint=f"exclude or rename it, or create {first.target} at the centre yourself with the columns you want",
            )
    if first.target_key != other.target_key:
        keys = [f"{feed.site}: {', '.join(feed.target_key)}" for feed in (first, other)]
        raise SetupError(
            f"the sites key {first.target} differently ({'; '.join(keys)})",
            hint="rename the columns so that the keys agree",
        )


def _derive_column(feeds: Sequence[Feed], name: str, engine: Engine) -> ColumnShape:
    sources = [(feed, next(column for column in feed.columns if feed.names[column.name] == name)) for feed in feeds]
    asked = {feed.types[name]: feed for feed in feeds if name in feed.types}
    if asked:
        kind = next(iter(asked))
    else:
        leading = [pair for pair in sources if pair[0].engine is Engine.POSTGRES] or sources
        kind = centre_type(leading[0][0].engine, leading[0][1].type, engine)
        for feed, column in leading[1:]:
            other = centre_type(feed.engine, column.type, engine)
            if other.lower() != kind.lower():
                raise _disagreement(name, leading[0], (feed, column), kind, other)
    if name in feeds[0].target_key and engine is Engine.POSTGRES and family(engine, kind) == "json":
        raise SetupError(
            f"{feeds[0]}: the key column {name!r} would be json, which PostgreSQL cannot compare",
            hint="set its type to text or jsonb in columns.types",
        )
    for feed, column in sources:
        problem = incompatible(feed.engine, column.type, engine, kind)
        if problem:
            raise SetupError(f"{feed}, column {column.name!r}: {problem}", hint="set its type in columns.types")
    collations = {column.collation for _, column in sources}
    keeps = engine is Engine.SQLITE and all(feed.engine is Engine.SQLITE for feed in feeds) and len(collations) == 1
    not_null = name in feeds[0].target_key or all(column.not_null for _, column in sources)
    return ColumnShape(name, kind, not_null=not_null, collation=collations.pop() if keeps else "")


def _disagreement(
    name: str, one: tuple[Feed, ColumnShape], two: tuple[Feed, ColumnShape], kind: str, other: str
) -> SetupError:
    (first, left), (second, right) = one, two
    return SetupError(
        f"column {name!r} of {first.target}: site {first.site} has {left.type or 'no type'} ({kind} at the centre), "
        f"site {second.site} has {right.type or 'no type'} ({other})",
        hint=f"name the type in columns.types: {{{left.name}: …}}",
    )


def _derive_uniques(feeds: Sequence[Feed], shape: TableShape) -> tuple[UniqueShape, ...]:
    """Combinations unique at every site, with the constants in front; checked at the end of a transaction."""
    found = [{unique for unique in map(feed.renamed, _exact(feed)) if unique} for feed in feeds]
    constants = tuple(name for name, _ in feeds[0].constants)
    shared = sorted(names for names in found[0] if all(set(names) in map(set, other) for other in found[1:]))
    return tuple(
        UniqueShape(_constraint_name(shape.name, constants + names, "key"), constants + names, deferrable=True)
        for names in shared
        if set(constants + names) != set(shape.key) and not any(shape.column(name).type == "json" for name in names)
    )


def _exact(feed: Feed) -> Iterable[tuple[str, ...]]:
    primary = (feed.source.key,) if feed.source.key else ()
    return (*primary, *(unique.columns for unique in feed.source.uniques if unique.exact and unique.columns))


def derive_site_shape(
    shape: TableShape, name: TableName, names: Mapping[str, str], engine: Engine, site_engine: Engine
) -> TableShape:
    """The shape of a new table at a site that takes rows of a table of the centre: the mirror of ``derive_shape``.

    ``names`` are the centre's columns that go there → their names at the site; ``engine`` is the centre's. Foreign keys
    are left out: a site has some of the centre's rows, and the centre has checked them.
    """

    def column(found: ColumnShape) -> ColumnShape:
        kind = centre_type(engine, found.type, site_engine)
        same = engine is site_engine is Engine.SQLITE
        return ColumnShape(names[found.name], kind, found.not_null, collation=found.collation if same else "")

    columns = tuple(column(found) for found in shape.columns if found.name in names)
    key = tuple(names[column] for column in shape.key if column in names)
    primary = UniqueShape(_constraint_name(name, key, "pkey"), key, primary=True)
    combinations = [[names[each] for each in found if each in names] for found in unique_columns(shape)]
    whole = [
        tuple(ours)
        for ours, found in zip(combinations, unique_columns(shape), strict=True)
        if set(found) - names.keys()
        <= set(shape.key) - names.keys()  # what is left out is the same for all of a site's rows
    ]
    uniques = tuple(
        UniqueShape(_constraint_name(name, found, "key"), found, deferrable=True)
        for found in dict.fromkeys(whole)
        if found and set(found) != set(key)
    )
    return TableShape(name, columns, key, (primary, *uniques))


def derive_foreign_keys(
    feeds: Sequence[Feed],
    parents: Callable[[str, TableName], Feed | None],
    shapes: Mapping[TableName, TableShape],
    note: Callable[[str], None],
) -> tuple[ForeignKeyShape, ...]:
    """The foreign keys of a new centre table: those all sites have, between tables that come whole.

    Extended by the constants where both sides carry them; checked at the end of a transaction, no action on delete (the
    sites' own cascades arrive as changes). What cannot be kept is told to ``note``.
    """
    per_site = [_site_foreign_keys(feed, parents, shapes, note) for feed in feeds]
    shared = [key for key in per_site[0] if all(key in other for other in per_site[1:])]
    return tuple(dict.fromkeys(shared))


def _site_foreign_keys(
    feed: Feed,
    parents: Callable[[str, TableName], Feed | None],
    shapes: Mapping[TableName, TableShape],
    note: Callable[[str], None],
) -> list[ForeignKeyShape]:
    found = []
    for key in feed.source.foreign_keys:
        parent = parents(feed.site, key.parent)
        reason = "its parent is not captured"
        if parent is not None:
            made, reason = _extend(feed, parent, key, shapes)
            if made is not None:
                found.append(made)
                continue
        note(f"{feed}: the foreign key on ({', '.join(key.columns)}) is left out at the centre: {reason}")
    return found


def _extend(
    feed: Feed, parent: Feed, key: ForeignKeyShape, shapes: Mapping[TableName, TableShape]
) -> tuple[ForeignKeyShape | None, str]:
    named = key.parent_columns if all(key.parent_columns) else ()  # SQLite need not name them: the key is meant
    columns, referred = feed.renamed(key.columns), parent.renamed(named or parent.source.key)
    if columns is None or referred is None or len(columns) != len(referred):
        return None, "not all of its columns are captured"
    if parent.where is not None:
        return None, "its parent has a row filter"
    ours, theirs = tuple(name for name, _ in feed.constants), tuple(name for name, _ in parent.constants)
    if theirs and ours != theirs:
        return None, "its parent is keyed_by other columns"
    columns, referred = (theirs and ours) + columns, theirs + referred
    child, above = shapes[feed.target], shapes[parent.target]
    pairs = list(zip(columns, referred, strict=True))
    if any(not _find(above, there) or _kind(child, here) != _kind(above, there) for here, there in pairs):
        return None, "its columns have other types than its parent's"
    if not any(set(unique) == set(referred) for unique in unique_columns(above)):
        return None, "its parent's columns are not unique at the centre"
    name = _constraint_name(feed.target, columns, "fkey")
    return ForeignKeyShape(name, columns, parent.target, referred, deferrable=True), ""


def _find(shape: TableShape, name: str) -> ColumnShape | None:
    return next((column for column in shape.columns if column.name == name), None)


def _kind(shape: TableShape, name: str) -> str:
    """What two columns must share so that a foreign key can compare them."""
    column = _find(shape, name)
    found = family(Engine.POSTGRES, column.type) if column else ""
    return found if found != "other" or column is None else column.type.lower()


def unique_columns(shape: TableShape) -> list[tuple[str, ...]]:
    """Column combinations that are unique in a table, without conditions."""
    exact = [unique.columns for unique in shape.uniques if unique.exact and unique.columns and not unique.predicate]
    return ([shape.key] if shape.key else []) + exact


def in_foreign_key_order(shapes: Iterable[TableShape]) -> list[TableShape]:
    """Parents before children, by name where nothing else decides; cycles are cut at their first table by name."""
    by_name = {shape.name: shape for shape in shapes}
    ordered: dict[TableName, TableShape] = {}
    waiting = {
        name: {key.parent for key in shape.foreign_keys if key.parent in by_name and key.parent != name}
        for name, shape in sorted(by_name.items())
    }
    while waiting:
        ready = [name for name, parents in waiting.items() if not parents - ordered.keys()] or [next(iter(waiting))]
        for name in ready:
            ordered[name] = by_name[name]
            del waiting[name]
    return list(ordered.values())


def _constraint_name(table: TableName, columns: Sequence[str], suffix: str) -> str:
    """A name of at most 63 bytes that no other constraint of the schema bears."""
    mark = hashlib.sha256(repr((table.schema, table.name, tuple(columns), suffix)).encode()).hexdigest()[:8]
    stem = f"{table.name}_{'_'.join(columns)}".encode()[: 63 - len(suffix) - 10].decode(errors="ignore")
    return f"{stem}_{mark}_{suffix}"
