"""Parked changes as a person handles them: found by number over all links, tried again in the order of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from replicator.errors import SetupError
from replicator.model import LinkName, Op, ParkedChange, TablePlan
from replicator.pipeline import retry_parked
from replicator.ports import Target

Open = Callable[[LinkName], Target]
"""Opens a link's target."""


_RESOLVE = "replicator conflicts resolve {} --take site"
"""The command that ends the wait; with ``centre`` or given values as well."""


_EMPTYING = {Op.DELETE: "deletes the row", Op.GONE: "deletes the row", Op.TRUNCATE: "empties the table"}


@dataclass(frozen=True, slots=True)
class Found:
    """A parked change and the link it came by. Numbers are a database's own, so those of a site are said with its name."""

    link: LinkName
    change: ParkedChange

    @property
    def name(self) -> str:
        """``17`` at the centre, ``clinic1:17`` at a site."""
        return number_of(self.link, self.change.id)


@dataclass(frozen=True, slots=True)
class Tried:
    """One parked change tried again. ``applied`` is None when it was not tried, because its row's first was refused."""

    link: LinkName
    change: ParkedChange
    applied: bool | None
    cause: str = ""


def number_of(link: LinkName, number: int) -> str:
    """How a change is named: by its number, at a site with the site's name before it."""
    return str(number) if link.direction.rises else f"{link.site}:{number}"


def list_changes(links: Iterable[LinkName], opened: Open, table: str = "") -> list[Found]:
    """Parked changes of all the links, oldest first; those at the centre first."""
    found: list[Found] = []
    for link in links:
        with closing(opened(link)) as target:
            found += [Found(link, change) for change in target.list_parked(table=table)]
    return sorted(found, key=lambda each: (not each.link.direction.rises, each.change.parked_at, each.change.id))


def find_change(links: Sequence[LinkName], opened: Open, name: str) -> Found:
    """The parked change called ``name``. Raises SetupError when there is none."""
    site, _, digits = name.rpartition(":")
    if not (digits.isascii() and digits.isdigit()):
        raise SetupError(f"{name!r} is no parked change", hint="write 17, or clinic1:17 for one at a site")
    for link in links:
        if link.direction.rises is bool(site) or (site and link.site != site):
            continue
        with closing(opened(link)) as target:
            for change in target.list_parked(ids=[int(digits)]):
                return Found(link, change)
    raise SetupError(f"there is no parked change {name}", hint="see them with: replicator parked list")


def retry(link: LinkName, target: Target, changes: Sequence[ParkedChange]) -> Iterator[Tried]:
    """Try parked changes of one link again, oldest first. Once one is refused, the others of its row keep waiting.

    One that waits for a person's decision is not tried: that would decide without anybody.
    """
    refused: set[tuple[str, str]] = set()
    for change in changes:
        row = change.table, change.key
        if change.conflict:
            yield Tried(link, change, None, f"waits for conflict {change.conflict}: {_RESOLVE.format(change.conflict)}")
        elif row in refused:
            yield Tried(link, change, None, "waits behind the refused change of its row")
        elif retry_parked(target, change.id):
            yield Tried(link, change, True)
        else:
            refused.add(row)
            causes = [again.cause for again in target.list_parked(ids=[change.id])]
            yield Tried(link, change, False, causes[0] if causes else "")


def require_decided(change: ParkedChange) -> None:
    """Raises SetupError for a change that waits for a person's decision."""
    if change.conflict:
        raise SetupError(
            f"parked change {change.id} waits for a decision on conflict {change.conflict}",
            hint=f"run: {_RESOLVE.format(change.conflict)}",
        )


def edit(target: Target, plans: Iterable[TablePlan], change: ParkedChange, values: Mapping[str, str | None]) -> None:
    """Replace values of a parked change. Raises SetupError for a delete, and for the key: it would be another row's.

    Also for one that waits for a person's decision.
    """
    require_decided(change)
    if change.op in _EMPTYING:
        raise SetupError(
            f"parked change {change.id} {_EMPTYING[change.op]}: it has no values to edit",
            hint="mend the cause and retry, or skip it",
        )
    keys = {name for plan in plans if str(plan.target) == change.table for name in plan.key}
    if fixed := sorted(keys & set(values)):
        raise SetupError(
            f"parked change {change.id}: {', '.join(fixed)} is of the row's key and cannot be edited",
            hint="it would be another row: correct the row where it was written, and skip this change",
        )
    target.edit_parked(change.id, values)
