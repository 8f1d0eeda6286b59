"""The PostgreSQL target among what lives at the centre: triggers, cascades, locks. Invariants 7, 8 and 10."""

from __future__ import annotations

import psycopg
import pytest

from replicator.errors import RetryableError
from tests.fixtures.pairs import MakePair, Pair

JOB = "create table job (id bigint primary key, name text, n bigint)"


@pytest.fixture
def both(make_pair: MakePair) -> Pair:
    """A PostgreSQL site and a PostgreSQL centre."""
    return make_pair("postgres", "postgres")


# --- what lives at the centre ---


@pytest.mark.parametrize("event", ["insert", "update", "delete"])
def test_a_row_that_a_trigger_at_the_centre_leaves_out_is_parked(both: Pair, event: str) -> None:
    both.site.run(JOB)
    both.centre.run(JOB)
    both.install("job")
    both.site.run("insert into job values (1, 'a', 1), (2, 'b', 2)")
    if event != "insert":
        both.sync()
        both.site.run("update job set n = 3" if event == "update" else "delete from job")
    row = "old" if event == "delete" else "new"
    both.centre.run(
        "create function leave_out() returns trigger language plpgsql as"
        f" 'begin if {row}.id = 2 then return null; end if; return {row}; end'",
        f"create trigger leave_out before {event} on job for each row execute function leave_out()",
    )
    both.sync()
    assert [change.key for change in both.parked()] == ["(2)"]
    assert both.conflicts() == []
    both.centre.run("drop trigger leave_out on job")
    assert both.retry() == [True]
    both.assert_equal("job")


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
@pytest.mark.parametrize("how", ["delete from parent", "truncate parent"])
def test_invariant_8_a_cascade_at_the_centre_takes_no_third_row(both: Pair, action: str, how: str) -> None:
    both.site.run("create table parent (id bigint primary key, name text)")
    both.centre.run(
        "create table parent (id bigint primary key, name text)",
        f"create table third (id bigint primary key, parent bigint references parent on delete {action})",
    )
    both.install("parent")
    both.site.run("insert into parent values (1, 'a'), (2, 'b')")
    both.sync()
    both.centre.run("insert into third values (5, 1)")
    both.site.run(how)
    both.sync()
    assert both.centre.rows("select id, parent from third") == [(5, 1)]
    assert len(both.parked()) == 1
    both.centre.run("delete from third")
    assert both.retry() == [True]
    both.assert_equal("parent")


def test_a_cascade_that_the_site_made_too_is_followed(both: Pair) -> None:
    tables = (
        "create table tree (id bigint primary key, parent bigint references tree on delete cascade, name text unique)",
        "create table leaf (id bigint primary key, tree bigint references tree on delete cascade)",
    )
    both.site.run(*tables)
    both.centre.run(*tables)
    both.install("tree", "leaf")
    both.site.run(
        "insert into tree values (1, null, 'a'), (2, 1, 'b'), (3, 2, 'c')", "insert into leaf values (1, 3), (2, 2)"
    )
    both.sync()
    both.site.run("delete from tree where id = 2")
    both.sync()
    assert (both.parked(), both.conflicts()) == ([], [])
    both.assert_equal("tree", "leaf")
    both.site.run("truncate tree cascade")
    both.sync()
    assert both.parked() == []
    both.assert_equal("tree", "leaf")


def test_invariant_8_a_child_that_moves_to_another_parent_keeps_the_centres_own_columns(both: Pair) -> None:
    tables = (
        "create table parent (id bigint primary key, name text unique)",
        "create table child (id bigint primary key, parent bigint references parent on delete cascade)",
    )
    both.site.run(*tables)
    both.centre.run(*tables, "alter table child add remark text")
    both.install("parent", "child")
    both.site.run("insert into parent values (1, 'a'), (2, 'b')", "insert into child values (1, 1)")
    both.sync()
    both.centre.run("update child set remark = 'written at the centre'")
    both.site.run("update child set parent = 2", "delete from parent where id = 1")
    both.sync()
    assert both.centre.rows("select * from child") == [(1, 2, "written at the centre")]
    assert (both.parked(), both.conflicts()) == ([], [])


# --- neighbours ---


def test_a_lock_held_at_the_centre_is_not_waited_for_for_ever(both: Pair) -> None:
    both.site.run(JOB)
    both.install("job")
    both.site.run("insert into job values (1, 'a', 1), (2, 'b', 2)")
    both.sync()
    both.site.run("update job set n = 7")
    with psycopg.connect(both.centre.url) as neighbour:
        neighbour.execute("update job set name = 'held' where id = 2")
        with pytest.raises(RetryableError, match="lock timeout"):
            both.sync()
        assert neighbour.execute("select n from job order by id").fetchall() == [(1,), (2,)]
        neighbour.rollback()
    both.sync()
    both.assert_equal("job")


def test_statistics_are_not_waited_for(both: Pair) -> None:
    both.site.run(JOB)
    both.install("job")
    both.site.run("insert into job select g, 'x', 5 from generate_series(1, 6000) as g")
    with psycopg.connect(both.centre.url) as neighbour:
        neighbour.execute("lock table job in share update exclusive mode")
        assert [outcome.net for outcome in both.sync()] == [6000]
    both.assert_equal("job")
