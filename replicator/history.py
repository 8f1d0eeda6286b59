"""One row's history: what every place's ledger, conflicts, parked changes and outbox know of it, by time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from replicator.errors import ReplicatorError
from replicator.model import LinkName, RowEvent
from replicator.ports import Source, Target


@dataclass(frozen=True, slots=True)
class Look:
    """Where something may be known: one end of a link, and how the row is called there.

    ``place`` is the database at that end. ``key``: the row's key values there, as text.
    """

    link: LinkName
    place: str
    table: str
    key: tuple[str, ...]
    opened: Callable[[], Source | Target]


@dataclass(frozen=True, slots=True)
class Known:
    """One thing that is known of a row, and the database it is on record in."""

    place: str
    link: LinkName
    event: RowEvent


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a row, oldest first, and the places that did not answer, with their error."""

    known: tuple[Known, ...]
    failed: tuple[tuple[str, ReplicatorError], ...]


def read_history(looks: Iterable[Look]) -> History:
    """Ask every place. One that does not answer is told, and does not keep the others from being asked. Read only."""
    known: list[Known] = []
    failed: dict[str, ReplicatorError] = {}
    for look in looks:
        if look.place in failed:
            continue
        try:
            with closing(look.opened()) as end:
                found = end.read_history(look.table, look.key)
        except ReplicatorError as error:
            failed[look.place] = error
            continue
        known += [Known(look.place, look.link, event) for event in _new(found, look.place, known)]
    return History(tuple(sorted(known, key=lambda each: each.event.at)), tuple(failed.items()))


def _new(found: Sequence[RowEvent], place: str, known: Sequence[Known]) -> list[RowEvent]:
    """Without what another link of the same place has told already: some records are the table's, not a link's."""
    told = [each.event for each in known if each.place == place]
    return [event for event in found if event not in told]
