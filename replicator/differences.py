"""How tables differ: the same table before and after a change, and a table on both sides of a link. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from replicator import alters, types
from replicator.holding import CENTRE
from replicator.model import ColumnPlan, ColumnShape, Engine, TablePlan, TableShape


def describe(before: TableShape, after: TableShape) -> Iterator[str]:
    """What became of a table, one clause each: columns added, dropped, renamed in place, retyped; another key."""
    was = {column.name: column for column in before.columns}
    now = {column.name: column for column in after.columns}
    gone, new = [name for name in was if name not in now], [name for name in now if name not in was]
    for old in list(gone):
        place = list(was).index(old)
        name = list(now)[place] if place < len(now) else ""
        if name in new and len(was) == len(now) and _alike(was[old], now[name]):
            yield f"column {old} renamed to {name}"
            gone.remove(old)
            new.remove(name)
    yield from (f"column {name} dropped" for name in gone)
    yield from (f"column {name} {now[name].type} added".replace("  ", " ") for name in new)
    for name in was.keys() & now.keys():
        if was[name].type != now[name].type:
            yield f"column {name} is {now[name].type or 'untyped'}, was {was[name].type or 'untyped'}"
        if was[name].not_null != now[name].not_null:
            yield f"column {name} is {'' if now[name].not_null else 'not '}NOT NULL now"
    if before.key != after.key:
        yield f"the key is ({', '.join(after.key)}), was ({', '.join(before.key)})"


def _alike(one: ColumnShape, other: ColumnShape) -> bool:
    return (one.type, one.not_null, one.generated) == (other.type, other.not_null, other.generated)


@dataclass(frozen=True, slots=True)
class Fix:
    """A statement that would make the two sides alike, and where it is to be run.

    ``loses``: it throws values away. ``renames``: right where the column was renamed, which nobody can tell from the tables.
    """

    place: str
    sql: str
    loses: bool = False
    renames: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a table of a site and its table at the centre.

    ``matters``: something does not flow, or has to wait, because of it. ``kind``: ``table``, ``column``, ``type``, ``null``.
    """

    site: str
    table: str
    target: str
    kind: str
    column: str
    message: str
    matters: bool
    fixes: tuple[Fix, ...] = ()


def compare(site: str, plan: TablePlan, *, known: bool = True) -> Iterator[Difference]:
    """All differences of a planned table, as seen from its link to the centre. ``known``: the centre has the table."""
    table, target = str(plan.source.name), str(plan.target)
    if not known:
        yield Difference(site, table, target, "table", "", "is not at the centre: replicator install makes it", True)
        return
    if plan.hold:
        yield Difference(site, table, target, "table", "", plan.hold, True)
    twins = _perhaps_renamed(plan)
    for column in plan.held:
        found = plan.source.column(column.name)
        drop = Fix(site, alters.drop_column(plan.source_engine, plan.source.name, column.name), loses=True)
        kind = "column" if "lacks" in column.reason else "type"
        fixes = (Fix(CENTRE, column.fix), drop) if kind == "column" else (Fix(CENTRE, column.fix),)
        message = f"{found.type or 'untyped'} here; the centre {'has no such column' if kind == 'column' else 'cannot take it'}"
        if twins and kind == "column":
            rename = alters.rename_column(plan.target_engine, plan.target_shape.name, twins[1], column.name)
            fixes = (Fix(CENTRE, rename, renames=True), *fixes)
        yield Difference(site, table, target, kind, column.name, message, True, fixes)
    if not plan.hold:
        yield from _target_only(site, plan, twins)
        for pair in plan.columns:
            yield from _pair(site, plan, pair)


def _unfed(plan: TablePlan) -> list[ColumnShape]:
    """The columns of the target that nothing comes to."""
    fed = {column.target for column in plan.columns} | {name for name, _ in plan.constants}
    fed |= {column.name for column in plan.held}
    return [column for column in plan.target_shape.columns if column.name not in fed and not column.generated]


def _perhaps_renamed(plan: TablePlan) -> tuple[str, str] | None:
    """The site's and the centre's name of what may be one column, renamed: just one is missing on each side, of one type."""
    here, there = [column.name for column in plan.held if "lacks" in column.reason], _unfed(plan)
    if len(here) != 1 or len(there) != 1:
        return None
    wanted = types.centre_type(plan.source_engine, plan.source.column(here[0]).type, plan.target_engine)
    return (here[0], there[0].name) if wanted.lower() == there[0].type.lower() else None


def _target_only(site: str, plan: TablePlan, twins: tuple[str, str] | None) -> Iterator[Difference]:
    """Columns that only the centre has: they keep what they have there, and do not come to the site."""
    engines = plan.target_engine, plan.source_engine
    for column in _unfed(plan):
        here = ColumnShape(column.name, types.centre_type(engines[0], column.type, engines[1]))
        fixes: tuple[Fix, ...] = (
            Fix(site, alters.add_column(engines[1], plan.source.name, here)),
            Fix(CENTRE, alters.drop_column(engines[0], plan.target_shape.name, column.name), loses=True),
        )
        if twins:
            rename = alters.rename_column(engines[1], plan.source.name, twins[0], column.name)
            fixes = (Fix(site, rename, renames=True), *fixes)
        message = f"{column.type} at the centre, not here"
        yield Difference(site, str(plan.source.name), str(plan.target), "column", column.name, message, False, fixes)


def _pair(site: str, plan: TablePlan, pair: ColumnPlan) -> Iterator[Difference]:
    here, there = plan.source.column(pair.source), plan.target_shape.column(pair.target)
    table, target, postgres = str(plan.source.name), str(plan.target), plan.target_engine is Engine.POSTGRES
    same = plan.source_engine is plan.target_engine is Engine.POSTGRES
    if same and pair.source_type != pair.target_type:
        fix = Fix(CENTRE, alters.set_type(plan.target_shape.name, there.name, pair.source_type))
        back = Fix(site, alters.set_type(plan.source.name, here.name, pair.target_type))
        message = f"{pair.source_type} here, {pair.target_type} at the centre: values that do not fit are parked"
        yield Difference(site, table, target, "type", here.name, message, False, (fix, back))
    if there.not_null and not here.not_null and here.name not in plan.key:
        fixes = (Fix(CENTRE, alters.drop_not_null(plan.target_shape.name, there.name)),) if postgres else ()
        message = "may be NULL here, not at the centre: rows with NULL are parked"
        yield Difference(site, table, target, "null", here.name, message, False, fixes)
