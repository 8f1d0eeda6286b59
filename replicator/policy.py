"""Conflict policies: each a small function from one conflict to a verdict and its reason.

A policy is deterministic and total: the same conflict always gets the same answer, on every engine. Only a user's own
Python rule could break that; whatever it raises parks the change.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from replicator import merging
from replicator.merging import Changed, Column
from replicator.model import Conflict, PolicyName, Verdict
from replicator.reasons import CENTRE, happened, moment, place, span, writer

SOURCE, PARK = "source", "park"
_VERDICTS = {SOURCE: Verdict.APPLY, CENTRE: Verdict.KEEP, PARK: Verdict.PARK}
_SHOWN = 40
_CHANGED_BY = {who: f"changed by {who.value}" for who in Changed}

Row = Mapping[str, str | None]
Names = frozenset[PolicyName]
NOBODY: Names = frozenset()
_MERGING: Names = frozenset({PolicyName.MERGE_COLUMNS})


class Answer(NamedTuple):
    """What a policy says of a conflict; the fields are those of Decision."""

    verdict: Verdict
    reason: str
    result: Row | None = None
    unsure: bool = False


class Settled(NamedTuple):
    """One column of a merge: its value, and why. ``parks``: a person has to decide it."""

    column: Column
    value: str | None
    why: str
    unsure: bool = False
    parks: bool = False


Policy = Callable[[Conflict, Names], Answer]
"""A policy; the second argument names those that have passed the question on already."""


def policy_for(conflict: Conflict) -> PolicyName:
    """The policy that decides a conflict: its table's, or the one for conflicts of its kind."""
    plan = conflict.policy
    return dict(plan.kinds).get(conflict.kind, plan.name) if plan.kinds else plan.name


def judge(conflict: Conflict, name: PolicyName, passed: Names = NOBODY) -> Answer:
    """What the policy ``name`` says of a conflict. Raises KeyError for the names by engine: compiled plans hold none."""
    return POLICIES[name](conflict, passed)


