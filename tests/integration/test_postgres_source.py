"""Reading a PostgreSQL site: nothing committed is missed, nothing half is seen, waiting is cheap and wakes at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from replicator.engines.postgres.source import PostgresSource
from replicator.errors import BatchError, RetryableError, SchemaError
from replicator.model import LinkName, Position
from tests.integration.postgres_site import LINK, MakeSite, Site, make_site, plan_of, read_once

__all__ = ["make_site"]

TABLE = "create table t (id bigint generated always as identity primary key, worker int, n int)"


def write_concurrently(site: Site, writers: int, seconds: float) -> tuple[list[threading.Thread], Counter[bool]]:
    """Start writers whose transactions take their time between insert and commit, one in five rolling back."""
    written: Counter[bool] = Counter()
    lock = threading.Lock()

    def write(worker: int) -> None:
        chance = random.Random(worker)
        deadline = time.monotonic() + seconds
        with psycopg.connect(site.url) as connection:
            while time.monotonic() < deadline:
                rows = chance.randint(1, 4)
                for n in range(rows):
                    connection.execute("insert into t (worker, n) values (%s, %s)", (worker, n))
                    connection.execute("select pg_sleep(%s)", (chance.random() * 0.02,))
                commit = chance.random() > 0.2
                (connection.commit if commit else connection.rollback)()
                with lock:
                    written[commit] += rows

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(writers)]
    for thread in threads:
        thread.start()
    return threads, written


@pytest.mark.slow
def test_no_committed_row_is_lost_under_a_hundred_writers(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    source = site.source()
    threads, written = write_concurrently(site, 110, 6.0)
    seen: Counter[str | None] = Counter()
    by_number: Counter[str | None] = Counter()
    cursor = 0
    position = site.position
    done = False
    with psycopg.connect(site.url, autocommit=True) as other:
        while not done:
            done = not any(thread.is_alive() for thread in threads)
            # The mutation: a cursor on the last number seen, as if sequence order were commit order.
            for seq, image in other.execute(
                "select seq, after from replicator.outbox where seq > %s order by seq", (cursor,)
            ).fetchall():
                by_number[str(image)] += 1
                cursor = seq
            changes, upto, _ = read_once(source, position, 2000)
            if upto is not None:
                seen.update((change[3] or ("",))[0] for change in changes)
                position = upto
    while (batch := read_once(source, position, 2000))[1] is not None:
        seen.update((change[3] or ("",))[0] for change in batch[0])
        position = batch[1]
    assert written[False] > 0
    assert set(seen.values()) == {1}
    assert sorted(map(str, seen)) == sorted(str(row[0]) for row in site.rows("select id from t"))
    assert sum(seen.values()) == written[True]
    assert sum(by_number.values()) < written[True], "the test is too tame: a last-number cursor lost nothing"


def test_a_transaction_that_commits_late_is_read_late_and_whole(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    with psycopg.connect(site.url) as slow:
        slow.execute("insert into t (worker, n) values (1, 1), (1, 2)")
        site.run("insert into t (worker, n) values (2, 1)")
        assert [change[3][1] for change in site.read() if change[3]] == ["2"]
        slow.execute("insert into t (worker, n) values (1, 3)")
        assert site.read() == []
        slow.commit()
    assert [change[3][2] for change in site.read() if change[3]] == ["1", "2", "3"]
    assert site.read() == []


def test_reading_again_from_the_same_position_gives_the_same_changes(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    source = site.source()
    site.run("insert into t (worker, n) values (1, 1)")
    first, upto, _ = read_once(source, site.position, 10)
    again, _, _ = read_once(source, site.position, 10)
    assert first == again != []
    assert read_once(source, upto, 10) == ([], None, False)
    assert read_once(site.source(), upto, 10) == ([], None, False)


def test_a_backlog_is_cut_between_transactions(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    for worker in range(40):
        site.run(f"insert into t (worker, n) select {worker}, i from generate_series(1, 2000) i")
    source, position, sizes = site.source(), site.position, []
    while True:
        changes, upto, more = read_once(source, position, 20_000)
        assert upto is not None
        workers = Counter((change[3] or ("", ""))[1] for change in changes)
        assert set(workers.values()) == {2000}
        sizes.append(len(changes))
        position = upto
        if not more:
            break
    assert sum(sizes) == 80_000
    assert max(sizes) <= 30_000
    assert len(sizes) > 2


def test_a_transaction_larger_than_the_limit_comes_whole(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    site.run("insert into t (worker, n) select 1, i from generate_series(1, 50000) i")
    changes, _, more = read_once(site.source(), site.position, 1000)
    assert (len(changes), more) == (50_000, False)


def test_acknowledging_prunes_what_every_link_has_passed_and_no_more(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    first, second = site.source(), PostgresSource(site.url, LinkName("lab", "other"), site.plans())
    site.opened.append(second)
    with psycopg.connect(site.url) as slow:
        slow.execute("insert into t (worker, n) values (9, 9)")
        site.run("insert into t (worker, n) select 1, i from generate_series(1, 20000) i")
        _, upto, _ = read_once(first, site.position, 1 << 40)
        assert upto is not None
        second.acknowledge_batch(Position("1:1:"))
        first.acknowledge_batch(upto)
        assert site.rows("select count(*) from replicator.outbox") == [(20_000,)]
        second.acknowledge_batch(upto)
        second.wait(0)
        assert site.rows("select count(*) from replicator.outbox") == [(0,)]
        slow.commit()
    assert site.rows("select count(*) from replicator.outbox") == [(1,)]
    assert len(read_once(first, upto, 10)[0]) == 1
    assert site.rows("select count(*) from replicator.tick") == [(0,)]


def test_another_topologys_changes_are_not_read(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    site.installer.install(site.installer.plan_site("other", site.plans()))
    site.run("insert into t (worker, n) values (1, 1)")
    assert len(site.read()) == 1
    assert site.rows(
        "select count(*) from replicator.outbox where xid >= (select max(xid::text)::xid8 from replicator.outbox)"
    ) == [(2,)]


def test_a_position_of_the_future_is_refused(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    with pytest.raises(BatchError, match="future"):
        read_once(site.source(), Position("99999999:99999999:"), 10)


def test_a_table_that_changed_is_named_until_install_has_run(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    site.run("alter table t rename n to number; insert into t (worker, number) values (1, 1)")
    with pytest.raises(SchemaError, match=r"table t .*\n.*replicator install"):
        read_once(site.source(), site.position, 10)


def test_identity_tells_databases_apart_and_the_clock_is_microseconds(make_site: MakeSite) -> None:
    one, two = make_site(TABLE).source(), make_site(TABLE).source()
    assert one.read_identity() == one.read_identity() != two.read_identity()
    assert abs(one.read_clock() - time.time() * 1e6) < 5e6


def test_lag_counts_what_is_behind_and_names_who_holds_the_horizon(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    source = site.source()
    assert source.read_lag(site.position).changes == 0
    site.run("insert into t (worker, n) values (1, 1), (1, 2)")
    lag = source.read_lag(site.position)
    assert lag.changes == 2
    assert abs(lag.oldest_changed_at - time.time() * 1e6) < 5e6


def test_keys_in_flight_are_those_with_changes_behind_the_position(make_site: MakeSite) -> None:
    site = make_site("create table k (a int, b text, primary key (a, b))")
    site.run("insert into k values (1, 'x'), (2, 'y')")
    site.read()
    site.run("update k set a = 3 where a = 2; insert into k values (4, 'it''s, \"q\"')")
    (plan,) = site.plans()
    keys = [(1, "x"), (2, "y"), (3, "y"), (4, 'it\'s, "q"'), (5, "z")]
    assert site.source().keys_in_flight(plan, site.position, keys) == {keys[1], keys[2], keys[3]}


@pytest.mark.parametrize("notify", ["on", "off"])
def test_waiting_wakes_on_a_commit_and_not_before(make_site: MakeSite, notify: str) -> None:
    site = make_site(TABLE)
    site.run(
        f"do $$ begin execute format('alter database %I set replicator.notify = {notify}', current_database()); end $$"
    )
    source = site.source()
    assert read_once(source, site.position, 10)[1] is None
    assert source.wait(0.3) is False
    with psycopg.connect(site.url) as writer:
        woke: list[float] = []
        thread = threading.Thread(target=lambda: woke.append(time.monotonic() if source.wait(20) else 0))
        thread.start()
        if notify == "on":
            _until(
                lambda: (
                    site.rows("select count(*) from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock'")
                    == [(1,)]
                )
            )
        writer.execute("insert into t (worker, n) values (1, 1)")
        thread.join(0.3)
        assert thread.is_alive()
        committed = time.monotonic()
        writer.commit()
        thread.join(5)
    assert woke
    assert woke[0] - committed < 0.4
    assert site.rows("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
    assert len(read_once(source, site.position, 10)[0]) == 1


def test_wake_ends_a_wait_from_another_thread(make_site: MakeSite) -> None:
    source = make_site(TABLE).source()
    assert read_once(source, None, 10)[1] is None
    thread = threading.Thread(target=source.wait, args=(30,))
    thread.start()
    source.wake()
    thread.join(5)
    assert not thread.is_alive()


def test_a_lost_connection_can_be_tried_again(make_site: MakeSite) -> None:
    site = make_site(TABLE)
    source = site.source()
    site.run("insert into t (worker, n) values (1, 1)")
    read_once(source, site.position, 10)
    source.wait(0)
    site.run(
        """select pg_terminate_backend(pid) from pg_stat_activity
            where application_name like 'replicator %' and datname = current_database()"""
    )
    for step in (lambda: read_once(source, site.position, 10), lambda: source.wait(1)):
        with pytest.raises(RetryableError):
            step()
    assert len(read_once(source, site.position, 10)[0]) == 1


def test_an_empty_window_moves_in_memory_only(make_site: MakeSite) -> None:
    site = make_site(TABLE + "; create table nokey (x int)")
    source = site.source()
    site.run("insert into nokey select generate_series(1, 100)")
    assert read_once(source, site.position, 10)[1] is None
    site.run("insert into t (worker, n) values (1, 1)")
    with source.read_batch(site.position, 10) as batch:
        assert batch is not None
        assert batch.after == site.position
        assert [b"\ti\t" in b"".join(block.chunks) for block in batch.blocks()] == [True]  # type: ignore[union-attr]


def test_rows_of_a_table_no_plan_names_are_passed_over(make_site: MakeSite) -> None:
    site = make_site(TABLE + "; create table u (id int primary key)")
    plans = [plan for plan in site.plans() if plan.source.name.name == "u"]
    source = PostgresSource(site.url, LINK, plans)
    site.opened.append(source)
    site.run("insert into t (worker, n) values (1, 1); insert into u values (1)")
    assert [change[0] for change in read_once(source, site.position, 10)[0]] == ["u"]
    assert plan_of(plans[0].source) == plans[0]


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.01)
