"""A table plan as the two sides of an audit, and what a pair of rows says about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from replicator.audit.report import ColumnDifference, Kind, RowDifference
from replicator.canonical import Cell, Form, readable, split_image
from replicator.canonical.images import reason_of, storage_class
from replicator.filters import render_postgres, render_sqlite
from replicator.model import Direction, Engine, RowFilter, TablePlan
from replicator.ports import AuditRow, AuditTable

ALIAS = "t"
"""What row filters call the row; engines' statements do so."""

_LONGEST = 1000
"""Characters of a value a report shows."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One table of a site as its links see it: the plan of the link to the centre, of the one from it, or of both."""

    rising: TablePlan | None
    falling: TablePlan | None = None

    @property
    def plan(self) -> TablePlan:
        """The plan that says which columns are compared, the site's side as its source."""
        if self.rising is not None:
            return self.rising
        assert self.falling is not None
        return _mirrored(self.falling)


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of one audited table, the site's first, in the same columns and forms."""

    audited: Audited
    plan: TablePlan
    source: AuditTable
    target: AuditTable
    forms: tuple[Form, ...]
    key_forms: tuple[Form, ...]

    def native_plan(self, *, rising: bool) -> TablePlan:
        """The plan of the link to the centre, or from it."""
        plan = self.audited.rising if rising else self.audited.falling
        assert plan is not None
        return plan

    def key_order(self, *, rising: bool) -> list[int]:
        """Where the link's key columns stand in the audit's key."""
        key = self.source.key if rising else self.target.key
        return [key.index(name) for name in self.native_plan(rising=rising).key]


def sides_of(audited: TablePlan | Audited) -> Sides:
    """The two sides of a table. Raises ValueError naming the columns whose types have no common form.

    Of a table that the site gets, the centre's rows are those that are this site's.
    """
    audited = audited if isinstance(audited, Audited) else Audited(audited)
    plan, falling = audited.plan, audited.falling
    known = set(Form)
    unknown = [f"{c.source} ({c.source_type} and {c.target_type})" for c in plan.columns if c.form not in known]
    if unknown:
        raise ValueError(f"no canonical form for {', '.join(unknown)}")
    names = tuple(column.form for column in plan.columns)
    source = AuditTable(
        plan.source.name,
        tuple(column.source for column in plan.columns),
        tuple(column.source_type for column in plan.columns),
        names,
        plan.key,
        where=_written(plan.where, plan.source_engine, ALIAS),
    )
    path = falling.route.path if falling is not None else ()
    target = AuditTable(
        plan.target,
        tuple(column.target for column in plan.columns),
        tuple(column.target_type for column in plan.columns),
        names,
        tuple(plan.columns[n].target for n in plan.key_indexes),
        constants=plan.constants,
        where=_written(falling.where, plan.target_engine, f"p{len(path)}" if path else ALIAS) if falling else "",
        path=path,
    )
    forms = tuple(map(Form, names))
    return Sides(audited, plan, source, target, forms, tuple(forms[n] for n in plan.key_indexes))


def _written(where: RowFilter | None, engine: Engine, alias: str) -> str:
    write = render_sqlite if engine is Engine.SQLITE else render_postgres
    return "" if where is None else write(where, alias)


def _mirrored(plan: TablePlan) -> TablePlan:
    """A plan of the link from the centre, looked at from the site."""
    columns = tuple(
        replace(
            each, source=each.target, source_type=each.target_type, target=each.source, target_type=each.source_type
        )
        for each in plan.columns
    )
    return replace(
        plan, source=plan.target_shape, target=plan.source.name, columns=columns,
        key=tuple(columns[place].source for place in plan.key_indexes), source_engine=plan.target_engine,
        target_engine=plan.source_engine, target_shape=plan.source, constants=plan.source_constants, where=None,
        source_constants=(),
    )  # fmt: skip


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
        if sides.plan.direction is Direction.FROM_CENTRE:
            kind = Kind.EXTRA_AT_SITE if source else Kind.MISSING_AT_SITE
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
