"""What a listening service costs the writers: NOTIFY, and the flag that says whether the reader is asleep.

At full speed the service competes for the machine's cores as well, so the second pair of figures is taken at a low steady
rate, where the reader falls asleep between commits and nearly every commit has to wake it.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.ground import SITE, Ground, alternate, run, sql
from tests.benchmarks.report import Figure
from tests.benchmarks.source_cost import ROWS, pgbench

RATE = 300


def wake(ground: Ground) -> list[Figure]:
    """The same writers with the service running and without."""
    site, centre = (
        ground.database("site", sql("postgres", "table"), sql("postgres", "writers")),
        ground.database("centre"),
    )
    topology = ground.install(centre, {SITE: site})
    run(site, f"call write_inserts(1, {ground.rows(ROWS)}, 10000)", "vacuum analyze")
    ground.drain(topology)

    def alone(measure: Callable[[], float]) -> float:
        value = measure()
        ground.drain(topology)
        return value

    def beside(measure: Callable[[], float]) -> float:
        with ground.service(topology, centre):
            value = measure()
        ground.drain(topology)
        return value

    def full_speed() -> float:
        return pgbench(ground, site, "update", "-c", "8", "-j", "2")[0]

    def at_rate() -> float:
        return pgbench(ground, site, "update", "-c", "4", "-j", "2", "--rate", str(RATE))[1]

    fast = alternate(ground.repetitions, {"off": lambda: alone(full_speed), "on": lambda: beside(full_speed)})
    slow = alternate(ground.repetitions, {"off": lambda: alone(at_rate), "on": lambda: beside(at_rate)})
    ground.drop(site, centre)
    return [
        Figure("8 writers at full speed, service running", fast["on"], "tps", "tps, stopped", fast["off"]),
        Figure(f"one write at {RATE}/s, service running", slow["on"], "ms", "ms, stopped", slow["off"]),
    ]
