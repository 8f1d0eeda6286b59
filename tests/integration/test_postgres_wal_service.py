"""Capture from the log beside a running service: who looks on, a centre that is away, and a slot that keeps no log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from replicator.app import App
from replicator.cli.status import read
from replicator.service import Service
from replicator.status import Health, LinkStatus
from tests.fixtures.databases import PostgresDatabases
from tests.fixtures.pairs import MakePair, Pair

TABLE = "create table item (id integer primary key, name text)"
SLOT = "from pg_replication_slots as r join replicator.slot as s on s.name = r.slot_name"


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    """A site captured from its log, with one table at both ends, installed."""
    made = make_pair("postgres-wal", "sqlite")
    made.site.run(TABLE)
    made.centre.run(TABLE)
    made.install("item")
    return made


@contextmanager
def serving(app: App) -> Iterator[Service]:
    """What ``replicator run`` does."""
    with app.keep_filling(app.sites):
        service = Service(app.workers(app.sites), lambda report, error: None)
        service.start()
        try:
            yield service
        finally:
            assert service.stop(20)


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.05)


def status(pair: Pair) -> LinkStatus:
    """As another process asks."""
    app = App.open(pair.yaml)
    (found,) = read(app, app.sites)
    return found


def test_invariant_13_status_is_true_while_the_service_holds_the_slot(pair: Pair) -> None:
    with serving(pair.app) as service:
        pair.site.run("insert into item values (1, 'one')")
        eventually(lambda: pair.centre.rows("select * from item") == [(1, "one")])
        for _ in range(3):
            found = status(pair)
            assert (found.health, found.behind_changes, found.problem) == (Health.UP_TO_DATE, 0, "")
        assert not [report for report in service.reports() if report.retries], "looking on disturbs nobody"
    pair.site.run("insert into item values (2, 'two')")
    found = status(pair)
    assert (found.health, found.behind_changes) == (Health.BEHIND, 1)


def test_the_outbox_is_filled_while_the_centre_is_away(pair: Pair) -> None:
    """The log is let go: what the site writes meanwhile waits in the outbox, and comes when the centre is back."""
    written = pair.yaml.read_text(encoding="utf-8")
    pair.yaml.write_text(written.replace(pair.centre.url, "postgresql://nobody@127.0.0.1:1/none"), encoding="utf-8")
    confirmed = f"select r.confirmed_flush_lsn::text {SLOT}"
    before = pair.site.rows(confirmed)
    with serving(App.open(pair.yaml)) as service:
        eventually(lambda: any(report.retries for report in service.reports()))
        pair.site.run("insert into item select g, 'x' from generate_series(1, 500) g", "update item set name = 'y'")
        eventually(lambda: pair.site.rows("select count(*) from replicator.outbox") == [(1000,)])
        eventually(lambda: pair.site.rows(confirmed) != before)
    pair.yaml.write_text(written, encoding="utf-8")
    pair.settle()
    pair.assert_equal("item")


def test_a_database_where_nothing_happens_keeps_no_log_while_others_write(
    pair: Pair, postgres_database: PostgresDatabases
) -> None:
    """The service moves the slot's ``restart_lsn``, what the server keeps its log from, with nothing to replicate."""
    behind = f"select pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn)::bigint {SLOT}"
    with psycopg.connect(postgres_database("noise"), autocommit=True) as noise:
        noise.execute("create table noise (a text)")
        noise.execute("insert into noise select repeat('x', 1000) from generate_series(1, 20000)")
        assert int(str(pair.site.rows(behind)[0][0])) > 10 << 20
        with serving(pair.app):
            eventually(lambda: bool(noise.execute("checkpoint")) and int(str(pair.site.rows(behind)[0][0])) < 4 << 20)
    assert pair.site.rows("select count(*) from replicator.outbox") == [(0,)]
