"""What becomes of a table whose two sides have grown apart: columns and tables that are held, and what mends them. Pure.

A column that the target cannot take is left out, and flows, with all rows looked at again, once both sides have it. A table
whose rows cannot be told apart or not be written at the target is held as a whole: its changes are parked there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from replicator import alters, types
from replicator.errors import SettingsError, SetupError
from replicator.model import (
    Catalogue,
    ColumnPlan,
    ColumnShape,
    Direction,
    Engine,
    HeldColumn,
    TablePlan,
    TableShape,
)
from replicator.resolve import find_column
from replicator.shapes import Feed

CENTRE = "centre"


def mend_column(feed: Feed, column: ColumnShape, shape: TableShape, centre: Engine) -> str:
    """The statement to run at the centre so that it takes a site's column."""
    wanted = feed.names[column.name]
    kind = feed.types.get(wanted) or types.centre_type(feed.engine, column.type, centre)
    found = find_column(shape, wanted, centre)
    if found is None:
        return alters.add_column(centre, shape.name, ColumnShape(wanted, kind))
    return alters.set_type(shape.name, found.name, kind) if centre is Engine.POSTGRES else ""


def held_column(feed: Feed, column: ColumnShape, shape: TableShape, centre: Engine, error: SetupError) -> HeldColumn:
    """A site's column that is left out because of ``error``."""
    return HeldColumn(column.name, error.message, CENTRE, mend_column(feed, column, shape, centre))


def column_or_held(
    plan: Callable[[ColumnShape], ColumnPlan],
    feed: Feed,
    column: ColumnShape,
    shape: TableShape,
    centre: Engine,
    *,
    lenient: bool,
) -> ColumnPlan | HeldColumn:
    """A column's plan; where it cannot be planned and that is let pass, the column as one that is held (no key's)."""
    try:
        return plan(column)
    except SetupError as error:
        if not lenient or column.name in feed.key:
            raise
        return held_column(feed, column, shape, centre, error)


def table_or_held(
    plan: Callable[[], TablePlan], held: Callable[[SetupError], TablePlan], *, lenient: bool
) -> TablePlan:
    """A table's plan; where there can be none and that is let pass, the table as one that is held."""
    try:
        return plan()
    except SettingsError:
        raise
    except SetupError as error:
        if not lenient:
            raise
        return held(error)


def or_null(shape: TableShape, column: ColumnShape, engine: Engine) -> str:
    """What else mends a NOT NULL column that nobody fills, for a hint."""
    return f", or let it be NULL: {alters.drop_not_null(shape.name, column.name)}" if engine is Engine.POSTGRES else ""


def held_plan(feed: Feed, shape: TableShape, centre: Engine, direction: Direction, error: SetupError) -> TablePlan:
    """The plan of a table to the centre whose changes can only be parked there, with ``error`` as their cause."""
    columns = tuple(ColumnPlan(column.name, column.type, column.name, column.type) for column in feed.columns)
    return TablePlan(
        source=feed.source, target=shape.name, columns=columns, key=feed.key, source_engine=feed.engine,
        target_engine=centre, target_shape=shape, constants=feed.constants, where=feed.where, direction=direction,
        ledgered=feed.engine is Engine.SQLITE, hold=_cause(error),
    )  # fmt: skip


def held_descent(feed: Feed, shape: TableShape, centre: Engine, direction: Direction, error: SetupError) -> TablePlan:
    """The same on the link from the centre."""
    turned = held_plan(feed, shape, centre, direction, error)
    columns = tuple(
        ColumnPlan(column.name, column.type, column.name, column.type)
        for column in shape.columns
        if not column.generated
    )
    return replace(
        turned, source=shape, target=feed.source.name, target_shape=feed.source, columns=columns, key=shape.key,
        source_engine=centre, target_engine=feed.engine, constants=(), where=None, ledgered=False,
    )  # fmt: skip


def _cause(error: SetupError) -> str:
    return f"{error.message}: {error.hint}" if error.hint else error.message


def hold_absent(plan: TablePlan, centre: Catalogue) -> TablePlan:
    """The plan, held where the centre does not have the table (any more)."""
    folded = centre.engine is Engine.SQLITE
    names = {name.name.lower() if folded else name for name in centre.tables}
    if plan.hold or (plan.target.name.lower() if folded else plan.target) in names:
        return plan
    cause = f"table {plan.target} is not at the centre: rename it back, or run replicator install, which makes it"
    return replace(plan, hold=cause)
