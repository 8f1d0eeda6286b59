"""Columns that take each other's names, or their own again: a value is where its column is, whatever it was called between."""

from __future__ import annotations

import pytest

from replicator.app import App
from replicator.errors import SchemaError
from replicator.service import drain_all
from tests.fixtures.pairs import MakePair, Pair

TABLE = "create table item (id integer primary key, a text, b text)"
ROWS = "insert into item select n, 'a' || n, 'b' || n from generate_series(1, 4) as n"
SWAP = "begin; alter table item rename a to t; alter table item rename b to a; alter table item rename t to b; commit"
PLAIN = ("postgres", TABLE)
BY_ROW = ("postgres", f"{TABLE} partition by range (id); create table item_1 (b text, a text, id integer not null);"
          "alter table item attach partition item_1 for values from (1) to (100)")  # fmt: skip
LOG = ("postgres-wal", TABLE)
BACK = [("renamed", *PLAIN), ("renamed", *LOG), ("swapped", *PLAIN), ("swapped", *LOG), ("and one more", *BY_ROW)]
CAPTURES = pytest.mark.parametrize(("engine", "table"), [PLAIN, BY_ROW, LOG], ids=["statement", "row", "log"])


def made(make_pair: MakePair, engine: str, table: str) -> Pair:
    pair = make_pair(engine, "postgres")
    pair.site.run(table, ROWS)
    pair.install("item")
    pair.settle()
    return pair


def sync(pair: Pair) -> list[str]:
    """A ``replicator sync`` of its own: nothing is remembered from the one before. What it said."""
    workers = App.open(pair.yaml).workers(tuple(pair.sites))
    failures = [failure for _, failure in drain_all(workers, 1) if failure is not None]
    assert failures == []
    return [line for worker in workers for line in worker.report.news]


def relations(pair: Pair) -> list[tuple[object, ...]]:
    return pair.site.rows(
        "select id, retired_at is null and loaded_at is not null from replicator.relation order by id"
    )


@CAPTURES
def test_a_column_dropped_and_added_again_is_another_one(make_pair: MakePair, engine: str, table: str) -> None:
    """Neither its writes are lost, nor what those rows have in it that nobody wrote: NULL."""
    pair = made(make_pair, engine, table)
    pair.site.run(
        "update item set a = 'old' where id = 1", "alter table item drop column b", "alter table item add column b text",
        "update item set b = 'new' where id = 1", "insert into item (id, a, b) values (9, 'a9', 'b9')",
    )  # fmt: skip
    sync(pair)
    pair.assert_equal("item")
    pair.site.run("update item set b = 'later' where id = 2", "insert into item (id, b) values (10, 'b10')")
    assert sync(pair) == []
    pair.assert_equal("item")


@CAPTURES
def test_one_that_nobody_writes_to_is_noticed(make_pair: MakePair, engine: str, table: str) -> None:
    """What it has by default is brought, by a sync alone; after that nothing is to be done any more."""
    pair = made(make_pair, engine, table)
    pair.site.run("begin; alter table item drop column b; alter table item add column b text default 'd'; commit")
    assert sync(pair) != []
    pair.assert_equal("item")
    was = relations(pair)
    assert [live for _, live in was] == [False, True]
    pair.install("item")
    assert sync(pair) == []
    assert relations(pair) == was


@CAPTURES
def test_swapped_columns(make_pair: MakePair, engine: str, table: str) -> None:
    """Rows from before go to the columns they were of, rows from after to those they are of."""
    pair = made(make_pair, engine, table)
    pair.site.run("update item set a = 'A', b = 'B' where id = 1", SWAP, "insert into item values (9, 'in b', 'in a')")
    sync(pair)
    pair.assert_equal("item", columns="id, a, b")


@pytest.mark.parametrize(("way", "engine", "table"), BACK, ids=[f"{way} {at}" for at, (way, *_) in enumerate(BACK)])
def test_back_again_before_the_next_sync(make_pair: MakePair, engine: str, table: str, way: str) -> None:
    """The table is as it is on record, but rows were captured while it was not: they are brought again."""
    pair = made(make_pair, engine, table)
    away, back = (SWAP, SWAP) if way == "swapped" else [f"alter table item rename {x}" for x in ("a to x", "x to a")]
    column = "b" if way == "swapped" else "x"
    pair.site.run(
        away, f"update item set {column} = 'X' where id = 1", f"insert into item (id, {column}) values (9, 'new')", back
    )
    if way == "and one more":
        pair.site.run("alter table item add column c text default 'c'")
        pair.centre.run("alter table item add column c text")
    sync(pair)
    pair.assert_equal("item")
    assert sync(pair) == []


def test_until_then_the_source_gives_nothing(make_pair: MakePair) -> None:
    """A reader that capture was not made anew for stops: it never leaves a value out and goes on."""
    pair = made(make_pair, *PLAIN)
    pair.site.run(
        "alter table item rename a to x", "update item set x = 'X' where id = 1", "alter table item rename x to a"
    )
    with (
        pair.ends() as ends,
        pytest.raises(SchemaError, match="have changed since"),
        ends.source.read_batch(ends.target.read_position(), 100),
    ):
        pass
    sync(pair)
    pair.assert_equal("item")


@pytest.mark.parametrize("both", [False, True])
def test_a_parked_value_stays_with_its_column(make_pair: MakePair, both: bool) -> None:
    """Its column is called otherwise by now and another has its name, which the link's plans do not know yet."""
    pair = made(make_pair, *PLAIN)
    pair.centre.run("alter table item add constraint no check (b <> 'bad')")
    pair.site.run("update item set a = 'parked', b = 'bad' where id = 1", "insert into item values (9, 'a9', 'bad')")
    pair.settle()
    assert len(pair.parked("")) == 2
    change = ("alter table item rename a to a_old", "alter table item add column a text")
    pair.site.run(*change)
    if not both:
        pair.settle()
    pair.centre.run(*change, "alter table item drop constraint no")
    for _ in range(2):
        pair.settle()
    pair.assert_equal("item", columns="id, a_old, a, b")
