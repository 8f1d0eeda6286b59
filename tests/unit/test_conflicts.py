"""Recorded conflicts in a person's hands: what a choice makes of a row, what is told of a decision, what a redo asks."""

from __future__ import annotations

from dataclasses import replace

import click
import pytest

from replicator.cli.times import since_moment
from replicator.conflicts import Choice, Scene, chosen_row, explain, left_row, marked_columns, other_plan, to_conflict
from replicator.conflicts.record import equals
from replicator.conflicts.resolve import last_of, row_queue
from replicator.decide import decide
from replicator.errors import SetupError
from replicator.merging import Changed
from replicator.model import (
    Conflict,
    ConflictKind,
    Engine,
    Op,
    ParkedChange,
    ParkedState,
    PolicyName,
    PolicyPlan,
    RecordedConflict,
)

NOON = 1_767_268_800_000_000
BASE = {"id": "1", "note": "old", "amount": "5"}
SITE = {"id": "1", "note": "site", "amount": "7"}
CENTRE = {"id": "1", "note": "centre", "amount": "5"}
PLAN = PolicyPlan(PolicyName.MERGE_COLUMNS, columns=(("note", PolicyName.CENTRE_WINS),))


def recorded(plan: PolicyPlan = PLAN, **more: object) -> RecordedConflict:
    """A conflict, decided, as a database has it on record."""
    conflict = Conflict(
        1, 1, "stock", "(1)", ConflictKind.UPDATE_DIFFERS, BASE, SITE, CENTRE, NOON, plan, "clinic_a", True, "clinic_b",
        NOON - 60_000_000, 5_000,
    )  # fmt: skip
    (decision,) = decide([conflict])
    made = RecordedConflict(
        id=12, table="stock", key="(1)", kind="update_differs", before=BASE, after=SITE, current=CENTRE, changed_at=NOON,
        policy=decision.rule, verdict=str(decision.verdict), reason=decision.reason, decided_at=NOON + 1, site="clinic_a",
        result=decision.result, current_origin="clinic_b", current_at=NOON - 60_000_000, clock_error_us=5_000,
        state="waiting" if decision.verdict == "park" else "decided", parked=7 if decision.verdict == "park" else 0,
    )  # fmt: skip
    return replace(made, **more)


def scene(**more: object) -> Scene:
    now = {**CENTRE, "extra": "e"}
    return replace(Scene(recorded(), now=now, site=SITE, centre=CENTRE, base=BASE, as_left=True), **more)


def test_a_record_is_the_conflict_it_was() -> None:
    again = to_conflict(recorded(), PLAN)
    (decision,) = decide([again])
    assert (decision.rule, str(decision.verdict), decision.reason) == (
        recorded().policy, recorded().verdict, recorded().reason
    )  # fmt: skip
    with pytest.raises(SetupError, match="dropped by command"):
        to_conflict(recorded(kind="parked"), PLAN)


@pytest.mark.parametrize(
    ("policy", "row"),
    [("source_wins", SITE), ("centre_wins", CENTRE), ("manual", CENTRE),
     ("merge_columns", {"id": "1", "note": "centre", "amount": "7"})],
)  # fmt: skip
def test_the_row_a_decision_left(policy: str, row: dict[str, str]) -> None:
    assert left_row(recorded(replace(PLAN, name=PolicyName(policy)))) == row


def test_columns_only_the_centre_has_are_part_of_the_row_left() -> None:
    wide = {**CENTRE, "extra": "e"}
    assert left_row(recorded(PolicyPlan(), current=wide)) == {**SITE, "extra": "e"}
    assert equals(SITE, {**SITE, "extra": "e"})
    assert not equals(SITE, None)
    assert equals(None, None)


def test_who_changed_what_is_marked() -> None:
    assert marked_columns(recorded()) == {"id": Changed.NOBODY, "note": Changed.BOTH, "amount": Changed.SITE}
    assert marked_columns(recorded(current=None)).keys() == BASE.keys()


# --- resolve ---


