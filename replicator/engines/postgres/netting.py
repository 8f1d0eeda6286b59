"""Parked changes of one row as the fewest that make the same of it. Pure: no connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from replicator.engines.postgres.parked import Staged
from replicator.model import Op
from replicator.records import parse_record


def netted(changes: Sequence[Staged], key: Sequence[str], *, states: bool) -> list[Staged]:
    """Changes of one row as the fewest that make the same of it: one, or two where it came and went.

    A row that left its key may have met others' rows while it waited; then it is one or two for each key. ``key``: its
    columns. ``states``: they say only what the row was, so the last one says all.
    """
    first, last = changes[0], changes[-1]
    if states or len(changes) == 1:
        return [last]
    moved = any(change.op == Op.KEY_UPDATE for change in changes)
    if moved and any(change.after != following.before for change, following in pairwise(changes)):
        return [net for row in _rows(changes, key) for net in row.changes()]
    if first.op != Op.INSERT:
        present = last.op != Op.DELETE
        op = (Op.KEY_UPDATE if moved else Op.UPDATE) if present else Op.DELETE
        return [replace(last, op=str(op), before=first.before)]
    if last.op != Op.DELETE:
        return [replace(last, op=str(Op.INSERT), before=None)]
    return [first, replace(last, before=first.after)]


@dataclass(slots=True)
class _Row:
    """What became of the row under one key: as it was at first, as it is, as it was when it was there last."""

    change: Staged
    before: str | None
    after: str | None
    image: str | None

    def changes(self) -> list[Staged]:
        """The one change, or the two of a row that came and went."""
        if self.before is None and self.after is None:
            came = replace(self.change, op=str(Op.INSERT), before=None, after=self.image)
            return [came, replace(self.change, op=str(Op.DELETE), before=self.image, after=None)]
        op = Op.INSERT if self.before is None else Op.DELETE if self.after is None else Op.UPDATE
        return [replace(self.change, op=str(op), before=self.before, after=self.after)]


def _rows(changes: Sequence[Staged], key: Sequence[str]) -> list[_Row]:
    """By key. A change that does not follow from the one before it was made to what the centre had sent meanwhile."""
    rows: dict[tuple[str | None, ...], _Row] = {}
    for change in changes:
        left, right = _key_of(change, change.before, key), _key_of(change, change.after, key)
        steps = [(left, change.before, change.after)]
        if left != right:
            steps = [(left, change.before, None), (right, None, change.after)]
        for place, before, after in steps:
            if before is None and after is None:
                continue
            known = rows.get(place)
            first = known.before if known is not None and known.after == before else before
            rows[place] = _Row(change, first, after, before if after is None else after)
    return list(rows.values())


def _key_of(change: Staged, image: str | None, key: Sequence[str]) -> tuple[str | None, ...]:
    if image is None:
        return ()
    values = parse_record(image)
    return tuple(values[change.columns.index(name)] for name in key)
