"""The parts of ``replicator simulate``: histories from seeds, steps as JSON, what counts as vanished, shrinking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from replicator.settings import CENTRE
from replicator.simulate.application import Application
from replicator.simulate.faults import CrashError, Gaps
from replicator.simulate.history import History
from replicator.simulate.shrink import shrink
from replicator.simulate.steps import (
    Action,
    Backfill,
    Backup,
    Cut,
    Heal,
    Jump,
    Move,
    Restart,
    Restore,
    Write,
    from_json,
    to_json,
)
from replicator.simulate.trace import OnRecord, Trace, digits_of, is_stamp, on_record, stamp
from replicator.simulate.world import World

ROW = ("price", ("k0",))
NOTHING = OnRecord((), ())
MAY_REPEAT = [Backup, Restore, Cut, Jump, Heal, Restart]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(World(tmp_path_factory.mktemp("world"), sites=3)) as made:
        yield made


# --- histories ---


def test_a_seed_always_gives_the_same_history(world: World) -> None:
    one, two = (History(world.schema, 7, world.restorable).steps(200) for _ in range(2))
    assert one == two
    assert one != History(world.schema, 8, world.restorable).steps(200)


def test_histories_hold_every_kind_of_step_and_every_fault(world: World) -> None:
    steps = [step for seed in range(40) for step in History(world.schema, seed, world.restorable).steps(60)]
    assert {type(step) for step in steps} == {Write, Move, Backfill, *MAY_REPEAT}
    assert {step.fault for step in steps if isinstance(step, Move)} == {"", "crash", "lost", "twice", "reread"}
    actions = [action for step in steps if isinstance(step, Write) for action in step.actions]
    assert {action.what for action in actions} == {"put", "set", "delete", "rekey"}
    assert {action.table for action in actions} == set(world.schema.tables)
    assert {step.place for step in steps if isinstance(step, Write)} == {CENTRE, *world.sites}


def test_nobody_writes_where_the_rules_do_not_let_changes_out(world: World) -> None:
    for seed in range(30):
        for step in History(world.schema, seed).steps(60):
            if isinstance(step, Write):
                tables = {action.table for action in step.actions}
                assert "rule" not in tables or step.place == CENTRE  # comes from the centre only
                assert "reading" not in tables or step.place != CENTRE  # goes to the centre only


def test_steps_survive_json(world: World) -> None:
    steps = History(world.schema, 3, world.restorable).steps(300)
    assert from_json(to_json(steps)) == steps
    with pytest.raises(ValueError, match="colour"):
        from_json([{"step": "backup", "number": 1, "site": "a", "colour": "red"}])


def test_a_child_with_its_parent_in_the_key_gets_a_key_of_the_parents_pool(world: World) -> None:
    visit, patient = world.schema.tables["visit"], world.schema.tables["patient"]
    parents = {world.schema.numbers(patient, row)["id"] for row in patient.pool(CENTRE)}
    keys = [world.schema.numbers(visit, row) for row in visit.pool(CENTRE)]
    assert {key["patient_id"] for key in keys} < parents
    assert len({tuple(key.values()) for key in keys}) == len(keys)


# --- the applications ---


def test_an_application_writes_what_a_history_says_and_the_trace_notes_it(world: World) -> None:
    world.reset()
    trace = Trace()
    application = Application(world.schema, world.places, trace)
    for number, what in enumerate(("put", "put", "delete"), 1):
        application.write(Write(number, "alpha", (Action(what, "price", 0, number),)), 2_300_000_000_000_000)
    first, second, third = trace.written
    assert (first.seen, second.seen, third.seen) == (None, first.stamp, second.stamp)
    assert third.stamp is None
    assert world.places["alpha"].rows(
        "select op, changed_at from replicator_outbox where seq > 1 and changed_at > 0"
    ) == [(op, 2_300_000_000_000_000 + place) for place, op in enumerate("iud")]


def test_what_an_application_gives_up_never_was(world: World) -> None:
    world.reset()
    trace = Trace()
    application = Application(world.schema, world.places, trace)
    application.write(Write(1, "beta", (Action("put", "price", 0, 1),), given_up=True), 2_300_000_000_000_000)
    assert (trace.written, world.places["beta"].rows("select * from price")) == ([], [])


# --- what vanished ---


def _trace(*writes: tuple[str, int, str | None, str | None]) -> Trace:
    trace = Trace()
    for place, step, old, new in writes:
        before = {ROW: old} if old is not None else {}
        trace.note(place, step, before, {ROW: new} if new is not None else {})
    return trace


W1, W2, W3 = (stamp(step, 0) for step in (1, 2, 3))


def test_a_stamp_is_known_as_such_in_text_and_in_numbers() -> None:
    assert is_stamp(W1)
    assert is_stamp(digits_of(W1))
    assert not any(map(is_stamp, ("A", "", "7", "-1", "w", "1500.5")))


def test_the_final_write_and_those_it_replaced_in_sight_are_kept() -> None:
    trace = _trace(("a", 1, None, W1), ("b", 2, W1, W2))
    assert list(trace.vanished({ROW: W2}, NOTHING)) == []


def test_a_write_that_nobody_saw_vanished_unless_a_conflict_names_it() -> None:
    trace = _trace(("a", 1, None, W1), ("b", 2, W1, W2), ("c", 3, W1, W3))
    (told,) = trace.vanished({ROW: W3}, NOTHING)
    assert "by b in step 2" in told
    images = [("price", ({"code": "k0", "note": W1}, {"code": "k0", "note": W2}, {"code": "k0", "note": W3}))]
    record = on_record(images, {"price": "note"}, {"price": ("code",)})
    assert list(trace.vanished({ROW: W3}, record)) == []


def test_a_deleted_row_that_is_back_without_anybody_having_seen_it_gone_vanished() -> None:
    trace = _trace(("a", 1, None, W1), ("b", 2, W1, None), ("c", 3, W1, W2))
    (told,) = trace.vanished({ROW: W2}, NOTHING)
    assert "the row is back" in told
    record = on_record([("price", (None, {"code": "k0", "note": W2}, None))], {"price": "note"}, {"price": ("code",)})
    assert list(trace.vanished({ROW: W2}, record)) == []
    anew = _trace(("a", 1, None, W1), ("b", 2, W1, None), ("b", 3, None, W3), ("c", 4, W1, W2))
    (told,) = anew.vanished({ROW: W2}, NOTHING)
    assert "by b in step 3" in told
    again = _trace(("a", 1, None, W1), ("b", 2, W1, None), ("c", 3, None, W2))
    assert list(again.vanished({ROW: W2}, NOTHING)) == []


def test_a_write_that_was_parked_is_no_vanished_one() -> None:
    trace = _trace(("a", 1, None, W1), ("b", 2, W1, W2), ("c", 3, W1, W3))
    trace.note_decided([{"code": "k0", "note": W2}, None])
    assert list(trace.vanished({ROW: W3}, NOTHING)) == []


def test_rows_with_stamps_that_come_again_and_writes_a_restore_took_are_not_judged() -> None:
    repeated = _trace(("a", 1, None, "A"), ("b", 2, "A", W2))
    assert list(repeated.vanished({}, NOTHING)) == []
    restored = _trace(("a", 5, None, W1))
    assert list(restored.vanished({}, NOTHING)) != []
    restored.excused["a"] = 4
    assert list(restored.vanished({}, NOTHING)) == []


# --- crashes and shrinking ---


def test_a_crash_comes_at_its_gap_and_nothing_of_ours_catches_it() -> None:
    gaps = Gaps(3)
    gaps.meet()
    gaps.meet()
    with pytest.raises(CrashError):
        gaps.meet()
    assert not issubclass(CrashError, Exception)


def test_a_history_is_shrunk_to_the_steps_that_matter() -> None:
    steps = [Restart(number, "a") for number in range(50)]
    steps[12] = Jump(12, "a", 3.0)  # type: ignore[call-overload]
    write = Write(31, "a", tuple(Action("put", "price", row, 0) for row in range(4)))
    steps[31] = write  # type: ignore[call-overload]
    steps[40] = Move(40, "a", True, 1, "crash", 9)  # type: ignore[call-overload]

    def fails(tried: Sequence[object]) -> bool:
        rows = [action.row for step in tried if isinstance(step, Write) for action in step.actions]
        return any(isinstance(step, Jump) for step in tried) and 2 in rows and any(isinstance(s, Move) for s in tried)

    jump, last, move = shrink(steps, fails, 10)
    assert isinstance(jump, Jump)
    assert last == Write(31, "a", (Action("put", "price", 2, 0),))
    assert move == Move(40, "a", True, 1000)


def test_shrinking_ends_in_time() -> None:
    ticks = iter(range(10_000))
    steps = [Restart(number, "a") for number in range(50)]
    asked = []

    def fails(tried: Sequence[object]) -> bool:
        asked.append(len(tried))
        return len(tried) > 30

    shrink(steps, fails, 10, lambda: next(ticks))
    assert len(asked) <= 12


def test_a_topology_on_postgresql_says_what_it_needs(tmp_path: Path) -> None:
    from replicator.errors import SetupError

    with pytest.raises(SetupError, match="no server"):
        World(tmp_path, engines="mixed")
