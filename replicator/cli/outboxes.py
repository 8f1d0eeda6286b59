"""Outboxes as people see them: size, age, rate, and how long the room lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replicator.cli.output import BAD, WARN, say, seconds, show_error, show_table

if TYPE_CHECKING:
    from replicator.capacity import Capacity

_LONG_DAYS = 3650.0


def show_outboxes(found: Sequence[Capacity]) -> None:
    """One line per outbox, then what is wrong with it."""
    from replicator.capacity import size

    if not found:
        return
    say()
    rows = [
        (
            each.place, str(each.room), f"{each.rows or 0:,}", size(each.bytes), seconds(each.oldest_seconds),
            "unknown" if each.per_second is None else f"{each.per_second * 86_400:,.0f}/day",
            "unknown" if each.free is None else size(each.free), _lasts(each.days),
        )
        for each in found
    ]  # fmt: skip
    head = ("outbox of", "room", "changes", "size", "oldest", "written", "disk free", "lasts")
    show_table(head, rows, ["" if not each.problem else WARN if each.healthy else BAD for each in found])
    for each in found:
        if each.problem:
            show_error(f"outbox of {each.place}: {each.problem}", each.hint)
    say()


def _lasts(days: float | None) -> str:
    if days is None:
        return "unknown"
    return "years" if days > _LONG_DAYS else f"{days:,.0f} days" if days >= 2 else f"{days * 24:,.0f} hours"
