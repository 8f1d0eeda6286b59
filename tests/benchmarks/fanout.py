"""Many sites, each with its own slice of one central table: lag, processor time, and what one site's read costs."""

from __future__ import annotations

import sqlite3
import statistics
import time
from contextlib import closing, suppress
from pathlib import Path

import psycopg

from replicator.app import App
from replicator.model import Direction
from tests.benchmarks.ground import Ground, run, sql
from tests.benchmarks.measures import resident_mb
from tests.benchmarks.report import Aim, Figure

SITES, ROWS_PER_SITE, SECONDS = 200, 500, 20.0
_SHARE = 0.01
_FLAT = Aim(at_most=2, of_ratio=True)


def fanout(ground: Ground) -> list[Figure]:
    """200 SQLite sites on one PostgreSQL centre, 1 % of the rows changed per second."""
    count = max(4, round(SITES * min(1.0, ground.scale)))
    rows = count * ROWS_PER_SITE
    centre = ground.database("centre", sql("postgres", "sliced_table"))
    run(centre, f"insert into sliced select g, g % {count}, 0, 'note ' || g from generate_series(1, {rows}) g")
    files = {f"s{place}": ground.file("fanout") for place in range(count)}
    for path in files.values():
        with closing(sqlite3.connect(path)) as file:
            file.execute("pragma journal_mode = wal")
            file.execute(sql("sqlite", "sliced_table"))
    topology = ground.install(
        centre,
        {name: f"sqlite:///{path}" for name, path in files.items()},
        [{"name": "sliced", "direction": "from_centre", "where": "slice = :site.slice"}],
        {name: {"slice": name[1:]} for name in files},
    )
    ground.sync(topology)
    figures = [*_live(ground, topology, centre, files, rows), _one_read(ground, topology, centre, rows)]
    ground.drop(centre)
    return figures


def _live(ground: Ground, topology: Path, centre: str, files: dict[str, Path], rows: int) -> list[Figure]:
    """Changes at an even pace; a site's lag is measured on rows of one watched site."""
    count = len(files)
    per_second = max(1, round(rows * _SHARE))
    lags: list[float] = []
    with (
        ground.service(topology, centre, links=0) as service,
        psycopg.connect(centre, autocommit=True, cursor_factory=psycopg.RawCursor) as writer,
        closing(sqlite3.connect(files["s0"], isolation_level=None)) as watched,
    ):
        time.sleep(5)  # until every link has been in contact
        used, start = service.cpu_seconds(), time.perf_counter()
        beat = 0
        while time.perf_counter() - start < ground.seconds(SECONDS):
            beat += 1
            low = beat * per_second % rows + 1
            writer.execute(sql("postgres", "touch_slice").encode(), (beat, low, low + per_second - 1))
            lags.append(_await_beat(watched, beat))
            time.sleep(max(0.0, start + beat - time.perf_counter()))
        passed = time.perf_counter() - start
        cpu = (service.cpu_seconds() - used) / passed * 100
        resident = resident_mb(service.pid, "VmRSS")
    what = f"{count} SQLite sites with their slices, {per_second:,} rows changed per second"
    lags.sort()
    return [
        Figure(f"{what}: lag of one site, median", [statistics.median(lags) * 1000], "ms"),
        Figure(f"{what}: lag of one site, worst", [lags[-1] * 1000], "ms"),
        Figure(f"{what}: processor", [cpu], "% of one core"),
        Figure(f"{what}: memory", [resident], "MB resident"),
    ]


def _await_beat(watched: sqlite3.Connection, beat: int) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < 30:
        with suppress(sqlite3.OperationalError):
            if watched.execute("select coalesce(max(beat), 0) from sliced").fetchone()[0] >= beat:
                return time.perf_counter() - start
        time.sleep(0.002)
    raise RuntimeError("a change did not arrive within 30 s")


def _one_read(ground: Ground, topology: Path, centre: str, rows: int) -> Figure:
    """One site's read of ten changes of its own, alone in the outbox and among ten thousand others'."""
    app = App.open(topology)
    site = app.sites[0]
    samples: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(max(3, ground.repetitions)):
        for crowded in (False, True):
            ground.sync(topology)
            if crowded:
                run(centre, f"update sliced set note = note || '.' where id <= {rows} and slice <> 0")
            run(
                centre,
                "update sliced set note = note || '!' where id in (select id from sliced where slice = 0 limit 10)",
            )
            samples[crowded].append(_read_seconds(app, site) * 1000)
    return Figure(
        "one site's read of 10 changes among all others'", samples[True], "ms", "ms alone", samples[False], (_FLAT,)
    )


def _read_seconds(app: App, site: str) -> float:
    """The best of five reads from where the site stands."""
    link = app.link(site, Direction.FROM_CENTRE)
    plans = app.link_plans(site, Direction.FROM_CENTRE)
    with closing(app.source(link, plans)) as source, closing(app.target(link, plans)) as target:
        after, times = target.read_position(), []
        for _ in range(5):
            start = time.perf_counter()
            with source.read_batch(after, 50_000) as batch:
                assert batch is not None
                for block in batch.blocks():
                    for _chunk in getattr(block, "chunks", ()):
                        pass
            times.append(time.perf_counter() - start)
    return min(times)