def source_wins(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """The site's change is applied whatever stands at the centre."""
    return Answer(Verdict.APPLY, f"{happened(conflict)}; the rule: the site's change wins")


def centre_wins(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """The centre's row stays as it is (a row missing there stays missing)."""
    stays = "the row stays away" if conflict.current is None else "the centre's row stays"
    return Answer(Verdict.KEEP, f"{happened(conflict)}; the rule: {stays}")


def manual(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """The change waits for a person."""
    return Answer(Verdict.PARK, f"{happened(conflict)}; the rule: a person decides")


def newest_wins(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """The later of the two writes, a delete's time included. Equal times: the centre, then the site first by name."""
    site, other = place(conflict.site), writer(conflict)
    written = f"{site} {_did(conflict.after)} it at {moment(conflict.changed_at)}"
    if not conflict.current_at:
        missing = "the row is not there" if conflict.current is None else "the centre's row"
        why = f"{written}; {missing}, and no write of it is on record at the centre: the site's change is the newer"
        return Answer(Verdict.APPLY, why)
    apart = conflict.changed_at - conflict.current_at
    one_clock = conflict.site == conflict.current_origin != ""
    unsure = not one_clock and abs(apart) <= conflict.clock_error_us
    story = f"{written}, {other} {_did(conflict.current)} it at {moment(conflict.current_at)}"
    if unsure:
        story += f", which is {span(apart)} apart where the clocks are known to {span(conflict.clock_error_us)} only"
        if conflict.policy.unsure == PARK:
            return Answer(Verdict.PARK, f"{story}; the rule: a person decides what is that close", unsure=True)
    if apart:
        wins, how = apart > 0, f"newer by {span(apart)}"
    else:
        wins = one_clock or (conflict.current_origin not in ("", CENTRE) and conflict.site < conflict.current_origin)
        how = "the later of one site" if one_clock else "first at equal times (the centre, then sites by name)"
    taken = f"the change of {site} is {how} and is applied" if wins else f"the write of {other} is {how} and stays"
    return Answer(Verdict.APPLY if wins else Verdict.KEEP, f"{story}; {taken}", unsure=unsure)


def site_priority(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """Whoever comes first in the list; those who are not in it come last. Else the policy for the rest."""
    order = conflict.policy.priority
    theirs, ours = (
        order.index(name) if name in order else len(order)
        for name in (conflict.site, conflict.current_origin or CENTRE)
    )  # fmt: skip
    site, other = place(conflict.site), writer(conflict)
    if theirs == ours:
        same = f"the order of sites does not tell {site} from {other}"
        return _otherwise(conflict, passed | {PolicyName.SITE_PRIORITY}, same)
    wins = theirs < ours
    first, second, end = (site, other, "its change is applied") if wins else (other, site, "the centre's row stays")
    why = f"{happened(conflict)}, written there by {other}; {first} goes before {second} in the order of sites: {end}"
    return Answer(Verdict.APPLY if wins else Verdict.KEEP, why)


def merge_columns(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """Each column from the side that changed it; where both did, the column's policy, else the policy for the rest."""
    if conflict.after is None or conflict.current is None:
        why = "there are no two rows to merge: " + happened(conflict)
        return _otherwise(conflict, passed | _MERGING, why)
    settled = list(settle_columns(conflict, passed))
    start = "" if conflict.based else (
        "merged by column without the row the site started from (only its checksum is known), so what differs counts as "
        "changed by both: "
    )  # fmt: skip
    why = (start or "merged by column: ") + _story(settled, conflict)
    unsure = any(each.unsure for each in settled)
    if any(each.parks for each in settled):
        return Answer(Verdict.PARK, why, unsure=unsure)
    row = merging.texts(conflict.after)
    row.update([(each.column.name, each.value) for each in settled])
    return _merged(conflict, row, why, unsure=unsure)


def settle_columns(conflict: Conflict, passed: Names = NOBODY) -> Iterator[Settled]:
    """How ``merge_columns`` settles the columns somebody changed, of a conflict that has two rows."""
    if conflict.after is None or conflict.current is None:
        return
    own = dict(conflict.policy.columns)
    counters = [name for name, policy in own.items() if policy is PolicyName.ADD] if conflict.before else ()
    asked: dict[PolicyName, Answer] = {}
    for column in merging.columns(conflict.before, conflict.after, conflict.current, counters):
        changed = column.changed
        if changed is Changed.BOTH or (column.name in counters and changed in (Changed.ALIKE, Changed.NOBODY)):
            # Equal values of a counter are two increments all the same.
            name = own.get(column.name, conflict.policy.otherwise)
            yield _settle(conflict, column, name, passed | _MERGING, asked)
        else:
            yield Settled(column, column.centre if changed is Changed.CENTRE else column.site, _CHANGED_BY[changed])


def _settle(
    conflict: Conflict, column: Column, name: PolicyName, passed: Names, asked: dict[PolicyName, Answer]
) -> Settled:
    """A column that both sides changed: by its policy, which is asked once for all of the row's columns."""
    start = ""
    if name is PolicyName.ADD:
        # A row both sides inserted has no base: it may be one that was on both before we came, which nobody raised.
        known = column.based
        floating = column.name in conflict.policy.floats
        total = merging.add(column.base, column.site, column.centre, floating=floating) if known else None
        if total is not None:
            base = _short(column.base) if column.base is not None else "0, as there was none,"
            why = f"add: the centre's {_short(column.centre)}, and the site's step from {base} to {_short(column.site)}"
            return Settled(column, total, why)
        start = "nothing to add to, " if not known else "no numbers to add, "
        name = conflict.policy.otherwise
    if name in passed or name is PolicyName.ADD:
        name = PolicyName.NEWEST_WINS
    if name not in asked:
        asked[name] = judge(conflict, name, passed)
    said = asked[name]
    start += f"{name}: "
    if said.verdict is Verdict.PARK:
        return Settled(column, column.centre, f"{start}a person decides", said.unsure, parks=True)
    if said.verdict is Verdict.MERGE and said.result is not None:
        return Settled(column, said.result.get(column.name), f"{start}its own value", said.unsure)
    side, value = (SOURCE, column.site) if said.verdict is Verdict.APPLY else (CENTRE, column.centre)
    return Settled(column, value, start + ("the site's" if side == SOURCE else "the centre's"), said.unsure)


def rule(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """The user's own rule: what its SQL expression answered, or what its Python callable returns."""
    if conflict.policy.python:
        return _python(conflict, passed | {PolicyName.RULE})
    text = conflict.policy.rule.source if conflict.policy.rule else ""
    said = conflict.answer.strip().lower()
    shown = f"the rule {' '.join(text.split())!r}" if text else "the rule"
    if said in _VERDICTS:
        return Answer(_VERDICTS[said], f"{happened(conflict)}; {shown} says {said}")
    heard = f"says {_short(conflict.answer)!r}" if said else "says nothing (NULL)"
    return Answer(Verdict.PARK, f"{happened(conflict)}; {shown} {heard}, not source, centre or park: a person decides")


@lru_cache(maxsize=64)
def load_rule(name: str) -> Callable[[Conflict], object]:
    """The callable ``module:callable``. Raises ValueError, ImportError, or whatever importing the module raises."""
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ValueError(f"{name!r} is not module:callable")
    found: object = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{path} of module {module} is not callable")
    return found


def _python(conflict: Conflict, passed: Names) -> Answer:
    shown = f"the rule {conflict.policy.python}"
    try:
        said = load_rule(conflict.policy.python)(conflict)
        if isinstance(said, str) and said in _VERDICTS:
            return Answer(_VERDICTS[said], f"{happened(conflict)}; {shown} says {said}")
        if isinstance(said, Mapping):
            return _given(conflict, {str(name): _spell(value) for name, value in said.items()}, shown, passed)
        problem = f"returned {_short(repr(said))}, not source, centre, park or a mapping of columns"
    except Exception as error:  # The user's code: whatever it raises must not stop the link (invariant 7).
        problem = f"failed with {type(error).__name__}: {_short(str(error), 300)}"
    return Answer(Verdict.PARK, f"{happened(conflict)}; {shown} {problem}: a person decides")


def _given(conflict: Conflict, values: Row, shown: str, passed: Names) -> Answer:
    """A merge with values from a rule; columns it does not name come from the side that changed them."""
    known = conflict.current if conflict.after is None else conflict.after
    if known is None:
        raise ValueError("it returned values, but there is no row on either side")
    if strange := sorted(values.keys() - known.keys()):
        raise ValueError(f"it returned columns the row does not have: {', '.join(strange)}")
    why = f"{happened(conflict)}; {shown} gave {', '.join(sorted(values)) or 'no values'}"
    row = merging.texts(known)
    unsure = False
    if conflict.after is not None and conflict.current is not None and values.keys() != known.keys():
        rest = [each for each in settle_columns(conflict, passed) if each.column.name not in values]
        if any(each.parks for each in rest):
            return Answer(Verdict.PARK, f"{why}; of the others: {_story(rest, conflict)}")
        why += f"; of the others: {_story(rest, conflict)}"
        unsure = any(each.unsure for each in rest)
        row.update({each.column.name: each.value for each in rest})
    return _merged(conflict, {**row, **values}, why, unsure=unsure)


def _merged(conflict: Conflict, row: Row, why: str, *, unsure: bool = False) -> Answer:
    """A merge, or what it comes to: the site's row as it is, or the centre's."""
    after, current = conflict.after, conflict.current
    if after is not None and all(merging.text(after[name]) == value for name, value in row.items()):
        return Answer(Verdict.APPLY, f"{why}; that is the site's row", unsure=unsure)
    if current is not None and all(
        name in current and merging.text(current[name]) == value for name, value in row.items()
    ):
        return Answer(Verdict.KEEP, f"{why}; that is the centre's row", unsure=unsure)
    return Answer(Verdict.MERGE, why, row, unsure)


def _otherwise(conflict: Conflict, passed: Names, why: str) -> Answer:
    """The policy for the rest; never one that has passed the question on already, nor one that is for columns only."""
    name = conflict.policy.otherwise
    if name in passed or name is PolicyName.ADD:
        name = PolicyName.NEWEST_WINS
    said = judge(conflict, name, passed)
    return said._replace(reason=f"{why}; so {name}: {said.reason}")


def _whole_row(conflict: Conflict, passed: Names = NOBODY) -> Answer:
    """``add`` is for columns: whole rows are merged by column."""
    plan = PolicyName.MERGE_COLUMNS
    return judge(conflict, plan if plan not in passed else PolicyName.NEWEST_WINS, passed | {PolicyName.ADD})


def _story(settled: list[Settled], conflict: Conflict) -> str:
    """What became of the columns somebody changed; those of one answer together."""
    groups: dict[str, list[str]] = {}
    for each in settled:
        groups.setdefault(each.why, []).append(each.column.name)
    names = {_CHANGED_BY[Changed.SITE]: f"changed by {place(conflict.site)} alone",
             _CHANGED_BY[Changed.CENTRE]: f"changed by {writer(conflict)} alone"}  # fmt: skip
    told = [f"{_listed(columns)} ({names.get(why, why)})" for why, columns in groups.items()]
    return "; ".join(told) or "no column differs"


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:10])} and {len(names) - 10} more"


def _did(row: object) -> str:
    return "deleted" if row is None else "wrote"


def _short(value: str | None, longest: int = _SHOWN) -> str:
    value = "NULL" if value is None else " ".join(value.split())
    return value if len(value) <= longest else f"{value[:longest]}…"


def _spell(value: object) -> str | None:
    """A value a rule returned, as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    raise TypeError(f"it returned a {type(value).__name__} as a column's value; return text, a number or None")


POLICIES: Mapping[PolicyName, Policy] = {
    PolicyName.SOURCE_WINS: source_wins,
    PolicyName.CENTRE_WINS: centre_wins,
    PolicyName.NEWEST_WINS: newest_wins,
    PolicyName.SITE_PRIORITY: site_priority,
    PolicyName.MERGE_COLUMNS: merge_columns,
    PolicyName.ADD: _whole_row,
    PolicyName.RULE: rule,
    PolicyName.MANUAL: manual,
}
