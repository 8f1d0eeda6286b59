"""What several changes of one row come to at a PostgreSQL centre: deletes, changes that change nothing, changes that wait."""

from __future__ import annotations

import pytest

from replicator.pipeline import retry_parked
from tests.fixtures.pairs import MakePair, Pair, Rows

ENGINES = ("postgres", "sqlite")


def made(make_pair: MakePair, engine: str = "postgres", policy: object = "source_wins", **rule: object) -> Pair:
    """A site of one engine and a PostgreSQL centre that both write table book."""
    pair = make_pair(engine, "postgres")
    pair.site.run(f"create table book (id {'bigint' if engine == 'postgres' else 'integer'} primary key, n integer)")
    pair.install({"name": "book", "direction": "both", "policy": policy} | rule)
    return pair


def meeting(make_pair: MakePair, direction: str, policy: str, here: str, *, engine: str = "postgres") -> Pair:
    """The site has row (1, 1) and the centre ``here`` before they first meet; rows that are there are captured as new."""
    pair = make_pair(engine, "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table book (id bigint primary key, n integer)")
    pair.site.run("insert into book values (1, 1)")
    pair.centre.run(f"insert into book values {here}")
    pair.install({"name": "book", "direction": direction, "policy": policy})
    return pair


def books(pair: Pair) -> tuple[Rows, Rows]:
    """The rows of the site and of the centre."""
    return pair.site.rows("select id, n from book order by id"), pair.centre.rows("select id, n from book order by id")


def waiting(pair: Pair) -> int:
    """The number of the one conflict that waits."""
    ((number,),) = pair.centre.rows("select id from replicator.conflict where state = 'waiting'")
    return int(str(number))


# --- rows that came and went ---


@pytest.mark.parametrize("direction", ["to_centre", "both"])
@pytest.mark.parametrize("between", ["", "update book set n = 2"])
def test_a_row_that_both_had_and_the_site_deletes_at_once_goes(
    make_pair: MakePair, direction: str, between: str
) -> None:
    """Its insert is already there, so the delete is what counts: it must not be lost as a row that came and went."""
    pair = meeting(make_pair, direction, "source_wins", "(1, 1), (2, 2)")
    pair.site.run(*filter(None, [between]), "delete from book", "insert into book values (3, 3)", "delete from book")
    pair.settle()
    assert pair.centre.rows("select id from book") == [(2,)]
    assert (pair.conflicts(), pair.parked()) == ([], [])


@pytest.mark.parametrize("direction", ["to_centre", "both"])
@pytest.mark.parametrize("policy", ["source_wins", "centre_wins"])
def test_a_row_that_was_another_at_the_centre_and_goes_is_a_conflict(
    make_pair: MakePair, direction: str, policy: str
) -> None:
    pair = meeting(make_pair, direction, policy, "(1, 5)")
    pair.site.run("delete from book")
    pair.settle()
    row = {"id": "1", "n": "1"}, None, {"id": "1", "n": "5"}
    assert pair.conflicts() == [("delete_differs", "apply" if policy == "source_wins" else "keep", *row)]
    assert pair.centre.rows("select n from book") == ([] if policy == "source_wins" else [(5,)])
    if direction == "both":
        pair.assert_converged("book")


def test_a_parked_row_that_came_and_went_takes_the_centres_along(make_pair: MakePair) -> None:
    """The same for changes that waited: the queue is netted by the same rule."""
    pair = make_pair("postgres", "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table book (id bigint primary key, n integer)")
    pair.centre.run("alter table book add constraint low check (n < 10)")
    pair.install("book")
    pair.site.run("insert into book values (1, 50)")
    pair.send()
    pair.site.run("update book set n = 51", "delete from book")
    pair.send()
    assert len(pair.parked()) == 3
    pair.centre.run("alter table book drop constraint low", "insert into book values (1, 50)")
    with pair.ends() as ends:
        assert retry_parked(ends.target, *[change.id for change in ends.target.list_parked()])
    assert (pair.centre.rows("select n from book"), pair.conflicts()) == ([], [])


# --- the site changed nothing ---


