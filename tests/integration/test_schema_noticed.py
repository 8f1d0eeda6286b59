"""A running service notices changed tables at once, and what notes them never fails the application's own statement."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from replicator.app import App
from replicator.worker import Worker
from tests.fixtures.pairs import MakePair, Pair

TABLE = "create table item (id integer primary key, n integer)"


@contextmanager
def running(pair: Pair) -> Iterator[Worker]:
    """The service's worker of the link to the centre, which looks by itself once an hour only."""
    (worker,) = App.open(pair.yaml).workers([pair.name])
    worker._contact_seconds = 3600.0
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


def soon(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_a_new_column_flows_without_a_person_once_both_sides_have_it(make_pair: MakePair, engine: str) -> None:
    pair = make_pair(engine, "postgres")
    pair.site.run(TABLE)
    pair.install("item")
    with running(pair) as worker:
        pair.site.run("insert into item values (1, 1)")
        soon(lambda: len(pair.centre.rows("select * from item")) == 1, lambda: worker.report)
        pair.site.run("alter table item add column c text")
        pair.site.run("update item set c = 'early' where id = 1")
        soon(lambda: any("column c of item is held" in line for line in worker.report.news), lambda: worker.report)
        pair.centre.run("alter table item add column c text")
        pair.site.run("alter table item add column d text", "insert into item values (2, 2, 'late', 'no')")
        soon(
            lambda: pair.centre.rows("select c from item order by id") == [("early",), ("late",)], lambda: worker.report
        )
    assert worker.report.parked == 0


def test_a_change_that_cannot_be_noted_is_made_all_the_same(make_pair: MakePair) -> None:
    pair = make_pair("postgres", "postgres")
    pair.site.run(TABLE)
    pair.install("item")
    pair.site.run("alter table item add column c text", "alter table item drop column c")
    assert pair.site.rows("select table_name, command from replicator.schema_change order by id") == [
        ("item", "ALTER TABLE"), ("item", "ALTER TABLE"), ("item", "ALTER TABLE"),
    ][: len(pair.site.rows("select from replicator.schema_change"))]  # fmt: skip
    pair.site.run("drop table replicator.schema_change")
    said: list[str] = []
    with psycopg.connect(pair.site.url, autocommit=True) as connection:
        connection.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
        connection.execute("alter table item add column d text")
        connection.execute("insert into item values (1, 1, 'x')")
        connection.execute("drop table item")
    assert any("could not note" in line for line in said), said
