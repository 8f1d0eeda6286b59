"""Parked changes as a person handles them: found by number over all links, tried again in the order of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from replicator.errors import SetupError
from replicator.model import Op, ParkedChange, TablePlan
from replicator.pipeline import retry_parked
from replicator.ports import Target

Open = Callable[[str], Target]
"""Opens a site's target."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One parked change tried again. ``applied`` is None when it was not tried, because its row's first was refused."""

    site: str
    change: ParkedChange
    applied: bool | None
    cause: str = ""


def list_changes(sites: Iterable[str], opened: Open, table: str = "") -> list[tuple[str, ParkedChange]]:
    """Parked changes of all the sites, oldest first."""
    found: list[tuple[str, ParkedChange]] = []
    for site in sites:
        with closing(opened(site)) as target:
            found += [(site, change) for change in target.list_parked(table=table)]
    return sorted(found, key=lambda each: each[1].id)


def find_change(sites: Sequence[str], opened: Open, number: int) -> tuple[str, ParkedChange]:
    """The parked change of that number and its site. Raises SetupError when there is none."""
    for site in sites:
        with closing(opened(site)) as target:
            for change in target.list_parked(ids=[number]):
                return site, change
    raise SetupError(f"there is no parked change {number}", hint="see them with: replicator parked list")


def retry(site: str, target: Target, changes: Sequence[ParkedChange]) -> Iterator[Tried]:
    """Try parked changes of one site again, oldest first. Once one is refused, the others of its row keep waiting."""
    refused: set[tuple[str, str]] = set()
    for change in changes:
        row = change.table, change.key
        if row in refused:
            yield Tried(site, change, None, "waits behind the refused change of its row")
        elif retry_parked(target, change.id):
            yield Tried(site, change, True)
        else:
            refused.add(row)
            causes = [again.cause for again in target.list_parked(ids=[change.id])]
            yield Tried(site, change, False, causes[0] if causes else "")


def edit(target: Target, plans: Iterable[TablePlan], change: ParkedChange, values: Mapping[str, str | None]) -> None:
    """Replace values of a parked change. Raises SetupError for a delete, and for the key: it would be another row's."""
    if change.op in (Op.DELETE, Op.GONE, Op.TRUNCATE):
        raise SetupError(
            f"parked change {change.id} is a {change.op.name.lower()}: it has no values to edit",
            hint="mend the cause at the centre and retry, or skip it",
        )
    keys = {name for plan in plans if str(plan.target) == change.table for name in plan.key}
    if fixed := sorted(keys & set(values)):
        raise SetupError(
            f"parked change {change.id}: {', '.join(fixed)} is of the row's key and cannot be edited",
            hint="it would be another row: correct the row at the site, and skip this change",
        )
    target.edit_parked(change.id, values)
