"""What a service costs while nothing happens: processor time of one process with many idle sites."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from tests.benchmarks.ground import Ground, sql
from tests.benchmarks.measures import resident_mb
from tests.benchmarks.report import Aim, Figure

SQLITE_SITES, POSTGRES_SITES, SECONDS = 200, 50, 20.0
_CPU, _MEMORY = Aim(at_most=2), Aim(at_most=64)


def idle(ground: Ground) -> list[Figure]:
    """200 SQLite sites, then 50 PostgreSQL sites."""
    count = max(3, round(SQLITE_SITES * min(1.0, ground.scale)))
    sites = {}
    for place in range(count):
        path = ground.file("idle")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute(sql("sqlite", "table"))
        sites[f"site_{place}"] = f"sqlite:///{path}"
    figures = _measure(ground, f"{count} idle SQLite sites", sites, (_CPU,))
    count = max(2, round(POSTGRES_SITES * min(1.0, ground.scale)))
    template = ground.database("idle", sql("postgres", "table"))
    sites = {f"site_{place}": ground.database("idle", template=template) for place in range(count)}
    figures += _measure(ground, f"{count} idle PostgreSQL sites", sites, ())
    ground.drop(template, *sites.values())
    return figures


def _measure(ground: Ground, what: str, sites: dict[str, str], aims: tuple[Aim, ...]) -> list[Figure]:
    centre = ground.database("centre")
    topology = ground.install(centre, sites)
    samples = []
    with ground.service(topology, centre, links=len(sites)) as service:
        time.sleep(ground.seconds(5))  # what a link does after its first contact is not idleness
        for _ in range(ground.repetitions):
            used, start = service.cpu_seconds(), time.perf_counter()
            time.sleep(ground.seconds(SECONDS))
            samples.append((service.cpu_seconds() - used) / (time.perf_counter() - start) * 100)
        resident = resident_mb(service.pid, "VmRSS")
    ground.drop(centre)
    return [
        Figure(f"{what}: processor", samples, "% of one core", aims=aims),
        Figure(f"{what}: memory", [resident], "MB resident", aims=(_MEMORY,)),
    ]
