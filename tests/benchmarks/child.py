"""Processes of the benchmarks' own: ``python -m tests.benchmarks.child drain|install|sync|sqlite_tps …``. Prints JSON."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Callable


def drain(topology: str, site: str) -> dict[str, object]:
    """Drain one site as ``replicator sync`` does."""
    import replicator.cli  # noqa: F401 - so that memory is that of the real command
    from replicator.app import App
    from tests.benchmarks.measures import resident_mb

    app = App.open(topology)
    (worker,) = app.workers([site])
    base = resident_mb()
    start, used = time.perf_counter(), time.process_time()
    report = worker.drain()
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    if report.parked or report.conflicts:
        raise RuntimeError(f"nothing should have been parked or in conflict: {report}")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "changes": report.changes,
        "peak_mb": resident_mb(),
        "base_mb": base,
    }


def install(topology: str) -> dict[str, object]:
    """``replicator install``."""
    _command("install", "-c", topology, "--yes", "--json")
    return {}


def sync(topology: str) -> dict[str, object]:
    """``replicator sync``, measured from its first connection to its last."""
    return _measured("sync", "-c", topology, "--json")


def backfill(topology: str) -> dict[str, object]:
    """``replicator backfill`` of all tables without its audit, measured likewise."""
    return _measured("backfill", "-c", topology, "--no-audit", "--json")


def _measured(*arguments: str) -> dict[str, object]:
    from tests.benchmarks.measures import resident_mb

    base = resident_mb()
    start, used = time.perf_counter(), time.process_time()
    _command(*arguments)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - used,
        "changes": 0,
        "peak_mb": resident_mb(),
        "base_mb": base,
    }


def _command(*arguments: str) -> None:
    """A command of ours in this process. Raises RuntimeError with what it said when it fails."""
    from click.testing import CliRunner

    from replicator.cli import main

    result = CliRunner().invoke(main, list(arguments))
    if result.exit_code:
        raise RuntimeError(f"replicator {' '.join(arguments)}: exit {result.exit_code}\n{result.output}")


def sqlite_tps(file: str, statement: str, seconds: str, rows: str) -> dict[str, object]:
    """Single-row transactions per second of an application on a SQLite file in WAL mode; rows 1 … ``rows`` are there."""
    connection = sqlite3.connect(file, isolation_level=None, timeout=30)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    ((highest,),) = connection.execute("select max(id) from test_metric")
    choose = random.Random(7)
    insert = "insert" in statement.split()[0].lower()
    start = now = time.perf_counter()
    done = 0
    while now - start < float(seconds):
        done += 1
        connection.execute(statement, (highest + done if insert else choose.randint(1, int(rows)),))
        now = time.perf_counter()
    connection.close()
    return {"tps": done / (now - start)}


if __name__ == "__main__":
    _, command, *arguments = sys.argv
    commands: dict[str, Callable[..., dict[str, object]]] = {
        "drain": drain,
        "install": install,
        "sync": sync,
        "backfill": backfill,
        "sqlite_tps": sqlite_tps,
    }
    print(json.dumps(commands[command](*arguments)))
