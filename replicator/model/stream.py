"""What travels and what became of it: spans, conflicts, decisions, outcomes, parked changes, link records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replicator.model.backfill import Chunk, Prefer
from replicator.model.catalogue import TableName
from replicator.model.plan import LinkName, PolicyPlan
from replicator.model.words import ConflictKind, Engine, Op, ParkedState, Position, Verdict


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

    ``before`` (the base: what the site started from), ``after`` and ``current`` are images in the target's columns, column →
    text (``None``: no row); ``before`` is ``None`` also where the base is known by its checksum only (``based`` is false).
    ``key`` is the target's key as text. ``site`` made the change, at ``changed_at`` (hybrid time).
    ``current_origin`` wrote the current row last, or deleted it (a site's name, ``centre``, or empty: not known), at
    ``current_at`` (0: not known). ``clock_error_us``: how far the two clocks may be apart. ``answer``: what the table's SQL
    rule said. ``untouched``: the site left the row as it had found it, or (a row that is loaded) had not seen what stands here,
    so there is nothing of its own to bring. ``loaded``: the change is a row of a backfill's chunk (see Prefer), ``loading``:
    a change of a table that is being backfilled.
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
    policy: PolicyPlan
    site: str = ""
    based: bool = True
    current_origin: str = ""
    current_at: int = 0
    clock_error_us: int = 0
    answer: str = ""
    untouched: bool = False
    loaded: Prefer | None = None
    loading: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one conflict: verdict, the rule that gave it, and why, in words.

    ``result`` is the row a MERGE makes (the target's columns → text). ``unsure``: the times were closer than the clocks are
    known. ``on_record``: whether it is counted and recorded; what was no conflict after all is only carried out.
    """

    conflict: Conflict
    verdict: Verdict
    rule: str
    reason: str
    result: Mapping[str, str | None] | None = None
    unsure: bool = False
    on_record: bool = True


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
    chunk: Chunk | None = None
    """What it brought of a backfill."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a link is behind, as its source sees it. ``oldest_changed_at``: microseconds since 1970, 0 when none."""

    changes: int
    oldest_changed_at: int
    horizon_holder: str = ""
    """Who holds the horizon back (PostgreSQL: pid, user and age of the oldest open transaction), empty when nobody."""
    alarm: str = ""
    """What threatens changes that were not read yet, such as a replication slot near its limit; empty when nothing does."""


@dataclass(frozen=True, slots=True)
class ParkedChange:
    """A change set aside with its cause; see ``sql/README.md`` for the states. ``before``/``after`` are column → text.

    ``conflict``: the recorded conflict its row waits with for a person (0: none).
    """

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
    conflict: int = 0


@dataclass(frozen=True, slots=True)
class RecordedConflict:
    """A conflict as it was decided and put on record. ``kind`` is a ConflictKind, or ``parked`` for a dropped change.

    ``before``, ``after``, ``current`` and ``result`` are column → text, ``None`` for no row (or no before image; ``based``
    tells). ``result`` is the row the decision left. ``state``: ``decided``, ``waiting`` (for a person) or ``resolved``;
    ``resolution`` says how, ``parked`` is the parked change that waits with it (0: none).
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
    site: str = ""
    based: bool = True
    result: Mapping[str, object] | None = None
    current_origin: str = ""
    current_at: int = 0
    clock_error_us: int = 0
    unsure: bool = False
    state: str = "decided"
    resolution: str = ""
    parked: int = 0


@dataclass(frozen=True, slots=True)
class RowEvent:
    """One thing that is known about a row: where it is on record, when it happened, who did what.

    ``source``: ``outbox``, ``ledger``, ``conflict`` or ``parked``. ``origin``: who wrote it. ``image``: column → text, where
    it is on record.
    """

    source: str
    at: int
    origin: str
    what: str
    image: Mapping[str, object] | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CapturedChange:
    """One change in a source's outbox: its number there, table, key values as text, and what is known of it.

    ``passed``: whether it lies before the position it was asked for.
    """

    number: int
    table: str
    key: tuple[str, ...]
    event: RowEvent
    passed: bool


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """What the target knows about a link: the last proof. ``undecided``: conflicts that wait for a person.

    ``stamp``: of the batch that ``position`` ended (ports.Batch.stamp).
    """

    link: LinkName
    position: Position | None
    source_identity: str
    recorded_at: int
    changes: int
    conflicts: int
    parked: int
    skew_us: int
    newest_changed_at: int
    undecided: int = 0
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a source knows about a link: the position acknowledged last, when (microseconds since 1970, the source's clock).

    ``expired``: it stayed away longer than the retention, pruning no longer waits for it.
    """

    position: Position
    acknowledged_at: int
    expired: bool


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
    """One statement ``install`` runs: why, its text, and the object it makes.

    ``queues``: the table all of whose rows it puts into the outbox, or has the reader read as if they were there.
    ``gives_up``: it ends the capture of a table that is gone, with what waits of it: only a person's install runs it.
    """

    purpose: str
    sql: str
    object: str
    queues: TableName | None = None
    gives_up: bool = False


@dataclass(frozen=True, slots=True)
class DatabasePlan:
    """All statements for one database in order; ``fingerprint`` is stable for equal plans; empty = nothing to do."""

    place: str
    engine: Engine
    statements: tuple[PlannedStatement, ...]
    fingerprint: str
    leftovers: tuple[str, ...] = field(default=())
    """Objects of ours whose table the YAML no longer names: shown, never dropped (invariant 11)."""
    unqueued: tuple[TableName, ...] = ()
    """Tables that will be captured although nothing here brings the rows they have: somebody else sees to these."""

    @property
    def queued(self) -> tuple[TableName, ...]:
        """Tables whose rows go into the outbox, in order."""
        return tuple(step.queues for step in self.statements if step.queues is not None)
