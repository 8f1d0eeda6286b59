"""How fast a backlog goes to the centre, against a raw COPY of the same rows and PostgreSQL's own logical replication.

Every repetition has fresh databases, writes the same backlog through the installed triggers in transactions of 1,000
changes, and compares both replicas afterwards. The product is timed in its own process, from its first connection to its
last; logical replication from ``alter subscription … enable`` until a row written last is visible at the subscriber.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg

from tests.benchmarks.ground import SITE, Drained, Ground, expect_equal, fetch, run, sql, stopwatch
from tests.benchmarks.report import Aim, Figure

CHANGES = 500_000
STEP = 1000
_LOGICAL, _RAW = "changes/s logical replication", "rows/s raw COPY"
_PROTOTYPE = {"inserts": 127_000.0, "mix 60/30/10": 79_000.0}
_MEMORY = Aim(at_most=64)


def drain(ground: Ground) -> list[Figure]:
    """Inserts and the mix, from both engines."""
    return [
        figure for measure in (_from_postgres, _from_sqlite) for mix in (False, True) for figure in measure(ground, mix)
    ]


# --- PostgreSQL ---


def _from_postgres(ground: Ground, mix: bool) -> list[Figure]:
    changes, load = ground.rows(CHANGES), "mix 60/30/10" if mix else "inserts"
    ours: list[Drained] = []
    logical, raw = [], []
    for _ in range(ground.repetitions):
        centre, site, topology = postgres_backlog(ground, changes, mix=mix)
        ours.append(ground.drain(topology))
        expect_equal(load, fetch(site, _FINGERPRINT)[0], fetch(centre, _FINGERPRINT)[0])
        logical.append(changes / _logical(ground, changes, mix))
        raw.append(_raw_rows(site, changes) / _raw_copy(site, centre, changes))
        ground.drop(centre, site)
    speed = [changes / one.seconds for one in ours]
    what = f"PostgreSQL → PostgreSQL, {changes:,} {load}"
    aims = (Aim(at_least=1, of_ratio=True), Aim(at_least=_PROTOTYPE[load]))
    return [
        Figure(what, speed, "changes/s", _LOGICAL, logical, aims[:1]),
        Figure(f"{what}: against the prototype", speed, "changes/s", aims=aims[1:]),
        Figure(f"{what}: against raw COPY", speed, "changes/s", _RAW, raw),
        *_process(what, ours),
    ]


_FINGERPRINT = sql("postgres", "fingerprint")


def _process(what: str, ours: list[Drained]) -> list[Figure]:
    return [
        Figure(f"{what}: peak memory", [one.peak_mb for one in ours], "MB resident", aims=(_MEMORY,)),
        Figure(
            f"{what}: its processor time",
            [one.cpu_seconds for one in ours],
            "s",
            "s wall",
            [one.seconds for one in ours],
        ),
    ]


def postgres_backlog(ground: Ground, changes: int, *, mix: bool = False, step: int = STEP) -> tuple[str, str, Path]:
    """A centre and a site with ``changes`` captured changes on it that the centre has not seen; their topology."""
    site, centre = (
        ground.database("site", sql("postgres", "table"), sql("postgres", "writers")),
        ground.database("centre"),
    )
    topology = ground.install(centre, {SITE: site})
    if mix:
        run(site, f"call write_inserts(1, {changes}, 10000)")
        ground.drain(topology)
        run(site, "vacuum analyze")
        run(centre, "vacuum analyze")
    _write(site, changes, mix, step)
    ground.settle()
    return centre, site, topology


def _write(site: str, changes: int, mix: bool, step: int) -> None:
    call = f"call write_mix({changes}, {step})" if mix else f"call write_inserts(1, {changes}, {step})"
    run(f"{site}?options=-csynchronous_commit%3Doff", call)


def _logical(ground: Ground, changes: int, mix: bool) -> float:
    """Seconds PostgreSQL's own replication takes for the same backlog between two databases of the same server."""
    table = sql("postgres", "table")
    last = "create table last_row (id integer primary key)"
    publisher = ground.database("publisher", table, sql("postgres", "writers"), last)
    subscriber = ground.database("subscriber", table, last)
    if mix:
        run(publisher, f"call write_inserts(1, {changes}, 10000)", "vacuum analyze")
        _copy(publisher, subscriber, "test_metric")
    run(publisher, "create publication bench for table test_metric, last_row")
    # Within one server the slot has to be made first: creating it waits for the transaction that would create it.
    slot = f"bench_{subscriber.rpartition('_')[2]}"
    run(publisher, f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    options = f"enabled = false, create_slot = false, slot_name = '{slot}', copy_data = false"
    run(subscriber, f"create subscription bench connection '{publisher}' publication bench with ({options})")
    _write(publisher, changes, mix, STEP)
    run(publisher, "insert into last_row values (1)")
    ground.settle()
    with psycopg.connect(subscriber, autocommit=True) as connection, stopwatch() as passed:
        connection.execute("alter subscription bench enable")
        while not connection.execute("select 1 from last_row").fetchall():
            time.sleep(0.005)
    expect_equal("logical", fetch(publisher, _FINGERPRINT)[0], fetch(subscriber, _FINGERPRINT)[0])
    run(subscriber, "alter subscription bench disable", "alter subscription bench set (slot_name = none)")
    run(subscriber, "drop subscription bench")
    with psycopg.connect(publisher, autocommit=True) as connection:
        while connection.execute(
            f"select 1 from pg_replication_slots where slot_name = '{slot}' and active"
        ).fetchall():
            time.sleep(0.01)
        connection.execute(f"select pg_drop_replication_slot('{slot}')")
    ground.drop(subscriber, publisher)
    return passed()


def _copy(source: str, target: str, into: str, rows: str = "test_metric") -> None:
    with (
        psycopg.connect(source) as left,
        psycopg.connect(target) as right,
        left.cursor().copy(f"copy (select * from {rows}) to stdout".encode()) as out,
        right.cursor().copy(f"copy {into} from stdin".encode()) as back,
    ):
        for chunk in out:
            back.write(chunk)


def _raw_rows(dsn: str, changes: int) -> int:
    return min(changes, int(str(fetch(dsn, "select count(*) from test_metric")[0][0])))


def _raw_copy(source: str, target: str, changes: int) -> float:
    """Seconds for as many of the site's rows as there were changes, by COPY into an empty table with the same key."""
    run(target, "create table raw_metric (like test_metric including all)")
    with stopwatch() as passed:
        _copy(source, target, "raw_metric", f"(select * from test_metric limit {changes}) as t")
    return passed()


# --- SQLite ---


def _from_sqlite(ground: Ground, mix: bool) -> list[Figure]:
    changes, load = ground.rows(CHANGES), "mix 60/30/10" if mix else "inserts"
    ours: list[Drained] = []
    raw = []
    for _ in range(ground.repetitions):
        centre, path, topology = sqlite_backlog(ground, changes, mix=mix)
        ours.append(ground.drain(topology))
        with closing(sqlite3.connect(path)) as connection:
            expect_equal(
                load, connection.execute(sql("sqlite", "fingerprint")).fetchone(), fetch(centre, _FINGERPRINT)[0]
            )
        rows, seconds = _raw_sqlite(path, centre, changes)
        raw.append(rows / seconds)
        ground.drop(centre)
        path.unlink()
    speed = [changes / one.seconds for one in ours]
    what = f"SQLite → PostgreSQL, {changes:,} {load}"
    return [Figure(what, speed, "changes/s", _RAW, raw, (Aim(at_least=150_000),)), *_process(what, ours)]


def sqlite_backlog(ground: Ground, changes: int, *, mix: bool = False, step: int = STEP) -> tuple[str, Path, Path]:
    """As ``postgres_backlog``: the centre, the site's file, the topology."""
    path, centre = ground.file("site"), ground.database("centre")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        connection.execute(sql("sqlite", "table"))
        topology = ground.install(centre, {SITE: f"sqlite:///{path}"})
        if mix:
            connection.execute(sql("sqlite", "insert_range"), {"low": 1, "high": changes})
            ground.drain(topology)
            run(centre, "vacuum analyze")
        write: Callable[[sqlite3.Connection, int, int, int], None] = _write_mix if mix else _write_inserts
        for low in range(1, changes + 1, step):
            connection.execute("begin immediate")
            write(connection, low, min(low + step - 1, changes), changes)
            connection.execute("commit")
    ground.settle()
    return centre, path, topology


def _write_inserts(connection: sqlite3.Connection, low: int, high: int, base: int) -> None:
    del base
    connection.execute(sql("sqlite", "insert_range"), {"low": low, "high": high})


def _write_mix(connection: sqlite3.Connection, low: int, high: int, base: int) -> None:
    added = {"low": base + (low - 1) * 6 // 10 + 1, "high": base + high * 6 // 10}
    connection.execute(sql("sqlite", "insert_range"), added)
    for name in ("update_range", "delete_range"):
        connection.execute(sql("sqlite", name), {"low": low, "high": high})


def _raw_sqlite(path: Path, target: str, changes: int) -> tuple[int, float]:
    """Rows and seconds of the plainest program there is: fetch with sqlite3, write with psycopg's COPY."""
    run(target, "create table raw_metric (like test_metric including all)")
    done = 0
    with closing(sqlite3.connect(path)) as left, psycopg.connect(target) as right, stopwatch() as passed:
        rows = left.execute(f"{sql('sqlite', 'select_all')} limit {changes}")
        with right.cursor().copy(b"copy raw_metric from stdin") as copy:
            for row in rows:
                copy.write_row(row)
                done += 1
        right.commit()
    return done, passed()
