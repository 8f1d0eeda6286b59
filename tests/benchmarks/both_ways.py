"""Rows written on both sides: a month offline with a wrong clock, and a batch in which every row is a conflict."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.benchmarks.ground import SITE, TABLE, Ground, expect_equal, fetch, run, sql
from tests.benchmarks.report import Aim, Figure

OFFLINE, STORM = 100_000, 100_000
_FINGERPRINT = sql("postgres", "fingerprint")
_STORM = Aim(at_least=5_000)
_MEMORY = Aim(at_most=96)


def both_ways(ground: Ground) -> list[Figure]:
    """A SQLite site and a PostgreSQL one, against a PostgreSQL centre."""
    return [*_offline(ground), *_storm(ground, "sqlite"), *_storm(ground, "postgres")]


def _offline(ground: Ground) -> list[Figure]:
    """100k changes at a site whose clock is three days ahead; the centre changes half of the same rows."""
    changes = ground.rows(OFFLINE)
    runs, conflicts = [], []
    for _ in range(ground.repetitions):
        centre, place, topology = _pair(ground, "sqlite", changes)
        _write(place, sql("sqlite", "three_days_ahead"))
        _edit_site(place, changes)
        run(centre, sql("postgres", "edit_half").replace("$1", str(changes)))
        runs.append(ground.sync(topology))
        conflicts.append(float(str(fetch(centre, sql("postgres", "conflicts"))[0][0])))
        _expect_one_value(place, centre)
        ground.drop(centre)
    what = f"offline month, {changes:,} changes, half of the rows changed at the centre too"
    return [
        Figure(what, [changes / each.seconds for each in runs], "changes/s until equal on both sides"),
        Figure(f"{what}: time", [each.seconds for each in runs], "s"),
        Figure(f"{what}: conflicts", conflicts, "decided"),
        Figure(f"{what}: peak memory", [each.peak_mb for each in runs], "MB resident", aims=(_MEMORY,)),
    ]


def _storm(ground: Ground, engine: str) -> list[Figure]:
    """Every row of the batch conflicts."""
    changes = ground.rows(STORM)
    runs = []
    for _ in range(ground.repetitions):
        centre, place, topology = _pair(ground, engine, changes)
        _edit_site(place, changes)
        run(centre, sql("postgres", "edit_all"))
        runs.append(ground.sync(topology))
        expect_equal("conflicts", fetch(centre, sql("postgres", "conflicts"))[0], [changes])
        _expect_one_value(place, centre)
        ground.drop(centre, *([place] if engine == "postgres" else []))
    what = f"conflict storm, {changes:,} rows from {'SQLite' if engine == 'sqlite' else 'PostgreSQL'}, all in conflict"
    return [
        Figure(what, [changes / each.seconds for each in runs], "rows/s", aims=(_STORM,)),
        Figure(f"{what}: peak memory", [each.peak_mb for each in runs], "MB resident", aims=(_MEMORY,)),
    ]


def _pair(ground: Ground, engine: str, rows: int) -> tuple[str, str, Path]:
    """A centre and a site with the same rows on both sides; the site's URL or path."""
    centre = ground.database("centre")
    rule: Mapping[str, object] = {"name": TABLE, "direction": "both", "policy": "newest_wins"}
    if engine == "sqlite":
        place = str(ground.file("site"))
        _write(place, "pragma journal_mode = wal", sql("sqlite", "table"))
        topology = ground.install(centre, {SITE: f"sqlite:///{place}"}, [rule])
        with closing(sqlite3.connect(place)) as file:
            file.execute(sql("sqlite", "insert_range"), {"low": 1, "high": rows})
            file.commit()
    else:
        place = ground.database("site", sql("postgres", "table"), sql("postgres", "writers"))
        topology = ground.install(centre, {SITE: place}, [rule])
        run(place, f"call write_inserts(1, {rows}, 10000)")
    ground.sync(topology)
    run(centre, "vacuum analyze")
    time.sleep(0.1)
    ground.settle()
    return centre, place, topology


def _edit_site(place: str, rows: int) -> None:
    if place.startswith("postgresql:"):
        run(place, sql("postgres", "edit_all_here"))
        return
    with closing(sqlite3.connect(place, isolation_level=None)) as file:
        for low in range(1, rows + 1, 1000):
            file.execute(sql("sqlite", "edit_range"), {"low": low, "high": low + 999})


def _write(place: str, *statements: str) -> None:
    with closing(sqlite3.connect(place, isolation_level=None)) as file:
        for statement in statements:
            file.execute(statement)


def _expect_one_value(place: str, centre: str) -> None:
    """The figures of a run that did not end equal would be worth nothing."""
    if place.startswith("postgresql:"):
        expect_equal("both ways", fetch(place, _FINGERPRINT)[0], fetch(centre, _FINGERPRINT)[0])
        return
    with closing(sqlite3.connect(place)) as file:
        expect_equal("both ways", file.execute(sql("sqlite", "fingerprint")).fetchone(), fetch(centre, _FINGERPRINT)[0])
