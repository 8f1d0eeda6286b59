"""Recorded conflicts decided again with another policy: what would have become of them, and doing it if told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from replicator.conflicts.record import DROPPED, RESOLVED, WAITING, Row, equals, left_row, row_after, to_conflict
from replicator.conflicts.resolve import row_queue
from replicator.decide import decide
from replicator.errors import RejectedError, SetupError
from replicator.model import Decision, Engine, PolicyName, PolicyPlan, RecordedConflict, Verdict
from replicator.ports import Target

_BY_ENGINE = {PolicyName.POSTGRESQL_WINS: Engine.POSTGRES, PolicyName.SQLITE_WINS: Engine.SQLITE}


@dataclass(frozen=True, slots=True)
class Redone:
    """One recorded conflict under another policy.

    ``row``: what the row would be. ``differs``: from what the decision left. ``obstacle``: why it cannot be put there now,
    empty where it can.
    """

    site: str
    recorded: RecordedConflict
    decision: Decision | None
    row: Row | None
    differs: bool
    obstacle: str = ""

    @property
    def can_apply(self) -> bool:
        """Whether there is something to do, and nothing in its way."""
        return self.decision is not None and not self.obstacle and (self.differs or self.recorded.state == WAITING)


def other_plan(plan: PolicyPlan, name: PolicyName, source: Engine, centre: Engine, table: str = "") -> PolicyPlan:
    """A table's plan with another policy for every kind; its columns, order of sites and the rest stay.

    ``table`` is named in messages. Raises SetupError for what cannot be asked of a record: a person, a SQL rule, or a rule
    the table does not have.
    """
    if name in _BY_ENGINE:
        if source is centre:
            raise SetupError(
                f"{name} does not say who wins: the site and the centre are both {centre}",
                hint="use source_wins or centre_wins",
            )
        name = PolicyName.SOURCE_WINS if source is _BY_ENGINE[name] else PolicyName.CENTRE_WINS
    if name is PolicyName.RULE and not plan.python:
        raise SetupError(
            "a SQL rule is asked while the rows are in the database, not of a record",
            hint="write the rule as a Python callable (python: module:callable), or use another policy",
        )
    if name is PolicyName.SITE_PRIORITY and not plan.priority:
        raise SetupError(
            f"the policy of {table or 'the table'} has no order of sites",
            hint="write it in the YAML, in the rule of that table: policy: {name: site_priority, priority: [centre, SITE, …]}",
        )
    if name in (PolicyName.MANUAL, PolicyName.ADD):
        hint = "use another policy; for one conflict: replicator conflicts resolve ID"
        raise SetupError(f"{name} decides nothing about a whole row", hint=hint)
    return replace(plan, name=name, kinds=())


def redo(
    site: str, target: Target, conflicts: Iterable[RecordedConflict], plan_of: Callable[[str], PolicyPlan]
) -> Iterator[Redone]:
    """What another policy says of one link's conflicts, in order. Read only.

    Only the newest conflict of a row can be put there; the row must be as its decision left it, and not be settled by a
    person.
    """
    recorded = [each for each in conflicts if each.kind != DROPPED]
    last = {(each.table, each.key): each.id for each in recorded}
    for each in recorded:
        (decision,) = decide([to_conflict(each, plan_of(each.table), site)])
        row = row_after(decision.verdict, each.after, each.current, decision.result)
        obstacle = _obstacle(target, each, decision, newest=last[each.table, each.key] == each.id)
        yield Redone(site, each, decision, row, not equals(row, left_row(each)), obstacle)


def _obstacle(target: Target, recorded: RecordedConflict, decision: Decision, *, newest: bool) -> str:
    if decision.verdict is Verdict.PARK:
        return "it leaves the decision to a person"
    if recorded.state == RESOLVED:
        return "a person has resolved it"
    if not newest:
        return "the row had a later conflict"
    if not equals(left_row(recorded), target.read_row(recorded.table, recorded.key)):
        return "the row has changed since"
    if recorded.state == WAITING and row_queue(target.list_parked(table=recorded.table), recorded):
        return "later changes of the row wait behind it: resolve it by hand"
    return ""


def apply_redone(target: Target, redone: Redone) -> tuple[bool, str]:
    """Put the row there that the other policy makes; false, and why, when the row has moved on or is refused."""
    assert redone.decision is not None
    words = f"redone with {redone.decision.rule}: {redone.decision.reason}"
    try:
        done = target.settle_conflict(redone.recorded.id, _row(redone), words, expected=True)
    except RejectedError as error:
        return False, error.message
    return done, "" if done else "the row has changed since"


def _row(redone: Redone) -> Mapping[str, str | None] | None:
    """The row in the columns both sides share: what only the centre has stays as it is."""
    shared = redone.recorded.after if redone.recorded.after is not None else redone.row
    return None if redone.row is None or shared is None else {name: redone.row[name] for name in shared}
