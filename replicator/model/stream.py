"""What travels and what became of it: spans, conflicts, decisions, outcomes, parked changes, link records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replicator.model.plan import LinkName
from replicator.model.words import ConflictKind, Engine, Op, ParkedState, PolicyName, Position, Verdict


@dataclass(frozen=True, slots=True)
class Span:
    """A closed range of staged ordinals applied as one set; ``exact`` spans hold one barrier (key update, TRUNCATE)."""

    low: int
    high: int
    count: int

    @property
    def single(self) -> bool:
        """Whether the span cannot be halved."""
        return self.count <= 1


@dataclass(frozen=True, slots=True)
class Conflict:
    """A staged change that does not fit the row it meets.

    ``before``, ``after`` and ``current`` are images in the target's columns (``None``: no row); ``before`` is ``None``
    also where the source gives no before image. ``key`` is the target's key as text.
    """

    ord: int
    relation: int
    table: str
    key: str
    kind: ConflictKind
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    current: Mapping[str, object] | None
    changed_at: int
    policy: PolicyName


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one conflict: verdict, the rule that gave it, and why, in words."""

    conflict: Conflict
    verdict: Verdict
    rule: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What one batch did at the target. ``net`` rows changed, ``changes`` outbox rows read."""

    upto: Position
    changes: int = 0
    net: int = 0
    conflicts: int = 0
    parked: int = 0
    more: bool = False
    """Whether the source has more to read at once (a backlog)."""
    newest_changed_at: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a link is behind, as its source sees it. ``oldest_changed_at``: microseconds since 1970, 0 when none."""

    changes: int
    oldest_changed_at: int
    horizon_holder: str = ""
    """Who holds the horizon back (PostgreSQL: pid, user and age of the oldest open transaction), empty when nobody."""


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """A change set aside with its cause; see ``sql/README.md`` for the states. ``before``/``after`` are column → text."""

    id: int
    link: str
    table: str
    key: str
    op: Op
    state: ParkedState
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    sqlstate: str
    cause: str
    parked_at: int
    attempts: int


@dataclass(frozen=True, slots=True)
class RecordedConflict:
    """A conflict as it was decided and put on record. ``kind`` is a ConflictKind, or ``parked`` for a dropped change.

    ``before``, ``after`` and ``current`` are column → text, ``None`` for no row (or no before image).
    """

    id: int
    table: str
    key: str
    kind: str
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    current: Mapping[str, object] | None
    changed_at: int
    policy: str
    verdict: str
    reason: str
    decided_at: int


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """What the target knows about a link: the last proof."""

    link: LinkName
    position: Position | None
    source_identity: str
    recorded_at: int
    changes: int
    conflicts: int
    parked: int
    skew_us: int
    newest_changed_at: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``check``: what was looked at, whether it is right, and the fix when it is not."""

    place: str
    subject: str
    ok: bool
    message: str
    fix: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class PlannedStatement:
    """One statement ``install`` runs: why, its text, and the object it makes."""

    purpose: str
    sql: str
    object: str


@dataclass(frozen=True, slots=True)
class DatabasePlan:
    """All statements for one database in order; ``fingerprint`` is stable for equal plans; empty = nothing to do."""

    place: str
    engine: Engine
    statements: tuple[PlannedStatement, ...]
    fingerprint: str
    leftovers: tuple[str, ...] = field(default=())
    """Objects of ours whose table the YAML no longer names: shown, never dropped (invariant 11)."""
