"""A change that meets another row than the site thinks: found, decided by policy, recorded with its images."""

from __future__ import annotations

import pytest

from tests.fixtures.pairs import Pair

BOOK = "create table book (id integer primary key, title text, price double precision)"


@pytest.fixture(params=["source_wins", "centre_wins"])
def policy(request: pytest.FixtureRequest) -> str:
    """Both policies."""
    return str(request.param)


@pytest.fixture
def book(pair: Pair, policy: str) -> Pair:
    """A pair with one table that already holds three equal rows on both sides."""
    pair.site.run(BOOK)
    pair.install({"name": "book", "policy": policy})
    pair.site.run("insert into book values (1, 'one', 1), (2, 'two', 2), (3, 'three', 3)")
    pair.sync()
    pair.assert_equal("book")
    return pair


def _has_before(pair: Pair) -> bool:
    """Whether the source gives before images: SQLite sources are told by the ledger instead."""
    return pair.site.engine == "postgres"


def test_update_differs(book: Pair, policy: str) -> None:
    book.centre.run("update book set title = 'centre' where id = 1")
    book.site.run("update book set title = 'site' where id = 1", "update book set title = 'clean' where id = 2")
    (outcome,) = book.sync()
    assert outcome.conflicts == 1
    ((kind, verdict, before, after, current),) = book.conflicts()
    assert (kind, verdict) == ("update_differs", "apply" if policy == "source_wins" else "keep")
    assert isinstance(after, dict)
    assert isinstance(current, dict)
    assert (after["title"], current["title"]) == ("site", "centre")
    if _has_before(book):
        assert isinstance(before, dict)
        assert before["title"] == "one"
    else:
        assert before is None
    kept = "site" if policy == "source_wins" else "centre"
    assert book.centre.rows("select title from book order by id") == [(kept,), ("clean",), ("three",)]


def test_update_missing(book: Pair, policy: str) -> None:
    book.centre.run("delete from book where id = 1")
    book.site.run("update book set title = 'site' where id = 1")
    book.sync()
    ((kind, verdict, _, after, current),) = book.conflicts()
    assert (kind, verdict) == ("update_missing", "apply" if policy == "source_wins" else "keep")
    assert isinstance(after, dict)
    assert (after["title"], current) == ("site", None)
    found = book.centre.rows("select title from book where id = 1")
    assert found == ([("site",)] if policy == "source_wins" else [])


def test_delete_differs(book: Pair, policy: str) -> None:
    book.centre.run("update book set title = 'centre' where id = 1")
    book.site.run("delete from book where id = 1")
    book.sync()
    ((kind, verdict, _, after, current),) = book.conflicts()
    assert (kind, verdict) == ("delete_differs", "apply" if policy == "source_wins" else "keep")
    assert after is None
    assert isinstance(current, dict)
    assert current["title"] == "centre"
    found = book.centre.rows("select title from book where id = 1")
    assert found == ([] if policy == "source_wins" else [("centre",)])


def test_insert_exists(book: Pair, policy: str) -> None:
    book.centre.run("insert into book values (9, 'centre', 9)")
    book.site.run("insert into book values (9, 'site', 8)")
    book.sync()
    ((kind, verdict, before, after, current),) = book.conflicts()
    assert (kind, verdict) == ("insert_exists", "apply" if policy == "source_wins" else "keep")
    assert before is None
    assert isinstance(after, dict)
    assert isinstance(current, dict)
    assert (after["title"], current["title"]) == ("site", "centre")
    assert book.centre.rows("select title from book where id = 9") == [
        ("site" if policy == "source_wins" else "centre",)
    ]


def test_already_there_and_already_gone_are_no_conflicts(book: Pair) -> None:
    book.centre.run("insert into book values (9, 'same', 9)", "delete from book where id = 1")
    book.centre.run("update book set title = 'same' where id = 2")
    book.site.run("insert into book values (9, 'same', 9)", "delete from book where id = 1")
    book.site.run("update book set title = 'same' where id = 2")
    book.sync()
    assert book.conflicts() == []
    book.assert_equal("book")
    book.site.run("update book set title = 'next'")
    book.sync()
    assert book.conflicts() == []
    book.assert_equal("book")


def test_the_least_difference_is_one(book: Pair) -> None:
    """0.0 and -0.0 are equal to SQL, but not the same value."""
    book.site.run("update book set price = 0.0 where id = 1")
    book.sync()
    book.centre.run("update book set price = cast('-0.0' as double precision) where id = 1")
    book.site.run("update book set title = 'site' where id = 1")
    book.sync()
    expected = ["update_differs"] if book.centre.engine == "postgres" else []  # a SQLite column keeps no sign of zero
    assert [kind for kind, *_ in book.conflicts()] == expected


def test_a_site_whose_change_lost_can_change_the_row_again(book: Pair, policy: str) -> None:
    """The second change is again measured by what the site believed, not by what the centre kept."""
    book.centre.run("update book set title = 'centre' where id = 1")
    book.site.run("update book set title = 'site' where id = 1")
    book.sync()
    book.site.run("update book set title = 'site again' where id = 1")
    book.sync()
    kinds = [kind for kind, *_ in book.conflicts()]
    title = book.centre.rows("select title from book where id = 1")
    if policy == "source_wins":
        assert (kinds, title) == (["update_differs"], [("site again",)])
    else:
        assert (kinds, title) == (["update_differs"] * 2, [("centre",)])


def test_many_conflicts_in_one_batch_each_get_their_record(book: Pair, policy: str) -> None:
    many = 2500
    if book.site.engine == "postgres":
        book.site.run(f"insert into book select n, 'site', n from generate_series(100, {99 + many}) n")
    else:
        book.site.run(
            f"with recursive s (n) as (select 100 union all select n + 1 from s where n < {99 + many})"
            " insert into book select n, 'site', n from s"
        )
    if book.centre.engine == "postgres":
        book.centre.run(f"insert into book select n, 'centre', n from generate_series(100, {99 + many}) n")
    else:
        book.centre.run(
            f"with recursive s (n) as (select 100 union all select n + 1 from s where n < {99 + many})"
            " insert into book select n, 'centre', n from s"
        )
    outcomes = book.sync()
    assert sum(outcome.conflicts for outcome in outcomes) == many
    kept = "site" if policy == "source_wins" else "centre"
    assert book.centre.rows(f"select count(*) from book where title = '{kept}'") == [(many,)]
    assert book.centre.rows(f"select count(*) from {book.ours('conflict')}") == [(many,)]


def test_a_key_update_onto_a_row_the_centre_has(book: Pair, policy: str) -> None:
    """No third row is touched without a decision (invariants 6 and 8): the row in the way is a recorded conflict."""
    book.centre.run("insert into book values (7, 'centre', 7)")
    book.site.run("update book set id = 7 where id = 1")
    book.sync()
    titles = {title for (title,) in book.centre.rows("select title from book where id = 7")}
    told = [kind for kind, *_ in book.conflicts()] or [change.cause for change in book.parked()]
    assert told, "what happened to the row in the way is on record"
    assert titles in ({"centre"}, {"one"})
    if policy == "centre_wins":
        assert titles == {"centre"}
