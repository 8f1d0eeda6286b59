"""Capture from the log over time: changed tables, who wrote, clocks, memory, idle logs, lost slots, writers at work."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections import Counter
from contextlib import closing

import psycopg
import pytest

from replicator.engines.postgres.session import Session
from replicator.engines.postgres.wal.filler import Filler
from replicator.engines.postgres.wal.installer import PostgresWalInstaller
from replicator.errors import SetupError
from replicator.model import Direction, LinkName
from tests.fixtures.databases import PostgresDatabases
from tests.integration.postgres_site import LINK, MakeSite, Site, read_once
from tests.integration.postgres_wal_site import WalSite, make_wal_site
from tests.integration.test_postgres_source import write_concurrently

__all__ = ["make_wal_site"]

TABLE = "create table t (id int primary key, a text, n numeric)"


def close_gap(site: Site) -> None:
    """As when backfills are ordered."""
    assert isinstance(site.installer, PostgresWalInstaller)
    site.installer.close_gap(LINK.topology)


def announce(origin: str) -> str:
    """What the target says at the start of its transactions."""
    return f"select replicator.tell('replicator.origin', '{origin}')"


def test_changed_columns_are_captured_by_name_and_follow_after_install(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run("insert into t values (1, 'one', 1)")
    site.run("alter table t add extra text default 'x'")
    site.run("insert into t values (2, 'two', 2, 'y')")
    assert [change[3] for change in site.read()] == [("1", "one", "1"), ("2", "two", "2")]
    site.run("alter table t rename a to b")
    site.run("insert into t values (3, 'three \"3\"', 3, null)")
    site.run(
        "begin; alter table t drop n; update t set b = 'drei' where id = 3; alter table t alter extra type varchar(9); "
        "insert into t values (4, 'four'); commit; update t set id = 40 where id = 4"
    )
    with pytest.raises(SetupError, match="have changed"):
        site.read()
    site.install(skip_existing=False)
    changes = site.read()
    assert changes[:4] == [
        ("t", "i", None, ("3", 'three "3"', None)),
        ("t", "u", ("3", 'three "3"', None), ("3", "drei", None)),
        ("t", "i", None, ("4", "four", "x")),
        ("t", "k", ("4", "four", "x"), ("40", "four", "x")),
    ]
    assert {change[3] for change in changes[4:]} == {
        ("1", "one", "x"), ("2", "two", "y"), ("3", "drei", None), ("40", "four", "x"),
    }  # fmt: skip
    site.run("update t set b = 'zwei' where id = 2")
    assert site.read() == [("t", "u", ("2", "two", "y"), ("2", "zwei", "y"))]


def test_a_renamed_table_is_captured_on(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    plans = site.plans()
    site.run("alter table t rename to t2; insert into t2 values (1)")
    filler = Filler(site.url, LINK.topology)
    assert filler.fill(10)
    filler.close()
    assert site.rows("select relation > 0, after from replicator.outbox") == [(True, "(1,,)")]
    assert plans


def test_what_the_centre_wrote_is_left_out_and_other_origins_are_kept(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run(
        f"begin; {announce('lab/centre')}; insert into t values (1); savepoint s; "
        f"{announce('')}; insert into t values (2); "
        "rollback to s; update t set a = 'x'; commit"
    )
    site.run(f"begin; {announce('other/Köln')}; insert into t values (3); commit; insert into t values (4); truncate t")
    site.run(
        f"begin; {announce('lab/centre')}; insert into t values (5); {announce('')}; insert into t values (6); "
        "truncate t; commit"
    )
    site.read()
    assert site.rows("select op::text, after, origin from replicator.outbox order by seq") == [
        ("i", "(3,,)", "other/Köln"), ("i", "(4,,)", None), ("t", None, None), ("i", "(6,,)", None), ("t", None, None),
    ]  # fmt: skip


def test_a_target_session_says_who_writes(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    session = Session(site.url, LinkName("lab", "site", Direction.FROM_CENTRE), [])
    with session.transaction():
        session.run("insert into public.t values (1)")
    session.close()
    site.run("insert into t values (2)")
    assert [change[3] for change in site.read()] == [("2", None, None)]


def test_times_never_lie_behind_what_the_site_had_seen(make_wal_site: MakeSite) -> None:
    """What was seen later does not make earlier changes newer, however late the log is read."""
    site = make_wal_site(TABLE)
    before = site.rows("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")[0][0]
    site.run("insert into t values (1)")
    future = int(str(before)) + 3_600_000_000
    site.run(f"begin; {announce('lab/centre')}; update replicator.clock set seen = {future}; commit")
    site.run("insert into t values (2)")
    site.read()
    (first,), (second,) = site.rows("select changed_at from replicator.outbox order by seq")
    assert int(str(before)) <= int(str(first)) < future
    assert second == future + 1
    site.run("insert into t values (3)")
    site.read()
    assert site.rows("select changed_at from replicator.outbox where after like '(3%'") == [(future + 1,)]


def test_a_huge_transaction_takes_no_memory(make_wal_site: MakeSite) -> None:
    """Invariant 12."""
    site = make_wal_site(TABLE)
    site.run("insert into t select g, repeat('x', 300), g from generate_series(1, 200000) g")
    filler = Filler(site.url, LINK.topology)
    tracemalloc.start()
    try:
        while not filler.fill(1000):
            continue
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        filler.close()
    assert site.rows("select count(*), count(distinct xid) from replicator.outbox") == [(200000, 1)]
    assert peak < 4 << 20


def test_an_idle_log_is_let_go(make_wal_site: MakeSite) -> None:
    """Other tables write; the slot follows, so that the server can remove the log."""
    site = make_wal_site(f"{TABLE}; create table noise (a text)")
    filler = Filler(site.url, LINK.topology)
    filler.fill(10)
    site.run("insert into noise select repeat('x', 1000) from generate_series(1, 20000)")
    behind = (
        "select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) from pg_replication_slots r "
        "join replicator.slot s on s.name = r.slot_name"
    )
    assert int(str(site.rows(behind)[0][0])) > 10 << 20
    with closing(filler):
        while filler.wait(1.0):  # before PostgreSQL 15 transactions are told that have nothing for us
            continue
        assert int(str(site.rows(behind)[0][0])) < 4 << 20
    assert site.rows("select count(*) from replicator.outbox") == [(0,)]


def test_a_lost_slot_is_named_and_install_brings_it_back(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run("insert into t values (1), (2)")
    site.read()
    site.run("select pg_drop_replication_slot(name) from replicator.slot; insert into t values (3)")
    with pytest.raises(SetupError, match=r"is gone; changes may be missing(.|\n)*replicator install"):
        site.read()
    assert any("is gone" in finding.message for finding in site.installer.check(site.plans(), as_source=True))
    site.install(skip_existing=False)
    with pytest.raises(SetupError, match=r"changes from before it are missing(.|\n)*replicator install"):
        site.read()
    assert any("is new" in finding.message for finding in site.installer.check(site.plans(), as_source=True))
    close_gap(site)
    assert site.read() == []
    site.run("insert into t values (4)")
    assert len(site.read()) == 1


def test_a_slot_that_others_moved_is_named(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run("insert into t values (1)")
    site.run("select pg_replication_slot_advance(name, pg_current_wal_lsn()) from replicator.slot")
    with pytest.raises(SetupError, match="moved by somebody else"):
        site.read()


def test_uninstall_leaves_nothing(make_wal_site: MakeSite) -> None:
    """Invariant 11."""
    site = make_wal_site(
        f"{TABLE}; create table u (id int not null); create unique index ui on u (id); "
        "alter table u replica identity using index ui; create table w (id int primary key); "
        "alter table w replica identity full; alter table u add primary key (id)"
    )
    identities = "select relname::text, relreplident::text from pg_class where relname in ('t', 'u', 'w') order by 1"
    assert site.rows(identities) == [("t", "f"), ("u", "f"), ("w", "f")]
    assert [o for o in site.installer.list_objects() if "slot" in o or "publication" in o]
    assert not site.installer.plan_site(LINK.topology, site.plans()).statements
    site.installer.install(site.installer.plan_uninstall(LINK.topology))
    assert not site.installer.list_objects()
    assert site.rows(identities) == [("t", "d"), ("u", "i"), ("w", "f")]


def test_rows_there_already_come_while_others_write(make_wal_site: MakeSite) -> None:
    site = make_wal_site("create table other (id int primary key)")
    site.run(f"{TABLE}; insert into t select g, 'old', 0 from generate_series(1, 12000) g")
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(site.url, autocommit=True) as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute("update t set n = n + 1 where id %% 100 = %s", (number % 100,))
                connection.execute("delete from t where id = %s", (number * 7,))
                connection.execute("insert into t values (%s, 'new', 0)", (20000 + number,))

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    try:
        site.install(skip_existing=False)
        time.sleep(0.3)
    finally:
        stop.set()
        writer.join()
    replica: dict[object, object] = {}
    for _, op, before, after in site.read(5000):
        if before is not None:
            replica.pop(before[0], None)
        if after is not None:
            replica[after[0]] = after
        assert op in "iud"
    found = site.rows("select id::text, a, n::text from t")
    assert sorted(map(str, replica.values())) == sorted(map(str, found))


def test_no_committed_row_is_lost_and_transactions_come_whole(make_wal_site: MakeSite) -> None:
    """Invariants 1, 2 and 4."""
    site = make_wal_site("create table t (id bigint generated always as identity primary key, worker int, n int)")
    source = site.source()
    threads, written = write_concurrently(site, 30, 3.0)
    seen: Counter[str | None] = Counter()
    position = site.position
    while True:
        done = not any(thread.is_alive() for thread in threads)
        changes, upto, _ = read_once(source, position, 500)
        if upto is not None:
            seen.update((change[3] or ("",))[0] for change in changes)
            position = upto
        elif done:
            break
        else:
            source.wait(0.05)
    assert written[False] > 0
    assert set(seen.values()) == {1}
    assert sorted(map(str, seen)) == sorted(str(row[0]) for row in site.rows("select id from t"))


def test_waiting_ends_at_once_when_something_is_committed(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    source = site.source()
    assert read_once(source, site.position, 10)[1] is None
    assert not source.wait(0.3)
    started = time.monotonic()
    timer = threading.Timer(0.3, site.run, ["insert into t values (1)"])
    timer.start()
    assert source.wait(10)
    assert time.monotonic() - started < 2
    timer.join()
    assert [change[3] for change in read_once(source, site.position, 10)[0]] == [("1", None, None)]
    waker = threading.Timer(0.2, source.wake)
    waker.start()
    started = time.monotonic()
    source.wait(10)
    assert time.monotonic() - started < 2
    waker.join()


def test_a_copied_database_does_not_touch_its_originals_slot(
    make_wal_site: MakeSite, postgres_database: PostgresDatabases
) -> None:
    site = make_wal_site(TABLE)
    site.run("insert into t values (1)")
    site.read()
    url, own = site.url, site.rows("select name from replicator.slot")
    site.close()
    copy = WalSite(postgres_database("copy", template=url), psycopg.connect(url, autocommit=True))
    copy.connection.close()
    copy.connection = psycopg.connect(copy.url, autocommit=True)
    try:
        with pytest.raises(SetupError, match="of another database"):
            copy.read()
        copy.install(skip_existing=False)
        close_gap(copy)
        copy.read()
        copy.run("insert into t values (2)")
        assert len(copy.read()) == 1
        assert copy.rows("select name from replicator.slot") != own
        copy.installer.install(copy.installer.plan_uninstall(LINK.topology))
        assert not copy.installer.list_objects()
        assert copy.rows(f"select count(*) from pg_replication_slots where slot_name = '{own[0][0]}'") == [(1,)]
    finally:
        copy.close()


def test_what_cannot_be_captured_is_refused_with_the_way_round_it(make_wal_site: MakeSite) -> None:
    site = make_wal_site(TABLE)
    site.run("create unlogged table n (id int primary key)")
    with pytest.raises(SetupError, match="unlogged"):
        site.installer.plan_site(LINK.topology, site.plans())
