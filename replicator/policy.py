"""Conflict policies: each a small pure function from one conflict to a verdict and its reason.

A policy is deterministic and total: the same conflict always gets the same answer, on every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from replicator.model import Conflict, PolicyName, Verdict

Policy = Callable[[Conflict], tuple[Verdict, str]]


def source_wins(conflict: Conflict) -> tuple[Verdict, str]:
    """The site's change is applied whatever stands at the centre."""
    return Verdict.APPLY, f"{conflict.kind}: the site's change replaces what the centre has"


def centre_wins(conflict: Conflict) -> tuple[Verdict, str]:
    """The centre's row stays as it is (a row missing there stays missing)."""
    return Verdict.KEEP, f"{conflict.kind}: the centre's row stays"


POLICIES: Mapping[PolicyName, Policy] = {
    PolicyName.SOURCE_WINS: source_wins,
    PolicyName.CENTRE_WINS: centre_wins,
}
