"""An outbox that grew while nothing could be vacuumed gives its space back, and never a row that a link has yet to pass."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from replicator.engines.postgres.connection import PostgresConnection, connect
from replicator.engines.postgres.purge import give_back
from tests.integration.postgres_site import MakeSite, Site, make_site, read_once

__all__ = ["make_site"]

MANY = (
    "insert into t select g, 'some text that takes a little room in the outbox ' || g from generate_series(1, 20000) g"
)


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site("create table t (id integer primary key, note text)")


@pytest.fixture
def connection(site: Site) -> Iterator[PostgresConnection]:
    with connect(site.url, application_name="purge") as opened:
        yield opened


def deliver(site: Site) -> None:
    """Read everything and acknowledge it, as a link does."""
    source = site.source()
    while (found := read_once(source, site.position, 1 << 40))[1] is not None:
        site.position = found[1]
    assert site.position is not None
    source.acknowledge_batch(site.position)
    source.tidy()


def size(site: Site) -> int:
    return int(str(site.rows("select pg_total_relation_size('replicator.outbox')")[0][0]))


def test_a_held_snapshot_keeps_no_space_that_every_link_has_passed(site: Site, connection: PostgresConnection) -> None:
    with psycopg.connect(site.url) as holder:
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from t")  # nothing deleted from here on can be vacuumed
        site.run(MANY)
        (numbered,) = site.rows("select max(seq) from replicator.outbox")
        deliver(site)
        site.run("vacuum replicator.outbox")
        assert site.rows("select count(*) from replicator.outbox") == [(0,)]
        assert size(site) > 2_000_000
        assert give_back(connection, worth=1_000_000)
        assert size(site) < 100_000
        site.run("insert into t values (0, 'next')")
        assert holder.execute("select count(*) from t").fetchone() == (0,)
    (after,) = site.rows("select max(seq) from replicator.outbox")
    assert int(str(after[0])) == int(str(numbered[0])) + 1
    changes, _, _ = read_once(site.source(), site.position, 1 << 40)
    assert [change[3] for change in changes] == [("0", "next")]


def test_nothing_is_given_back_that_a_link_has_yet_to_pass(site: Site, connection: PostgresConnection) -> None:
    site.run(MANY)
    deliver(site)
    site.run("insert into t values (0, 'not passed')")
    assert not give_back(connection, worth=1)
    assert site.rows("select count(*) from replicator.outbox") == [(1,)]
    deliver(site)
    site.run("insert into replicator.acknowledged (link, topology, position) values ('lab/slow', 'lab', '1:1:')")
    site.run("insert into t values (-1, 'passed by one link')")
    deliver(site)
    assert not give_back(connection, worth=1)
    assert site.rows("select count(*) from replicator.outbox") == [(1,)]
    site.run("update replicator.acknowledged set expired_at = now() where link = 'lab/slow'")
    deliver(site)
    assert give_back(connection, worth=100_000)


def test_another_topology_that_has_not_acknowledged_keeps_its_rows(site: Site, connection: PostgresConnection) -> None:
    site.run(MANY)
    deliver(site)
    site.run(
        "insert into replicator.relation (id, topology, table_schema, table_name, columns, key, fingerprint)"
        " overriding system value"
        " values (99, 'other', 'public', 't', '{id,note}', '{id}', 'x')"
    )
    assert not give_back(connection, worth=1)
    site.run("insert into replicator.acknowledged (link, topology, position) values ('other/site', 'other', '1:1:')")
    site.run("insert into replicator.outbox (relation, op, changed_at) values (99, 'i', 1)")
    assert not give_back(connection, worth=1)
    assert site.rows("select count(*) from replicator.outbox") == [(1,)]


@pytest.mark.parametrize("mode", ["access share", "row exclusive"])
def test_whoever_holds_the_outbox_is_not_waited_for(site: Site, connection: PostgresConnection, mode: str) -> None:
    site.run(MANY)
    deliver(site)
    with psycopg.connect(site.url) as holder:
        holder.execute(f"lock table replicator.outbox in {mode} mode".encode())
        start = time.monotonic()
        assert not give_back(connection, worth=1)
        assert time.monotonic() - start < 1
    assert size(site) > 1_000_000


def test_a_row_committed_just_before_the_lock_is_seen(site: Site, connection: PostgresConnection) -> None:
    """The condition is looked at again under the lock: a writer that was faster than the truncation keeps its row."""
    site.run(MANY)
    deliver(site)
    real, written = connection.execute, []

    def execute(statement: bytes, *arguments: object, **options: object) -> object:
        if b"lock table" in statement and not written:
            site.run("insert into t values (0, 'faster')")
            written.append(True)
        return real(statement, *arguments, **options)  # type: ignore[arg-type]

    connection.execute = execute  # type: ignore[method-assign]
    assert not give_back(connection, worth=1)
    assert written
    assert site.rows("select after from replicator.outbox") == [("(0,faster)",)]
