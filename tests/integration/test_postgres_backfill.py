"""Backfills between PostgreSQL databases: chunks in key order beside writers, conflicts, both directions, keyed rows."""

from __future__ import annotations

import psycopg
import pytest

from replicator.errors import SetupError, StaleError
from replicator.model import BackfillState, Direction, Prefer, TableName
from replicator.pipeline import run_once
from tests.fixtures.pairs import MakePair, Pair, Rows

WINE = "create table wine (id bigint primary key, name text not null, grams integer)"
TABLE = TableName("public", "wine")


def order(pair: Pair, table: TableName = TABLE, direction: Direction = Direction.TO_CENTRE, **more: object) -> int:
    """Order a backfill over the first site's link; its number."""
    with pair.ends(direction=direction) as ends:
        made: int = ends.target.order_backfill(table, **more).id
        return made


def listed(pair: Pair, direction: Direction = Direction.TO_CENTRE) -> Rows:
    """(state, rows, differing) of the link's backfills."""
    with pair.ends(direction=direction) as ends:
        return [(str(each.state), each.rows, each.differing) for each in ends.target.list_backfills()]


@pytest.fixture(params=["postgres", "postgres-wal"])
def pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """A hundred wines at the site; the centre has seen them, and lost them."""
    pair = make_pair(request.param, "postgres")
    pair.site.run(WINE, "insert into wine select n, 'wine ' || n, n from generate_series(1, 100) n")
    pair.install({"name": "wine", "policy": "centre_wins"})
    pair.sync()
    pair.centre.run("delete from wine")
    return pair


def test_rows_come_in_chunks_and_each_is_a_transaction(pair: Pair) -> None:
    order(pair, chunk_rows=30, estimate=100, reason="test")
    outcomes = pair.sync()
    assert [outcome.chunk.rows for outcome in outcomes if outcome.chunk] == [30, 30, 30, 10]
    assert [outcome.chunk.last for outcome in outcomes if outcome.chunk] == [False, False, False, True]
    pair.assert_equal("wine")
    assert listed(pair) == [("done", 100, 0)]
    assert pair.conflicts() == []


def test_writers_write_on_and_the_end_is_the_same(pair: Pair) -> None:
    """Changes ahead of the cursor, behind it, at its very place; keys that move over it either way; rows that come and go."""
    order(pair, chunk_rows=10)
    with pair.ends() as ends:
        for step in range(15):
            cursor = step * 10
            pair.site.commit(
                f"update wine set name = name || '!' where id in ({cursor - 3}, {cursor}, {cursor + 1}, {cursor + 7}, 55)",
                f"delete from wine where id in ({cursor - 5}, {cursor + 9})",
                f"insert into wine values ({1000 + step}, 'late', {step}), ({-step - 1}, 'early', {step})",
                f"update wine set id = id + 500 where id = {cursor + 4}",
                f"update wine set id = -id - 500 where id = {cursor + 16}",
            )
            run_once(ends.source, ends.target, 1000)
    pair.sync()
    pair.assert_equal("wine")
    assert pair.parked() == []
    assert pair.conflicts() == []  # a change of a row that was not loaded yet brought it, though the centre's rows win


def test_a_truncate_while_loading_leaves_nothing_behind(pair: Pair) -> None:
    order(pair, chunk_rows=20)
    with pair.ends() as ends:
        run_once(ends.source, ends.target, 1000)
        pair.site.commit("truncate wine", "insert into wine values (3, 'new', 3), (70, 'new', 70)")
        run_once(ends.source, ends.target, 1000)
        pair.site.run("insert into wine values (71, 'newer', 71)")
    pair.sync()
    assert pair.centre.rows("select id, name from wine order by id") == [(3, "new"), (70, "new"), (71, "newer")]


def test_a_row_that_differs_is_decided_by_the_policy_or_the_order(pair: Pair) -> None:
    pair.centre.run("insert into wine values (1, 'other', 1), (2, 'wine 2', 2), (500, 'ours', 5)")
    order(pair)
    pair.sync()
    assert pair.conflicts() == [
        (
            "insert_exists",
            "keep",
            None,
            {"id": "1", "name": "wine 1", "grams": "1"},
            {"id": "1", "name": "other", "grams": "1"},
        )
    ]
    assert listed(pair) == [("done", 100, 1)]
    order(pair, prefer=Prefer.TARGET)
    order(pair, prefer=Prefer.SOURCE)
    pair.sync()
    assert pair.centre.rows("select name from wine where id = 1") == [("other",)]  # the second order was the first one
    order(pair, prefer=Prefer.SOURCE)
    pair.sync()
    assert pair.centre.rows("select name from wine where id in (1, 500) order by id") == [("wine 1",), ("ours",)]
    assert [row[:3] for row in listed(pair)] == [("done", 100, 1), ("done", 100, 1), ("done", 100, 1)]


