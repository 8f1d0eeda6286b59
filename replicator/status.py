"""How far every link is: asked of both databases now, never read from a flag.

A link's health is the age of the oldest change that is not at its target, and the last time both sides answered. A site
that is away is shown from what the centre knows of it; it does not keep the others from being shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from replicator.errors import ReplicatorError, RetryableError, rejoin_hint
from replicator.model import LinkName, LinkRecord, Position, Standing, lineage
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
    """Nothing has been brought yet, whether or not both sides have answered."""
    UNREACHABLE = "unreachable"
    """The site or the centre does not answer: nothing, or only what the other knows, can be said."""
    BROKEN = "broken"
    """Both answer, but the next batch cannot be read until a person mends something."""
    EXPIRED = "expired"
    """Away for longer than the retention: changes it has not got may be gone, it must be read anew."""


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A link now. Times are seconds, ``None`` where unknown.

    ``behind_seconds``: age of the oldest change not yet at the target, parked ones apart; 0 when there is none, ``None`` also
    where nobody noted since when it waits.
    ``proof_seconds``: since the replicator last spoke to both sides. ``skew_seconds``: the source's clock minus the target's.
    ``undecided``: conflicts that wait for a person's decision.
    """

    link: LinkName
    health: Health
    behind_changes: int | None = None
    behind_seconds: float | None = None
    proof_seconds: float | None = None
    horizon_holder: str = ""
    alarm: str = ""
    changes: int = 0
    conflicts: int = 0
    undecided: int = 0
    parked: int = 0
    skew_seconds: float = 0.0
    problem: str = ""
    hint: str = ""

    @property
    def must_rejoin(self) -> bool:
        """Whether the link's history is cut: nothing moves, and nothing can be mended row by row, before the site rejoins."""
        return rejoin_hint(self.link.site) in self.hint

    def healthy(self, max_lag: float) -> bool:
        """Whether the link works, is less than ``max_lag`` seconds behind, and has nothing parked."""
        moving = self.health in (Health.UP_TO_DATE, Health.BEHIND)
        return moving and (self.behind_seconds or 0.0) <= max_lag and not self.parked


@dataclass(frozen=True, slots=True)
class Looks:
    """How a link is looked at.

    ``record``: what its target has on record of it, and the target's clock (microseconds); raises when it does not answer.
    ``source``: opens its source. ``planned``: whether the source knows what concerns the link (not where the site never
    answered).
    """

    link: LinkName
    record: Callable[[], tuple[LinkRecord | None, int]]
    source: Callable[[], Source]
    planned: bool = True


def read_status(looks: Looks) -> LinkStatus:
    """One link's status. Read only on both sides. Errors of the tree become the status."""
    known, away = LinkStatus(looks.link, Health.UNREACHABLE), None
    try:
        record, now = looks.record()
        known = _recorded(looks.link, record, now)
    except ReplicatorError as error:
        record, away = None, error
    try:
        with closing(looks.source()) as source:
            return _ask(known, record, source) if away is None else _ask_source(known, source, away, looks.planned)
    except ReplicatorError as error:
        return _troubled(known, away or error)


def read_all(links: Iterable[Looks]) -> list[LinkStatus]:
    """Every link's status, several at a time."""
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return list(pool.map(read_status, links))


def _troubled(known: LinkStatus, error: ReplicatorError) -> LinkStatus:
    health = Health.UNREACHABLE if isinstance(error, RetryableError) else Health.BROKEN
    if health is Health.BROKEN and known.health is Health.NEVER_RAN:
        health = Health.NEVER_RAN  # most likely it is not installed; the problem says so
    return replace(known, health=health, problem=error.message, hint=error.hint)


def _recorded(link: LinkName, record: LinkRecord | None, now: int) -> LinkStatus:
    """What the target alone can tell."""
    if record is None or not (record.recorded_at or record.position):
        return LinkStatus(link, Health.NEVER_RAN, parked=record.parked if record else 0)
    proof = max(now - record.recorded_at, 0) / 1e6
    return LinkStatus(
        link, Health.UP_TO_DATE, proof_seconds=proof, changes=record.changes, conflicts=record.conflicts,
        undecided=record.undecided, parked=record.parked, skew_seconds=record.skew_us / 1e6,
    )  # fmt: skip


def _behind(known: LinkStatus, source: Source, position: Position | None, standing: Standing | None) -> LinkStatus:
    """Add how much lies behind a position, and since when: what a new link has yet to read waits since its install."""
    lag = source.read_lag(position)
    since, age = lag.oldest_changed_at, 0.0 if position else None
    if position is None and standing is not None:
        since = since or standing.acknowledged_at
    if since or not lag.changes:
        age = max(source.read_clock() - since, 0) / 1e6 if lag.changes else 0.0
    return replace(
        known, behind_changes=lag.changes, behind_seconds=age, horizon_holder=lag.horizon_holder if lag.changes else "",
        alarm=lag.alarm,
    )  # fmt: skip


def _ask_source(known: LinkStatus, source: Source, away: ReplicatorError, planned: bool) -> LinkStatus:
    """The target does not answer: its source knows what it acknowledged last, and when, and what lies behind that."""
    found = _troubled(known, away)
    standing = source.read_standing()
    if standing is None:
        return found
    proof = max(source.read_clock() - standing.acknowledged_at, 0) / 1e6
    found = replace(found, proof_seconds=proof)
    if standing.expired:
        return replace(found, health=Health.EXPIRED)
    return _behind(found, source, standing.position, standing) if planned else found


def _ask(known: LinkStatus, record: LinkRecord | None, source: Source) -> LinkStatus:
    """Add what the source tells."""
    position = record.position if record else None
    identity = source.read_identity()
    fed_by = record.source_identity if record else ""
    if fed_by and lineage(fed_by) != lineage(identity):
        return _another(known)
    standing = source.read_standing()
    expired = standing is not None and standing.expired
    if not expired:  # first: what an older database tells otherwise says nothing
        proven = source.prove_history(position, record.stamp if record else "", "")
        if not proven and fed_by not in ("", identity):
            return _another(known)
    found = _behind(known, source, position, standing)
    if expired:
        return replace(
            found, health=Health.EXPIRED, problem="the link stayed away longer than the retention",
            hint=f"changes it has not got may be gone; {rejoin_hint(known.link.site)}",
        )  # fmt: skip
    with source.read_batch(position, 1):
        pass  # what stands in the way of the next batch is raised here
    if found.health is Health.UP_TO_DATE and found.behind_changes:
        if position is None:
            return replace(found, health=Health.NEVER_RAN)
        stalled = (found.proof_seconds or 0.0) > _STALLED_SECONDS
        return replace(found, health=Health.STALLED if stalled else Health.BEHIND)
    return found


def _another(known: LinkStatus) -> LinkStatus:
    """A link whose source is another database than before, or another history of it."""
    return replace(
        known, health=Health.BROKEN, problem="the source's database is not the one this link was fed by",
        hint=f"correct its url in the YAML if it names the wrong database; else {rejoin_hint(known.link.site)}",
    )  # fmt: skip