@pytest.mark.parametrize("policy", ["source_wins", "newest_wins", "manual", {"name": "merge_columns"}])
@pytest.mark.parametrize("engine", ENGINES)
def test_invariant_6_a_row_the_site_only_touched_stays_what_the_centre_made_of_it(
    make_pair: MakePair, engine: str, policy: object
) -> None:
    """The site passes the centre's rows over while its own changes are pending, so they are sent to it again."""
    pair = made(make_pair, engine, policy)
    pair.site.run("insert into book values (1, 1), (2, 2), (3, 3), (4, 4)")
    pair.settle()
    pair.site.run("update book set n = 70", "update book set n = id", "update book set n = 40 where id = 4")
    pair.centre.run("update book set n = 9 where id = 1", "delete from book where id = 2")
    pair.fetch()
    pair.send()
    assert pair.centre.rows("select id, n from book order by id") == [(1, 9), (3, 3), (4, 40)]
    pair.settle()
    pair.assert_converged("book")
    assert pair.conflicts() == []
    assert pair.centre.rows("select sum(conflicts) from replicator.link") == [(0,)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_site_gets_the_row_it_passed_over_for_one_that_came_and_went(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, "centre_wins")
    pair.centre.run("insert into book values (1, 1)")
    pair.site.run("insert into book values (1, 5)", "delete from book")
    pair.fetch()
    assert pair.site.rows("select n from book") == []
    pair.settle()
    pair.assert_converged("book")
    assert pair.centre.rows("select n from book") == [(1,)]
    assert bool(pair.conflicts()) is (engine == "postgres"), "without images nobody knows that the row was there"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_counter_that_the_site_left_alone_counts_once(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, {"name": "merge_columns", "columns": {"n": "add"}})
    pair.site.run("insert into book values (1, 1), (2, 1)")
    pair.settle()
    pair.site.run("update book set n = n + 5", "update book set n = n - 5 where id = 1")
    pair.centre.run("update book set n = n + 2")
    pair.settle()
    pair.assert_converged("book")
    assert pair.centre.rows("select id, n from book order by id") == [(1, 3), (2, 8)]


# --- changes that wait ---


@pytest.mark.parametrize("engine", ENGINES)
def test_invariant_6_the_centres_row_stands_everywhere_while_a_change_waits(make_pair: MakePair, engine: str) -> None:
    pair = made(make_pair, engine, "manual")
    pair.site.run("insert into book values (1, 1), (2, 2), (3, 3)")
    pair.settle()
    pair.site.run(
        "update book set n = 5 where id = 1", "delete from book where id = 2", "update book set n = 33 where id = 3"
    )
    pair.centre.run("update book set n = 6 where id in (1, 2)", "delete from book where id = 3")
    pair.fetch()
    pair.settle()
    assert books(pair) == ([(1, 6), (2, 6)],) * 2
    assert len(pair.parked()) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_later_edits_of_a_row_that_waits_wait_behind_and_the_last_can_be_taken(
    make_pair: MakePair, engine: str
) -> None:
    pair = made(make_pair, engine, "manual")
    pair.site.run("insert into book values (1, 1)")
    pair.settle()
    pair.site.run("update book set n = 5")
    pair.centre.run("update book set n = 6")
    pair.settle()
    pair.site.run("update book set n = n + 100")
    pair.settle()
    assert books(pair) == ([(1, 6)],) * 2, "what waits is not shown, be it the first or the last"
    assert [str(change.state) for change in pair.parked()] == ["parked", "waiting"]
    with pair.ends() as ends:
        last = ends.target.list_parked()[-1].after
        assert last is not None
        assert ends.target.settle_conflict(waiting(pair), {"n": str(last["n"])}, "by hand")
    pair.settle()
    pair.assert_converged("book")
    assert pair.centre.rows("select n from book") == [(106,)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_change_the_database_refused_is_not_answered(make_pair: MakePair, engine: str) -> None:
    """The site keeps what it wrote, for it is the database's word alone that stands against it."""
    pair = made(make_pair, engine)
    pair.site.run("insert into book values (1, 1)")
    pair.settle()
    pair.centre.run("alter table book add check (n < 10)")
    for n in (50, 60):
        pair.site.run(f"update book set n = {n}")
        pair.settle()
    assert books(pair) == ([(1, 60)], [(1, 1)])
    assert len(pair.parked()) == 2
