"""PostgreSQL on both ends, both ways: markers, corrections, pending changes, parked rows. Invariants 3, 6, 7 and 8."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from replicator.model import Direction
from tests.fixtures.pairs import MakePair, Pair

BOOK = "create table book (id bigint primary key, title text, n bigint)"
DOWN = Direction.FROM_CENTRE


def both(make_pair: MakePair, *, policy: object = "source_wins", sites: tuple[str, ...] = ("factory_a",)) -> Pair:
    """Sites and a centre that all write table book."""
    pair = make_pair("postgres", "postgres", sites=sites)
    for place in pair.sites.values():
        place.run(BOOK)
    pair.install({"name": "book", "direction": "both", "policy": policy})
    return pair


@pytest.fixture
def book(make_pair: MakePair) -> Pair:
    """One site and a centre; the site wins."""
    return both(make_pair)


def test_changes_go_both_ways_and_do_not_come_back(book: Pair) -> None:
    book.site.run("insert into book values (1, 'site', 1)")
    book.centre.run("insert into book values (2, 'centre', 2)")
    book.settle()
    book.assert_converged("book")
    assert book.conflicts() == []
    before = book.site.rows("select count(*) from replicator.outbox")
    book.centre.run("update book set n = n + 1", "delete from book where id = 1")
    book.settle()
    book.assert_converged("book")
    assert book.site.rows("select count(*) from replicator.outbox") <= before, "what is applied here is not captured"


@pytest.mark.parametrize(("policy", "title"), [("source_wins", "site"), ("centre_wins", "centre")])
def test_invariant_6_a_conflict_is_decided_once_and_both_ends_get_it(
    make_pair: MakePair, policy: str, title: str
) -> None:
    pair = both(make_pair, policy=policy)
    pair.site.run("insert into book values (1, 'base', 1), (2, 'base', 2), (3, 'base', 3)")
    pair.settle()
    pair.site.run("update book set title = 'site' where id in (1, 3)", "delete from book where id = 2")
    pair.centre.run("update book set title = 'centre' where id in (1, 2)", "delete from book where id = 3")
    pair.settle()
    kinds = [(kind, verdict) for kind, verdict, *_ in pair.conflicts()]
    verdict = "apply" if policy == "source_wins" else "keep"
    assert sorted(kinds) == [("delete_differs", verdict), ("update_deleted", verdict), ("update_differs", verdict)]
    pair.assert_converged("book")
    assert pair.centre.rows("select title from book where id = 1") == [(title,)]
    assert pair.centre.rows("select id from book order by id") == ([(1,), (3,)] if title == "site" else [(1,), (2,)])


def test_invariant_6_a_change_that_the_centre_has_yet_to_process_is_not_overwritten(make_pair: MakePair) -> None:
    pair = both(make_pair, policy="centre_wins")
    pair.site.run("insert into book values (1, 'base', 1), (2, 'base', 2)")
    pair.settle()
    pair.site.run("update book set title = 'site' where id = 1")
    pair.centre.run("update book set title = 'centre'")
    pair.fetch()
    assert pair.site.rows("select title from book order by id") == [("site",), ("centre",)]
    pair.send()
    assert pair.centre.rows("select title from book where id = 1") == [("centre",)]
    pair.fetch()
    assert pair.site.rows("select title from book order by id") == [("centre",), ("centre",)]
    pair.assert_converged("book")


def test_invariant_6_a_change_made_while_the_batch_waits_for_its_row_survives(book: Pair) -> None:
    """The site's open transaction has changed a row, and created another, when the centre's rows arrive."""
    book.site.run("insert into book values (1, 'base', 1), (2, 'base', 2)")
    book.settle()
    book.centre.run("update book set title = 'centre'", "insert into book values (9, 'centre', 9)")
    with psycopg.connect(book.site.url) as user:
        user.execute("update book set title = 'user' where id = 1")
        user.execute("insert into book values (9, 'user', 9)")
        applying = threading.Thread(target=book.fetch)
        applying.start()
        _wait_until_blocked(book)
        user.commit()
    applying.join(20)
    assert not applying.is_alive()
    assert book.site.rows("select id, title from book order by id") == [(1, "user"), (2, "centre"), (9, "user")]
    book.settle()
    book.assert_converged("book")
    assert book.centre.rows("select title from book order by id") == [("user",), ("centre",), ("user",)]


def test_invariant_6_a_row_deleted_while_the_batch_waits_for_it_stays_deleted(book: Pair) -> None:
    book.site.run("insert into book values (1, 'base', 1)")
    book.settle()
    book.centre.run("update book set title = 'centre'")
    with psycopg.connect(book.site.url) as user:
        user.execute("delete from book where id = 1")
        applying = threading.Thread(target=book.fetch)
        applying.start()
        _wait_until_blocked(book)
        user.commit()
    applying.join(20)
    assert book.site.rows("select count(*) from book") == [(0,)]
    book.settle()
    book.assert_converged("book")
    assert book.centre.rows("select count(*) from book") == [(0,)]


@pytest.mark.parametrize("truncate", ["replicate", "park"])
def test_invariant_6_a_table_emptied_at_the_site_is_not_filled_again_from_the_past(
    make_pair: MakePair, truncate: str
) -> None:
    book = make_pair("postgres", "postgres")
    book.site.run(BOOK)
    book.install({"name": "book", "direction": "both", "truncate": truncate})
    book.site.run("insert into book values (1, 'base', 1), (2, 'base', 2)")
    book.settle()
    book.centre.run("update book set title = 'centre' where id = 1")
    book.site.run("truncate book")
    book.fetch()
    assert book.site.rows("select count(*) from book") == [(0,)]
    book.settle()
    if truncate == "park":
        with book.ends() as ends:
            ends.target.skip_parked(ends.target.list_parked()[0].id)
        book.settle()
        assert book.centre.rows("select count(*) from book") == [(2,)]
    book.assert_converged("book")


def test_invariant_6_changes_of_one_site_reach_the_others(make_pair: MakePair) -> None:
    pair = both(make_pair, sites=("factory_a", "factory_b", "factory_c"))
    for n, place in enumerate(pair.sites.values()):
        place.run(f"insert into book values ({n}, 'site {n}', {n}), (100, 'shared {n}', {n})")
    pair.settle()
    pair.assert_converged("book")
    for n, place in enumerate(pair.sites.values()):
        place.run(f"update book set title = 'again {n}' where id in ({n}, 100)")
    pair.settle()
    pair.assert_converged("book")
    assert pair.centre.rows("select count(*) from book") == [(4,)]


def test_a_correction_is_for_the_site_that_lost_alone(make_pair: MakePair) -> None:
    pair = both(make_pair, policy="centre_wins", sites=("factory_a", "factory_b"))
    pair.centre.run("insert into book values (1, 'base', 1)")
    pair.settle()
    pair.centre.run("update book set title = 'centre'")
    pair.sites["factory_a"].run("update book set title = 'a'")
    pair.send("factory_a")
    routes = pair.centre.rows("select op, route from replicator.outbox where route like '@%' and op = 'u'")
    assert routes == [("u", "@bloodlab/factory_a")]
    pair.settle()
    pair.assert_converged("book")


# --- parked rows at the site ---


def test_invariant_8_a_unique_value_in_the_way_at_the_site_parks_and_heals_by_itself(make_pair: MakePair) -> None:
    table = "create table person (id bigint primary key, email text unique, n bigint)"
    pair = make_pair("postgres", "postgres")
    pair.site.run(table)
    pair.install({"name": "person", "direction": "both"})
    pair.site.run("insert into person values (1, 'x', 1)")
    pair.centre.run("insert into person values (2, 'x', 2), (3, 'z', 3)")
    pair.settle()
    assert [change.key for change in pair.parked(direction=DOWN)] == ["(2)"]
    assert [change.key for change in pair.parked()] == ["(1)"]
    with pair.ends() as ends:
        (change,) = ends.target.list_parked()
        assert ends.target.find_blocking(change.id) == {"id": "2", "email": "x", "n": "2"}
    assert pair.site.rows("select id from person order by id") == [(1,), (3,)]
    pair.centre.run("update person set email = 'y' where id = 2")
    pair.settle()
    _heal(pair)
    pair.assert_converged("person")
    assert pair.centre.rows("select id, email from person order by id") == [(1, "x"), (2, "y"), (3, "z")]


def test_invariant_6_a_parked_row_that_the_site_has_overtaken_does_not_come_back(make_pair: MakePair) -> None:
    table = "create table person (id bigint primary key, email text unique, n bigint)"
    pair = make_pair("postgres", "postgres")
    pair.site.run(table)
    pair.install({"name": "person", "direction": "both"})
    pair.site.run("insert into person values (1, 'x', 1)")
    pair.settle()
    pair.site.run("alter table person add check (n < 100)")
    pair.centre.run("insert into person values (2, 'old', 500)")
    pair.fetch()
    assert len(pair.parked(direction=DOWN)) == 1
    pair.site.run("insert into person values (2, 'new', 5)")
    pair.settle()
    assert pair.parked(direction=DOWN) == []
    pair.assert_converged("person")
    assert pair.centre.rows("select email from person where id = 2") == [("new",)]


def test_invariant_7_later_states_of_a_parked_row_wait_and_go_in_as_one(book: Pair) -> None:
    book.site.run("alter table book add check (n < 100)")
    book.centre.run("insert into book values (1, 'bad', 500), (2, 'good', 2)")
    book.fetch()
    book.centre.run("update book set title = 'still bad' where id = 1")
    book.fetch()
    book.centre.run("update book set n = 50, title = 'good' where id = 1")
    book.fetch()
    assert [str(change.state) for change in book.parked(direction=DOWN)] == ["parked", "waiting", "waiting"]
    _heal(book)
    book.assert_converged("book")


def test_invariant_8_a_delete_at_the_centre_takes_no_rows_of_the_sites_own_along(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(BOOK)
    pair.install({"name": "book", "direction": "both"})
    pair.site.run("insert into book values (1, 'a', 1), (2, 'b', 2)")
    pair.settle()
    pair.site.run(
        "create table note (id bigint primary key, book bigint references book on delete cascade)",
        "insert into note values (1, 1)",
    )
    pair.centre.run("delete from book")
    pair.fetch()
    assert pair.site.rows("select id from book") == [(1,)]
    assert [change.sqlstate for change in pair.parked(direction=DOWN)] == ["23503"]
    pair.site.run("delete from note")
    _heal(pair)
    pair.assert_converged("book")


# --- exactly once ---


def test_invariant_3_a_crash_at_any_step_at_the_site_changes_nothing_but_time(book: Pair) -> None:
    book.site.run("insert into book values (1, 'base', 1)")
    book.settle()
    book.centre.run("update book set title = 'centre'", "insert into book values (2, 'centre', 2)")
    for step in ("stage_batch", "spans", "apply_clean", "apply_decisions", "check_constraints", "record_batch"):
        with book.ends(direction=DOWN) as ends:
            target = ends.target
            original = getattr(target, step)

            def crash(*arguments: object, original: object = original) -> object:
                assert callable(original)
                original(*arguments)
                raise KeyboardInterrupt

            setattr(target, step, crash)
            with pytest.raises(KeyboardInterrupt):
                _run(ends)
        assert book.site.rows("select title from book order by id") == [("base",)], step
    book.settle()
    book.assert_converged("book")


def _run(ends: object) -> None:
    from replicator.pipeline import run_once

    run_once(ends.source, ends.target, 1000)  # type: ignore[attr-defined]


def _heal(pair: Pair) -> None:
    from replicator.pipeline import heal

    for _ in range(3):
        for direction in (Direction.TO_CENTRE, DOWN):
            with pair.ends(direction=direction) as ends:
                heal(ends.target, 100)
        pair.settle()


def _wait_until_blocked(pair: Pair) -> None:
    """Until a session of ours waits for somebody's lock at the site."""
    for _ in range(400):
        query = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            " and application_name like 'replicator%'"
        )
        if pair.site.rows(query) == [(1,)]:
            return
        time.sleep(0.01)
    raise AssertionError("the applying session never waited")
