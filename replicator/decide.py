"""Conflicts and policies → decisions. Pure: no database, no clock, no settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from replicator.model import Conflict, Decision, PolicyName
from replicator.policy import POLICIES, Policy


def decide(conflicts: Iterable[Conflict], policies: Mapping[PolicyName, Policy] = POLICIES) -> Iterator[Decision]:
    """One decision per conflict, lazily and in order, so that a batch of conflicts never sits in memory.

    Raises KeyError when a conflict names a policy that does not exist: settings refuse those before.
    """
    for conflict in conflicts:
        verdict, reason = policies[conflict.policy.name](conflict)
        yield Decision(conflict, verdict, str(conflict.policy.name), reason)
