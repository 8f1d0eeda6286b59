"""The audit beside a link at work: rows in flight are never called different, and a row that is wrong is found all the same.

The link here is a small one of the test's own: key mode, whole transactions, position in the apply transaction, pruning at
once. It is as hard on the audit as a link may be.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from replicator.audit import Audit, Limits, TableReport, Watch
from replicator.engines.sqlite.audit import SqliteAudit
from replicator.model import Engine, Key, Lag, Position, TablePlan
from tests.fixtures.audits import plan_of

ROWS = 3000
QUIET = 50
"""Rows up to this number are never written by the application."""

SOURCE = """
create table item (id integer primary key, v integer);
create table note (seq integer primary key autoincrement, id integer);
create trigger ai after insert on item begin insert into note (id) values (new.id); end;
create trigger au after update on item begin insert into note (id) values (old.id), (new.id); end;
create trigger ad after delete on item begin insert into note (id) values (old.id); end;
"""
TARGET = """
create table item (id integer primary key, v integer);
create table place (seq integer);
insert into place values (0);
"""
PLAN = plan_of(Engine.SQLITE, Engine.SQLITE, [("id", "INTEGER", "INTEGER"), ("v", "INTEGER", "INTEGER")], ["id"])


class Outbox:
    """What the audit asks: positions at the target, changes behind one at the source."""

    def __init__(self, source: Path, target: Path) -> None:
        self._source, self._target = opened(source), opened(target)

    def position(self) -> Position | None:
        return Position(str(self._target.execute("select seq from place").fetchone()[0]))

    def keys_in_flight(self, table: TablePlan, after: Position | None, keys: Sequence[Key]) -> set[Key]:
        behind = self._source.execute("select id from note where seq > ?", (int(after or 0),)).fetchall()
        return set(behind) & set(keys)

    def read_lag(self, after: Position | None) -> Lag:
        return Lag(self._source.execute("select count(*) from note where seq > ?", (int(after or 0),)).fetchone()[0], 0)

    def close(self) -> None:
        self._source.close()
        self._target.close()


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    connection.execute("pragma synchronous = off")
    return connection


def work(path: Path, stop: threading.Event) -> None:
    """The application: inserts, updates, deletes, key changes, A-B-A."""
    chance = random.Random(5)
    with closing(opened(path)) as application:
        while not stop.is_set():
            key, other = chance.randint(QUIET + 1, ROWS), chance.randint(QUIET + 1, ROWS)
            application.execute("begin immediate")
            match chance.randint(0, 4):
                case 0:
                    application.execute(
                        "insert into item values (?, ?) on conflict (id) do update set v = v + 1", (key, 0)
                    )
                case 1:
                    application.execute("update item set v = v + 1 where id = ?", (key,))
                case 2:
                    application.execute("delete from item where id = ?", (key,))
                case 3:
                    application.execute("update or ignore item set id = ? where id = ?", (other, key))
                case _:
                    application.execute("update item set v = -v where id between ? and ?", (key, key + 20))
            application.execute("commit")
            stop.wait(0.0005)


def carry(source: Path, target: Path, stop: threading.Event, *, pace: float) -> None:
    """The link: from one snapshot of the source to the next, then the source is pruned."""
    with closing(opened(source)) as ours, closing(opened(target)) as theirs:
        place = theirs.execute("select seq from place").fetchone()[0]
        while not stop.wait(pace):
            ours.execute("begin")
            changed = ours.execute("select distinct id from note where seq > ?", (place,)).fetchall()
            rows = [ours.execute("select id, v from item where id = ?", key).fetchone() for key in changed]
            place = max(place, ours.execute("select coalesce(max(seq), 0) from note").fetchone()[0])
            ours.execute("commit")
            theirs.execute("begin immediate")
            theirs.executemany("delete from item where id = ?", changed)
            theirs.executemany("insert into item values (?, ?)", [row for row in rows if row])
            theirs.execute("update place set seq = ?", (place,))
            theirs.execute("commit")
            ours.execute("delete from note where seq <= ?", (place,))


@contextmanager
def running(*workers: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=worker, args=(stop,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def make(path: Path, script: str) -> Path:
    with closing(opened(path)) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.executescript(script)
        connection.executemany("insert into item values (?, ?)", [(n, n) for n in range(1, ROWS + 1)])
    return path


@pytest.mark.parametrize("pace", [0.001, 0.02, 0.2])
def test_no_false_difference_and_no_blind_eye_while_all_is_moving(
    pace: float, sqlite_file: Callable[[str], Path]
) -> None:
    source, target = make(sqlite_file("site"), SOURCE), make(sqlite_file("centre"), TARGET)
    with closing(opened(source)) as connection:
        connection.execute("delete from note where seq < (select max(seq) from note)")
    with closing(opened(target)) as connection:
        connection.execute("update place set seq = ?", (ROWS,))
    wrong: list[TableReport] = []
    candidates = 0
    with ExitStack() as stack:
        outbox = stack.enter_context(closing(Outbox(source, target)))
        ours, theirs = (stack.enter_context(closing(SqliteAudit(path))) for path in (source, target))
        audit = Audit("site", ours, theirs, Watch(outbox, outbox.position, lambda plan: ()), limits=Limits(seconds=0.5))
        with running(lambda stop: work(source, stop), lambda stop: carry(source, target, stop, pace=pace)):
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                (report,) = audit.run([PLAN])
                candidates += report.unequal_buckets
                wrong += [report] if report.wrong or report.reason.startswith("self") else []
            assert [each.differences[:3] for each in wrong] == []
            assert candidates > 0
            with closing(opened(target)) as connection:
                connection.execute("update item set v = 0 where id = 7")
                connection.execute("delete from item where id = 9")
            (report,) = audit.run([PLAN])
        assert {row.key["id"] for row in report.differences} == {"7", "9"}
        with closing(opened(target)) as connection, running(lambda stop: carry(source, target, stop, pace=0.001)):
            connection.execute("update item set v = 7 where id = 7")
            connection.execute("insert into item values (9, 9)")
            while outbox.read_lag(outbox.position()).changes and time.monotonic() < deadline + 30:
                threading.Event().wait(0.01)
        (report,) = audit.run([PLAN])
        assert (report.verdict, report.in_flight) == ("equal", 0)
