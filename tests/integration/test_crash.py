"""Invariant 3 under SIGKILL: the replicator dies at every gap between two steps, or PostgreSQL does; nothing comes twice.

The centre's table has a trigger that writes every version of every row into a log. A batch that was applied twice, or a
row that was applied without its position, would show there.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from replicator.embedded import EmbeddedServer
from replicator.errors import ReplicatorError
from replicator.pipeline import run_once
from tests.fixtures.pairs import MakePair, Pair, Place, PostgresPlace, SqlitePlace

ROOT = Path(__file__).resolve().parents[2]
TABLE = "create table reading (id integer primary key, device integer, value double precision)"
DEVICE = "create table device (id integer primary key, name text)"
LOG = {
    "postgres": (
        "create table log (op text, id bigint, value double precision)",
        "create function note() returns trigger language plpgsql as $$ begin"
        " insert into log select tg_op, coalesce(new.id, old.id), case when tg_op <> 'DELETE' then new.value end;"
        " return null; end $$",
        "create trigger note after insert or update or delete on reading for each row execute function note()",
    ),
    "sqlite": (
        "create table log (op text, id bigint, value double precision)",
        "create trigger note_i after insert on reading begin insert into log values ('INSERT', new.id, new.value); end",
        "create trigger note_u after update on reading begin insert into log values ('UPDATE', new.id, new.value); end",
        "create trigger note_d after delete on reading begin insert into log values ('DELETE', old.id, null); end",
    ),
}


class Crasher:
    """The process that is killed over and over."""

    def __init__(self, process: subprocess.Popen[str], pair: Pair) -> None:
        self._process, self._pair = process, pair

    def ask(self, gap: str) -> str:
        """One run; see tests.fixtures.crashing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._pair.yaml} {self._pair.name} {gap}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().rstrip("\n")
        assert answer, "the crashing process failed; see its traceback"
        return answer


