"""One cycle of one link, top to bottom: read, stage, apply, decide, record, acknowledge.

SQL finds, Python decides, SQL applies. The clean mass of a batch never becomes Python objects; only conflicting rows do.
A batch is one target transaction, so a crash at any line changes nothing but time (invariant 3); a row the database
refuses is parked alone, and everything else of the batch is applied (invariant 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replicator.decide import decide
from replicator.errors import RejectedError
from replicator.model import Outcome, Span
from replicator.ports import Source, Target

_NAMED = 20
"""Healed rows that are named."""


@dataclass(frozen=True, slots=True)
class Healing:
    """What ``heal`` did: rows applied, and rows that stay parked. ``rows``: the first of those applied, as table and key."""

    healed: int
    refused: int
    rows: tuple[str, ...] = ()


def run_once(source: Source, target: Target, limit: int, *, load: bool = True) -> Outcome | None:
    """Move one batch of about ``limit`` changes. ``None`` when there is nothing to move.

    With ``load``, the next chunk of a backfill goes with it, if the target wants one and no backlog of changes is ahead of it.

    Raises what ports.Source and ports.Target raise; nothing is applied then.
    """
    position = target.read_position()
    with source.read_batch(position, limit, target.next_chunk() if load else None) as batch:
        if batch is None:
            return None
        with target.transaction():
            target.stage_batch(batch)
            apply_spans(target)
            outcome = target.record_batch(batch)
    source.acknowledge_batch(outcome.upto)
    return outcome


def apply_spans(target: Target) -> None:
    """Apply the staged batch whole; else without the rows refused at once; else, when constraints fail, span by span.

    Constraints that can wait are checked at the end, as they were at the source: pieces of a batch need not satisfy
    them, so checking pieces would park rows that are right (a child ahead of its parent, two that swap a unique value).
    """
    spans = target.spans()
    if len(spans) == 1 and try_span(target, spans[0]) is None:
        return
    if target.checks_whole and spans and try_whole(target, spans) is None:
        return
    for span in target.spans():
        apply_span(target, span)


def try_whole(target: Target, spans: Sequence[Span]) -> RejectedError | None:
    """Apply all spans under a savepoint and check constraints last; why they fail, and nothing is applied then."""
    try:
        with target.savepoint():
            for span in spans:
                apply_span(target, span, check=False)
            target.check_constraints()
    except RejectedError as error:
        return error
    return None


def apply_span(target: Target, span: Span, *, check: bool = True) -> None:
    """Apply a span as one set; when the database refuses it, apply its halves, down to the one change to park."""
    refused = try_span(target, span, check=check)
    if refused is None:
        return
    if span.single:
        target.park(span, refused)
        return
    for half in target.halve(span):
        apply_span(target, half, check=check)


def try_span(target: Target, span: Span, *, check: bool = True) -> RejectedError | None:
    """Apply a span under a savepoint; what the database said when it refused, and nothing is applied then."""
    try:
        with target.savepoint():
            target.apply_clean(span)
            target.apply_decisions(decide(target.find_conflicts(span)))
            if check:
                target.check_constraints()
    except RejectedError as error:
        return error
    return None


def retry_parked(target: Target, *parked_ids: int) -> bool:
    """Try parked changes of one row again, as one net change in a transaction of its own.

    False when the row was refused again: all stay parked, the first with the new cause.
    """
    with target.transaction():
        target.stage_parked(parked_ids)
        (span,) = target.spans()
        refused = try_span(target, span)
        if refused is not None:
            target.park(span, refused)
    return refused is None


def heal(target: Target, limit: int) -> Healing:
    """Try parked rows whose cause may have gone, ``limit`` at a time, and all again while any of them was applied.

    A row that goes in may be what others waited for: the parent of a child, the holder of a unique value that leaves it.
    Each row is a transaction of its own, so one that is refused again harms no other.
    """
    done = Healing(0, 0)
    while True:
        queues = target.list_queues(limit)
        named = target.list_parked(ids=[queue[0] for queue in queues[:_NAMED]]) if queues else ()
        rows = {change.id: f"{change.table} {change.key}" for change in named}
        healed = [queue[0] for queue in queues if retry_parked(target, *queue)]
        told = (*done.rows, *(rows[number] for number in healed if number in rows))
        done = Healing(done.healed + len(healed), len(queues) - len(healed), told[:_NAMED])
        if not healed:
            return done
