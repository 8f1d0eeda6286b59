"""Why a conflict was decided as it was, in words for people: places, moments, and how far apart they are. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from replicator.model import Conflict, ConflictKind

CENTRE = "centre"
"""How a conflict's origins spell the centre."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HAPPENED = {
    ConflictKind.INSERT_EXISTS: "{site} inserted a row that is already at the centre",
    ConflictKind.UPDATE_DIFFERS: "{site} changed the row from a state the centre does not have",
    ConflictKind.UPDATE_MISSING: "{site} changed a row that is not at the centre",
    ConflictKind.UPDATE_DELETED: "{site} changed a row that was deleted at the centre",
    ConflictKind.DELETE_DIFFERS: "{site} deleted the row from a state the centre does not have",
    ConflictKind.DELETE_MISSING: "{site} deleted a row that is not at the centre",
}


def found(conflict: Conflict) -> str:
    """What made the conflict, where it is about a row that a backfill brought."""
    site = place(conflict.site)
    if conflict.after is None:
        return f"the centre has a row that {site} does not have"
    return (
        f"{site} has {'another row than' if conflict.current is not None else 'a row that was deleted at'} the centre"
    )


def happened(conflict: Conflict) -> str:
    """What made the conflict."""
    if conflict.loaded is not None:
        return found(conflict)
    return _HAPPENED[conflict.kind].format(site=place(conflict.site))


def place(name: str, unknown: str = "the site") -> str:
    """A place of the topology in a sentence."""
    return "the centre" if name == CENTRE else name or unknown


def writer(conflict: Conflict) -> str:
    """Who wrote the centre's row last, in a sentence."""
    return place(conflict.current_origin, "the centre")


def moment(microseconds: int) -> str:
    """A hybrid time as a UTC moment, to the millisecond; beyond the calendar, as a number; 0: a time nobody knows."""
    if not microseconds:
        return "an unknown time"
    second, rest = divmod(microseconds, 1_000_000)
    try:
        return f"{_second(second)}.{rest // 1000:03} UTC"
    except OverflowError:
        return f"{microseconds} µs"


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    return f"{_EPOCH + timedelta(seconds=second):%Y-%m-%d %H:%M:%S}"


def span(microseconds: int) -> str:
    """A length of time, whatever its sign, in one or two units."""
    size = abs(microseconds)
    if size < 1_000:
        return f"{size} µs"
    if size < 1_000_000:
        return f"{size / 1_000:.3g} ms"
    if size < 60_000_000:
        return f"{size / 1_000_000:.3g} s"
    minutes = size // 60_000_000
    if minutes < 60:
        return f"{minutes} min {size // 1_000_000 % 60} s"
    if minutes < 2_880:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1_440} days {minutes // 60 % 24} h"
