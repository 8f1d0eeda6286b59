"""How long from a commit at the site until the row is visible at the centre, at 200 commits a second.

Start: the moment the site's driver returns from COMMIT (site and centre read the same machine's clock). End: the first
moment a *new snapshot* at the centre holds the row. That is looked for by a function inside the centre's server, every half
millisecond, so the figure is exact to about 0.6 ms, upwards. Neither a trigger's clock nor ``pg_xact_commit_timestamp``
would do: both are read before the commit has reached the disk, and a row is visible only after.
"""

from __future__ import annotations

import sqlite3
import statistics
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
from psycopg.rows import TupleRow

from tests.benchmarks.ground import SITE, Ground, run, sql
from tests.benchmarks.report import Aim, Figure

RATE, SECONDS, WARM_UP = 200, 10.0, 400
_AIM = Aim(at_most=50)

Insert = Callable[[int], object]


def latency(ground: Ground) -> list[Figure]:
    """Percentiles per window of ten seconds, for a PostgreSQL and a SQLite site."""
    return [figure for engine in ("PostgreSQL", "SQLite") for figure in _measure(ground, engine)]


def _measure(ground: Ground, engine: str) -> list[Figure]:
    centre = ground.database("centre")
    with _writer(ground, engine) as (url, insert):
        topology = ground.install(centre, {SITE: url})
        run(centre, sql("postgres", "watcher"))
        with ground.service(topology, centre) as service:
            per_window = round(ground.seconds(SECONDS) * RATE)
            total = WARM_UP + per_window * ground.repetitions
            watch = _Watch(centre, total)
            sent, committed = _write(insert, total)
            seen = watch.result()
            memory = service.peak_mb()
    waited = [(at - done) * 1000 for at, done in zip(seen, committed, strict=True)][WARM_UP:]
    windows = [sorted(waited[low : low + per_window]) for low in range(0, len(waited), per_window)]
    commits = [(done - start) * 1000 for start, done in zip(sent, committed, strict=True)][WARM_UP:]
    ground.drop(centre, *([url] if engine == "PostgreSQL" else []))
    what = f"{engine} → PostgreSQL, commit → visible at {RATE}/s"
    return [
        *(
            Figure(f"{what}: p{percent}", [_percentile(window, percent) for window in windows], "ms", aims=aims)
            for percent, aims in ((50, ()), (95, ()), (99, (_AIM,)))
        ),
        Figure(f"{what}: slowest of all", [max(waited)], "ms"),
        Figure(f"{what}: the site's own commit, median", [statistics.median(commits)], "ms"),
        Figure(f"{what}: peak memory of the service", [memory], "MB resident", aims=(Aim(at_most=64),)),
    ]


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


@contextmanager
def _writer(ground: Ground, engine: str) -> Iterator[tuple[str, Insert]]:
    """The site's URL, and a function that commits one row."""
    if engine == "PostgreSQL":
        dsn = ground.database("site", sql("postgres", "table"))
        with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor[TupleRow]) as connection:
            text = sql("postgres", "insert_one").encode()
            yield dsn, lambda number: connection.execute(text, (number,), prepare=True)
        return
    path = ground.file("site")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as site:
        site.execute("pragma journal_mode = wal")
        site.execute("pragma synchronous = normal")
        site.execute(sql("sqlite", "table"))
        yield f"sqlite:///{path}", lambda number: site.execute(sql("sqlite", "insert_one"), (number,))


def _write(insert: Insert, total: int) -> tuple[list[float], list[float]]:
    """Commit rows 1 … ``total`` at a steady rate; when each was sent and when its commit returned."""
    sent, committed = [], []
    start = time.perf_counter()
    for number in range(1, total + 1):
        time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        sent.append(time.time())
        insert(number)
        committed.append(time.time())
    return sent, committed


class _Watch:
    """Looks at the centre from a thread that only waits for the server."""

    def __init__(self, centre: str, total: int) -> None:
        self._centre, self._total = centre, total
        self._ids: list[int] = []
        self._times: list[float] = []
        self._deadline = time.monotonic() + total / RATE + 60
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        # A call holds a snapshot of its own for half a second at most, so that it does not keep dead rows for long.
        with psycopg.connect(self._centre, autocommit=True, cursor_factory=psycopg.RawCursor[TupleRow]) as connection:
            text = sql("postgres", "watch").encode()
            highest = 0
            while highest < self._total and time.monotonic() < self._deadline:
                for found, seen_at in connection.execute(text, (highest, 0.5)):
                    self._ids.append(found)
                    self._times.append(seen_at)
                    highest = found

    def result(self) -> list[float]:
        """When each row was first seen. Raises RuntimeError when some never were."""
        self._thread.join()
        if not self._ids or self._ids[-1] < self._total:
            raise RuntimeError(f"rows never came: {self._ids[-1:] or 0} of {self._total}")
        return [self._times[bisect_left(self._ids, number)] for number in range(1, self._total + 1)]
