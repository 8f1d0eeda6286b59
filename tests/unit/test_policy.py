"""Policies: every one answers every conflict, the same way twice; each answer is the one its name promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.decide import decide
from replicator.model import Conflict, ConflictKind, Decision, PolicyName, PolicyPlan, RuleExpression, Verdict

HOUR = 3_600_000_000
NOON = 1_767_268_800_000_000
USABLE = [name for name in PolicyName if name not in (PolicyName.POSTGRESQL_WINS, PolicyName.SQLITE_WINS)]


def conflict(name: str = "source_wins", *, kind: str = "update_differs", **values: object) -> Conflict:
    """A conflict on one row of ``stock``; images default to three different rows."""
    plan = values.pop("plan", None) or PolicyPlan(PolicyName(name))
    rows: dict[str, object] = {
        "before": {"id": "1", "note": "old", "count": "5"},
        "after": {"id": "1", "note": "site", "count": "7"},
        "current": {"id": "1", "note": "centre", "count": "6"},
    }
    made = Conflict(
        ord=1, relation=1, table="stock", key="1", kind=ConflictKind(kind), changed_at=NOON, policy=plan,
        site="factory_a", current_origin="factory_b", current_at=NOON - HOUR, **rows,
    )  # fmt: skip
    return replace(made, **values)


def decided(one: Conflict) -> Decision:
    (decision,) = decide([one])
    return decision


rows = st.none() | st.fixed_dictionaries(
    {
        "id": st.just("1"),
        "note": st.sampled_from(["a", "b", None]),
        "count": st.sampled_from(["1", "2.50", "x", None, "1e3"]),
    }
)
plans = st.builds(
    PolicyPlan,
    name=st.sampled_from(USABLE),
    kinds=st.lists(st.tuples(st.sampled_from(ConflictKind), st.sampled_from(USABLE)), max_size=3).map(tuple),
    columns=st.lists(st.tuples(st.sampled_from(["note", "count"]), st.sampled_from(USABLE)), max_size=2).map(tuple),
    otherwise=st.sampled_from(USABLE),
    priority=st.permutations(["a", "b", "centre"]).flatmap(
        lambda order: st.integers(0, 3).map(lambda n: tuple(order[:n]))
    ),
    rule=st.none() | st.just(RuleExpression("site.count > centre.count")),
    python=st.sampled_from(["", "nowhere:nothing", "builtins:repr", "tests.unit.test_policy:wild"]),
    unsure=st.sampled_from(["flag", "park"]),
)
conflicts = st.builds(
    Conflict, ord=st.just(1), relation=st.just(1), table=st.just("stock"), key=st.just("1"),
    kind=st.sampled_from(ConflictKind), before=rows, after=rows, current=rows, policy=plans,
    changed_at=st.integers(0, 2**63 - 1), site=st.sampled_from(["", "a", "b", "c"]), based=st.booleans(),
    current_origin=st.sampled_from(["", "a", "b", "c", "centre"]), current_at=st.integers(0, 2**63 - 1) | st.just(0),
    clock_error_us=st.integers(0, 2**40), answer=st.sampled_from(["", "source", "centre", "park", " Source ", "both"]),
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in USABLE if name is not PolicyName.RULE])
def test_invariant_6_a_site_that_changed_nothing_never_takes_the_row_back(name: PolicyName) -> None:
    """Nor does it trouble anybody: it is no conflict, so it is not on record."""
    plan = PolicyPlan(name, columns=(("count", PolicyName.ADD),))
    said = decided(conflict(plan=plan, untouched=True, after={"id": "1", "note": "old", "count": "5"}))
    assert (said.verdict, said.rule, said.on_record) == (Verdict.KEEP, "unchanged", False)
    assert decided(conflict(plan=plan)).on_record


def wild(one: Conflict) -> object:
    """A rule of a user that does all that a rule may do, and all that it may not."""
    if one.current_at % 7 == 1:
        raise RuntimeError("no idea")
    return ["source", "centre", "park", {"note": "mine"}, {"count": one.changed_at}, {"nope": 1}, None, {}][
        one.changed_at % 8
    ]


@given(conflicts)
def test_every_policy_answers_every_conflict_the_same_way_twice(one: Conflict) -> None:
    first, second = decided(one), decided(one)
    assert first == second
    assert first.verdict in Verdict
    assert first.reason
    assert (first.result is not None) == (first.verdict is Verdict.MERGE)
    if first.result is not None:
        known = one.after if one.after is not None else one.current
        assert known is not None
        assert first.result.keys() == known.keys()
        assert first.result != one.after


def test_decisions_come_lazily() -> None:
    """Invariant 12: a batch of conflicts never sits in memory."""
    taken: list[int] = []

    def endless() -> object:
        while True:
            taken.append(1)
            yield conflict()

    decisions = decide(endless())
    next(decisions)
    next(decisions)
    assert len(taken) == 2


@pytest.mark.parametrize("kind", list(ConflictKind))
def test_source_and_centre_win_whatever_the_kind(kind: ConflictKind) -> None:
    assert decided(conflict("source_wins", kind=kind)).verdict is Verdict.APPLY
    assert decided(conflict("centre_wins", kind=kind)).verdict is Verdict.KEEP
    assert decided(conflict("manual", kind=kind)).verdict is Verdict.PARK
    assert decided(conflict("centre_wins", kind=kind)).rule == "centre_wins"


def test_a_policy_for_one_kind_takes_the_place_of_the_tables() -> None:
    plan = PolicyPlan(PolicyName.SOURCE_WINS, kinds=((ConflictKind.UPDATE_DELETED, PolicyName.CENTRE_WINS),))
    gone = decided(conflict(plan=plan, kind="update_deleted", current=None))
    assert (gone.verdict, gone.rule) == (Verdict.KEEP, "centre_wins")
    assert decided(conflict(plan=plan)).verdict is Verdict.APPLY


def test_nobody_is_asked_where_both_sides_have_the_same_row() -> None:
    same = {"id": "1", "note": "x"}
    assert decided(conflict("manual", after=same, current=dict(same))).verdict is Verdict.APPLY
    assert decided(conflict("manual", kind="delete_missing", after=None, current=None)).verdict is Verdict.APPLY


# --- newest_wins ---


@pytest.mark.parametrize(
    ("changed_at", "current_at", "verdict"),
    [(NOON, NOON - 1, "apply"), (NOON, NOON + 1, "keep"), (NOON, 0, "apply"), (0, 0, "apply")],
)
def test_the_later_write_wins(changed_at: int, current_at: int, verdict: str) -> None:
    assert decided(conflict("newest_wins", changed_at=changed_at, current_at=current_at)).verdict == verdict


def test_a_write_not_on_record_is_older_and_the_reason_says_so() -> None:
    said = decided(conflict("newest_wins", current_at=0, current_origin=""))
    assert said.verdict is Verdict.APPLY
    assert "no write of it is on record" in said.reason
    assert not said.unsure


def test_the_reason_says_who_when_and_why() -> None:
    reason = decided(conflict("newest_wins")).reason
    assert reason == (
        "factory_a wrote it at 2026-01-01 12:00:00.000 UTC, factory_b wrote it at 2026-01-01 11:00:00.000 UTC; "
        "the change of factory_a is newer by 1 h 0 min and is applied"
    )


def test_the_time_of_a_delete_counts() -> None:
    late = conflict("newest_wins", kind="update_deleted", current=None, current_at=NOON + HOUR)
    assert decided(late).verdict is Verdict.KEEP
    assert "factory_b deleted it" in decided(late).reason
    assert decided(replace(late, current_at=NOON - HOUR)).verdict is Verdict.APPLY
    assert (
        decided(conflict("newest_wins", kind="delete_differs", after=None, current_at=NOON + 1)).verdict is Verdict.KEEP
    )
    assert decided(conflict("newest_wins", kind="delete_differs", after=None)).verdict is Verdict.APPLY


def test_times_closer_than_the_clocks_are_known_are_flagged_or_parked() -> None:
    close = conflict("newest_wins", current_at=NOON - 500, clock_error_us=500)
    assert (decided(close).verdict, decided(close).unsure) == (Verdict.APPLY, True)
    assert "clocks are known to 500 µs only" in decided(close).reason
    parks = replace(close, policy=PolicyPlan(PolicyName.NEWEST_WINS, unsure="park"))
    assert (decided(parks).verdict, decided(parks).unsure) == (Verdict.PARK, True)
    assert not decided(replace(close, current_at=NOON - 501)).unsure
    assert not decided(replace(close, current_origin="factory_a")).unsure, "one clock wrote both"


@given(st.permutations([("a", NOON), ("b", NOON), ("c", NOON + 1), ("d", NOON + 1)]), st.integers(0, 2))
def test_newest_wins_ends_at_one_value_in_whatever_order_changes_arrive(
    arrivals: list[tuple[str, int]], error: int
) -> None:
    """Invariant 6, on one row: the winner is a matter of times and names, not of arrival."""
    current: Mapping[str, object] = {"id": "1", "note": "start"}
    origin, current_at = "", 0
    for site, changed_at in arrivals:
        one = conflict(
            "newest_wins", site=site, changed_at=changed_at, after={"id": "1", "note": site}, current=current,
            current_origin=origin, current_at=current_at, clock_error_us=error, before={"id": "1", "note": "start"},
        )  # fmt: skip
        if decided(one).verdict is Verdict.APPLY:
            assert one.after is not None
            current, origin, current_at = one.after, site, changed_at
    assert current["note"] == "c"


# --- site_priority ---


@pytest.mark.parametrize(
    ("site", "origin", "verdict"),
    [("main", "branch", "apply"), ("branch", "main", "keep"), ("main", "centre", "apply"), ("branch", "centre", "keep"),
     ("branch", "", "keep"), ("branch", "unlisted", "apply"), ("unlisted", "branch", "keep")],
)  # fmt: skip
def test_the_first_in_the_order_wins(site: str, origin: str, verdict: str) -> None:
    plan = PolicyPlan(PolicyName.SITE_PRIORITY, priority=("main", "centre", "branch"))
    said = decided(conflict(plan=plan, site=site, current_origin=origin, current_at=NOON + HOUR))
    assert said.verdict == verdict
    assert "order of sites" in said.reason


def test_sites_the_order_does_not_tell_apart_go_to_the_policy_for_the_rest() -> None:
    plan = PolicyPlan(PolicyName.SITE_PRIORITY, priority=("main",), otherwise=PolicyName.CENTRE_WINS)
    said = decided(conflict(plan=plan))
    assert (said.verdict, said.rule) == (Verdict.KEEP, "site_priority")
    assert "does not tell factory_a from factory_b; so centre_wins" in said.reason


# --- rule ---


@pytest.mark.parametrize(
    ("answer", "verdict"), [("source", "apply"), ("centre", "keep"), ("park", "park"), ("", "park"), ("maybe", "park")]
)
def test_a_sql_rule_is_obeyed_or_the_change_waits(answer: str, verdict: str) -> None:
    plan = PolicyPlan(PolicyName.RULE, rule=RuleExpression("case when site.a then 'source' end"))
    said = decided(conflict(plan=plan, answer=answer))
    assert said.verdict == verdict
    assert (answer or "says nothing (NULL)") in said.reason


def python(returned: str) -> Decision:
    plan = PolicyPlan(PolicyName.RULE, python=f"{__name__}:{returned}", otherwise=PolicyName.CENTRE_WINS)
    return decided(conflict(plan=plan))


def takes_site(one: Conflict) -> str:
    return "source" if one.site == "factory_a" else "centre"


def takes_sum(one: Conflict) -> dict[str, object]:
    assert one.after is not None
    return {"count": Decimal("1.50"), "note": None}


def takes_part(one: Conflict) -> dict[str, object]:
    return {"count": True}


def breaks(one: Conflict) -> str:
    raise KeyError("weight")


def returns_junk(one: Conflict) -> object:
    return {"weight": 1}


def returns_number(one: Conflict) -> object:
    return 3


def returns_list(one: Conflict) -> object:
    return {"note": [1]}


def test_a_python_rule_names_a_side_or_gives_values() -> None:
    assert python("takes_site").verdict is Verdict.APPLY
    said = python("takes_sum")
    assert (said.verdict, said.result) == (Verdict.MERGE, {"id": "1", "note": None, "count": "1.50"})
    assert python("takes_part").result == {"id": "1", "note": "centre", "count": "1"}, "the rest is merged by column"


@pytest.mark.parametrize(
    ("name", "words"),
    [("breaks", "failed with KeyError: 'weight'"), ("returns_junk", "does not have: weight"), ("returns_number", "returned 3"),
     ("returns_list", "a list as a column's value"), ("absent", "is not callable"), ("HOUR", "is not callable")],
)  # fmt: skip
def test_a_python_rule_that_fails_parks_the_change_with_the_error(name: str, words: str) -> None:
    """Invariant 7: what a user's rule raises stops nobody."""
    said = python(name)
    assert said.verdict is Verdict.PARK
    assert words in said.reason


def test_a_python_module_that_is_not_there_parks_the_change() -> None:
    said = decided(conflict(plan=PolicyPlan(PolicyName.RULE, python="no_such_module:rule")))
    assert said.verdict is Verdict.PARK
    assert "No module named" in said.reason
