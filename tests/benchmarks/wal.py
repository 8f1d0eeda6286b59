"""Capture from the log: what it costs the source, and how fast a backlog goes from the log to the centre.

Against capture by triggers, PostgreSQL's own logical replication, and pg_recvlogical, which only receives.
"""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path

import yaml

from tests.benchmarks import drain
from tests.benchmarks.ground import (
    SITE,
    TABLE,
    Drained,
    Ground,
    alternate,
    child,
    expect_equal,
    fetch,
    run,
    sql,
    stopwatch,
)
from tests.benchmarks.report import Aim, Figure

CHANGES, BULK = 500_000, 500_000
_AIM = Aim(at_least=1, of_ratio=True)
_MEMORY = Aim(at_most=64)
_SLOT = "select name from replicator.slot"


def wal(ground: Ground) -> list[Figure]:
    """Drain and source cost."""
    return [*_drains(ground, mix=False), *_drains(ground, mix=True), *_bulk(ground)]


def _install(ground: Ground, centre: str, site: str, capture: str, outbox: str = "keep") -> Path:
    path = ground.folder / f"{site.rpartition('/')[2]}.yaml"
    settings = {
        "topology": "bench", "centre": {"url": centre}, "sites": {SITE: {"url": site, "capture": capture, "outbox": outbox}},
        "tables": [{"name": TABLE}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    child("install", str(path))
    return path


def _backlog(ground: Ground, changes: int, *, mix: bool, outbox: str) -> tuple[str, str, Path]:
    """As ``drain.postgres_backlog``; the backlog is in the log only."""
    site = ground.database("site", sql("postgres", "table"), sql("postgres", "writers"))
    centre = ground.database("centre")
    topology = _install(ground, centre, site, "wal", outbox)
    if mix:
        run(site, f"call write_inserts(1, {changes}, 10000)")
        ground.drain(topology)
        run(site, "vacuum analyze")
        run(centre, "vacuum analyze")
    drain._write(site, changes, mix, drain.STEP)
    ground.settle()
    return site, centre, topology


def _drains(ground: Ground, *, mix: bool) -> list[Figure]:
    changes, load = ground.rows(CHANGES), "mix 60/30/10" if mix else "inserts"
    drained: dict[str, list[Drained]] = {"keep": [], "bypass": []}
    logical, received = [], []
    for _ in range(ground.repetitions):
        for outbox, ours in drained.items():
            site, centre, topology = _backlog(ground, changes, mix=mix, outbox=outbox)
            if outbox == "keep":
                received.append(changes / _received(ground, site))
            ours.append(ground.drain(topology))
            expect_equal(load, fetch(site, drain._FINGERPRINT)[0], fetch(centre, drain._FINGERPRINT)[0])
            ground.drop(centre, site)
        logical.append(changes / drain._logical(ground, changes, mix))
    figures = []
    for outbox, ours in drained.items():
        speed = [changes / one.seconds for one in ours]
        way = "by the outbox" if outbox == "keep" else "past the outbox"
        what = f"PostgreSQL log → PostgreSQL {way}, {changes:,} {load}"
        figures += [
            Figure(what, speed, "changes/s", "changes/s logical replication", logical, (_AIM,)),
            Figure(f"{what}: against receiving only", speed, "changes/s", "changes/s pg_recvlogical", received),
            Figure(f"{what}: peak memory", [one.peak_mb for one in ours], "MB resident", aims=(_MEMORY,)),
            Figure(
                f"{what}: its processor time",
                [one.cpu_seconds for one in ours],
                "s",
                "s wall",
                [one.seconds for one in ours],
            ),
        ]
    return figures


def _received(ground: Ground, site: str) -> float:
    """Seconds pg_recvlogical takes for the same backlog from a copy of the slot."""
    ((slot,),) = fetch(site, _SLOT)
    ((end,),) = fetch(site, "select pg_current_wal_lsn()::text")
    copy = f"copy_{site.rpartition('/')[2]}"
    run(site, f"select pg_copy_logical_replication_slot('{slot}', '{copy}')")
    command = [
        str(ground.server.binaries.bindir / "pg_recvlogical"), "-d", site, "--slot", copy, "--start", "--no-loop",
        "-o", "proto_version=1", "-o", f"publication_names={slot}", "-f", "/dev/null", "--endpos", str(end),
    ]  # fmt: skip
    with stopwatch() as passed:
        subprocess.run(command, check=True, capture_output=True)
    run(site, f"select pg_drop_replication_slot('{copy}')")
    return passed()


def _bulk(ground: Ground) -> list[Figure]:
    """One statement that writes many rows, and one that updates them all."""
    rows = ground.rows(BULK)
    sides = {name: partial(_bulk_seconds, ground, rows, name) for name in ("", "triggers", "wal")}
    figures = []
    for place, what in enumerate(("insert", "update")):
        samples = alternate(
            ground.repetitions, {name: partial(_nth, measure, place) for name, measure in sides.items()}
        )
        for name in ("triggers", "wal"):
            text = f"PostgreSQL bulk {what} of {rows:,} rows, capture by {name}"
            figures.append(Figure(text, samples[name], "s", "s uncaptured", samples[""]))
    return figures


def _nth(measure: partial[tuple[float, float]], place: int) -> float:
    return measure()[place]


def _bulk_seconds(ground: Ground, rows: int, capture: str) -> tuple[float, float]:
    site, centre = ground.database("bulk", sql("postgres", "table")), ground.database("centre")
    if capture:
        _install(ground, centre, site, capture)
    ground.settle()
    insert = sql("postgres", "bulk_insert").replace("$1::bigint", "1").replace("$2::bigint", str(rows))
    with stopwatch() as inserted:
        run(site, insert)
    with stopwatch() as updated:
        run(site, sql("postgres", "bulk_update"))
    ground.drop(centre, site)
    return inserted(), updated()
