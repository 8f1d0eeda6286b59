"""Peak resident memory of a draining process, whatever the backlog and however large one transaction is."""

from __future__ import annotations

from tests.benchmarks.drain import postgres_backlog, sqlite_backlog
from tests.benchmarks.ground import Drained, Ground
from tests.benchmarks.report import Aim, Figure

SMALL, LARGE = 100_000, 1_000_000
_AIM = Aim(at_most=64)


def memory(ground: Ground) -> list[Figure]:
    """A small backlog, a large one, a large one in a single transaction."""
    figures = []
    for engine in ("PostgreSQL", "SQLite"):
        small = _drain(ground, engine, ground.rows(SMALL), 1000)
        for changes, step, how in ((LARGE, 1000, ""), (LARGE, LARGE, " in one transaction")):
            large = _drain(ground, engine, ground.rows(changes), step)
            figures.append(
                Figure(
                    f"{engine} → PostgreSQL, {ground.rows(changes):,} inserts{how}", [large.peak_mb], "MB resident",
                    f"MB at {ground.rows(SMALL):,}", [small.peak_mb], (_AIM,),
                    note=f"{large.base_mb:.0f} MB before the first row (interpreter and libraries)",
                )
            )  # fmt: skip
    return figures


def _drain(ground: Ground, engine: str, changes: int, step: int) -> Drained:
    if engine == "PostgreSQL":
        centre, site, topology = postgres_backlog(ground, changes, step=step)
        drained = ground.drain(topology)
        ground.drop(centre, site)
        return drained
    centre, path, topology = sqlite_backlog(ground, changes, step=step)
    drained = ground.drain(topology)
    ground.drop(centre)
    path.unlink()
    return drained