@contextmanager
def crasher(pair: Pair) -> Iterator[Crasher]:
    """Start the process; it imports everything once and forks for each crash."""
    command = [sys.executable, "-m", "tests.fixtures.crashing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield Crasher(process, pair)
        finally:
            assert process.stdin is not None
            process.stdin.close()


class Work:
    """What the site writes, and what the centre's log must then hold.

    Every row has one change at most after the start, so that no two changes can become one on their way: each must be in
    the log exactly once.
    """

    ROUNDS = 200

    def __init__(self, pair: Pair) -> None:
        pair.site.run(DEVICE, TABLE)
        pair.site.commit(
            *(f"insert into device values ({n}, 'old')" for n in range(self.ROUNDS)),
            *(f"insert into reading values ({n}, {n}, 0)" for n in range(2 * self.ROUNDS)),
        )
        pair.install("device", "reading")
        pair.sync()
        pair.centre.run(*LOG[str(pair.centre.engine)])
        self._site = pair.site
        self._round = 0
        self.expected: Counter[tuple[object, ...]] = Counter()

    def write(self) -> None:
        """Two transactions: rows come, change and go."""
        n = self._round
        self._round += 1
        self._site.commit(
            f"insert into reading values ({10_000 + n}, {n}, {n})",
            f"update reading set value = {n} + 0.5 where id = {n}",
        )
        self._site.commit(
            f"update device set name = 'new {n}' where id = {n}", f"delete from reading where id = {self.ROUNDS + n}"
        )
        self.expected.update(
            [("INSERT", 10_000 + n, float(n)), ("UPDATE", n, n + 0.5), ("DELETE", self.ROUNDS + n, None)]
        )


def _log(pair: Pair) -> Counter[tuple[object, ...]]:
    return Counter(pair.centre.rows("select op, id, value from log"))


def test_invariant_3_killed_at_every_gap(pair: Pair) -> None:
    """At each gap: write, kill, write more, kill at the same gap, drain; equal, and every change exactly once."""
    work = Work(pair)
    with crasher(pair) as process:
        work.write()
        gaps = process.ask("trace").split(",")
        for step in ("read_position", "stage_batch", "apply_clean", "find_conflicts", "record_batch"):
            assert f"before target.{step}" in gaps
        assert {"before target.transaction exit", "after target.transaction exit", "before batch.block"} <= set(gaps)
        assert {"before source.acknowledge_batch", "after source.acknowledge_batch"} <= set(gaps)
        for gap in gaps:
            work.write()
            assert process.ask(gap) == "killed", gap
            if gap.endswith(("exit", "record_batch", "acknowledge_batch")):
                work.write()
                assert process.ask(gap) == "killed", gap
        assert process.ask("none") == "passed"
    assert _log(pair) == work.expected
    pair.assert_equal("device", "reading")
    assert pair.conflicts() == []
    assert pair.parked() == []


def test_invariant_3_a_kill_before_the_commit_leaves_nothing_and_behind_it_leaves_all(pair: Pair) -> None:
    """A test of the test: the gaps around the commit really are around it."""
    work = Work(pair)
    with crasher(pair) as process:
        work.write()
        assert process.ask("before target.transaction exit") == "killed"
        assert _log(pair) == Counter()
        assert process.ask("after target.transaction exit") == "killed"
        assert _log(pair) == work.expected
        assert process.ask("before target.record_batch") == "passed"


@pytest.mark.parametrize("role", ["source", "target", "both"])
def test_invariant_3_postgres_killed_and_restarted_mid_apply(
    own_server: EmbeddedServer, make_pair: MakePair, tmp_path: Path, role: str
) -> None:
    site: Place = SqlitePlace(tmp_path / "site.sqlite3")
    centre: Place = SqlitePlace(tmp_path / "centre.sqlite3")
    if role != "target":
        site = PostgresPlace(own_server.create_database("site"))
    if role != "source":
        centre = PostgresPlace(own_server.create_database("centre"))
    pair = Pair(tmp_path, {"factory_a": site}, centre)
    work = Work(pair)
    failures = 0
    for point in ("stage_batch", "apply_clean", "check_constraints", "record_batch", "acknowledge_batch"):
        for _ in range(20):
            work.write()
        failures += _drain_and_kill(pair, own_server, point)
        own_server.start()
    assert failures, "at least one drain was cut"
    _drain_with_patience(pair)
    assert _log(pair) == work.expected
    pair.assert_equal("device", "reading")
    assert pair.parked() == []


def _drain_and_kill(pair: Pair, server: EmbeddedServer, point: str) -> int:
    """Kill the server right before a step; 1 when the drain met the error of its tree that it must meet."""
    try:
        with pair.ends() as ends:
            source = _Killing(ends.source, point, server)
            target = _Killing(ends.target, point, server)
            while run_once(source, target, 7) is not None:  # type: ignore[arg-type]
                pass
    except ReplicatorError:
        return 1
    return 0


class _Killing:
    """An end whose server is killed right before one of its methods is called for the first time."""

    def __init__(self, inner: object, point: str, server: EmbeddedServer) -> None:
        self._inner, self._point, self._server = inner, point, server

    def __getattr__(self, name: str) -> object:
        if name == self._point and self._server.pid:
            self._server.kill()
        return getattr(self._inner, name)


def test_invariant_3_postgres_killed_at_any_moment_while_the_site_writes(
    own_server: EmbeddedServer, tmp_path: Path
) -> None:
    """Source and target on one server, killed while a writer and the drain work; only committed changes count."""
    site = PostgresPlace(own_server.create_database("site"))
    pair = Pair(tmp_path, {"factory_a": site}, PostgresPlace(own_server.create_database("centre")))
    Work(pair)
    for _ in range(3):
        stop = threading.Event()
        writer = threading.Thread(target=_write_until_cut, args=(site, stop))
        writer.start()
        drain = threading.Thread(target=_drain_until_cut, args=(pair, stop))
        drain.start()
        _wait_for_rows(pair, 200)
        own_server.kill()
        stop.set()
        writer.join()
        drain.join()
        own_server.start()
    _drain_with_patience(pair)
    pair.assert_equal("reading")
    assert set(_log(pair).values()) == {1}


def _write_until_cut(site: PostgresPlace, stop: threading.Event) -> None:
    ((number,),) = site.rows("select coalesce(max(id), 0) from reading")
    assert isinstance(number, int)
    try:
        with psycopg.connect(site.url, autocommit=True) as connection:
            while not stop.is_set():
                number += 1
                connection.execute("insert into reading values (%s, 1, 1)", (number,))
    except psycopg.Error:
        return


def _drain_until_cut(pair: Pair, stop: threading.Event) -> None:
    try:
        with pair.ends() as ends:
            while not stop.is_set():
                run_once(ends.source, ends.target, 20)
    except (ReplicatorError, psycopg.Error):
        return


def _wait_for_rows(pair: Pair, more: int) -> None:
    def count() -> int:
        ((number,),) = pair.centre.rows("select count(*) from reading")
        assert isinstance(number, int)
        return number

    wanted, deadline = count() + more, time.monotonic() + 60
    while count() < wanted:
        assert time.monotonic() < deadline, "the drain does not move"


def _drain_with_patience(pair: Pair) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            pair.sync()
            return
        except ReplicatorError:
            assert time.monotonic() < deadline
