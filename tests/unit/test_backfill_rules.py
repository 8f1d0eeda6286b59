"""What a backfill says of a conflict, and how fast a worker may ask for chunks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicator.decide import BACKFILL, RESYNC, decide
from replicator.model import Conflict, ConflictKind, Decision, PolicyName, PolicyPlan, Prefer, Verdict

NOON = 1_767_268_800_000_000
ROW = {"id": "1", "note": "site"}
OTHER = {"id": "1", "note": "centre"}


def conflict(kind: ConflictKind, policy: PolicyName = PolicyName.CENTRE_WINS, **values: object) -> Conflict:
    made = Conflict(
        ord=1, relation=1, table="stock", key="(1)", kind=kind, before=None, after=ROW, current=OTHER, changed_at=0,
        policy=PolicyPlan(policy), site="factory_a",
    )  # fmt: skip
    return replace(made, **values)


def decided(one: Conflict) -> Decision:
    (decision,) = decide([one])
    return decision


@pytest.mark.parametrize("policy", [PolicyName.CENTRE_WINS, PolicyName.MANUAL, PolicyName.SOURCE_WINS])
@pytest.mark.parametrize("untouched", [False, True])
def test_a_change_brings_a_row_that_was_not_loaded_yet(policy: PolicyName, *, untouched: bool) -> None:
    missing = conflict(ConflictKind.UPDATE_MISSING, policy, current=None, before=OTHER, untouched=untouched)
    said = decided(replace(missing, loading=True))
    assert (said.verdict, said.rule, said.on_record) == (Verdict.APPLY, BACKFILL, False)
    assert decided(missing).rule != BACKFILL


@pytest.mark.parametrize("kind", [kind for kind in ConflictKind if kind is not ConflictKind.UPDATE_MISSING])
def test_other_conflicts_of_a_table_that_is_being_loaded_are_the_policys(kind: ConflictKind) -> None:
    said = decided(conflict(kind, loading=True, before=OTHER))
    assert (said.verdict, said.rule, said.on_record) == (Verdict.KEEP, "centre_wins", True)


@pytest.mark.parametrize("kind", [ConflictKind.INSERT_EXISTS, ConflictKind.UPDATE_DELETED, ConflictKind.DELETE_DIFFERS])
@pytest.mark.parametrize("policy", [PolicyName.CENTRE_WINS, PolicyName.SOURCE_WINS, PolicyName.MANUAL])
def test_a_backfill_may_say_whose_rows_stand(kind: ConflictKind, policy: PolicyName) -> None:
    after = None if kind is ConflictKind.DELETE_DIFFERS else ROW
    current = None if kind is ConflictKind.UPDATE_DELETED else OTHER
    met = conflict(kind, policy, after=after, current=current)
    for prefer, verdict in ((Prefer.SOURCE, Verdict.APPLY), (Prefer.TARGET, Verdict.KEEP)):
        said = decided(replace(met, loaded=prefer))
        assert (said.verdict, said.rule, said.on_record) == (verdict, RESYNC, True)
    assert decided(replace(met, loaded=Prefer.POLICY)).rule == str(policy)


def test_a_site_may_stand_where_the_centre_has_what_it_sent_last() -> None:
    met = conflict(ConflictKind.INSERT_EXISTS, loaded=Prefer.OWN, current_origin="factory_a", current_at=NOON)
    assert (decided(met).verdict, decided(met).rule) == (Verdict.APPLY, RESYNC)
    others = ({"current_origin": "centre"}, {"current_origin": ""}, {"untouched": True}, {"loaded": Prefer.POLICY})
    for other in others:
        assert decided(replace(met, **other)).verdict is Verdict.KEEP  # type: ignore[arg-type]


def test_the_newest_is_not_a_loaded_row_nobody_knows_the_time_of() -> None:
    met = conflict(ConflictKind.INSERT_EXISTS, PolicyName.NEWEST_WINS, loaded=Prefer.POLICY, current_at=NOON)
    said = decided(met)
    assert said.verdict is Verdict.KEEP
    assert "factory_a wrote it at an unknown time" in said.reason
