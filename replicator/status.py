"""How far every link is: asked of both databases now, never read from a flag.

A link's health is the age of the oldest change that is not at the centre, and the last time both sides answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from replicator.errors import ReplicatorError, RetryableError
from replicator.model import LinkName, LinkRecord
from replicator.ports import Source

_STALLED_SECONDS = 150.0
"""A working replicator leaves a proof at least every minute, also when nothing changes."""
_AT_ONCE = 8


class Health(StrEnum):
    """What is known about a link."""

    UP_TO_DATE = "up to date"
    BEHIND = "behind"
    STALLED = "stalled"
    """Behind, and nobody has moved it for minutes."""
    NEVER_RAN = "never ran"
    UNREACHABLE = "unreachable"
    """The site or the centre does not answer: nothing can be said."""
    BROKEN = "broken"
    """Both answer, but the next batch cannot be read until a person mends something."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A link now. Times are seconds, ``None`` where unknown.

    ``behind_seconds``: age of the oldest change not yet at the centre, parked ones apart; 0 when there is none.
    ``proof_seconds``: since the replicator last spoke to both sides. ``skew_seconds``: the site's clock minus the centre's.
    """

    link: LinkName
    health: Health
    behind_changes: int | None = None
    behind_seconds: float | None = None
    proof_seconds: float | None = None
    horizon_holder: str = ""
    changes: int = 0
    conflicts: int = 0
    parked: int = 0
    skew_seconds: float = 0.0
    problem: str = ""
    hint: str = ""

    def healthy(self, max_lag: float) -> bool:
        """Whether the link works, is less than ``max_lag`` seconds behind, and has nothing parked."""
        moving = self.health in (Health.UP_TO_DATE, Health.BEHIND)
        return moving and (self.behind_seconds or 0.0) <= max_lag and not self.parked


def read_status(link: LinkName, record: LinkRecord | None, open_source: Callable[[], Source], now: int) -> LinkStatus:
    """One link's status. ``record``: what the centre knows of it; ``now``: the centre's clock, microseconds.

    Read only on both sides. Errors of the tree become the status.
    """
    known = _recorded(link, record, now)
    try:
        with closing(open_source()) as source:
            return _ask(known, record, source)
    except ReplicatorError as error:
        health = Health.UNREACHABLE if isinstance(error, RetryableError) else Health.BROKEN
        if health is Health.BROKEN and known.health is Health.NEVER_RAN:
            health = Health.NEVER_RAN  # most likely it is not installed; the problem says so
        return replace(known, health=health, problem=error.message, hint=error.hint)


def read_all(
    links: Iterable[LinkName],
    records: Sequence[LinkRecord],
    open_source: Callable[[LinkName], Source],
    now: int,
    failed: Mapping[str, ReplicatorError],
) -> list[LinkStatus]:
    """Every link's status, several at a time. ``failed``: sites already known not to answer, with their error."""
    recorded = {record.link: record for record in records}

    def read(link: LinkName) -> LinkStatus:
        def opener() -> Source:
            if link.site in failed:
                raise failed[link.site]
            return open_source(link)

        return read_status(link, recorded.get(link), opener, now)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return list(pool.map(read, links))


def _recorded(link: LinkName, record: LinkRecord | None, now: int) -> LinkStatus:
    """What the centre alone can tell."""
    if record is None or not (record.recorded_at or record.position):
        return LinkStatus(link, Health.NEVER_RAN, parked=record.parked if record else 0)
    proof = max(now - record.recorded_at, 0) / 1e6
    return LinkStatus(
        link, Health.UP_TO_DATE, proof_seconds=proof, changes=record.changes, conflicts=record.conflicts,
        parked=record.parked, skew_seconds=record.skew_us / 1e6,
    )  # fmt: skip


def _ask(known: LinkStatus, record: LinkRecord | None, source: Source) -> LinkStatus:
    """Add what the site tells."""
    position = record.position if record else None
    identity = source.read_identity()
    lag = source.read_lag(position)
    age = max(source.read_clock() - lag.oldest_changed_at, 0) / 1e6 if lag.changes and lag.oldest_changed_at else 0.0
    found = replace(
        known, behind_changes=lag.changes, behind_seconds=age, horizon_holder=lag.horizon_holder if lag.changes else ""
    )
    if record is not None and record.source_identity not in ("", identity):
        return replace(
            found, health=Health.BROKEN, problem="the site's database is not the one this link was fed by",
            hint="correct its url in the YAML; a restored or re-created site has to be read anew",
        )  # fmt: skip
    with source.read_batch(position, 1):
        pass  # what stands in the way of the next batch is raised here
    if found.health is Health.UP_TO_DATE and lag.changes:
        stalled = (found.proof_seconds or 0.0) > _STALLED_SECONDS
        return replace(found, health=Health.STALLED if stalled else Health.BEHIND)
    return found
