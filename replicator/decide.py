"""Conflicts and policies → decisions. Pure: no database, no clock, no settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replicator.model import Conflict, Decision, PolicyName, Verdict
from replicator.policy import judge, policy_for

UNCHANGED = "unchanged"
"""The rule, whatever the table's policy, where the site changed nothing: the centre's row stays, off the record."""


def decide(conflicts: Iterable[Conflict]) -> Iterator[Decision]:
    """One decision per conflict, lazily and in order, so that a batch of conflicts never sits in memory.

    Raises KeyError when a conflict names a policy that does not exist: settings refuse those before.
    """
    for conflict in conflicts:
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


def is_settled(conflict: Conflict, name: PolicyName) -> bool:
    """Whether both sides have the same row, so that nobody need be asked. Counters are not: each side has counted."""
    if conflict.after is None or conflict.current is None:
        return conflict.after is None and conflict.current is None
    if conflict.policy.adds and name is PolicyName.MERGE_COLUMNS:
        return False
    return all(
        column in conflict.current and conflict.current[column] == value for column, value in conflict.after.items()
    )
