"""Rows of our tables as the model has them: parked changes and recorded conflicts. Pure: no connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from replicator.engines.sqlite.values import decode_image, shown
from replicator.model import Op, ParkedChange, ParkedState, RecordedConflict


def recorded_conflict(row: tuple[object, ...]) -> RecordedConflict:
    """A row of ``list_conflicts``."""
    number, table, key, kind, *images, changed_at, policy, verdict, reason, decided_at = row[:12]
    site, based, result, origin, at, clock_error, unsure, state, resolution, parked = row[12:]
    before, after, current, left = (None if image is None else json.loads(str(image)) for image in (*images, result))
    return RecordedConflict(
        int(str(number)), str(table), str(key), str(kind), before, after, current, int(str(changed_at)), str(policy),
        str(verdict), str(reason), int(str(decided_at)), str(site), bool(based), left, str(origin), int(str(at)),
        int(str(clock_error)), bool(unsure), str(state), str(resolution), int(str(parked)),
    )  # fmt: skip


def parked_change(row: Sequence[object]) -> ParkedChange:
    """A row of ``list_parked``."""
    number, site, table, key, op, state, columns, before, after, code, cause, parked_at, attempts, conflict = row
    names = json.loads(str(columns))
    return ParkedChange(
        id=int(str(number)),
        link=str(site),
        table=str(table),
        key=str(key),
        op=Op(str(op)),
        state=ParkedState(str(state)),
        before=shown_image(names, before),
        after=shown_image(names, after),
        sqlstate=str(code),
        cause=str(cause),
        parked_at=int(str(parked_at)),
        attempts=int(str(attempts)),
        conflict=int(str(conflict)),
    )


def shown_image(columns: Sequence[str], image: object) -> Mapping[str, object] | None:
    """A stored image, column → text."""
    if image is None:
        return None
    return {name: shown(value) for name, value in zip(columns, decode_image(str(image)), strict=True)}
