"""How fast rows that were there before are brought by ``replicator backfill``, against copying the same rows plainly.

Every repetition has fresh databases: the rows are replicated once, the target loses them behind everybody's back, and the
command brings them again, in its own process, timed from its first connection to its last, without the audit; both replicas
are compared afterwards. The baseline is one COPY (into SQLite: one ``executemany``) of the same rows into such a table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from tests.benchmarks.drain import postgres_backlog, sqlite_backlog
from tests.benchmarks.ground import TABLE, Drained, Ground, expect_equal, fetch, run, sql, stopwatch
from tests.benchmarks.report import Aim, Figure

ROWS = 500_000
_STEP = 10_000
_COLUMNS = "id, analyser, metric, value, low, high, measured_at, note"
_AIM = Aim(at_least=0.6, of_ratio=True)
_MEMORY = Aim(at_most=64)
_FINGERPRINT = sql("postgres", "fingerprint")


def backfill(ground: Ground) -> list[Figure]:
    """To the centre from both engines, and from a PostgreSQL centre to a SQLite site."""
    ways = (
        ("PostgreSQL → PostgreSQL", "raw COPY", _from_postgres),
        ("SQLite → PostgreSQL", "fetch and raw COPY", _from_sqlite),
        ("PostgreSQL centre → SQLite site", "fetch and raw executemany", _to_sqlite),
    )
    return [figure for what, plainly, once in ways for figure in _measure(ground, what, plainly, once)]


_Once = Callable[[Ground, int], tuple[Drained, float]]
"""One repetition: what the command says of itself, and the seconds the plain copy took."""


def _measure(ground: Ground, what: str, plainly: str, once: _Once) -> list[Figure]:
    rows = ground.rows(ROWS)
    ours: list[Drained] = []
    raw: list[float] = []
    for _ in range(ground.repetitions):
        done, seconds = once(ground, rows)
        ours.append(done)
        raw.append(rows / seconds)
    title = f"backfill {what}, {rows:,} rows"
    speed = [rows / one.seconds for one in ours]
    return [
        Figure(title, speed, "rows/s", f"rows/s {plainly}", raw, (_AIM,)),
        Figure(f"{title}: peak memory", [one.peak_mb for one in ours], "MB resident", aims=(_MEMORY,)),
    ]


def _from_postgres(ground: Ground, rows: int) -> tuple[Drained, float]:
    centre, site, topology = postgres_backlog(ground, rows, step=_STEP)
    done = _lose_and_bring(ground, topology, lambda: run(centre, f"truncate {TABLE}", "vacuum analyze"))
    expect_equal("backfill", fetch(site, _FINGERPRINT)[0], fetch(centre, _FINGERPRINT)[0])
    run(centre, f"create table raw_metric (like {TABLE} including all)")
    with (
        psycopg.connect(site) as left,
        psycopg.connect(centre) as right,
        stopwatch() as passed,
        left.cursor().copy(f"copy {TABLE} to stdout".encode()) as out,
        right.cursor().copy(b"copy raw_metric from stdin") as back,
    ):
        for chunk in out:
            back.write(chunk)
    ground.drop(centre, site)
    return done, passed()


def _from_sqlite(ground: Ground, rows: int) -> tuple[Drained, float]:
    centre, path, topology = sqlite_backlog(ground, rows, step=_STEP)
    done = _lose_and_bring(ground, topology, lambda: run(centre, f"truncate {TABLE}", "vacuum analyze"))
    with closing(sqlite3.connect(path)) as left:
        expect_equal("backfill", left.execute(sql("sqlite", "fingerprint")).fetchone(), fetch(centre, _FINGERPRINT)[0])
        run(centre, f"create table raw_metric (like {TABLE} including all)")
        with psycopg.connect(centre) as right, stopwatch() as passed:
            with right.cursor().copy(f"copy raw_metric ({_COLUMNS}) from stdin".encode()) as back:
                for row in left.execute(f"select {_COLUMNS} from {TABLE} order by id"):
                    back.write_row(row)
            right.commit()
    ground.drop(centre)
    path.unlink()
    return done, passed()


def _to_sqlite(ground: Ground, rows: int) -> tuple[Drained, float]:
    centre = ground.database("centre", sql("postgres", "table"), sql("postgres", "writers"))
    path = ground.file("site")
    _at_sqlite(path, "pragma journal_mode = wal", sql("sqlite", "table"))
    topology = ground.install(centre, {"clinic": f"sqlite:///{path}"}, [{"name": TABLE, "direction": "from_centre"}])
    run(centre, f"call write_inserts(1, {rows}, {_STEP})", "vacuum analyze")
    done = _lose_and_bring(ground, topology, lambda: _at_sqlite(path, f"delete from {TABLE}"))
    with closing(sqlite3.connect(path)) as site:
        expect_equal("backfill", site.execute(sql("sqlite", "fingerprint")).fetchone(), fetch(centre, _FINGERPRINT)[0])
        site.execute(sql("sqlite", "table").replace(TABLE, "raw_metric"))
        places = ", ".join("?" * len(_COLUMNS.split(",")))
        with psycopg.connect(centre) as left, left.cursor("raw") as cursor, stopwatch() as passed:
            cursor.itersize = _STEP
            cursor.execute(
                f"select {_COLUMNS.replace('low, high', 'low::text, high::text')} from {TABLE} order by id".encode()
            )
            site.executemany(f"insert into raw_metric values ({places})", map(_storable, cursor))
            site.commit()
    ground.drop(centre)
    path.unlink()
    return done, passed()


def _lose_and_bring(ground: Ground, topology: Path, lose: Callable[[], None]) -> Drained:
    ground.sync(topology)
    lose()
    ground.settle()
    return ground.backfill(topology)


def _at_sqlite(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def _storable(row: Sequence[object]) -> list[object]:
    return [value if isinstance(value, int | float | str | None) else str(value) for value in row]
