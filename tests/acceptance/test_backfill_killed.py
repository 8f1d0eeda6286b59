"""A backfill under steady writes, killed at random moments, ends equal: the issue's proof, at any size.

``REPLICATOR_BACKFILL_ROWS`` is the number of rows (2,000,000 for the full proof); figures are printed (``pytest -s``).
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.fixtures.cli import ROOT, answer, execute, replicator, rows
from tests.fixtures.databases import PostgresDatabases

ROWS = int(os.environ.get("REPLICATOR_BACKFILL_ROWS", "4000"))
KILLS = int(os.environ.get("REPLICATOR_BACKFILL_KILLS", "2"))
CHUNK = max(min(10_000, ROWS // 30), 50)
RATE = 0 if ROWS > 100_000 else 2_000
"""Small tables would be over before they can be killed."""
TABLE = "create table reading (id bigint primary key, worker integer not null, value double precision, note text)"
_FILL = (
    "insert into reading select n, n % 17, n / 7.0, 'reading ' || n from (with recursive x(n) as"
    " (select {low} union all select n + 1 from x where n < {high}) select n from x) q"
)


class Writer:
    """An application that inserts, updates and deletes rows, some hundred a second, until it is stopped."""

    def __init__(self, url: str) -> None:
        self._url, self._stop, self.writes = url, threading.Event(), 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        choose, sqlite = random.Random(11), self._url.startswith("sqlite")
        connection: sqlite3.Connection | psycopg.Connection[tuple[object, ...]] = (
            sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
            if sqlite
            else psycopg.connect(self._url, autocommit=True)
        )
        with closing(connection):
            while not self._stop.wait(0.005):
                number = choose.randint(1, ROWS)
                for statement in (
                    f"update reading set value = {choose.random()}, note = 'w{self.writes}' where id = {number}",
                    f"delete from reading where id = {choose.randint(1, ROWS)}",
                    f"insert into reading values ({ROWS + 1 + self.writes}, 1, {choose.random()}, 'new')",
                ):
                    connection.execute(statement)  # type: ignore[arg-type]  # both drivers take text
                self.writes += 3

    def stop(self) -> None:
        """Wait for its last write."""
        self._stop.set()
        self._thread.join()


@pytest.fixture
def topology(
    engine: str, tmp_path: Path, sqlite_file: Callable[[str], Path], postgres_database: PostgresDatabases
) -> tuple[Path, str, str]:
    """A site of each engine and a PostgreSQL centre that has lost two thirds of the site's rows: YAML, site, centre."""
    site = postgres_database("site") if engine == "postgres" else f"sqlite:///{sqlite_file('site')}"
    centre, file = postgres_database("centre"), tmp_path / "readings.yaml"
    settings = {
        "topology": "readings", "centre": {"url": centre}, "sites": {"lab": {"url": site}}, "tables": [{"name": "reading"}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    execute(site, TABLE + ";")
    if engine == "sqlite":
        execute(site, "pragma journal_mode = wal;")
    for low in range(1, ROWS + 1, 100_000):
        execute(site, _FILL.format(low=low, high=min(low + 99_999, ROWS)) + ";")
    replicator("install", "-c", file, "--yes")
    replicator("sync", "-c", file)
    execute(centre, "delete from reading where id % 3 > 0;")
    return file, site, centre


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("engine", "beside"), [("postgres", "command"), ("sqlite", "service")])
def test_invariant_3_a_backfill_killed_at_random_moments_under_writes_ends_equal(
    topology: tuple[Path, str, str], engine: str, beside: str
) -> None:
    file, site, centre = topology
    choose = random.Random(5)
    writer = Writer(site)
    began, kills, peak = time.monotonic(), 0, 0.0
    service: subprocess.Popen[str] | None = None
    command = ["backfill", "reading", "--chunk-rows", CHUNK, "--rate", RATE, "--no-audit", "-c", file]
    try:
        while True:
            if beside == "service" and (service is None or service.poll() is not None):
                service = quiet("run", "-c", file)
            process = quiet(*command)
            due = time.monotonic() + choose.uniform(1.0, 2.5 + ROWS / 400_000) + 1.0
            while process.poll() is None and (kills >= KILLS or time.monotonic() < due):
                peak = max(peak, *(resident_mb(each.pid) for each in (process, service) if each is not None))
                time.sleep(0.02)
            if process.poll() is not None:
                assert process.returncode == 0
                break
            kills += 1
            for victim in choose.choice([(process,), (process, service)]):
                if victim is not None:
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
            process.kill()
            process.wait()
        seconds = time.monotonic() - began
    finally:
        writer.stop()
        if service is not None:
            service.send_signal(signal.SIGTERM)
            service.wait(60)
    orders = answer("backfill", "status", "--all", "-c", file)["backfills"]
    assert [each["state"] for each in orders] == ["done"], "one order, however often the command was run"
    replicator("sync", "-c", file, code=None)
    replicator("audit", "-c", file, "--wait", 60)
    assert kills >= min(KILLS, 1)
    found = rows(site, "select count(*) from reading")[0][0]
    assert rows(centre, "select count(*) from reading") == [(found,)]
    print(
        f"\n{engine} → postgres, {beside}: {orders[0]['rows']:,} rows brought in {seconds:.1f} s"
        f" ({orders[0]['rows'] / seconds:,.0f}/s), {kills} kills, {writer.writes:,} writes meanwhile, peak {peak:.0f} MB"
    )


def quiet(*arguments: object) -> subprocess.Popen[str]:
    """The command as a process whose output nobody reads."""
    command = [sys.executable, "-m", "replicator", *map(str, arguments)]
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=nowhere, stderr=nowhere, text=True
    )


def resident_mb(pid: int) -> float:
    """The most memory a process ever had, in MB; 0 once it is gone, and where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
        return int(found[1]) / 1024 if found else 0.0
    return 0.0