def test_rows_asked_for_by_key_come_and_go(pair: Pair) -> None:
    pair.centre.run("insert into wine values (1, 'other', 1), (500, 'not there', 5)")
    order(pair, keys=[("1",), ("7",), ("500",), ("501",), ("9",)], prefer=Prefer.SOURCE, chunk_rows=2)
    pair.sync()
    assert pair.centre.rows("select id, name from wine order by id") == [(1, "wine 1"), (7, "wine 7"), (9, "wine 9")]
    assert listed(pair) == [("done", 5, 2)]
    assert pair.centre.rows("select count(*) from replicator.backfill_key") == [(0,)]


def test_an_order_is_paused_goes_on_and_is_cancelled(pair: Pair) -> None:
    number = order(pair, chunk_rows=10)
    with pair.ends() as ends:
        assert run_once(ends.source, ends.target, 1000) is not None
        assert ends.target.steer_backfill(number, BackfillState.PAUSED)
        assert run_once(ends.source, ends.target, 1000) is None
        assert ends.target.order_backfill(TABLE).id == number
        assert ends.target.steer_backfill(number, BackfillState.RUNNING)
        position, wanted = ends.target.read_position(), ends.target.next_chunk()
        assert wanted is not None
        assert wanted.behind[8:] == "(10)"
        with ends.source.read_batch(position, 1000, wanted) as batch:
            assert batch is not None
            with pair.ends() as others:
                assert others.target.steer_backfill(number, BackfillState.CANCELLED)
            with pytest.raises(StaleError, match="moved or ended"), ends.target.transaction():
                ends.target.stage_batch(batch)
        assert run_once(ends.source, ends.target, 1000) is None
        assert not ends.target.steer_backfill(number, BackfillState.RUNNING)
    assert listed(pair) == [("cancelled", 10, 0)]
    assert pair.centre.rows("select count(*) from wine") == [(10,)]


def test_a_row_the_centre_refuses_is_parked_alone(pair: Pair) -> None:
    pair.centre.run("alter table wine add check (grams <> 33)")
    order(pair, chunk_rows=50)
    pair.sync()
    (parked,) = pair.parked()
    assert parked.key == "(33)"
    assert pair.centre.rows("select count(*) from wine") == [(99,)]
    assert listed(pair) == [("done", 100, 0)]
    pair.site.run("update wine set grams = 34 where id = 33")
    pair.settle()
    pair.assert_equal("wine")


def test_an_order_for_another_table_or_an_old_database_says_what_to_do(pair: Pair) -> None:
    with pytest.raises(SetupError, match="does not bring table"):
        order(pair, TableName("public", "beer"))
    pair.centre.run("drop table replicator.backfill, replicator.backfill_key")
    with pytest.raises(SetupError, match="from before there were backfills") as caught:
        order(pair)
    assert "replicator install" in caught.value.hint
    pair.site.run("delete from wine where id = 5", "insert into wine values (101, 'new', 1)")
    pair.sync()
    assert pair.centre.rows("select id from wine") == [(101,)]
    with psycopg.connect(pair.centre.url) as connection:
        assert connection.execute("select to_regclass('replicator.backfill')").fetchall() == [(None,)]


def test_rows_that_are_all_new_go_straight_in_and_others_do_not(make_pair: MakePair) -> None:
    """What the quick way cannot do falls back: rows that are there, that are refused, that a trigger leaves out."""
    pair = make_pair("postgres", "postgres")
    odd = r"(name) values ('a	b\\c'), (E'line\nbreak\r'), (''), ('\N'), (null), ('é😀'), ('(\",)')"
    pair.site.run(
        "create table kind (id bigint generated by default as identity primary key, name text, parent bigint references kind)",
        f"insert into kind {odd}",
        "insert into kind select n, 'x', 1 + n % 7 from generate_series(8, 60) n",
    )
    pair.install("kind")
    pair.sync()
    pair.centre.run("delete from kind")
    number = order(pair, TableName("public", "kind"), chunk_rows=10)
    with pair.ends() as ends:
        run_once(ends.source, ends.target, 1000)
        pair.centre.run("insert into kind values (15, 'other', null), (60, 'x', 5)")
        pair.centre.run(
            "create function refuse() returns trigger language plpgsql as $$ begin"
            " if new.id = 33 then raise exception 'not 33' using errcode = '23514'; end if; return new; end $$",
            "create trigger refuse before insert on kind for each row execute function refuse()",
        )
        while run_once(ends.source, ends.target, 1000) is not None:
            continue
        (found,) = [each for each in ends.target.list_backfills() if each.id == number]
    assert (found.rows, found.differing, found.behind[8:]) == (60, 1, "(60)")
    assert [parked.key for parked in pair.parked()] == ["(33)"]
    pair.centre.run("drop trigger refuse on kind")
    pair.settle()
    pair.assert_equal("kind")


