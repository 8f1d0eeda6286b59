"""What a rejoin keeps of an outbox: every change the centre never had, whatever its time; deletions come by nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
import pytest

from replicator.app import App
from replicator.engines.postgres import epochs
from tests.fixtures.cli import replicator
from tests.fixtures.copies import Copied
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.pairs import MakePair, Pair

TABLE = "create table item (id integer primary key, name text)"


def started(pair: Pair) -> Pair:
    for place in (pair.site, pair.centre):
        place.run(TABLE)
    pair.install("item")
    pair.site.run("insert into item values (1, 'one'), (2, 'two'), (3, 'three')")
    pair.settle()
    return pair


def rejoin(pair: Pair, *which: str) -> None:
    replicator("rejoin", *(which or ("--site", pair.name)), "--yes", "-c", pair.yaml)
    pair.opened = App.open(pair.yaml)
    pair.opened.read_catalogues()
    pair.settle()
    pair.assert_equal("item")


def deleted_late(pair: Pair) -> None:
    """A deletion that is older than a change the centre has, and was committed behind it."""
    with psycopg.connect(pair.site.url) as application:
        application.execute("delete from item where id = 1")
        time.sleep(0.01)
        pair.site.run("update item set name = 'newer' where id = 2")
        pair.settle()


@pytest.mark.parametrize("way", ["postgres", "postgres-wal", "postgres-bypass"])
def test_an_older_change_that_was_committed_later_is_kept(make_pair: MakePair, way: str) -> None:
    pair = started(make_pair(way, "postgres"))
    deleted_late(pair)
    rejoin(pair)


def test_also_when_the_centre_was_put_back(
    make_pair: MakePair, postgres_database: PostgresDatabases, tmp_path: Path
) -> None:
    """It then has nothing of what is in the outbox."""
    pair = started(make_pair("postgres", "postgres"))
    copy = Copied(pair.centre.url, postgres_database)
    with psycopg.connect(pair.site.url) as application:
        application.execute("delete from item where id = 1")
        time.sleep(0.01)
        pair.site.run("update item set name = 'newer' where id = 2")
        pair.settle()
        copy.back_up()
        pair.site.run("update item set name = 'newest' where id = 2")
        pair.settle()
    copy.restore()
    rejoin(pair, "--centre")


def test_what_is_committed_while_a_dump_begins_anew_is_read(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither dropped with the old outbox nor taken for passed."""
    pair = started(make_pair("postgres", "postgres"))
    pair.site.run("update replicator.acknowledged set position = '99999999:99999999:'")  # as if from another cluster
    real, written = epochs._run, []

    def run(connection: psycopg.Connection, name: str, *values: object) -> None:
        if name == "go_on_from_now" and not written:
            pair.site.run("delete from item where id = 3")
            written.append(name)
        real(connection, name, *values)

    monkeypatch.setattr(epochs, "_run", run)
    rejoin(pair)
    assert written


def test_who_writes_our_tables_meanwhile_is_no_error(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One snapshot for the whole transaction: what changed behind it makes it begin again."""
    pair = started(make_pair("postgres", "postgres"))
    real, written = epochs._run, []

    def run(connection: psycopg.Connection, name: str, *values: object) -> None:
        if name == "unexpire" and not written:
            pair.site.run("update replicator.acknowledged set acknowledged_at = now()")
            written.append(name)
        real(connection, name, *values)

    monkeypatch.setattr(epochs, "_run", run)
    rejoin(pair)
    assert written
