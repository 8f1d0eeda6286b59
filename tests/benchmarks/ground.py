"""What every benchmark stands on: a PostgreSQL server of its own, databases, topologies, and processes that are measured."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import yaml

from replicator.embedded import EmbeddedServer
from tests.benchmarks.measures import cpu_seconds, resident_mb

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SITE = "factory_a"
TABLE = "test_metric"

SERVER_OPTIONS = {
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "min_wal_size": "1GB",
    "checkpoint_timeout": "30min",
    "max_connections": "300",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "wal_retrieve_retry_interval": "100ms",
}
"""On top of the launcher's ``wal_level=logical``. ``fsync`` and ``synchronous_commit`` stay on, as in production.

The last one is for the baseline's sake: before PostgreSQL 16 the server starts one subscription in that time, and by
default a subscription enabled soon after another one waits five seconds.
"""

_BLOCK = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def sql(file: str, name: str) -> str:
    """One named statement of a SQL file beside this module."""
    parts = _BLOCK.split((HERE / f"{file}.sql").read_text(encoding="utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name].strip()


def alternate(repetitions: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run the sides in turn, A B A B …, so that what disturbs the machine disturbs all; the samples of each."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, measure in sides.items():
            samples[name].append(measure())
    return samples


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Gives a function that says how many seconds have passed; after the block it keeps saying the same."""
    start = time.perf_counter()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.perf_counter()) - start
    ended.append(time.perf_counter())


@dataclass(frozen=True, slots=True)
class Drained:
    """What a draining process says of itself. ``base_mb``: resident before the first row, all modules imported."""

    seconds: float
    cpu_seconds: float
    changes: int
    peak_mb: float
    base_mb: float


@dataclass
class Ground:
    """The server, a folder, and how big things are."""

    server: EmbeddedServer
    folder: Path
    scale: float
    repetitions: int
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # --- sizes ---

    def rows(self, full: int) -> int:
        """``full`` rows scaled, in whole thousands."""
        return max(1, round(full * self.scale / 1000)) * 1000

    def seconds(self, full: float) -> float:
        """``full`` seconds scaled, at least one."""
        return max(1.0, full * min(1.0, self.scale))

    # --- databases ---

    def database(self, label: str, *statements: str, template: str = "") -> str:
        """A fresh database and its URL; ``template`` is another's URL, to which nobody may be connected."""
        name = f"{label}_{next(self._numbers)}"
        dsn = self.server.create_database(name, template.rpartition("/")[2] or None)
        run(dsn, *statements)
        return dsn

    def drop(self, *dsns: str) -> None:
        """Drop databases, connections or not."""
        run(self.server.dsn(), *(f'drop database "{dsn.rpartition("/")[2]}" with (force)' for dsn in dsns))

    def file(self, label: str) -> Path:
        """A path for a SQLite file that does not exist yet."""
        return self.folder / f"{label}_{next(self._numbers)}.sqlite3"

    def settle(self) -> None:
        """A checkpoint, so that none falls into what is measured next."""
        run(self.server.dsn(), "checkpoint")

    # --- topologies ---

    def install(
        self,
        centre: str,
        sites: Mapping[str, str],
        tables: Sequence[Mapping[str, object]] = (),
        params: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Path:
        """Write a topology YAML and install it; sites by name and URL. Default: one table, to the centre."""
        path = self.folder / f"topology_{next(self._numbers)}.yaml"
        rule = {"name": TABLE} if len(sites) == 1 else {"name": TABLE, "keyed_by": ["site"]}
        settings = {
            "topology": "bench",
            "centre": {"url": centre},
            "sites": {name: {"url": url, "params": dict((params or {}).get(name, {}))} for name, url in sites.items()},
            "tables": [dict(each) for each in tables] or [rule],
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        child("install", str(path))
        return path

    # --- processes ---

    def drain(self, topology: Path) -> Drained:
        """Drain the site in a process of its own, which measures itself from its first connection to its last."""
        return Drained(**json.loads(child("drain", str(topology), SITE)))

    def sync(self, topology: Path) -> Drained:
        """``replicator sync`` of all links, both ways, in a process of its own."""
        return Drained(**json.loads(child("sync", str(topology))))

    def backfill(self, topology: Path) -> Drained:
        """``replicator backfill`` of all tables, without the audit, in a process of its own."""
        return Drained(**json.loads(child("backfill", str(topology))))

    @contextmanager
    def service(self, topology: Path, centre: str, links: int = 1) -> Iterator[Service]:
        """``replicator run`` as a process, once all links are in contact; ended by SIGTERM."""
        since = fetch(centre, "select clock_timestamp()")[0][0]
        service = Service(topology, self.folder / f"service_{next(self._numbers)}.log")
        try:
            service.await_contact(centre, since, links)
            yield service
        finally:
            service.stop()


class Service:
    """A running ``replicator run``."""

    def __init__(self, topology: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            command = [sys.executable, "-m", "replicator", "run", "-c", str(topology)]
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def await_contact(self, centre: str, since: object, links: int, timeout: float = 120.0) -> None:
        """Wait until every link has proved that both its ends answer."""
        deadline = time.monotonic() + timeout
        while int(str(fetch(centre, sql("postgres", "links_in_contact"), since)[0][0])) < links:
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"the service does not come up:\n{tail}")
            time.sleep(0.05)

    def cpu_seconds(self) -> float:
        """Processor time it has used, all threads."""
        return cpu_seconds(self.pid)

    def peak_mb(self) -> float:
        """The most memory it ever had resident."""
        return resident_mb(self.pid)

    def stop(self) -> None:
        """SIGTERM, as an init system would."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def child(*arguments: str) -> str:
    """Run ``tests.benchmarks.child`` to its end; what it printed. Raises RuntimeError with its errors."""
    command = [sys.executable, "-m", "tests.benchmarks.child", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def run(dsn: str, *statements: str) -> None:
    """Each statement a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fetch(dsn: str, query: str, *parameters: object) -> list[tuple[object, ...]]:
    """What a query gives; native placeholders."""
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        return connection.execute(query.encode(), parameters or None).fetchall()


def expect_equal(what: str, left: Sequence[object], right: Sequence[object]) -> None:
    """A figure of a run that lost rows would be worth nothing. Raises RuntimeError."""
    if [int(str(value)) for value in left] != [int(str(value)) for value in right]:
        raise RuntimeError(f"{what}: the replicas differ: {left} and {right}")
