"""Conflicts and policies → decisions. Pure: no database, no clock, no settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replicator.model import Conflict, ConflictKind, Decision, PolicyName, Prefer, Verdict
from replicator.policy import judge, policy_for
from replicator.reasons import found

UNCHANGED = "unchanged"
"""The rule, whatever the table's policy, where the site changed nothing: the centre's row stays, off the record."""

RESYNC = "resync"
"""The rule where a backfill says whose rows stand; on record, as it overrules the table's policy."""

BACKFILL = "backfill"
"""The rule for a change of a row that a backfill has yet to bring: the change brings it, off the record."""


def decide(conflicts: Iterable[Conflict]) -> Iterator[Decision]:
    """One decision per conflict, lazily and in order, so that a batch of conflicts never sits in memory.

    Raises KeyError when a conflict names a policy that does not exist: settings refuse those before.
    """
    for conflict in conflicts:
        decision = decide_backfill(conflict)
        if decision is not None:
            yield decision
            continue
        if conflict.untouched:
            yield Decision(
                conflict, Verdict.KEEP, UNCHANGED, "the site changed nothing: the centre's row stays", on_record=False
            )
            continue
        name = policy_for(conflict)
        said = judge(conflict, name)
        if said.verdict is Verdict.PARK and is_settled(conflict, name):
            yield Decision(
                conflict, Verdict.APPLY, str(name), "both sides have the same row: there is nothing to decide"
            )
            continue
        yield Decision(conflict, said.verdict, str(name), said.reason, said.result, said.unsure)


def decide_backfill(conflict: Conflict) -> Decision | None:
    """What a backfill says of a conflict; ``None`` where the table's policy is to decide.

    While a table is loaded, a change whose row is missing is no conflict: the row was not brought yet, and the chunk that
    would bring it passes it over for the change. So the change brings it whatever the policy, even one that says the centre's
    rows stay (it has none), and even where it left the row as it was (``untouched``). A row that is known to have been deleted
    (ConflictKind.UPDATE_DELETED) is not meant.
    """
    if conflict.loading and conflict.kind is ConflictKind.UPDATE_MISSING and conflict.after is not None:
        why = "the table is being loaded and the row was not brought yet: the change brings it"
        return Decision(conflict, Verdict.APPLY, BACKFILL, why, on_record=False)
    if conflict.loaded is Prefer.OWN and conflict.current_origin == conflict.site != "" and not conflict.untouched:
        why = "the centre has what this site sent last, and the site has another row now: the site's stands"
        return Decision(conflict, Verdict.APPLY, RESYNC, why)
    if conflict.loaded is Prefer.SOURCE:
        return Decision(conflict, Verdict.APPLY, RESYNC, f"{found(conflict)}; the backfill: the source's rows stand")
    if conflict.loaded is Prefer.TARGET:
        return Decision(conflict, Verdict.KEEP, RESYNC, f"{found(conflict)}; the backfill: the target's rows stand")
    return None


def is_settled(conflict: Conflict, name: PolicyName) -> bool:
    """Whether both sides have the same row, so that nobody need be asked. Counters are not: each side has counted."""
    if conflict.after is None or conflict.current is None:
        return conflict.after is None and conflict.current is None
    if conflict.policy.adds and name is PolicyName.MERGE_COLUMNS:
        return False
    return all(
        column in conflict.current and conflict.current[column] == value for column, value in conflict.after.items()
    )
