"""Invariant 6: what a site sent to a PostgreSQL centre before it was first sent anything is answered, however late."""

from __future__ import annotations

import time

import pytest

from replicator.engines.postgres.routed import PostgresRoutedSource
from replicator.model import Direction
from tests.fixtures.pairs import MakePair, Pair

A, B = "factory_a", "factory_b"


@pytest.fixture(params=["postgres", "sqlite"])
def pair(request: pytest.FixtureRequest, make_pair: MakePair) -> Pair:
    """Two sites, each with its own part of the rows; the second has read, the first has sent two rows and not read."""
    made = make_pair(request.param, "postgres", sites=(A, B))
    for place in (made.centre, *made.sites.values()):
        place.run("create table book (id integer primary key, place text not null, n integer)")
    made.install({"name": "book", "direction": "both", "where": "place = :site.name"})
    made.fetch(B)
    made.sites[A].run("insert into book values (1, 'factory_a', 0), (2, 'elsewhere', 0), (3, 'factory_a', 0)")
    made.send(A)
    made.centre.run("delete from book where id = 1")
    return made


def assert_answered(pair: Pair) -> None:
    """The first site has its part of the centre's rows, and no more."""
    assert pair.sites[A].rows("select id from book order by id") == [(3,)]
    assert pair.centre.rows("select id from book order by id") == [(2,), (3,)]


def test_the_first_read_tells_what_became_of_rows_the_site_sent(pair: Pair) -> None:
    pair.fetch(A)
    assert_answered(pair)


def test_pruning_waits_for_the_first_read(pair: Pair) -> None:
    with pair.ends(B, Direction.FROM_CENTRE) as ends:
        assert isinstance(ends.source, PostgresRoutedSource)
        for _ in range(2):
            pair.centre.run("insert into book values (9, 'elsewhere', 0)", "delete from book where id = 9")
            with ends.source.read_batch(ends.target.read_position(), 10):
                pass
            time.sleep(1.1)
            ends.source._subscription.dispatcher._pruned_at = 0.0
            ends.source.tidy()
    pair.fetch(A)
    assert_answered(pair)


def test_a_first_read_that_never_arrived_is_repeated(pair: Pair) -> None:
    for _ in range(2):
        with pair.ends(A, Direction.FROM_CENTRE) as ends, ends.source.read_batch(None, 10) as batch:
            assert batch is not None
    pair.fetch(A)
    assert_answered(pair)


def test_a_link_that_expired_before_its_first_read_is_told_what_is_left(pair: Pair) -> None:
    pair.centre.run("update replicator.acknowledged set expired_at = now() where link like '%factory_a%'")
    pair.fetch(A)
    assert_answered(pair)


def test_a_row_that_was_there_already_is_looked_at_too(pair: Pair) -> None:
    """It moved nothing at the centre, and is not the site's."""
    pair.fetch(A)
    pair.centre.run("insert into book values (7, 'elsewhere', -1)")
    pair.fetch(A)
    pair.sites[A].run("insert into book values (7, 'elsewhere', -1)")
    pair.settle()
    assert_there = "select id from book where id = 7"
    assert (pair.sites[A].rows(assert_there), pair.centre.rows(assert_there)) == ([], [(7,)])
