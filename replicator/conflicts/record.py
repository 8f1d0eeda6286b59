"""What a recorded conflict says: the conflict it was, the row its decision left, who changed which column. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from replicator.errors import SetupError
from replicator.merging import Changed, columns, text
from replicator.merging import texts as as_texts
from replicator.model import Conflict, ConflictKind, PolicyPlan, RecordedConflict, Verdict

Row = Mapping[str, str | None]

DROPPED = "parked"
"""The kind of a record that is no conflict: a parked change was dropped by command."""
WAITING, RESOLVED = "waiting", "resolved"


def to_conflict(recorded: RecordedConflict, plan: PolicyPlan, site: str = "") -> Conflict:
    """The conflict as it was decided on, with another policy. What a SQL rule answered then is not on record.

    Raises SetupError for the record of a dropped change: it never was a conflict.
    """
    if recorded.kind == DROPPED:
        raise SetupError(
            f"conflict {recorded.id} is the record of a change dropped by command: there was no conflict to decide",
            hint="see it with: replicator conflicts show " + str(recorded.id),
        )
    return Conflict(
        ord=0,
        relation=0,
        table=recorded.table,
        key=recorded.key,
        kind=ConflictKind(recorded.kind),
        before=recorded.before,
        after=recorded.after,
        current=recorded.current,
        changed_at=recorded.changed_at,
        policy=plan,
        site=recorded.site or site,
        based=recorded.based,
        current_origin=recorded.current_origin,
        current_at=recorded.current_at,
        clock_error_us=recorded.clock_error_us,
    )


def texts(row: Mapping[str, object] | None) -> Row | None:
    """An image with every value as text."""
    return None if row is None else as_texts(row)


def left_row(recorded: RecordedConflict) -> Row | None:
    """The row the decision left at the centre; None: no row."""
    if recorded.state == RESOLVED:
        return texts(recorded.result)
    return row_after(recorded.verdict, recorded.after, recorded.current, recorded.result)


def sides(recorded: RecordedConflict) -> str:
    """What ``resolve --take`` may take, the words behind it: the base only where it is on record and is a row."""
    return "site|centre|base" if recorded.based and recorded.before is not None else "site|centre"


def row_after(
    verdict: str,
    after: Mapping[str, object] | None,
    current: Mapping[str, object] | None,
    result: Mapping[str, object] | None,
) -> Row | None:
    """The row a verdict leaves; columns that only the centre has stay as they are."""
    chosen = {Verdict.APPLY: after, Verdict.MERGE: result}.get(Verdict(verdict), current)
    if chosen is None or current is None or chosen is current:
        return texts(chosen)
    return texts({**current, **chosen})


def equals(row: Mapping[str, object] | None, now: Mapping[str, object] | None) -> bool:
    """Whether the row as it is now has the values of ``row`` (and maybe more columns)."""
    if row is None or now is None:
        return row is None and now is None
    return all(name in now and text(now[name]) == text(value) for name, value in row.items())


def marked_columns(recorded: RecordedConflict) -> dict[str, Changed]:
    """Who changed each column since the row was last the same; with a row missing, whatever differs was changed."""
    if recorded.after is not None and recorded.current is not None:
        found = {each.name: each.changed for each in columns(recorded.before, recorded.after, recorded.current)}
        names = [*recorded.after, *recorded.current]
        return {**dict.fromkeys(names, Changed.NOBODY), **found}
    rows = [row for row in (recorded.before, recorded.after, recorded.current) if row is not None]
    return dict.fromkeys((name for row in rows for name in row), Changed.NOBODY)
