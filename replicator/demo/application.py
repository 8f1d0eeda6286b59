"""A factory's own application, as a process: it writes test runs to its database and knows nothing of replication.

    python -m replicator.demo.application URL SEED

It obeys words on stdin and answers each with one line of JSON, its counts so far: ``create`` (tables, operators,
analysers), ``load N`` (that many runs in one transaction), ``work RATE`` (transactions a second from now on; 0: none),
``typo`` (a text where a number belongs, which SQLite takes), ``mend`` (the number it should have been), ``correct N``
(measure run N again), ``count``. It ends when stdin does, so it never outlives the one who started it.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import psycopg

from replicator import sqlfiles
from replicator.demo.laboratory import Laboratory

_ANALYSERS, _RECENT = 200, 400
_TYPO = "n/a"


class Database(Protocol):
    """What the application needs of a driver; ``name`` is a block of the engine's demo.sql."""

    def ask(self, name: str, *values: object) -> int:
        """The first number of a query's answer, 0 when it answers nothing."""

    def run(self, name: str, *values: object) -> int:
        """One statement; the number of rows it changed."""

    def run_many(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for every row."""

    def run_all(self, name: str) -> None:
        """A block of several statements."""

    def commit(self) -> None:
        """End the transaction."""

    def rollback(self) -> None:
        """Undo the transaction."""

    def close(self) -> None:
        """Disconnect."""


class Sqlite:
    """An SQLite file by the standard library's driver."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=30)
        self.commit, self.rollback = self._connection.commit, self._connection.rollback
        self.close = self._connection.close

    def ask(self, name: str, *values: object) -> int:
        """The first number of a query's answer, 0 when it answers nothing."""
        row = self._connection.execute(_sql("sqlite", name), values).fetchone()
        return int(row[0]) if row else 0

    def run(self, name: str, *values: object) -> int:
        """One statement; the number of rows it changed."""
        return self._connection.execute(_sql("sqlite", name), values).rowcount

    def run_many(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for every row."""
        self._connection.executemany(_sql("sqlite", name), rows)

    def run_all(self, name: str) -> None:
        """A block of several statements."""
        self._connection.executescript(_sql("sqlite", name))


class Postgres:
    """A PostgreSQL database by psycopg."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, cursor_factory=psycopg.RawCursor)
        self.commit, self.rollback = self._connection.commit, self._connection.rollback
        self.close = self._connection.close

    def ask(self, name: str, *values: object) -> int:
        """The first number of a query's answer, 0 when it answers nothing."""
        row = self._connection.execute(_sql("postgres", name), values).fetchone()
        return int(row[0]) if row else 0

    def run(self, name: str, *values: object) -> int:
        """One statement; the number of rows it changed."""
        return self._connection.execute(_sql("postgres", name), values).rowcount

    def run_many(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        """One statement for every row."""
        self._connection.cursor().executemany(_sql("postgres", name), rows)

    def run_all(self, name: str) -> None:
        """A block of several statements."""
        self._connection.execute(_sql("postgres", name))


def _sql(engine: str, name: str) -> str:
    return sqlfiles.statement(f"sql/{engine}/demo.sql", name)


def open_database(url: str) -> Database:
    """The database behind a ``sqlite:///`` or libpq URL."""
    path = url.removeprefix("sqlite:///")
    database: Database = Postgres(url) if path == url else Sqlite(path)
    database.run_all("open")
    database.commit()
    return database


@dataclass(slots=True)
class Counts:
    """What the application did: transactions and rows."""

    transactions: int = 0
    inserted: int = 0
    corrected: int = 0
    deleted: int = 0
    rolled_back: int = 0
    newest_run: int = 0


class Application:
    """The factory's business."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._laboratory = Laboratory(seed)
        self._width = len(self._laboratory.metrics)
        self._analysers = self._broken = 0
        self.counts = Counts()

    # --- words ---

    def create(self) -> None:
        """Tables, operators and analysers."""
        self._database.run_all("create_tables")
        operators = len(self._laboratory.operators)
        self._database.run_many("add_operator", map(self._laboratory.operator, range(1, operators + 1)))
        self._database.run_many("add_analyser", map(self._laboratory.analyser, range(1, _ANALYSERS + 1)))
        self._analysers = _ANALYSERS
        self._done(inserted=operators + _ANALYSERS)

    def load(self, count: int) -> None:
        """Many runs in one transaction."""
        first = self.counts.newest_run + 1
        runs = list(self._laboratory.runs(first, count, self._analysers, len(self._laboratory.operators)))
        self._database.run_many("add_run", (run.row for run in runs))
        self._database.run_many("add_metric", (row for run in runs for row in run.metrics))
        self.counts.newest_run += count
        self._done(inserted=count * (1 + self._width))

    def typo(self) -> None:
        """The newest run's first metric becomes a text."""
        self._broken = self.counts.newest_run
        self._database.run("correct_metric", self._broken, self._laboratory.metrics[0].name, _TYPO, "?")
        self._done(corrected=1)

    def mend(self) -> None:
        """The number that belongs there."""
        metric = self._laboratory.metrics[0]
        value = self._laboratory.value(metric)
        self._database.run("correct_metric", self._broken, metric.name, value, metric.flag(value))
        self._done(corrected=1)

    def correct(self, number: int) -> None:
        """The newest run up to ``number`` is measured again in one metric."""
        metric = self._laboratory.metric()
        value = self._laboratory.value(metric)
        run = self._find(number)
        self._database.run("correct_metric", run, metric.name, value, metric.flag(value))
        self._database.run("judge_run", run, "measured again")
        self._done(corrected=2)

    # --- work ---

    def work(self) -> None:
        """One transaction of a working day."""
        chance = self._laboratory.chance()
        if chance < 0.70:
            self.load(1)
        elif chance < 0.85:
            self.correct(self._some_run())
        elif chance < 0.92:
            self._withdraw()
        elif chance < 0.95:
            self._deliver()
        elif chance < 0.97:
            changed = self._database.run("update_firmware", self._laboratory.firmware(), self._laboratory.model())
            self._done(corrected=changed)
        else:
            self._change_of_mind()

    def _withdraw(self) -> None:
        run = self._find(self._some_run())
        if run in (0, self.counts.newest_run, self._broken):
            self._database.rollback()
            return
        self._database.run("delete_run", run)
        self._done(deleted=1 + self._width)

    def _deliver(self) -> None:
        self._analysers += 1
        self._database.run("add_analyser", *self._laboratory.analyser(self._analysers))
        self._done(inserted=1)

    def _change_of_mind(self) -> None:
        run = self._find(self._some_run())
        self._database.run("judge_run", run, "never said")
        self._database.run("delete_run", run)
        self._database.rollback()
        self.counts.rolled_back += 1

    def _some_run(self) -> int:
        return self._laboratory.number(max(1, self.counts.newest_run - _RECENT), self.counts.newest_run)

    def _find(self, number: int) -> int:
        return self._database.ask("find_run", number)

    def _done(self, *, inserted: int = 0, corrected: int = 0, deleted: int = 0) -> None:
        self._database.commit()
        self.counts.transactions += 1
        self.counts.inserted += inserted
        self.counts.corrected += corrected
        self.counts.deleted += deleted


def serve(application: Application) -> None:
    """Obey words on stdin until it ends, and work in between."""
    rate, due = 0.0, 0.0
    while True:
        pause = max(due - time.monotonic(), 0.0) if rate else None
        if select.select([sys.stdin], [], [], pause)[0]:
            word, _, number = sys.stdin.readline().strip().partition(" ")
            if not word:
                return
            if word == "work":
                rate, due = float(number), time.monotonic()
            else:
                _obey(application, word, number)
            sys.stdout.write(json.dumps(asdict(application.counts)) + "\n")
            sys.stdout.flush()
        elif rate:
            application.work()
            # Behind its time table (a busy machine), it goes on from now.
            due = max(due + 1 / rate, time.monotonic() - 1.0)


def _obey(application: Application, word: str, number: str) -> None:
    match word:
        case "create":
            application.create()
        case "load":
            application.load(int(number))
        case "typo":
            application.typo()
        case "mend":
            application.mend()
        case "correct":
            application.correct(int(number))
        case "count":
            return
        case _:
            raise ValueError(f"unknown word {word!r}")


if __name__ == "__main__":
    serve(Application(open_database(sys.argv[1]), int(sys.argv[2])))
