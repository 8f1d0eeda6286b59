"""Rows that were there before: brought chunk by chunk over every pair of engines, beside the live changes, exactly once.

What is missing at the target is made by writing at the target itself, which is not captured for a one-way table.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from replicator.errors import SetupError, StaleError
from replicator.model import BackfillState, Engine, LinkName, Prefer, TableName
from replicator.pipeline import apply_spans, heal, run_once
from replicator.ports import Batch
from replicator.worker import Ends
from tests.fixtures.backfills import ITEM, ROWS, done, keys, listed, order
from tests.fixtures.pairs import Pair

LOG = {
    Engine.POSTGRES: (
        "create table log (op text)",
        "create function note() returns trigger language plpgsql as $$ begin insert into log values (tg_op);"
        " return null; end $$",
        "create trigger note after insert or update or delete on item for each row execute function note()",
    ),
    Engine.SQLITE: (
        "create table log (op text)",
        "create trigger note_i after insert on item begin insert into log values ('INSERT'); end",
        "create trigger note_u after update on item begin insert into log values ('UPDATE'); end",
        "create trigger note_d after delete on item begin insert into log values ('DELETE'); end",
    ),
}


def made(pair: Pair, policy: str = "source_wins", *centre: str) -> Pair:
    """The table with its rows, equal on both sides; ``centre`` is run there first."""
    pair.site.run(ITEM)
    pair.centre.run(*centre)
    pair.install({"name": "item", "policy": policy})
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.sync()
    pair.assert_equal("item")
    return pair


@pytest.fixture
def item(pair: Pair) -> Pair:
    """A pair with 25 equal rows."""
    return made(pair)


# --- what arrives ---


def test_rows_that_are_missing_come_chunk_by_chunk(item: Pair) -> None:
    item.centre.run("delete from item where id > 3")
    ordered = order(item)
    assert ordered.state is BackfillState.WAITING
    assert (ordered.link, ordered.table.name) == (LinkName("bloodlab", "factory_a"), "item")
    assert (ordered.rows, ordered.behind, ordered.chunk_rows, ordered.reason) == (0, None, 7, "test")
    chunks = [outcome.chunk for outcome in item.sync() if outcome.chunk is not None]
    assert [chunk.rows for chunk in chunks if chunk.rows] == [7, 7, 7, 4]
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    item.assert_equal("item")
    found = done(item)
    assert (found.rows, found.differing, found.id) == (ROWS, 0, ordered.id)
    assert item.conflicts() == []
    assert item.parked() == []
    assert item.sync() == []


def test_equal_rows_cost_nothing_and_a_table_without_rows_is_done_at_once(item: Pair) -> None:
    item.centre.run(*LOG[item.centre.engine])
    order(item)
    assert [outcome.net for outcome in item.sync()] == [0] * 4
    assert item.centre.rows("select * from log") == []
    assert (done(item).rows, done(item).differing) == (ROWS, 0)
    assert item.conflicts() == []
    item.site.run("delete from item")
    item.sync()
    order(item)
    item.sync()
    assert done(item).rows == 0


def test_rows_that_differ_are_decided_and_on_record(pair: Pair) -> None:
    cases = [
        ("source_wins", Prefer.POLICY, "row 2", "apply"), ("centre_wins", Prefer.POLICY, "other", "keep"),
        ("centre_wins", Prefer.SOURCE, "row 2", "apply"), ("source_wins", Prefer.TARGET, "other", "keep"),
    ]  # fmt: skip
    tables = ("source_wins", "centre_wins")
    for name in tables:
        pair.site.run(
            ITEM.replace("item", name), *(f"insert into {name} values ({n}, 'row {n}', {n})" for n in (1, 2, 3))
        )
    pair.install(*({"name": name, "policy": name} for name in tables))
    pair.sync()
    for policy, prefer, stands, verdict in cases:
        pair.centre.run(f"update {policy} set name = 'other' where id = 2", f"delete from {policy} where id = 3")
        order(pair, prefer=prefer, name=policy)
        pair.sync()
        assert pair.centre.rows(f"select name from {policy} where id > 1 order by id") == [(stands,), ("row 3",)]
        kind, said, before, after, current = pair.conflicts()[-1]
        assert (kind, said, before) == ("insert_exists", verdict, None)
        assert isinstance(after, dict)
        assert isinstance(current, dict)
        assert (after["name"], current["name"]) == ("row 2", "other")
        assert (done(pair).rows, done(pair).differing) == (3, 1)
    assert len(pair.conflicts()) == len(cases)


def test_a_manual_conflict_waits_and_the_rest_goes_on(pair: Pair) -> None:
    made(pair, "manual")
    pair.centre.run("update item set name = 'other' where id = 2", "delete from item where id > 20")
    order(pair)
    pair.sync()
    (parked,) = pair.parked()
    assert parked.conflict
    assert pair.centre.rows("select count(*) from item") == [(ROWS,)]
    assert done(pair).differing == 1


# --- beside live changes ---


def test_live_changes_before_and_behind_the_cursor(item: Pair) -> None:
    """Every kind of change, of rows that are loaded, that are being loaded, and that are to be."""
    item.centre.run("delete from item")
    order(item, rows=5)
    writes = iter([
        ("insert into item values (0, 'first', 0)", "update item set name = 'ahead' where id = 24"),
        ("update item set name = 'behind' where id = 2", "delete from item where id = 22", "delete from item where id = 3"),
        ("update item set id = 40 where id = 21", "update item set id = 41 where id = 1", "delete from item where id = 4"),
        ("update item set id = 1 where id = 23", "delete from item where id = 40", "insert into item values (22, 'again', 1)"),
        ("update item set qty = qty + 1",),
    ])  # fmt: skip
    with item.ends() as ends:
        while run_once(ends.source, ends.target, 3) is not None:
            item.site.run(*next(writes, ()))
    item.sync()
    item.assert_equal("item")
    assert next(writes, None) is None
    assert item.conflicts() == []
    assert item.parked() == []
    done(item)


def test_a_change_of_a_row_that_is_not_loaded_yet_brings_it(pair: Pair) -> None:
    made(pair, "centre_wins")
    pair.centre.run("delete from item")
    order(pair, rows=5)
    with pair.ends() as ends:
        assert run_once(ends.source, ends.target, 100) is not None
        pair.site.run("update item set name = 'changed' where id = 20")
        outcome = run_once(ends.source, ends.target, 100)
        assert outcome is not None
        assert (outcome.conflicts, outcome.changes) == (0, 1)
    assert pair.centre.rows("select name from item where id = 20") == [("changed",)]
    pair.sync()
    pair.assert_equal("item")
    assert pair.conflicts() == []
    pair.centre.run("delete from item where id = 21")
    pair.site.run("update item set name = 'late' where id = 21")
    pair.sync()
    assert [row[:2] for row in pair.conflicts()] == [("update_missing", "keep")], (
        "the table is loaded: this is one again"
    )


# --- by key ---


def test_named_rows_are_mended_and_no_others(item: Pair) -> None:
    item.centre.run(
        "update item set name = 'changed' where id in (1, 5)",
        "delete from item where id in (2, 6)",
        "insert into item values (98, 'extra', 1), (99, 'extra', 1)",
    )
    ordered = order(item, chosen=keys(item, 1, 2, 3, 98, 77), prefer=Prefer.SOURCE, rows=2)
    assert (ordered.keyed, ordered.estimate) == (True, 5)
    item.sync()
    assert item.centre.rows("select id, name from item where id in (1, 2, 3, 5, 6, 98, 99) order by id") == [
        (1, "row 1"), (2, "row 2"), (3, "row 3"), (5, "changed"), (99, "extra"),
    ]  # fmt: skip
    assert (done(item).rows, done(item).differing) == (5, 2)
    assert sorted(str(row[0]) for row in item.conflicts()) == ["delete_differs", "insert_exists"]
    order(item, prefer=Prefer.SOURCE)
    item.sync()
    assert item.centre.rows("select id, name from item where id in (5, 6, 99) order by id") == [
        (5, "row 5"), (6, "row 6"), (99, "extra"),
    ], "a row that nobody named stays where the whole table is brought"  # fmt: skip


def test_named_rows_follow_the_policy_too(pair: Pair) -> None:
    made(pair, "centre_wins")
    pair.centre.run("insert into item values (98, 'extra', 1)", "update item set name = 'changed' where id = 1")
    order(pair, chosen=keys(pair, 1, 98))
    pair.sync()
    assert pair.centre.rows("select id, name from item where id in (1, 98) order by id") == [
        (1, "changed"),
        (98, "extra"),
    ]
    assert sorted(tuple(row[:2]) for row in pair.conflicts()) == [("delete_differs", "keep"), ("insert_exists", "keep")]


# --- what is refused ---


def test_a_refused_row_is_parked_and_the_rest_goes_on(pair: Pair) -> None:
    pair.site.run(ITEM)
    pair.centre.run("create table item (id integer primary key, name text, qty integer check (qty < 1000))")
    pair.install("item")
    pair.site.commit(*(f"insert into item values ({n}, 'row {n}', {n})" for n in range(1, ROWS + 1)))
    pair.sync()
    pair.site.run("update item set qty = 5000 where id in (4, 5)")
    pair.sync()
    with pair.ends() as ends:
        for change in ends.target.list_parked():
            ends.target.skip_parked(change.id)
    pair.centre.run("delete from item where id <> 9")
    order(pair)
    pair.sync()
    assert len(pair.parked()) == 2
    assert pair.centre.rows("select count(*) from item") == [(ROWS - 2,)]
    pair.site.run("update item set qty = 1 where id in (4, 5)")
    pair.sync()
    with pair.ends() as ends:
        assert heal(ends.target, 10).healed == 2
    pair.assert_equal("item")


# --- paused, cancelled, cut off ---


def test_one_that_is_paused_waits_and_changes_go_on(item: Pair) -> None:
    item.centre.run("delete from item")
    ordered = order(item, rows=5)
    with item.ends() as ends:
        run_once(ends.source, ends.target, 100)
        assert ends.target.steer_backfill(ordered.id, BackfillState.PAUSED)
        assert ends.target.next_chunk() is None
        item.site.run("update item set name = 'changed' where id = 20", "insert into item values (50, 'new', 1)")
        assert run_once(ends.source, ends.target, 100) is not None
        assert run_once(ends.source, ends.target, 100) is None
        assert item.centre.rows("select count(*) from item") == [(7,)]
        assert [each.state for each in ends.target.list_backfills(unfinished=True)] == [BackfillState.PAUSED]
        assert ends.target.steer_backfill(ordered.id, BackfillState.RUNNING)
    item.sync()
    item.assert_equal("item")
    assert done(item).rows == ROWS + 1
    with item.ends() as ends:
        assert not ends.target.steer_backfill(ordered.id, BackfillState.PAUSED), "it is done"


def test_one_that_is_cancelled_moves_no_more(item: Pair) -> None:
    item.centre.run("delete from item")
    ordered = order(item, rows=5)
    with item.ends() as ends:
        run_once(ends.source, ends.target, 100)
        assert ends.target.steer_backfill(ordered.id, BackfillState.CANCELLED)
        assert run_once(ends.source, ends.target, 100) is None
    (found,) = listed(item)
    assert (found.state, found.rows, found.unfinished) == (BackfillState.CANCELLED, 5, False)
    again = order(item)
    assert again.id != ordered.id
    assert order(item, prefer=Prefer.SOURCE).id == again.id, "a whole table is ordered once at a time"
    assert order(item, chosen=keys(item, 1)).id != again.id
    item.sync()
    item.assert_equal("item")
    assert [each.state for each in listed(item)[1:]] == [BackfillState.DONE] * 2


def test_steered_while_a_chunk_is_on_its_way(item: Pair) -> None:
    """The chunk is not applied, the position does not move, and nothing is lost."""
    item.centre.run("delete from item")
    ordered = order(item, rows=5)
    item.site.run("insert into item values (50, 'new', 1)")
    for state in (BackfillState.PAUSED, BackfillState.CANCELLED):
        with item.ends() as ends:
            ends.target.steer_backfill(ordered.id, BackfillState.RUNNING)
        steer_in_flight(item, ordered.id, state)
        assert item.centre.rows("select count(*) from item") == [(0,)]
    item.sync()
    assert item.centre.rows("select id from item") == [(50,)]


def steer_in_flight(pair: Pair, backfill: int, state: BackfillState) -> None:
    """Read a chunk, steer the backfill, and try to apply what was read."""
    with pair.ends() as ends, pair.ends() as other:
        before = ends.target.read_position()
        with ends.source.read_batch(before, 100, ends.target.next_chunk()) as batch:
            assert other.target.steer_backfill(backfill, state)
            assert batch is not None
            with pytest.raises(StaleError):
                apply(ends, batch)
        assert ends.target.read_position() == before


def apply(ends: Ends, batch: Batch) -> None:
    """What the pipeline does with a batch."""
    with ends.target.transaction():
        ends.target.stage_batch(batch)
        apply_spans(ends.target)
        ends.target.record_batch(batch)


class _Cut(Exception):
    """The process is gone."""


@contextmanager
def cut_before_the_commit(ends: Ends) -> Iterator[None]:
    """Everything of a batch is done, and then not committed."""
    real = ends.target.record_batch

    def record(batch: object) -> NoReturn:
        real(batch)  # type: ignore[arg-type]
        raise _Cut

    ends.target.record_batch = record  # type: ignore[method-assign]
    with pytest.raises(_Cut):
        yield


def test_cut_off_at_every_chunk_it_goes_on_where_it_was(item: Pair) -> None:
    """Position and cursor are one transaction: what was not committed comes again, what was does not."""
    item.centre.run("delete from item", *LOG[item.centre.engine])
    order(item, rows=4)
    for turn in range(8):
        item.site.run(f"update item set name = 'turn {turn}' where id in ({turn + 1}, {ROWS - turn})")
        with item.ends() as ends:
            position, (before,) = ends.target.read_position(), ends.target.list_backfills()
            with cut_before_the_commit(ends):
                run_once(ends.source, ends.target, 100)
        with item.ends() as ends:
            assert ends.target.read_position() == position
            (after,) = ends.target.list_backfills()
            assert after == before
            outcome = run_once(ends.source, ends.target, 100)
            assert outcome is not None
    item.sync()
    item.assert_equal("item")
    assert done(item).rows == ROWS
    assert item.centre.rows("select count(*) from log where op = 'INSERT'") == [(ROWS,)]
    assert item.conflicts() == []


def test_no_more_rows_in_a_second_than_the_rate_allows(item: Pair) -> None:
    item.centre.run("delete from item")
    order(item, rows=5, rate=40)
    begun = time.monotonic()
    item.settle()
    assert time.monotonic() - begun >= (ROWS - 5) / 40
    item.assert_equal("item")


def test_estimates_and_an_unknown_table(item: Pair) -> None:
    table = TableName("public" if item.site.engine is Engine.POSTGRES else "", "item")
    with item.ends() as ends:
        estimate = ends.source.estimate_rows(table)
        assert estimate == ROWS if item.site.engine is Engine.SQLITE else estimate >= 0
        with pytest.raises(SetupError, match="nothing"):
            ends.target.order_backfill(TableName("public", "nothing"))
