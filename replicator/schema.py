"""Compares the tables of sites and centre, and carries changes of tables from the centre to the sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from replicator.ddl import Act, Alteration, after, translated
from replicator.differences import Difference, compare
from replicator.errors import SetupError
from replicator.holding import CENTRE
from replicator.model import Catalogue, DatabasePlan, Engine, PlannedStatement, TableName, TablePlan
from replicator.ports import Installable


@dataclass(frozen=True, slots=True)
class Step:
    """One change at one place. ``sql`` is empty where it is so already; ``refused``: why it cannot be made there."""

    place: str
    change: str
    sql: str = ""
    refused: str = ""


def diff(site: str, plans: Iterable[TablePlan], centre: Catalogue) -> list[Difference]:
    """All differences between a site and the centre, those that matter first within a table."""
    known = {_folded(name, centre.engine) for name in centre.tables}
    found = [each for plan in plans for each in compare(site, plan, known=_folded(plan.target, centre.engine) in known)]
    return sorted(found, key=lambda each: (each.table, not each.matters))


def gone(site: str, tables: Iterable[tuple[TableName, str]]) -> list[Difference]:
    """Captured tables that a site has no more under their names, with what became of them."""
    return [Difference(site, str(name), str(name), "table", "", message, True) for name, message in tables]


def plan_centre(changes: Sequence[Alteration], centre: Catalogue) -> list[Step]:
    """What makes the changes at the centre. Raises SetupError for a table it does not have."""
    shapes = {_folded(name, centre.engine): shape for name, shape in centre.tables.items()}
    steps = []
    for change in changes:
        name = _folded(change.table, centre.engine)
        shape = shapes.get(name)
        if shape is None:
            raise SetupError(f"the centre has no table {change.table}", hint="name the table as it is called there")
        sql, refused = translated(change, shape, centre.engine, change.column, Engine.POSTGRES)
        shapes[name] = after(shape, change, change.column)
        steps.append(Step(CENTRE, str(change), sql, refused))
    return steps


def plan_site(site: str, changes: Sequence[Alteration], plans: Sequence[TablePlan], written_for: Engine) -> list[Step]:
    """What makes changes of the centre's tables at a site, where it has those tables."""
    steps = []
    for plan in plans:
        names = {column.target: column.source for column in plan.columns}
        shape = plan.source
        for change in changes:
            if not _is(change.table, plan.target):
                continue
            column = names.get(change.column, change.column)
            sql, refused = translated(change, shape, plan.source_engine, column, written_for)
            shape = after(shape, change, column)
            if change.act is Act.RENAME:
                names = {target: source for target, source in names.items() if target != change.column}
            steps.append(Step(site, str(replace(change, table=plan.source.name)), sql, refused))
    return steps


def carry(site: str, plans: Iterable[TablePlan], *, drop: bool) -> Iterator[Step]:
    """What gives a site's tables the columns that only the centre has, and with ``drop`` takes those it alone has."""
    for plan in plans:
        if plan.hold:
            yield Step(site, f"table {plan.source.name}", refused=plan.hold)
        for found in compare(site, plan):
            here = [fix for fix in found.fixes if fix.place == site and fix.loses is found.matters and not fix.renames]
            if found.kind == "column" and here and (drop or not found.matters):
                act = "drop" if found.matters else "add"
                yield Step(site, f"{act} column {found.column} of {found.table}", here[0].sql)
            elif found.kind == "type" and found.matters:
                yield _retype(site, plan, found)


def _retype(site: str, plan: TablePlan, found: Difference) -> Step:
    """A site's column becomes what the centre's is."""
    target = next((c for c in plan.target_shape.columns if c.name.lower() == found.column.lower()), None)
    what = f"set type of {found.column} of {found.table}"
    if target is None:
        return Step(site, what, refused="the YAML renames it: change it at the site yourself")
    change = Alteration(Act.TYPE, plan.source.name, found.column, shape=target)
    sql, refused = translated(change, plan.source, plan.source_engine, found.column, plan.target_engine)
    return Step(site, what, sql, refused)


def run_steps(opened: Callable[[str], Installable], place: str, engine: Engine, steps: Iterable[Step]) -> int:
    """Run what is to be run at one place, each statement in a transaction of its own; how many. Safe to repeat after a plan."""
    statements = tuple(PlannedStatement(step.change, step.sql, step.change) for step in steps if step.sql)
    with closing(opened(place)) as database:
        database.install(DatabasePlan(place, engine, statements, ""))
    return len(statements)


def named(plans: Mapping[str, Sequence[TablePlan]], tables: Sequence[str]) -> dict[str, Sequence[TablePlan]]:
    """By site, the plans of the tables called so, there or at the centre; all when none is named.

    Raises SetupError for a name that no site's table has.
    """
    if not tables or not plans:
        return dict(plans)
    called = {name for found in plans.values() for plan in found for name in (str(plan.source.name), str(plan.target))}
    if strange := [name for name in tables if name not in called]:
        raise SetupError(
            f"no table of this topology is called {', '.join(strange)}", hint="see: replicator schema diff"
        )
    return {
        site: [plan for plan in found if {str(plan.source.name), str(plan.target)} & set(tables)]
        for site, found in plans.items()
    }


def _is(one: TableName, other: TableName) -> bool:
    return one == other or (not other.schema and one.name.lower() == other.name.lower())


def _folded(name: TableName, engine: Engine) -> TableName:
    return TableName("", name.name.lower()) if engine is Engine.SQLITE else name
