"""A SQLite file as source: chunks, snapshots, positions, pruning, lag, waking; what a batch is, exactly."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from replicator.engines.sqlite import batch as batch_module
from replicator.engines.sqlite.source import SqliteSource
from replicator.engines.sqlite.watch import Watcher
from replicator.errors import BatchError, RetryableError, SetupError
from replicator.model import LinkName, Position
from replicator.ports import RowBlock
from tests.fixtures.sqlite_sites import (
    LINK,
    Replica,
    assert_equal,
    capture,
    connect,
    create,
    plans_of,
    table_rows,
)

PART = "create table part (id integer primary key, serial text unique, qty integer, note text);"
ROWS = "insert into part values (1, 'a', 1, 'x'), (2, 'b', 2, 'y'), (3, 'c', 3, null);"


def _site(path: Path, script: str, *, wal: bool = True, **options: object) -> tuple[sqlite3.Connection, Replica]:
    connection = create(path, script, wal=wal)
    plans = plans_of(path, **options)
    capture(path, plans)
    return connection, Replica(SqliteSource(path, LINK, plans, acknowledge_seconds=0.0), plans)


@pytest.fixture(params=[True, False], ids=["wal", "delete"])
def wal(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_rows_there_before_capture_are_read(sqlite_file: Callable[[str], Path]) -> None:
    numbers = "with recursive n (value) as (select 1 union all select value + 1 from n where value < 5000)"
    script = PART + "create table keyed (a text, b integer, v, primary key (a, b)) without rowid;"
    path = sqlite_file("site")
    connection = create(path, script)
    connection.execute(f"insert into part {numbers} select value, 's' || value, value, null from n")
    connection.execute(f"insert into keyed {numbers} select 'k' || (value % 7), value, value from n")
    plans = plans_of(path)
    capture(path, plans)
    replica = Replica(SqliteSource(path, LINK, plans), plans)
    assert replica.catch_up(limit=700) == 10_000
    assert_equal(connection, replica)
    assert replica.catch_up() == 0
    replica.source.close()


def test_a_batch_is_the_state_at_its_end_while_the_application_writes(
    sqlite_file: Callable[[str], Path], wal: bool
) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS, wal=wal)
    chance = random.Random(7)
    connection.executemany("insert into part values (?, ?, ?, 'n')", [(n, f"s{n}", n) for n in range(10, 400)])
    spool: dict[object, tuple[object, ...]] = {}
    blocks = 0
    with replica.source.read_batch(None, 50) as batch:
        assert batch is not None
        for block in batch.blocks():
            assert isinstance(block, RowBlock)
            blocks += 1
            for row in (*block.rows, *block.odd):
                spool[row[3]] = row[1:2] + row[3:]
            if blocks < 12:
                # No transaction is open now, so the application can write, in any journal mode.
                connection.execute("begin immediate")
                for _ in range(20):
                    one, other = chance.sample(range(10, 400), 2)
                    connection.execute("update part set serial = 'free' where id = ?", (one,))
                    connection.execute("update part set serial = 's' || ? where id = ?", (f"{one}x{blocks}", one))
                    connection.execute("delete from part where id = ?", (other,))
                connection.execute("commit")
        assert batch.more is False
        position = batch.upto
    there = sorted(row[1:] for row in spool.values() if row[0] == "s")
    assert there == sorted(connection.execute("select * from part").fetchall())
    with replica.source.read_batch(position, 50) as batch:
        assert batch is None
    replica.source.close()


def test_big_rows_come_in_small_chunks(sqlite_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "_CHUNK_BYTES", 1 << 20)
    path = sqlite_file("site")
    connection, replica = _site(path, "create table t (id integer primary key, v text, b blob);")
    connection.executemany("insert into t values (?, ?, zeroblob(200000))", [(n, "x" * 100_000) for n in range(60)])
    sizes = []
    with replica.source.read_batch(None, 10_000) as batch:
        assert batch is not None
        for block in batch.blocks():
            assert isinstance(block, RowBlock)
            sizes.append(len(block.rows))
    assert sum(sizes) == 60
    assert max(sizes) <= 8
    connection.execute("update t set v = ''")
    connection.execute("insert into replicator_outbox (relation, op, changed_at) values (1, 'a', 5)")
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def test_a_filter_and_excluded_columns(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS, where="qty > 1", exclude=["note"])
    replica.catch_up()
    (plan,) = replica.plans.values()
    assert replica.rows["part"] == table_rows(connection, plan, "qty > 1")
    connection.executescript("update part set qty = 0 where id = 2; update part set qty = 5 where id = 1;")
    replica.catch_up()
    assert replica.rows["part"] == table_rows(connection, plan, "qty > 1")
    assert len(replica.rows["part"]) == 2
    replica.source.close()


def test_values_that_do_not_fit_take_the_careful_way(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART, fits="text")
    connection.execute("insert into part values (1, 'a', 'b', 'c')")
    with replica.source.read_batch(None, 10) as batch:
        assert batch is not None
        (block,) = batch.blocks()
        assert isinstance(block, RowBlock)
        assert (list(block.rows), [row[1] for row in block.odd]) == ([], ["s"]), "an integer key is no text"
    connection.execute("insert into part values (2, cast(x'ff' as text), 'b', 'c'), (3, 'a' || char(0), 'b', 'c')")
    replica.catch_up()
    assert replica.odd == 3
    assert_equal(connection, replica)
    replica.source.close()


def test_a_null_in_a_key_goes_to_the_careful_way(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, "create table t (k text primary key, v);")
    connection.execute("insert into t values (null, 1), ('a', 2), (null, 3)")
    with replica.source.read_batch(None, 10) as batch:
        assert batch is not None
        (block,) = batch.blocks()
        assert isinstance(block, RowBlock)
        assert ([row[3] for row in block.rows], sorted(row[4] for row in block.odd)) == (["a"], [1, 3])
    replica.source.close()


# --- positions ----------------------------------------------------------------------------------------------------


def test_the_outbox_is_pruned_behind_the_slowest_link_only(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS)
    plans = list(replica.plans.values())
    capture(path, plans, "other")
    other = SqliteSource(path, LinkName("other", "x"), plans, acknowledge_seconds=0.0)
    connection.executemany("update part set qty = ? where id = 1", [(n,) for n in range(50)])
    replica.catch_up()
    rows = "select count(*) from replicator_outbox"
    assert connection.execute(rows).fetchone()[0] > 100, "the other topology has read nothing yet"
    with other.read_batch(None, 10_000) as batch:
        assert batch is not None
        list(batch.blocks())
        upto = batch.upto
    other.acknowledge_batch(upto)
    assert connection.execute(rows).fetchone()[0] == 1, "the highest row never leaves"
    connection.execute("delete from part")
    assert replica.catch_up() == 3
    assert connection.execute("select max(seq) from replicator_outbox").fetchone()[0] > 100
    other.close()
    replica.source.close()


def test_a_crash_between_record_and_acknowledge_is_no_restore(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS)
    replica.catch_up(acknowledge=False)
    connection.execute("update part set qty = 7")
    replica.catch_up(acknowledge=False)
    first = replica.position
    replica.source.close()
    replica.source = SqliteSource(path, LINK, list(replica.plans.values()), acknowledge_seconds=0.0)
    connection.execute("update part set qty = 8")
    replica.catch_up()
    assert first is not None
    replica.source.acknowledge_batch(first)
    connection.execute("update part set qty = 9")
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


@pytest.mark.parametrize("acknowledged", [True, False])
def test_a_file_restored_from_a_copy_is_noticed(acknowledged: bool, sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS, wal=False)
    replica.catch_up()
    connection.execute("insert into part values (10, 'before the copy', 1, 1)")
    shutil.copy(path, path.with_suffix(".copy"))
    connection.executemany("insert into part values (?, ?, 1, 1)", [(n, f"lost {n}") for n in range(20, 30)])
    replica.catch_up(acknowledge=acknowledged)
    replica.source.close()
    connection.close()
    shutil.copy(path.with_suffix(".copy"), path)
    connection = connect(path)
    connection.executemany("insert into part values (?, ?, 1, 1)", [(n, f"new {n}") for n in range(40, 55)])
    replica.source = SqliteSource(path, LINK, list(replica.plans.values()))
    with pytest.raises(BatchError, match="restored copy"):
        replica.catch_up()
    replica.source.close()


def test_a_target_that_knows_nothing_is_given_every_row(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS)
    replica.catch_up()
    connection.execute("update part set qty = 5 where id = 2")
    replica.catch_up()
    replica.position, replica.rows = None, {"part": {}}
    replica.catch_up()
    assert_equal(connection, replica)
    replica.source.close()


def test_a_position_of_another_engine_is_refused(sqlite_file: Callable[[str], Path]) -> None:
    _, replica = _site(sqlite_file("site"), PART + ROWS)
    with pytest.raises(BatchError, match="not a position"):
        replica.source.read_lag(Position("10:20:10,11"[:5]))
    replica.source.close()


def test_what_is_missing_says_what_to_do(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    away = SqliteSource(path, LINK, [])
    with pytest.raises(RetryableError, match="unable to open"):
        away.read_identity()
    create(path, PART).close()
    source = SqliteSource(path, LINK, plans_of(path))
    with pytest.raises(SetupError, match="not installed"):
        source.read_identity()
    source.close()


def test_identity_lag_clock_and_keys_in_flight(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS)
    source = replica.source
    (plan,) = replica.plans.values()
    identity = source.read_identity()
    assert identity == SqliteSource(path, LINK, [plan]).read_identity()
    assert source.keys_in_flight(plan, None, [(1,), (99,)]) == {(1,), (99,)}, "the whole table is about to be read"
    replica.catch_up()
    assert source.read_lag(replica.position).changes == 0
    connection.execute("update part set qty = 1 where id in (1, 2)")
    lag = source.read_lag(replica.position)
    assert lag.changes == 2
    assert 0 <= source.read_clock() - lag.oldest_changed_at < 5_000_000
    assert source.keys_in_flight(plan, replica.position, [(1,), (3,)]) == {(1,)}
    source.close()


# --- waiting ------------------------------------------------------------------------------------------------------


def test_a_commit_wakes_within_milliseconds(sqlite_file: Callable[[str], Path], wal: bool) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS, wal=wal)
    replica.catch_up()
    while replica.source.wait(0.2):
        replica.catch_up()
    latencies = []
    for n in range(20):
        committed: list[float] = []
        wrote = threading.Event()

        def write(number: int = n, committed: list[float] = committed, wrote: threading.Event = wrote) -> None:
            other = connect(path)
            committed.append(time.perf_counter())
            other.execute("update part set qty = ? where id = 1", (number,))
            other.close()
            wrote.set()

        timer = threading.Timer(0.01, write)
        timer.start()
        assert replica.source.wait(5.0)
        replica.catch_up()
        latencies.append(time.perf_counter() - committed[0])
        assert wrote.wait(5)
        timer.join()
        replica.catch_up()
        while replica.source.wait(0.0):
            replica.catch_up()
    assert sorted(latencies)[len(latencies) // 2] < 0.05
    assert_equal(connection, replica)
    replica.source.close()


def test_a_commit_before_the_wait_is_not_slept_over(sqlite_file: Callable[[str], Path]) -> None:
    connection, replica = _site(sqlite_file("site"), PART + ROWS)
    replica.catch_up()
    while replica.source.wait(0.0):
        replica.catch_up()
    connection.execute("update part set qty = 4")
    started = time.monotonic()
    assert replica.source.wait(5.0)
    assert time.monotonic() - started < 1
    replica.source.close()


def test_own_acknowledgements_wake_nobody_and_wake_ends_a_wait(sqlite_file: Callable[[str], Path]) -> None:
    _, replica = _site(sqlite_file("site"), PART + ROWS)
    replica.catch_up()
    while replica.source.wait(0.0):
        replica.catch_up()
    assert replica.position is not None
    replica.source.acknowledge_batch(replica.position)
    assert replica.source.wait(0.3) is False
    timer = threading.Timer(0.05, replica.source.wake)
    timer.start()
    assert replica.source.wait(10.0) is True
    timer.join()
    replica.source.wake()
    assert replica.source.wait(10.0) is True
    replica.source.close()


def test_an_acknowledgement_put_off_is_written_in_a_quiet_moment(sqlite_file: Callable[[str], Path]) -> None:
    path = sqlite_file("site")
    connection, replica = _site(path, PART + ROWS)
    plans = list(replica.plans.values())
    replica.source.close()
    replica.source = SqliteSource(path, LINK, plans, acknowledge_seconds=0.15)
    replica.catch_up()
    connection.execute("update part set qty = 5")
    replica.catch_up()
    kept = "select position from replicator_acknowledged"
    assert connection.execute(kept).fetchone()[0] != replica.position
    deadline = time.monotonic() + 10
    while connection.execute(kept).fetchone()[0] != replica.position:
        replica.source.wait(0.2)
        assert time.monotonic() < deadline
    replica.source.close()


def test_an_application_that_holds_the_lock_delays_no_reading(sqlite_file: Callable[[str], Path]) -> None:
    connection, replica = _site(sqlite_file("site"), PART + ROWS)
    connection.execute("begin immediate")
    assert replica.catch_up() == 3
    connection.execute("commit")
    assert_equal(connection, replica)
    replica.source.close()


def test_one_watcher_serves_many_sources(sqlite_file: Callable[[str], Path]) -> None:
    watcher = Watcher()
    sites = []
    for _ in range(5):
        path = sqlite_file("site")
        connection = create(path, PART + ROWS)
        plans = plans_of(path)
        capture(path, plans)
        sites.append((connection, Replica(SqliteSource(path, LINK, plans, watcher=watcher), plans)))
    for _, replica in sites:
        replica.catch_up()
    woken = []
    threads = [threading.Thread(target=lambda r=r: woken.append(r.source.wait(5.0))) for _, r in sites]  # type: ignore[misc]
    for _, replica in sites:
        while replica.source.wait(0.0):
            replica.catch_up()
    for thread in threads:
        thread.start()
    for connection, _ in sites:
        connection.execute("delete from part where id = 1")
    for thread in threads:
        thread.join(10)
    assert woken == [True] * 5
    for _, replica in sites:
        replica.source.close()
    watcher.close()
    assert "sqlite-watch" not in [thread.name for thread in threading.enumerate()]
