"""Recorded conflicts found over several links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from replicator.conflicts.record import WAITING
from replicator.errors import SetupError
from replicator.model import RecordedConflict
from replicator.ports import Target

Open = Callable[[str], Target]
"""Opens a site's target."""

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which conflicts: of one table at the centre, still waiting for a person, decided at or behind a moment; the newest.

    ``since``: microseconds since 1970, 0 for all.
    """

    table: str = ""
    waiting: bool = False
    since: int = 0
    limit: int = 100

    def takes(self, recorded: RecordedConflict) -> bool:
        """Whether a conflict of the table is among those."""
        return recorded.decided_at >= self.since and (recorded.state == WAITING or not self.waiting)


def list_conflicts(sites: Iterable[str], opened: Open, wanted: Wanted) -> list[tuple[str, RecordedConflict]]:
    """The newest conflicts of all the sites, oldest of them first."""
    found: list[tuple[str, RecordedConflict]] = []
    for site in sites:
        with closing(opened(site)) as target:
            found += [(site, each) for each in newest(target, wanted)]
    return sorted(found, key=lambda each: (each[1].decided_at, each[1].id))[-wanted.limit :]


def newest(target: Target, wanted: Wanted) -> Sequence[RecordedConflict]:
    """One link's newest conflicts, oldest first; looks further back until there are enough of those wanted, or no more."""
    plain = not (wanted.waiting or wanted.since)
    page = wanted.limit if plain else max(wanted.limit, _PAGE)
    while True:
        read = target.list_conflicts(table=wanted.table, limit=page)
        found = [each for each in read if wanted.takes(each)]
        whole = len(read) < page or read[0].decided_at < wanted.since
        if plain or whole or len(found) >= wanted.limit:
            return found[-wanted.limit :]
        page *= 4


def find_conflict(sites: Sequence[str], opened: Open, number: int) -> tuple[str, RecordedConflict]:
    """The conflict of that number and its site. Raises SetupError when there is none."""
    for site in sites:
        with closing(opened(site)) as target:
            for recorded in target.list_conflicts(ids=[number], limit=1):
                return site, recorded
    raise SetupError(f"there is no conflict {number} on record", hint="see them with: replicator conflicts list")
