"""Three-way merges by column: who changed what, counters, and what cannot be merged."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.decide import decide
from replicator.merging import Changed, add, columns
from replicator.model import Conflict, ConflictKind, Decision, PolicyName, PolicyPlan, Verdict

MERGE = PolicyPlan(PolicyName.MERGE_COLUMNS)
COUNTER = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("n", PolicyName.ADD),))
Row = dict[str, str | None]


def meet(
    before: Row | None, after: Row | None, current: Row | None, plan: PolicyPlan = MERGE, **more: object
) -> Decision:
    kind = ConflictKind.INSERT_EXISTS if before is None else ConflictKind.UPDATE_DIFFERS
    one = Conflict(1, 1, "stock", "1", kind, before, after, current, 2_000, plan, "a", True, "b", 1_000)
    (decision,) = decide([replace(one, **more)])
    return decision


def test_each_column_comes_from_the_side_that_changed_it() -> None:
    said = meet({"id": "1", "x": "0", "y": "0", "z": "0"}, {"id": "1", "x": "s", "y": "0", "z": "0"},
                {"id": "1", "x": "0", "y": "c", "z": "0"})  # fmt: skip
    assert (said.verdict, said.rule) == (Verdict.MERGE, "merge_columns")
    assert said.result == {"id": "1", "x": "s", "y": "c", "z": "0"}
    assert said.reason == "merged by column: x (changed by a alone); y (changed by b alone)"


def test_null_and_empty_text_are_values_like_any_other() -> None:
    said = meet({"x": None, "y": ""}, {"x": "", "y": ""}, {"x": None, "y": None})
    assert said.result == {"x": "", "y": None}


@pytest.mark.parametrize(
    ("policy", "value"),
    [("source_wins", "s"), ("centre_wins", "c"), ("newest_wins", "s"), ("merge_columns", "s"), ("add", "s")],
)
def test_a_column_both_changed_goes_to_its_policy(policy: str, value: str) -> None:
    plan = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("x", PolicyName(policy)),))
    said = meet({"x": "0", "y": "0", "z": "0"}, {"x": "s", "y": "1", "z": "0"}, {"x": "c", "y": "0", "z": "1"}, plan)
    assert said.result == {"x": value, "y": "1", "z": "1"}


def test_a_column_both_changed_goes_to_the_policy_for_the_rest_where_it_has_none() -> None:
    plan = PolicyPlan(PolicyName.MERGE_COLUMNS, otherwise=PolicyName.CENTRE_WINS)
    said = meet({"x": "0", "y": "0"}, {"x": "s", "y": "1"}, {"x": "c", "y": "0"}, plan)
    assert said.result == {"x": "c", "y": "1"}
    assert "x (centre_wins: the centre's)" in said.reason


def test_a_column_for_a_person_parks_the_row() -> None:
    plan = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("x", PolicyName.MANUAL),))
    assert meet({"x": "0", "y": "0"}, {"x": "s", "y": "1"}, {"x": "c", "y": "0"}, plan).verdict is Verdict.PARK
    assert meet({"x": "0", "y": "0"}, {"x": "s", "y": "0"}, {"x": "0", "y": "c"}, plan).verdict is Verdict.MERGE


def test_a_merge_that_comes_to_one_sides_row_is_that_sides() -> None:
    assert meet({"x": "0", "y": "0"}, {"x": "s", "y": "0"}, {"x": "s", "y": "c"}).verdict is Verdict.KEEP
    assert meet({"x": "0", "y": "0"}, {"x": "s", "y": "c"}, {"x": "0", "y": "c"}).verdict is Verdict.APPLY


def test_columns_only_the_centre_has_stay_out_of_it() -> None:
    assert meet({"x": "0"}, {"x": "s"}, {"x": "0", "extra": "e"}).verdict is Verdict.APPLY
    assert meet({"x": "0"}, {"x": "0"}, {"x": "c", "extra": "e"}).verdict is Verdict.KEEP


def test_a_delete_is_not_merged_and_the_policy_for_the_rest_decides() -> None:
    said = meet({"x": "0"}, None, {"x": "c"}, kind=ConflictKind.DELETE_DIFFERS)
    assert said.verdict is Verdict.APPLY, "the delete is the newer"
    assert "no two rows to merge" in said.reason
    assert meet({"x": "0"}, None, {"x": "c"}, kind=ConflictKind.DELETE_DIFFERS, changed_at=1).verdict is Verdict.KEEP
    assert meet({"x": "0"}, {"x": "s"}, None, kind=ConflictKind.UPDATE_DELETED, changed_at=1).verdict is Verdict.KEEP


def test_without_the_row_the_site_started_from_all_that_differs_was_changed_by_both() -> None:
    plan = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("x", PolicyName.CENTRE_WINS), ("n", PolicyName.ADD)))
    said = meet(None, {"x": "s", "y": "s", "n": "3"}, {"x": "c", "y": "c", "n": "4"}, plan, based=False,
                kind=ConflictKind.UPDATE_DIFFERS)  # fmt: skip
    assert said.result == {"x": "c", "y": "s", "n": "3"}, "a counter without its base cannot be added"
    assert "only its checksum is known" in said.reason
    assert "nothing to add to" in said.reason


def test_an_unsure_column_makes_the_merge_unsure() -> None:
    said = meet({"x": "0", "y": "0"}, {"x": "s", "y": "1"}, {"x": "c", "y": "0"}, clock_error_us=5_000)
    assert (said.verdict, said.unsure) == (Verdict.APPLY, True)
    parks = replace(MERGE, unsure="park")
    assert meet(
        {"x": "0", "y": "0"}, {"x": "s", "y": "1"}, {"x": "c", "y": "0"}, parks, clock_error_us=5_000
    ).verdict is (Verdict.PARK)


# --- counters ---


@pytest.mark.parametrize(
    ("base", "site", "centre", "total"),
    [("5", "7", "6", "8"), ("5", "6", "6", "7"), (None, "3", "4", "7"), ("5", "4", "5", "4"), ("1.50", "1.75", "2.50", "2.75"),
     ("0", "99999999999999999999999999999999999999.01", "0.09", "99999999999999999999999999999999999999.10"),
     ("1e+20", "2e+20", "1e+20", "2e+20"), ("0.1", "0.3", "0.1", "0.3"),
     ("9223372036854775807", "9223372036854775808", "1", "2"),
     ("x", "1", "2", None), ("1", None, "2", None), ("1", "2", None, None), ("0", "Infinity", "1", None),
     ("0", "NaN", "1", None),
     ("-1e308", "1e308", "1e308", None), ("0", " 1", "1", None), ("0", "1_000", "1", None)],
)  # fmt: skip
def test_add(base: str | None, site: str | None, centre: str | None, total: str | None) -> None:
    assert add(base, site, centre) == total


def test_floats_are_added_exactly_and_rounded_once() -> None:
    assert add("0", "0.2", "0.1", floating=True) == "0.3"
    assert add("0", "0.1", "100000000000000000", floating=True) == "1e+17"
    assert add("0", "1e-05", "1e-05") == "2e-05"
    plan = replace(COUNTER, floats=("n",))
    assert meet({"n": "0"}, {"n": "2"}, {"n": "1"}, plan).result == {"n": "3.0"}


def test_equal_increments_both_count() -> None:
    said = meet({"n": "5"}, {"n": "6"}, {"n": "6"}, COUNTER)
    assert (said.verdict, said.result) == (Verdict.MERGE, {"n": "7"})
    assert "add" in said.reason
    assert meet(None, {"n": "2"}, {"n": "2"}, COUNTER).result is None, "it may be a row both had before we came"
    assert meet(None, {"n": "2"}, {"n": "3"}, COUNTER).verdict is Verdict.APPLY, "not added up: the newer counts"
    assert meet({"n": "5"}, {"n": "5"}, {"n": "6"}, COUNTER).verdict is Verdict.KEEP, "the site counted nothing"


thousandths = st.integers(-(10**40), 10**40)


def spelled(number: int) -> str:
    """A whole number of thousandths as a decimal."""
    return f"{'-' if number < 0 else ''}{abs(number) // 1000}.{abs(number) % 1000:03}"


@given(thousandths, st.lists(st.tuples(st.sampled_from("abc"), thousandths), max_size=8), st.data())
def test_add_counts_every_increment_in_any_order(
    start: int, raises: list[tuple[str, int]], data: st.DataObject
) -> None:
    """Each site raises its own copy; its changes reach the centre in order, those of different sites in any order."""
    copies = dict.fromkeys("abc", start)
    queues: dict[str, list[tuple[str, str]]] = {site: [] for site in "abc"}
    for site, by in raises:
        before, copies[site] = copies[site], copies[site] + by
        queues[site].append((spelled(before), spelled(copies[site])))
    centre = spelled(start)
    while waiting := [site for site in "abc" if queues[site]]:
        before, after = queues[data.draw(st.sampled_from(waiting))].pop(0)
        if centre == before:
            centre = after
            continue
        said = meet({"n": before}, {"n": after}, {"n": centre}, COUNTER)
        if said.verdict is not Verdict.KEEP:
            centre = after if said.result is None else str(said.result["n"])
    assert Decimal(centre) == Decimal(spelled(start + sum(by for _, by in raises)))


values = st.sampled_from(["p", "q", "r", "", None])


@given(st.dictionaries(st.sampled_from("uvwxyz"), values, min_size=2), st.data())
def test_merges_of_different_columns_commute(base: Row, data: st.DataObject) -> None:
    """Invariant 6, on one row: two sites that change different columns end at one row, whoever comes first."""
    mine = data.draw(st.sets(st.sampled_from(sorted(base))))
    site_a = {name: data.draw(values) if name in mine else value for name, value in base.items()}
    site_b = {name: value if name in mine else data.draw(values) for name, value in base.items()}
    ends = []
    for first, second in ((site_a, site_b), (site_b, site_a)):
        said = meet(base, second, first)
        ends.append({Verdict.APPLY: second, Verdict.KEEP: first}.get(said.verdict, said.result))
    assert ends[0] == ends[1]


def test_who_changed_a_column() -> None:
    before = {"a": "0", "b": "0", "c": "0", "d": "0", "e": "0"}
    after = {"a": "0", "b": "1", "c": "0", "d": "1", "e": "1"}
    current = {"a": "0", "b": "0", "c": "1", "d": "1", "e": "2"}
    found = {each.name: each.changed for each in columns(before, after, current)}
    assert found == {"b": Changed.SITE, "c": Changed.CENTRE, "d": Changed.ALIKE, "e": Changed.BOTH}
    fresh = [each.name for each in columns(None, {"a": "0", "b": "1", "n": "2"}, {"a": "0", "b": "0", "n": "2"}, ["n"])]
    assert fresh == ["b", "n"]
