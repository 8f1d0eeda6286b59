"""The story of one decision in sentences: who wrote what and when, what the rule said, what would have changed it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from replicator.conflicts.record import DROPPED, RESOLVED, WAITING, equals, left_row, row_after, sides, to_conflict
from replicator.decide import decide
from replicator.merging import text
from replicator.model import Conflict, PolicyName, PolicyPlan, RecordedConflict, Verdict
from replicator.policy import policy_for, settle_columns
from replicator.reasons import happened, moment, place, span, writer

_VERDICTS = {
    Verdict.APPLY: "The site's change was applied.",
    Verdict.KEEP: "The centre's row was kept.",
    Verdict.MERGE: "Both were merged.",
    Verdict.PARK: "The change was set aside for a person; the centre's row stayed, and later changes of the row wait.",
}
_OTHERS = (PolicyName.SOURCE_WINS, PolicyName.CENTRE_WINS, PolicyName.NEWEST_WINS, PolicyName.MERGE_COLUMNS,
           PolicyName.SITE_PRIORITY)  # fmt: skip
_LONGEST = 60
_FUTURE_US = 60_000_000


def explain(recorded: RecordedConflict, plan: PolicyPlan | None, site: str = "") -> Iterator[str]:
    """The story of a recorded conflict. ``plan``: the table's policy as the YAML has it now (None: not known).

    ``site``: the link's, where the record names none.
    """
    if recorded.kind == DROPPED:
        yield f"A parked change of {recorded.table} {recorded.key} was dropped at {moment(recorded.decided_at)}."
        yield f"Why: {recorded.reason}."
        return
    conflict = to_conflict(recorded, plan or PolicyPlan(), site)
    yield f"{_upper(happened(conflict))}: {recorded.table} {recorded.key}."
    yield from _what(conflict)
    yield from _when(conflict)
    yield from _ahead(conflict, recorded.decided_at)
    yield f"{_rule(recorded, plan)} decided at {moment(recorded.decided_at)}: {recorded.reason}."
    if plan is not None:
        yield from _columns(recorded, conflict)
    yield _VERDICTS[Verdict(recorded.verdict)]
    yield f"The row was then: {image(left_row(replace(recorded, state='decided')))}."
    if recorded.state == WAITING:
        yield f"It still waits for a person: replicator conflicts resolve {recorded.id} --take {sides(recorded)}"
    elif recorded.state == RESOLVED:
        yield f"A person has settled it since: {recorded.resolution}. The row was then: {image(left_row(recorded))}."
    yield from _what_if(recorded, conflict)


def _rule(recorded: RecordedConflict, plan: PolicyPlan | None) -> str:
    """The rule that decided, with the name the YAML has for it where that says it by engine."""
    if plan is not None and plan.by_engine and plan.name == recorded.policy:
        return f"{plan.by_engine}, which is {recorded.policy} here,"
    return recorded.policy


def _what(conflict: Conflict) -> Iterator[str]:
    site = place(conflict.site)
    if conflict.before is not None:
        yield f"{_upper(site)} started from: {image(conflict.before)}."
    elif conflict.based:
        yield f"{_upper(site)} started from no row."
    else:
        yield f"What {site} started from is known by its checksum only; it was not what the centre had."
    did = f"{_upper(site)} deleted it" if conflict.after is None else f"{_upper(site)} wrote: {image(conflict.after)}"
    yield f"{did}, at {moment(conflict.changed_at)}."


def _when(conflict: Conflict) -> Iterator[str]:
    had = "no row" if conflict.current is None else image(conflict.current)
    if not conflict.current_at:
        yield f"The centre had: {had}. Who wrote that, and when, is not on record."
        return
    did = "deleted" if conflict.current is None else "written"
    yield f"The centre had: {had}, {did} by {writer(conflict)} at {moment(conflict.current_at)}."
    apart = conflict.changed_at - conflict.current_at
    order = "at the same time" if not apart else f"{span(apart)} {'later' if apart > 0 else 'earlier'}"
    told = f"By the clocks, {place(conflict.site)} wrote {order}"
    if conflict.clock_error_us:
        sure = "so the order is not certain" if abs(apart) <= conflict.clock_error_us else "so the order is certain"
        yield f"{told}; the clocks were known to {span(conflict.clock_error_us)}, {sure}."
    else:
        yield f"{told}; no error of the clocks was measured."


def _ahead(conflict: Conflict, now: int) -> Iterator[str]:
    """Times that lay in the future when the decision was made."""
    times = ((place(conflict.site), conflict.changed_at), (writer(conflict), conflict.current_at))
    for who, at in dict(times).items():
        if at - now > _FUTURE_US:
            yield (
                f"{_upper(who)}'s time lay {span(at - now)} in the future: a clock ran ahead, there or where changes came "
                "from. Until then such a time is later than any that places with right clocks write."
            )


def _columns(recorded: RecordedConflict, conflict: Conflict) -> Iterator[str]:
    """Column by column, where the table's policy still says of the record what it said then."""
    (again,) = decide([conflict])
    if (again.rule, again.verdict, again.reason) != (recorded.policy, recorded.verdict, recorded.reason):
        same = (again.rule, again.verdict) == (recorded.policy, recorded.verdict)
        yield f"The table's policy is now {again.rule}: it would say {'the same' if same else again.verdict}."
        return
    if policy_for(conflict) is not PolicyName.MERGE_COLUMNS:
        return
    for each in settle_columns(conflict):
        rows = f"base {_value(each.column.base) if each.column.based else 'none'}, site {_value(each.column.site)}, "
        becomes = "would become" if recorded.verdict == Verdict.PARK else "became"
        ends = "waits" if each.parks else f"{becomes} {_value(each.value)}"
        yield f"Column {each.column.name}: {rows}centre {_value(each.column.centre)}; {each.why}; it {ends}."


def _what_if(recorded: RecordedConflict, conflict: Conflict) -> Iterator[str]:
    """Which other policies would have ended with another row, and by how much time the newest was the newest."""
    left = left_row(replace(recorded, state="decided"))
    for name in _OTHERS:
        plan = replace(conflict.policy, name=name, kinds=())
        if name is PolicyName.SITE_PRIORITY and not plan.priority:
            continue
        (other,) = decide([replace(conflict, policy=plan)])
        row = row_after(other.verdict, conflict.after, conflict.current, other.result)
        if other.verdict is Verdict.PARK:
            if recorded.verdict != Verdict.PARK:
                yield f"With {name} it would have waited for a person."
        elif not equals(row, left) or recorded.verdict == Verdict.PARK:
            yield f"With {name} the row would have become: {image(row)}."
    apart = conflict.changed_at - conflict.current_at
    if conflict.current_at and recorded.policy == PolicyName.NEWEST_WINS:
        loser = writer(conflict) if apart > 0 else place(conflict.site)
        yield f"{_upper(loser)} would have won had it written more than {span(apart)} later."


def image(row: Mapping[str, object] | None) -> str:
    """A row on one line, long values cut."""
    if row is None:
        return "no row"
    return ", ".join(f"{name} = {_value(text(value))}" for name, value in row.items()) or "no columns"


def _value(value: str | None) -> str:
    if value is None:
        return "NULL"
    return repr(value if len(value) <= _LONGEST else value[:_LONGEST] + "…")


def _upper(words: str) -> str:
    """A sentence's first letter, but never a site's own name."""
    return words[0].upper() + words[1:] if words.startswith("the ") else words
