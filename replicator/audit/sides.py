"""A table plan as the two sides of an audit, and what a pair of rows says about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from replicator.audit.report import ColumnDifference, Kind, RowDifference
from replicator.canonical import Cell, Form, readable, split_image
from replicator.canonical.images import reason_of, storage_class
from replicator.filters import render_postgres, render_sqlite
from replicator.model import Engine, TablePlan
from replicator.ports import AuditRow, AuditTable

ALIAS = "t"
"""What row filters call the row; engines' statements do so."""

_LONGEST = 1000
"""Characters of a value a report shows."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of one table plan, in the same columns and forms."""

    plan: TablePlan
    source: AuditTable
    target: AuditTable
    forms: tuple[Form, ...]
    key_forms: tuple[Form, ...]


def sides_of(plan: TablePlan) -> Sides:
    """The two sides of ``plan``. Raises ValueError naming the columns whose types have no common form."""
    known = set(Form)
    unknown = [f"{c.source} ({c.source_type} and {c.target_type})" for c in plan.columns if c.form not in known]
    if unknown:
        raise ValueError(f"no canonical form for {', '.join(unknown)}")
    names = tuple(column.form for column in plan.columns)
    write = render_sqlite if plan.source_engine is Engine.SQLITE else render_postgres
    source = AuditTable(
        plan.source.name,
        tuple(column.source for column in plan.columns),
        tuple(column.source_type for column in plan.columns),
        names,
        plan.key,
        where="" if plan.where is None else write(plan.where, ALIAS),
    )
    target = AuditTable(
        plan.target,
        tuple(column.target for column in plan.columns),
        tuple(column.target_type for column in plan.columns),
        names,
        tuple(plan.columns[n].target for n in plan.key_indexes),
        constants=plan.constants,
    )
    forms = tuple(map(Form, names))
    return Sides(plan, source, target, forms, tuple(forms[n] for n in plan.key_indexes))


def not_compared(plan: TablePlan) -> tuple[str, ...]:
    """Source columns the plan leaves out."""
    compared = {column.source for column in plan.columns}
    return tuple(column.name for column in plan.source.columns if column.name not in compared)


def key_of(sides: Sides, key: str) -> dict[str, str | None]:
    """A key image as source column → readable value."""
    cells = split_image(sides.key_forms, key)
    return {
        column: _shown(readable(form, cell))
        for column, form, cell in zip(sides.plan.key, sides.key_forms, cells, strict=True)
    }


def difference(
    sides: Sides, key: str, source: Sequence[AuditRow], target: Sequence[AuditRow], *, parked: bool
) -> RowDifference:
    """What two unequal lists of rows with one key differ in."""
    names = key_of(sides, key)
    if len(source) > 1 or len(target) > 1:
        return RowDifference(names, Kind.REPEATED, parked=parked)
    if not source or not target:
        kind = Kind.MISSING if source else Kind.EXTRA
        return RowDifference(names, kind, tuple(_unfit(sides, source)), parked)
    return RowDifference(names, Kind.DIFFERS, tuple(_unequal(sides, source[0], target[0])), parked)


def _unequal(sides: Sides, source: AuditRow, target: AuditRow) -> Iterator[ColumnDifference]:
    pairs = zip(split_image(sides.forms, source.image), split_image(sides.forms, target.image), strict=True)
    for column, form, (ours, theirs) in zip(sides.plan.columns, sides.forms, pairs, strict=True):
        if ours != theirs or not ours.fits:
            left, right = readable(form, ours), readable(form, theirs)
            reason = _reason(form, ours) or _reason(form, theirs)
            if left == right and not reason:
                reason = f"{storage_class(ours)} at the site, {storage_class(theirs)} at the centre"
            yield ColumnDifference(column.source, column.target, _shown(left), _shown(right), reason)


def _unfit(sides: Sides, rows: Sequence[AuditRow]) -> Iterator[ColumnDifference]:
    """The values of a missing row that the centre's type cannot hold: most likely why it is missing."""
    for row in rows:
        for column, form, cell in zip(
            sides.plan.columns, sides.forms, split_image(sides.forms, row.image), strict=True
        ):
            if not cell.fits:
                value = _shown(readable(form, cell))
                yield ColumnDifference(column.source, column.target, value, None, _reason(form, cell))


def _reason(form: Form, cell: Cell) -> str:
    return "" if cell.fits else reason_of(form, cell)


def _shown(value: str | None) -> str | None:
    if value is None or len(value) <= _LONGEST:
        return value
    return f"{value[:_LONGEST]}… ({len(value):,} characters)"