def test_rules_of_the_target_hold_for_a_chunk_that_is_all_new(pair: Pair) -> None:
    pair.centre.run("create rule r as on insert to wine where new.id in (2, 77) do instead nothing")
    order(pair)
    pair.sync()
    assert pair.centre.rows("select id from wine where id in (1, 2, 77)") == [(1,)]
    assert [conflict[0] for conflict in pair.conflicts()] == ["insert_exists"] * 2  # as for changes
    assert listed(pair) == [("done", 100, 2)]


def test_a_value_the_centre_cannot_hold_is_parked_and_the_rest_comes(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(
        "create table price (id bigint primary key, amount numeric, sold bigint)",
        "insert into price select n, n / 4.0, n from generate_series(1, 30) n",
    )
    pair.centre.run("create table price (id integer primary key, amount numeric(10,2), sold integer)")
    pair.install({"name": "price"})
    pair.sync()
    pair.centre.run("delete from price")
    pair.site.run("update price set amount = 1.005 where id = 3")
    pair.sync()
    unseen = "set local replicator.origin = 'bloodlab/centre'"
    pair.site.commit(
        unseen, "update price set sold = 1::bigint << 40 where id = 4", "update price set amount = 0.125 where id = 20"
    )
    order(pair, TableName("public", "price"), chunk_rows=8)
    pair.sync()
    assert pair.centre.rows("select count(*), count(*) filter (where id in (3, 4)) from price") == [(27, 0)]
    assert sorted({parked.key for parked in pair.parked()}) == ["(20)", "(3)", "(4)"]


KEYS = {
    "text": "select chr(33 + n % 90) || n || case when n % 3 = 0 then E'\\t\\\\\"''(,' else '' end",
    'text collate "C"': "select chr(33 + n % 90) || n",
    "uuid": "select md5(n::text)::uuid",
    "numeric": "select n / 8.0 - 3",
    "double precision": "select case n when 7 then float8 'NaN' when 8 then float8 'Infinity' else n / 7.0 end",
    "timestamptz": "select timestamptz '2024-01-01' + n * interval '1 us'",
    "bytea": "select decode(md5(n::text), 'hex')",
    "text[]": "select array[n::text, null, 'a,\"b']",
    "place": "select ('{north,south,east,west}'::text[])[1 + n % 4]::place",
    "dozen": "select n",
    "inet": "select '10.0.0.0'::inet + n",
}


def test_a_key_of_any_type_is_gone_through_in_its_own_order(make_pair: MakePair) -> None:
    """Alone, and behind another column with duplicates of that; two rows at a time."""
    pair = make_pair("postgres", "postgres")
    for place in (pair.site, pair.centre):
        place.run("create type place as enum ('south', 'east', 'north', 'west')", "create domain dozen as bigint")
    names, keys = [], dict(KEYS)
    if pair.site.rows("select from pg_available_extensions where name = 'ltree'"):
        for place in (pair.site, pair.centre):
            place.run("create schema ext", "create extension ltree schema ext")
        keys["ext.ltree"] = "select ('top.n' || n)::ext.ltree"
    filled = []
    for number, (kind, values) in enumerate(keys.items()):
        one, two = f'by ""key{number}', f"second{number}"
        pair.site.run(
            f'create table "{one}" (k {kind} primary key, n int)',
            f"create table {two} (g smallint, k {kind}, n int, primary key (g, k))",
        )
        filled += [
            f'insert into "{one}" select distinct on (k) k, n from (select ({values}) as k, n from generate_series(1, 9) n) s',
            f'insert into {two} select n % 2, k, n from "{one}"',
        ]
        names += [one, two]
    pair.site.run(*filled)
    pair.install()  # which goes through the rows in the same order, to queue them
    pair.sync()
    with pair.ends() as ends:
        for name in names:
            pair.centre.run(f'delete from "{name}"')
            ends.target.order_backfill(TableName("public", name.replace('""', '"')), chunk_rows=2)
    pair.sync()
    for name in names:
        pair.assert_equal(f'"{name}"', columns="k::text, n")
    assert {state for state, *_ in listed(pair)} == {"done"}