@pytest.mark.parametrize(
    ("choice", "row"),
    [
        (Choice("site"), SITE),
        (Choice("centre"), CENTRE),
        (Choice("base"), BASE),
        (Choice(delete=True), None),
        (Choice(columns={"note": "site"}), {**CENTRE, "note": "site"}),
        (Choice("site", {"note": "base"}, {"amount": None}), {"id": "1", "note": "old", "amount": None}),
        (Choice(values={"amount": ""}), {**CENTRE, "amount": ""}),
    ],
)
def test_a_choice_makes_a_row(choice: Choice, row: dict[str, str] | None) -> None:
    assert chosen_row(scene(), choice, ["id"]) == row


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice(), "nothing is chosen"),
        (Choice("site", delete=True), "--delete leaves no row"),
        (Choice(columns={"note": "site"}, values={"note": "x"}), "chosen twice"),
        (Choice("site", values={"nope": "x"}), "no column nope"),
        (Choice("site", {"nope": "site"}), "no column nope"),
        (Choice("site", values={"id": "2"}), "of the row's key"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choice: Choice, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        chosen_row(scene(), choice, ["id"])


def test_a_side_without_a_row() -> None:
    gone = scene(site=None)
    assert chosen_row(gone, Choice("site"), ["id"]) is None
    with pytest.raises(SetupError, match="no row to take note from"):
        chosen_row(gone, Choice("centre", {"note": "site"}))
    with pytest.raises(SetupError, match="no row to put values into"):
        chosen_row(gone, Choice("site", values={"note": "x"}))
    unknown = scene(recorded=recorded(based=False, before=None), base=None)
    with pytest.raises(SetupError, match="only its checksum"):
        chosen_row(unknown, Choice("base"))


def test_the_last_change_that_waits_is_what_the_site_has() -> None:
    def parked(number: int, key: str, after: dict[str, object] | None) -> ParkedChange:
        return ParkedChange(number, "clinic_a", "stock", key, Op.UPDATE, ParkedState.WAITING, None, after, "", "", 0, 1)

    waiting = recorded(PolicyPlan(PolicyName.MANUAL))
    changes = [parked(6, "(1)", SITE), parked(7, "(1)", SITE), parked(8, "(2)", None), parked(9, "(1)", None)]
    queue = row_queue(changes, waiting)
    assert [change.id for change in queue] == [9]
    assert last_of(queue, SITE, None if not queue else _plan()) is None
    assert last_of([parked(9, "(1)", {"id": 1, "bemerkung": "x"})], SITE, _plan()) == {**SITE, "note": "x"}
    assert last_of([], SITE, None) == SITE
    assert row_queue([change for change in changes if change.id != 7], waiting) == []


def _plan():  # type: ignore[no-untyped-def]
    from replicator.model import ColumnPlan, ColumnShape, TableName, TablePlan, TableShape

    shape = TableShape(
        TableName("main", "stock"), (ColumnShape("id", "integer"), ColumnShape("bemerkung", "text")), ("id",)
    )
    columns = (ColumnPlan("id", "integer", "id", "integer"), ColumnPlan("bemerkung", "text", "note", "text"))
    return TablePlan(shape, shape.name, columns, ("id",), Engine.SQLITE, Engine.SQLITE, shape)


# --- explain ---


def test_the_story_of_a_merge() -> None:
    told = "\n".join(explain(recorded(), PLAN))
    for words in (
        "clinic_a changed the row from a state the centre does not have: stock (1).",
        "clinic_a started from: id = '1', note = 'old', amount = '5'.",
        "clinic_a wrote: id = '1', note = 'site', amount = '7', at 2026-01-01 12:00:00.000 UTC.",
        "written by clinic_b at 2026-01-01 11:59:00.000 UTC.",
        "clinic_a wrote 1 min 0 s later; the clocks were known to 5 ms, so the order is certain.",
        "Column note: base 'old', site 'site', centre 'centre'; centre_wins: the centre's; it became 'centre'.",
        "Column amount: base '5', site '7', centre '5'; changed by site; it became '7'.",
        "Both were merged.",
        "The row was then: id = '1', note = 'centre', amount = '7'.",
        "With source_wins the row would have become: id = '1', note = 'site', amount = '7'.",
    ):
        assert words in told
    assert "With merge_columns" not in told, "it would have come to the same"


def test_the_story_says_what_would_have_changed_it_and_whether_the_rules_have_changed() -> None:
    newest = PolicyPlan(PolicyName.NEWEST_WINS)
    told = "\n".join(explain(recorded(newest), newest))
    assert "The centre would" not in told
    assert "clinic_b would have won had it written more than 1 min 0 s later." in told
    changed = "\n".join(explain(recorded(newest), PolicyPlan(PolicyName.CENTRE_WINS)))
    assert "The table's policy is now centre_wins: it would say keep." in changed


def test_the_story_of_what_waits_and_of_what_was_resolved() -> None:
    manual = PolicyPlan(PolicyName.MANUAL)
    assert "replicator conflicts resolve 12" in "\n".join(explain(recorded(manual), manual))
    settled = recorded(manual, state="resolved", resolution="took the site's row", result=SITE)
    assert "A person has settled it since: took the site's row. The row was then: id = '1', note = 'site'" in "\n".join(
        explain(settled, manual)
    )
    assert "was dropped" in "\n".join(explain(recorded(kind="parked"), None))


def test_a_policy_that_is_written_by_engine_is_told_as_written() -> None:
    plan = PolicyPlan(PolicyName.SOURCE_WINS, by_engine="sqlite_wins")
    assert "sqlite_wins, which is source_wins here, decided at" in "\n".join(explain(recorded(plan), plan))
    other = PolicyPlan(PolicyName.CENTRE_WINS)
    assert "sqlite_wins" not in "\n".join(explain(recorded(other), plan))


def test_a_time_in_the_future_is_told() -> None:
    assert "in the future" not in "\n".join(explain(recorded(), PLAN))
    told = "\n".join(explain(recorded(changed_at=NOON + 7_200_000_001), PLAN))
    assert "clinic_a's time lay 2 h 0 min in the future: a clock ran ahead" in told
    assert "clinic_b's time" not in told


def test_a_base_that_is_no_row_is_not_offered() -> None:
    manual = PolicyPlan(PolicyName.MANUAL)
    assert "--take site|centre|base" in "\n".join(explain(recorded(manual), manual))
    inserted = recorded(manual, kind="insert_exists", before=None)
    assert "base" not in "\n".join(explain(inserted, manual))
    with pytest.raises(SetupError, match="started from no row") as caught:
        chosen_row(scene(recorded=inserted, base=None), Choice(take="base"))
    assert "--delete" in caught.value.hint


# --- redo ---


def test_another_policy_keeps_the_tables_columns_and_drops_its_kinds() -> None:
    plan = replace(PLAN, kinds=((ConflictKind.UPDATE_DIFFERS, PolicyName.MANUAL),))
    other = other_plan(plan, PolicyName.NEWEST_WINS, Engine.SQLITE, Engine.POSTGRES)
    assert (other.name, other.kinds, other.columns) == (PolicyName.NEWEST_WINS, (), PLAN.columns)
    assert other_plan(plan, PolicyName.SQLITE_WINS, Engine.SQLITE, Engine.POSTGRES).name is PolicyName.SOURCE_WINS
    assert other_plan(plan, PolicyName.POSTGRESQL_WINS, Engine.SQLITE, Engine.POSTGRES).name is PolicyName.CENTRE_WINS


@pytest.mark.parametrize(
    ("policy", "words"),
    [("sqlite_wins", "both sqlite"), ("rule", "SQL rule"), ("site_priority", "no order of sites"),
     ("manual", "decides nothing"),
     ("add", "decides nothing")],
)  # fmt: skip
def test_a_policy_that_cannot_be_asked_of_a_record_is_refused(policy: str, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        other_plan(PLAN, PolicyName(policy), Engine.SQLITE, Engine.SQLITE)


def test_moments() -> None:
    assert since_moment("") == 0
    assert since_moment("1970-01-02T00:00:00+00:00") == 86_400_000_000
    assert since_moment("1h") - since_moment("2h") == pytest.approx(3_600_000_000, abs=1_000_000)
    with pytest.raises(click.BadParameter, match="is no moment"):
        since_moment("yesterday")
