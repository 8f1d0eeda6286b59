"""The order of a backfill at a PostgreSQL source, where the key is altered between two chunks or while one is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.app import App
from replicator.canonical import Undecodable
from replicator.errors import RetryableError, SchemaError
from replicator.model import Direction, Engine, Outcome, TableName
from replicator.pipeline import run_once
from tests.fixtures.pairs import MakePair, Pair, Place


def table_of(pair: Pair) -> TableName:
    """The table as the site has it."""
    return TableName("public" if pair.site.engine is Engine.POSTGRES else "", "item")


def bring_one(pair: Pair, rows: int, direction: Direction = Direction.TO_CENTRE) -> None:
    """Order a backfill of what the other end has lost, and bring its first chunk."""
    with pair.ends(direction=direction) as ends:
        ends.target.order_backfill(table_of(pair), chunk_rows=rows)
        while (outcome := run_once(ends.source, ends.target, 1000)) is not None and not outcome.chunk:
            continue
    assert outcome is not None
    assert outcome.chunk is not None
    assert outcome.chunk.rows == rows


def settle(pair: Pair) -> None:
    """As a service goes on behind an altered table: planned anew."""
    pair.opened = App.open(pair.yaml)
    pair.opened.read_catalogues()
    pair.settle()


def test_another_collation_in_the_middle_begins_anew(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    if not pair.site.rows("select from pg_collation where collname = 'en-x-icu'"):
        pytest.skip("this server has no collations of ICU")
    pair.site.run(
        'create table item (id text collate "C" primary key, a text)',
        "insert into item select x, 'x' from unnest(array['A', 'B', 'C', 'D', 'a', 'b', 'c', 'd']) x",
    )
    pair.install("item")
    pair.settle()
    pair.centre.run("truncate item")
    bring_one(pair, 4)
    pair.site.run('alter table item alter id type text collate "en-x-icu"')
    settle(pair)
    pair.assert_equal("item")


def test_another_type_of_the_key_in_the_middle_begins_anew(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(
        "create table item (id int primary key, a text)", "insert into item select g, 'x' from generate_series(1, 30) g"
    )
    pair.centre.run("create table item (id text primary key, a text)")
    pair.install("item")
    pair.settle()
    pair.centre.run("truncate item")
    with pair.ends() as ends:
        ends.target.order_backfill(table_of(pair), chunk_rows=8)
        run_once(ends.source, ends.target, 1000)
        pair.site.run("alter table item alter id type text")  # under the very source that knows the old type
        for _ in range(3):
            try:
                while run_once(ends.source, ends.target, 1000) is not None:
                    continue
            except (SchemaError, RetryableError):
                continue
    settle(pair)
    pair.assert_equal("item")


def _while_altered(place: Place, alter: str, read: Callable[[], Outcome | None]) -> None:
    """Run ``read`` while a session alters a table: the snapshot is there, the table can be read only when it is altered."""
    with ThreadPoolExecutor(1) as pool:
        with place.session() as run:
            run(alter)
            reading = pool.submit(read)
            for _ in range(500):
                if reading.done() or place.rows(
                    "select from pg_locks where not granted and relation = 'item'::regclass"
                ):
                    break
                time.sleep(0.01)
            assert not reading.done()
        with pytest.raises((RetryableError, SchemaError)):
            reading.result(30)


@pytest.mark.parametrize("capture", ["postgres", "postgres-wal"])
def test_a_table_rewritten_while_a_chunk_waits_for_it_is_not_taken_for_empty(make_pair: MakePair, capture: str) -> None:
    """To a snapshot from before a rewrite the table has no rows at all."""
    pair = make_pair(capture, "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table item (id int primary key, a int)")
    pair.site.run("insert into item select g, g from generate_series(1, 20) g")
    pair.install("item")
    pair.settle()
    pair.centre.run("truncate item", "alter table item alter a type bigint")
    bring_one(pair, 8)
    with pair.ends() as ends:
        _while_altered(
            pair.site, "alter table item alter a type bigint", lambda: run_once(ends.source, ends.target, 1000)
        )
    settle(pair)
    pair.assert_equal("item")


def test_a_table_rewritten_at_the_centre_while_it_is_read_takes_nothing_from_the_site(make_pair: MakePair) -> None:
    """Changed rows are read as they are; in the snapshot from before there are none, which is not that they are gone."""
    pair = make_pair("postgres", "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table item (id int primary key, a int)")
    pair.site.run("insert into item select g, g from generate_series(1, 20) g")
    pair.install({"name": "item", "direction": "both"})
    pair.settle()
    pair.centre.run("update item set a = -1 where id < 5")
    with pair.ends(direction=Direction.FROM_CENTRE) as ends:
        _while_altered(
            pair.centre, "alter table item alter a type bigint", lambda: run_once(ends.source, ends.target, 1000)
        )
    assert pair.site.rows("select count(*) from item") == [(20,)]
    pair.site.run("alter table item alter a type bigint")
    settle(pair)
    pair.assert_equal("item")


@pytest.mark.parametrize("engine", ["postgres", "sqlite"])
def test_another_row_filter_in_the_middle_begins_anew(make_pair: MakePair, engine: str) -> None:
    pair = make_pair(engine, "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table item (id integer primary key, n integer)")
    values = ", ".join(f"({number}, {number % 2})" for number in range(1, 31))
    pair.site.run(f"insert into item values {values}")
    pair.install({"name": "item", "where": "n = 1"})
    pair.settle()
    pair.centre.run("truncate item")
    bring_one(pair, 5)
    pair.install({"name": "item", "where": "id > 0"})
    settle(pair)
    pair.assert_equal("item")


def test_a_row_named_by_a_key_that_is_no_utf_8_is_found(make_pair: MakePair) -> None:
    pair = make_pair("sqlite", "postgres")
    for place in (pair.site, pair.centre):
        place.run("create table item (id text primary key, n integer)")
    pair.install("item")
    pair.settle()
    pair.site.run("insert into item values (cast(x'ff41' as text), 1), ('fine', 2)")
    pair.settle()
    pair.centre.run("truncate item", "delete from replicator.parked")
    with pair.ends() as ends:
        ends.target.order_backfill(table_of(pair), keys=[(Undecodable(b"\xffA"),), ("fine",), ("gone",)])
        while run_once(ends.source, ends.target, 1000) is not None:
            continue
    assert pair.centre.rows("select id, n from item") == [("fine", 2)]
    assert len(pair.parked()) == 1
